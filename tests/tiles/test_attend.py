"""Exact attention over tiles: its definition, however the keys are cut and in whatever order they
are merged."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles.attention import dense, gap

from simdist.errors import ConfigError, InputError
from simdist.tiles import Softmax, Tile
from simdist.tiles.attend import (
    Logits,
    attend,
    attend_nbytes,
    causal_limits,
    gaussian,
    gaussian_shift,
    key_mask,
)
from simdist.tiles.softmax import attended, empty, merged

N, M, D, DV = 300, 700, 24, 7


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(s) for s in ((N, D), (M, D), (M, DV)))


def options(rng):
    """Every kind of bias and mask, as `Logits` takes it and as the definition does."""
    bias, keys, seen = rng.standard_normal((N, M)), rng.standard_normal(M), rng.random(M) < 0.5
    pairs = rng.random((N, M)) < 0.02
    pairs[3] = False
    own = rng.integers(0, M, N)
    return {
        "plain": (Logits(0.3), {}),
        "negative scale": (Logits(-0.5), {"scale": -0.5}),
        "no scale": (Logits(0.0), {"scale": 0.0}),
        "key bias": (Logits(0.3, key_bias=keys), {"bias": keys}),
        "key mask": (Logits(0.3, key_bias=key_mask(seen)), {"mask": seen}),
        "pair bias": (Logits(0.3, bias=bias), {"bias": bias}),
        "row bias": (Logits(0.3, bias=bias[:, :1]), {"bias": bias[:, :1]}),
        "pair mask": (Logits(0.3, mask=pairs), {"mask": pairs}),
        "causal": (Logits(0.3, limits=causal_limits(0, N, 0, M)), {"causal": True}),
        "own": (Logits(0.3, own=own), {"own": own}),
        "all": (
            Logits(0.3, keys, bias, pairs, causal_limits(0, N, 0, M), own),
            {"bias": keys + bias, "mask": pairs, "causal": True, "own": own},
        ),
    }


@pytest.mark.parametrize("kind", options(np.random.default_rng(1)))
def test_every_option_is_what_the_definition_says(rows, kind):
    logits, asked = options(np.random.default_rng(1))[kind]
    asked = {"scale": 0.3, **asked}
    exact = dense(*rows, **asked)
    double = attended(attend(*rows, logits), np.float64)
    assert max(map(gap, double, exact)) < 1e-12
    assert double.output.dtype == np.float64
    single = [x.astype(np.float32) for x in rows]
    exact, plain = dense(*single, **asked), dense(*single, **asked, dtype=np.float32)
    found = attended(attend(*single, logits), np.float32)
    assert found.output.dtype == np.float32
    for mine, theirs, true in zip(found, plain, exact, strict=True):
        assert gap(mine, true) <= 2 * gap(theirs, true) + 1e-5


@pytest.mark.parametrize("largest", [5, 44, 500])
def test_float32_is_as_good_as_float32_logits_allow_and_float64_always_good(largest):
    rng = np.random.default_rng(largest)
    Q, K, V = (rng.standard_normal(s).astype(np.float32) for s in ((80, 64), (900, 64), (900, 8)))
    Q *= np.float32(largest / np.abs(Q @ K.T).max())
    exact, plain = dense(Q, K, V, scale=1.0), dense(Q, K, V, scale=1.0, dtype=np.float32)
    found = attended(attend(Q, K, V), np.float32)
    assert gap(found.output, exact[0]) <= 2 * gap(plain[0], exact[0]) + 1e-5
    wide = attended(attend(*(x.astype(np.float64) for x in (Q, K, V))), np.float64)
    assert max(map(gap, wide, exact)) < 1e-12


@given(
    cuts=st.lists(st.integers(0, 90), max_size=8),
    seed=st.integers(0, 2**16),
    wide=st.booleans(),
)
def test_keys_cut_anywhere_and_merged_in_any_order_give_the_same(cuts, seed, wide):
    rng = np.random.default_rng(seed)
    dtype = np.float64 if wide else np.float32
    Q, K, V = (rng.standard_normal(s).astype(dtype) for s in ((20, 5), (90, 5), (90, 3)))
    bias = np.where(rng.random(90) < 0.2, -np.inf, rng.standard_normal(90))
    bounds = [0, *sorted(cuts), 90]  # empty shards and shards of one key among them
    limits = causal_limits(0, 20, 0, 90, shift=30)

    def part(first, last):
        seen = causal_limits(0, 20, first, last - first, shift=30)
        return attend(Q, K[first:last], V[first:last], Logits(1.0, bias[first:last], limits=seen))

    parts = [part(*pair) for pair in pairwise(bounds)]
    whole = attended(attend(Q, K, V, Logits(1.0, bias, limits=limits)), dtype)
    exact = dense(
        Q,
        K,
        V,
        scale=1.0,
        bias=np.where(np.isinf(bias), 0, bias),
        mask=np.isfinite(bias) & (np.arange(90) < limits[:, None]),
    )
    tolerance = 1e-12 if wide else 1e-5
    for order in ("left", "right", "tree"):
        found = attended(folded(parts, order), dtype)
        assert max(map(gap, found, exact)) < tolerance
        assert max(map(gap, found, whole)) < tolerance


def folded(states, order):
    """All states as one: from the left, from the right, or neighbours in pairs."""
    states = list(states)
    while len(states) > 1:
        if order == "tree":
            last = states[len(states) // 2 * 2 :]
            states = [merged(*pair) for pair in zip(states[::2], states[1::2], strict=False)] + last
        elif order == "left":
            states = [merged(states[0], states[1]), *states[2:]]
        else:
            states = [*states[:-2], merged(states[-1], states[-2])]
    return states[0]


def test_going_on_from_a_state_is_folding_all_keys(rows):
    Q, K, V = rows
    first = attend(Q, K[:100], V[:100])
    before = [field.copy() for field in first]
    both = attended(attend(Q, K[100:], V[100:], start=first), np.float64)
    assert max(map(gap, both, attended(attend(Q, K, V), np.float64))) < 1e-13
    assert all(np.array_equal(a, b) for a, b in zip(first, before, strict=True))


def test_no_keys_are_the_empty_state_and_merge_to_it(rows):
    Q, K, V = rows
    none = attend(Q, K[:0], V[:0])
    for state in (none, merged(none, none), empty(N, DV)):
        found = attended(state, np.float64)
        assert np.all(found.output == 0)
        assert np.all(found.logsumexp == -np.inf)
    assert len(attend(Q[:0], K, V).peak) == 0


def test_masked_logits_are_not_very_negative_ones():
    """Neither a finite stand-in for -inf nor a row of very small weights is mistaken."""
    Q, K, V = np.ones((2, 1)), np.array([[-1e5], [-1e5]]), np.array([[1.0], [3.0]])
    found = attended(attend(Q, K, V, Logits(mask=np.array([[True, True], [False, False]]))), float)
    assert np.allclose(found.output[:, 0], [2.0, 0.0])
    assert np.allclose(found.logsumexp, [-1e5 + np.log(2.0), -np.inf])


@pytest.mark.parametrize("shape", [(37, 1), (1, 300), (7, 16), (1000, 5000)])
def test_tiles_of_any_shape_give_the_same(rows, shape):
    Q, K, V = rows
    logits, _ = options(np.random.default_rng(1))["all"]
    found = attend(Q, K, V, logits, tile=Tile(*shape))
    assert max(map(gap, attended(found, float), attended(attend(Q, K, V, logits), float))) < 1e-13


def test_few_queries_and_many_keys_are_one_wide_tile_after_the_other():
    rng = np.random.default_rng(3)
    Q, K, V = (rng.standard_normal(s) for s in ((2, 3), (30_000, 3), (30_000, 2)))
    assert max(map(gap, attended(attend(Q, K, V), float), dense(Q, K, V, scale=1.0))) < 1e-12


def test_without_values_there_are_sums(rows):
    Q, K, _ = rows
    found = attended(attend(Q, K, None, Logits(0.3)), np.float64)
    assert found.output.shape == (N, 0)
    assert gap(found.logsumexp, dense(Q, K, K, scale=0.3)[1]) < 1e-12


def test_it_is_the_softmax_reducer_at_another_rate(rows):
    Q, K, V = rows
    reducer = Softmax(0.3, V)
    tile = (Q @ K.T).astype(np.float32)
    slow = reducer.finalize(
        reducer.update(reducer.init(np.arange(N)), tile, np.arange(N), np.arange(M))
    )
    fast = attended(attend(Q, K, V, Logits(0.3)), np.float32)
    assert max(map(gap, slow, fast)) < 1e-5


@pytest.mark.parametrize("h", [0.3, 2.0])
def test_gaussian_logits_are_squared_differences(rows, h):
    Q, K, V = rows
    found = attended(attend(Q, K, V, gaussian(K, h)), np.float64)
    squares = ((Q[:, None] - K) ** 2).sum(axis=2)
    weights = np.exp(-squares / (2 * h * h))
    assert np.allclose(found.logsumexp + gaussian_shift(Q, h), np.log(weights.sum(axis=1)))
    assert np.allclose(found.output, weights @ V / weights.sum(axis=1)[:, None])


@pytest.mark.parametrize(
    ("which", "said"), [(0, "queries.*row 17"), (1, "keys.*row 17"), (2, "values.*row 17")]
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_with_its_row(rows, which, said, value):
    given = [x.copy() for x in rows]
    given[which][17, 2] = value
    with pytest.raises(InputError, match=said):
        attend(*given)


def test_biases_that_are_no_numbers_are_refused_with_their_place(rows):
    bias = np.zeros(M)
    bias[5] = np.nan
    with pytest.raises(InputError, match=r"key_bias is nan at \(5,\)"):
        attend(*rows, Logits(key_bias=bias))
    bias[5] = np.inf
    with pytest.raises(InputError, match=r"key_bias is inf at \(5,\)"):
        attend(*rows, Logits(key_bias=bias))
    attend(*rows, Logits(key_bias=np.full(M, -np.inf)))


def test_what_does_not_fit_is_refused(rows):
    Q, K, V = rows
    with pytest.raises(InputError, match="as many columns of queries as of keys"):
        attend(Q[:, :3], K, V)
    with pytest.raises(InputError, match="a row of values for every key"):
        attend(Q, K, V[:-1])
    with pytest.raises(InputError, match=r"bias of shape \(300, 699\)"):
        attend(Q, K, V, Logits(bias=np.zeros((N, M - 1))))
    with pytest.raises(InputError, match=r"key_bias of shape \(3,\): expected \(700,\)"):
        attend(Q, K, V, Logits(key_bias=np.zeros(3)))
    with pytest.raises(ConfigError, match="scale=nan"):
        attend(Q, K, V, Logits(float("nan")))
    with pytest.raises(ConfigError, match="bandwidth=0"):
        gaussian(K, 0.0)


def test_logits_that_float32_cannot_hold_are_refused_and_float64_takes_them(rows):
    Q, K, V = (x.astype(np.float32) for x in rows)
    with pytest.raises(InputError, match=r"logits may reach .*give float64"):
        attend(Q * np.float32(1e25), K * np.float32(1e25), V)
    wide = attend(Q.astype(np.float64) * 1e25, K.astype(np.float64) * 1e25, V.astype(np.float64))
    assert np.isfinite(wide.peak).all()


def test_it_can_be_stopped_between_tiles(rows):
    calls = []
    attend(*rows, tile=Tile(100, 100), check=lambda: calls.append(1))
    assert len(calls) == 3 * 7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m", "d", "dv"), [(2000, 3000, 64, 64), (10, 50_000, 16, 4)])
def test_it_holds_what_the_forecast_says(dtype, n, m, d, dv):
    rng = np.random.default_rng(0)
    Q, K, V = (rng.standard_normal(s).astype(dtype) for s in ((n, d), (m, d), (m, dv)))
    logits = Logits(0.1, np.zeros(m), limits=np.full(n, m))
    attend(Q[:2], K[:2], V[:2])  # what the first call imports
    tracemalloc.start()
    attend(Q, K, V, logits)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    said = attend_nbytes(n, m, d, dv, np.dtype(dtype).itemsize)
    assert peak <= said
    assert said <= 3 * peak + (1 << 18)
