"""Kernels on int8 codes of rows: leaves, their leaders, and joins, all exact integer tiles.

A row x is coded as x - centre = scale x code (+ at most half a step), and two rows are as near as
what is coded of them:

    key(i, j) = -|x_i - x_j|^2 / 2 + u_i + u_j
              ~ scale_i scale_j <code_i, code_j> + bias_i + bias_j

u is what the measure's nearness has beside the distance (0 for cosine and euclidean). Differences
of near rows are coded as well as far ones, so that near-duplicates keep their order. A pair has one
key, bit for bit, whoever computes it: lists can be merged in any order.

`facts` [n, FACTS] float32 of a row: scale, bias, home (its bias where leaders are chosen: without
u), offset (an int32, see simdist.compiled.simd).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simdist.compiled.blocks import int8_row, prefetch
from simdist.compiled.kernel import inlined, kernel
from simdist.compiled.lists import EMPTY, enter, id_of, key_of, packed, tail_of
from simdist.compiled.simd import (
    CHUNK,
    GROUP,
    STRIP,
    aligned,
    at_least,
    better,
    count_at_least,
    keys_of,
    lane_maxima,
    lowest_bit,
    offset_of,
    pack,
    strip,
    turn,
)
from simdist.types import Array, Float32, Float64, Ids, Int32

__all__ = [
    "FACTS",
    "Room",
    "code_nbytes",
    "encode",
    "entered_in",
    "join",
    "leaders_of",
    "leaf_top",
]

FACTS = 4
SCALE, BIAS, HOME, OFFSET = range(FACTS)
LANES = 32  # interleaved columns of a leaf whose maxima bound what is worth keeping
LARGEST = 127  # of a code
LEAST = np.float32(np.finfo(np.float32).min)  # what is farther is infinitely far
SQUARE = 1024  # rows of a tile that is held whole, one half mirrored
FEW_SOURCES = 1  # rows that list a row, below which it asks its neighbours
ASKED = 5  # neighbours that such a row asks, its nearest
FEW = 6  # more candidates than asked for: dropped one by one
MET = 1 << 14  # pairs a join remembers, so as not to enter them again


def code_nbytes(dim: int) -> int:
    """Bytes of a row's code: whole chunks."""
    return -(-dim // CHUNK) * CHUNK


class Room:
    """What tiles of up to `rows` rows of `nbytes` are worked out in, used again tile by tile."""

    def __init__(self, rows: int, nbytes: int) -> None:
        padded = -(-rows // LANES) * LANES
        self.panel = aligned(padded * nbytes, np.uint8)
        lines = padded if padded <= SQUARE else STRIP
        self.dots = aligned(lines * padded, np.int32).reshape(lines, padded)
        self.addresses = aligned(padded, np.int64)
        self.offsets = aligned(padded, np.int32)
        self.floats = aligned(4 * padded, np.float32).reshape(4, padded)


def encode(vectors: Float32, centre: Float64, extra: Float32, codes: Array, facts: Float32) -> None:
    """Codes of rows. vectors: [n, d], may be read-only. centre: [d]. extra: [n], u above.
    codes: [n, code_nbytes(d)] int8 out; facts: [n, FACTS] out."""
    rows = np.require(vectors, np.float32, ["C"]).view()
    rows.flags.writeable = False
    _encode(rows, centre, extra, codes, facts)


@kernel
def _encode(
    vectors: Float32, centre: Float64, extra: Float32, codes: Array, facts: Float32
) -> None:
    dim = vectors.shape[1]
    for i in range(len(vectors)):
        largest = np.float32(0.0)
        for t in range(dim):
            largest = max(largest, np.float32(abs(vectors[i, t] - centre[t])))
        scale = np.float32(largest / LARGEST)
        squares = np.int64(0)
        codes[i, dim:] = 0
        if scale > 0 and np.isfinite(np.float32(1.0) / scale):
            per = 1.0 / np.float64(scale)
            for t in range(dim):
                code = np.int8(np.rint((vectors[i, t] - centre[t]) * per))
                codes[i, t] = code
                squares += np.int64(code) * np.int64(code)
        else:
            codes[i, :dim] = 0
            scale = np.float32(0.0)
        home = np.float32(-0.5 * np.float64(scale) * np.float64(scale) * squares)
        facts[i, SCALE] = scale
        facts[i, HOME] = home
        facts[i, BIAS] = home + extra[i]
        offset = np.array([offset_of(codes[i].ctypes.data, codes.shape[1])], np.int32)
        facts[i, OFFSET] = offset.view(np.float32)[0]


@kernel
def _seat(
    codes: int,
    nbytes: int,
    facts: Float32,
    rows: Int32,
    bias: int,
    addresses: Ids,
    offsets: Int32,
    scales: Float32,
    biases: Float32,
) -> None:
    """Look up rows as tiles take them, padded to whole LANES: the first row again, infinitely far.
    bias: which fact is the additive term."""
    words = facts.view(np.int32)
    for c in range((len(rows) + LANES - 1) // LANES * LANES):
        row = rows[min(c, len(rows) - 1)]
        addresses[c] = codes + nbytes * row
        offsets[c] = words[row, OFFSET]
        scales[c] = facts[row, SCALE] if c < len(rows) else 0.0
        biases[c] = facts[row, bias] if c < len(rows) else -np.inf


def leaf_top(codes: Array, facts: Float32, rows: Int32, ids: Int32, room: Room, out: Ids) -> None:
    """Best columns of every row of one leaf.

    codes, facts: of some rows. rows: [m] which of them are in the leaf, distinct; ids: [m] their
    positions. out: [m, w] filled with each row's best w others as candidates, in any order.
    """
    _leaf_top(
        codes.ctypes.data,
        codes.shape[1],
        facts,
        rows,
        ids,
        room.panel,
        room.dots,
        room.addresses,
        room.offsets,
        room.floats,
        out,
    )


@kernel
def _leaf_top(
    codes: int,
    nbytes: int,
    facts: Float32,
    rows: Int32,
    ids: Int32,
    panel: Array,
    dots: Int32,
    addresses: Ids,
    offsets: Int32,
    floats: Float32,
    out: Ids,
) -> None:
    size = len(rows)
    scales, biases, keys = floats[0], floats[1], floats[2]
    _seat(codes, nbytes, facts, rows, BIAS, addresses, offsets, scales, biases)
    groups = (size + LANES - 1) // LANES * (LANES // GROUP)
    tails = np.zeros(GROUP * groups, np.int64)
    hits = np.empty(GROUP * groups, np.int64)
    lanes = np.empty(LANES, np.float32)
    for c in range(size):
        tails[c] = tail_of(ids[c])
    pack(addresses.ctypes.data, groups, nbytes, panel.ctypes.data)
    line = 4 * dots.shape[1]
    whole = len(dots) >= GROUP * groups
    if whole:
        _square(addresses, offsets, panel, groups, nbytes, dots)
    for i in range(size):
        if not whole and i % STRIP == 0:
            strip(
                addresses.ctypes.data + 8 * i,
                offsets.ctypes.data + 4 * i,
                panel.ctypes.data,
                groups,
                nbytes,
                dots.ctypes.data,
                line,
            )
        mine = dots.ctypes.data + line * (i if whole else i % STRIP)
        for g in range(groups):
            at = 4 * GROUP * g
            keys_of(
                mine + at,
                scales[i],
                scales.ctypes.data + at,
                biases[i],
                biases.ctypes.data + at,
                keys.ctypes.data + at,
            )
        keys[i] = -np.inf
        _select(keys[: GROUP * groups], tails, lanes, hits, out[i])


@inlined
def _square(
    addresses: Ids, offsets: Int32, panel: Array, groups: int, nbytes: int, dots: Int32
) -> None:
    """Dot products of packed rows with one another: half of them, and those mirrored."""
    line = 4 * dots.shape[1]
    for g in range(groups):
        corner = dots.ctypes.data + (line + 4) * GROUP * g
        for half in range(GROUP // STRIP):
            first = GROUP * g + STRIP * half
            strip(
                addresses.ctypes.data + 8 * first,
                offsets.ctypes.data + 4 * first,
                panel.ctypes.data + GROUP * nbytes * g,
                groups - g,
                nbytes,
                corner + line * STRIP * half,
                line,
            )
        for h in range(g + 1, groups):
            away = GROUP * (h - g)
            turn(corner + 4 * away, corner + line * away, line)


@inlined
def _floor(keys: Float32, width: int, lanes: Float32) -> np.float32:
    """A number that at least `width` keys reach, and few more.

    Among the maxima of LANES interleaved columns the one that `width` of them reach is no larger
    than the width-th best key. keys: [whole LANES].
    """
    if len(keys) <= 2 * LANES or width > LANES - LANES // 4:
        return np.float32(-np.inf)
    lane_maxima(keys.ctypes.data, len(keys) // LANES, lanes.ctypes.data)
    address = lanes.ctypes.data
    floor = np.float32(-np.inf)
    for lane in range(LANES):
        if lanes[lane] > floor:
            reach = count_at_least(address, lanes[lane])
            reach += count_at_least(address + 4 * GROUP, lanes[lane])
            if reach >= width:
                floor = lanes[lane]
                if reach <= width + 2:
                    break
    return floor


@inlined
def _select(keys: Float32, tails: Ids, lanes: Float32, hits: Ids, out: Ids) -> None:
    """The best candidates among keys, in any order; EMPTY where there are fewer that are not
    infinitely far. tails: [columns]; lanes [LANES] and hits [columns] to work in. out: [w]."""
    width = len(out)
    floor = max(_floor(keys, width, lanes), LEAST)
    count = 0
    for start in range(0, len(keys), GROUP):
        bits = at_least(keys.ctypes.data + 4 * start, floor)
        while bits != 0:
            column = start + lowest_bit(bits)
            bits &= bits - 1
            hits[count] = packed(keys[column], tails[column])
            count += 1
    if count <= width + FEW:
        while count > width:  # drop the worst, one by one
            worst = 0
            for h in range(1, count):
                worst = h if hits[h] < hits[worst] else worst
            count -= 1
            hits[worst] = hits[count]
        for place in range(width):
            out[place] = hits[place] if place < count else EMPTY
        return
    out[:] = EMPTY
    for h in range(count):
        if hits[h] > out[width - 1]:
            place = width - 1
            while place > 0 and out[place - 1] < hits[h]:
                out[place] = out[place - 1]
                place -= 1
            out[place] = hits[h]


def leaders_of(
    codes: Array, facts: Float32, rows: Int32, leaders: Int32, room: Room, out: Int32
) -> None:
    """The nearest leaders of rows, nearest first, ties to the lower one.

    rows: [m] and leaders: [l] of the coded rows; room for l. out: [m, f], f <= l.
    """
    _leaders_of(
        codes.ctypes.data,
        codes.shape[1],
        facts,
        rows,
        leaders,
        room.panel,
        room.dots,
        room.addresses,
        room.offsets,
        room.floats,
        out,
    )


@kernel
def _leaders_of(
    codes: int,
    nbytes: int,
    facts: Float32,
    rows: Int32,
    leaders: Int32,
    panel: Array,
    dots: Int32,
    addresses: Ids,
    offsets: Int32,
    floats: Float32,
    out: Int32,
) -> None:
    count, width = len(leaders), out.shape[1]
    scales, biases, keys = floats[0], floats[1], floats[2]
    _seat(codes, nbytes, facts, leaders, HOME, addresses, offsets, scales, biases)
    groups = (count + LANES - 1) // LANES * (LANES // GROUP)
    pack(addresses.ctypes.data, groups, nbytes, panel.ctypes.data)
    words = facts.view(np.int32)
    own = np.empty(STRIP, np.int64)
    start = np.empty(STRIP, np.int32)
    best = np.empty(width, np.float32)
    line = 4 * dots.shape[1]
    for first in range(0, len(rows), STRIP):
        for r in range(STRIP):
            row = rows[min(first + r, len(rows) - 1)]
            own[r] = codes + nbytes * row
            start[r] = words[row, OFFSET]
        strip(
            own.ctypes.data,
            start.ctypes.data,
            panel.ctypes.data,
            groups,
            nbytes,
            dots.ctypes.data,
            line,
        )
        for r in range(min(STRIP, len(rows) - first)):
            scale = facts[rows[first + r], SCALE]
            for g in range(groups):
                at = 4 * GROUP * g
                keys_of(
                    dots.ctypes.data + line * r + at,
                    scale,
                    scales.ctypes.data + at,
                    np.float32(0.0),
                    biases.ctypes.data + at,
                    keys.ctypes.data + at,
                )
            near = out[first + r]
            best[:] = -np.inf
            near[:] = -1
            for j in range(count):
                if keys[j] > best[width - 1]:
                    slot = width - 1
                    while slot > 0 and best[slot - 1] < keys[j]:
                        best[slot] = best[slot - 1]
                        near[slot] = near[slot - 1]
                        slot -= 1
                    best[slot] = keys[j]
                    near[slot] = j
            for slot in range(width):  # infinitely far from the rest: the first that are not there
                if near[slot] < 0:
                    free = 0
                    while np.any(near[:slot] == free):
                        free += 1
                    near[slot] = free


class Named(NamedTuple):
    """The rows that some links name, and those that have the links, numbered from 0.

    positions: [u]. own: [r] numbers of the rows that have the links. table, numbers: where a
    position's number is looked up: `find`.
    """

    positions: Int32
    own: Int32
    table: Int32
    numbers: Int32


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


@inlined
def _find(position: int, table: Int32) -> int:
    """Where a position stands in the table, or the free place where it would."""
    mask = len(table) - 1
    slot = (position * 2654435761 >> 7) & mask
    while table[slot] != -1 and table[slot] != position:
        slot = (slot + 1) & mask
    return slot


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
            slot = _find(position, table)
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
    links: Int32, named: Named, codes: Array, facts: Float32, room: Room, lists: Ids, width: int
) -> int:
    """Compare the rows that each row links to with one another, where one of the two links is new.

    A row that hardly anyone lists is linked to by few, so that few bring it together with anyone:
    it is compared with those that its own neighbours list.

    links: [r, l], their first places the row's own neighbours. named: see `name`. codes, facts:
    [u, ...] of the rows named; lists: [u, keep] theirs, none new; what is found is entered, new.
    width: how many of a list count as neighbours. Returns how many pairs were compared.
    """
    return int(
        _join(
            links,
            named.positions,
            named.own,
            named.table,
            named.numbers,
            codes.ctypes.data,
            codes.shape[1],
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
    codes: int,
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
        _seat(codes, nbytes, facts, rows[:count], BIAS, addresses, offsets, floats[0], floats[1])
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
    codes: int,
    nbytes: int,
    facts: Float32,
    lists: Ids,
    width: int,
    met: Ids,
) -> int:
    """Compare a row with those that its nearest neighbours list, as far as they are named."""
    a, keep, compared = own[v], lists.shape[1], 0
    x = int8_row(codes + nbytes * a, nbytes)
    for s in range(min(neighbours, ASKED)):
        u = abs(links[v, s]) - 1
        for t in range(min(width, keep)):
            if lists[u, t] == EMPTY:
                break
            position = id_of(lists[u, t])
            slot = _find(position, table)
            if table[slot] == -1 or position == positions[a]:
                continue
            b = numbers[slot]
            if _seen(a, b, met):
                continue
            y = int8_row(codes + nbytes * b, nbytes)
            dot = np.int32(0)
            for c in range(nbytes):  # cast back at once, or LLVM sums in int64
                dot = np.int32(dot + np.int32(np.int32(x[c]) * np.int32(y[c])))
            both = facts[a, SCALE] * facts[b, SCALE]
            key = both * np.float32(dot) + (facts[a, BIAS] + facts[b, BIAS])
            compared += 1
            enter(lists.ctypes.data + 8 * keep * a, keep, packed(key, tail_of(position)))
            enter(lists.ctypes.data + 8 * keep * b, keep, packed(key, tail_of(positions[a])))
    return compared


@kernel
def entered_in(positions: Int32, lists: Ids, rows: Int32, candidates: Ids) -> int:
    """What is new in lists, one candidate after another. rows: whose list; both [lists.size] out.
    Returns how many."""
    total = 0
    for u in range(len(positions)):
        for s in range(lists.shape[1]):
            if lists[u, s] & 1:
                rows[total] = positions[u]
                candidates[total] = lists[u, s]
                total += 1
    return total
