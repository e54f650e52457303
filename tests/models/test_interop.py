"""A graph as other libraries take it: matrices, edges, UMAP's neighbours."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from typing import Any

import duckdb
import numpy as np
import pytest
from scipy.sparse import csgraph
from sklearn.neighbors import kneighbors_graph, sort_graph_by_row_values

import simdist as sd
from simdist.errors import ConfigError, InputError
from simdist.models.graphs import GraphDataset
from simdist.types import Array

N, K = 200, 6


def absent(name: str) -> bool:
    return importlib.util.find_spec(name) is None


@pytest.fixture(scope="module")
def x() -> Array:
    rows = np.random.default_rng(4).standard_normal((N, 5)).astype(np.float32)
    rows[7] = rows[3]  # duplicates: an edge of length 0
    return rows


@pytest.fixture(scope="module")
def graph(x: Array) -> sd.KnnGraph:
    return made(x, "euclidean")


@pytest.fixture(scope="module")
def hits(x: Array) -> sd.KnnGraph:
    return sd.knn(x[:11], x, K, measure="euclidean", scratch=f"memory://{uuid.uuid4().hex}")


def made(x: Array, measure: Any) -> sd.KnnGraph:
    return sd.knn_graph(
        x, K, measure=measure, method="exact", scratch=f"memory://{uuid.uuid4().hex}"
    )


# -- distances -------------------------------------------------------------------------------------


def test_distances_of_a_distance_are_its_values(graph: sd.KnnGraph) -> None:
    assert np.array_equal(graph.distances, graph.values)


@pytest.mark.parametrize(
    ("measure", "high"),
    [("cosine", 1.0), ({"name": "squash", "measure": "euclidean", "scale": 2.0}, 1.0)],
)
def test_a_bounded_similarity_is_subtracted_from_its_bound(
    x: Array, measure: Any, high: float
) -> None:
    found = made(x, measure)
    assert np.array_equal(found.distances, np.float32(high) - found.values)
    assert found.distances.min() >= 0
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_an_inner_product_is_no_distance_but_still_a_graph(x: Array) -> None:
    found = made(x, "dot")
    for asked in (lambda: found.distances, found.to_scipy, found.to_umap):
        with pytest.raises(InputError, match=r"dot is a similarity without an upper bound.*cosine"):
            asked()
    assert np.array_equal(found.to_scipy("value").data, found.values.ravel())
    assert (found.to_scipy("connectivity").data == 1).all()


# -- scipy -----------------------------------------------------------------------------------------


def test_the_matrix_is_the_one_of_scikit_learn(x: Array, graph: sd.KnnGraph) -> None:
    expected = kneighbors_graph(x, K, mode="distance", include_self=False)
    np.testing.assert_allclose(graph.to_scipy().toarray(), expected.toarray(), atol=1e-6)
    connected = kneighbors_graph(x, K, mode="connectivity", include_self=False)
    # Where two rows are equal scikit-learn may take the other for the row itself.
    others = np.setdiff1d(np.arange(N), [3, 7])
    assert np.array_equal(
        graph.to_scipy("connectivity").toarray()[others], connected.toarray()[others]
    )


def test_rows_lie_nearest_first_with_explicit_zeros_for_duplicates(graph: sd.KnnGraph) -> None:
    matrix = graph.to_scipy()
    assert matrix.nnz == N * K
    assert 0.0 in matrix[3].data
    assert matrix.data.dtype == np.float32
    assert matrix.indices.dtype == np.int32
    assert sort_graph_by_row_values(matrix, warn_when_not_sorted=True) is matrix


def test_a_row_that_is_included_comes_first_at_distance_0(graph: sd.KnnGraph) -> None:
    matrix = graph.to_scipy(include_self=True)
    indices = matrix.indices.reshape(N, K + 1)
    assert np.array_equal(indices[:, 0], np.arange(N))
    assert np.array_equal(indices[:, 1:], graph.indices)
    assert (matrix.data.reshape(N, K + 1)[:, 0] == 0).all()
    assert sort_graph_by_row_values(matrix, warn_when_not_sorted=True) is matrix
    assert (graph.to_scipy("connectivity", include_self=True).diagonal() == 1).all()


def test_shortest_paths_run_over_the_matrix(graph: sd.KnnGraph) -> None:
    parts, labels = csgraph.connected_components(graph.to_scipy("connectivity"))
    lengths = csgraph.dijkstra(graph.to_scipy(), directed=False, indices=0)
    assert np.array_equal(np.isfinite(lengths), labels == labels[0])
    assert 1 <= parts < N


def test_a_search_in_another_set_gives_a_matrix_as_wide_as_that_set(
    x: Array, hits: sd.KnnGraph
) -> None:
    assert hits.corpus == N
    matrix = hits.to_scipy()
    assert matrix.shape == (11, N)
    assert (matrix[np.arange(11), np.arange(11)] == 0).all()
    for asked in (
        hits.to_umap,
        hits.to_edge_index,
        hits.to_networkx if not absent("networkx") else hits.to_umap,
        lambda: hits.to_scipy(include_self=True),
    ):
        with pytest.raises(InputError, match="200 rows of another set"):
            asked()


def test_what_cannot_be_asked_of_a_matrix_says_what_can(graph: sd.KnnGraph) -> None:
    with pytest.raises(ConfigError, match="entries='weights': expected 'distance'"):
        graph.to_scipy("weights")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="with entries='value'"):
        graph.to_scipy("value", include_self=True)


# -- UMAP ------------------------------------------------------------------------------------------


def test_umap_gets_the_row_itself_first_and_no_search_index(graph: sd.KnnGraph) -> None:
    """As `umap_.py` checks its precomputed_knn: two arrays of one shape, [n, >= n_neighbors]."""
    indices, distances, index = graph.to_umap()
    assert index is None
    assert indices.shape == distances.shape == (N, K + 1)
    assert (indices.dtype, distances.dtype) == (np.int32, np.float32)
    assert np.array_equal(indices[:, 0], np.arange(N))
    assert (distances[:, 0] == 0).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    assert np.array_equal(distances[:, 1:], graph.distances)


# -- edges -----------------------------------------------------------------------------------------


def test_edges_are_every_row_with_each_neighbour(graph: sd.KnnGraph) -> None:
    rows, neighbors, values = graph.edges()
    assert len(rows) == len(neighbors) == len(values) == N * K
    assert (rows.dtype, neighbors.dtype, values.dtype) == (np.int64, np.int64, np.float32)
    for edge in (0, K, N * K - 1):
        row, slot = divmod(edge, K)
        assert (rows[edge], neighbors[edge]) == (row, graph.indices[row, slot])
        assert values[edge] == graph.values[row, slot]


def test_an_edge_index_has_sources_above_targets(graph: sd.KnnGraph) -> None:
    """PyG's knn_graph(flow="source_to_target"): messages go from the neighbours to the row."""
    index = graph.to_edge_index()
    assert (index.shape, index.dtype, index.flags.c_contiguous) == ((2, N * K), np.int64, True)
    assert np.array_equal(index[0], graph.indices.ravel())
    assert np.array_equal(index[1], np.repeat(np.arange(N), K))
    assert np.array_equal(graph.to_edge_index("target_to_source"), index[::-1])
    with pytest.raises(ConfigError, match="flow='both'"):
        graph.to_edge_index("both")  # type: ignore[arg-type]


