"""Recall and its interval: right on average, honest about what a sample cannot know."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdist.recall import Look, Recall, enough, hits, interval, spent, summary, tie_hits
from simdist.types import Float64

K = 15
Population = Callable[[np.random.Generator, int], Float64]


def clustered(mean: float, within: float) -> Population:
    """Hits of a row hang together: beta-binomial with the given intra-row correlation."""

    def draw(rng: np.random.Generator, rows: int) -> Float64:
        size = (1 - within) / within
        chance = rng.beta(mean * size, (1 - mean) * size, rows)
        return rng.binomial(K, chance) / K

    return draw


def lost(share: float, mean: float) -> Population:
    """A few rows miss everything, the others almost nothing."""

    def draw(rng: np.random.Generator, rows: int) -> Float64:
        return np.where(rng.random(rows) < share, 0.0, rng.binomial(K, mean, rows) / K)

    return draw


POPULATIONS = {
    "independent hits": lambda rng, rows: rng.binomial(K, 0.96, rows) / K,
    "nearly perfect": lambda rng, rows: rng.binomial(K, 0.999, rows) / K,
    "rows hang together a little": clustered(0.95, 0.1),
    "rows hang together": clustered(0.95, 0.4),
    "high, and rows hang together": clustered(0.99, 0.4),
    "half": clustered(0.5, 0.2),
    "one row in 500 is lost": lost(0.002, 0.9995),
    "one row in 300 is lost": lost(0.003, 1.0),
    "one row in 100 is lost": lost(0.01, 0.999),
    "one row in 20 is lost": lost(0.05, 0.99),
}


@pytest.mark.parametrize("sampled", [100, 1000])
@pytest.mark.parametrize("name", POPULATIONS)
def test_the_interval_covers_the_truth_as_often_as_it_says(name: str, sampled: int):
    rows, trials = 5000, 300
    covered = above = 0
    for trial in range(trials):
        rng = np.random.default_rng([trial, sampled])
        population = POPULATIONS[name](rng, rows)
        low, high = interval(rng.choice(population, sampled, replace=False), K, population=rows)
        covered += low <= population.mean() <= high
        above += low > population.mean()
    assert covered >= 0.92 * trials
    assert above <= 0.055 * trials  # `recall=` promises the lower end: 2.5 % is what it costs


@pytest.mark.parametrize("look", [Look(1, 0), Look(2, 0), Look(3, 1)], ids=str)
@pytest.mark.parametrize("name", POPULATIONS)
def test_a_look_lies_above_the_truth_no_more_often_than_its_share(name: str, look: Look):
    rows, sampled, trials = 20_000, 1000, 1500
    rng = np.random.default_rng([9, look.graph, look.size])
    population = POPULATIONS[name](rng, rows)
    values, counts = np.unique(population, return_counts=True)
    drawn = rng.multivariate_hypergeometric(counts, sampled, trials, method="marginals")
    above = 0
    for sample in drawn:
        low, _ = interval(np.repeat(values, sample), K, population=rows, look=look)
        above += low > population.mean()
    expected = trials * spent(look) / 2
    assert above <= expected + 2.5 * np.sqrt(expected) + 1


def test_later_graphs_and_larger_samples_are_looked_at_more_strictly():
    shares = np.repeat([1.0, 0.6], [970, 30])
    looks = [None, Look(1, 0), Look(2, 0), Look(2, 1), Look(9, 1)]
    ends = [interval(shares, K, population=10**5, look=look) for look in looks]
    assert all(a[0] > b[0] and a[1] < b[1] for a, b in pairwise(ends))


def test_enough_rows_are_as_many_as_would_settle_the_question():
    shares = np.tile(np.repeat([1.0, 14 / 15, 0.4], [90, 8, 2]), 10)
    sizes, look = (1000, 2000, 4000, 8000, 16_000), Look(3, 0)
    options = {"population": 10**6, "look": look, "sizes": sizes}
    mean = float(shares.mean())
    needed = [enough(shares, K, target=mean - gap, **options) for gap in (0.02, 0.006, 0.005, 0.0)]
    assert needed == [1, 2, 3, None]  # never this look's own size: that did not pass
    size = 2
    like = np.tile(shares, sizes[size] // 1000)
    assert interval(like, K, population=10**6, look=Look(3, size))[0] > mean - 0.006


def test_a_sample_never_proves_perfection_however_large():
    for sampled, population in [(1, 2), (10, 1000), (1000, 10**6), (7999, 8000), (99_999, 100_000)]:
        found = summary(np.ones(sampled), np.ones(sampled), K, population=population, target=None)
        assert found.estimate == 1.0
        assert found.low < 1.0
        assert found.high == 1.0


def test_looking_at_every_row_leaves_no_interval():
    shares = np.array([1.0, 0.5, 0.25, 1.0])
    assert interval(shares, 4, population=4) == (0.6875, 0.6875)
    assert interval(np.ones(4), 4, population=4) == (1.0, 1.0)


def test_a_flawed_sample_is_never_surer_than_a_flawless_one():
    shares = np.ones(1000)
    ends = [interval(shares, K, population=10**6)[0]]
    for row in range(0, 200, 10):
        shares[row] -= 1 / K
        ends.append(interval(shares, K, population=10**6)[0])
    assert ends[0] == max(ends)
    assert np.diff(ends).max() < 2e-4  # one more flaw tells a little about how flaws spread, too


def test_rows_that_hang_together_widen_the_interval():
    alike = np.repeat([1.0, 0.0], [900, 100])
    spread = np.full(1000, 0.9)
    spread[:500] += 1 / K
    spread[500:] -= 1 / K
    wide, narrow = (interval(shares, K, population=10**6) for shares in (alike, spread))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


@given(
    shares=st.lists(st.integers(0, K), min_size=1, max_size=60),
    unseen=st.integers(0, 10**6),
)
def test_the_estimate_lies_in_its_interval_and_that_in_zero_to_one(shares: list[int], unseen: int):
    per_row = np.array(shares) / K
    low, high = interval(per_row, K, population=len(shares) + unseen)
    assert 0.0 <= low <= high <= 1.0
    assert low <= per_row.mean() + 1e-12
    assert high >= per_row.mean() - 1e-12


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 40), k=st.integers(1, 12))
def test_hits_are_the_share_of_true_neighbours_found(seed: int, rows: int, k: int):
    rng = np.random.default_rng(seed)
    truth = np.stack([rng.choice(30, k, replace=False) for _ in range(rows)])
    found = np.stack([rng.choice(30, k, replace=False) for _ in range(rows)])
    expected = [len(set(f) & set(t)) / k for f, t in zip(found, truth, strict=True)]
    np.testing.assert_allclose(hits(found, truth), expected)


def test_hits_of_many_neighbours_are_counted_in_bounded_memory():
    k = 3000
    truth = np.arange(k)[None, :].repeat(4, axis=0)
    found = truth + np.array([0, 1, 1500, 3000])[:, None]
    np.testing.assert_allclose(hits(found, truth), [1.0, (k - 1) / k, 0.5, 0.0])


def test_empty_places_are_no_hits():
    assert hits(np.array([[3, -1]]), np.array([[3, -1]])).tolist() == [1.0]
    assert hits(np.array([[-1, -1]]), np.array([[3, 4]])).tolist() == [0.0]


def test_a_tie_with_the_last_true_neighbour_counts():
    truth = np.array([[0.1, 0.2, 0.3]], np.float32)
    found = np.array([[0.1, 0.3, 0.4]], np.float32)
    assert tie_hits(found, truth, larger_is_nearer=False)[0] == pytest.approx(2 / 3)
    assert tie_hits(-found, -truth, larger_is_nearer=True)[0] == pytest.approx(2 / 3)


def test_a_summary_rounds_outwards_reads_well_and_survives_json():
    shares = np.repeat([1.0, 14 / 15, 0.4], [900, 80, 20])
    found = summary(shares, np.ones(1000), K, population=50_000, target=0.95)
    low, high = interval(shares, K, population=50_000)
    assert low - 1e-6 <= found.low <= low
    assert high <= found.high <= high + 1e-6
    assert found.p5 == pytest.approx(14 / 15, abs=1e-6)
    assert Recall.from_json(found.to_json()) == found
    assert "looks" not in found.to_json()  # of many looks there were none
    third = summary(shares, np.ones(1000), K, population=50_000, target=0.95, look=Look(3, 1))
    assert third.looks == 3
    assert Recall.from_json(third.to_json()) == third
    assert str(found).startswith("0.98")
    assert str(found).endswith("on 1000 rows")
