"""`append`, `delete` and `compact` as a user calls them: ids, refusals, lineage, other readers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from stages.graph.nasty import check_law, random

import simdist as sd
from simdist.config import parse
from simdist.engine import Engine
from simdist.errors import ConfigError, InputError, ObjectMissing
from simdist.models.chain import run_links
from simdist.models.graphs import GraphDataset
from simdist.models.vectors import import_array, import_vectors
from simdist.report import neighborhoods
from simdist.report.show import describe, print_dataset
from simdist.store import Dataset, Store, open_store
from simdist.store.maintenance import gc, verify
from simdist.types import Array

X = random(600, 8)


def imported(folder: Path, x: Array, names: Sequence[Any], store: Store, **columns: Any) -> Dataset:
    """Rows with ids, as a vectors dataset."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    path = folder / f"{len(list(folder.glob('*.parquet')))}.parquet"
    pq.write_table(pa.table({"name": list(names), "v": vectors, **columns}), path)
    return import_vectors(
        str(path), id="name", vector="v", keep=tuple(columns), store=store, engine="local"
    )


def named(numbers: range) -> list[str]:
    return [f"row {number}" for number in numbers]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def graph(tmp_path: Path, store: Store, local_engine: Engine) -> GraphDataset:
    """500 rows called `row 0` to `row 499`."""
    vectors = imported(tmp_path, X[:500], named(range(500)), store)
    return sd.knn_graph(vectors, 5, engine=local_engine)


def test_new_rows_are_numbered_on_and_keep_their_ids(
    graph: GraphDataset, tmp_path: Path, local_engine: Engine
) -> None:
    new = imported(tmp_path, X[500:], named(range(500, 600)), graph.store)
    grown = sd.append(graph, new, engine=local_engine)
    check_law(X, grown.open(), "cosine", 5)
    assert grown.metrics["rows_new"] == 100
    assert 0 < grown.metrics["lists_changed"] < 500
    for shard in grown.shards:
        table = graph.store.read_table(shard.objects["graph"])
        assert table["id"].to_pylist() == named_rows(table["row"].to_pylist())
    vectors = graph.store.dataset(grown.manifest.inputs["vectors"])
    assert vectors.shards[0].objects == graph.store.dataset(_vectors(graph)).shards[0].objects
    assert vectors.shards[-1].objects["vectors"] == new.shards[0].objects["vectors"]


def named_rows(rows: Sequence[int]) -> list[str]:
    return [f"row {row}" for row in rows]


def _vectors(graph: Dataset) -> str:
    return graph.manifest.inputs["vectors"]


def test_the_shards_of_the_graph_before_are_referenced_as_they_are(
    graph: GraphDataset, tmp_path: Path, local_engine: Engine
) -> None:
    new = imported(tmp_path, X[500:], named(range(500, 600)), graph.store)
    grown = sd.append(graph, new, engine=local_engine)
    assert grown.shards[: len(graph.shards)] == graph.shards
    assert verify(graph.store, grown).ok
    gc(graph.store, delete=True)
    assert verify(graph.store, grown).ok
    assert verify(graph.store, graph).ok


def test_an_array_is_appended_where_rows_are_numbered(store: Store, local_engine: Engine) -> None:
    vectors = import_array(X[:500], store=store, engine=local_engine)
    graph = sd.knn_graph(vectors, 5, engine=local_engine)
    grown = sd.append(graph, X[500:], engine=local_engine)
    check_law(X, grown.open(), "cosine", 5)
    table = grown.store.read_table(grown.shards[-1].objects["graph"])
    assert table["id"].to_pylist() == table["row"].to_pylist()


def test_new_vectors_may_lie_in_another_store(
    graph: GraphDataset, tmp_path: Path, local_engine: Engine
) -> None:
    elsewhere = open_store(str(tmp_path / "elsewhere"))
    new = imported(tmp_path, X[500:], named(range(500, 600)), elsewhere)
    grown = sd.append(graph, new, engine=local_engine)
    check_law(X, grown.open(), "cosine", 5)
    vectors = graph.store.dataset(_vectors(grown))
    assert verify(graph.store, vectors).ok


