"""Every row of every graph has exactly k right neighbours, whatever the data."""

from __future__ import annotations

from typing import Any

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
    recall_of,
)

from simdist.engine import Engine
from simdist.errors import InputError
from simdist.stages.graph import KnnParams

# The worst of a kind for each measure; every data set and every measure is met.
PAIRED = [
    *((data, measure) for data in NASTY for measure in ("cosine", "euclidean")),
    *((data, "dot") for data in ("30 % copies of one row", "heavy-tailed lengths", "hubs")),
    *((data, "sqeuclidean") for data in ("all rows equal", "two far clusters")),
    *((data, "manhattan") for data in ("random", "ties between different rows")),
    *((data, name) for data in ("random", "copies only") for name in ("scaled", "squash")),
    ("negative similarities", "dot"),
    ("one dimension", "manhattan"),
]


@pytest.mark.parametrize(("data", "measure"), PAIRED)
def test_the_law_holds_the_target_is_met_and_the_recall_reported_is_true(
    data: str, measure: str, one_thread: Engine
):
    x, spec = NASTY[data](), MEASURES[measure]
    graph = graph_of(x, K, measure=spec, recall=0.95, engine=one_thread)
    check_law(x, graph, spec, K)
    truth, _ = dense(x, spec, K)
    # 1,000 rows are sampled and there are fewer: what is reported is no estimate.
    assert graph.recall is not None
    assert graph.recall.rows == len(x)
    assert graph.recall.low == pytest.approx(recall_of(graph.indices, truth), abs=2e-6)
    assert graph.recall.low >= 0.95


@pytest.mark.parametrize("measure", [Chebyshev(), Overlap()])
def test_a_users_own_measure_obeys_the_law(measure: Any, one_thread: Engine):
    x = random(150, 5)
    graph = graph_of(x, 4, measure=measure, engine=one_thread)
    check_law(x, graph, measure, 4)
    assert graph.recall is not None
    assert graph.recall.low >= 0.95
    assert recall_of(graph.indices, dense(x, measure, 4)[0]) >= 0.95


@pytest.mark.parametrize(
    ("n", "k", "params"),
    [
        pytest.param(2, 1, {}, id="two rows"),
        pytest.param(8, 7, {}, id="n = k + 1"),
        pytest.param(60, 58, {}, id="k close to n"),
        pytest.param(300, 40, {"leaf_rows": 16}, id="k above the leaf size"),
        pytest.param(300, 5, {"leaf_rows": 2, "leaf_neighbors": 1}, id="leaves of two"),
        pytest.param(400, 300, {}, id="lists longer than a byte can number"),
        pytest.param(500, 5, {"keep": 5, "links": 50, "fanout": 8}, id="more links than kept"),
        pytest.param(70, 3, {"fanout": 8}, id="fewer cells than asked for"),
    ],
)
def test_sizes_at_the_edge_obey_the_law(n: int, k: int, params: dict[str, int], one_thread: Engine):
    x = random(n, 6)
    knobs = KnnParams(**params)
    for recall in (None, 0.95):
        graph = graph_of(x, k, measure="euclidean", recall=recall, params=knobs, engine=one_thread)
        check_law(x, graph, "euclidean", k)


def test_lists_longer_than_the_candidates_of_a_join_obey_the_law(one_thread: Engine):
    x = random(2300, 2)
    knobs = KnnParams(keep=2200, links=40)
    graph = graph_of(x, 5, measure="euclidean", recall=None, params=knobs, engine=one_thread)
    check_law(x, graph, "euclidean", 5)


@pytest.mark.parametrize("method", ["approximate", "exact"])
@pytest.mark.parametrize("n", [1, 5])
def test_too_few_rows_are_refused_with_what_to_do(n: int, method: Any, one_thread: Engine):
    with pytest.raises(InputError) as caught:
        graph_of(random(n, 3), 5, method=method, engine=one_thread)
    message = str(caught.value)
    assert "k=5 neighbours need at least 6 rows" in message
    assert f"has {n}" in message
    assert "import more rows" in message


@pytest.mark.parametrize("method", ["approximate", "exact"])
def test_a_row_of_zeros_is_refused_by_cosine_before_anything_runs(method: Any, one_thread: Engine):
    x = random(300, 4)
    x[123] = 0.0
    with pytest.raises(InputError, match=r"row 123 of .* is all zeros, which cosine .*euclidean"):
        graph_of(x, 5, method=method, engine=one_thread)
    check_law(
        x, graph_of(x, 5, measure="euclidean", method=method, engine=one_thread), "euclidean", 5
    )
