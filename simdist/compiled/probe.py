"""Kernels of a search over cells: coded queries against the coded rows of the cells they probe.

    queries of a cell ── pack ──> 16 side by side        one tile of each cell's rows and queries,
    rows of the cell  ── strip ──> 8 against all of them         whoever is near enough is entered
                         keys that reach a query's floor ── enter ──> its list

    a query ── strip ──> keys with all centres ── a floor, by bisection ──> the cells it probes

A row lies in one cell, and a pair has one key, bit for bit, whatever it is computed beside: lists
end the same in any order of cells.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.codes import BIAS, LANES, OFFSET, SCALE, seat
from simdist.compiled.kernel import inlined, kernel
from simdist.compiled.lists import PLACES, enter, id_of, key_of, packed, tail_of
from simdist.compiled.simd import (
    GROUP,
    STRIP,
    aligned,
    at_least,
    better,
    count_at_least,
    keys_of,
    lane_maxima,
    lowest_bit,
    pack,
    strip,
)
from simdist.types import Array, Float32, Float64, Ids, Int32

__all__ = ["Desk", "add_up", "keep_of", "probe", "route"]

COLUMNS = 1008  # queries of a tile: whole triples of groups
SPARE = 8  # cells found beyond those asked for, dropped one by one
HALVINGS = 40  # of what a floor lies between; more only part equal keys
PANEL_NBYTES = 400_000  # of a tile's packed queries, which stay in the second-level cache


def keep_of(wanted: int) -> int:
    """Places of a list that is to hold so many candidates."""
    return -(-wanted // PLACES) * PLACES


class Desk:
    """What tiles of rows of `nbytes` are worked out in, used again cell by cell."""

    def __init__(self, nbytes: int) -> None:
        triple = 3 * GROUP
        size = max(triple, min(COLUMNS, PANEL_NBYTES // nbytes // triple * triple))
        self.panel = aligned(size * nbytes, np.uint8)
        self.dots = aligned(STRIP * size, np.int32).reshape(STRIP, size)
        self.addresses = aligned(size, np.int64)
        self.floats = aligned(4 * size, np.float32).reshape(4, size)


def probe(
    codes: Array,
    facts: Float32,
    members: Int32,
    starts: Ids,
    queries: Array,
    query_facts: Float32,
    who: Ids,
    who_starts: Ids,
    *,
    first: int,
    desk: Desk,
    lists: Ids,
) -> None:
    """Enter the rows of cells into the lists of the queries that probe them, in place.

    codes: [n, nbytes] int8 and facts: [n, FACTS] of some rows; row r is entered as first + r.
    members: [e] rows by cell, those of cell c at starts[c]:starts[c + 1].
    queries: [m, nbytes] and query_facts: [m, FACTS], coded around the same centre. who: [p] queries
    by cell, those that probe cell c at who_starts[c]:who_starts[c + 1]. lists: [m, keep].
    """
    _probe(
        codes.ctypes.data,
        codes.shape[1],
        np.require(facts, np.float32, ["C", "W", "A"]),
        np.require(members, np.int32, ["C", "W", "A"]),
        np.require(starts, np.int64, ["C", "W", "A"]),
        queries.ctypes.data,
        query_facts,
        who,
        who_starts,
        first,
        desk.panel,
        desk.dots,
        desk.addresses,
        desk.floats,
        lists,
    )


@kernel
def _probe(
    codes: int,
    nbytes: int,
    facts: Float32,
    members: Int32,
    starts: Ids,
    queries: int,
    query_facts: Float32,
    who: Ids,
    who_starts: Ids,
    first: int,
    panel: Array,
    dots: Int32,
    addresses: Ids,
    floats: Float32,
    lists: Ids,
) -> None:
    scales, biases, floors, keys = floats[0], floats[1], floats[2], floats[3]
    keep, size, line = lists.shape[1], dots.shape[1], 4 * dots.shape[1]
    words = facts.view(np.int32)
    own = np.empty(STRIP, np.int64)
    offsets = np.empty(STRIP, np.int32)
    never = np.float32(np.inf)
    for cell in range(len(starts) - 1):
        low, high = starts[cell], starts[cell + 1]
        if low == high:
            continue
        for begin in range(who_starts[cell], who_starts[cell + 1], size):
            asked = who[begin : min(begin + size, who_starts[cell + 1])]
            count = len(asked)
            groups = (count + GROUP - 1) // GROUP
            for c in range(GROUP * groups):
                query = asked[min(c, count - 1)]
                addresses[c] = queries + nbytes * query
                scales[c] = query_facts[query, SCALE]
                biases[c] = query_facts[query, BIAS]
                floors[c] = key_of(lists[query, keep - 1]) if c < count else never
            pack(addresses.ctypes.data, groups, nbytes, panel.ctypes.data)
            for top in range(low, high, STRIP):
                for r in range(STRIP):
                    row = members[min(top + r, high - 1)]
                    own[r] = codes + nbytes * row
                    offsets[r] = words[row, OFFSET]
                strip(
                    own.ctypes.data,
                    offsets.ctypes.data,
                    panel.ctypes.data,
                    groups,
                    nbytes,
                    dots.ctypes.data,
                    line,
                )
                for r in range(min(STRIP, high - top)):
                    row = members[top + r]
                    tail = tail_of(first + row)
                    scale, bias = facts[row, SCALE], facts[row, BIAS]
                    for g in range(groups):
                        at = 4 * GROUP * g
                        hits = better(
                            dots.ctypes.data + line * r + at,
                            scale,
                            scales.ctypes.data + at,
                            bias,
                            biases.ctypes.data + at,
                            keys.ctypes.data + at,
                            never,
                            floors.ctypes.data + at,
                        )
                        while hits != 0:
                            c = GROUP * g + lowest_bit(hits)
                            hits &= hits - 1
                            mine = lists.ctypes.data + 8 * keep * asked[c]
                            if enter(mine, keep, packed(keys[c], tail)):
                                floors[c] = key_of(lists[asked[c], keep - 1])


def route(
    centres: Array,
    facts: Float32,
    cells: Int32,
    queries: Array,
    query_facts: Float32,
    out: Int32,
) -> None:
    """The nearest of some cells for every query: the very nearest first, the others in any order;
    of equally near ones those of lower numbers.

    centres: [C, nbytes] int8 and facts: [C, FACTS] of all cells; cells: [c] ascending, those to
    choose from. queries: [m, nbytes] and query_facts: [m, FACTS]. out: [m, count], count <= c.
    """
    nbytes, padded = centres.shape[1], -(-len(cells) // LANES) * LANES
    _route(
        centres.ctypes.data,
        nbytes,
        np.require(facts, np.float32, ["C", "W", "A"]),
        np.require(cells, np.int32, ["C", "W", "A"]),
        queries.ctypes.data,
        np.require(query_facts, np.float32, ["C", "W", "A"]),
        aligned(padded * nbytes, np.uint8),
        aligned(STRIP * padded, np.int32).reshape(STRIP, padded),
        aligned(3 * padded, np.float32).reshape(3, padded),
        out,
    )


@kernel
def _route(
    centres: int,
    nbytes: int,
    facts: Float32,
    cells: Int32,
    queries: int,
    query_facts: Float32,
    panel: Array,
    dots: Int32,
    floats: Float32,
    out: Int32,
) -> None:
    padded = dots.shape[1]
    groups, line = padded // GROUP, 4 * padded
    addresses = np.empty(padded, np.int64)
    offsets = np.empty(padded, np.int32)
    scales, biases, keys = floats[0], floats[1], floats[2]
    seat(centres, nbytes, facts, cells, addresses, offsets, scales, biases)
    pack(addresses.ctypes.data, groups, nbytes, panel.ctypes.data)
    words = query_facts.view(np.int32)
    own = np.empty(STRIP, np.int64)
    start = np.empty(STRIP, np.int32)
    hits = np.empty(padded, np.int64)
    lanes = np.empty(LANES, np.float32)
    for first in range(0, len(out), STRIP):
        for r in range(STRIP):
            query = min(first + r, len(out) - 1)
            own[r] = queries + nbytes * query
            start[r] = words[query, OFFSET]
        strip(
            own.ctypes.data,
            start.ctypes.data,
            panel.ctypes.data,
            groups,
            nbytes,
            dots.ctypes.data,
            line,
        )
        for r in range(min(STRIP, len(out) - first)):
            query = first + r
            for g in range(groups):
                at = 4 * GROUP * g
                keys_of(
                    dots.ctypes.data + line * r + at,
                    query_facts[query, SCALE],
                    scales.ctypes.data + at,
                    query_facts[query, BIAS],
                    biases.ctypes.data + at,
                    keys.ctypes.data + at,
                )
            _nearest(keys, cells, lanes, hits, out[query])


@inlined
def _reach(keys: Float32, floor: np.float32) -> int:
    """How many keys are at least the floor. keys: [whole groups]."""
    reach = 0
    for start in range(0, len(keys), GROUP):
        reach += count_at_least(keys.ctypes.data + 4 * start, floor)
    return reach


@inlined
def _nearest(keys: Float32, cells: Int32, lanes: Float32, hits: Ids, out: Int32) -> None:
    """Cells of the largest keys [whole LANES; -inf past the cells]; out: [count]."""
    count, size = len(out), len(cells)
    lane_maxima(keys.ctypes.data, len(keys) // LANES, lanes.ctypes.data)
    high = np.float32(-np.inf)
    low = np.float32(np.inf)
    for lane in range(LANES):
        high = max(high, lanes[lane])
        low = min(low, lanes[lane])
    low = low if np.isfinite(low) else high - np.float32(1.0)
    reach = _reach(keys, low)
    while reach < count and np.isfinite(low):  # ever further down, and enough reach it
        low = high - np.float32(2.0) * max(high - low, np.float32(1e-6) * abs(high))
        reach = _reach(keys, low)
    for _ in range(HALVINGS):
        middle = low + np.float32(0.5) * (high - low)
        if reach <= count + SPARE or not low < middle < high:
            break
        reached = _reach(keys, middle)
        if reached >= count:
            low, reach = middle, reached
        else:
            high = middle
    found = 0
    for start in range(0, len(keys), GROUP):
        bits = at_least(keys.ctypes.data + 4 * start, low)
        while bits != 0:
            column = start + lowest_bit(bits)
            bits &= bits - 1
            if column < size:
                hits[found] = packed(keys[column], tail_of(cells[column]))
                found += 1
    if found > count + SPARE:
        hits[:found] = np.sort(hits[:found])[::-1]
        found = count
    while found > count:  # drop the worst, one by one
        worst = 0
        for h in range(1, found):
            worst = h if hits[h] < hits[worst] else worst
        found -= 1
        hits[worst] = hits[found]
    best = 0
    for h in range(1, found):
        best = h if hits[h] > hits[best] else best
    hits[0], hits[best] = hits[best], hits[0]
    for h in range(found):
        out[h] = id_of(hits[h])
    if found < count:  # infinitely far from the rest: the first that are not there
        free = 0
        for h in range(found, count):
            while np.any(out[:h] == cells[free]):
                free += 1
            out[h] = cells[free]


def add_up(codes: Array, facts: Float32, cells: Int32, sums: Float64, counts: Ids) -> None:
    """Add what every row is coded as to the sum of its cell. codes: [n, nbytes]; cells: [n]; sums:
    [C, d] and counts: [C], in place."""
    _add_up(codes, np.ascontiguousarray(facts[:, SCALE]), cells, sums, counts)


@kernel
def _add_up(codes: Array, scales: Float32, cells: Int32, sums: Float64, counts: Ids) -> None:
    for i in range(len(cells)):
        cell = cells[i]
        counts[cell] += 1
        scale = np.float64(scales[i])
        for t in range(sums.shape[1]):
            sums[cell, t] += scale * np.float64(codes[i, t])
