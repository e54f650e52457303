"""What the tests of k-NN graphs share: data that breaks naive builders, the law every graph obeys,
and the dense answer.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from simdist.engine import Engine
from simdist.measures import Measure, Traits, resolve
from simdist.models.graphs import GraphDataset, KnnGraph
from simdist.models.knn import knn_graph
from simdist.models.vectors import import_array
from simdist.store import open_store
from simdist.types import Array, Float32, Ids

K = 7


def draws(*key: int) -> np.random.Generator:
    return np.random.default_rng([20, *key])


def random(n: int = 900, d: int = 16, *, seed: int = 0) -> Array:
    return draws(seed).standard_normal((n, d)).astype(np.float32)


def clustered(n: int = 900, d: int = 16) -> Array:
    rng = draws(1)
    centres = 5 * rng.standard_normal((12, d))
    return (centres[rng.integers(0, 12, n)] + 0.3 * rng.standard_normal((n, d))).astype(np.float32)


def duplicates(n: int = 900, d: int = 16, *, share: float = 0.3) -> Array:
    """A share of the rows are copies of one row."""
    x = random(n, d, seed=2)
    x[draws(2).choice(n, int(share * n), replace=False)] = x[0]
    return x


def groups_of_copies(n: int = 900, d: int = 16, *, kinds: int = 6) -> Array:
    return random(kinds, d, seed=3)[draws(3).integers(0, kinds, n)]


def two_far(n: int = 900, d: int = 16) -> Array:
    x = random(n, d, seed=4)
    x[n // 2 :] += 1000.0
    return x


def constant_columns(n: int = 900, d: int = 16) -> Array:
    x = random(n, d, seed=5)
    x[:, ::2] = 3.0
    return x


def flat(n: int = 900) -> Array:
    """Two dimensions in 384 columns."""
    rng = draws(6)
    return (rng.standard_normal((n, 2)) @ rng.standard_normal((2, 384))).astype(np.float32)


def heavy_tailed(n: int = 900, d: int = 16) -> Array:
    """Lengths over six orders of magnitude."""
    lengths = np.exp(2 * draws(7).standard_normal((n, 1)))
    return (random(n, d, seed=7) * lengths).astype(np.float32)


def hubs(n: int = 900) -> Array:
    """Gaussian in 512 dimensions: a few rows are everyone's neighbours."""
    return random(n, 512, seed=8)


def negative(n: int = 500) -> Array:
    """Every similarity of two different rows is negative: a simplex, centred."""
    return (np.eye(n) - 1.0 / n).astype(np.float32)


def centred(n: int = 900, d: int = 16) -> Array:
    x = draws(9).random((n, d))
    return (x - x.mean(axis=0)).astype(np.float32)


def binary(n: int = 900) -> Array:
    """Small integers: ties between different rows everywhere."""
    return 1 + draws(10).integers(0, 2, (n, 8)).astype(np.float32)


def far_from_origin(n: int = 900, d: int = 16) -> Array:
    """Near-duplicates 1000 from the origin: float32 products have lost every digit of the gaps."""
    return (1000 + 1e-3 * draws(11).standard_normal((n, d))).astype(np.float32)


NASTY: dict[str, Callable[[], Array]] = {
    "random": random,
    "clusters": clustered,
    "30 % copies of one row": duplicates,
    "copies only": groups_of_copies,
    "all rows equal": lambda: np.tile(random(1, 16), (900, 1)),
    "one cluster off the origin": lambda: (10 + 0.01 * random()).astype(np.float32),
    "two far clusters": two_far,
    "constant columns": constant_columns,
    "two dimensions in 384 columns": flat,
    "heavy-tailed lengths": heavy_tailed,
    "hubs": hubs,
    "negative similarities": negative,
    "centred": centred,
    "one dimension": lambda: random(900, 1),
    "ties between different rows": binary,
    "near-duplicates far from the origin": far_from_origin,
    "float16": lambda: random().astype(np.float16),
    "float64": lambda: draws(12).standard_normal((900, 16)),
}

