"""Kernels that cut the rows of a cell into leaves, and fold the leaves of coded rows.

    rows ── nearest leaders ──> children, small ones together ──> a leaf, or cut again
                                │ one that hardly shrinks (equal rows): two halves at random
                                v
                         leaf ──> one tile ──> every row's best others in it

Leaves lie in one array of rows, each a segment of it: cutting a segment again is a permutation of
its own places.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.codes import Room, find_leaders, fold_leaf
from simdist.compiled.kernel import inlined, kernel
from simdist.types import Array, Float32, Ids, Int32

__all__ = ["cell_leaves", "draw", "leader_count", "parted", "random_state"]

SMALL = 8  # children below most / SMALL share a leaf with their neighbour
SHRUNK = 0.9  # of the rows: a child of more than that has not shrunk


def random_state(seed: int) -> Array:
    """A stream of random numbers, [1] uint64, that the kernels draw from."""
    return np.array([seed], np.uint64)


def cell_leaves(
    codes: Array,
    facts: Float32,
    members: Int32,
    room: Room,
    random: Array,
    *,
    fanout: int,
    most: int,
    width: int,
) -> tuple[Int32, Ids, int, int]:
    """The best others of every row in each of its leaves.

    codes, facts: of the rows of one cell. members: [n] their positions. room: for leaves and for
    leaders. fanout: children a row joins when the cell is first cut; one from then on. most: rows
    of a leaf.

    Returns rows [e] positions, ascending in each leaf; candidates [e, width], in any order; how
    many leaves, and the entries of their tiles.
    """
    rows = np.empty(fanout * len(members), np.int32)
    candidates = np.empty((len(rows), width), np.int64)
    told = np.zeros(3, np.int64)
    _cell_leaves(
        codes.ctypes.data,
        codes.shape[1],
        facts,
        np.require(members, np.int32, ["C", "W"]),
        fanout,
        most,
        random,
        room.panel,
        room.dots,
        room.addresses,
        room.offsets,
        room.floats,
        rows,
        candidates,
        told,
    )
    count, leaves, tile_entries = told.tolist()
    return rows[:count], candidates[:count], leaves, tile_entries


@kernel
def leader_count(rows: int, most: int) -> int:
    """Leaders that cut so many rows into leaves of at most `most`."""
    return min(max(2, (2 * rows + most - 1) // most), rows)


@kernel
def parted(near: Int32, most: int, random: Array, rows: Int32, cut: Int32, spans: Ids) -> int:
    """Rows by their leaders, and what of them stays together.

    near: [n, f] the nearest leaders of each row. rows: [n] ascending. cut: [n f] out, rows leader
    by leader, ascending in each span. spans: [n f // 2 + 2, 2] out, (first, last) in `cut` of what
    stays together, two rows at least. Returns how many spans.
    """
    size, fanout = near.shape
    children = 0
    for i in range(size):
        for f in range(fanout):
            children = max(children, near[i, f] + 1)
    starts = np.zeros(children + 1, np.int64)
    for i in range(size):
        for f in range(fanout):
            starts[near[i, f] + 1] += 1
    for child in range(children):
        starts[child + 1] += starts[child]
    place = starts[:children].copy()
    for i in range(size):
        for f in range(fanout):
            child = near[i, f]
            cut[place[child]] = rows[i]
            place[child] += 1
    count = 0
    first, last, joined = 0, 0, 0  # the span that grows, and of how many children
    for child in range(children):
        begin, end = starts[child], starts[child + 1]
        large = end - begin > SHRUNK * size
        if last > first and (large or last - first + end - begin > most):
            count = _closed(cut, first, last, joined, fanout, spans, count)
            first = last
        if last == first:
            first, last, joined = begin, begin, 0
        if large:
            middle = begin + (end - begin + 1) // 2
            _shuffle(cut[begin:end], random)
            count = _closed(cut, begin, middle, 2, 1, spans, count)
            count = _closed(cut, middle, end, 2, 1, spans, count)
            first, last = end, end
            continue
        last = end
        joined += 1
        if last - first >= max(2, most // SMALL):
            count = _closed(cut, first, last, joined, fanout, spans, count)
            first = last
    return _closed(cut, first, last, joined, fanout, spans, count)


@inlined
def _closed(
    cut: Int32, first: int, last: int, joined: int, fanout: int, spans: Ids, count: int
) -> int:
    """One more span, its rows ascending and distinct, if there are two."""
    end = last
    if joined > 1 and last - first > 1:
        part = np.sort(cut[first:last])
        end = first
        for i in range(len(part)):
            if i == 0 or part[i] != part[i - 1]:
                cut[end] = part[i]
                end += 1
    if end - first < 2:
        return count
    spans[count, 0] = first
    spans[count, 1] = end
    return count + 1


@inlined
def _below(random: Array, bound: int) -> np.int64:
    """The next random number below a bound (splitmix64: Steele, Lea, Flood 2014)."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.int64(z % np.uint64(bound))


@inlined
def _shuffle(rows: Int32, random: Array) -> None:
    for i in range(len(rows) - 1, 0, -1):
        j = _below(random, i + 1)
        rows[i], rows[j] = rows[j], rows[i]


@kernel
def draw(rows: Int32, count: int, random: Array) -> Int32:
    """Some of the rows, without repetition."""
    drawn = rows.copy()
    for i in range(count):
        j = i + _below(random, len(drawn) - i)
        drawn[i], drawn[j] = drawn[j], drawn[i]
    return drawn[:count].copy()


@kernel
def _cell_leaves(
    codes: int,
    nbytes: int,
    facts: Float32,
    members: Int32,
    fanout: int,
    most: int,
    random: Array,
    panel: Array,
    dots: Int32,
    addresses: Ids,
    offsets: Int32,
    floats: Float32,
    rows: Int32,
    candidates: Ids,
    told: Ids,
) -> None:
    size = len(members)
    every = np.arange(size).astype(np.int32)
    cut = np.empty(fanout * size, np.int32)
    spans = np.empty((fanout * size // 2 + 2, 2), np.int64)
    waiting = np.empty((fanout * size // most + 2, 2), np.int64)  # spans too large for a leaf
    ids = np.empty(max(most, 1), np.int32)
    found, leaves, entries = 0, 0, 0
    waits, fresh = 0, 0
    if size > most:
        near = np.empty((size, min(fanout, leader_count(size, most))), np.int32)
        leaders = draw(every, leader_count(size, most), random)
        find_leaders(
            codes, nbytes, facts, every, leaders, panel, dots, addresses, offsets, floats, near
        )
        fresh = parted(near, most, random, every, cut, spans)
    elif size > 1:
        cut[:size] = every
        spans[0, 0], spans[0, 1] = 0, size
        fresh = 1
    while fresh > 0 or waits > 0:
        for s in range(fresh):
            first, last = spans[s]
            if last - first > most:
                waiting[waits, 0], waiting[waits, 1] = first, last
                waits += 1
                continue
            leaf = cut[first:last]
            count = len(leaf)
            for i in range(count):
                ids[i] = members[leaf[i]]
                rows[found + i] = ids[i]
            fold_leaf(
                codes,
                nbytes,
                facts,
                leaf,
                ids[:count],
                panel,
                dots,
                addresses,
                offsets,
                floats,
                candidates[found : found + count],
            )
            found += count
            leaves += 1
            entries += count * count
        fresh = 0
        if waits > 0:
            waits -= 1
            first, last = waiting[waits]
            held = cut[first:last].copy()
            near = np.empty((len(held), 1), np.int32)
            leaders = draw(held, leader_count(len(held), most), random)
            find_leaders(
                codes, nbytes, facts, held, leaders, panel, dots, addresses, offsets, floats, near
            )
            fresh = parted(near, most, random, held, cut[first:last], spans)
            for s in range(fresh):
                spans[s, 0] += first
                spans[s, 1] += first
    told[0], told[1], told[2] = found, leaves, entries
