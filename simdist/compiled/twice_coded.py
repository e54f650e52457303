"""Rows as codes of 8 bits, twice over, with what bounds their products: facts of each row.

A row x is coded as x - centre = y = s q + s' q' + r: whole numbers q of 8 bits, then what they
leave in 8 bits again, q'. `FACTS` numbers of a row say how large y and its parts are, each no
smaller than it is, and its head h: with h = centre.x - |centre|^2 / 2 of either row,

    x_i.x_j = y_i.y_j + h_i + h_j

Products of codes are exact in whole numbers; what bounds they give is told in
`simdist.compiled.logits`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simdist.compiled.kernel import fast_kernel, fixed, kernel
from simdist.compiled.simd import CHUNK, aligned
from simdist.types import Array, Float32, Float64

__all__ = [
    "FINE",
    "HEAD",
    "LAST",
    "NORM",
    "REACH",
    "REST",
    "SECOND",
    "STEP",
    "WHOLE",
    "Coded",
    "encode",
]

LARGEST = 127  # of a code
FACTS = 9
# s, s', h, |y|, |y - s q|, |y - s q - s' q'|, |s q|, |s q + s' q'|, |s' q'| of a row
STEP, FINE, HEAD, NORM, REST, LAST, REACH, WHOLE, SECOND = range(FACTS)
UP = 1.0 + 2.0**-22  # makes a float64 that is rounded to float32 no smaller than it was


class Coded(NamedTuple):
    """Rows as codes. coarse, fine: [n, whole chunks of bytes] int8; facts: [FACTS, n] float32."""

    coarse: Array
    fine: Array
    facts: Float32

    def __len__(self) -> int:
        return len(self.coarse)


def encode(rows: Array, centre: Float64) -> Coded:
    """Codes of rows. rows: [n, d] float32 or float64; centre: [d], the same for both sides."""
    rows = fixed(rows)
    n, width = len(rows), -(-rows.shape[1] // CHUNK) * CHUNK
    coarse, fine = (aligned(n * width, np.int8).reshape(n, width) for _ in range(2))
    facts = np.empty((FACTS, n), np.float32)
    _encode(rows, np.array(centre, np.float64), coarse, fine, facts)
    return Coded(coarse, fine, facts)


@fast_kernel
def _encode(rows: Array, centre: Float64, coarse: Array, fine: Array, facts: Float32) -> None:
    dim = rows.shape[1]
    middle = 0.0
    for t in range(dim):
        middle += centre[t] * centre[t]
    for i in range(len(rows)):
        row, first, second_codes = rows[i], coarse[i], fine[i]
        first[dim:] = 0
        second_codes[dim:] = 0
        largest = 0.0
        for t in range(dim):
            largest = max(largest, abs(np.float64(row[t]) - centre[t]))
        step = _step(largest)
        one, per = np.float64(step), _inverse(step)
        most = 0.0  # left by the first code
        for t in range(dim):
            y = np.float64(row[t]) - centre[t]
            code = np.rint(y * per)
            first[t] = np.int8(code)
            most = max(most, abs(y - one * code))
        small = _step(most)
        other, per = np.float64(small), _inverse(small)
        head, size, norm, rest, last, reach, whole, second = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for t in range(dim):
            x = np.float64(row[t])
            y = x - centre[t]
            held = one * np.float64(first[t])
            code = np.rint((y - held) * per)
            second_codes[t] = np.int8(code)
            more = other * code
            head += centre[t] * x
            size += abs(centre[t] * x)
            norm += y * y
            rest += (y - held) * (y - held)
            last += (y - held - more) * (y - held - more)
            reach += held * held
            whole += (held + more) * (held + more)
            second += more * more
        # What float64 itself rounds, of sums of so many terms, is far below what UP and this add.
        slack = (size + middle) * dim * 2.0**-50
        top = head - 0.5 * middle + slack
        facts[STEP, i] = step
        facts[FINE, i] = small
        facts[HEAD, i] = np.float32(top + abs(top) * 2.0**-22)
        facts[NORM, i] = np.float32(np.sqrt(norm) * UP)
        facts[REST, i] = np.float32(np.sqrt(rest) * UP)
        facts[LAST, i] = np.float32(np.sqrt(last) * UP + np.sqrt(norm) * 2.0**-50)
        facts[REACH, i] = np.float32(np.sqrt(reach) * UP)
        facts[WHOLE, i] = np.float32(np.sqrt(whole) * UP)
        facts[SECOND, i] = np.float32(np.sqrt(second) * UP)


@kernel
def _inverse(step: np.float32) -> float:
    """Codes are what rounding y / step gives, or nearly: what they leave is measured."""
    return 1.0 / np.float64(step) if step > 0 else 0.0


@kernel
def _step(largest: float) -> np.float32:
    """No smaller than a 127th, so that no code is beyond 127; 0 where there is nothing to code."""
    step = np.float32(largest / LARGEST * UP)
    if step > 0 and np.isfinite(np.float32(1.0) / step):
        return step
    return np.float32(0.0)
