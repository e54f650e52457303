"""Similarity matrices too large to exist, folded tile by tile into k-NN graphs and models.

    import simdist as sd

    graph = sd.knn_graph(x, k=15, measure="cosine", recall=0.95)    # on arrays
    hits  = sd.knn(queries, corpus, k=10, measure="cosine")
    tiles = sd.similarity_tiles(x, dtype="float16")                 # the matrix itself, in Zarr
    pairs = sd.similarity_join(x, threshold=0.92)                   # all pairs that are near
    kept  = sd.deduplicate(x, threshold=0.95)                       # one of each group stays

    links = sd.similarity_graph(graph, weights="umap")              # symmetric, weighted
    z     = sd.spectral_embedding(links, dim=16)                    # and clusters, diffusion, ...

    store   = sd.open_store("s3://bucket/prefix")                   # on stored datasets
    vectors = sd.import_vectors("s3://lake/*.parquet", id="id", vector="embedding", store=store)
    graph   = sd.knn_graph(vectors, k=15, measure="cosine", store=store)

Everything here is imported when it is first used: `import simdist` itself costs milliseconds and
brings in no scheduler, no compiler and no array library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simdist import datasets, errors, measures
    from simdist.engine import open_engine
    from simdist.errors import SimdistError
    from simdist.measures import kernels
    from simdist.models.affinity import Exemplars, affinity_propagation
    from simdist.models.attention import (
        Attention,
        AttentionDataset,
        AttentionGradients,
        attention,
        attention_gradients,
    )
    from simdist.models.clusters import Clusters, NormalizedCut, normalized_cut, spectral_clusters
    from simdist.models.components import Components, connected_components
    from simdist.models.dedupe import Deduplicated, deduplicate
    from simdist.models.denoise import Denoised, ScoreField, denoise, score_field
    from simdist.models.density import KernelDensity, OutlierScores, kernel_density, outlier_scores
    from simdist.models.dirichlet_gp import DirichletGP
    from simdist.models.edges import import_graph
    from simdist.models.features import Nystroem, RandomFeatures
    from simdist.models.graphs import KnnGraph
    from simdist.models.grow import append, compact, delete
    from simdist.models.hits import Hits
    from simdist.models.kernel_pca import KernelPCA
    from simdist.models.kernel_regression import KernelRegression, kernel_regression
    from simdist.models.kernel_ridge import KernelRidge
    from simdist.models.kernel_svm import KernelSVM
    from simdist.models.knn import knn_graph
    from simdist.models.links import SimilarityGraph
    from simdist.models.mean_shift import Modes, mean_shift
    from simdist.models.neighbor_gp import NeighborGP
    from simdist.models.neighbors import KnnTransformer
    from simdist.models.pairs import SimilarityPairs, similarity_join
    from simdist.models.propagation import Labels, correct_and_smooth, label_propagation, propagate
    from simdist.models.retrieve import index, retrieve
    from simdist.models.search import knn
    from simdist.models.similarity import similarity_graph
    from simdist.models.sparse_attention import SparseAttention, sparse_attention
    from simdist.models.sparse_gp import SparseGP
    from simdist.models.spectral import SpectralEmbedding, diffusion_map, spectral_embedding
    from simdist.models.tiles import TilesDataset, similarity_tiles
    from simdist.models.vectors import import_vectors
    from simdist.stages.graph.config import KnnParams
    from simdist.store import Dataset, open_store

__version__ = "0.1.0"

__all__ = [
    "Attention",
    "AttentionDataset",
    "AttentionGradients",
    "Clusters",
    "Components",
    "Dataset",
    "Deduplicated",
    "Denoised",
    "DirichletGP",
    "Exemplars",
    "Hits",
    "KernelDensity",
    "KernelPCA",
    "KernelRegression",
    "KernelRidge",
    "KernelSVM",
    "KnnGraph",
    "KnnParams",
    "KnnTransformer",
    "Labels",
    "Modes",
    "NeighborGP",
    "NormalizedCut",
    "Nystroem",
    "OutlierScores",
    "RandomFeatures",
    "ScoreField",
    "SimdistError",
    "SimilarityGraph",
    "SimilarityPairs",
    "SparseAttention",
    "SparseGP",
    "SpectralEmbedding",
    "TilesDataset",
    "__version__",
    "affinity_propagation",
    "append",
    "attention",
    "attention_gradients",
    "compact",
    "connected_components",
    "correct_and_smooth",
    "datasets",
    "deduplicate",
    "delete",
    "denoise",
    "diffusion_map",
    "errors",
    "import_graph",
    "import_vectors",
    "index",
    "kernel_density",
    "kernel_regression",
    "kernels",
    "knn",
    "knn_graph",
    "label_propagation",
    "mean_shift",
    "measures",
    "normalized_cut",
    "open_engine",
    "open_store",
    "outlier_scores",
    "propagate",
    "retrieve",
    "score_field",
    "similarity_graph",
    "similarity_join",
    "similarity_tiles",
    "sparse_attention",
    "spectral_clusters",
    "spectral_embedding",
]

_MODULES = {
    "datasets": "simdist.datasets",
    "errors": "simdist.errors",
    "kernels": "simdist.measures.kernels",
    "measures": "simdist.measures",
}
_HOMES = {
    "Attention": "simdist.models.attention",
    "AttentionDataset": "simdist.models.attention",
    "AttentionGradients": "simdist.models.attention",
    "Clusters": "simdist.models.clusters",
    "Components": "simdist.models.components",
    "Dataset": "simdist.store",
    "Deduplicated": "simdist.models.dedupe",
    "Denoised": "simdist.models.denoise",
    "DirichletGP": "simdist.models.dirichlet_gp",
    "Exemplars": "simdist.models.affinity",
    "Hits": "simdist.models.hits",
    "KernelDensity": "simdist.models.density",
    "KernelPCA": "simdist.models.kernel_pca",
    "KernelRegression": "simdist.models.kernel_regression",
    "KernelRidge": "simdist.models.kernel_ridge",
    "KernelSVM": "simdist.models.kernel_svm",
    "KnnGraph": "simdist.models.graphs",
    "KnnParams": "simdist.stages.graph.config",
    "KnnTransformer": "simdist.models.neighbors",
    "Labels": "simdist.models.propagation",
    "Modes": "simdist.models.mean_shift",
    "NeighborGP": "simdist.models.neighbor_gp",
    "NormalizedCut": "simdist.models.clusters",
    "Nystroem": "simdist.models.features",
    "OutlierScores": "simdist.models.density",
    "RandomFeatures": "simdist.models.features",
    "ScoreField": "simdist.models.denoise",
    "SimdistError": "simdist.errors",
    "SimilarityGraph": "simdist.models.links",
    "SimilarityPairs": "simdist.models.pairs",
    "SparseAttention": "simdist.models.sparse_attention",
    "SparseGP": "simdist.models.sparse_gp",
    "SpectralEmbedding": "simdist.models.spectral",
    "TilesDataset": "simdist.models.tiles",
    "affinity_propagation": "simdist.models.affinity",
    "append": "simdist.models.grow",
    "attention": "simdist.models.attention",
    "attention_gradients": "simdist.models.attention",
    "compact": "simdist.models.grow",
    "connected_components": "simdist.models.components",
    "correct_and_smooth": "simdist.models.propagation",
    "deduplicate": "simdist.models.dedupe",
    "delete": "simdist.models.grow",
    "denoise": "simdist.models.denoise",
    "diffusion_map": "simdist.models.spectral",
    "import_graph": "simdist.models.edges",
    "import_vectors": "simdist.models.vectors",
    "index": "simdist.models.retrieve",
    "kernel_density": "simdist.models.density",
    "kernel_regression": "simdist.models.kernel_regression",
    "knn": "simdist.models.search",
    "knn_graph": "simdist.models.knn",
    "label_propagation": "simdist.models.propagation",
    "mean_shift": "simdist.models.mean_shift",
    "normalized_cut": "simdist.models.clusters",
    "open_engine": "simdist.engine",
    "open_store": "simdist.store",
    "outlier_scores": "simdist.models.density",
    "propagate": "simdist.models.propagation",
    "retrieve": "simdist.models.retrieve",
    "score_field": "simdist.models.denoise",
    "similarity_graph": "simdist.models.similarity",
    "similarity_join": "simdist.models.pairs",
    "similarity_tiles": "simdist.models.tiles",
    "sparse_attention": "simdist.models.sparse_attention",
    "spectral_clusters": "simdist.models.clusters",
    "spectral_embedding": "simdist.models.spectral",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'simdist' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found  # next time without this detour
    return found


def __dir__() -> list[str]:
    return __all__
