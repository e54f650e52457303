"""Clusters and exemplars as a user asks for them, and what a clustering cuts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score
from stages.importing import shared_file
from stages.sharded import blocks_graph, column, links_dataset

from simdist.engine import Engine
from simdist.errors import ConfigError, InputError
from simdist.models.affinity import affinity_propagation
from simdist.models.clusters import normalized_cut, spectral_clusters
from simdist.models.components import connected_components
from simdist.models.spectral import diffusion_map, spectral_embedding
from simdist.store import open_store

SIZES = (70, 60, 50, 40)
TRUE = np.repeat(np.arange(4), SIZES)


@pytest.fixture(scope="module")
def graph() -> sp.csr_matrix:
    return blocks_graph(SIZES, seed=6, inside=0.3, between=0.01)


def path(n: int) -> sp.csr_matrix:
    return sp.csr_matrix(sp.diags([np.ones(n - 1)] * 2, [1, -1]))


@pytest.mark.parametrize("method", ["kmeans", "cluster_qr"])
def test_the_blocks_of_a_graph_are_its_clusters(graph, method):
    found = spectral_clusters(graph, 4, method=method)
    assert adjusted_rand_score(found.labels, TRUE) == 1.0
    assert found.sizes.tolist() == list(SIZES)
    assert np.array_equal(found.labels[found.central], np.tile(np.arange(4)[:, None], 5))
    assert repr(found) == "Clusters(4 of 220 rows: 70, 60, 50, 40; converged)"


def test_the_eigengap_finds_how_many_and_shows_its_reasons(graph):
    found = spectral_clusters(graph)
    assert found.clusters == 4
    assert adjusted_rand_score(found.labels, TRUE) == 1.0
    assert found.choice["clusters"] == 4
    assert "between eigenvalue 4" in found.choice["why"]
    assert [gap[0] for gap in found.choice["gaps"]] == list(range(2, 17))


@pytest.mark.parametrize("method", ["kmeans", "cluster_qr"])
def test_a_disconnected_graph_is_cut_within_its_large_components(graph, method):
    parts = [graph, path(3), sp.csr_matrix((1, 1)), graph, path(2)]
    whole = sp.csr_matrix(sp.block_diag(parts))
    found = spectral_clusters(whole, 8, method=method)
    truth = np.concatenate([TRUE, [-1] * 3, [-2], TRUE + 4, [-3] * 2])
    assert adjusted_rand_score(found.labels, truth) == 1.0
    assert found.clusters == 8
    assert found.labels[[220, 222, 223, -1]].tolist() == [8, 8, 9, 10]  # small: by first node
    assert normalized_cut(whole, found.labels).clusters.tolist() == list(range(11))


def test_fewer_clusters_than_components_never_join_two_of_them(graph):
    whole = sp.csr_matrix(sp.block_diag([graph, graph, graph]))
    found = spectral_clusters(whole, 2)
    assert adjusted_rand_score(found.labels, np.repeat([0, 1, 2], 220)) == 1.0
    assert found.clusters == 2
    assert normalized_cut(whole, found.labels).value == 0.0


def test_a_stored_graph_gives_a_dataset_and_an_embedding_is_used_again(graph, tmp_path):
    links = links_dataset(graph, cuts=(100,), store=open_store(tmp_path))
    by_graph = spectral_clusters(links, 4)
    embedding = spectral_embedding(links, 4)
    by_embedding = spectral_clusters(embedding, 4)
    assert by_graph.fingerprint == by_embedding.fingerprint
    assert np.array_equal(column(by_graph, "labels"), by_embedding.open().labels)
    other = spectral_embedding(links, 4, laplacian="random_walk")
    again = spectral_clusters(other, 4)
    assert adjusted_rand_score(again.open().labels, TRUE) == 1.0
    assert (
        adjusted_rand_score(spectral_clusters(diffusion_map(links, 3), 4).open().labels, TRUE) > 0.9
    )


def test_vectors_are_clustered_as_they_are():
    rng = np.random.default_rng(0)
    x = (5 * np.eye(4)[TRUE] + rng.standard_normal((220, 4)) * 0.5).astype(np.float32)
    assert adjusted_rand_score(spectral_clusters(x, 4).labels, TRUE) == 1.0
    far = x * np.array([100, 1, 1, 1], np.float32)
    assert adjusted_rand_score(spectral_clusters(far, 4, normalize=True).labels, TRUE) < 1.0


def test_clusters_are_the_same_on_every_engine(graph, engine: Engine, tmp_path):
    links = links_dataset(graph, cuts=(80, 150), store=open_store(tmp_path))
    made = spectral_clusters(links, 4, engine=engine)
    assert made.metrics["sizes"] == list(SIZES)
    assert normalized_cut(links, made, engine=engine).value == pytest.approx(
        normalized_cut(graph, made.open().labels).value, rel=1e-12
    )


def test_a_better_labelling_has_a_lower_cut(graph):
    true = normalized_cut(graph, TRUE)
    shuffled = normalized_cut(graph, np.random.default_rng(0).permutation(TRUE))
    assert 0 < true.value < 1 < shuffled.value <= 4
    assert true.mean_association == pytest.approx(1 - true.value / 4)
    assert np.allclose(true.cuts, true.volumes - true.association)
    assert np.array_equal(TRUE[true.central], np.tile(np.arange(4)[:, None], 5))


def test_labels_of_components_can_be_measured_too(graph, tmp_path):
    links = links_dataset(graph, store=open_store(tmp_path))
    assert normalized_cut(links, connected_components(links)).value == 0.0


def test_exemplars_of_a_graph_stand_in_their_own_blocks(graph):
    rng = np.random.default_rng(1)
    noisy = graph.copy()
    noisy.data *= rng.uniform(0.5, 1.5, len(noisy.data)).astype(np.float32)
    noisy = sp.csr_matrix(noisy.maximum(noisy.T))
    found = affinity_propagation(noisy, damping=0.9, turns=600)
    assert found.state == "converged"
    assert np.array_equal(found.labels[found.exemplars], np.arange(len(found)))
    purity = np.mean(TRUE[found.exemplars[found.labels]] == TRUE)
    assert purity > 0.9


def test_what_has_not_converged_is_warned_of(graph):
    with pytest.warns(RuntimeWarning, match="k-means has not converged"):
        assert spectral_clusters(graph, 9, restarts=1, iterations=1).state == "unconverged"
    with pytest.warns(RuntimeWarning, match="affinity propagation has not converged in 2 turns"):
        assert affinity_propagation(graph, turns=2).state == "unconverged"


def test_what_cannot_be_clustered_is_refused(graph, tmp_path):
    with pytest.raises(ConfigError, match="clusters=0: expected at least 1"):
        spectral_clusters(graph, 0)
    with pytest.raises(ConfigError, match="clusters='many': expected a number, or 'auto'"):
        spectral_clusters(graph, "many")
    with pytest.raises(InputError, match="expected a SimilarityGraph"):
        spectral_clusters([[1.0, 2.0]], 2)
    links = links_dataset(graph, store=open_store(tmp_path))
    with pytest.raises(InputError, match="connected_components and has no vectors"):
        spectral_clusters(connected_components(links), 3)
    directed = sp.csr_matrix(sp.triu(graph))
    with pytest.raises(InputError, match="the graph is directed"):
        spectral_clusters(directed, 3)


@pytest.mark.shared
def test_digits_are_told_apart_at_least_as_well_as_by_scikit_learn():
    from sklearn.cluster import SpectralClustering
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.neighbors import kneighbors_graph

    data = np.load(shared_file("mnist-10k.npz"))
    rows = np.random.default_rng(0).choice(10_000, 3000, replace=False)
    images, truth = data["images"][rows].reshape(len(rows), -1), data["labels"][rows]
    one = kneighbors_graph(images.astype(np.float32), 10)
    graph = sp.csr_matrix(one.maximum(one.T))
    peer = SpectralClustering(10, affinity="precomputed", random_state=0).fit(graph)
    found = spectral_clusters(graph, 10)
    for score in (adjusted_rand_score, normalized_mutual_info_score):
        assert score(truth, found.labels) >= score(truth, peer.labels_) - 0.005
