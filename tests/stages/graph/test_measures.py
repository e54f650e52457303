"""Measures beyond L2 and cosine: the same law, the same promise, against the dense answer."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from stages.graph.nasty import (
    K,
    check_law,
    clustered,
    committed,
    dense,
    draws,
    graph_of,
    random,
    recall_of,
)

from simdist import datasets
from simdist.engine import Engine
from simdist.measures import Dot, Hamming, Jaccard, Manhattan, Measure, Packed, Traits
from simdist.types import Array

N = 900


def trigrams() -> Array:
    """What three letters follow one another in a package's summary, hashed into 256 columns."""
    table = datasets.load("debian-packages").slice(0, N)
    x = np.zeros((N, 256), np.float16)
    for row, summary in enumerate(table["summary"].to_pylist()):
        for start in range(len(summary) - 2):
            x[row, zlib.crc32(summary[start : start + 3].lower().encode()) % 256] = 1
    return x


def signs() -> Array:
    """Embeddings of which only the signs are left: many ties, many copies."""
    return (clustered(N, 32) > 0).astype(np.float16)


def packed(x: Array) -> Array:
    return np.packbits(x.astype(bool), axis=1).astype(np.float16)


def popular(n: int = N) -> Array:
    """As matrix factorisation leaves them: lengths that are popularity, all to one side."""
    rng = draws(30)
    x = rng.standard_normal((n, 24)) / np.sqrt(np.arange(1, 25))
    x[:, 0] += 1.5
    return (x * np.exp(0.7 * rng.standard_normal((n, 1)))).astype(np.float32)


def with_zeros() -> Array:
    x = random(N, 12)
    x[::9] = 0.0
    return x


@dataclass(frozen=True, slots=True)
class GreatCircle(Measure):
    """The angle between two places given as latitude and longitude in degrees."""

    name: ClassVar[str] = "great_circle"
    traits: ClassVar[Traits] = Traits(kind="distance", low=0.0)

    def pair(self, x: Array, y: Array) -> float:
        (a, b), (c, d) = np.radians(x), np.radians(y)
        half = np.sin((a - c) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((b - d) / 2) ** 2
        return float(2 * np.arcsin(np.sqrt(min(half, 1.0))))

    def block(self, X: Any, Y: Any) -> Array:
        A, B = self.both(X, Y)
        return self._angles(A.vectors[:, None], B.vectors[None])

    def pairs(self, X: Any, Y: Any) -> Array:
        A, B = self.matched(X, Y)
        return self._angles(A.vectors, B.vectors)

    def _angles(self, x: Array, y: Array) -> Array:
        x, y = np.radians(x.astype(np.float64)), np.radians(y.astype(np.float64))
        half = np.sin((x - y) / 2) ** 2
        half = half[..., 0] + np.cos(x[..., 0]) * np.cos(y[..., 0]) * half[..., 1]
        return (2 * np.arcsin(np.sqrt(np.minimum(half, 1.0)))).astype(np.float32)


def places() -> Array:
    """Around the globe; degrees of longitude shrink to the poles, and 180 is next to -180."""
    rng = draws(31)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, N)))
    return np.stack([latitude, rng.uniform(-180, 180, N)], axis=1).astype(np.float32)


CASES = {
    "inner product, lengths of popularity": (popular, Dot()),
    "inner product, rows of zeros": (with_zeros, Dot()),
    "inner product, scaled columns": (
        popular,
        {"name": "scaled", "measure": "dot", "lengthscales": [0.5, 2.0] * 12},
    ),
    "manhattan, clusters": (clustered, Manhattan()),
    "laplacian kernel": (random, {"name": "squash", "measure": "manhattan", "scale": 3.0}),
    "hamming, signs": (signs, Hamming()),
    "hamming, text": (trigrams, Hamming()),
    "jaccard, text": (trigrams, Jaccard()),
    "packed hamming, signs": (lambda: packed(signs()), Packed(Hamming())),
    "packed jaccard, text": (lambda: packed(trigrams()), Packed(Jaccard())),
    "a user's own, with a seam and two poles": (places, GreatCircle()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_law_holds_and_the_recall_asked_for_is_there(case: str, one_thread: Engine):
    make, measure = CASES[case]
    x = make()
    graph = graph_of(x, K, measure=measure, recall=0.95, engine=one_thread)
    check_law(x, graph, measure, K)
    truth, _ = dense(x, measure, K)
    # Fewer rows than are sampled: what is reported is no estimate.
    assert graph.recall is not None
    assert graph.recall.low == pytest.approx(recall_of(graph.indices, truth), abs=2e-6)
    assert graph.recall.low >= 0.95


@pytest.mark.parametrize("measure", ["euclidean", "sqeuclidean"])
def test_far_from_the_origin_not_every_pair_has_to_be_compared(measure: str, one_thread: Engine):
    x = (1e4 + random(N, 16)).astype(np.float32)
    made = committed(x, one_thread, k=K, measure=measure, recall=0.95)
    assert "pairs" not in made.metrics["rounds"]
    graph = made.open()
    check_law(x, graph, measure, K)
    assert recall_of(graph.indices, dense(x, measure, K)[0]) >= 0.95


@pytest.mark.parametrize("case", ["jaccard, text", "packed hamming, signs"])
def test_the_exact_method_gives_the_dense_answer(case: str, one_thread: Engine):
    make, measure = CASES[case]
    x = make()
    graph = graph_of(x, K, measure=measure, method="exact", engine=one_thread)
    truth, values = dense(x, measure, K)
    assert np.array_equal(graph.indices, truth)
    assert np.array_equal(graph.values, values)


def test_packed_and_unpacked_rows_have_the_same_graph(one_thread: Engine):
    x = trigrams()
    plain = graph_of(x, K, measure=Hamming(), method="exact", engine=one_thread)
    bytes_ = graph_of(packed(x), K, measure=Packed(Hamming()), method="exact", engine=one_thread)
    assert np.array_equal(plain.indices, bytes_.indices)
    assert np.array_equal(plain.values, bytes_.values)
