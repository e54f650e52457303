"""`similarity_join`: the dense answer from blocks and parts; what is forecast, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import simdist as sd
from simdist.errors import InputError, PlanTooLarge
from simdist.measures import resolve
from simdist.models.pairs import SimilarityPairs, similarity_join
from simdist.models.vectors import import_array
from simdist.store import open_store
from simdist.types import Array


def dense(measure: str, x: Array, y: Array | None, limit: float) -> tuple[Array, Array, Array]:
    """The definition: every pair by the fixed kernel, by (row, column)."""
    chosen = resolve(measure)
    X = chosen.prepare(x)
    Y = X if y is None else chosen.prepare(y)
    rows, columns = np.divmod(np.arange(len(X) * len(Y)), len(Y))
    if y is None:
        rows, columns = rows[rows < columns], columns[rows < columns]
    values = chosen.pairs_at(X, rows, Y, columns)
    larger = chosen.traits.kind == "similarity"
    near = values >= np.float32(limit) if larger else values <= np.float32(limit)
    return rows[near], columns[near], values[near]


def is_dense(found: SimilarityPairs, x: Array, y: Array | None, measure: str, limit: float) -> bool:
    expected = dense(measure, x, y, limit)
    return all(
        np.array_equal(a, b)
        for a, b in zip((found.rows, found.cols, found.values), expected, strict=True)
    )


@pytest.fixture(scope="module")
def points() -> Array:
    rows = sd.datasets.clusters(700, 16, 60, seed=3).rows
    rows[::17] = rows[5]
    return rows


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("measure", "limit"),
    [("cosine", 0.95), ("euclidean", 1.0), ("dot", 15.0), ("manhattan", 5.0)],
)
def test_blocks_parts_and_shards_give_the_dense_answer(points, one_thread, measure, limit):
    found = similarity_join(points, limit, measure, engine=one_thread)
    assert len(found) > 300  # more than a shard
    assert is_dense(found, points, None, measure, limit)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("measure", "limit"), [("cosine", 0.9), ("euclidean", 1.0)])
def test_pairs_with_another_set_are_the_dense_answer(points, one_thread, measure, limit):
    far = points + np.float32(100.0)  # where products of rows have few digits left
    x, y = (points[:300], points[250:]) if measure == "cosine" else (far[:300], far[250:])
    found = similarity_join(x, limit, measure, against=y, engine=one_thread)
    assert len(found) > 50
    assert found.corpus == len(y)
    assert is_dense(found, x, y, measure, limit)


def test_float64_rows_are_joined_as_the_float32_rows_they_are_stored_as(one_thread):
    x = sd.datasets.clusters(200, 12, 20, seed=1).rows.astype(np.float64) * 1e6
    found = similarity_join(x, 0.9, engine=one_thread)
    assert len(found)
    assert is_dense(found, x.astype(np.float32), None, "cosine", 0.9)


def test_no_pair_at_all_is_an_answer(one_thread):
    found = similarity_join(np.eye(6, dtype=np.float32), 0.5, engine=one_thread)
    assert len(found) == 0
    assert found.nodes == 6


def test_rows_of_zeros_are_refused_as_the_measure_refuses_them(one_thread):
    x = np.ones((5, 3), np.float32)
    x[2] = 0
    with pytest.raises(InputError, match=r"row 2 .* zeros"):
        similarity_join(x, 0.5, engine=one_thread)
    assert len(similarity_join(x, 0.1, "euclidean", engine=one_thread)) == 6


def test_sets_of_different_dimensions_are_refused(one_thread):
    with pytest.raises(InputError, match="3 dimensions, those of `against` 4"):
        similarity_join(np.ones((4, 3)), 0.5, against=np.ones((4, 4)), engine=one_thread)


@pytest.mark.usefixtures("small_blocks")
def test_too_many_pairs_are_refused_by_the_forecast_with_the_number(points, one_thread):
    with pytest.raises(PlanTooLarge, match=r"about 2[34]\d,\d{3} .*max_pairs is 1,000"):
        similarity_join(points, -0.9, max_pairs=1000, engine=one_thread)


@pytest.mark.usefixtures("small_blocks")
def test_pairs_that_hide_from_the_sample_are_refused_when_they_are_counted(one_thread):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 12)).astype(np.float32)
    x[np.array([100, 900, 1700, 2500])[:, None] + np.arange(12)] = x[7]
    config = {"threshold": 0.999, "max_pairs": 700}
    with pytest.raises(PlanTooLarge, match="max_pairs is 700"):
        similarity_join(x, **config, engine=one_thread)


def test_what_was_forecast_and_how_many_parts_were_written_are_in_the_manifest(
    points, one_thread, small_blocks, tmp_path
):
    store = open_store(tmp_path)
    vectors = import_array(points, store=store, engine=one_thread)
    pairs = similarity_join(vectors, 0.95, engine=one_thread)
    metrics = pairs.metrics
    assert metrics["pairs"] == pairs.rows
    assert metrics["nodes"] == len(points)
    assert metrics["parts"] > 1
    low, high = metrics["expected"]["low"], metrics["expected"]["high"]
    assert low <= pairs.rows <= high
    assert metrics["recall"]["low"] == 1.0


@pytest.mark.usefixtures("small_blocks")
def test_a_stored_join_is_sorted_parquet_that_others_read(points, one_thread, tmp_path: Path):
    store = open_store(tmp_path)
    vectors = import_array(points, store=store, engine=one_thread)
    pairs = similarity_join(vectors, 0.95, engine=one_thread)
    assert len(pairs.shards) > 1
    tables = [pq.read_table(tmp_path / shard.objects["pairs"].key) for shard in pairs.shards]
    rows = np.concatenate([table["row"].to_numpy() for table in tables])
    neighbors = np.concatenate([table["neighbor"].to_numpy() for table in tables])
    expected = dense("cosine", points, None, 0.95)
    assert np.array_equal(rows, expected[0])
    assert np.array_equal(neighbors, expected[1])
    for shard, table in zip(pairs.shards, tables, strict=True):
        assert shard.facts["rows"] == [table["row"][0].as_py(), table["row"][-1].as_py()]


@pytest.mark.parametrize("against", [False, True])
def test_over_a_partition_no_pair_comes_twice_or_is_wrong_and_few_are_missing(
    one_thread, small_blocks, against
):
    rows = sd.datasets.clusters(3000, 24, 300, seed=2).rows
    x, y = (rows[:1000], rows[1000:]) if against else (rows, None)
    limit = 0.9
    found = similarity_join(
        x, limit, against=y, method="approximate", recall=0.8, engine=one_thread
    )
    every = set(zip(*(part.tolist() for part in dense("cosine", x, y, limit)[:2]), strict=True))
    pairs = list(zip(found.rows.tolist(), found.cols.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) <= every
    assert found.recall.low >= 0.8
    assert found.recall.low <= len(pairs) / len(every) <= found.recall.high
    order = np.lexsort((found.cols, found.rows))
    assert np.array_equal(order, np.arange(len(order)))


def test_where_no_reach_keeps_the_promise_every_pair_is_looked_at(one_thread, small_blocks):
    rows = np.random.default_rng(0).standard_normal((2000, 32)).astype(np.float32)
    found = similarity_join(rows, 0.5, method="approximate", recall=0.9999, engine=one_thread)
    assert len(found)
    assert found.recall.low == 1.0
    assert is_dense(found, rows, None, "cosine", 0.5)
