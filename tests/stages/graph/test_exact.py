"""method="exact" is the definition, bit for bit: values by the fixed kernel, ties by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stages.graph.nasty import (
    MEASURES,
    NASTY,
    Chebyshev,
    K,
    Overlap,
    check_law,
    dense,
    graph_of,
    random,
)

from simdist.engine import Engine
from simdist.measures import resolve
from simdist.recall import Recall

PAIRED = [
    *((data, measure) for data in NASTY for measure in ("cosine", "euclidean")),
    *(
        (data, measure)
        for data in ("near-duplicates far from the origin", "30 % copies of one row")
        for measure in ("dot", "sqeuclidean", "manhattan", "scaled", "squash")
    ),
    *(("ties between different rows", measure) for measure in ("dot", "manhattan")),
    ("heavy-tailed lengths", "dot"),
    ("negative similarities", "dot"),
]


@pytest.mark.parametrize(("data", "measure"), PAIRED)
def test_exact_equals_the_dense_definition(data: str, measure: str, one_thread: Engine):
    x, spec = NASTY[data](), MEASURES[measure]
    graph = graph_of(x, K, measure=spec, method="exact", engine=one_thread)
    check_law(x, graph, spec, K)
    ids, values = dense(x, spec, K)
    np.testing.assert_array_equal(graph.indices, ids)
    np.testing.assert_array_equal(graph.values, values)
    assert graph.recall == Recall(1.0, 1.0, 1.0, tie_aware=1.0, p5=1.0, rows=len(x))


@pytest.mark.parametrize("measure", [Chebyshev(), Overlap()])
def test_exact_takes_a_users_own_measure(measure: Any, one_thread: Engine):
    x = random(120, 5)
    graph = graph_of(x, 4, measure=measure, method="exact", engine=one_thread)
    np.testing.assert_array_equal(graph.indices, dense(x, resolve(measure), 4)[0])


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
@pytest.mark.parametrize(("n", "k"), [(2, 1), (8, 7), (300, 298), (65, 3)])
def test_exact_takes_sizes_at_the_edge(n: int, k: int, measure: str, one_thread: Engine):
    x = random(n, 4)
    graph = graph_of(x, k, measure=measure, method="exact", engine=one_thread)
    np.testing.assert_array_equal(graph.indices, dense(x, measure, k)[0])


def test_thousands_of_ties_go_to_the_smallest_rows(one_thread: Engine):
    x = np.repeat(random(2, 8), 1500, axis=0)
    graph = graph_of(x, K, measure="cosine", method="exact", engine=one_thread)
    np.testing.assert_array_equal(graph.indices[1499], np.arange(K))
    np.testing.assert_array_equal(graph.indices[2999], 1500 + np.arange(K))
    np.testing.assert_array_equal(graph.indices[1], [0, *range(2, K + 1)])
