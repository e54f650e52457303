"""Blocks freed of vectors with disjoint supports: one entry a row, in the column `place` says.

sums[place[r]] += roots[r] X[r]          what of X lies along them
out[r] = X[r] - roots[r] means[place[r]]
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import fixed, inlined, summing_kernel
from simdist.types import Array, Float32, Float64, Int32

__all__ = ["add_sums", "subtract"]


def add_sums(place: Int32, roots: Float64, X: Array, sums: Float64) -> None:
    """sums [c, b] += the sums above, row after row. place: [n] int32. roots: [n]. X: [n, b] float32
    or float64, C-contiguous."""
    add = _add_single if X.dtype == np.float32 else _add_double
    add(fixed(place), fixed(roots), fixed(X), sums)


def subtract(
    place: Int32, roots: Float64, means: Float64, X: Array, first: int, end: int, out: Array
) -> None:
    """Rows [first, end) of `out` as above, in float64, rounded to the dtype of X; `out` may be X's
    own array."""
    take = _subtract_single if X.dtype == np.float32 else _subtract_double
    take(fixed(place), fixed(roots), fixed(means), fixed(X), first, end, out)


@inlined
def _add(place: Int32, roots: Float64, X: Array, sums: Float64) -> None:
    for r in range(len(X)):
        root, row, into = roots[r], X[r], sums[place[r]]
        for j in range(X.shape[1]):
            into[j] += root * row[j]


@summing_kernel
def _add_single(place: Int32, roots: Float64, X: Float32, sums: Float64) -> None:
    _add(place, roots, X, sums)


@summing_kernel
def _add_double(place: Int32, roots: Float64, X: Float64, sums: Float64) -> None:
    _add(place, roots, X, sums)


@inlined
def _subtract(
    place: Int32, roots: Float64, means: Float64, X: Array, first: int, end: int, out: Array
) -> None:
    for r in range(first, end):
        root, row, mean, made = roots[r], X[r], means[place[r]], out[r]
        for j in range(X.shape[1]):
            made[j] = row[j] - root * mean[j]


@summing_kernel
def _subtract_single(
    place: Int32, roots: Float64, means: Float64, X: Float32, first: int, end: int, out: Float32
) -> None:
    _subtract(place, roots, means, X, first, end, out)


@summing_kernel
def _subtract_double(
    place: Int32, roots: Float64, means: Float64, X: Float64, first: int, end: int, out: Float64
) -> None:
    _subtract(place, roots, means, X, first, end, out)
