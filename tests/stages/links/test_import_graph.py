"""`import_graph`: a graph of the user's own, from memory or files, checked and made canonical."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from stages.importing import fresh_store, shared_file

from simdist.engine import Engine
from simdist.errors import ConfigError, InputError
from simdist.models.edges import import_graph
from simdist.models.links import LinksDataset, SimilarityGraph
from simdist.store import open_store

N = 120


def _symmetric(seed: int = 0) -> sp.csr_matrix:
    """[N, N] float32, symmetric, some nodes isolated."""
    A = sp.random(N, N, 0.04, format="csr", random_state=seed, dtype=np.float32)
    A = sp.triu(A, 1)
    return sp.csr_matrix(A + A.T)


def _directed(seed: int = 1) -> sp.csr_matrix:
    A = sp.random(N, N, 0.08, format="csr", random_state=seed, dtype=np.float32)
    A.setdiag(0)
    A.eliminate_zeros()
    return A


def _table(A: sp.spmatrix, order: np.random.Generator | None = None) -> pa.Table:
    edges = A.tocoo()
    where = np.arange(edges.nnz) if order is None else order.permutation(edges.nnz)
    return pa.table(
        {
            "from": edges.row[where].astype(np.int32),
            "to": edges.col[where].astype(np.int64),
            "score": edges.data[where],
        }
    )


NAMES = {"row": "from", "neighbor": "to", "weight": "score"}


def _parquet(table: pa.Table, folder: Path) -> Path:
    half = len(table) // 2
    pq.write_table(table.slice(0, half), folder / "a.parquet", row_group_size=70)
    pq.write_table(table.slice(half), folder / "b.parquet")
    return folder


def _csv(table: pa.Table, folder: Path) -> Path:
    pa.csv.write_csv(table, folder / "edges.csv")
    return folder / "edges.csv"


def _tsv(table: pa.Table, folder: Path) -> Path:
    options = pa.csv.WriteOptions(delimiter="\t")
    pa.csv.write_csv(table, folder / "edges.tsv", options)
    return folder / "edges.tsv"


WRITERS: dict[str, Callable[[pa.Table, Path], Path]] = {
    "parquet": _parquet,
    "csv": _csv,
    "tsv": _tsv,
}


def _equal(graph: SimilarityGraph, A: sp.csr_matrix) -> bool:
    return (graph.to_scipy() != A).nnz == 0


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("symmetrize", ["refuse", "union", "mutual"])
def test_files_give_the_graph_that_scipy_gives(kind, symmetrize, tmp_path, many_shards):
    A = _symmetric() if symmetrize == "refuse" else _directed()
    path = WRITERS[kind](_table(A, np.random.default_rng(2)), tmp_path)
    made = import_graph(path, **NAMES, nodes=N, symmetrize=symmetrize)
    assert _equal(made, A.minimum(A.T) if symmetrize == "mutual" else A.maximum(A.T))
    assert _equal(import_graph(A, symmetrize=symmetrize), made.to_scipy())


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "coo_array", "lil_matrix"])
def test_every_sparse_format_of_scipy_is_taken(kind):
    A = _symmetric()
    assert _equal(import_graph(getattr(sp, kind)(A)), A)


def test_isolated_nodes_at_the_end_are_there_when_nodes_says_so(tmp_path):
    table = pa.table({"row": [0, 1], "neighbor": [1, 0]})
    pq.write_table(table, tmp_path / "edges.parquet")
    assert import_graph(tmp_path / "edges.parquet").nodes == 2
    made = import_graph(tmp_path / "edges.parquet", nodes=5)
    assert made.degrees.tolist() == [1, 1, 0, 0, 0]


def test_a_graph_without_edges_is_a_graph(tmp_path, local_engine: Engine):
    pq.write_table(
        pa.table({"row": pa.array([], pa.int64()), "neighbor": pa.array([], pa.int64())}),
        tmp_path / "edges.parquet",
    )
    links = import_graph(
        tmp_path / "edges.parquet", nodes=3, store=fresh_store(), engine=local_engine
    )
    assert (links.rows, links.metrics["entries"], links.metrics["isolated"]) == (3, 0, 3)
    assert links.open().degrees.tolist() == [0, 0, 0]
    assert import_graph(sp.csr_matrix((4, 4))).entries == 0
    with pytest.raises(InputError, match="hold no edge"):
        import_graph(tmp_path / "edges.parquet")


def test_loops_zeros_and_duplicates_are_handled_as_told(tmp_path, local_engine: Engine):
    rows, columns = [0, 1, 0, 1, 2, 2, 0], [1, 0, 1, 0, 2, 0, 2]
    weights = [0.25, 0.25, 0.5, 0.5, 9.0, 0.0, 0.0]
    expected = np.array([[0, 0.75, 0], [0.75, 0, 0], [0, 0, 0]])
    table = pa.table({"row": rows, "neighbor": columns, "weight": weights})
    pq.write_table(table, tmp_path / "edges.parquet")
    matrix = sp.coo_matrix((weights, (rows, columns)), shape=(3, 3))
    for edges in (tmp_path / "edges.parquet", matrix):
        options = {} if edges is matrix else {"weight": "weight"}
        links = import_graph(edges, store=fresh_store(), engine=local_engine, **options)
        assert isinstance(links, LinksDataset)
        assert np.array_equal(links.open().to_scipy().toarray(), expected)
        counted = {name: links.metrics[name] for name in ("self_loops", "zeros", "duplicates")}
        assert counted == {"self_loops": 1, "zeros": 2, "duplicates": 2}
        with pytest.raises(InputError, match=r"edge \(0, 1\) more than once; 2 edges repeat"):
            import_graph(edges, duplicates="refuse", **options)


def test_a_directed_graph_is_refused_by_its_first_edge(tmp_path, many_shards):
    A = _symmetric().tolil()
    A[100, 7] = 0.5
    A[100, 9], A[9, 100] = 0.25, 0.5
    path = _parquet(_table(A), tmp_path)
    for made in (lambda: import_graph(A), lambda: import_graph(path, **NAMES, nodes=N)):
        with pytest.raises(InputError, match=r"\(7, 100\) is absent, \(100, 7\) has weight 0.5; 4"):
            made()


def test_weights_that_differ_by_rounding_are_one(tmp_path):
    A = np.zeros((2, 2), np.float32)
    A[0, 1], A[1, 0] = 0.1, np.nextafter(np.float32(0.1), np.float32(1))
    path = _csv(_table(sp.coo_matrix(A)), tmp_path)
    for made in (import_graph(sp.csr_matrix(A)), import_graph(path, **NAMES)):
        assert made.weights.tolist() == [A.max(), A.max()]


@pytest.mark.parametrize(
    ("weight", "told"), [(-0.5, "weight -0.5"), (np.nan, "weight nan"), (1e300, "weight 1e.300")]
)
def test_a_bad_weight_is_refused_by_its_number(weight, told, tmp_path, many_shards):
    A = _symmetric()
    weights = A.data.astype(np.float64)
    weights[411] = weight
    bad = sp.csr_matrix((weights, A.indices, A.indptr), shape=A.shape)
    with pytest.raises(InputError, match=rf"the graph, edge 411: .* {told}"):
        import_graph(bad)
    pq.write_table(_table(bad), tmp_path / "edges.parquet", row_group_size=100)
    with pytest.raises(InputError, match=rf"edges.parquet, edge 411: .* {told}"):
        import_graph(tmp_path / "edges.parquet", **NAMES)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"row": [0, 5], "neighbor": [1, 0]}, r"edge 1: its row is 5; expected a node from 0 to 2"),
        ({"row": [0, 1], "neighbor": [-1, 0]}, r"edge 0: its neighbor is -1"),
        ({"row": [0, None], "neighbor": [1, 0]}, r"edge 1: column 'row' is NULL"),
        ({"row": ["a", "b"], "neighbor": [1, 0]}, r"'row' holds string; expected whole numbers"),
        ({"row": [0.5, 1.0], "neighbor": [1, 0]}, r"'row' holds double; expected whole numbers"),
        ({"row": [0, 1]}, r"has no column 'neighbor'; its columns are row"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_that_holds_no_edges_says_why(columns, told, kind, tmp_path):
    path = tmp_path / f"edges.{kind}"
    (pq.write_table if kind == "parquet" else pa.csv.write_csv)(pa.table(columns), path)
    with pytest.raises(InputError, match=told):
        import_graph(path, nodes=3)


def test_an_npz_of_scipy_and_one_of_pairs_are_read(tmp_path):
    A = _symmetric()
    sp.save_npz(tmp_path / "matrix.npz", A)
    assert _equal(import_graph(tmp_path / "matrix.npz"), A)
    upper = sp.triu(A).tocoo()
    edges = np.stack([upper.row, upper.col], axis=1)
    np.savez(tmp_path / "pairs.npz", edges=edges, weights=upper.data)
    made = import_graph(str(tmp_path / "pairs.npz"), nodes=N, symmetrize="union")
    assert _equal(made, A)
    ones = import_graph(edges, nodes=N, symmetrize="union")
    assert _equal(ones, (A > 0).astype(np.float32))


@pytest.mark.parametrize(
    ("edges", "told"),
    [
        (np.eye(3), r"float64 of shape \(3, 3\); expected integers"),
        (sp.eye(3, 4), r"shape \(3, 4\); expected \[n, n\]"),
        (sp.csr_matrix(np.eye(3) * 1j), "complex128; expected real numbers"),
        (np.array([[0, 1], [2, -1]]), r"edge 1: \[2, -1\]"),
        ([(0, 1)], "got list"),
        ("nowhere.npz", "nowhere.npz is not there"),
        ("nowhere/*.csv", "matches nothing"),
        (__file__, "its suffix '.py' tells no format of edges"),
    ],
)
def test_what_is_no_graph_is_refused(edges, told):
    with pytest.raises(InputError, match=told):
        import_graph(edges)


@pytest.mark.parametrize("options", [{"symmetrize": "both"}, {"duplicates": "max"}])
def test_an_option_that_there_is_not_is_refused(options, tmp_path):
    with pytest.raises(ConfigError, match=f"{next(iter(options))}="):
        import_graph(_csv(_table(_symmetric()), tmp_path), **NAMES, **options)


def test_the_same_edges_under_another_name_are_the_same_dataset(tmp_path, local_engine: Engine):
    store = fresh_store()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    table = _table(_symmetric())
    first = import_graph(
        _csv(table, tmp_path / "one"), **NAMES, nodes=N, store=store, engine=local_engine
    )
    second = import_graph(
        _parquet(table, tmp_path / "two"), **NAMES, nodes=N, store=store, engine=local_engine
    )
    assert first.fingerprint == second.fingerprint


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, local_engine):
    from simdist.stages.links import edges

    path = _csv(_table(_symmetric()), tmp_path)
    plan = edges._plan

    def planned(*args):
        path.write_text("from,to,score\n0,1,1\n1,0,1\n")
        return plan(*args)

    monkeypatch.setattr(edges, "_plan", planned)
    with pytest.raises(InputError, match="changed since the import began"):
        import_graph(path, **NAMES, engine=local_engine)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "nodes", "edges", "components"),
    [("musae-facebook.npz", 22_470, 170_823, 1), ("cora.npz", 2_708, 5_278, 78)],
)
def test_real_graphs_have_the_edges_they_are_known_for(name, nodes, edges, components):
    made = import_graph(shared_file(name), symmetrize="union")
    assert (made.nodes, made.entries) == (nodes, 2 * edges)
    found, _ = sp.csgraph.connected_components(made.to_scipy(), directed=False)
    assert found == components
    with pytest.raises(InputError, match="is directed"):
        import_graph(shared_file(name))


@pytest.mark.s3
def test_files_of_an_object_store_are_read_with_the_stores_own_credentials(
    s3_uri: str, local_engine: Engine
):
    store = open_store(s3_uri)
    A = _symmetric()
    for name, part in (("a", slice(0, 200)), ("b", slice(200, None))):
        table = _table(A)
        rows = table.slice(part.start, (part.stop or len(table)) - part.start)
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink)
        store.objects.put(f"edges/{name}.parquet", sink.getvalue().to_pybytes())
    options = {**NAMES, "nodes": N, "store": store, "engine": local_engine}
    made = import_graph(f"{s3_uri}/edges/", **options)
    assert _equal(made.open(), A)
    with pytest.raises(InputError, match="matches nothing"):
        import_graph(f"{s3_uri}/nothing/", **options)
