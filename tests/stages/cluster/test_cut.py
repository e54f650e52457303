"""The normalised cut of any labelling: equal to the dense formula, however the graph is cut."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from stages.sharded import carried_out, column, links_dataset, random_graph

from simdist.errors import ConfigError, InputError
from simdist.stages.cluster import CutConfig, NormalizedCutStage
from simdist.store import Dataset, Manifest, Shard

N = 400
CUTS = (70, 71, 300)


@pytest.fixture(scope="module")
def graph() -> sp.csr_matrix:
    return random_graph(N, 8.0, seed=9, isolated=4)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    labels = np.random.default_rng(1).integers(0, 5, N) * 3
    labels[[5, 17]] = -1
    return labels


def labels_dataset(labels: np.ndarray, beside: Dataset) -> Dataset:
    store, half = beside.store, len(labels) // 2
    shards = tuple(
        Shard(len(part), {"labels": store.write_array("labels", part)})
        for part in (labels[:half], labels[half:])
    )
    store.commit(Manifest(f"{len(labels):032x}", "given", 1, {}, {}, len(labels), shards))
    return store.dataset(f"{len(labels):032x}")


def cut(graph, labels, cuts=(), **options) -> Dataset:
    links = links_dataset(graph, cuts=cuts)
    inputs = {"graph": links, "labels": labels_dataset(labels, links)}
    return carried_out(NormalizedCutStage(), CutConfig(**options), inputs)


@pytest.mark.parametrize("cuts", [(), CUTS], ids=["one shard", "four shards"])
def test_it_is_the_dense_formula(graph, labels, cuts):
    made = cut(graph, labels, cuts)
    A = graph.toarray().astype(np.float64)
    shares = []
    for place, cluster in enumerate((0, 3, 6, 9, 12)):
        inside = labels == cluster
        volume, within = A[inside].sum(), A[np.ix_(inside, inside)].sum()
        assert column(made, "volumes")[place] == pytest.approx(volume)
        assert column(made, "association")[place] == pytest.approx(within)
        assert column(made, "rows")[place] == inside.sum()
        shares.append((volume - within) / volume)
    assert made.metrics["normalized_cut"] == pytest.approx(sum(shares))
    assert made.metrics["unlabelled"] == 2


@pytest.mark.parametrize("cuts", [(), CUTS], ids=["one shard", "four shards"])
def test_central_rows_have_the_most_weight_inside_their_cluster(graph, labels, cuts):
    made = cut(graph, labels, cuts, central=3)
    A = graph.toarray().astype(np.float64)
    for place, cluster in enumerate((0, 3, 6, 9, 12)):
        members = np.flatnonzero(labels == cluster)
        within = A[np.ix_(members, members)].sum(axis=1)
        expected = members[np.argsort(-within, kind="stable")[:3]]
        assert np.array_equal(column(made, "central")[place], expected)


def test_the_numbers_do_not_depend_on_the_shards(graph, labels):
    one, four = cut(graph, labels), cut(graph, labels, CUTS)
    assert one.metrics["normalized_cut"] == pytest.approx(four.metrics["normalized_cut"], rel=1e-14)
    assert np.array_equal(column(one, "central"), column(four, "central"))


def test_whole_components_cost_nothing(graph):
    two = sp.csr_matrix(sp.block_diag([graph, graph]))
    made = cut(two, np.repeat([0, 1], N), (300,))
    assert made.metrics["normalized_cut"] == 0.0


def test_labels_of_another_number_of_rows_are_refused(graph, labels):
    with pytest.raises(InputError, match=r"400 nodes, the labels .* have 399 rows"):
        cut(graph, labels[1:])


def test_no_central_row_makes_no_sense():
    with pytest.raises(ConfigError, match="central=0: expected at least 1"):
        CutConfig(central=0)
