"""Every step a flow may have, by the name of its stage."""

from __future__ import annotations

from collections.abc import Mapping

from simdist.config import (
    attention_steps,
    density_steps,
    feature_steps,
    gp_steps,
    graph_steps,
    machine_steps,
    neighbor_gp_steps,
    retrieve_steps,
    sparse_attention_steps,
    steps,
)
from simdist.config.steps import Step

__all__ = ["STEPS"]

STEPS: Mapping[str, type[Step]] = {
    "knn_graph": steps.KnnGraphStep,
    "index": retrieve_steps.IndexStep,
    "retrieve": retrieve_steps.RetrieveStep,
    "similarity_tiles": steps.SimilarityTilesStep,
    "append": steps.AppendStep,
    "similarity_join": steps.SimilarityJoinStep,
    "deduplicate": steps.DeduplicateStep,
    "similarity_graph": graph_steps.SimilarityGraphStep,
    "connected_components": graph_steps.ConnectedComponentsStep,
    "spectral_embedding": graph_steps.SpectralEmbeddingStep,
    "diffusion_map": graph_steps.DiffusionMapStep,
    "spectral_clusters": graph_steps.SpectralClustersStep,
    "affinity_propagation": graph_steps.AffinityPropagationStep,
    "normalized_cut": graph_steps.NormalizedCutStep,
    "propagate": graph_steps.PropagateStep,
    "column_labels": graph_steps.ColumnLabelsStep,
    "label_propagation": graph_steps.LabelPropagationStep,
    "correct_and_smooth": graph_steps.CorrectAndSmoothStep,
    "nystroem": feature_steps.NystroemStep,
    "random_features": feature_steps.RandomFeaturesStep,
    "attention": attention_steps.AttentionStep,
    "kernel_density": density_steps.KernelDensityStep,
    "outlier_scores": density_steps.OutlierScoresStep,
    "mean_shift": density_steps.MeanShiftStep,
    "kernel_regression": density_steps.KernelRegressionStep,
    "score_field": density_steps.ScoreFieldStep,
    "denoise": density_steps.DenoiseStep,
    "sparse_attention": sparse_attention_steps.SparseAttentionStep,
    "kernel_ridge": machine_steps.KernelRidgeStep,
    "kernel_svm": machine_steps.KernelSvmStep,
    "kernel_pca": machine_steps.KernelPcaStep,
    "kernel_predict": machine_steps.KernelPredictStep,
    "kernel_transform": machine_steps.KernelTransformStep,
    "sparse_gp": gp_steps.SparseGPStep,
    "gp_predict": gp_steps.GPPredictStep,
    "neighbor_gp": neighbor_gp_steps.NeighborGPStep,
    "neighbor_gp_predict": neighbor_gp_steps.NeighborPredictStep,
    "dirichlet_gp": neighbor_gp_steps.DirichletGPStep,
    "dirichlet_gp_predict": neighbor_gp_steps.DirichletPredictStep,
}
