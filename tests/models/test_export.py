"""Graphs as Parquet files that name their neighbours."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import simdist as sd
from simdist.cli.app import app
from simdist.engine import Engine
from simdist.errors import InputError
from simdist.models import export
from simdist.models.export import export_graph
from simdist.models.graphs import GraphDataset, open_graph
from simdist.stages.vectors import shards
from simdist.store import Dataset

ROWS, K = 700, 4


@pytest.fixture(params=["strings", "ints", "numbered"])
def named(request: pytest.FixtureRequest) -> list[str] | list[int] | None:
    """Ids of the rows; None: they are their numbers."""
    numbers = np.random.default_rng(5).permutation(10 * ROWS)[:ROWS].tolist()
    return {"strings": [f"name-{i}" for i in numbers], "ints": numbers, "numbered": None}[
        request.param
    ]


@pytest.fixture
def graph(
    named: list[str] | list[int] | None,
    local_engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> GraphDataset:
    """A graph over vectors in several shards."""
    monkeypatch.setattr(shards, "shard_rows", lambda d: 256)
    monkeypatch.setattr("simdist.stages.vectors.stage.shard_rows", lambda d: 256)
    rows = imported(tmp_path / "rows.parquet", named, local_engine)
    assert len(rows.shards) == 3
    return sd.knn_graph(rows, K, engine=local_engine)


def imported(path: Path, ids: list[str] | list[int] | None, engine: Engine) -> Dataset:
    x = np.random.default_rng(3).standard_normal((ROWS, 8)).astype(np.float32)
    columns = {"vector": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 8)}
    if ids is not None:
        columns["name"] = pa.array(ids)
    pq.write_table(pa.table(columns), path)
    return sd.import_vectors(
        str(path),
        id=None if ids is None else "name",
        vector="vector",
        store=path.parent / "store",
        engine=engine,
    )


def test_every_list_carries_the_ids_of_its_neighbours(
    graph: GraphDataset, named: list[str] | list[int] | None, tmp_path: Path
) -> None:
    done = export_graph(graph, tmp_path / "out")
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == [f"part-{i:05d}.parquet" for i in range(done.files)]
    assert done.nbytes == sum(file.stat().st_size for file in files)
    table = pa.concat_tables(pq.read_table(file) for file in files).sort_by("row")
    assert table.column_names == ["row", "id", "neighbors", "neighbor_ids", "values"]
    assert table["row"].to_pylist() == list(range(ROWS))
    ids = list(range(ROWS)) if named is None else named
    assert table["id"].to_pylist() == ids
    expected = open_graph(graph)
    assert table["neighbors"].to_pylist() == expected.indices.tolist()
    assert table["neighbor_ids"].to_pylist() == [
        [ids[i] for i in near] for near in expected.indices
    ]
    np.testing.assert_array_equal(table["values"].to_pylist(), expected.values)
    (read,) = duckdb.sql(
        f"select count(*), count(distinct id), max(len(neighbor_ids))"
        f" from '{tmp_path}/out/*.parquet'"
    ).fetchall()
    assert read == (ROWS, ROWS, K)


@pytest.mark.parametrize("named", ["strings"], indirect=True)
def test_what_is_kept_and_how_rows_are_cut_changes_no_cell(
    graph: GraphDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_graph(graph, tmp_path / "one")
    monkeypatch.setattr(export, "KEPT_NBYTES", 6000)  # one shard's ids, not those of all
    monkeypatch.setattr(export, "SLICE_ROWS", 100)
    export_graph(graph, tmp_path / "other")
    for file in (tmp_path / "one").iterdir():
        assert pq.read_table(file).equals(pq.read_table(tmp_path / "other" / file.name))


@pytest.mark.parametrize("named", ["strings"], indirect=True)
def test_a_graph_that_lost_rows_is_exported_without_them(
    graph: GraphDataset, named: list[str], local_engine: Engine, tmp_path: Path
) -> None:
    less = sd.delete(graph, ids=[named[7]], engine=local_engine)
    export_graph(less, tmp_path / "out")
    table = pq.read_table(tmp_path / "out")
    assert sorted(table["row"].to_pylist()) == [row for row in range(ROWS) if row != 7]
    listed = table["neighbor_ids"].combine_chunks().flatten().to_pylist()
    assert named[7] not in listed
    assert named[8] in listed
    expected = open_graph(less).indices
    for row, near in zip(table["row"].to_pylist(), table["neighbors"].to_pylist(), strict=True):
        assert near == expected[row].tolist()


@pytest.mark.parametrize("named", ["strings"], indirect=True)
def test_the_command_exports_by_uri_and_refuses_what_is_there(
    graph: GraphDataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    plain = CliRunner().invoke(app, ["export", graph.uri, str(tmp_path / "plain")])
    assert plain.exit_code == 0, plain.output
    assert pq.read_table(tmp_path / "plain").column_names == ["row", "id", "neighbors", "values"]
    told = CliRunner().invoke(app, ["export", graph.uri, "--ids", str(out), "--json"])
    assert told.exit_code == 0, told.output
    done = json.loads(told.stdout)
    assert (done["uri"], done["rows"]) == (out.as_uri(), ROWS)
    again = CliRunner().invoke(app, ["export", graph.uri, "--ids", str(out)])
    assert again.exit_code == 2
    assert "holds part-00000.parquet already" in " ".join(again.stderr.split())


@pytest.mark.parametrize("named", ["numbered"], indirect=True)
def test_what_holds_no_lists_is_refused(graph: GraphDataset, tmp_path: Path) -> None:
    vectors = graph.store.dataset(graph.manifest.inputs["vectors"])
    with pytest.raises(InputError, match=r"is of import_vectors and holds no k-NN lists"):
        export_graph(vectors, tmp_path / "out")


def test_a_search_names_the_rows_of_its_corpus(local_engine: Engine, tmp_path: Path) -> None:
    corpus = imported(tmp_path / "rows.parquet", [f"c-{i}" for i in range(ROWS)], local_engine)
    queries = sd.import_vectors(
        str(tmp_path / "rows.parquet"), vector="vector", store=corpus.store, engine=local_engine
    )
    export_graph(sd.knn(queries, corpus, K, engine=local_engine), tmp_path / "out")
    table = pq.read_table(tmp_path / "out").sort_by("row")
    assert table["id"].to_pylist() == list(range(ROWS))
    assert [near[0] for near in table["neighbor_ids"].to_pylist()] == [
        f"c-{i}" for i in range(ROWS)
    ]
