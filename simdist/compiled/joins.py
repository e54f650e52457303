"""Kernels of joins: rows that share a neighbour are compared, in small tiles of codes.

links of some rows ── name ──> the rows they name, numbered; their codes and lists are copied
each row's links ── tile ──> pairs near enough ── enter ──> the lists of both
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simdist.compiled.blocks import Blocks, int8_row, prefetch
from simdist.compiled.codes import BIAS, SCALE, Room, seat
from simdist.compiled.distinct import place_of
from simdist.compiled.kernel import inlined, kernel
from simdist.compiled.lists import EMPTY, enter, id_of, key_of, packed, tail_of
from simdist.compiled.simd import GROUP, STRIP, better, lowest_bit, pack, strip
from simdist.types import Array, Float32, Ids, Int32

__all__ = ["CodesAt", "Named", "entered_in", "join", "name"]

FEW_SOURCES = 1  # rows that list a row, below which it asks its neighbours
ASKED = 5  # neighbours that such a row asks, its nearest
MET = 1 << 14  # pairs a join remembers, so as not to enter them again


class Named(NamedTuple):
    """The rows that some links name, and those that have the links, numbered from 0.

    positions: [u]. own: [r] numbers of the rows that have the links. table, numbers: where a
    position's number is looked up: `place_of`.
    """

    positions: Int32
    own: Int32
    table: Int32
    numbers: Int32


class CodesAt(NamedTuple):
    """Where the code of each row named lies: addresses [u], nbytes of each; kept: whose memory that
    is."""

    addresses: Ids
    nbytes: int
    kept: Array | Blocks

    @classmethod
    def of(cls, codes: Array) -> CodesAt:
        """Of copies [u, nbytes] side by side."""
        nbytes = codes.shape[1]
        addresses = codes.ctypes.data + nbytes * np.arange(len(codes), dtype=np.int64)
        return cls(addresses, nbytes, codes)

    @classmethod
    def within(cls, blocks: Blocks, positions: Int32) -> CodesAt:
        """Of the rows at `positions` [u], where they are."""
        return cls(blocks.addresses_of(positions), blocks.arrays[0].shape[1], blocks)


def name(first: int, links: Int32, most: int) -> Named:
    """Number the rows that links name, of as many rows as name no more than about `most`.

    first: position of the first row. links: [r, l] position + 1, negative where new, 0 for none;
    of the rows done, changed in place to number + 1 with the same sign.
    """
    room = most + links.shape[1] + 1  # one more row's, who may name nobody new
    table = np.full(1 << (2 * room).bit_length(), -1, np.int32)
    numbers = np.empty_like(table)
    positions = np.empty(room, np.int32)
    own = np.empty(len(links), np.int32)
    done, named = _name(first, links, most, table, numbers, positions, own)
    return Named(positions[:named], own[:done], table, numbers)


@kernel
def _name(
    first: int,
    links: Int32,
    most: int,
    table: Int32,
    numbers: Int32,
    positions: Int32,
    own: Int32,
) -> tuple[int, int]:
    count = 0
    for r in range(links.shape[0]):
        if count > most:
            return r, count
        for s in range(-1, links.shape[1]):
            mark = links[r, s] if s >= 0 else first + r + 1
            if mark == 0:
                break
            position = abs(mark) - 1
            slot = place_of(position, table)
            if table[slot] == -1:
                table[slot] = position
                numbers[slot] = count
                positions[count] = position
                count += 1
            if s < 0:
                own[r] = numbers[slot]
            else:
                links[r, s] = numbers[slot] + 1 if mark > 0 else -numbers[slot] - 1
    return links.shape[0], count


def join(
    links: Int32, named: Named, codes: CodesAt, facts: Float32, room: Room, lists: Ids, width: int
) -> int:
    """Compare the rows that each row links to with one another, where one of the two links is new.

    A row that hardly anyone lists is linked to by few, so that few bring it together with anyone:
    it is compared with those that its own neighbours list.

    links: [r, l], their first places the row's own neighbours. named: see `name`. codes, facts [u,
    ...]: of the rows named; lists: [u, keep] theirs, none new; what is found is entered, new.
    width: how many of a list count as neighbours. Returns how many pairs were compared.
    """
    return int(
        _join(
            links,
            named.positions,
            named.own,
            named.table,
            named.numbers,
            codes.addresses,
            codes.nbytes,
            facts,
            room.panel,
            room.dots,
            room.addresses,
            room.offsets,
            room.floats,
            lists,
            width,
        )
    )


@kernel
def _join(
    links: Int32,
    positions: Int32,
    own: Int32,
    table: Int32,
    numbers: Int32,
    codes: Ids,
    nbytes: int,
    facts: Float32,
    panel: Array,
    dots: Int32,
    addresses: Ids,
    offsets: Int32,
    floats: Float32,
    lists: Ids,
    width: int,
) -> int:
    floors, keep = floats[2], lists.shape[1]
    rows = np.empty(links.shape[1] + 1, np.int32)
    met = np.zeros(MET, np.int64)
    compared = 0
    for v in range(len(links)):
        news, count = _new_first(links[v], rows)
        if news == 0:
            continue
        neighbours = 0
        while neighbours < min(width, keep) and lists[own[v], neighbours] != EMPTY:
            neighbours += 1
        if count - neighbours < FEW_SOURCES:
            compared += _pull(
                v,
                links,
                neighbours,
                positions,
                own,
                table,
                numbers,
                codes,
                nbytes,
                facts,
                lists,
                width,
                met,
            )
        if count < 2:
            continue
        seat(0, nbytes, facts, rows[:count], addresses, offsets, floats[0], floats[1])
        for c in range(len(addresses)):  # not where they would lie side by side
            addresses[c] = codes[rows[min(c, count - 1)]]
        groups = (count + GROUP - 1) // GROUP
        for c in range(GROUP * groups):
            floors[c] = np.inf
            if c < count:
                floors[c] = key_of(lists[rows[c], keep - 1])
                for part in range(0, 8 * keep, 64):
                    prefetch(lists.ctypes.data + 8 * keep * rows[c] + part)
        pack(addresses.ctypes.data, groups, nbytes, panel.ctypes.data)
        compared += news * (count - news) + news * (news - 1) // 2
        for first in range(0, min(news, count - 1), STRIP):
            done = first // GROUP  # groups before hold rows that have met these
            strip(
                addresses.ctypes.data + 8 * first,
                offsets.ctypes.data + 4 * first,
                panel.ctypes.data + GROUP * nbytes * done,
                groups - done,
                nbytes,
                dots.ctypes.data + 4 * GROUP * done,
                4 * dots.shape[1],
            )
            for r in range(min(STRIP, news - first)):
                mine = dots.ctypes.data + 4 * dots.shape[1] * r
                _meet(first + r, mine, rows[:count], positions, floats, lists, met)
    return compared


@inlined
def _new_first(links: Int32, rows: Int32) -> tuple[int, int]:
    """The rows of some links, new ones first; how many are new, and how many there are."""
    count = 0
    for s in range(len(links)):
        if links[s] < 0:
            rows[count] = -links[s] - 1
            count += 1
    news = count
    for s in range(len(links)):
        if links[s] > 0:
            rows[count] = links[s] - 1
            count += 1
    return news, count


@inlined
def _meet(
    i: int,
    dots: int,
    rows: Int32,
    positions: Int32,
    floats: Float32,
    lists: Ids,
    met: Ids,
) -> None:
    """Enter row i of a tile into the lists of the rows after it, and them into its own, where they
    are near enough. dots: address of its dot products with all."""
    scales, biases, floors, near = floats[0], floats[1], floats[2], floats[3]
    keep, count = lists.shape[1], len(rows)
    a = rows[i]
    for g in range((i + 1) // GROUP, (count + GROUP - 1) // GROUP):
        at = 4 * GROUP * g
        hits = better(
            dots + at,
            scales[i],
            scales.ctypes.data + at,
            biases[i],
            biases.ctypes.data + at,
            near.ctypes.data + at,
            floors[i],
            floors.ctypes.data + at,
        )
        if GROUP * g <= i:
            hits &= -1 << (i + 1 - GROUP * g)
        if GROUP * (g + 1) > count:
            hits &= (1 << (count - GROUP * g)) - 1
        while hits != 0:
            j = GROUP * g + lowest_bit(hits)
            hits &= hits - 1
            b = rows[j]
            if _seen(a, b, met):
                continue
            key = near[j]
            if key >= floors[i]:
                mine = lists.ctypes.data + 8 * keep * a
                if enter(mine, keep, packed(key, tail_of(positions[b]))):
                    floors[i] = key_of(lists[a, keep - 1])
            if key >= floors[j]:
                mine = lists.ctypes.data + 8 * keep * b
                if enter(mine, keep, packed(key, tail_of(positions[a]))):
                    floors[j] = key_of(lists[b, keep - 1])


@inlined
def _seen(a: int, b: int, met: Ids) -> bool:
    """Whether two rows are known to have met; they have now."""
    pair = (np.int64(min(a, b)) << 32) | max(a, b)
    slot = (pair * -7046029254386353131 >> 40) & (MET - 1)
    if met[slot] == pair:
        return True
    met[slot] = pair
    return False


@kernel
def _pull(
    v: int,
    links: Int32,
    neighbours: int,
    positions: Int32,
    own: Int32,
    table: Int32,
    numbers: Int32,
    codes: Ids,
    nbytes: int,
    facts: Float32,
    lists: Ids,
    width: int,
    met: Ids,
) -> int:
    """Compare a row with those that its nearest neighbours list, as far as they are named."""
    a, keep, compared = own[v], lists.shape[1], 0
    x = int8_row(codes[a], nbytes)
    for s in range(min(neighbours, ASKED)):
        u = abs(links[v, s]) - 1
        for t in range(min(width, keep)):
            if lists[u, t] == EMPTY:
                break
            position = id_of(lists[u, t])
            slot = place_of(position, table)
            if table[slot] == -1 or position == positions[a]:
                continue
            b = numbers[slot]
            if _seen(a, b, met):
                continue
            y = int8_row(codes[b], nbytes)
            dot = np.int32(0)
            for c in range(nbytes):  # cast back at once, or LLVM sums in int64
                dot = np.int32(dot + np.int32(np.int32(x[c]) * np.int32(y[c])))
            both = facts[a, SCALE] * facts[b, SCALE]
            key = both * np.float32(dot) + (facts[a, BIAS] + facts[b, BIAS])
            compared += 1
            enter(lists.ctypes.data + 8 * keep * a, keep, packed(key, tail_of(position)))
            enter(lists.ctypes.data + 8 * keep * b, keep, packed(key, tail_of(positions[a])))
    return compared


def entered_in(positions: Int32, lists: Ids) -> tuple[Int32, Ids]:
    """What is new in lists [u, keep], one candidate after another: whose list [e], candidates
    [e]."""
    count = _new_in(lists)
    rows, candidates = np.empty(count, np.int32), np.empty(count, np.int64)
    _take_new(positions, lists, rows, candidates)
    return rows, candidates


@kernel
def _new_in(lists: Ids) -> int:
    total = 0
    for u in range(len(lists)):
        for s in range(lists.shape[1]):
            total += lists[u, s] & 1
    return total


@kernel
def _take_new(positions: Int32, lists: Ids, rows: Int32, candidates: Ids) -> None:
    total = 0
    for u in range(len(positions)):
        for s in range(lists.shape[1]):
            if lists[u, s] & 1:
                rows[total] = positions[u]
                candidates[total] = lists[u, s]
                total += 1
