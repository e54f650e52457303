"""Values of listed pairs of rows, and the Manhattan block, compiled.

Listed pairs read float32 rows and add up in float64, which costs nothing (the rows' way from memory
is what takes the time) and makes the rounded float32 answer the same on nearly every machine:

    dots             sum_k a_k b_k
    square_gaps      sum_k (a_k - b_k)^2        direct differences: exact for near-duplicates, where
    gaps             its square root            |a|^2 + |b|^2 - 2 a.b has lost every digit
    absolute_gaps    sum_k |a_k - b_k|

All take `(A, rows, B, columns)` and return float32 `[p]`, entry q between `A[rows[q]]` and
`B[columns[q]]`. A: [n, d] and B: [m, d] float32 C-contiguous, rows and columns: [p] int64 within
range (callers check: the kernels do not).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simdist.compiled.blocks import prefetch
from simdist.compiled.kernel import fixed, inlined, summing_kernel
from simdist.types import Array, Float32, Float64, Ids

__all__ = ["absolute_gaps", "dots", "gaps", "manhattan_block", "square_gaps", "unit_dots"]

# Columns of a Manhattan tile: their rows stay in the first-level cache (bytes) while A streams by.
_CACHE_NBYTES = 32_768

AHEAD = 4  # pairs between asking for a row and using it


def dots(A: Float32, rows: Ids, B: Float32, columns: Ids) -> Float32:
    """Inner products of the listed pairs. Shapes: module docstring."""
    return _listed(_dots, A, rows, B, columns).astype(np.float32)


def unit_dots(X: Float32, lengths: Float32, left: Array, right: Array) -> Float32:
    """Inner products of the listed pairs of rows, each divided by its length and rounded to float32
    first: the bits of `dots` on rows so divided. X: [n, d]; lengths: [n]; left, right: [p]."""
    out = np.empty(len(left), np.float64)
    _unit_dots(fixed(X), fixed(lengths), fixed(left, np.int64), fixed(right, np.int64), out)
    return out.astype(np.float32)


def square_gaps(A: Float32, rows: Ids, B: Float32, columns: Ids) -> Float32:
    """Squared Euclidean distances of the listed pairs. Shapes: module docstring."""
    return _listed(_square_gaps, A, rows, B, columns).astype(np.float32)


def gaps(A: Float32, rows: Ids, B: Float32, columns: Ids) -> Float32:
    """Euclidean distances of the listed pairs; the root is taken before rounding to float32."""
    return np.sqrt(_listed(_square_gaps, A, rows, B, columns)).astype(np.float32)


def absolute_gaps(A: Float32, rows: Ids, B: Float32, columns: Ids) -> Float32:
    """Manhattan distances of the listed pairs. Shapes: module docstring."""
    return _listed(_absolute_gaps, A, rows, B, columns).astype(np.float32)


def manhattan_block(A: Float32, B: Float32) -> Float32:
    """Manhattan distances of all pairs, added up in float32. A: [n, d], B: [m, d] -> [n, m]."""
    out = np.empty((len(A), len(B)), np.float32)
    tile = max(1, _CACHE_NBYTES // max(1, 4 * A.shape[1]))
    _manhattan_block(fixed(A), fixed(B), tile, out)
    return out


def _listed(
    kernel: Callable[..., None], A: Float32, rows: Ids, B: Float32, columns: Ids
) -> Float64:
    out = np.empty(len(rows), np.float64)
    kernel(fixed(A), fixed(rows), fixed(B), fixed(columns), out)
    return out


@inlined
def _ask_ahead(B: Float32, columns: Ids, q: int) -> None:
    """Listed rows lie far apart: ask for one before it is its turn."""
    if q + AHEAD < len(columns):
        nbytes = 4 * B.shape[1]
        ahead = B.ctypes.data + nbytes * columns[q + AHEAD]
        for line in range(0, nbytes, 64):
            prefetch(ahead + line)


@summing_kernel
def _dots(A: Float32, rows: Ids, B: Float32, columns: Ids, out: Float64) -> None:
    for q in range(len(rows)):
        _ask_ahead(B, columns, q)
        a = A[rows[q]]
        b = B[columns[q]]
        total = 0.0
        for k in range(len(a)):
            total += np.float64(a[k]) * np.float64(b[k])
        out[q] = total


@summing_kernel
def _unit_dots(X: Float32, lengths: Float32, left: Ids, right: Ids, out: Float64) -> None:
    d = X.shape[1]
    a, b = np.empty(d, np.float32), np.empty(d, np.float32)
    last = -1
    for q in range(len(left)):
        _ask_ahead(X, right, q)
        if left[q] != last:  # pairs come row by row
            last = left[q]
            _divided(X[last], lengths[last], a)
        _divided(X[right[q]], lengths[right[q]], b)
        total = 0.0
        for k in range(d):
            total += np.float64(a[k]) * np.float64(b[k])
        out[q] = total


@inlined
def _divided(row: Float32, by: float, out: Float32) -> None:
    for k in range(len(row)):
        out[k] = row[k] / by


@summing_kernel
def _square_gaps(A: Float32, rows: Ids, B: Float32, columns: Ids, out: Float64) -> None:
    for q in range(len(rows)):
        _ask_ahead(B, columns, q)
        a = A[rows[q]]
        b = B[columns[q]]
        total = 0.0
        for k in range(len(a)):
            gap = np.float64(a[k]) - np.float64(b[k])
            total += gap * gap
        out[q] = total


@summing_kernel
def _absolute_gaps(A: Float32, rows: Ids, B: Float32, columns: Ids, out: Float64) -> None:
    for q in range(len(rows)):
        _ask_ahead(B, columns, q)
        a = A[rows[q]]
        b = B[columns[q]]
        total = 0.0
        for k in range(len(a)):
            total += abs(np.float64(a[k]) - np.float64(b[k]))
        out[q] = total


@summing_kernel
def _manhattan_block(A: Float32, B: Float32, tile: int, out: Float32) -> None:
    for start in range(0, len(B), tile):
        for i in range(len(A)):
            a = A[i]
            for j in range(start, min(start + tile, len(B))):
                b = B[j]
                total = np.float32(0.0)
                for k in range(len(a)):
                    total += abs(a[k] - b[k])
                out[i, j] = total
