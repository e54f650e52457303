"""`deduplicate`: the sequential answer, whatever the shards; groups, caps, copies and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from simdist.engine import Engine
from simdist.errors import ConfigError, InputError
from simdist.measures import resolve
from simdist.models.dedupe import deduplicate
from simdist.models.pairs import similarity_join
from simdist.models.vectors import import_array, import_vectors
from simdist.store import open_store
from simdist.types import Array

LIMIT = 0.9
SHARDS = ("one shard", "many shards")


def near(measure: str, x: Array, y: Array, limit: float) -> Array:
    """[n, m] which pairs reach the threshold, by the fixed kernel."""
    chosen = resolve(measure)
    X, Y = chosen.prepare(x), chosen.prepare(y)
    rows, columns = np.divmod(np.arange(len(X) * len(Y)), len(Y))
    values = chosen.pairs_at(X, rows, Y, columns).reshape(len(X), len(Y))
    if chosen.traits.kind == "similarity":
        return values >= np.float32(limit)
    return values <= np.float32(limit)


def greedy(alike: Array, rank: Array, gone: Array | None = None) -> Array:
    """The definition of `leader`: one row after the other, in keep order."""
    n = len(alike)
    group = np.full(n, -2)
    if gone is not None:
        group[gone] = -1
    for row in np.lexsort((np.arange(n), rank)):
        if group[row] == -2:
            group[row] = row
            group[alike[row] & (group == -2)] = row
    return group


@pytest.fixture(params=SHARDS)
def sharded(request: pytest.FixtureRequest) -> None:
    if request.param == "many shards":
        request.getfixturevalue("small_shards")


@pytest.fixture(scope="module")
def points() -> Array:
    """Six rows about each of some centres, some rows equal, in no order."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((60, 8))
    rows = np.repeat(centres, 6, axis=0) + 0.25 * rng.standard_normal((360, 8))
    rows[rng.choice(360, 40)] = rows[rng.choice(360, 40)]
    return rows[rng.permutation(360)].astype(np.float32)


@pytest.mark.usefixtures("sharded")
@pytest.mark.parametrize(
    ("measure", "limit"), [("cosine", 0.95), ("cosine", 0.85), ("euclidean", 0.7)]
)
@pytest.mark.parametrize("ranked", [False, True])
def test_leader_is_the_sequential_answer(points, one_thread, measure, limit, ranked):
    rank = np.random.default_rng(2).integers(0, 20, len(points)) if ranked else None
    keep = "first" if rank is None else rank
    found = deduplicate(points, limit, measure, keep=keep, engine=one_thread)
    order = np.zeros(len(points)) if rank is None else rank
    expected = greedy(near(measure, points, points, limit), order)
    assert np.array_equal(found.group, expected)
    assert np.array_equal(found.kept, np.flatnonzero(expected == np.arange(len(points))))


@pytest.mark.usefixtures("sharded")
def test_no_two_kept_rows_are_near_and_every_other_row_is_near_its_kept_one(points, one_thread):
    found = deduplicate(points, LIMIT, engine=one_thread)
    alike = near("cosine", points, points, LIMIT)
    assert not np.triu(alike[np.ix_(found.kept, found.kept)], 1).any()
    assert alike[found.removed, found.group[found.removed]].all()
    chosen = resolve("cosine")
    expected = chosen.pairs(points[found.removed], points[found.group[found.removed]])
    assert np.array_equal(found.values[found.removed], expected)
    assert np.isnan(found.values[found.kept]).all()


@pytest.mark.parametrize("seed", range(4))
def test_leader_on_any_graph_is_the_sequential_answer(one_thread, small_shards, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(50, 250))
    edges = rng.integers(0, n, (3 * n, 2))
    edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1), axis=0)
    weights = rng.random(len(edges)).astype(np.float32) + np.float32(0.1)
    graph = coo_matrix((weights, edges.T), shape=(n, n)).tocsr()
    graph = graph + graph.T
    rank = rng.permutation(n)
    found = deduplicate(graph, 0.4, keep=rank, max_removed=1.0, engine=one_thread)
    assert np.array_equal(found.group, greedy(graph.toarray() >= np.float32(0.4), rank))


