"""The distinct ones among some positions, numbered."""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import inlined, kernel
from simdist.types import Int32

__all__ = ["distinct", "place_of"]


def distinct(positions: Int32, most: int) -> tuple[Int32, Int32]:
    """([u] distinct positions, in the order they come; [m] which of them each of the first m
    positions is): of as many as name no more than `most`, at least one.

    positions: [p] int32, none negative, p at least 1.
    """
    room = min(max(most, 1), len(positions))
    named = np.require(positions, np.int32, ["C", "W"])
    table = np.full(1 << (2 * room).bit_length(), -1, np.int32)
    numbers = np.empty_like(table)
    found, which = np.empty(room, np.int32), np.empty(len(positions), np.int32)
    count, done = _distinct(named, table, numbers, found, which)
    return found[:count], which[:done]


@inlined
def place_of(position: int, table: Int32) -> int:
    """Where a position stands in a table (a power of two long, -1 where free, never full), or the
    free place where it would."""
    mask = len(table) - 1
    slot = (position * 2654435761 >> 7) & mask
    while table[slot] != -1 and table[slot] != position:
        slot = (slot + 1) & mask
    return slot


@kernel
def _distinct(
    positions: Int32, table: Int32, numbers: Int32, found: Int32, which: Int32
) -> tuple[int, int]:
    count = 0
    for p in range(len(positions)):
        slot = place_of(positions[p], table)
        if table[slot] == -1:
            if count == len(found):
                return count, p
            table[slot] = positions[p]
            numbers[slot] = count
            found[count] = positions[p]
            count += 1
        which[p] = numbers[slot]
    return count, len(positions)
