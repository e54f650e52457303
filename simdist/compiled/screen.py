"""Which pairs may reach a floor: int8 codes of rows, with a bound on all that they leave out.

A row x is coded as y = x - centre = s q + r: q whole numbers of 8 bits, s its step, r the rest. Of
two rows, with h = centre.x - |centre|^2 / 2 + the row's additive term,

    nearness(i, j) = x_i.x_j + t_i + t_j = y_i.y_j + h_i + h_j
    y_i.y_j = s_i s_j q_i.q_j + r_i.y_j + (s_i q_i).r_j
           <= s_i s_j q_i.q_j + |r_i| |y_j| + |s_i q_i| |r_j|          (Cauchy and Schwarz)

and q_i.q_j is exact, so a pair whose right side plus h_i + h_j lies below the floor lies below it
for certain. What is left are candidates: those that reach it, and some within about twice
|r| |y|, 0.015 for unit rows of 384 dimensions. All that is rounded here is rounded upwards, or
taken off the floor.

The tile is that of simdist.compiled.simd: where the CPU multiplies bytes it takes an eighth of the
time of a float32 product that looks at both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from simdist.compiled.kernel import fixed, kernel, summing_kernel
from simdist.compiled.simd import (
    CHUNK,
    GROUP,
    STRIP,
    VNNI,
    aligned,
    at_least,
    lowest_bit,
    offset_of,
    pack,
    strip,
)
from simdist.types import Array, Float32, Float64, Ids, Int32

__all__ = ["VNNI", "Coded", "Screen", "encode"]

COLUMNS = 1008  # of a tile: whole triples of groups
PANEL_NBYTES = 400_000  # of a tile's packed columns, which stay in the second-level cache
LARGEST = 127  # of a code
FACTS = 5
STEP, HEAD, NORM, REST, REACH = range(FACTS)  # s, h, |y|, |r|, |s q| of a row
UP = 1.0 + 2.0**-22  # makes a float64 that is rounded to float32 no smaller than it was
ROUNDINGS = 16 * 2.0**-24  # of a bound put together in float32


class Coded(NamedTuple):
    """Rows as codes. codes: [n, whole chunks of bytes] int8; facts: [FACTS, n] float32; offsets:
    [n] int32, see simdist.compiled.simd."""

    codes: Array
    facts: Float32
    offsets: Int32

    def __len__(self) -> int:
        return len(self.codes)


def encode(vectors: Float32, terms: Float32 | None, centre: Float64) -> Coded:
    """Codes of rows. vectors: [n, d]; terms: [n] or none; centre: [d], the same for both sides."""
    rows = fixed(vectors, np.float32)
    width = -(-rows.shape[1] // CHUNK) * CHUNK
    codes = aligned(len(rows) * width, np.int8).reshape(len(rows), width)
    facts = np.empty((FACTS, len(rows)), np.float32)
    offsets = np.empty(len(rows), np.int32)
    own = np.zeros(len(rows), np.float32) if terms is None else np.array(terms, np.float32)
    _encode(rows, own, np.array(centre, np.float64), codes, facts, offsets)
    return Coded(codes, facts, offsets)


@kernel
def _encode(
    vectors: Float32,
    terms: Float32,
    centre: Float64,
    codes: Array,
    facts: Float32,
    offsets: Int32,
) -> None:
    dim = vectors.shape[1]
    middle = 0.0
    for t in range(dim):
        middle += centre[t] * centre[t]
    for i in range(len(vectors)):
        largest = 0.0
        for t in range(dim):
            largest = max(largest, abs(np.float64(vectors[i, t]) - centre[t]))
        step = np.float32(largest / LARGEST * UP)  # no smaller, so that no code is beyond 127
        codes[i, :] = 0
        coded = step > 0 and np.isfinite(np.float32(1.0) / step)
        if not coded:
            step = np.float32(0.0)
        head, size, norm, rest, reach = 0.0, 0.0, 0.0, 0.0, 0.0
        for t in range(dim):
            x = np.float64(vectors[i, t])
            y = x - centre[t]
            code = np.rint(y / np.float64(step)) if coded else 0.0
            codes[i, t] = np.int8(code)
            held = np.float64(step) * code
            head += centre[t] * x
            size += abs(centre[t] * x)
            norm += y * y
            rest += (y - held) * (y - held)
            reach += held * held
        # What float64 itself rounds, of sums of so many terms, is far below what UP and this add.
        slack = (size + middle) * dim * 2.0**-50
        facts[STEP, i] = step
        top = head - 0.5 * middle + np.float64(terms[i]) + slack
        facts[HEAD, i] = np.float32(top + abs(top) * 2.0**-22)
        facts[NORM, i] = np.float32(np.sqrt(norm) * UP)
        facts[REST, i] = np.float32(np.sqrt(rest) * UP)
        facts[REACH, i] = np.float32(np.sqrt(reach) * UP)
        offsets[i] = offset_of(codes[i].ctypes.data, codes.shape[1])


def tile_columns(dim: int) -> int:
    """Columns of a tile: whole triples of groups, at most COLUMNS."""
    width = -(-dim // CHUNK) * CHUNK
    triple = 3 * GROUP
    return max(triple, min(COLUMNS, PANEL_NBYTES // width // triple * triple))


class Screen:
    """Tiles of the rows of one side against the columns of the other, candidate by candidate.

    floors: [n] what the nearness of each row has to reach, in real numbers.
    above: rows and columns are one set, and only columns past the row's own number are asked for.
    """

    def __init__(self, rows: Coded, columns: Coded, floors: Float64, *, above: bool) -> None:
        width = rows.codes.shape[1]
        padded = np.minimum(np.arange(-(-len(rows) // STRIP) * STRIP), len(rows) - 1)
        self.rows, self.columns, self.above = rows, columns, above
        self.addresses = rows.codes.ctypes.data + width * padded
        self.offsets = np.ascontiguousarray(rows.offsets[padded])
        self.floors = _lowered(rows.facts, columns.facts, floors)
        self.size = tile_columns(width)
        self.panel = aligned(self.size * width, np.uint8)
        self.dots = aligned(STRIP * self.size, np.int32).reshape(STRIP, self.size)
        self.beside = aligned(4 * self.size, np.float32).reshape(4, self.size)
        self.keys = aligned(self.size, np.float32)

    @property
    def room(self) -> int:
        """Candidates that `batches` needs room for at least."""
        return STRIP * self.size

    def pairs(self, first: int) -> int:
        """How many pairs the tile that begins with a column looks at, by and large."""
        width = min(self.size, len(self.columns) - first)
        rows = min(first + width // 2, len(self.rows)) if self.above else len(self.rows)
        return width * max(rows, 1)

    def batches(self, first: int, out: Int32) -> Iterator[int]:
        """Candidates of the tile that begins with a column: rows ascend, and columns within each.

        out: [2, room or more] rows and columns; each time, how many of them were found.
        """
        last = min(first + self.size, len(self.columns))
        self._pack(first, last)
        start = 0
        while start < len(self.rows):
            count, start = _screen(
                self.addresses,
                self.offsets,
                self.rows.facts,
                self.floors,
                self.panel,
                self.rows.codes.shape[1],
                self.dots,
                self.beside,
                self.keys,
                first,
                last,
                start,
                self.above,
                out,
            )
            if count:
                yield count

    def _pack(self, first: int, last: int) -> None:
        """Columns first..last side by side; those that only fill up are infinitely far."""
        width = self.columns.codes.shape[1]
        groups = -(-(last - first) // GROUP)
        at = np.minimum(np.arange(first, first + groups * GROUP), last - 1)
        addresses = self.columns.codes.ctypes.data + width * at
        pack(addresses.ctypes.data, groups, width, self.panel.ctypes.data)
        for place, fact in enumerate((STEP, HEAD, NORM, REST)):
            self.beside[place, : last - first] = self.columns.facts[fact, first:last]
        self.beside[:, last - first :] = 0.0
        self.beside[1, last - first :] = -np.inf


def _lowered(rows: Float32, columns: Float32, floors: Float64) -> Float32:
    """[n] float32 floors of what is added up without the row's own head, rounding taken off."""
    norm, rest, reach, head = (
        float(np.abs(columns[fact]).max(initial=0.0)) for fact in (NORM, REST, REACH, HEAD)
    )
    facts = rows.astype(np.float64)
    largest = (facts[REACH] + facts[REST]) * (norm + rest + reach) + head
    without = np.asarray(floors, np.float64) - facts[HEAD]
    lowered = without - ROUNDINGS * (largest + np.abs(without) + np.abs(facts[HEAD]))
    with np.errstate(over="ignore"):
        below: Float32 = np.nextafter(lowered.astype(np.float32), np.float32(-np.inf))
    return below


