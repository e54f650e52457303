"""A k-NN graph as a step of a scikit-learn pipeline: `KnnTransformer`.

    make_pipeline(KnnTransformer(n_neighbors=90), TSNE(metric="precomputed", init="random"))
                       │ fit_transform: knn_graph             ▲
                       │ transform(new rows): knn             │
                       └──── CSR, n_neighbors + 1 distances ──┘

What stands behind it in a pipeline takes neighbours ready-made: TSNE, Isomap, DBSCAN and
KNeighborsClassifier with metric="precomputed", SpectralClustering with
affinity="precomputed_nearest_neighbors", LabelSpreading with a kernel of one's own. scikit-learn is
an extra: `pip install 'simdist[sklearn]'`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from simdist.errors import ConfigError
from simdist.models.graphs import KnnGraph
from simdist.models.knn import Method, knn_graph
from simdist.models.search import knn

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ConfigError(
        f"KnnTransformer needs scikit-learn 1.6 or later ({error}): pip install 'simdist[sklearn]'"
    ) from error

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from simdist.measures import Measure
    from simdist.types import Array, Json

__all__ = ["KnnTransformer"]


class KnnTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Rows to the sparse graph of their nearest neighbours, as sklearn's KNeighborsTransformer.

    mode: "distance": each row first lists itself at 0, then its n_neighbors nearest others:
        n_neighbors + 1 entries. "connectivity": ones, n_neighbors entries with itself among them.
    n_neighbors: how many; at most n - 1 ("connectivity": n).
    metric: a measure: "euclidean", "manhattan", "cosine" (1 - cosine), a mapping or a Measure; one
        without distances, such as dot, only for mode="connectivity". See KnnGraph.distances.
    method, recall: as for `knn_graph`: approximate, with the recall that is asked for, or "exact".
    random_state: seed of the approximate method; the same seed gives the same graph.
    engine: None, "local", "dask", "ray" or an address. scratch: a store for what lies between; see
        `knn_graph`. Named, not opened: scikit-learn copies parameters.

    Fitted: graph_ (after fit_transform): the KnnGraph, with the recall that was measured.
    n_features_in_, n_samples_fit_, feature_names_in_: as everywhere in scikit-learn.

    fit_transform is `knn_graph` of X. transform is `knn` of new rows in the fitted ones: exact for
    a few rows (at most the square root of those fitted), else by `method`. A fitted row given to
    transform finds itself, or a copy of itself, first.

    Raises InputError for fewer rows than neighbours, ConfigError for settings that make no sense,
    ValueError (scikit-learn's) for rows it cannot take. Entries have the precision of X (values are
    float32 underneath), ascending in each row.
    """

    def __init__(
        self,
        *,
        mode: Literal["distance", "connectivity"] = "distance",
        n_neighbors: int = 5,
        metric: Json | Measure = "euclidean",
        method: Method = "approximate",
        recall: float | None = 0.95,
        random_state: int | np.random.RandomState | None = 0,
        engine: str | None = None,
        scratch: str | None = None,
    ) -> None:
        self.mode = mode
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.method = method
        self.recall = recall
        self.random_state = random_state
        self.engine = engine
        self.scratch = scratch

    def fit(self, X: Array, y: object = None) -> KnnTransformer:
        """Keep the rows. X: [n, d]; y is ignored. Nothing is computed yet."""
        rows = _rows(self, X, reset=True)
        if self.mode not in ("distance", "connectivity"):
            raise ConfigError(f"mode={self.mode!r}: expected 'distance' or 'connectivity'")
        self._fit_X = rows
        self.n_samples_fit_ = self._n_features_out = len(rows)
        return self

    def fit_transform(self, X: Array, y: object = None) -> csr_matrix:
        """The graph of X. X: [n, d]; y is ignored. Returns CSR [n, n], nearest first."""
        self.fit(X)
        others = self._entries - 1
        graph = knn_graph(self._fit_X, max(others, 1), **self._options())
        nearest = replace(graph, indices=graph.indices[:, :others], values=graph.values[:, :others])
        self.graph_ = graph
        return self._matrix(nearest, self._fit_X, include_self=True)

    def transform(self, X: Array) -> csr_matrix:
        """The fitted rows nearest to each row. X: [m, d]. Returns CSR [m, n], nearest first."""
        check_is_fitted(self)
        rows = _rows(self, X, reset=False)
        options = self._options()
        if len(rows) <= math.isqrt(self.n_samples_fit_):
            options["method"] = "exact"
        hits = knn(rows, self._fit_X, self._entries, **options)
        return self._matrix(hits, rows, include_self=False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _entries(self) -> int:
        """Of a row, itself among them."""
        return int(self.n_neighbors) + (self.mode == "distance")

    def _options(self) -> dict[str, Any]:
        seed = self.random_state
        if not isinstance(seed, int):
            seed = int(check_random_state(seed).randint(np.iinfo(np.int32).max))
        return {
            "measure": self.metric,
            "method": self.method,
            "recall": self.recall,
            "seed": seed,
            "engine": self.engine,
            "scratch": self.scratch,
        }

    def _matrix(self, graph: KnnGraph, rows: Array, *, include_self: bool) -> csr_matrix:
        found = graph.to_scipy(self.mode, include_self=include_self)
        found.data = found.data.astype(rows.dtype, copy=False)
        return found


def _rows(transformer: KnnTransformer, X: Array, *, reset: bool) -> Array:
    """X checked as scikit-learn checks it: [n, d] float32 or float64, finite."""
    rows: Array = validate_data(transformer, X, reset=reset, dtype=[np.float64, np.float32])
    return rows
