"""Distances of all pairs of rows in float64, taken from differences, and the way back of one.

    square_gaps      sum_k (a_k - b_k)^2       exact for near-duplicates; quicker than a matrix
                                               product of so few columns
    resolve_near     the same, where a product gave too small a number to have digits
    absolute_gaps    sum_k |a_k - b_k|
    absolute_back    from W = d / d gaps [n, m] to d / dA, d / dB and sum_ij W_ij |a_ik - b_jk|

Inside, one side has its columns as rows, so that the innermost loop runs along memory in vector
lanes.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import fast_kernel
from simdist.types import Float64

__all__ = ["absolute_back", "absolute_gaps", "resolve_near", "square_gaps"]


def square_gaps(A: Float64, columns: Float64, out: Float64) -> None:
    """Squared Euclidean distances, written into `out` [n, m]. A: [n, d], columns: [d, m]."""
    _square_gaps(np.ascontiguousarray(A), columns, out)


def resolve_near(A: Float64, B: Float64, below: float, out: Float64) -> None:
    """Squared distances in `out` [n, m] that are less than `below`, from differences instead.

    A: [n, d], B: [m, d].
    """
    _resolve_near(np.ascontiguousarray(A), np.ascontiguousarray(B), below, out)


def absolute_gaps(A: Float64, B: Float64) -> Float64:
    """Manhattan distances. A: [n, d], B: [m, d] -> [n, m]."""
    out = np.empty((len(A), len(B)))
    _absolute_gaps(np.ascontiguousarray(A), np.ascontiguousarray(B.T), out)
    return out


def absolute_back(W: Float64, A: Float64, B: Float64) -> tuple[Float64, Float64, Float64]:
    """The gradient of sum_ij W_ij |A_i - B_j|_1, the kink at 0 taken as flat.

    W: [n, m], A: [n, d], B: [m, d] -> d/dA [n, d], d/dB [m, d], sum_ij W_ij |A_ik - B_jk| [d].
    """
    dA, dB, scaled = np.zeros(A.shape), np.zeros(B.shape[::-1]), np.zeros(A.shape[1])
    columns = np.ascontiguousarray(B.T)
    _absolute_back(np.ascontiguousarray(W), np.ascontiguousarray(A), columns, dA, dB, scaled)
    return dA, np.ascontiguousarray(dB.T), scaled


@fast_kernel
def _square_gaps(A: Float64, columns: Float64, out: Float64) -> None:
    d, m = columns.shape
    for i in range(len(A)):
        row = out[i]
        row[:] = 0.0
        for k in range(d):
            a = A[i, k]
            b = columns[k]
            for j in range(m):
                gap = a - b[j]
                row[j] += gap * gap


@fast_kernel
def _resolve_near(A: Float64, B: Float64, below: float, out: Float64) -> None:
    for i in range(len(A)):
        for j in range(len(B)):
            if out[i, j] < below:
                total = 0.0
                for k in range(A.shape[1]):
                    gap = A[i, k] - B[j, k]
                    total += gap * gap
                out[i, j] = total


@fast_kernel
def _absolute_gaps(A: Float64, columns: Float64, out: Float64) -> None:
    d, m = columns.shape
    for i in range(len(A)):
        row = out[i]
        row[:] = 0.0
        for k in range(d):
            a = A[i, k]
            b = columns[k]
            for j in range(m):
                row[j] += abs(a - b[j])


@fast_kernel
def _absolute_back(
    W: Float64, A: Float64, columns: Float64, dA: Float64, dB: Float64, scaled: Float64
) -> None:
    d, m = columns.shape
    for i in range(len(A)):
        w = W[i]
        for k in range(d):
            a = A[i, k]
            b = columns[k]
            back = dB[k]
            total = 0.0
            seen = 0.0
            for j in range(m):
                gap = a - b[j]
                slope = w[j] if gap > 0 else (-w[j] if gap < 0 else 0.0)
                total += slope
                seen += slope * gap
                back[j] -= slope
            dA[i, k] = total
            scaled[k] += seen
