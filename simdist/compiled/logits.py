"""Softmax logits from codes: a level for every pair that its logit is certainly not above.

Rows are coded twice over, x - centre = y = s q + s' q' + r, and x_i.x_j = y_i.y_j + h_i + h_j; see
`simdist.compiled.twice_coded`. Then

    y_i.y_j <= a_i.b_j + |y_i - a_i| |y_j| + |a_i| |y_j - b_j|          (Cauchy and Schwarz)

where a.b is exact in whole numbers, and as close as it is asked to be:

    parts   a, b                         products          left out, of unit rows, d = 384
    1       s q of both                  q.q               about 0.012
    2       s q + s' q' of i, s q of j   q.q, q'.q         half of that
    3       both coded twice             q.q, q'.q, q.q'   about 0.0001, |s' q'| |s' q'| among it

A *level* is the bound on the logit scale x_i.x_j in whole steps of `width` below the row's
`ceiling`, which no logit exceeds:

    scale x_i.x_j <= ceiling_i + (level_ij + EDGE) width_i           -LOWEST <= level <= 0

What float32 rounds is added to the bound before it is cut into levels; EDGE holds what the cutting
itself rounds.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import kernel, summing_kernel
from simdist.compiled.simd import GROUP, STRIP, aligned, offset_of, pack, strip
from simdist.compiled.twice_coded import (
    FINE,
    HEAD,
    LAST,
    NORM,
    REACH,
    REST,
    SECOND,
    STEP,
    WHOLE,
    Coded,
)
from simdist.types import Array, Float32, Float64, Ids, Int32

__all__ = ["EDGE", "LOWEST", "NEAR", "RUN", "Leveller", "count_levels", "refine", "score"]

COLUMNS = 480  # of a tile: whole triples of groups
PANEL_NBYTES = 400_000  # of a tile's packed columns, which stay in the second-level cache
LOWEST = 32_000  # levels below the ceiling that int16 can say; what is lower is raised to it
EDGE = 0.03125  # of a level: what cutting bounds into levels may round
ROUNDINGS = 24 * 2.0**-24  # of a bound put together in float32
STRETCH = 64  # columns looked at together when few of them are wanted
RUN = 128  # products summed in the queries' type
NEAR = 256  # keys whose rows and values stay in the cache while all queries look at them


class Leveller:
    """Levels of some queries against any number of keys.

    queries: codes of the rows. parts: of the products, see above. per_level: [n] float64, levels in
    one unit of x_i.x_j. base: [n] float64 what x_i.x_j - h_i certainly stays below.
    most: [FACTS] the largest magnitude of each fact of any key.
    """

    def __init__(
        self, queries: Coded, *, parts: int, per_level: Float64, base: Float64, most: Float64
    ) -> None:
        n, width = queries.coarse.shape
        padded = np.minimum(np.arange(-(-n // STRIP) * STRIP), n - 1)
        self.queries, self.parts, self.width = queries, parts, width
        self.addresses = np.stack(
            [codes.ctypes.data + width * padded for codes in (queries.coarse, queries.fine)]
        )
        self.offsets = np.empty((2, len(padded)), np.int32)
        _offsets(self.addresses, width, self.offsets)
        self.factors = _factors(queries.facts, parts, per_level, base, most)
        triple = 3 * GROUP
        self.size = max(triple, min(COLUMNS, PANEL_NBYTES // width // triple * triple))
        self.panels = aligned(2 * self.size * width, np.uint8).reshape(2, -1)
        self.dots = aligned(3 * STRIP * self.size, np.int32).reshape(3, STRIP, self.size)
        self.beside = aligned(6 * self.size, np.float32).reshape(6, self.size)

    def levels(self, keys: Coded, out: Array) -> None:
        """Levels against all of these keys. out: [n, len(keys)] int16."""
        for first in range(0, len(keys), self.size):
            last = min(first + self.size, len(keys))
            self._pack(keys, first, last)
            _levels(
                self.addresses,
                self.offsets,
                self.factors,
                self.panels,
                self.parts,
                self.width,
                self.dots,
                self.beside,
                first,
                last,
                out,
            )

    def _pack(self, keys: Coded, first: int, last: int) -> None:
        groups = -(-(last - first) // GROUP)
        at = np.minimum(np.arange(first, first + groups * GROUP), last - 1)
        for place, codes in enumerate((keys.coarse, keys.fine)[: 2 if self.parts == 3 else 1]):
            addresses = codes.ctypes.data + self.width * at
            pack(addresses.ctypes.data, groups, self.width, self.panels[place].ctypes.data)
        rest = LAST if self.parts == 3 else REST
        facts = (STEP, FINE, HEAD, NORM, rest, SECOND)
        self.beside[:, : last - first] = keys.facts[list(facts), first:last]


def _factors(
    rows: Float32, parts: int, per_level: Float64, base: Float64, most: Float64
) -> Float32:
    """[7, n] float32 of every row: what products, facts of keys and their sum are multiplied with,
    and what is added for rounding."""
    facts = rows.astype(np.float64)
    rest, reach = (facts[REST], facts[REACH]) if parts == 1 else (facts[LAST], facts[WHOLE])
    second = facts[SECOND] if parts == 3 else np.zeros_like(rest)
    sides = (facts[REACH] + facts[SECOND] + rest) * (most[NORM] + most[REST] + most[REACH])
    lift = ROUNDINGS * (sides + second * most[SECOND] + most[HEAD] + np.abs(base))
    return np.stack([facts[STEP], facts[FINE], rest, reach, second, lift - base, per_level]).astype(
        np.float32
    )


@kernel
def _offsets(addresses: Ids, width: int, offsets: Int32) -> None:
    for side in range(2):
        for i in range(addresses.shape[1]):
            offsets[side, i] = offset_of(addresses[side, i], width)


@summing_kernel
def _levels(
    addresses: Ids,
    offsets: Int32,
    factors: Float32,
    panels: Array,
    parts: int,
    nbytes: int,
    dots: Int32,
    beside: Float32,
    first: int,
    last: int,
    out: Array,
) -> None:
    count = last - first
    groups = (count + GROUP - 1) // GROUP
    line = 4 * dots.shape[2]
    steps, fines, heads, norms, rests, seconds = (
        beside[0],
        beside[1],
        beside[2],
        beside[3],
        beside[4],
        beside[5],
    )
    lowest = np.float32(-LOWEST)
    for i in range(0, len(out), STRIP):
        for part in range(parts):
            side, panel = (1, 0) if part == 1 else (0, 1 if part == 2 else 0)
            strip(
                addresses[side].ctypes.data + 8 * i,
                offsets[side].ctypes.data + 4 * i,
                panels[panel].ctypes.data,
                groups,
                nbytes,
                dots[part].ctypes.data,
                line,
            )
        for r in range(min(STRIP, len(out) - i)):
            row = i + r
            step, fine, rest, reach, second, shift, per = (
                factors[0, row],
                factors[1, row],
                factors[2, row],
                factors[3, row],
                factors[4, row],
                factors[5, row],
                factors[6, row],
            )
            a, b, c = dots[0, r], dots[1, r], dots[2, r]
            found = out[row, first:last]
            if parts == 1:
                for j in range(count):
                    bound = step * (steps[j] * np.float32(a[j]))
                    bound += rest * norms[j] + reach * rests[j] + heads[j] + shift
                    found[j] = np.int16(np.int32(max(bound * per, lowest)))
            elif parts == 2:
                for j in range(count):
                    both = step * np.float32(a[j]) + fine * np.float32(b[j])
                    bound = steps[j] * both
                    bound += rest * norms[j] + reach * rests[j] + heads[j] + shift
                    found[j] = np.int16(np.int32(max(bound * per, lowest)))
            else:
                for j in range(count):
                    both = step * np.float32(a[j]) + fine * np.float32(b[j])
                    bound = steps[j] * both + fines[j] * (step * np.float32(c[j]))
                    bound += rest * norms[j] + reach * rests[j] + second * seconds[j]
                    bound += heads[j] + shift
                    found[j] = np.int16(np.int32(max(bound * per, lowest)))


@kernel
def count_levels(levels: Array, tops: Int32, counts: Ids) -> None:
    """Keys at each level of each row. levels: [n, m] int16. tops: [n] the highest level, out.
    counts: [n, W], out: at the top, one below it, ...; the last holds all that are lower."""
    window = counts.shape[1] - 1
    held = np.zeros((2, window + 1), np.int32)  # in turn: equal neighbours need not wait
    for i in range(len(levels)):
        row = levels[i]
        top = _highest(row)
        tops[i] = top
        held[:] = 0
        for j in range(len(row)):
            held[j & 1, min(np.int32(top) - np.int32(row[j]), window)] += 1
        for b in range(window + 1):
            counts[i, b] = np.int64(held[0, b]) + np.int64(held[1, b])


@summing_kernel
def refine(
    levels: Array,
    floors: Int32,
    tops: Int32,
    counts: Ids,
    queries: tuple[Array, Array, Float32],
    keys: tuple[Array, Array, Float32],
    base: Float64,
    per_level: Float64,
) -> None:
    """Levels of keys at or above a floor, anew from both codes of either side (3 parts).

    levels: [n, m] int16 and counts: [n, W], in and out; tops: [n] what counts are counted from.
    queries, keys: coarse, fine, facts. base, per_level: [n], as for `Leveller`.
    """
    coarse, fine, of_rows = queries
    key_coarse, key_fine, of_keys = keys
    window = counts.shape[1] - 1
    columns = levels.shape[1]
    for first in range(0, columns, NEAR):
        last = min(first + NEAR, columns)
        for i in range(len(levels)):
            floor = np.int16(floors[i])
            for low in range(first, last, STRETCH):
                high = min(low + STRETCH, last)
                if _highest(levels[i, low:high]) < floor:
                    continue
                for j in range(low, high):
                    level = levels[i, j]
                    if level < floor:
                        continue
                    a, b = np.float64(of_rows[STEP, i]), np.float64(of_rows[FINE, i])
                    c, d = np.float64(of_keys[STEP, j]), np.float64(of_keys[FINE, j])
                    bound = a * c * _dot_of_codes(coarse[i], key_coarse[j])
                    bound += b * c * _dot_of_codes(fine[i], key_coarse[j])
                    bound += a * d * _dot_of_codes(coarse[i], key_fine[j])
                    bound += np.float64(of_rows[LAST, i]) * np.float64(of_keys[NORM, j])
                    bound += np.float64(of_rows[WHOLE, i]) * np.float64(of_keys[LAST, j])
                    bound += np.float64(of_rows[SECOND, i]) * np.float64(of_keys[SECOND, j])
                    bound += np.float64(of_keys[HEAD, j]) - base[i]
                    found = np.int16(max(bound * per_level[i], -np.float64(LOWEST)))
                    if found < level:
                        levels[i, j] = found
                        counts[i, min(np.int32(tops[i]) - np.int32(level), window)] -= 1
                        counts[i, min(np.int32(tops[i]) - np.int32(found), window)] += 1


@kernel
def _dot_of_codes(x: Array, y: Array) -> np.float64:
    total = np.int32(0)
    for t in range(len(x)):  # cast back at once, or LLVM sums in int64
        total = np.int32(total + np.int32(np.int32(x[t]) * np.int32(y[t])))
    return np.float64(total)


@kernel
def _highest(levels: Array) -> np.int16:
    top = np.int16(-32768)
    for j in range(len(levels)):
        top = max(top, levels[j])
    return top


@summing_kernel
def score(
    levels: Array,
    floors: Int32,
    stops: Int32,
    left: Ids,
    queries: Array,
    keys: Array,
    values: Array,
    scale: float,
    shifts: Float64,
    totals: Float64,
    weighted: Float64,
    scored: Ids,
) -> None:
    """Keys between two levels in full precision, added to what each row has so far.

    levels: [n, m] int16. floors, stops: [n] a key is scored where floor <= level < stop; of those
    at the floor itself only the first left [n], which is counted down. queries: [n, d] of the type
    in which RUN products and NEAR weighted values are summed, float32 or float64; beyond these, and
    all else, float64. keys: [m, d]; values: [m, dv]. shifts: [n] of weights exp(scale q.k - shift).
    totals: [n], weighted: [n, dv], scored: [n]: in and out.
    """
    kind = queries.dtype.type
    held = np.zeros(values.shape[1], queries.dtype)
    for first in range(0, len(keys), NEAR):
        last = min(first + NEAR, len(keys))
        for i in range(len(levels)):
            floor, stop, query = np.int16(floors[i]), stops[i], queries[i]
            if stop <= floor:
                continue
            before = scored[i]
            for low in range(first, last, STRETCH):
                high = min(low + STRETCH, last)
                if _highest(levels[i, low:high]) < floor:
                    continue
                for j in range(low, high):
                    level = np.int32(levels[i, j])
                    if level < floor or level >= stop:
                        continue
                    if level == floor:
                        if left[i] <= 0:
                            continue
                        left[i] -= 1
                    weight = np.exp(scale * _dot(query, keys[j]) - shifts[i])
                    totals[i] += weight
                    scored[i] += 1
                    _add(kind(weight), values[j], held)
            if scored[i] > before:
                for t in range(len(held)):
                    weighted[i, t] += np.float64(held[t])
                    held[t] = 0


@summing_kernel
def _dot(x: Array, y: Array) -> float:
    total = 0.0
    whole = len(x) // RUN * RUN
    for first in range(0, whole, RUN):
        part = x.dtype.type(0)
        for t in range(RUN):
            part += x[first + t] * y[first + t]
        total += np.float64(part)
    part = x.dtype.type(0)
    for t in range(whole, len(x)):
        part += x[t] * y[t]
    return total + np.float64(part)


@kernel
def _add(weight: float, value: Array, held: Array) -> None:
    for t in range(len(value)):
        held[t] += weight * value[t]
