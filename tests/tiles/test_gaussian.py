"""The softmax fold under a Gaussian kernel: any cuts, any order, rows however far and near."""

from __future__ import annotations

import itertools
from functools import reduce

import numpy as np
import pytest
from scipy.special import logsumexp

from simdist.tiles import gaussian
from simdist.tiles.gaussian import (
    ScaledRows,
    empty_widths,
    fold_gaussian,
    fold_widths,
    merge_widths,
    scaled,
)
from simdist.tiles.softmax import attended, empty, merged
from simdist.types import Array, Float64

N, M, DIM = 37, 61, 5
CUTS = ((), (1,), (30,), (0, 20, 20, 61))
EPS = {"float32": 2e-6, "float64": 1e-13}


def square_gaps(x: Array, y: Array) -> Float64:
    gaps = x[:, None].astype(np.longdouble) - y[None]
    return np.sum(gaps * gaps, axis=2).astype(np.float64)


@pytest.fixture
def sides() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(4)
    return (*tuple(rng.standard_normal((n, DIM)) for n in (N, M)), rng.standard_normal((M, 3)))


def unit(x: Array, dtype: str, center: float = 0.0, width: float = 1.0) -> ScaledRows:
    d = x.shape[1]
    return scaled(x, np.full(d, center), np.full(d, width), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cuts", CUTS)
def test_any_cuts_merged_in_any_order_give_the_dense_answer(sides, cuts, dtype, monkeypatch):
    monkeypatch.setattr(gaussian, "ROWS", 16)
    monkeypatch.setattr(gaussian, "COLUMNS", 24)
    x, y, values = sides
    X, Y = unit(x, dtype), unit(y, dtype)
    bounds = [0, *cuts, M]
    states = [
        fold_gaussian(X, Y.take(slice(a, b)), values[a:b], empty(N, 3))
        for a, b in itertools.pairwise(bounds)
    ]
    scores = -0.5 * square_gaps(x, y)
    weights = np.exp(scores - logsumexp(scores, axis=1)[:, None])
    orders = (states, states[::-1], [states[-1], *states[:-1]])
    for order in orders:
        found = attended(reduce(merged, order, empty(N, 3)), np.float64)
        assert np.allclose(found.logsumexp, logsumexp(scores, axis=1), rtol=0, atol=EPS[dtype])
        assert np.allclose(found.output, weights @ values, rtol=0, atol=2 * EPS[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_meets_its_copies_and_not_itself(dtype):
    x = np.array([[0.0, 0], [0, 0], [0, 0], [3, 0]])
    X, ids = unit(x, dtype), np.arange(4)
    state = fold_gaussian(X, X, None, empty(4, 0), rows=ids, columns=ids)
    expected = np.log([2 + np.exp(-4.5)] * 3 + [3 * np.exp(-4.5)])
    assert np.allclose(attended(state, np.float64).logsumexp, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ids_that_do_not_meet_leave_nothing_out(sides, dtype):
    x, y, _ = sides
    X, Y = unit(x, dtype), unit(y, dtype)
    apart = fold_gaussian(
        X, Y, None, empty(N, 0), rows=np.arange(N), columns=np.arange(100, 100 + M)
    )
    together = fold_gaussian(X, Y, None, empty(N, 0))
    assert np.array_equal(apart.total, together.total)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_near_pairs_far_from_the_center_keep_their_digits(dtype, spread):
    """Two tight groups: products alone would lose what tells the rows of a group apart."""
    rng = np.random.default_rng(7)
    corner = np.repeat([[-1.0] * 8, [1.0] * 8], 20, axis=0) * spread
    x = corner + rng.standard_normal((40, 8))
    x[1] = x[0]
    X = unit(x, dtype)
    ids = np.arange(40)
    found = attended(
        fold_gaussian(X, X, None, empty(40, 0), rows=ids, columns=ids), np.float64
    ).logsumexp
    seen = X.rows.astype(np.float64)  # as float32 can say where a row lies at all
    scores = -0.5 * square_gaps(seen, seen)
    np.fill_diagonal(scores, -np.inf)
    assert np.allclose(found, logsumexp(scores, axis=1), rtol=0, atol=1e-3)
    if dtype == "float64":
        assert np.allclose(found, logsumexp(scores, axis=1), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_point_far_from_all_others_has_a_finite_logarithm(dtype):
    x = np.concatenate([np.zeros((5, 2)), [[1e5, 0.0]]])
    X, ids = unit(x, dtype), np.arange(6)
    state = fold_gaussian(X, X, None, empty(6, 0), rows=ids, columns=ids)
    found = attended(state, np.float64).logsumexp
    assert np.isfinite(found).all()
    assert found[5] == pytest.approx(-0.5e10 + np.log(5), rel=1e-6)


def test_rows_far_from_the_origin_are_told_apart_once_they_are_centred(sides):
    x, y, values = sides
    near = fold_gaussian(unit(x, "float64"), unit(y, "float64"), values, empty(N, 3))
    far = fold_gaussian(
        unit(x + 1e6, "float64", center=1e6),
        unit(y + 1e6, "float64", center=1e6),
        values,
        empty(N, 3),
    )
    for one, other in zip(near, far, strict=True):
        assert np.allclose(one, other, rtol=1e-7)


def test_many_bandwidths_at_once_are_each_as_alone(sides):
    x, _, _ = sides
    values = np.arange(N, dtype=np.float64)[:, None]
    ids, widths = np.arange(N), np.array([0.05, 0.5, 1.0, 3.0])
    X = unit(x, "float64")
    halves = [
        fold_widths(
            X,
            X.take(part),
            values[part],
            widths,
            empty_widths(N, 4, 1),
            rows=ids,
            columns=ids[part],
        )
        for part in (slice(0, 11), slice(11, N))
    ]
    state = merge_widths(*halves, widths)
    for g, width in enumerate(widths):
        alone = unit(x, "float64", width=width)
        found = attended(
            fold_gaussian(alone, alone, values, empty(N, 1), rows=ids, columns=ids), np.float64
        )
        logs = state.peak / width**2 + np.log(state.totals[:, g])
        assert np.allclose(logs, found.logsumexp, rtol=1e-5, atol=1e-5)
        means = state.weighted[:, g] / state.totals[:, g, None]
        assert np.allclose(means, found.output, rtol=1e-4)
