"""Every step a flow may have, by the name of its stage."""

from __future__ import annotations

from collections.abc import Mapping

from simdist.config import graph_steps, steps
from simdist.config.steps import Step

__all__ = ["STEPS"]

STEPS: Mapping[str, type[Step]] = {
    "knn_graph": steps.KnnGraphStep,
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
}
