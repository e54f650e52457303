"""Message passing as a user asks for it; and on Cora's standard split as published."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from stages.importing import shared_file
from stages.partitioning import vectors_dataset
from stages.propagate.test_propagate import sgc
from stages.sharded import blocks_graph, column, links_dataset

from simdist.engine import Engine
from simdist.errors import InputError
from simdist.models.knn import knn_graph
from simdist.models.propagation import correct_and_smooth, label_propagation, propagate
from simdist.store import open_store

SIZES = (60, 50, 40)
N = sum(SIZES)
TRUE = np.repeat([0, 1, 2], SIZES)


@pytest.fixture(scope="module")
def graph() -> sp.csr_matrix:
    return blocks_graph(SIZES, seed=4, inside=0.25, between=0.01)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, 9)).astype(np.float32)


@pytest.fixture(scope="module")
def known() -> np.ndarray:
    labels = np.full(N, -1)
    labels[[0, 1, 60, 61, 110, 111]] = TRUE[[0, 1, 60, 61, 110, 111]]
    return labels


def test_arrays_give_arrays(graph, features, known):
    walked = propagate(graph, features, steps=3)
    assert walked.dtype == np.float32
    assert np.abs(walked - sgc(graph, features.astype(np.float64), 3)).max() < 1e-5
    found = label_propagation(graph, known)
    assert np.mean(found.labels == TRUE) > 0.95
    assert np.array_equal(found.classes, [0, 1, 2])
    assert found.state == "converged"
    assert "150 rows, 3 classes, 0 unreached" in repr(found)


def test_a_stored_graph_gives_datasets_that_others_take(graph, features, known, tmp_path):
    store = open_store(tmp_path)
    links = links_dataset(graph, cuts=(70,), store=store)
    walked = propagate(links, vectors_dataset(features, store=store))
    neighbors = knn_graph(walked, 5, measure="euclidean", method="exact").open()
    assert neighbors.indices.shape == (N, 5)
    labels = label_propagation(links, known)
    assert np.array_equal(column(labels, "labels"), labels.open().labels)
    again = label_propagation(links, labels)  # all rows are known now
    assert np.array_equal(again.open().labels, labels.open().labels)


def test_it_is_the_same_on_every_engine(graph, features, engine: Engine, tmp_path):
    links = links_dataset(graph, cuts=(90,), store=open_store(tmp_path))
    walked = propagate(links, features, engine=engine)
    assert np.allclose(column(walked, "vectors"), propagate(graph, features), atol=1e-6)


def test_predictions_are_mended_by_known_labels(graph, known):
    guesses = np.random.default_rng(3).dirichlet(np.ones(3), N).astype(np.float32)
    found = correct_and_smooth(graph, guesses, known)
    assert np.mean(guesses.argmax(axis=1) == TRUE) < 0.5
    assert np.mean(found.labels == TRUE) > 0.9
    assert found.state == "done"


def test_what_has_not_converged_is_warned_of(graph, features, known):
    with pytest.warns(RuntimeWarning, match="label_propagation has not converged: after 2 steps"):
        assert label_propagation(graph, known, steps=2).state == "unconverged"
    with pytest.warns(RuntimeWarning, match="propagate has not converged"):
        propagate(graph, features, kind="ppr", steps=2)


def test_what_cannot_be_walked_is_refused(graph, features, known, tmp_path):
    with pytest.raises(InputError, match=r"150 nodes, the features .* have 149 rows"):
        propagate(graph, features[1:])
    with pytest.raises(InputError, match="expected a SimilarityGraph"):
        propagate(features, features)
    links = links_dataset(graph, store=open_store(tmp_path))
    with pytest.raises(InputError, match="import_graph and has no labels"):
        label_propagation(links, links)
    with pytest.raises(InputError, match="import_graph and has no vectors"):
        propagate(links, links)


class Cora:
    """The citation graph with the split of Yang et al. (2016)."""

    def __init__(self) -> None:
        data = np.load(shared_file("cora.npz"))
        parts = (data[f"features_{part}"] for part in ("data", "indices", "indptr"))
        self.features = sp.csr_matrix(tuple(parts), tuple(data["features_shape"])).toarray()
        n = len(self.features)
        one = sp.csr_matrix((np.ones(len(data["edges"])), data["edges"].T), (n, n))
        self.graph = sp.csr_matrix(one.maximum(one.T))
        self.labels = data["labels"]
        self.train, self.val, self.test = (data[part] for part in ("train", "val", "test"))

    def known(self) -> np.ndarray:
        labels = np.full(len(self.labels), -1)
        labels[self.train] = self.labels[self.train]
        return labels

    def accuracy(self, labels: np.ndarray) -> float:
        return float(np.mean(labels[self.test] == self.labels[self.test]))

    def linear(self, X: np.ndarray) -> np.ndarray:
        """Probabilities of a linear head whose regularisation the validation rows chose."""
        from sklearn.linear_model import LogisticRegression

        heads = [
            LogisticRegression(C=C, max_iter=1000).fit(X[self.train], self.labels[self.train])
            for C in (0.1, 1.0, 10.0)
        ]
        best = max(heads, key=lambda head: head.score(X[self.val], self.labels[self.val]))
        return np.asarray(best.predict_proba(X))


@pytest.fixture(scope="module")
def cora() -> Cora:
    return Cora()


@pytest.mark.shared
def test_label_propagation_on_cora_is_as_published(cora):
    """68.0 in Yang et al. (2016), who take the graph alone."""
    for options in ({"kind": "clamped"}, {"kind": "spreading"}):
        found = label_propagation(cora.graph, cora.known(), **options)
        assert cora.accuracy(found.labels) > 0.67
        assert np.sum(found.labels < 0) > 0  # components without a label say so


@pytest.mark.shared
def test_sgc_and_appnp_with_a_linear_head_on_cora_are_as_published(cora):
    """81.0 in Wu et al. (2019), 83.3 for APPNP on this split."""
    for kind, published in (("sgc", 0.810), ("appnp", 0.833)):
        head = cora.linear(propagate(cora.graph, cora.features, kind=kind))
        assert cora.accuracy(head.argmax(axis=1)) > published - 0.01


@pytest.mark.shared
def test_a_model_that_saw_no_edges_gains_from_correct_and_smooth_on_cora(cora):
    alone = cora.linear(cora.features)
    mended = correct_and_smooth(cora.graph, alone.astype(np.float32), cora.known())
    assert cora.accuracy(mended.labels) > cora.accuracy(alone.argmax(axis=1)) + 0.1
