"""exp in vector lanes: its error in units of the last place, and the rows it is applied to."""

from __future__ import annotations

import numpy as np
import pytest

from simdist.compiled.attend import LANES, gaps, rescale, weigh

ALL, NONE = 1 << 40, -1
ULPS = 1.25  # as seen 0.87 where the CPU fuses multiplication and addition, else 1.15


def weighed(tile, *, columns=None, limits=None, own=None, bias=None, peak=None):
    """`weigh` on a copy: (weights, peaks, totals, decays)."""
    tile = tile.copy()
    n = len(tile)
    peaks = np.full(n, -np.inf) if peak is None else peak.copy()
    totals, decays = np.zeros(n), np.full(n, np.nan)
    limits = np.full(n, ALL) if limits is None else limits
    own = np.full(n, NONE) if own is None else own
    columns = tile.shape[1] if columns is None else columns
    weigh(tile, 0, columns, bias, limits, own, peaks, totals, decays)
    return tile, peaks, totals, decays


@pytest.mark.parametrize(("dtype", "least"), [(np.float32, -86.0), (np.float64, -706.0)])
def test_exp_is_right_to_the_last_place_or_two(dtype, least):
    x = np.linspace(least, 0, 1 << 17).astype(dtype).reshape(64, -1)
    x[:, 0] = 0  # the largest of each row
    weights, peaks, totals, _ = weighed(x)
    exact = np.exp(x.astype(np.longdouble))
    assert np.all(peaks == 0)
    assert float(np.max(np.abs(weights - exact) / np.spacing(weights))) <= ULPS
    sums = exact.sum(axis=1).astype(float)
    assert np.allclose(totals, sums, rtol=x.shape[1] / 16 * np.finfo(dtype).eps)  # a lane's share


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_too_small_for_the_type_is_nothing(dtype):
    row = np.zeros((1, LANES), dtype)
    row[0, 1:5] = -90.0 if dtype == np.float32 else -710.0, -1e6, -1e30, -np.inf
    weights, _, totals, _ = weighed(row)
    assert np.all(weights[0, 1:5] == 0)
    assert totals[0] == LANES - 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits_own_keys_and_padding_have_no_weight(dtype):
    rng = np.random.default_rng(0)
    tile = rng.standard_normal((6, 3 * LANES)).astype(dtype)
    tile[:, 37:] = np.nan  # whatever lies in the padding
    limits, own = np.array([0, 1, 16, 17, 36, ALL]), np.array([0, 0, 3, NONE, 35, 99])
    weights, peaks, totals, _ = weighed(tile, columns=37, limits=limits, own=own)
    for i in range(6):
        seen = [j for j in range(min(limits[i], 37)) if j != own[i]]
        expected = np.zeros(3 * LANES)
        if seen:
            expected[seen] = np.exp(tile[i, seen] - tile[i, seen].max())
        assert np.allclose(weights[i], expected, atol=1e-6)
        assert np.isclose(totals[i], expected.sum())
        assert peaks[i] == (tile[i, seen].max() if seen else -np.inf)


def test_a_larger_peak_later_makes_what_was_before_small():
    tile = np.zeros((2, LANES), np.float32)
    tile[0] = 3.0
    _, peaks, totals, decays = weighed(tile, peak=np.array([1.0, 5.0]))
    assert np.allclose(decays, [np.exp(-2.0), 1.0])
    assert np.allclose(peaks, [3.0, 5.0])
    assert np.allclose(totals, [LANES, LANES * np.exp(-5.0)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_bias_is_added_to_every_row(dtype):
    rng = np.random.default_rng(1)
    tile, bias = rng.standard_normal((4, LANES)), rng.standard_normal(LANES)
    bias[3] = -np.inf
    weights, *_ = weighed(tile.astype(dtype), bias=bias.astype(dtype))
    logits = tile + bias
    assert np.allclose(weights, np.exp(logits - logits.max(axis=1)[:, None]), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gaps_are_weights_times_what_is_left_of_them(dtype):
    rng = np.random.default_rng(2)
    tile, gap = (rng.standard_normal((3, 2 * LANES)).astype(dtype) for _ in range(2))
    logits, values = tile.copy(), gap.copy()
    gap[:, 20:] = np.nan
    shift, less = np.array([1.0, 2.0, np.inf], dtype), np.array([0.5, -1.0, 3.0], dtype)
    limits = np.array([19, ALL, ALL])
    gaps(tile, 0, 20, None, limits, np.full(3, NONE), shift, gap, less)
    with np.errstate(invalid="ignore"):
        p = np.exp(logits - shift[:, None])
    p[0, 19:] = p[:, 20:] = 0
    assert np.allclose(tile, p, atol=1e-6)
    assert np.allclose(gap[:, :20], (p * (values - less[:, None]))[:, :20], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_are_scaled_row_by_row(dtype):
    weighted, product = np.ones((3, 5)), np.full((3, 5), 2, dtype)
    rescale(weighted, np.array([1.0, 0.5, 0.0]), product)
    assert np.array_equal(weighted[:, 0], [3.0, 2.5, 2.0])
