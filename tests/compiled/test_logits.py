"""Levels of logits from codes: sound whatever the rows are, and as close as the parts allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdist.compiled import logits as of
from simdist.compiled import twice_coded as codes
from simdist.stages.sparse_attention.bounds import KeyFacts, aim_at, levels_of


def rows_of(seed: int, n: int, d: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d))
    if kind == "unit":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if kind == "zeros":
        rows[::2] = 0.0
    if kind == "spread":
        rows *= 10.0 ** rng.uniform(-6, 6, (n, 1))
    if kind == "far":
        rows += 1000.0
    if kind == "spike":
        rows[:, 0] *= 1e5
    if kind == "equal":
        rows[:] = rows[0]
    return rows.astype(np.float32)


KINDS = st.sampled_from(["normal", "unit", "zeros", "spread", "far", "spike", "equal"])


def bounds_of(q: np.ndarray, k: np.ndarray, scale: float, parts: int) -> tuple:
    centre = k.mean(axis=0, dtype=np.float64)
    Q, K = codes.encode(q, centre), codes.encode(k, centre)
    facts = KeyFacts.of(K, k, k)
    aim = aim_at(Q, facts, scale, parts=parts)
    levels = levels_of(aim, Q, K, facts.most)
    return Q, K, aim, levels, facts


def logits(q: np.ndarray, k: np.ndarray, scale: float) -> np.ndarray:
    return scale * (q.astype(np.float64) @ k.astype(np.float64).T)


def upper(aim, levels: np.ndarray) -> np.ndarray:
    return aim.ceiling[:, None] + (levels + of.EDGE) * aim.width[:, None]


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 20),
    m=st.integers(1, 70),
    d=st.sampled_from([1, 3, 63, 64, 65, 130]),
    kinds=st.tuples(KINDS, KINDS),
    scale=st.sampled_from([0.0, 1e-3, 0.3, 1.0, 50.0, 1e4]),
    parts=st.sampled_from([1, 2, 3]),
)
def test_no_logit_is_above_its_level(*, seed, n, m, d, kinds, scale, parts):
    q, k = rows_of(seed, n, d, kinds[0]), rows_of(seed + 1, m, d, kinds[1])
    _, _, aim, levels, _ = bounds_of(q, k, scale, parts)
    assert aim.usable.all()
    true = logits(q, k, scale)
    bound = upper(aim, levels)
    assert (true <= bound + 1e-12 * np.abs(true)).all()
    assert levels.max() <= 0
    assert levels.min() >= -of.LOWEST


def test_more_parts_give_closer_bounds_and_the_slack_says_how_close():
    q, k = rows_of(1, 40, 384, "unit"), rows_of(2, 500, 384, "unit")
    true = logits(q, k, 50.0)
    gaps = []
    for parts in (1, 2, 3):
        _, _, aim, levels, _ = bounds_of(q, k, 50.0, parts)
        gap = (upper(aim, levels) - true).mean()
        assert gap == pytest.approx(aim.slack.mean() + 0.5 * aim.width.mean(), rel=0.25)
        gaps.append(gap)
    assert gaps[0] > 1.5 * gaps[1] > 1.5 * gaps[2]
    assert gaps[2] < 0.05


def test_as_many_parts_are_taken_as_keep_bounds_close():
    q, k = rows_of(1, 40, 384, "unit"), rows_of(2, 500, 384, "unit")
    centre = np.zeros(384)
    Q, K = codes.encode(q, centre), codes.encode(k, centre)
    facts = KeyFacts.of(K, k, k)
    assert [aim_at(Q, facts, scale).parts for scale in (1.0, 30.0, 200.0)] == [1, 2, 3]


@given(seed=st.integers(0, 1000), d=st.sampled_from([5, 64, 100]), kind=KINDS)
def test_codes_hold_what_their_facts_say_is_left(seed, d, kind):
    rows = rows_of(seed, 8, d, kind)
    centre = rows.mean(axis=0, dtype=np.float64)
    coded = codes.encode(rows, centre)
    y = rows - centre
    first = coded.facts[codes.STEP][:, None].astype(np.float64) * coded.coarse[:, :d]
    second = coded.facts[codes.FINE][:, None].astype(np.float64) * coded.fine[:, :d]
    left = np.linalg.norm(y - first, axis=1)
    last = np.linalg.norm(y - first - second, axis=1)
    slack = 1e-12 * np.linalg.norm(y, axis=1)
    assert (left <= coded.facts[codes.REST] + slack).all()
    assert (last <= coded.facts[codes.LAST] + slack).all()
    assert (coded.facts[codes.LAST] <= coded.facts[codes.REST] * 1.01 + slack).all()
    assert np.abs(coded.coarse).max(initial=0) <= 127
    assert np.abs(coded.fine).max(initial=0) <= 127


@pytest.mark.parametrize("window", [1, 5, 1000])
def test_levels_are_counted_from_the_top_down(window):
    rng = np.random.default_rng(0)
    levels = rng.integers(-300, 0, (7, 501)).astype(np.int16)
    levels[3] = -32768
    tops, counts = np.empty(7, np.int32), np.empty((7, window + 1), np.int64)
    of.count_levels(levels, tops, counts)
    assert np.array_equal(tops, levels.max(axis=1))
    for i, row in enumerate(levels.astype(int)):
        places = np.minimum(row.max() - row, window)
        assert np.array_equal(counts[i], np.bincount(places, minlength=window + 1))


@pytest.mark.parametrize("kind", ["unit", "far", "zeros"])
def test_refined_levels_are_bounds_no_higher_than_before_and_counts_follow(kind):
    q, k = rows_of(3, 11, 100, kind), rows_of(4, 700, 100, kind)
    Q, K, aim, levels, _ = bounds_of(q, k, 30.0, 1)
    before = levels.copy()
    tops, counts = np.empty(11, np.int32), np.empty((11, 301), np.int64)
    of.count_levels(levels, tops, counts)
    floors = (tops - 40).astype(np.int32)
    of.refine(levels, floors, tops, counts, Q, K, aim.base, aim.per_level)
    assert (levels <= before).all()
    assert np.array_equal(levels != before, (levels != before) & (before >= floors[:, None]))
    assert (logits(q, k, 30.0) <= upper(aim, levels) + 1e-9).all()
    for i, row in enumerate(levels.astype(int)):
        places = np.minimum(tops[i] - row, 300)
        assert np.array_equal(counts[i], np.bincount(places, minlength=301))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_chosen_keys_are_summed_in_double_precision(dtype):
    rng = np.random.default_rng(5)
    n, m, d, dv = 5, 1000, 33, 7
    levels = rng.integers(-50, 0, (n, m)).astype(np.int16)
    q, k, v = rng.standard_normal((n, d)), rng.standard_normal((m, d)), rng.standard_normal((m, dv))
    k, v = k.astype(dtype), v.astype(dtype)
    floors = np.array([-10, -50, -3, 0, -20], np.int32)
    stops = np.array([1, 1, -1, 0, -20], np.int32)  # the fourth and fifth ask for nothing
    left = np.array([3, 10**6, 10**6, 5, 5], np.int64)
    totals, weighted, scored = np.zeros(n), np.zeros((n, dv)), np.zeros(n, np.int64)
    shifts = rng.standard_normal(n)
    of.score(levels, floors, stops, left.copy(), q, k, v, 0.7, shifts, totals, weighted, scored)
    for i in range(n):
        chosen = (levels[i] >= floors[i]) & (levels[i] < stops[i])
        at_floor = np.flatnonzero(chosen & (levels[i] == floors[i]))
        chosen[at_floor[left[i] :]] = False
        weights = np.exp(0.7 * (k[chosen].astype(float) @ q[i]) - shifts[i])
        assert scored[i] == chosen.sum()
        assert totals[i] == pytest.approx(weights.sum(), rel=1e-12)
        assert np.allclose(weighted[i], weights @ v[chosen].astype(float), rtol=1e-12, atol=1e-12)
