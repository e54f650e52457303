"""`knn`: the nearest corpus rows of queries, exact with a certificate or over a partition."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

import simdist as sd
from simdist.errors import ConfigError, InputError
from simdist.measures import resolve

K = 7


def _dense(queries: np.ndarray, corpus: np.ndarray, measure: str, k: int) -> np.ndarray:
    """The definition: order by (value, row) over all pairs by the fixed kernel."""
    chosen = resolve(measure)
    rows, columns = np.divmod(np.arange(len(queries) * len(corpus)), len(corpus))
    values = chosen.pairs_at(queries, rows, corpus, columns).reshape(len(queries), len(corpus))
    signed = -values if chosen.traits.kind == "similarity" else values
    return np.argsort(signed, axis=1, kind="stable")[:, :k]


@pytest.fixture(scope="module")
def points() -> tuple[np.ndarray, np.ndarray]:
    rows = sd.datasets.clusters(3300, 24, 30, seed=5).rows
    return rows[:300], rows[300:]


@pytest.mark.parametrize("measure", ["cosine", "euclidean", "dot", "manhattan"])
def test_exact_search_is_the_dense_answer(points, measure):
    queries, corpus = points
    hits = sd.knn(queries, corpus, K, measure=measure)
    assert np.array_equal(hits.indices, _dense(queries, corpus, measure, K))
    assert hits.recall.low == 1.0


def test_exact_search_agrees_with_scikit_learn(points):
    queries, corpus = points
    distances = pairwise_distances(queries, corpus)
    hits = sd.knn(queries, corpus, K, measure="euclidean")
    expected = np.sort(distances, axis=1)[:, :K]
    assert np.allclose(hits.values, expected, rtol=1e-4, atol=1e-4)


def test_a_query_that_stands_in_the_corpus_finds_itself_first(points):
    _, corpus = points
    hits = sd.knn(corpus[:50], corpus, 3, measure="euclidean")
    assert np.array_equal(hits.indices[:, 0], np.arange(50))
    assert np.all(hits.values[:, 0] == 0)


@pytest.mark.parametrize("measure", ["cosine", "euclidean", "dot", "manhattan"])
def test_search_over_a_partition_reaches_the_recall_asked_for(points, measure):
    queries, corpus = points
    hits = sd.knn(queries, corpus, K, measure=measure, method="approximate", recall=0.9)
    truth = _dense(queries, corpus, measure, K)
    true = np.mean([len(set(a) & set(b)) / K for a, b in zip(hits.indices, truth, strict=True)])
    assert hits.recall.low >= 0.9
    assert hits.recall.low - 0.02 <= true <= 1.0
    assert all(len(set(row)) == K for row in hits.indices)


def test_more_recall_takes_more_probes_and_one_probe_is_the_least(points, tmp_path):
    queries, corpus = (_stored(x, tmp_path, name) for x, name in zip(points, "qc", strict=True))
    loose, tight, single = (
        sd.knn(queries, corpus, K, measure="euclidean", method="approximate", **options)
        for options in ({"recall": 0.7}, {"recall": 0.99}, {"recall": None, "probes": 1})
    )
    assert single.metrics["probes"] == 1
    assert loose.metrics["probes"] < tight.metrics["probes"]
    assert tight.metrics["recall"]["low"] >= 0.99


def test_the_partition_is_made_once_and_reused_by_the_graph(points, tmp_path):
    queries, corpus = (_stored(x, tmp_path, name) for x, name in zip(points, "qc", strict=True))
    hits = sd.knn(queries, corpus, K, method="approximate")
    graph = sd.knn_graph(corpus, K)
    assert hits.manifest.inputs["partition"] == graph.manifest.inputs["partition"]


def test_cells_with_fewer_than_k_rows_still_give_k_neighbours():
    rows = np.random.default_rng(3).standard_normal((400, 8)).astype(np.float32)
    hits = sd.knn(
        rows[:20], rows[20:], 60, measure="euclidean", method="approximate", recall=None, probes=1
    )
    assert hits.indices.shape == (20, 60)
    assert hits.indices.min() >= 0
    assert all(len(set(row)) == 60 for row in hits.indices)


def test_thousands_of_equal_rows_tie_by_row():
    corpus = np.zeros((3000, 4), np.float32)
    corpus[:, 0] = 1
    hits = sd.knn(corpus[:5], corpus, 4, measure="euclidean")
    assert np.array_equal(hits.indices, np.tile(np.arange(4), (5, 1)))


NASTY = {
    "near-duplicates far from the origin": lambda rng: (
        1000 + 1e-3 * rng.standard_normal((4000, 16))
    ).astype(np.float32),
    "binary": lambda rng: rng.integers(0, 2, (4000, 24)).astype(np.float32),
    "copies": lambda rng: np.repeat(rng.standard_normal((40, 8)), 100, axis=0).astype(np.float32),
}


@pytest.mark.parametrize("data", NASTY)
def test_ties_and_near_ties_do_not_flatter_the_recall(data):
    rows = NASTY[data](np.random.default_rng(8))
    queries, corpus = rows[::20], np.delete(rows, np.s_[::20], axis=0)
    hits = sd.knn(queries, corpus, K, measure="euclidean", method="approximate", recall=0.9)
    truth = _dense(queries, corpus, "euclidean", K)
    true = np.mean([len(set(a) & set(b)) / K for a, b in zip(hits.indices, truth, strict=True)])
    assert hits.recall.low - 0.02 <= true <= hits.recall.high + 0.02


def test_a_corpus_smaller_than_k_is_refused(points):
    queries, corpus = points
    with pytest.raises(InputError, match=r"k=9 neighbours need a corpus .* has 5\. Ask for k <= 5"):
        sd.knn(queries, corpus[:5], 9)


def test_sets_of_different_dimension_are_refused(points):
    queries, corpus = points
    with pytest.raises(InputError, match="queries have 20 dimensions, the corpus 24"):
        sd.knn(np.ascontiguousarray(queries[:, :20]), corpus, 3)


def test_a_zero_query_is_refused_by_cosine_with_its_row(points):
    queries, corpus = points
    broken = queries.copy()
    broken[17] = 0
    with pytest.raises(InputError, match=r"row 17 of .* is all zeros, which cosine cannot"):
        sd.knn(broken, corpus, 3)


def test_an_array_and_a_dataset_do_not_mix(points, tmp_path):
    queries, corpus = points
    with pytest.raises(ConfigError, match="two arrays or two stored datasets"):
        sd.knn(queries, _stored(corpus, tmp_path, "c"), 3)


def _stored(x: np.ndarray, folder, name: str) -> sd.Dataset:
    np.save(folder / f"{name}.npy", x)
    return sd.import_vectors(str(folder / f"{name}.npy"), store=sd.open_store(folder / "store"))
