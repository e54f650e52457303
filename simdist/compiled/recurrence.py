"""A step of a polynomial of a sparse matrix, times a block of vectors, in one walk over the rows.

    out = product * A X  +  last * X  +  before * B          rows [first, end) of each

Three-term recurrences (Chebyshev filters among them) take these steps one after the other; done as
a product and two sums, each of them would bring a block from memory that no cache holds. Rows are
independent, so ranges of them may be computed side by side: each row is added up in the order of
its columns whatever the ranges are.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.blocks import prefetch
from simdist.compiled.kernel import fixed, inlined, summing_kernel
from simdist.types import Array, Float32, Float64, Ids, Int32

__all__ = ["step_rows"]

AHEAD = 12  # entries between asking for a row of X and using it
LINE = 64  # bytes that come from memory at once


def step_rows(
    indptr: Ids,
    indices: Int32,
    values: Array,
    X: Array,
    B: Array,
    factors: tuple[float, float, float],
    first: int,
    end: int,
    out: Array,
) -> None:
    """Rows [first, end) of `out` as above, computed in the precision of X.

    indptr [n + 1], indices [e], values [e]: A in CSR form. X, B, out: [n, b] C-contiguous, of the
    dtype of `values`, float32 or float64. factors: product, last, before.
    """
    kind = X.dtype.type
    step = _step_single if kind is np.float32 else _step_double
    parts = (fixed(indptr), fixed(indices), fixed(values), fixed(X), fixed(B))
    step(*parts, kind(factors[0]), kind(factors[1]), kind(factors[2]), first, end, out)


@inlined
def _step(
    indptr: Ids,
    indices: Int32,
    values: Array,
    X: Array,
    B: Array,
    product: float,
    last: float,
    before: float,
    first: int,
    end: int,
    out: Array,
) -> None:
    width, nbytes, start = X.shape[1], X.strides[0], X.ctypes.data
    stop = indptr[end]
    sums = np.empty(width, X.dtype)
    for r in range(first, end):
        sums[:] = 0
        for e in range(indptr[r], indptr[r + 1]):
            if e + AHEAD < stop:
                later = start + int(indices[e + AHEAD]) * nbytes
                for place in range(0, nbytes, LINE):
                    prefetch(later + place)
            value, row = values[e], X[indices[e]]
            for j in range(width):
                sums[j] += value * row[j]
        own, other, made = X[r], B[r], out[r]
        for j in range(width):
            made[j] = product * sums[j] + last * own[j] + before * other[j]


@summing_kernel
def _step_single(
    indptr: Ids,
    indices: Int32,
    values: Float32,
    X: Float32,
    B: Float32,
    product: float,
    last: float,
    before: float,
    first: int,
    end: int,
    out: Float32,
) -> None:
    _step(indptr, indices, values, X, B, product, last, before, first, end, out)


@summing_kernel
def _step_double(
    indptr: Ids,
    indices: Int32,
    values: Float64,
    X: Float64,
    B: Float64,
    product: float,
    last: float,
    before: float,
    first: int,
    end: int,
    out: Float64,
) -> None:
    _step(indptr, indices, values, X, B, product, last, before, first, end, out)
