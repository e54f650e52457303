"""Pairs and deduplication as a caller meets them: results, stores, and what is refused at once."""

from __future__ import annotations

import numpy as np
import pytest

from simdist.datasets import clusters
from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, PlanTooLarge
from simdist.models.dedupe import Deduplicated, deduplicate
from simdist.models.knn import knn_graph
from simdist.models.links import SimilarityGraph
from simdist.models.pairs import similarity_join
from simdist.models.vectors import import_array
from simdist.stages.pairs.cells import PairRecall
from simdist.store import open_store
from simdist.store.datasets import Dataset


@pytest.fixture(scope="module")
def one_thread():
    with open_engine("local", workers=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return clusters(300, 8, 60, seed=0).rows


@pytest.fixture
def stored(rows, one_thread: Engine, tmp_path) -> Dataset:
    return import_array(rows, store=open_store(tmp_path), engine=one_thread)


def test_a_result_says_what_it_is(rows, one_thread):
    pairs = similarity_join(rows, 0.95, engine=one_thread)
    assert repr(pairs) == f"SimilarityPairs({len(pairs)} pairs of 300 rows, cosine 0.95)"
    found = deduplicate(rows, 0.95, engine=one_thread)
    assert repr(found) == f"Deduplicated({len(found.kept)} of 300 rows kept)"


def test_joining_again_is_reading_again(stored, one_thread):
    first = similarity_join(stored, 0.95, engine=one_thread)
    assert similarity_join(stored, 0.95, engine=one_thread).fingerprint == first.fingerprint
    larger = similarity_join(stored, 0.95, max_pairs=10**9, engine=one_thread)
    assert larger.fingerprint == first.fingerprint  # a limit is not part of what is computed


def test_pairs_joined_under_a_larger_limit_are_refused_under_a_smaller_one(stored, one_thread):
    pairs = similarity_join(stored, 0.95, engine=one_thread)
    with pytest.raises(PlanTooLarge, match="joined under a larger limit"):
        similarity_join(stored, 0.95, max_pairs=pairs.rows - 1, engine=one_thread)


def test_a_deduplication_shares_the_join_of_another(stored, one_thread):
    seen: list[str] = []
    deduplicate(stored, 0.95, engine=one_thread)
    deduplicate(
        stored,
        0.95,
        keep="medoid",
        engine=one_thread,
        listeners=[lambda event: seen.append(f"{event}")],
    )
    started = [event for event in seen if event.startswith("RoundStarted(")]
    assert started
    assert all("deduplicate" in event for event in started)


@pytest.mark.parametrize("call", [similarity_join, deduplicate])
def test_an_array_and_a_dataset_do_not_mix_and_a_graph_is_no_vectors(
    call, stored, rows, one_thread
):
    with pytest.raises(ConfigError, match="not one of each"):
        call(stored, 0.9, against=rows, engine=one_thread)
    graph = knn_graph(stored, 3, method="exact", engine=one_thread)
    with pytest.raises(ConfigError, match="is what knn_graph made"):
        call(graph, 0.9, engine=one_thread)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "fast"}, "expected 'exact' or 'approximate'"),
        ({"max_pairs": 0}, "at least 1 pair"),
        ({"recall": 1.0}, "between 0 and 1"),
        ({"threshold": 1.5}, "no pair reaches it"),
        ({"measure": "cosin"}, "Did you mean 'cosine'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_runs(rows, options, said):
    with pytest.raises(ConfigError, match=said):
        similarity_join(rows, **{"threshold": 0.9, **options}, engine="no such engine")


def test_groups_come_largest_first_and_their_kept_row_first():
    group = np.array([0, 0, 2, 2, 4, 2, -1, 7])
    found = Deduplicated(np.array([0, 2, 4, 7]), group, np.full(8, np.nan, np.float32))
    assert [part.tolist() for part in found.groups()] == [[2, 3, 5], [0, 1]]
    assert [part.tolist() for part in found.groups(least=1)] == [[2, 3, 5], [0, 1], [4], [7]]
    assert found.removed.tolist() == [1, 3, 5, 6]
    assert len(found) == 8


def test_a_graph_without_a_threshold_is_deduplicated_along_all_its_edges(one_thread):
    indptr, indices = np.array([0, 1, 3, 4, 4]), np.array([1, 0, 2, 1])
    weights = np.array([0.2, 0.2, 0.9, 0.9], np.float32)
    graph = SimilarityGraph(indptr, indices, weights)
    assert deduplicate(graph, engine=one_thread).kept.tolist() == [0, 2, 3]
    assert deduplicate(graph, 0.5, engine=one_thread).kept.tolist() == [0, 1, 3]
    assert deduplicate(graph, keep="medoid", engine=one_thread).kept.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("found", "true", "estimate"), [([3, 1], [3, 1], 1.0), ([2, 0], [3, 1], 0.5), ([], [], 1.0)]
)
def test_pair_recall_is_the_share_of_pairs_with_an_interval_about_it(found, true, estimate):
    recall = PairRecall.of(np.array(found, np.int64), np.array(true, np.int64))
    assert recall.estimate == estimate
    assert recall.low <= estimate <= recall.high
    assert recall.low < 1.0
    assert PairRecall.from_json(recall.to_json()) == recall


def test_the_interval_of_pair_recall_covers_where_rows_have_very_different_numbers_of_pairs():
    rng = np.random.default_rng(0)
    population = np.minimum(rng.pareto(1.5, 20_000) * 3 + 1, 200).astype(np.int64)
    missed = np.where(rng.random(20_000) < 0.05, population // 2, 0)
    truth = 1 - missed.sum() / population.sum()
    covered = 0
    for _ in range(200):
        rows = rng.choice(20_000, 400, replace=False)
        recall = PairRecall.of((population - missed)[rows], population[rows])
        covered += recall.low <= truth
    assert covered >= 190
