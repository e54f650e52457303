"""Similarity graphs as values, and handed to stages."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from stages.importing import fresh_store
from stages.sharded import links_dataset, random_graph

from simdist.engine import Engine
from simdist.errors import InputError
from simdist.models.edges import import_graph
from simdist.models.knn import knn_graph
from simdist.models.links import LinksDataset, SimilarityGraph, linked, links_of, open_links
from simdist.stages.links import shards


@pytest.fixture(scope="module")
def matrix() -> sp.csr_matrix:
    return random_graph(300, 6, seed=4, isolated=5)


def test_a_graph_says_what_it_is(matrix):
    graph = import_graph(matrix)
    assert isinstance(graph, SimilarityGraph)
    assert (graph.nodes, len(graph), graph.entries) == (300, 300, matrix.nnz)
    assert repr(graph) == f"SimilarityGraph(300 nodes, {matrix.nnz // 2} edges)"
    assert np.allclose(graph.degrees, matrix.toarray().sum(axis=1, dtype=np.float64))
    assert graph.degrees[-5:].tolist() == [0] * 5
    assert (graph.to_scipy() != matrix).nnz == 0


def test_arrays_matrices_and_datasets_become_the_same_links(
    matrix, local_engine: Engine, monkeypatch
):
    monkeypatch.setattr(shards, "SHARD_ENTRIES", 400)
    store = fresh_store()
    from_matrix = links_of(matrix, store, engine=local_engine)
    graph = open_links(from_matrix)
    from_arrays = links_of(graph, store, engine=local_engine)
    assert len(from_matrix.shards) > 3
    for one, two in zip(from_matrix.shards, from_arrays.shards, strict=True):
        assert one.objects == two.objects
        assert one.facts == two.facts
    cuts = np.cumsum([s.rows for s in from_matrix.shards[:-1]]).tolist()
    by_hand = links_dataset(matrix, cuts=cuts)
    assert [s.facts for s in by_hand.shards] == [s.facts for s in from_matrix.shards]
    assert links_of(LinksDataset.of(from_matrix), store, engine=local_engine).rows == 300
    assert (LinksDataset.of(from_matrix).open().to_scipy() != matrix).nnz == 0


def test_results_of_a_stored_graph_go_beside_it_or_where_they_are_told(
    matrix, local_engine: Engine
):
    store, other = fresh_store(), fresh_store()
    links = links_of(matrix, store, engine=local_engine)
    with linked(links, engine=local_engine) as found:
        assert (found.store, found.links.fingerprint) == (store, links.fingerprint)
    with linked(links, store=other, engine=local_engine) as found:
        assert found.store == other
    with linked(matrix, engine=local_engine) as found:
        assert found.links.store == found.store
        assert found.engine is local_engine
        assert found.links.rows == 300


def test_a_directed_graph_is_refused_with_what_to_do(matrix, local_engine: Engine):
    rows = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    knn = knn_graph(rows, 3, method="exact")
    with pytest.raises(InputError, match=r"similarity_graph\(knn"):
        links_of(knn, fresh_store(), engine=local_engine)
    with pytest.raises(InputError, match="is directed"):
        links_of(knn.to_scipy("connectivity"), fresh_store(), engine=local_engine)
    with pytest.raises(InputError, match="got ndarray"):
        links_of(rows, fresh_store(), engine=local_engine)