@pytest.mark.skipif(absent("networkx"), reason="networkx is not installed: pip install networkx")
def test_networkx_gets_every_row_and_named_weights(graph: sd.KnnGraph) -> None:
    found = graph.to_networkx()
    assert list(found.nodes) == list(range(N))
    assert found.number_of_edges() == N * K
    assert found[3][7] == {"distance": 0.0}
    assert set(graph.to_networkx("value")[0]) == set(graph.indices[0].tolist())


@pytest.mark.skipif(absent("igraph"), reason="igraph is not installed: pip install igraph")
def test_igraph_gets_every_row_and_named_weights(graph: sd.KnnGraph) -> None:
    found = graph.to_igraph()
    assert (found.vcount(), found.ecount(), found.is_directed()) == (N, N * K, True)
    assert found.es[found.get_eid(3, 7)]["distance"] == 0.0
    assert [edge.target for edge in found.es[:K]] == graph.indices[0].tolist()


@pytest.mark.parametrize(
    ("library", "method"),
    [("networkx", "to_networkx"), ("igraph", "to_igraph"), ("scipy.sparse", "to_scipy")],
)
def test_a_library_that_is_absent_is_named(
    graph: sd.KnnGraph, library: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"{method} needs .*pip install"):
        getattr(graph, method)()


# -- Parquet ---------------------------------------------------------------------------------------


def test_duckdb_finds_the_edges_of_a_stored_search_by_row(
    x: Array, hits: sd.KnnGraph, tmp_path: Any
) -> None:
    """The graph over one set is read in tests/test_end_to_end.py; here, a search in another."""
    store = sd.open_store(tmp_path)
    np.save(tmp_path / "queries.npy", x[:11])
    np.save(tmp_path / "corpus.npy", x)
    queries, corpus = (
        sd.import_vectors(str(tmp_path / f"{name}.npy"), store=store)
        for name in ("queries", "corpus")
    )
    stored: GraphDataset = sd.knn(queries, corpus, K, measure="euclidean")
    files = [str(store.objects.local_path(shard.objects["graph"].key)) for shard in stored.shards]
    found = duckdb.sql(
        f"""
        select row, unnest(neighbors) as neighbor, unnest(values) as distance
        from read_parquet({files}) order by row, distance, neighbor
        """
    ).fetchnumpy()
    rows, neighbors, values = found.values()
    assert np.array_equal(neighbors, hits.indices.ravel())
    assert np.array_equal(rows, hits.edges().rows)
    assert np.array_equal(values, hits.values.ravel())
    assert stored.open().corpus == N
