"""Lengths of rows, and rows divided by theirs: one pass where numpy takes several.

Sums are in float64, where products of float32 numbers are exact.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import fixed, inlined, summing_kernel
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


@inlined
def _square_length(row: Array) -> float:
    total = 0.0
    for k in range(len(row)):
        total += np.float64(row[k]) * np.float64(row[k])
    return total


@summing_kernel
def _square_lengths(rows: Array, out: Float64) -> None:
    for i in range(len(rows)):
        out[i] = _square_length(rows[i])


@summing_kernel
def _unit_rows(rows: Array, vectors: Float32, lengths: Float64) -> None:
    divisor = np.empty(1, rows.dtype)  # float32 division is faster, and as good
    for i in range(len(rows)):
        row, unit = rows[i], vectors[i]
        lengths[i] = np.sqrt(_square_length(row))
        divisor[0] = lengths[i]
        by = divisor[0]
        if by == 0.0:  # compiled code raises where it divides by zero
            unit[:] = np.nan
            continue
        for k in range(len(row)):
            unit[k] = row[k] / by
