"""Candidate lists of rows, as one int64 a candidate.

    bits 63..32   its key (nearness, larger is nearer) as an integer of the same order
    bits 31..1    2^31 - 1 - its id: of equal keys the smaller id comes first
    bit  0        1 where it is new since its row was last joined

A list [keep] is sorted descending, its ids are distinct, and EMPTY places come last. A pair has one
key, bit for bit, so that a candidate met again is the same number but for bit 0, and entering is
commutative: whatever the order, the list ends as the best distinct candidates. Entering one is a
few vector instructions: `max(here, min(place before, candidate))` for all places at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from simdist.compiled.blocks import int64_row, prefetch
from simdist.compiled.kernel import inlined, kernel
from simdist.types import Array, Float32, Ids, Int32

__all__ = [
    "EMPTY",
    "PLACES",
    "count_edges",
    "empty_lists",
    "enter",
    "enter_entries",
    "enter_found",
    "entered",
    "fill_short",
    "id_of",
    "ids_of",
    "joined",
    "key_of",
    "link",
    "packed",
    "tail_of",
    "take_edges",
]

AHEAD = 8  # entries between asking for a list and using it
PLACES = 8  # of a list at once: keep is a multiple
_NO_ID = 0x7FFFFFFF
_LEAST = -0x7F800001  # -inf as an ordered integer
EMPTY = _LEAST << 32  # -inf, id 2^31 - 1, not new

_I64 = ir.IntType(64)
_LINE = ir.VectorType(_I64, PLACES)
_LANES = ir.VectorType(ir.IntType(32), PLACES)


def empty_lists(rows: int, keep: int) -> Ids:
    """[rows, keep] EMPTY."""
    return np.full((rows, keep), EMPTY, np.int64)


def ids_of(lists: Array) -> Int32:
    """Ids of candidates, -1 where EMPTY; any shape."""
    ids = _NO_ID - ((lists >> 1) & _NO_ID)
    return np.where(ids == _NO_ID, -1, ids).astype(np.int32)


def _typed(build: Callable[..., Any]) -> Callable[..., Any]:
    called: Callable[..., Any] = intrinsic(build)
    return called


@_typed
def _float_bits(_typing: Any, value: Any) -> Any:
    """A float32's bits as int32."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@_typed
def _bits_float(_typing: Any, bits: Any) -> Any:
    """The float32 of int32 bits."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


def _line(builder: Any, address: Any) -> Any:
    loaded = builder.load(builder.inttoptr(address, _LINE.as_pointer()))
    loaded.align = 8
    return loaded


def _spread(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_LINE, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_LANES, [0] * PLACES))


@_typed
def _has(_typing: Any, address: Any, candidate: Any) -> Any:
    """Whether one of PLACES candidates at an address is this one, new or not; it is new."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        known = builder.or_(_line(builder, args[0]), ir.Constant(_LINE, [1] * PLACES))
        same = builder.icmp_signed("==", known, _spread(builder, args[1]))
        bits = builder.bitcast(same, ir.IntType(PLACES))
        return builder.icmp_unsigned("!=", bits, ir.IntType(PLACES)(0))

    return types.boolean(types.int64, types.int64), codegen


