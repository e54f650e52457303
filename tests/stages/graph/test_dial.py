"""The recall dial: more work until the target is met, an honest figure either way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from stages.graph.nasty import check_law, committed, dense, duplicates, graph_of, random, recall_of

from simdist.datasets import manifold
from simdist.engine import Engine
from simdist.errors import ConfigError
from simdist.models.graphs import GraphDataset
from simdist.stages.graph import (
    ApproximateKnnGraph,
    ExactKnnGraph,
    KnnGraphConfig,
    KnnParams,
    leaves,
    story,
)

SMALL_LEAVES = KnnParams(leaf_rows=64)  # or all pairs of so few rows would be no more work
WEAK = KnnParams(fanout=1, links=2, joins=0, keep=10, leaf_rows=32)


def levels(metrics: Mapping[str, Any]) -> set[str]:
    """Which levels of effort the rounds of a graph show."""
    found = {name.split("-")[1] for name in metrics["rounds"] if name.startswith("check-")}
    return found | ({"all pairs"} if "pairs" in metrics["rounds"] else set())


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (0.10, {"0"}),
        (0.28, {"0", "1"}),
        (0.80, {"0", "1", "2"}),
        (0.9999, {"0", "1", "2", "all pairs"}),
    ],
)
def test_effort_rises_level_by_level_until_the_target_is_met(
    target: float, expected: set[str], one_thread: Engine
):
    x = random(1500, 24)
    made = committed(x, one_thread, k=10, measure="cosine", recall=target, params=WEAK)
    recall = made.metrics["recall"]
    assert levels(made.metrics) == expected
    assert recall["target"] == target
    assert recall["low"] >= target
    graph = made.open()
    check_law(x, graph, "cosine", 10)
    if "all pairs" in expected:
        assert (recall["estimate"], recall["low"], recall["rows"]) == (1.0, 1.0, len(x))
        ids, values = dense(x, "cosine", 10)
        np.testing.assert_array_equal(graph.indices, ids)
        np.testing.assert_array_equal(graph.values, values)


def test_where_hardly_a_neighbour_may_be_missing_all_pairs_come_at_once(
    one_thread: Engine, monkeypatch: pytest.MonkeyPatch
):
    x, options = random(1500, 24), {"k": 10, "measure": "cosine", "recall": 0.999}
    made = committed(x, one_thread, **options)
    assert made.metrics["rounds"][0] == "pairs-diagonal"
    assert made.metrics["recall"]["low"] == 1.0
    forecast = ApproximateKnnGraph().forecast(KnnGraphConfig(**options), *x.shape)
    assert forecast == ExactKnnGraph().forecast(KnnGraphConfig(**options), *x.shape)
    pinned = committed(x, one_thread, **options, params=KnnParams(fanout=4))
    assert pinned.metrics["rounds"][0] == "leaves-0"
    less = committed(x, one_thread, **options | {"recall": 0.998})
    assert less.metrics["rounds"][0] == "leaves-0"
    monkeypatch.setattr(story, "WORTH_WALKING", 1000)
    many = committed(x, one_thread, **options, seed=1)
    assert many.metrics["rounds"][0] == "leaves-0"


def test_as_many_rows_as_may_be_are_sampled_before_walks(
    one_thread: Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(story, "WORTH_WALKING", 0)  # else all pairs are next
    monkeypatch.setattr(story, "WORTH_SAMPLING", 100)  # before another level of joins
    x, sample = random(1500, 24), {"sample": 50, "sample_limit": 400}
    options = {"k": 10, "measure": "cosine", "params": KnnParams(**sample)}
    reached = committed(x, one_thread, **options, recall=None).metrics["recall"]["estimate"]
    made = committed(x, one_thread, **options, recall=reached - 0.002)
    rounds = made.metrics["rounds"]
    assert "truth-200-400" in rounds
    assert "rescore" not in rounds[: rounds.index("truth-200-400")]


def test_without_a_target_recall_is_reported_and_nothing_is_added(one_thread: Engine):
    made = committed(random(1500, 24), one_thread, k=10, recall=None, params=WEAK)
    assert levels(made.metrics) == {"0"}
    assert made.metrics["recall"]["target"] is None
    assert 0.0 < made.metrics["recall"]["low"] < 0.8


def test_more_rows_are_sampled_only_while_the_interval_straddles_the_target(one_thread: Engine):
    x, sample = random(1500, 24), {"sample": 50, "sample_limit": 400}
    options = {"k": 10, "measure": "cosine", "params": KnnParams(**sample)}
    free = committed(x, one_thread, **options, recall=None)
    reached = free.metrics["recall"]["estimate"]
    close = committed(x, one_thread, **options, recall=reached - 0.005)
    truths = [name for name in close.metrics["rounds"] if name.startswith("truth-")]
    assert truths[:2] == ["truth-0-50", "truth-50-100"]
    easy = committed(x, one_thread, **options, recall=0.5)
    assert [name for name in easy.metrics["rounds"] if "truth" in name] == ["truth-0-50"]


def test_the_reported_interval_covers_the_true_recall(one_thread: Engine):
    x = random(1200, 24)
    truth, _ = dense(x, "cosine", 10)
    covered, below = 0, 0
    for seed in range(16):
        params = KnnParams(sample=300, sample_limit=300, joins=1, links=6, fanout=2)
        graph = graph_of(
            x, 10, measure="cosine", recall=None, seed=seed, params=params, engine=one_thread
        )
        assert graph.recall is not None
        true = recall_of(graph.indices, truth)
        covered += graph.recall.low <= true <= graph.recall.high
        below += true < graph.recall.low
    assert covered >= 13  # of 16 at 95 %: fewer happens once in 1,000 choices of seeds
    assert below <= 2


def test_copies_of_a_row_agree_on_the_smallest_of_them(one_thread: Engine):
    # Ties are decided by row, so an approximate graph has to find the smallest rows of thousands:
    # joins pass them on, as long as leaves and joins give equal pairs equal keys.
    x = duplicates(3000, 16, share=0.9)
    made = committed(x, one_thread, k=10, measure="cosine", recall=0.95, params=SMALL_LEAVES)
    assert levels(made.metrics) <= {"0", "1", "2"}
    assert recall_of(made.open().indices, dense(x, "cosine", 10)[0]) > 0.95


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, r"k=0: expected a whole number, at least 1"),
        ({"k": 2.5}, r"k=2\.5: expected a whole number"),
        ({"k": True}, r"k=True: expected a whole number"),
        ({"recall": 1.0}, r"recall=1\.0: .* for 1 use method='exact'"),
        ({"recall": 2}, r"recall=2: expected a number between 0 and 1, such as 0\.95"),
        ({"recall": 0.0}, r"recall=0\.0: expected a number between 0 and 1"),
        ({"method": "aproximate"}, r"method='aproximate': expected 'approximate' or 'exact'"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        graph_of(random(50, 4), **{"k": 5, "measure": "cosine", **settings})


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"keep": 4}, r"keep=4 is below k=5: expected at least k"),
        ({"fanout": 0}, r"fanout=0: expected a whole number, at least 1"),
        ({"leaf_rows": 1}, r"leaf_rows=1: expected a whole number, at least 2"),
        ({"links": 2.5}, r"links=2\.5: expected a whole number"),
        ({"joins": -1}, r"joins=-1: expected a whole number, at least 0"),
        ({"sample": 0}, r"sample=0: expected a whole number"),
    ],
)
def test_knobs_without_sense_are_refused(knobs: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        KnnGraphConfig(k=5, measure="cosine", params=KnnParams(**knobs)).to_json()


def test_the_fingerprint_forgets_what_the_exact_method_ignores():
    plain = KnnGraphConfig(k=5, measure="cosine", method="exact").to_json()
    seeded = KnnGraphConfig(k=5, measure="cosine", method="exact", seed=3, recall=0.5).to_json()
    assert plain == seeded
    assert plain != KnnGraphConfig(k=5, measure="cosine").to_json()


def rounds_before_the_first_join(made: GraphDataset) -> list[str]:
    """Names of the rounds up to the first join."""
    names = list(made.metrics["rounds"])
    first = next(place for place, name in enumerate(names) if name.startswith("join-"))
    return names[:first]


def test_hard_data_gets_larger_leaves_before_its_first_join_and_easy_data_does_not(
    one_thread: Engine,
):
    options = {"k": 10, "measure": "euclidean", "recall": 0.8, "params": KnnParams(leaf_rows=32)}
    hard = committed(random(6000, 96), one_thread, **options)
    easy = committed(manifold(6000, 32, 6, seed=1), one_thread, **options)
    assert "leaves-3" in rounds_before_the_first_join(hard)
    assert "pilot-0" in easy.metrics["rounds"]
    assert "leaves-3" not in rounds_before_the_first_join(easy)
    assert "leaves-3" not in easy.metrics["rounds"]


def test_a_cell_too_large_for_a_task_is_parted_by_leaders_and_little_is_lost(
    one_thread: Engine, monkeypatch: pytest.MonkeyPatch
):
    x = manifold(6000, 32, 6, seed=2)
    options = {"k": 10, "measure": "euclidean", "recall": None, "seed": 3}
    options |= {"params": KnnParams(leaf_rows=64, fanout=4, joins=0)}
    whole = committed(x, one_thread, **options).metrics["recall"]["estimate"]
    monkeypatch.setattr(leaves, "CELL_NBYTES", 128 * 80)  # of 1,200 rows or so
    parted = committed(x, one_thread, **options).metrics["recall"]["estimate"]
    assert whole != parted
    assert parted > whole - 0.2  # parts cut without regard to what is near lose more than half