@summing_kernel
def _screen(
    addresses: Ids,
    offsets: Int32,
    facts: Float32,
    floors: Float32,
    panel: Array,
    nbytes: int,
    dots: Int32,
    beside: Float32,
    keys: Float32,
    first: int,
    last: int,
    start: int,
    above: bool,
    out: Int32,
) -> tuple[int, int]:
    rows = len(floors)
    stop = min(rows, last) if above else rows
    groups = (last - first + GROUP - 1) // GROUP
    columns = GROUP * groups
    steps, heads, norms, rests = beside[0], beside[1], beside[2], beside[3]
    count = 0
    for i in range(start, stop, STRIP):
        if count + STRIP * columns > out.shape[1]:  # full: go on from here with an empty one
            return count, i
        strip(
            addresses.ctypes.data + 8 * i,
            offsets.ctypes.data + 4 * i,
            panel.ctypes.data,
            groups,
            nbytes,
            dots.ctypes.data,
            4 * dots.shape[1],
        )
        for r in range(min(STRIP, rows - i)):
            row = i + r
            step, rest, reach = facts[STEP, row], facts[REST, row], facts[REACH, row]
            line = dots[r]
            for c in range(columns):
                keys[c] = (
                    step * (steps[c] * np.float32(line[c]))
                    + (rest * norms[c] + reach * rests[c])
                    + heads[c]
                )
            floor = floors[row]
            for g in range(groups):
                bits = at_least(keys.ctypes.data + 4 * GROUP * g, floor)
                while bits != 0:
                    column = first + GROUP * g + lowest_bit(bits)
                    bits &= bits - 1
                    if column > row or not above:
                        out[0, count] = row
                        out[1, count] = column
                        count += 1
    return count, rows
