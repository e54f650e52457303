"""Similarity matrices too large to exist, folded tile by tile into k-NN graphs and models.

    import simdist as sd

    graph = sd.knn_graph(x, k=15, measure="cosine", recall=0.95)    # on arrays
    hits  = sd.knn(queries, corpus, k=10, measure="cosine")
    tiles = sd.similarity_tiles(x, dtype="float16")                 # the matrix itself, in Zarr

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
    from simdist.models.graphs import KnnGraph
    from simdist.models.grow import append, compact, delete
    from simdist.models.knn import knn_graph
    from simdist.models.neighbors import KnnTransformer
    from simdist.models.search import knn
    from simdist.models.tiles import TilesDataset, similarity_tiles
    from simdist.models.vectors import import_vectors
    from simdist.stages.graph.config import KnnParams
    from simdist.store import Dataset, open_store

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "KnnGraph",
    "KnnParams",
    "KnnTransformer",
    "SimdistError",
    "TilesDataset",
    "__version__",
    "append",
    "compact",
    "datasets",
    "delete",
    "errors",
    "import_vectors",
    "knn",
    "knn_graph",
    "measures",
    "open_engine",
    "open_store",
    "similarity_tiles",
]

_MODULES = ("datasets", "errors", "measures")
_HOMES = {
    "Dataset": "simdist.store",
    "KnnGraph": "simdist.models.graphs",
    "KnnParams": "simdist.stages.graph.config",
    "KnnTransformer": "simdist.models.neighbors",
    "SimdistError": "simdist.errors",
    "TilesDataset": "simdist.models.tiles",
    "append": "simdist.models.grow",
    "compact": "simdist.models.grow",
    "delete": "simdist.models.grow",
    "import_vectors": "simdist.models.vectors",
    "knn": "simdist.models.search",
    "knn_graph": "simdist.models.knn",
    "open_engine": "simdist.engine",
    "open_store": "simdist.store",
    "similarity_tiles": "simdist.models.tiles",
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
