"""Means, variances and extremes of rows, over panels; and what bandwidths follow from them.

panel ── moments_of ──> Moments ── merged (Chan, Golub, LeVeque 1979) ──> mean, variance, range
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import numpy as np

from simdist.errors import InputError
from simdist.types import Array, Float64

__all__ = ["Moments", "as_array", "merged", "moments_of", "of_array", "rule_factor", "units_of"]


class Moments(NamedTuple):
    """rows: how many. mean, squares (of deviations from the mean), low, high: [d] float64."""

    rows: int
    mean: Float64
    squares: Float64
    low: Float64
    high: Float64

    @property
    def variance(self) -> Float64:
        """[d], of a sample: over n - 1; zeros of a single row."""
        return self.squares / max(self.rows - 1, 1)

    @property
    def reach(self) -> Float64:
        """[d] no row is further from the mean."""
        return np.maximum(self.high - self.mean, self.mean - self.low)


def moments_of(rows: Array) -> Moments:
    """Of some rows, at least one. rows: [m, d]."""
    wide = rows.astype(np.float64)
    mean = wide.mean(axis=0)
    squares = np.square(wide - mean).sum(axis=0)
    return Moments(len(wide), mean, squares, wide.min(axis=0), wide.max(axis=0))


def merged(parts: Iterable[Moments]) -> Moments:
    """Of all parts' rows together, in the order given."""
    return reduce(_both, parts)


def _both(a: Moments, b: Moments) -> Moments:
    count = a.rows + b.rows
    gap = b.mean - a.mean
    return Moments(
        count,
        a.mean + gap * (b.rows / count),
        a.squares + b.squares + gap**2 * (a.rows * b.rows / count),
        np.minimum(a.low, b.low),
        np.maximum(a.high, b.high),
    )


def as_array(moments: Moments) -> Float64:
    """[5, d], the count in every column of the first row: one object at rest."""
    counts = np.full(len(moments.mean), float(moments.rows))
    return np.stack([counts, *moments[1:]])


def of_array(array: Array) -> Moments:
    """What `as_array` wrote."""
    return Moments(int(array[0, 0]), *(np.array(row) for row in array[1:]))


def units_of(moments: Moments, scale: str) -> Float64:
    """[d] what a bandwidth is a multiple of: one standard deviation for all features ("dataset",
    the root of their mean variance), or each feature's own ("feature").

    Raises InputError where it is 0.
    """
    variance = moments.variance
    if scale == "dataset":
        variance = np.full(len(variance), variance.mean())
    if not (variance > 0).all() or not np.isfinite(variance).all():
        column = int(np.argmin((variance > 0) & np.isfinite(variance)))
        what = "all rows are equal" if scale == "dataset" else f"column {column} is constant"
        raise InputError(
            f"{what}, or its variance overflows: no bandwidth follows from it. Give the bandwidth"
            " as a number"
            + ("." if scale == "dataset" else ", leave the column out, or take scale='dataset'.")
        )
    return np.sqrt(variance)


def rule_factor(rule: str, rows: int, dim: int) -> float:
    """Bandwidth in units of the standard deviation. Scott (1992): n^(-1/(d+4)); Silverman (1986):
    (n (d+2) / 4)^(-1/(d+4))."""
    base = rows if rule == "scott" else rows * (dim + 2) / 4
    return float(base ** (-1.0 / (dim + 4)))