SCALED = {"name": "scaled", "measure": "euclidean", "lengthscales": [0.5, 1.0, 2.0, 4.0] * 4}
SQUASHED = {"name": "squash", "measure": "sqeuclidean", "scale": 20.0}
MEASURES: dict[str, Any] = {
    "cosine": "cosine",
    "dot": "dot",
    "sqeuclidean": "sqeuclidean",
    "euclidean": "euclidean",
    "manhattan": "manhattan",
    "scaled": SCALED,
    "squash": SQUASHED,
}


@dataclass(frozen=True, slots=True)
class Chebyshev(Measure):
    """A user's own measure by pair and block, whose block comes in float64."""

    name: ClassVar[str] = "chebyshev"
    traits: ClassVar[Traits] = Traits(kind="distance", metric=True, low=0.0)

    def pair(self, x: Array, y: Array) -> float:
        return float(np.abs(x - y).max())

    def block(self, X: Any, Y: Any) -> Array:
        A, B = self.both(X, Y)
        return np.abs(A.vectors.astype(np.float64)[:, None] - B.vectors[None]).max(axis=2)


@dataclass(frozen=True, slots=True)
class Overlap(Measure):
    """A user's own similarity by pair alone."""

    name: ClassVar[str] = "overlap"
    traits: ClassVar[Traits] = Traits(kind="similarity")

    def pair(self, x: Array, y: Array) -> float:
        return float(np.minimum(x, y).sum())


def graph_of(x: Array, k: int, **options: Any) -> KnnGraph:
    """`knn_graph` of an array, its intermediate data in a store in memory."""
    return knn_graph(x, k, **{"scratch": f"memory://{uuid.uuid4().hex}", **options})


def committed(x: Array, engine: Engine, **options: Any) -> GraphDataset:
    """The graph of an array as a dataset, in a store of its own."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    return knn_graph(import_array(x, store=store, engine=engine), engine=engine, **options)


def stored(x: Array) -> Array:
    """The rows as an import keeps them: float64 becomes float32."""
    return x.astype(np.float32) if x.dtype == np.float64 else x


def check_law(x: Array, graph: KnnGraph, measure: Any, k: int) -> None:
    """k distinct other rows each, in range, values of `measure.pairs`, ordered by (value, row)."""
    n, own = len(x), resolve(measure)
    indices, values = graph.indices, graph.values
    assert (indices.shape, indices.dtype, values.dtype) == ((n, k), np.int64, np.float32)
    assert indices.min() >= 0
    assert indices.max() < n
    assert not (indices == np.arange(n)[:, None]).any(), "a row is its own neighbour"
    ascending = np.sort(indices, axis=1)
    assert (ascending[:, 1:] > ascending[:, :-1]).all(), "a neighbour is listed twice"
    rows = own.prepare(stored(x))
    expected = own.pairs_at(rows, np.repeat(np.arange(n), k), rows, indices.ravel())
    np.testing.assert_array_equal(values, expected.reshape(n, k))
    key = -values if own.traits.kind == "similarity" else values
    before, after = key[:, :-1], key[:, 1:]
    in_order = (after > before) | ((after == before) & (indices[:, 1:] > indices[:, :-1]))
    assert in_order.all(), "neighbours are not ordered by (value, row)"


def dense(x: Array, measure: Any, k: int) -> tuple[Ids, Float32]:
    """The definition: all values by `measure.pairs_at`, ties by row, the row itself left out."""
    own, n = resolve(measure), len(x)
    rows = own.prepare(stored(x))
    ids, values = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    for i in range(n):
        found = own.pairs_at(rows, np.full(n, i), rows, np.arange(n))
        key = -found if own.traits.kind == "similarity" else found
        order = np.lexsort((np.arange(n), key))
        ids[i] = order[order != i][:k]
        values[i] = found[ids[i]]
    return ids, values


def recall_of(indices: Ids, truth: Ids) -> float:
    """Share of the true neighbours that are listed, over all rows."""
    return float((indices[:, :, None] == truth[:, None, :]).any(axis=1).mean())