def test_a_chain_through_all_shards_is_decided_as_one_pass_would(one_thread, small_shards):
    angles = np.arange(300) * 0.01
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    limit = float(np.cos(0.011))
    found = deduplicate(chain, limit, engine=one_thread)
    assert np.array_equal(found.kept, np.arange(0, 300, 2))
    whole = deduplicate(chain, limit, semantics="components", max_removed=1.0, engine=one_thread)
    assert np.array_equal(whole.kept, [0])


@pytest.mark.usefixtures("sharded")
def test_components_are_those_of_scipy_and_their_first_row_is_kept(points, one_thread):
    found = deduplicate(points, LIMIT, semantics="components", engine=one_thread)
    _, member = connected_components(near("cosine", points, points, LIMIT))
    _, first = np.unique(member, return_index=True)
    assert np.array_equal(found.group, first[member])


@pytest.mark.usefixtures("sharded")
def test_a_group_with_a_row_beyond_the_cap_is_taken_apart_by_leader(points, one_thread):
    cap = 0.8
    whole = deduplicate(points, LIMIT, semantics="components", engine=one_thread).group
    parts = deduplicate(points, LIMIT, engine=one_thread).group
    found = deduplicate(points, LIMIT, semantics="components", cap=cap, engine=one_thread)
    within = near("cosine", points, points, cap)[np.arange(len(points)), whole]
    wide = np.isin(whole, whole[~within])
    assert 0 < wide.sum() < len(points)
    assert np.array_equal(found.group, np.where(wide, parts, whole))
    assert (found.values[found.removed] >= np.float32(cap)).all()


@pytest.mark.usefixtures("sharded")
def test_rows_near_another_set_go_first_and_stand_for_nobody(points, one_thread):
    other = points[:30] + np.float32(0.05)
    gone = near("cosine", points, other, LIMIT).any(axis=1)
    found = deduplicate(points, LIMIT, against=other, engine=one_thread)
    assert np.array_equal(found.group == -1, gone)
    alike = near("cosine", points, points, LIMIT)
    assert np.array_equal(found.group, greedy(alike, np.zeros(len(points)), gone))


def test_copies_are_collapsed_before_anything_is_compared(one_thread):
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((50, 6)).astype(np.float32)
    x = distinct[rng.permutation(np.repeat(np.arange(50), 60))]
    # 88,500 pairs of copies, and none of different rows
    found = deduplicate(x, 0.99999, max_pairs=100, max_removed=1.0, engine=one_thread)
    assert len(found.kept) == 50
    assert np.array_equal(x[found.group], x)
    _, first = np.unique(x, axis=0, return_index=True)
    assert np.array_equal(found.kept, np.sort(first))


def test_a_zero_and_a_negative_zero_are_one_row(one_thread):
    x = np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]], np.float32)
    found = deduplicate(x, 0.999, engine=one_thread)
    assert np.array_equal(found.group, [0, 0, 2])


def test_the_medoid_is_the_row_with_the_most_around_it(one_thread):
    angles = np.array([0.0, 0.05, 0.1, 0.15, 0.2, 2.0])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = deduplicate(x, float(np.cos(0.11)), keep="medoid", engine=one_thread)
    assert np.array_equal(found.group, [2, 2, 2, 2, 2, 5])


@pytest.fixture(scope="module")
def stored(points: Array, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Array]:
    """The points with a column of scores, imported."""
    folder: Path = tmp_path_factory.mktemp("scored")
    scores = np.random.default_rng(5).integers(0, 30, len(points))
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(points.ravel()), points.shape[1])
    names = [f"row {row}" for row in range(len(points))]
    table = pa.table({"name": names, "v": vectors, "score": scores, "word": names})
    pq.write_table(table, folder / "points.parquet")
    dataset = import_vectors(
        str(folder / "points.parquet"),
        vector="v",
        id="name",
        keep=["score", "word"],
        store=open_store(folder / "store"),
    )
    return dataset, scores


@pytest.mark.parametrize(("keep", "sign"), [("score", 1), ("-score", -1)])
def test_a_column_says_who_is_kept(points, stored, one_thread, keep, sign):
    dataset, scores = stored
    found = deduplicate(dataset, LIMIT, keep=keep, engine=one_thread)
    expected = greedy(near("cosine", points, points, LIMIT), sign * scores)
    assert np.array_equal(found.open().group, expected)


