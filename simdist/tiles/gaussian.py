"""Sums under a Gaussian kernel: the softmax fold of -|x - y|^2 / 2 over rows scaled to bandwidth 1.

    scaled(x, center, widths)       z = (x - center) / widths, so that every bandwidth is 1
    fold_gaussian(X, Y, V, state)   peak, sum, weighted sum of exp(-|x_i - y_j|^2 / 2) per row i
    fold_widths(X, Y, V, ...)       the same for many bandwidths at once, from one tile

The state is that of `simdist.tiles.softmax`: a density is its logarithm, mean-shift, denoising and
kernel regression are its weighted mean. Nothing underflows: of a point far from all others the
logarithm is very low, and finite.

|x - y|^2 comes from a matrix product, whose error grows with the squared lengths of the rows. They
are centred for that, and where the bound on the error still exceeds what `TOLERANCE` allows, pairs
so near that it would be seen are computed again from their differences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from simdist.tiles.shape import cuts
from simdist.tiles.softmax import SoftmaxState
from simdist.types import Array, Float64, Ids

__all__ = [
    "COLUMNS",
    "ROWS",
    "ScaledRows",
    "WidthsState",
    "empty_widths",
    "error_bound",
    "fold_gaussian",
    "fold_widths",
    "hide_same",
    "merge_widths",
    "scaled",
    "scores_of",
    "square_gaps_at",
]

ROWS, COLUMNS = 256, 2048  # of a tile: 2 to 4 MiB, while the second-level cache may still help
PAIRS = 1 << 14  # computed from their differences at a time

# Allowed error of |x - y|^2 at bandwidth 1: absolute, or as a share of it.
TOLERANCE = {"float32": (1e-3, 1e-5), "float64": (1e-9, 1e-12)}

Check: TypeAlias = Callable[[], None]


class ScaledRows(NamedTuple):
    """rows: [n, d] float32 or float64, C order. squares: [n] float64, of these very rows."""

    rows: Array
    squares: Float64

    def take(self, part: slice) -> ScaledRows:
        """Some of them, as views."""
        return ScaledRows(self.rows[part], self.squares[part])


class WidthsState(NamedTuple):
    """The fold at G bandwidths. peak: [n] largest score at bandwidth 1, -inf where nothing came.
    totals: [n, G] sums of exp((score - peak) / width^2). weighted: [n, G, t] with values."""

    peak: Float64
    totals: Float64
    weighted: Float64


def scaled(x: Array, center: Float64, widths: Float64, dtype: str) -> ScaledRows:
    """Rows in units of their bandwidth. x: [n, d], center, widths: [d], dtype: of the products."""
    rows = np.asarray((x.astype(np.float64) - center) / widths, dtype, order="C")
    wide = rows.astype(np.float64, copy=False)
    return ScaledRows(rows, np.einsum("nd,nd->n", wide, wide))


def fold_gaussian(
    X: ScaledRows,
    Y: ScaledRows,
    values: Array | None,
    state: SoftmaxState,
    *,
    rows: Ids | None = None,
    columns: Ids | None = None,
    bias: Float64 | None = None,
    check: Check | None = None,
) -> SoftmaxState:
    """Fold all columns Y into the state of the rows X, tile by tile.

    values: [m, t], what is summed; None sums nothing. rows, columns: global ids, where a row is not
    to meet itself; equal rows of other ids do meet. bias: [m], added to the scores of a column: the
    logarithm of its weight. state: not written to.
    """
    n, t = len(X.rows), state.weighted.shape[1]
    out = SoftmaxState(*(field.copy() for field in state))
    V = np.zeros((len(Y.rows), t), X.rows.dtype) if values is None else values
    V = np.asarray(V, X.rows.dtype)
    for i in cuts(0, n, ROWS):
        part = SoftmaxState(*(field[i] for field in out))
        for j in cuts(0, len(Y.rows), COLUMNS):
            if check is not None:
                check()
            scores = scores_of(X.take(i), Y.take(j))
            if rows is not None and columns is not None:
                hide_same(scores, rows[i], columns[j])
            if bias is not None:
                scores += bias[j].astype(scores.dtype)
            _update(part, scores, V[j])
    return out


def scores_of(X: ScaledRows, Y: ScaledRows) -> Array:
    """One tile: -|x - y|^2 / 2, at most 0. X: [n, d], Y: [m, d] -> [n, m] of the rows' type."""
    from simdist.compiled.exponentials import LANES  # noqa: PLC0415 - numba only on workers

    dtype, m = X.rows.dtype, len(Y.rows)
    # Rows of whole vectors, as the kernel that takes exponentials wants them.
    scores: Array = np.empty((len(X.rows), -(-m // LANES) * LANES), dtype)[:, :m]
    np.matmul(X.rows, Y.rows.T, out=scores)
    scores -= (0.5 * Y.squares).astype(dtype)
    scores -= (0.5 * X.squares).astype(dtype)[:, None]
    np.minimum(scores, 0, out=scores)
    _mend(scores, X, Y)
    return scores


def error_bound(X: ScaledRows, Y: ScaledRows) -> tuple[Float64, Float64]:
    """What |x - y|^2 of a tile may be off by, at most: the sum of [n] for x and [m] for y."""
    share = 4.0 * float(np.finfo(X.rows.dtype).eps)
    return share * X.squares, share * Y.squares


def square_gaps_at(X: Array, rows: Ids, Y: Array, columns: Ids) -> Float64:
    """[p] |x - y|^2 of listed pairs from their differences, in float64."""
    out = np.empty(len(rows))
    for part in cuts(0, len(rows), PAIRS):
        gap = X[rows[part]].astype(np.float64) - Y[columns[part]]
        out[part] = np.einsum("pd,pd->p", gap, gap)
    return out


def hide_same(scores: Array, rows: Ids, columns: Ids) -> None:
    """Pairs of one id are no pairs: their score becomes -inf."""
    _, i, j = np.intersect1d(rows, columns, assume_unique=True, return_indices=True)
    scores[i, j] = -np.inf


def _mend(scores: Array, X: ScaledRows, Y: ScaledRows) -> None:
    """Computes again, from differences, the pairs whose error would be seen."""
    absolute, share = TOLERANCE[scores.dtype.name]
    own, others = error_bound(X, Y)
    doubtful = np.flatnonzero(own + others.max(initial=0.0) > absolute)
    if not len(doubtful):
        return
    bound = own[doubtful, None] + others
    i, j = np.nonzero((bound > absolute) & (-2.0 * share * scores[doubtful] < bound))
    i = doubtful[i]
    scores[i, j] = -0.5 * square_gaps_at(X.rows, i, Y.rows, j)


def _update(state: SoftmaxState, scores: Array, V: Array) -> None:
    """Take one tile into the state, in place; the tile is used up."""
    from simdist.compiled.attend import rescale, weigh  # noqa: PLC0415 - numba only on workers

    n, m = scores.shape
    decay, none = np.empty(n), np.full(n, -1)
    padded = scores.base if scores.base is not None else scores
    weigh(padded, 0, m, None, np.full(n, m), none, state.peak, state.total, decay)
    if V.shape[1]:
        rescale(state.weighted, decay, scores @ V)


def _floor(peak: Float64) -> Float64:
    """The shift for a peak: itself, or 0 where nothing came yet (-inf minus -inf is NaN)."""
    return np.where(np.isfinite(peak), peak, 0.0)


def empty_widths(rows: int, widths: int, values: int) -> WidthsState:
    """Nothing folded yet, for so many bandwidths and columns of values."""
    return WidthsState(
        np.full(rows, -np.inf), np.zeros((rows, widths)), np.zeros((rows, widths, values))
    )


def merge_widths(a: WidthsState, b: WidthsState, widths: Float64) -> WidthsState:
    """Both states' columns together."""
    peak = np.maximum(a.peak, b.peak)
    left, right = _decay(a.peak, peak, widths), _decay(b.peak, peak, widths)
    weighted = a.weighted * left[:, :, None] + b.weighted * right[:, :, None]
    return WidthsState(peak, a.totals * left + b.totals * right, weighted)


def fold_widths(
    X: ScaledRows,
    Y: ScaledRows,
    values: Array | None,
    widths: Float64,
    state: WidthsState,
    *,
    rows: Ids,
    columns: Ids,
    check: Check | None = None,
) -> WidthsState:
    """As `fold_gaussian` without a row's own pair, at bandwidths `widths` [G] instead of 1.

    X, Y: float64. Exponentials are float32, of differences to the peak that were taken in float64:
    enough to choose a bandwidth by.
    """
    n, t = state.weighted.shape[0], state.weighted.shape[2]
    V = np.zeros((len(Y.rows), t)) if values is None else values.astype(np.float64)
    for j in cuts(0, len(Y.rows), COLUMNS):
        made = empty_widths(n, len(widths), t)
        for i in cuts(0, n, ROWS):
            if check is not None:
                check()
            scores = scores_of(X.take(i), Y.take(j))
            hide_same(scores, rows[i], columns[j])
            made.peak[i] = scores.max(axis=1, initial=-np.inf)
            scores -= _floor(made.peak[i])[:, None]
            below = scores.astype(np.float32)
            for g, width in enumerate(widths):
                weights = np.exp(below * np.float32(width**-2))
                made.totals[i, g] = weights.sum(axis=1, dtype=np.float64)
                if t:
                    made.weighted[i, g] = weights @ V[j]
        state = merge_widths(state, made, widths)
    return state


def _decay(before: Float64, peak: Float64, widths: Float64) -> Float64:
    """[n, G] what a state's sums are worth at a larger peak; of an empty state, 0."""
    return np.exp((before - _floor(peak))[:, None] / widths**2)
