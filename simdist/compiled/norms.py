"""Lengths of rows, and rows divided by theirs: one pass where numpy takes several.

Sums are in float64, where products of float32 numbers are exact.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import fixed, summing_kernel
from simdist.types import Array, Float32, Float64

__all__ = ["square_lengths", "unit_rows"]


def square_lengths(rows: Array) -> Float64:
    """|x|^2 of every row. rows: [n, d] float32 or float64 -> [n]."""
    out = np.empty(len(rows))
    _square_lengths(fixed(rows), out)
    return out


def unit_rows(rows: Array) -> tuple[Float32, Float64]:
    """(rows divided by their lengths, in the precision they come in, as float32; the lengths [n]).

    rows: [n, d] float32 or float64. A length rounded to 0 or to infinity gives NaN or zeros.
    """
    vectors, lengths = np.empty(rows.shape, np.float32), np.empty(len(rows))
    _unit_rows(fixed(rows), vectors, lengths)
    return vectors, lengths


@summing_kernel
def _square_lengths(rows: Array, out: Float64) -> None:
    for i in range(len(rows)):
        row = rows[i]
        total = 0.0
        for k in range(len(row)):
            total += np.float64(row[k]) * np.float64(row[k])
        out[i] = total


@summing_kernel
def _unit_rows(rows: Array, vectors: Float32, lengths: Float64) -> None:
    divisor = np.empty(1, rows.dtype)
    for i in range(len(rows)):
        row, unit = rows[i], vectors[i]
        total = 0.0
        for k in range(len(row)):
            total += np.float64(row[k]) * np.float64(row[k])
        lengths[i] = np.sqrt(total)
        divisor[0] = lengths[
            i
        ]  # float32 division is faster, and as good where lengths are ordinary
        by = divisor[0]
        if by == 0.0:  # compiled code raises where it divides by zero
            unit[:] = np.nan
            continue
        for k in range(len(row)):
            unit[k] = row[k] / by