def test_the_stored_result_names_rows_and_lists_the_largest_groups(points, stored, one_thread):
    dataset, _ = stored
    found = deduplicate(dataset, LIMIT, engine=one_thread)
    opened = found.open()
    tables = [found.store.read_table(shard.objects["rows"]) for shard in found.shards]
    table = pa.concat_tables(tables)
    assert table.column_names == ["row", "id", "kept", "group", "value"]
    assert table["id"][7].as_py() == "row 7"
    assert np.array_equal(np.flatnonzero(table["kept"].to_numpy()), opened.kept)
    metrics = found.metrics
    assert metrics["kept"] == len(opened.kept)
    assert metrics["removed"] == len(opened.removed)
    groups = opened.groups()
    assert metrics["groups"] == len(groups)
    assert [shown["size"] for shown in metrics["largest"]] == [len(g) for g in groups[:20]]
    largest = metrics["largest"][0]
    assert largest["ids"][0] == f"row {largest['kept']}"
    assert set(largest["rows"]) < set(np.flatnonzero(opened.group == largest["kept"]).tolist())


@pytest.mark.parametrize(
    ("keep", "error", "said"),
    [
        ("colour", ConfigError, "it has score, word, id"),
        ("word", InputError, "needs numbers"),
        ("", ConfigError, "a column's name"),
    ],
)
def test_a_column_that_cannot_rank_is_refused(stored, one_thread, keep, error, said):
    with pytest.raises(error, match=said):
        deduplicate(stored[0], LIMIT, keep=keep, engine=one_thread)


def test_pairs_already_joined_are_deduplicated_at_their_threshold_or_a_stricter_one(
    points, one_thread, tmp_path
):
    store = open_store(tmp_path)
    vectors = import_array(points, store=store, engine=one_thread)
    pairs = similarity_join(vectors, 0.85, engine=one_thread)
    rank = np.zeros(len(points))
    for limit in (None, 0.93):
        alike = near("cosine", points, points, limit or 0.85)
        found = deduplicate(pairs, limit, engine=one_thread).open()
        assert np.array_equal(found.group, greedy(alike, rank))
    with pytest.raises(ConfigError, match="looser"):
        deduplicate(pairs, 0.8, engine=one_thread)
    with pytest.raises(ConfigError, match="needs the vectors"):
        deduplicate(pairs, against=points, engine=one_thread)


def test_a_wipe_out_is_refused_with_the_largest_group(one_thread):
    x = np.ones((40, 3), np.float32) + np.arange(40)[:, None] * np.float32(1e-3)
    x[0] = [5, -5, 1]
    with pytest.raises(
        InputError, match=r"38 of 40 rows.*largest group has 39 rows.*1, instead of"
    ):
        deduplicate(x, 0.9, engine=one_thread)
    assert len(deduplicate(x, 0.9, max_removed=0.99, engine=one_thread).kept) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"semantics": "chain"}, "expected 'leader'"),
        ({"cap": 0.5}, "cap is for semantics='components'"),
        ({"max_removed": 0.0}, "share of the rows"),
    ],
)
def test_settings_that_make_no_sense_are_refused(points, one_thread, options, said):
    with pytest.raises(ConfigError, match=said):
        deduplicate(points, LIMIT, engine=one_thread, **options)


def test_vectors_need_a_threshold_and_ranks_one_number_for_each_row(points, one_thread):
    with pytest.raises(ConfigError, match="needs a threshold"):
        deduplicate(points, engine=one_thread)
    with pytest.raises(InputError, match="for 360 rows"):
        deduplicate(points, LIMIT, keep=np.arange(5), engine=one_thread)
    with pytest.raises(InputError, match="row 3 is nan"):
        deduplicate(points, LIMIT, keep=np.where(np.arange(360) == 3, np.nan, 1), engine=one_thread)


def test_the_same_rows_are_kept_on_every_engine(points, engine: Engine):
    found = deduplicate(points, LIMIT, semantics="components", cap=0.8, engine=engine)
    expected = deduplicate(points, LIMIT, semantics="components", cap=0.8)
    assert np.array_equal(found.group, expected.group)