def test_rows_go_by_id_or_by_number_and_their_ids_may_come_back(
    graph: GraphDataset, tmp_path: Path, local_engine: Engine
) -> None:
    less = sd.delete(graph, ids=["row 7", "row 499"], engine=local_engine)
    assert less == sd.delete(graph, [499, 7], engine=local_engine)
    np.testing.assert_array_equal(less.open().deleted, [7, 499])
    assert less.metrics["rows_repaired"] == less.metrics["lists_changed"] > 0
    again = imported(tmp_path, X[500:501], ["row 7"], graph.store)
    grown = sd.append(less, again, engine=local_engine)
    shown = neighborhoods(grown, ids=["row 7"])
    assert len(shown[0].neighbors) == 5
    gone = sd.delete(grown, ids=["row 7"], engine=local_engine)
    np.testing.assert_array_equal(gone.open().deleted, [7, 499, 500])


def test_a_deleted_row_is_called_by_no_name(graph: GraphDataset, local_engine: Engine) -> None:
    less = sd.delete(graph, ids=["row 7"], engine=local_engine)
    with pytest.raises(InputError, match="no row is called 'row 7'"):
        neighborhoods(less, ids=["row 7"])
    assert all("row 7" not in dict(n.neighbors) for n in neighborhoods(less, count=400, nearest=5))


def test_other_libraries_are_given_the_living_rows(
    graph: GraphDataset, local_engine: Engine
) -> None:
    made = sd.delete(graph, [3, 4], engine=local_engine).open()
    for hand_on in (made.edges, made.to_scipy, made.to_umap, made.to_edge_index):
        with pytest.raises(InputError, match=r"2 of 500 rows are deleted.*living"):
            hand_on()
    rest, rows = made.living()
    assert rest.to_scipy().shape == (498, 498)
    np.testing.assert_array_equal(rows[rest.indices], made.indices[rows])


@pytest.mark.parametrize(
    ("x", "names", "columns", "said"),
    [
        (X[500:, :6], named(range(500, 600)), {}, "have 6 dimensions, the graph's vectors .* 8"),
        (X[500:], range(500, 600), {}, "ids of type int64, the graph's vectors .* string"),
        (X[500:], named(range(450, 550)), {}, "id 'row 450' .* is that of row 450 already"),
        (X[500:], named(range(500, 600)), {"year": [1] * 100}, "bring the columns .*'year'.* keep"),
        (0 * X[500:], named(range(500, 600)), {}, "row 500 of .* is all zeros"),
    ],
    ids=["other dimension", "other ids", "an id twice", "other columns", "zeros under cosine"],
)
def test_rows_that_do_not_fit_are_refused(  # noqa: PLR0917 - a row of a table, and fixtures
    x: Array,
    names: Sequence[Any],
    columns: dict[str, Any],
    said: str,
    graph: GraphDataset,
    tmp_path: Path,
    local_engine: Engine,
) -> None:
    new = imported(tmp_path, x, names, graph.store, **columns)
    with pytest.raises(InputError, match=said):
        sd.append(graph, new, engine=local_engine)


def test_rows_that_are_not_finite_are_refused(store: Store, local_engine: Engine) -> None:
    vectors = import_array(X[:500], store=store, engine=local_engine)
    graph = sd.knn_graph(vectors, 5, engine=local_engine)
    bad = X[500:].copy()
    bad[3, 2] = np.nan
    with pytest.raises(InputError, match="row 3"):
        sd.append(graph, bad, engine=local_engine)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rows": [500]}, "row 500 is not there: .* has 500 rows"),
        ({"rows": [-1]}, "row -1 is not there"),
        ({"rows": [0.5]}, "integers"),
        ({"rows": []}, "no rows to delete"),
        ({"rows": [1], "ids": ["row 1"]}, "one of them"),
        ({}, "one of them"),
        ({"ids": ["row 7", "row 777"]}, "has the id 'row 777'"),
        ({"ids": [7]}, "has the id 7"),
        ({"rows": range(495)}, "495 of 500 rows deleted leave 5, and k = 5 .* at least 6"),
    ],
)
def test_rows_that_cannot_go_are_refused(
    given: dict[str, Any], said: str, graph: GraphDataset, local_engine: Engine
) -> None:
    with pytest.raises(InputError, match=said):
        sd.delete(graph, **given, engine=local_engine)