@_typed
def _slide(_typing: Any, address: Any, candidate: Any, head: Any) -> Any:
    """Enter a candidate into PLACES at an address; head: 1 where nothing lies before them."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        address, candidate, head = args
        here = _line(builder, address)
        largest = ir.Constant(_LINE, [2**63 - 1] * PLACES)
        lanes = ir.Constant(_LANES, [PLACES - 1, *range(PLACES, 2 * PLACES - 1)])
        first = builder.shuffle_vector(largest, here, lanes)
        is_head = builder.icmp_signed("!=", head, _I64(0))
        # The head has no place before it to read from: it reads itself, and is not used.
        before_at = builder.select(is_head, address, builder.sub(address, _I64(8)))
        before = builder.select(is_head, first, _line(builder, before_at))
        mine = _spread(builder, candidate)
        lower = builder.select(builder.icmp_signed("<", before, mine), before, mine)
        out = builder.select(builder.icmp_signed(">", here, lower), here, lower)
        stored = builder.store(out, builder.inttoptr(address, _LINE.as_pointer()))
        stored.align = 8
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@inlined
def tail_of(identifier: int) -> Any:
    """The lower half of a new candidate."""
    return (np.int64(_NO_ID - identifier) << 1) | 1


@inlined
def packed(key: float, tail: int) -> Any:
    """A new candidate. Keys 0.0 and -0.0 are one."""
    bits = np.int64(_float_bits(np.float32(key) + np.float32(0.0)))
    ordered = bits ^ ((bits >> 63) & 0x7FFFFFFF)
    return (ordered << 32) | tail


@inlined
def key_of(candidate: int) -> Any:
    """The key of a candidate; -inf where EMPTY."""
    ordered = candidate >> 32
    return _bits_float(np.int32(ordered ^ ((ordered >> 63) & 0x7FFFFFFF)))


@inlined
def id_of(candidate: int) -> int:
    """The id of a candidate; 2^31 - 1 where EMPTY."""
    return _NO_ID - ((candidate >> 1) & _NO_ID)


@inlined
def enter(address: int, keep: int, candidate: int) -> bool:
    """Enter a new candidate into the list at an address; True where it went in. One that is
    infinitely far stays out: its key is that of an empty place."""
    if candidate <= int64_row(address, keep)[keep - 1] or candidate >> 32 <= _LEAST:
        return False
    for place in range(0, keep, PLACES):
        if _has(address + 8 * place, candidate):
            return False
    for place in range(keep - PLACES, 0, -PLACES):
        _slide(address + 8 * place, candidate, 0)
    _slide(address, candidate, 1)
    return True


@kernel
def entered(rows: Int32, candidates: Array, lists: Ids) -> None:
    """Enter candidates into lists. rows: [e] which list; candidates: [e, w], EMPTY for none.
    lists: [n, keep], changed in place."""
    keep = lists.shape[1]
    for e in range(len(rows)):
        if e + AHEAD < len(rows):
            for place in range(0, keep, PLACES):
                prefetch(lists.ctypes.data + 8 * (keep * rows[e + AHEAD] + place))
        for s in range(candidates.shape[1]):
            enter(lists.ctypes.data + 8 * keep * rows[e], keep, candidates[e, s])


@kernel
def enter_entries(rows: Int32, ids: Int32, keys: Float32, lists: Ids) -> None:
    """As `entered`, of ids and keys [e, w]; -1 for none."""
    keep = lists.shape[1]
    for e in range(len(rows)):
        for s in range(ids.shape[1]):
            if ids[e, s] >= 0 and not np.isnan(keys[e, s]):
                candidate = packed(keys[e, s], tail_of(ids[e, s]))
                enter(lists.ctypes.data + 8 * keep * rows[e], keep, candidate)


@kernel
def enter_found(indptr: Ids, found: Int32, keys: Float32, lists: Ids) -> None:
    """As `entered`, of row r the candidates found[indptr[r]:indptr[r + 1]] with their keys."""
    keep = lists.shape[1]
    for r in range(len(indptr) - 1):
        for e in range(indptr[r], indptr[r + 1]):
            if not np.isnan(keys[e]):
                candidate = packed(keys[e], tail_of(found[e]))
                enter(lists.ctypes.data + 8 * keep * r, keep, candidate)


@kernel
def joined(lists: Ids, width: int) -> None:
    """The first `width` places of every list are not new any more."""
    for r in range(len(lists)):
        for s in range(min(width, lists.shape[1])):
            lists[r, s] &= -2


@kernel
def count_edges(lists: Ids, width: int, shift: int, starts: Ids) -> None:
    """How many of the best `width` of every list lie in each block of 2^shift rows.

    starts: [blocks + 1] out; block b's edges are to lie at starts[b]:starts[b + 1].
    """
    starts[:] = 0
    for row in range(len(lists)):
        for slot in range(width):
            other = id_of(lists[row, slot])
            if other == _NO_ID:
                break
            starts[(other >> shift) + 1] += 1
    for block in range(len(starts) - 1):
        starts[block + 1] += starts[block]


@kernel
def take_edges(
    lists: Ids,
    first: int,
    width: int,
    shift: int,
    starts: Ids,
    targets: Int32,
    sources: Int32,
    slots: Array,
) -> None:
    """The best `width` of every list as edges, bucketed by the target's block, row by row.

    first: position of the first row. starts: of `count_edges`. targets: [e] int32 out. sources: [e]
    int32 out, position + 1, negative where the target is new there. slots: [e] uint8 out, the place
    in the source's list, 255 from there on.
    """
    place = starts[:-1].copy()
    for row in range(len(lists)):
        for slot in range(width):
            candidate = lists[row, slot]
            other = id_of(candidate)
            if other == _NO_ID:
                break
            at = place[other >> shift]
            place[other >> shift] = at + 1
            mark = first + row + 1
            targets[at] = other
            sources[at] = -mark if candidate & 1 else mark
            slots[at] = min(slot, 255)


@kernel
def link(lists: Ids, sources: Array, starts: Ids, width: int, links: Int32) -> None:
    """Links of every row: its best `width` neighbours and up to `width` rows that list it.

    lists: [rows, keep]. sources: [e] int32 of rows listing row r, at starts[r]:starts[r + 1],
    nearest first, position + 1, negative where new there.
    links: [rows, 2 width] out: position + 1, negative where the link is new, 0 for none. A row that
    is both neighbour and source is kept once.
    """
    for i in range(len(lists)):
        count = 0
        for s in range(min(width, lists.shape[1])):
            if lists[i, s] != EMPTY:
                mark = id_of(lists[i, s]) + 1
                links[i, count] = -mark if lists[i, s] & 1 else mark
                count += 1
        forward = count
        for e in range(starts[i], starts[i + 1]):
            if count == forward + width:
                break
            mark = abs(sources[e])
            seen = False
            for s in range(forward):
                if abs(links[i, s]) == mark:
                    seen = True
            if not seen:
                links[i, count] = sources[e]
                count += 1
        links[i, count:] = 0


@kernel
def fill_short(first: int, rows: int, lists: Ids, least: int) -> int:
    """Give every list at least `least` candidates: from the places beside its row in cell order,
    nearest place first, around the end, with the key -inf: anything else goes before them.

    first: position of the block's first row; rows: rows of the whole set, more than `least`.
    Returns how many lists were short.
    """
    short = 0
    for r in range(len(lists)):
        count = 0
        while count < lists.shape[1] and lists[r, count] != EMPTY:
            count += 1
        if count >= least:
            continue
        short += 1
        step = 1
        while count < least:
            for sign in (1, -1):
                candidate = (first + r + sign * step) % rows
                known = candidate == first + r or count == least
                for s in range(count):
                    known = known or id_of(lists[r, s]) == candidate
                if not known:
                    lists[r, count] = packed(-np.inf, tail_of(candidate))
                    count += 1
            step += 1
    return short
