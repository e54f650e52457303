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
    from simdist.models.affinity import Exemplars, affinity_propagation
    from simdist.models.clusters import Clusters, NormalizedCut, normalized_cut, spectral_clusters
    from simdist.models.components import Components, connected_components
    from simdist.models.dedupe import Deduplicated, deduplicate
    from simdist.models.edges import import_graph
    from simdist.models.graphs import KnnGraph
    from simdist.models.grow import append, compact, delete
    from simdist.models.knn import knn_graph
    from simdist.models.links import SimilarityGraph
    from simdist.models.neighbors import KnnTransformer
    from simdist.models.pairs import SimilarityPairs, similarity_join
    from simdist.models.propagation import Labels, correct_and_smooth, label_propagation, propagate
    from simdist.models.search import knn
    from simdist.models.similarity import similarity_graph
    from simdist.models.spectral import SpectralEmbedding, diffusion_map, spectral_embedding
    from simdist.models.tiles import TilesDataset, similarity_tiles
    from simdist.models.vectors import import_vectors
    from simdist.stages.graph.config import KnnParams
    from simdist.store import Dataset, open_store

__version__ = "0.1.0"

__all__ = [
    "Clusters",
    "Components",
    "Dataset",
    "Deduplicated",
    "Exemplars",
    "KnnGraph",
    "KnnParams",
    "KnnTransformer",
    "Labels",
    "NormalizedCut",
    "SimdistError",
    "SimilarityGraph",
    "SimilarityPairs",
    "SpectralEmbedding",
    "TilesDataset",
    "__version__",
    "affinity_propagation",
    "append",
    "compact",
    "connected_components",
    "correct_and_smooth",
    "datasets",
    "deduplicate",
    "delete",
    "diffusion_map",
    "errors",
    "import_graph",
    "import_vectors",
    "knn",
    "knn_graph",
    "label_propagation",
    "measures",
    "normalized_cut",
    "open_engine",
    "open_store",
    "propagate",
    "similarity_graph",
    "similarity_join",
    "similarity_tiles",
    "spectral_clusters",
    "spectral_embedding",
]

_MODULES = ("datasets", "errors", "measures")
_HOMES = {
    "Clusters": "simdist.models.clusters",
    "Components": "simdist.models.components",
    "Dataset": "simdist.store",
    "Deduplicated": "simdist.models.dedupe",
    "Exemplars": "simdist.models.affinity",
    "KnnGraph": "simdist.models.graphs",
    "KnnParams": "simdist.stages.graph.config",
    "KnnTransformer": "simdist.models.neighbors",
    "Labels": "simdist.models.propagation",
    "NormalizedCut": "simdist.models.clusters",
    "SimdistError": "simdist.errors",
    "SimilarityGraph": "simdist.models.links",
    "SimilarityPairs": "simdist.models.pairs",
    "SpectralEmbedding": "simdist.models.spectral",
    "TilesDataset": "simdist.models.tiles",
    "affinity_propagation": "simdist.models.affinity",
    "append": "simdist.models.grow",
    "compact": "simdist.models.grow",
    "connected_components": "simdist.models.components",
    "correct_and_smooth": "simdist.models.propagation",
    "deduplicate": "simdist.models.dedupe",
    "delete": "simdist.models.grow",
    "diffusion_map": "simdist.models.spectral",
    "import_graph": "simdist.models.edges",
    "import_vectors": "simdist.models.vectors",
    "knn": "simdist.models.search",
    "knn_graph": "simdist.models.knn",
    "label_propagation": "simdist.models.propagation",
    "normalized_cut": "simdist.models.clusters",
    "open_engine": "simdist.engine",
    "open_store": "simdist.store",
    "propagate": "simdist.models.propagation",
    "similarity_graph": "simdist.models.similarity",
    "similarity_join": "simdist.models.pairs",
    "similarity_tiles": "simdist.models.tiles",
    "spectral_clusters": "simdist.models.clusters",
    "spectral_embedding": "simdist.models.spectral",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"simdist.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'simdist' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found  # next time without this detour
    return found


def __dir__() -> list[str]:
    return __all__
