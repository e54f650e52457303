"""Affinity propagation on edges: scikit-learn's answer where the graph is complete, and sensible
clusters where it is not; the same however the graph is cut."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.cluster import AffinityPropagation
from sklearn.metrics import adjusted_rand_score
from stages.sharded import blocks_graph, carried_out, column, links_dataset

from simdist.errors import ConfigError
from simdist.stages.affinity import AffinityConfig, AffinityPropagationStage, turns
from simdist.store import Dataset
from simdist.types import Array

CUTS = (20, 21, 55)
BOTH = pytest.mark.parametrize("cuts", [(), CUTS], ids=["one shard", "four shards"])


@pytest.fixture(scope="module")
def points() -> Array:
    rng = np.random.default_rng(3)
    centers = 3 * rng.standard_normal((6, 2))
    return centers[rng.integers(0, 6, 90)] + 0.5 * rng.standard_normal((90, 2))


@pytest.fixture(scope="module")
def complete(points) -> sp.csr_matrix:
    """Every pair an edge: 40 minus the squared distance, which is above 0 for all of them."""
    squares = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    weights = (squares.max() + 1.0 - squares).astype(np.float32)
    np.fill_diagonal(weights, 0.0)
    return sp.csr_matrix(weights)


def found(graph, cuts=(), **options) -> Dataset:
    inputs = {"graph": links_dataset(graph, cuts=cuts)}
    return carried_out(AffinityPropagationStage(), AffinityConfig(**options), inputs)


@BOTH
@pytest.mark.parametrize("preference", ["median", 300.0])
def test_on_a_complete_graph_it_is_scikit_learns(complete, cuts, preference):
    made = found(complete, cuts, preference=preference)
    dense = complete.toarray().astype(np.float64)
    edges = np.sort(complete.data)
    chosen = edges[(len(edges) - 1) // 2] if preference == "median" else preference
    peer = AffinityPropagation(affinity="precomputed", preference=float(chosen), damping=0.7)
    expected = peer.set_params(random_state=0).fit(dense)
    assert made.metrics["preference"] == pytest.approx(chosen)
    exemplars = made.store.read_array(made.manifest.objects["exemplars"])
    assert np.array_equal(exemplars, expected.cluster_centers_indices_)
    assert np.array_equal(column(made, "labels"), expected.labels_)
    assert made.metrics["state"] == "converged"


def test_more_damping_takes_more_turns_to_much_the_same_clusters(complete):
    quick, slow = (found(complete, damping=d) for d in (0.7, 0.85))
    assert slow.metrics["turns"] > quick.metrics["turns"]
    assert adjusted_rand_score(column(quick, "labels"), column(slow, "labels")) > 0.9


def neighbors(points: Array, k: int) -> sp.csr_matrix:
    from sklearn.neighbors import kneighbors_graph

    distances = kneighbors_graph(points, k, mode="distance")
    distances.data = np.exp(-(distances.data**2))
    return sp.csr_matrix(distances.maximum(distances.T))


@BOTH
def test_on_a_sparse_graph_every_row_has_an_exemplar_of_its_component(points, cuts):
    graph = sp.csr_matrix(sp.block_diag([neighbors(points, 6), sp.csr_matrix((2, 2))]))
    made = found(graph, cuts)
    labels = column(made, "labels")
    exemplars = made.store.read_array(made.manifest.objects["exemplars"])
    component = sp.csgraph.connected_components(graph)[1]
    assert labels.min() >= 0
    assert np.array_equal(component[exemplars[labels]], component)
    assert np.array_equal(labels[exemplars], np.arange(len(exemplars)))
    assert {90, 91} <= set(exemplars.tolist())  # without edges: their own
    assert made.metrics["state"] == "converged"


def test_shards_change_nothing(points):
    graph = neighbors(points, 5)
    one, four = found(graph), found(graph, CUTS)
    assert np.array_equal(column(one, "labels"), column(four, "labels"))
    assert one.metrics["turns"] == four.metrics["turns"]


@BOTH
def test_a_second_round_clusters_the_exemplars(cuts):
    sizes = (30, 30, 30)
    graph = blocks_graph(sizes, seed=2, inside=0.5, between=0.01)
    truth = np.repeat(np.arange(3), sizes)
    graph.data += np.float32(0.001) * np.arange(len(graph.data), dtype=np.float32)
    graph = sp.csr_matrix(graph.maximum(graph.T))
    once, twice = (found(graph, cuts, rounds=rounds, damping=0.8) for rounds in (1, 2))
    assert twice.metrics["first"] == once.metrics["exemplars"]
    assert twice.metrics["exemplars"] < once.metrics["exemplars"]
    agree = [adjusted_rand_score(truth, column(made, "labels")) for made in (once, twice)]
    assert agree[1] > agree[0]


@BOTH
def test_turns_that_did_not_suffice_are_told(complete, cuts):
    made = found(complete, cuts, turns=3)
    assert made.metrics["state"] == "unconverged"
    assert made.metrics["turns"] == 3


def test_one_shard_commits_its_turns_in_parts(complete, monkeypatch):
    whole = found(complete)
    monkeypatch.setattr(turns, "ALONE_WORK", 7 * complete.nnz)
    parts = found(complete)
    assert np.array_equal(column(whole, "labels"), column(parts, "labels"))
    assert whole.metrics["turns"] == parts.metrics["turns"] > 7


def test_a_graph_without_edges_is_its_own_exemplars():
    made = found(sp.csr_matrix((5, 5)))
    assert np.array_equal(column(made, "labels"), np.arange(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preference": float("nan")}, "preference=nan: expected a number, or 'median'"),
        ({"damping": 0.3}, r"damping=0\.3: expected at least 0\.5 and less than 1"),
        ({"turns": 0}, "turns=0: expected at least 1"),
        ({"rounds": 3}, "rounds=3: expected 1, or 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        AffinityConfig(**options)
