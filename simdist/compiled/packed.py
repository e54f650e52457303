"""Small symmetric matrices by the hundred: squared distances packed, then spread into matrices.

    points [b, p, d] ── packed_squares ──> r2 [b, p (p + 1) / 2] ── any f, elementwise ──> values
    values, targets  ── spread ──────────> A [b, p + 1, p + 1], the lower triangles, for LAPACK

Entry (i, j), j <= i, of a packed triangle lies at i (i + 1) / 2 + j. Half of a symmetric matrix is
half of the exponentials.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import fixed, kernel
from simdist.types import Float64

__all__ = ["packed_squares", "spread"]


def packed_squares(points: Float64) -> Float64:
    """|x_i - x_j|^2 of the points of each set. points: [b, p, d] -> [b, p (p + 1) / 2].

    Subtracted first: exact to rounding, 0 for equal points. Cost: 1.5 b p^2 d flops.
    """
    b, p, _ = points.shape
    out = np.empty((b, p * (p + 1) // 2))
    _packed_squares(fixed(points.transpose(0, 2, 1), np.float64), out)
    return out


def spread(values: Float64, targets: Float64, noise: float, corner: float) -> Float64:
    """Kernel values as the lower triangles of matrices with the targets as their last row.

    values: [b, p (p + 1) / 2]; noise is added to the diagonals. targets: [b, p - 1], under the
    first p - 1 columns; the last row ends in 0 and `corner`. -> [b, p + 1, p + 1]; what is above
    the diagonals is not set.
    """
    b, p = len(values), targets.shape[1] + 1
    out = np.empty((b, p + 1, p + 1))
    _spread(fixed(values, np.float64), fixed(targets, np.float64), float(noise), float(corner), out)
    return out


@kernel
def _packed_squares(columns: Float64, out: Float64) -> None:
    for b in range(columns.shape[0]):
        start = 0
        for i in range(columns.shape[2]):
            row = out[b, start : start + i + 1]
            row[:] = 0.0
            for c in range(columns.shape[1]):
                line = columns[b, c]
                x = line[i]
                for j in range(i + 1):
                    gap = x - line[j]
                    row[j] += gap * gap
            start += i + 1


@kernel
def _spread(values: Float64, targets: Float64, noise: float, corner: float, out: Float64) -> None:
    p = targets.shape[1] + 1
    for b in range(values.shape[0]):
        start = 0
        for i in range(p):
            for j in range(i + 1):
                out[b, i, j] = values[b, start + j]
            out[b, i, i] += noise
            start += i + 1
        for j in range(p - 1):
            out[b, p, j] = targets[b, j]
        out[b, p, p - 1] = 0.0
        out[b, p, p] = corner