def test_what_is_gone_cannot_go_again(graph: GraphDataset, local_engine: Engine) -> None:
    less = sd.delete(graph, [4], engine=local_engine)
    with pytest.raises(InputError, match=r"row 4 was deleted .* before"):
        sd.delete(less, [3, 4], engine=local_engine)
    with pytest.raises(InputError, match="has the id 'row 4'"):
        sd.delete(less, ids=["row 4"], engine=local_engine)


@pytest.mark.parametrize("role", ["vectors", "partition"])
def test_what_the_graph_was_built_on_must_still_be_there(
    role: str, graph: GraphDataset, tmp_path: Path, local_engine: Engine
) -> None:
    new = imported(tmp_path, X[500:], named(range(500, 600)), graph.store)
    fresh = open_store(str(tmp_path / "store"))
    fresh.objects.delete([f"manifests/{graph.manifest.inputs[role]}.json"])
    with pytest.raises(ObjectMissing, match=rf"made from {role} .*build the graph there again"):
        sd.append(GraphDataset(fresh, graph.manifest), new, engine=local_engine)


def test_only_a_graph_of_one_set_grows(graph: GraphDataset, local_engine: Engine) -> None:
    vectors = graph.store.dataset(_vectors(graph))
    hits = sd.knn(vectors, vectors, 3, engine=local_engine)
    for other in (vectors, hits):
        with pytest.raises(InputError, match="only a graph that knn_graph, append"):
            sd.append(other, X[500:], engine=local_engine)


def test_show_tells_where_a_grown_graph_comes_from(
    graph: GraphDataset, tmp_path: Path, local_engine: Engine
) -> None:
    grown: Dataset = graph
    for first in range(500, 600, 10):  # a tree of all origins would have thousands of branches
        new = imported(
            tmp_path, X[first : first + 10], named(range(first, first + 10)), graph.store
        )
        grown = sd.append(grown, new, engine=local_engine)
    told = describe(grown)
    assert len(told.lineage) < 120
    stages = {origin.stage for origin in told.lineage}
    assert {"append", "append_vectors", "graph_lists", "segment", "knn_graph"} <= stages
    page = io.StringIO()
    print_dataset(told, Console(file=page, width=100))
    assert "recall_new" in page.getvalue()


FLOW = """\
name: growing
store: {store}
inputs:
  january: {{path: "{folder}/january.parquet", id: name, vector: v}}
  february: {{path: "{folder}/february.parquet", id: name, vector: v}}
steps:
  graph: {{stage: knn_graph, of: january, k: 5}}
  both: {{stage: append, of: graph, new: february}}
"""


def test_a_flow_appends(tmp_path: Path, local_engine: Engine) -> None:
    from simdist.config import links
    from simdist.report.plan import plan_flow

    for name, part in (("january", range(500)), ("february", range(500, 600))):
        rows = X[part.start : part.stop]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 8)
        pq.write_table(pa.table({"name": named(part), "v": vectors}), tmp_path / f"{name}.parquet")
    flow = parse(FLOW.format(store=tmp_path / "store", folder=tmp_path))
    rows = {step.name: step.rows for step in plan_flow(flow).steps}
    assert (rows["graph"], rows["both"]) == (500, 600)
    store = flow.store.open()
    made = run_links(links(flow, store=store), {}, store=store, engine=local_engine)
    check_law(X, GraphDataset.of(made["both"]).open(), "cosine", 5)
    assert all(step.committed for step in plan_flow(flow).steps)


def test_a_flow_says_what_an_append_needs(tmp_path: Path) -> None:
    text = FLOW.format(store=tmp_path, folder=tmp_path)
    with pytest.raises(ConfigError, match="'graph' is a knn_graph; append works on vectors"):
        parse(text.replace("new: february", "new: graph"))
    with pytest.raises(ConfigError, match="'january' is a vectors; append works on knn_graph"):
        parse(text.replace("of: graph", "of: january"))
