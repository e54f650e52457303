"""A grown graph obeys the law of every graph and keeps the promise of the one it came from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stages.graph.nasty import NASTY, SCALED, Chebyshev, dense, random
from stages.grow.growing import K, built, check, grown, living

from simdist.engine import Engine
from simdist.lists import graph_table, standing_table
from simdist.models.graphs import GraphDataset
from simdist.models.grow import append, compact, delete
from simdist.recall import Recall
from simdist.stages.grow import promise_of, segments_of
from simdist.stages.grow.story import POLISH
from simdist.store import Shard
from simdist.types import Array

pytestmark = pytest.mark.usefixtures("small_blocks")


def digits() -> Array:
    """1,797 handwritten digits of 8 x 8 pixels, from scikit-learn, in an order of their own."""
    from sklearn.datasets import load_digits

    x: Array = load_digits().data.astype(np.float32)
    return x[np.random.default_rng(3).permutation(len(x))]


@pytest.mark.parametrize("measure", ["cosine", "euclidean", "manhattan", "dot", SCALED])
def test_appended_rows_find_and_are_found_under_any_measure(
    measure: Any, local_engine: Engine
) -> None:
    x = random(900)
    graph = grown(x, [800, 100], local_engine, measure=measure)
    assert check(x, graph.open(), measure) > 0.93
    assert set(graph.metrics) >= {"recall", "recall_new"}


def test_a_measure_of_your_own_grows_too(local_engine: Engine) -> None:
    x = random(400, 4)
    graph = grown(x, [360, 40], local_engine, measure=Chebyshev(), recall=0.9)
    assert check(x, delete(graph, [3, 370], engine=local_engine).open(), Chebyshev()) > 0.9


NASTIEST = (
    "clusters",
    "30 % copies of one row",
    "all rows equal",
    "two far clusters",
    "heavy-tailed lengths",
    "ties between different rows",
    "near-duplicates far from the origin",
    "float16",
)


@pytest.mark.parametrize("kind", NASTIEST)
def test_data_that_breaks_builders_does_not_break_growth(kind: str, local_engine: Engine) -> None:
    x = NASTY[kind]()
    n, measure = len(x), "euclidean"
    graph = grown(x, [n - 60, 60], local_engine, measure=measure)
    graph = delete(graph, np.arange(7, n, 23), engine=local_engine)
    check(x, graph.open(), measure)
    recall = Recall.from_json(graph.metrics["recall"])
    assert recall.low >= 0.95


def test_digits_keep_their_promise_when_they_come_in_three_parts_and_some_go(
    local_engine: Engine,
) -> None:
    x, measure = digits(), "euclidean"
    graph = grown(x, [1600, 100, 97], local_engine, measure=measure, recall=0.98)
    assert check(x, graph.open(), measure) >= 0.98
    gone = np.arange(0, 1797, 19)
    less = delete(graph, gone, engine=local_engine)
    assert check(x, less.open(), measure) >= 0.98
    for role in ("recall", "recall_repaired"):
        recall = Recall.from_json(less.metrics[role])
        assert (recall.target, recall.low >= 0.98) == (0.98, True)


def test_an_exact_graph_stays_exact(local_engine: Engine) -> None:
    x = NASTY["ties between different rows"]()
    graph = grown(x, [700, 150, 50], local_engine, method="exact", measure="euclidean")
    ids, values = dense(x, "euclidean", K)
    np.testing.assert_array_equal(graph.open().indices, ids)
    np.testing.assert_array_equal(graph.open().values, values)
    assert graph.metrics["recall_new"]["rows"] == graph.metrics["rows_new"] == 50
    less = delete(graph, [0, 5, 444, 899], engine=local_engine)
    rest, rows = living(less.open())
    ids, values = dense(x[rows], "euclidean", K)
    np.testing.assert_array_equal(rest.indices, ids)
    np.testing.assert_array_equal(rest.values, values)
    again = compact(less, engine=local_engine)
    assert again.metrics["recall"]["low"] == 1.0
    np.testing.assert_array_equal(again.open().indices, less.open().indices)


def test_where_probing_falls_short_more_work_is_done_until_the_promise_is_kept(
    local_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simdist.stages.grow import story

    x = random(900, 24)
    monkeypatch.setattr(story, "PROBES", (1, 2))
    monkeypatch.setattr(story, "REACH", (1, 1))
    monkeypatch.setattr(story, "LOOKS", (0, 0))
    graph = grown(x, [800, 100], local_engine, recall=0.99)
    assert graph.metrics["level"] >= 2
    assert check(x, graph.open(), "cosine") >= 0.99
    assert Recall.from_json(graph.metrics["recall_new"]).low >= 0.99


def test_where_old_lists_fall_short_all_lists_are_looked_at(local_engine: Engine) -> None:
    x = random(900)
    graph = append(_spoiled(built(x[:880], local_engine), x[:880]), x[880:], engine=local_engine)
    assert graph.metrics["level"] >= POLISH
    assert Recall.from_json(graph.metrics["recall"]).low >= 0.95
    assert check(x, graph.open(), "cosine") >= 0.95


def _spoiled(graph: GraphDataset, x: Array) -> GraphDataset:
    """The graph with neighbours 3 to k + 3 in place of 0 to k: recall 0.5, promised 0.95."""
    ids, values = dense(x, "cosine", K + 3)
    rows = np.arange(len(x))
    table = graph_table(rows, pa.array(rows), ids[:, 3:], values[:, 3:])
    shard = Shard(len(x), {"graph": graph.store.write_table("graph", table)})
    spoiled = replace(graph.manifest, fingerprint="f" * 32, shards=(shard,))
    return GraphDataset(graph.store, graph.store.commit(spoiled))


def test_a_compacted_graph_has_the_same_lists_and_grows_on(local_engine: Engine) -> None:
    x = random(1000)
    graph = grown(x, [800, 60, 40], local_engine)
    graph = delete(graph, [1, 820, 899], engine=local_engine)
    plain = compact(graph, engine=local_engine)
    for made, kept in zip(_arrays(plain), _arrays(graph), strict=True):
        np.testing.assert_array_equal(made, kept)
    assert promise_of(plain) == promise_of(graph)
    assert (len(segments_of(graph)), segments_of(plain)) == (2, ())
    tables = [standing_table(plain, s, ["row"]) for s in range(len(plain.shards))]
    rows = np.concatenate([table["row"].to_numpy() for table in tables])
    np.testing.assert_array_equal(rows, np.setdiff1d(np.arange(900), [1, 820, 899]))
    more = append(plain, x[900:], engine=local_engine)
    assert check(x, more.open(), "cosine") > 0.95
    np.testing.assert_array_equal(more.open().deleted, [1, 820, 899])
    assert compact(plain, engine=local_engine) == plain


def _arrays(graph: GraphDataset) -> tuple[Array, ...]:
    made = graph.open()
    return made.indices, made.values, made.deleted


def test_shards_of_a_grown_graph_tell_which_lists_stand(local_engine: Engine) -> None:
    x = random(600)
    graph = delete(grown(x, [500, 100], local_engine), [0, 550], engine=local_engine)
    made = graph.open()
    seen: list[int] = []
    for shard in range(len(graph.shards)):
        table = standing_table(graph, shard, ["row", "neighbors", "values"])
        rows = table["row"].to_numpy()
        seen += rows.tolist()
        flat = table["neighbors"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        np.testing.assert_array_equal(flat.reshape(len(rows), K), made.indices[rows])
    assert sorted(seen) == sorted(set(range(600)) - {0, 550})


def test_deleting_in_two_steps_leaves_no_trace_of_either(local_engine: Engine) -> None:
    x = random(700)
    graph = built(x, local_engine)
    for gone in (np.arange(0, 700, 11), np.arange(1, 700, 11)):
        graph = delete(graph, gone, engine=local_engine)
    made = graph.open()
    assert len(made.deleted) == graph.metrics["deleted"] == 128
    assert check(x, made, "cosine") > 0.95


def test_most_rows_may_go_as_long_as_k_others_are_left(local_engine: Engine) -> None:
    x = random(120)
    graph = delete(built(x, local_engine), np.arange(K + 1, 120), engine=local_engine)
    rest, rows = living(graph.open())
    np.testing.assert_array_equal(rows, np.arange(K + 1))
    np.testing.assert_array_equal(np.sort(rest.indices, axis=1)[0], np.arange(1, K + 1))


def test_a_row_that_nobody_lists_may_go(local_engine: Engine) -> None:
    x = np.concatenate([random(300), np.full((1, 16), 50, np.float32)])
    graph = built(x, local_engine, measure="euclidean")
    less = delete(graph, [300], engine=local_engine)
    assert (less.metrics["rows_repaired"], less.metrics["lists_changed"]) == (0, 0)
    assert less.metrics["recall_repaired"] is None
    np.testing.assert_array_equal(less.open().indices[:300], graph.open().indices[:300])
    assert check(x, less.open(), "euclidean") > 0.95


def test_rows_far_from_all_others_still_have_k_neighbours(local_engine: Engine) -> None:
    x = random(400)
    far = (100 + 100 * np.arange(5))[:, None] * np.ones((5, 16), np.float32)
    both = np.concatenate([x, far.astype(np.float32)])
    graph = grown(both, [400, 5], local_engine, measure="euclidean")
    check(both, graph.open(), "euclidean")
