"""`knn_graph` as a user calls it: on arrays, on datasets, on any local engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stages.graph.nasty import check_law, dense, random

import simdist as sd
from simdist.engine import open_engine
from simdist.errors import ConfigError, InputError
from simdist.models.graphs import KnnGraph
from simdist.models.knn import knn_graph
from simdist.models.vectors import import_vectors
from simdist.runner import Event
from simdist.runner.events import StageDone
from simdist.stages.graph import KnnParams
from simdist.store import Dataset, open_store


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """400 rows with names, imported into a store of their own."""
    folder = tmp_path_factory.mktemp("vectors")
    rows = pa.FixedSizeListArray.from_arrays(pa.array(random(400, 6).ravel()), 6)
    names = [f"row {number}" for number in range(400)]
    pq.write_table(pa.table({"name": names, "v": rows}), folder / "rows.parquet")
    return import_vectors(
        str(folder / "rows.parquet"), id="name", vector="v", store=open_store(str(folder / "store"))
    )


def test_an_array_gives_arrays():
    x = random(300, 6)
    graph = sd.knn_graph(x, k=5, measure="cosine")
    check_law(x, graph, "cosine", 5)
    assert isinstance(graph, KnnGraph)
    assert (graph.k, len(graph)) == (5, 300)
    assert repr(graph).startswith("KnnGraph(300 rows, k=5, recall=")


def test_k_may_be_a_numpy_integer():
    assert knn_graph(random(50, 4), np.int64(3)).k == 3


def test_a_dataset_gives_a_dataset_beside_it(vectors: Dataset):
    made = knn_graph(vectors, 5, measure="cosine")
    assert made.uri.startswith(vectors.store.uri)
    assert made.manifest.inputs["vectors"] == vectors.fingerprint
    assert made.metrics["edges"] == 2000
    check_law(random(400, 6), made.open(), "cosine", 5)


def test_the_table_names_rows_by_their_own_ids(vectors: Dataset):
    made = knn_graph(vectors, 5, measure="cosine", recall=None)
    for shard in made.manifest.shards:
        table = made.store.read_table(shard.objects["graph"])
        assert table.column_names == ["row", "id", "neighbors", "values"]
        assert table.schema.field("neighbors").type == pa.list_(pa.int64(), 5)
        assert table.schema.field("values").type == pa.list_(pa.float32(), 5)
        assert table["id"].to_pylist() == [f"row {row}" for row in table["row"].to_pylist()]


def test_a_second_call_does_nothing_and_says_so(vectors: Dataset):
    told: list[list[Event]] = [[], []]
    made = [
        knn_graph(vectors, 6, measure="euclidean", listeners=[events.append]) for events in told
    ]
    assert made[0].fingerprint == made[1].fingerprint
    done = [[event.reused for event in events if isinstance(event, StageDone)] for events in told]
    assert done == [[False, False], [True, True]]


def test_a_graph_may_be_committed_elsewhere(vectors: Dataset, tmp_path: Path):
    made = knn_graph(vectors, 5, measure="dot", method="exact", store=str(tmp_path / "other"))
    assert made.uri.startswith(open_store(str(tmp_path / "other")).uri)
    np.testing.assert_array_equal(made.open().indices, dense(random(400, 6), "dot", 5)[0])


def test_an_open_engine_stays_open():
    with open_engine("local", workers=1) as engine:
        for seed in range(2):
            knn_graph(random(100, 4, seed=seed), 3, engine=engine)
        assert engine.slots() == 1


def test_nothing_is_left_behind_by_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    knn_graph(random(100, 4), 3)
    assert not os.listdir(tmp_path)


def test_rows_may_be_any_view():
    x = random(200, 8)
    plain = knn_graph(x, 4, measure="euclidean")
    for view in (np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x[::-1][::-1]):
        again = knn_graph(view, 4, measure="euclidean")
        np.testing.assert_array_equal(again.indices, plain.indices)
        np.testing.assert_array_equal(again.values, plain.values)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        pytest.param(np.arange(10), r"expected rows \[n, d\] .* got int64 of shape", id="one axis"),
        pytest.param(np.ones((4, 3), np.int32), r"got int32 of shape \(4, 3\)", id="integers"),
        pytest.param(np.ones((0, 3), np.float32), r"no rows", id="no rows"),
        pytest.param(np.where(np.eye(30) == 1, np.nan, 1.0).astype(np.float32), r"row 0", id="NaN"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(x: Any, message: str):
    with pytest.raises(InputError, match=message):
        knn_graph(x, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"k=0: expected a whole number, at least 1"),
        ({"measure": "cosin"}, r"cosin"),
        ({"method": "excat"}, r"method='excat': expected 'approximate' or 'exact'"),
        ({"recall": 1.0}, r"method='exact'"),
        ({"recall": 2}, r"between 0 and 1"),
        ({"params": KnnParams(keep=2)}, r"keep=2 is below k=3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        knn_graph(random(50, 4), **{"k": 3, **options})


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
@pytest.mark.parametrize(
    "options",
    [{}, {"recall": 0.99}, {"recall": 0.999, "params": KnnParams(fanout=1, links=2, joins=0)}],
    ids=str,
)
def test_an_array_is_left_where_it_lies_and_its_graph_is_that_of_moved_rows(
    measure: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("simdist.stages.graph.story.WORTH_WALKING", 0)
    x = random(9000, 24)
    rounds: list[str] = []
    found = knn_graph(
        x,
        10,
        measure=measure,
        listeners=[lambda event: rounds.append(getattr(event, "round", ""))],
        **options,
    )
    assert any(name.startswith("edges-") for name in rounds)  # which moved rows do not need
    moved = knn_graph(x, 10, measure=measure, scratch=str(tmp_path / "scratch"), **options)
    np.testing.assert_array_equal(found.indices, moved.indices)
    np.testing.assert_array_equal(found.values, moved.values)
    assert found.recall == moved.recall


@pytest.mark.parametrize(
    "other",
    [
        lambda x: x.astype(np.float64),
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: np.concatenate([x, x])[:3000],
    ],
    ids=["float64", "by columns", "every second column", "a part"],
)
def test_rows_of_any_kind_stay_where_they_lie_or_where_they_are_narrowed(other: Any):
    x = random(3000, 12)
    rounds: list[str] = []
    found = knn_graph(
        other(x), 5, listeners=[lambda event: rounds.append(getattr(event, "round", ""))]
    )
    assert any(name.startswith("edges-") for name in rounds)
    expected = knn_graph(x, 5)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.values, expected.values)


def test_rows_are_moved_where_there_is_no_room_to_hold_them(monkeypatch: pytest.MonkeyPatch):
    x = random(3000, 12)
    expected = knn_graph(x, 5)
    monkeypatch.setattr("simdist.models.places.HELD_SHARE", 1 << 20)
    for rows in (x, x.astype(np.float64)):
        rounds: list[str] = []
        found = knn_graph(
            rows, 5, listeners=[lambda event, to=rounds: to.append(getattr(event, "round", ""))]
        )
        assert not any(name.startswith("edges-") for name in rounds)
        np.testing.assert_array_equal(found.indices, expected.indices)
