"""Kernels of the distributed transpose: directed edges by range of rows, then merged both ways.

    edge (i, j, w) ── forward ──> bucket of i's range, as entry (i, j, w)
                   └─ reverse ──> bucket of j's range, as entry (j, i, w)

    an entry is two int64:   column  |  row - first row of its range (upper half), bits of w (lower)

Merging a range lays its entries out row by row, sorts each row by (column, direction), and makes
one entry of what it finds for a column: forward weight f, reverse weight r, either of them absent.
Both of the ranges that a pair of nodes lies in see the same f and r, swapped, and all ways of
joining them are symmetric: the weight of (i, j) is that of (j, i), bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simdist.compiled.kernel import fixed, inlined, kernel
from simdist.types import Array, Float32, Float64, Ids

__all__ = ["JOINS", "Merged", "by_range", "merge", "scaled_kernel"]

JOINS = {"larger": 0, "smaller": 1, "either": 2, "both": 3}  # how f and r become one weight
LEAST = float(np.finfo(np.float32).tiny)  # a weight that vanishes in float32 stays an edge
SHORT = 48  # entries of a row that are sorted by insertion


@dataclass(frozen=True, slots=True)
class Merged:
    """Rows of a range in CSR form, and what was met on the way.

    directed: entries whose reverse is absent, or has another weight. first: the first of them, in
        the order of (row, column), as (local row, column, f, r); -1 and NaN where there is none.
    repeated: forward entries that name an edge a second time. again: the first, likewise.
    """

    indptr: Ids
    indices: Ids
    weights: Float32
    directed: int
    first: tuple[int, int, float, float]
    repeated: int
    again: tuple[int, int]


def by_range(rows: Ids, columns: Ids, weights: Float32, size: int, count: int) -> tuple[Ids, Ids]:
    """(entries [2 e, 2], starts [2 count + 1]) of edges, bucket by bucket.

    rows: [m]; columns, weights: [m, k], edges from each row; one with a negative column or to the
    row itself is left out. Forward entries of range b are entries[starts[2 b]:starts[2 b + 1]], and
    the reverse ones follow, each in the order of the edges.
    """
    starts = np.zeros(2 * count + 1, np.int64)
    _count(fixed(rows, np.int64), fixed(columns, np.int64), size, starts)
    starts = np.cumsum(starts)
    entries = np.empty((starts[-1], 2), np.int64)
    bits = fixed(np.ascontiguousarray(weights, np.float32).view(np.int32), np.int32)
    _scatter(
        fixed(rows, np.int64), fixed(columns, np.int64), bits, size, starts[:-1].copy(), entries
    )
    return entries, starts


def merge(
    forward: list[Ids],
    reverse: list[Ids],
    rows: int,
    *,
    join: str,
    mutual: bool,
    tolerance: float = 0.0,
) -> Merged:
    """Entries of a range of so many rows as CSR, rows' columns ascending.

    forward, reverse: lists of [e, 2] as `by_range` leaves them. join: "larger" or "smaller" of f
    and r, "either" f + r - f r, or "both" f r. mutual: only where both are there. What is named
    more than once counts with its sum, added up in float64. tolerance: relative, within which f
    and r are the same weight.
    """
    ends = np.zeros(rows + 1, np.int64)
    for entries in (*forward, *reverse):
        _count_rows(fixed(entries, np.int64), ends)
    ends = np.cumsum(ends)
    keys = np.empty(ends[-1], np.int64)
    values = np.empty(ends[-1], np.float32)
    cursors = ends[:-1].copy()
    for direction, parts in enumerate((forward, reverse)):
        for entries in parts:
            _lay_out(fixed(entries, np.int64), direction, cursors, keys, values)
    indptr = np.zeros(rows + 1, np.int64)
    weights = np.empty(ends[-1], np.float32)
    counts, first, again = np.zeros(2, np.int64), np.full(4, np.nan), np.full(2, -1, np.int64)
    places = np.full(2, -1, np.int64)
    _merge_rows(
        ends,
        keys,
        values,
        JOINS[join],
        mutual,
        tolerance,
        indptr,
        weights,
        counts,
        places,
        first,
        again,
    )
    kept = int(indptr[-1])
    return Merged(
        indptr,
        keys[:kept],
        weights[:kept],
        directed=int(counts[0]),
        first=(int(places[0]), int(places[1]), float(first[0]), float(first[1])),
        repeated=int(counts[1]),
        again=(int(again[0]), int(again[1])),
    )


def scaled_kernel(
    indptr: Ids,
    indices: Ids,
    cursors: Ids,
    first: int,
    own: Float32,
    scales: Float32,
    weights: Float32,
) -> None:
    """Distances d in `weights` become exp(-d^2 / (s_i s_j)), of the columns [first, first + m).

    own: [rows] s of the rows; scales: [m] s of the columns; all > 0. cursors: [rows], moved past
    those columns. What is too small for float32 becomes its smallest normal number.
    """
    _scale_rows(
        fixed(indptr, np.int64),
        fixed(indices, np.int64),
        cursors,
        first,
        fixed(own, np.float32),
        fixed(scales, np.float32),
        weights,
    )


@kernel
def _count(rows: Ids, columns: Ids, size: int, starts: Ids) -> None:
    for i in range(len(rows)):
        own = rows[i] // size
        for s in range(columns.shape[1]):
            column = columns[i, s]
            if column >= 0 and column != rows[i]:
                starts[2 * own + 1] += 1
                starts[2 * (column // size) + 2] += 1


@kernel
def _scatter(rows: Ids, columns: Ids, bits: Array, size: int, places: Ids, entries: Ids) -> None:
    for i in range(len(rows)):
        row = rows[i]
        own = row // size
        for s in range(columns.shape[1]):
            column = columns[i, s]
            if column < 0 or column == row:
                continue
            weight = np.int64(bits[i, s]) & 0xFFFFFFFF
            place = places[2 * own]
            entries[place, 0] = column
            entries[place, 1] = ((row - own * size) << 32) | weight
            places[2 * own] = place + 1
            other = column // size
            place = places[2 * other + 1]
            entries[place, 0] = row
            entries[place, 1] = ((column - other * size) << 32) | weight
            places[2 * other + 1] = place + 1


@kernel
def _count_rows(entries: Ids, ends: Ids) -> None:
    for e in range(len(entries)):
        ends[(entries[e, 1] >> 32) + 1] += 1


@kernel
def _lay_out(entries: Ids, direction: int, cursors: Ids, keys: Ids, values: Float32) -> None:
    bits = values.view(np.int32)
    for e in range(len(entries)):
        row = entries[e, 1] >> 32
        place = cursors[row]
        keys[place] = 2 * entries[e, 0] + direction
        bits[place] = np.int32(entries[e, 1] & 0xFFFFFFFF)
        cursors[row] = place + 1


@kernel
def _insert(keys: Ids, values: Float32, begin: int, end: int) -> None:
    """Sort a run by key, stable."""
    for e in range(begin + 1, end):
        key, value = keys[e], values[e]
        place = e
        while place > begin and keys[place - 1] > key:
            keys[place] = keys[place - 1]
            values[place] = values[place - 1]
            place -= 1
        keys[place], values[place] = key, value


@kernel
def _sort(keys: Ids, values: Float32, begin: int, end: int) -> None:
    """Sort a run by key, stable: runs of SHORT by insertion, merged until one is left."""
    for first in range(begin, end, SHORT):
        _insert(keys, values, first, min(first + SHORT, end))
    width = SHORT
    while width < end - begin:
        for first in range(begin, end - width, 2 * width):
            middle, last = first + width, min(first + 2 * width, end)
            left_keys, left = keys[first:middle].copy(), values[first:middle].copy()
            a, b = 0, middle
            for out in range(first, last):
                if b < last and keys[b] < left_keys[a]:
                    keys[out], values[out] = keys[b], values[b]
                    b += 1
                else:
                    keys[out], values[out] = left_keys[a], left[a]
                    a += 1
                if a == width:
                    break  # the rest lies where it belongs
        width *= 2


@inlined
def _joined(forward: float, reverse: float, one_way: bool, join: int) -> float:
    """One weight of f and r; where only one of them is there, that is the other's 0."""
    if join == 2:
        return (forward + reverse) - forward * reverse
    if join == 3:
        return max(forward * reverse, LEAST)
    if one_way:
        return forward + reverse
    return max(forward, reverse) if join == 0 else min(forward, reverse)


