"""`connected_components`: the components that scipy finds, whatever the shards are."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.importing import fresh_store, shared_file
from stages.sharded import links_dataset, random_graph

from simdist.engine import Engine, open_engine
from simdist.errors import InputError
from simdist.models.components import connected_components
from simdist.models.edges import import_graph
from simdist.stages.components import stage
from simdist.store import open_store
from simdist.types import Array


def _expected(A: sp.spmatrix) -> Array:
    return sp.csgraph.connected_components(A, directed=False)[1]


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 80),
    degree=st.floats(0, 3),
    cuts=st.sets(st.integers(1, 79), max_size=12),
)
def test_labels_are_those_of_scipy_for_every_cut(seed, n, degree, cuts):
    A = random_graph(n, degree, seed=seed)
    links = links_dataset(A, cuts=sorted(c for c in cuts if c < n))
    with open_engine("local", workers=1) as engine:
        found = connected_components(links, engine=engine)
    labels = _expected(A)
    parts = found.open()
    assert np.array_equal(parts.labels, labels)
    assert np.array_equal(parts.sizes, np.bincount(labels))


def test_a_path_through_all_shards_in_any_order_is_one_component(local_engine: Engine):
    n = 400
    order = np.random.default_rng(0).permutation(n)
    path = sp.coo_matrix((np.ones(n - 1), (order[:-1], order[1:])), shape=(n, n))
    links = links_dataset(sp.csr_matrix(path + path.T), cuts=range(10, n, 10))
    found = connected_components(links, engine=local_engine)
    assert found.metrics["components"] == 1
    assert "merge-1" in found.metrics["rounds"]  # 39 forests, 8 at a time
    assert not found.open().labels.any()


def test_sizes_are_told_in_the_manifest_the_largest_first(monkeypatch, local_engine: Engine):
    monkeypatch.setattr(stage, "LARGEST", 3)
    sizes = [2, 1, 7, 4, 7, 1, 5]
    blocks = [np.ones((s, s)) - np.eye(s) for s in sizes]
    links = links_dataset(sp.block_diag(blocks, format="csr"), cuts=[5, 12, 20])
    found = connected_components(links, engine=local_engine)
    assert found.metrics["largest"] == [[2, 7], [4, 7], [6, 5]]
    assert (found.metrics["components"], found.metrics["singletons"]) == (7, 2)
    assert found.open().sizes.tolist() == sizes
    assert found.open().largest == 2
    assert repr(found.open()) == "Components(7 of 27 nodes, the largest has 7)"


def test_isolated_nodes_are_components_of_their_own(local_engine: Engine):
    links = links_dataset(sp.csr_matrix((6, 6), dtype=np.float32), cuts=[2, 4])
    found = connected_components(links, engine=local_engine).open()
    assert found.labels.tolist() == list(range(6))
    assert found.sizes.tolist() == [1] * 6


def test_a_stored_result_is_read_by_other_tools(tmp_path, local_engine: Engine):
    A = random_graph(200, 1.2, seed=3)
    links = links_dataset(A, cuts=[50, 120], store=open_store(tmp_path))
    found = connected_components(links, engine=local_engine)
    files = [str(tmp_path / shard.objects["components"].key) for shard in found.shards]
    table = duckdb.sql(
        f"select row, component from read_parquet({files}) order by row"
    ).fetchnumpy()
    assert np.array_equal(table["row"], np.arange(200))
    assert np.array_equal(table["component"], _expected(A))


def test_a_matrix_of_scipy_gives_arrays_and_a_directed_one_is_refused():
    A = random_graph(150, 1.5, seed=5)
    found = connected_components(A)
    assert np.array_equal(found.labels, _expected(A))
    assert len(found) == len(found.sizes)
    with pytest.raises(InputError, match="is directed"):
        connected_components(sp.triu(A, 1))


@pytest.mark.shared
def test_cora_has_78_components(local_engine: Engine):
    graph = import_graph(shared_file("cora.npz"), symmetrize="union")
    stored = import_graph(
        shared_file("cora.npz"), symmetrize="union", store=fresh_store(), engine=local_engine
    )
    found = connected_components(stored, engine=local_engine)
    assert found.metrics["components"] == 78
    assert found.metrics["largest"][0] == [0, 2485]
    assert np.array_equal(found.open().labels, _expected(graph.to_scipy()))
