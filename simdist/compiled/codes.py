"""Kernels on int8 codes of rows: leaves and their leaders, in exact integer tiles.

A row x is coded as x - centre = scale x code (+ at most half a step), and two rows are as near as
what is coded of them:

    key(i, j) = -|x_i - x_j|^2 / 2 ~ scale_i scale_j <code_i, code_j> + bias_i + bias_j

Differences of near rows are coded as well as far ones, so that near-duplicates keep their order. A
pair has one key, bit for bit, whoever computes it: lists can be merged in any order.

`facts` [n, FACTS] float32 of a row: scale, bias, offset (an int32, see simdist.compiled.simd).
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import inlined, kernel
from simdist.compiled.lists import EMPTY, packed, tail_of
from simdist.compiled.simd import (
    CHUNK,
    GROUP,
    STRIP,
    aligned,
    at_least,
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
    "BIAS",
    "FACTS",
    "SCALE",
    "Room",
    "code_nbytes",
    "encode",
    "find_leaders",
    "fold_leaf",
    "leaders_of",
    "leaf_top",
    "seat",
]

FACTS = 3
SCALE, BIAS, OFFSET = range(FACTS)
LANES = 32  # interleaved columns of a leaf whose maxima bound what is worth keeping
LARGEST = 127  # of a code
LEAST = np.float32(np.finfo(np.float32).min)  # what is farther is infinitely far
SQUARE = 1024  # rows of a tile that is held whole, one half mirrored
FEW = 6  # more candidates than asked for: dropped one by one


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


def encode(vectors: Float32, centre: Float64, codes: Array, facts: Float32) -> None:
    """Codes of rows. vectors: [n, d], may be read-only. centre: [d]. codes: [n, code_nbytes(d)]
    int8 out; facts: [n, FACTS] out."""
    rows = np.require(vectors, np.float32, ["C"]).view()
    rows.flags.writeable = False
    _encode(rows, centre, codes, facts)


@kernel
def _encode(vectors: Float32, centre: Float64, codes: Array, facts: Float32) -> None:
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
        facts[i, SCALE] = scale
        facts[i, BIAS] = np.float32(-0.5 * np.float64(scale) * np.float64(scale) * squares)
        offset = np.array([offset_of(codes[i].ctypes.data, codes.shape[1])], np.int32)
        facts[i, OFFSET] = offset.view(np.float32)[0]


@kernel
def seat(
    codes: int,
    nbytes: int,
    facts: Float32,
    rows: Int32,
    addresses: Ids,
    offsets: Int32,
    scales: Float32,
    biases: Float32,
) -> None:
    """Look up rows as tiles take them, padded to whole LANES: the last again, infinitely far."""
    words = facts.view(np.int32)
    for c in range((len(rows) + LANES - 1) // LANES * LANES):
        row = rows[min(c, len(rows) - 1)]
        addresses[c] = codes + nbytes * row
        offsets[c] = words[row, OFFSET]
        scales[c] = facts[row, SCALE] if c < len(rows) else 0.0
        biases[c] = facts[row, BIAS] if c < len(rows) else -np.inf


def leaf_top(codes: Array, facts: Float32, rows: Int32, ids: Int32, room: Room, out: Ids) -> None:
    """Best columns of every row of one leaf.

    codes, facts: of some rows. rows: [m] which of them are in the leaf, distinct; ids: [m] their
    positions. out: [m, w] filled with each row's best w others as candidates, in any order.
    """
    fold_leaf(
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
def fold_leaf(
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
    """`leaf_top` as kernels call it."""
    size = len(rows)
    scales, biases, keys = floats[0], floats[1], floats[2]
    seat(codes, nbytes, facts, rows, addresses, offsets, scales, biases)
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
    find_leaders(
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
def find_leaders(
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
    """`leaders_of` as kernels call it."""
    count, width = len(leaders), out.shape[1]
    scales, biases, keys = floats[0], floats[1], floats[2]
    seat(codes, nbytes, facts, leaders, addresses, offsets, scales, biases)
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