@kernel
def _merge_rows(
    ends: Ids,
    keys: Ids,
    values: Float32,
    join: int,
    mutual: bool,
    tolerance: float,
    indptr: Ids,
    weights: Float32,
    counts: Ids,
    places: Ids,
    first: Float64,
    again: Ids,
) -> None:
    out = 0  # never ahead of what is read: columns are left where the keys were
    for r in range(len(ends) - 1):
        e, end = ends[r], ends[r + 1]
        _sort(keys, values, e, end)
        while e < end:
            column = keys[e] >> 1
            forward, reverse, named, back = 0.0, 0.0, 0, 0
            while e < end and keys[e] >> 1 == column:
                if keys[e] & 1:
                    reverse += np.float64(values[e])
                    back += 1
                else:
                    forward += np.float64(values[e])
                    named += 1
                e += 1
            if named > 1:
                counts[1] += named - 1
                if again[0] < 0:
                    again[0], again[1] = r, column
            one_way = named == 0 or back == 0
            if one_way or abs(forward - reverse) > tolerance * max(forward, reverse):
                counts[0] += 1
                if places[0] < 0:
                    places[0], places[1] = r, column
                    first[0] = forward if named > 0 else np.nan
                    first[1] = reverse if back > 0 else np.nan
            if one_way and mutual:
                continue
            keys[out] = column
            weights[out] = _joined(forward, reverse, one_way, join)
            out += 1
        indptr[r + 1] = out


@kernel
def _scale_rows(
    indptr: Ids,
    indices: Ids,
    cursors: Ids,
    first: int,
    own: Float32,
    scales: Float32,
    weights: Float32,
) -> None:
    last = first + len(scales)
    for r in range(len(indptr) - 1):
        e = cursors[r]
        while e < indptr[r + 1] and indices[e] < last:
            distance = np.float64(weights[e])
            product = np.float64(own[r]) * np.float64(scales[indices[e] - first])
            weights[e] = max(math.exp(-distance * distance / product), LEAST)
            e += 1
        cursors[r] = e
