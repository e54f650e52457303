"""What the tests of graph kernels share: lists as plain Python keeps them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from simdist.compiled.blocks import Blocks
from simdist.types import Array, Float32, Int32

Entry = tuple[int, float]


def empty_lists(rows: int, width: int) -> tuple[Int32, Float32]:
    return np.full((rows, width), -1, np.int32), np.full((rows, width), -np.inf, np.float32)


def best(entries: Iterable[Entry], width: int) -> tuple[list[int], list[float]]:
    """The `width` best distinct ids, each with its largest key, as a list is defined."""
    largest: dict[int, float] = {}
    for candidate, key in entries:
        if candidate >= 0 and key > -np.inf and key > largest.get(candidate, -np.inf):
            largest[candidate] = key
    ordered = sorted(largest.items(), key=lambda entry: (-entry[1], entry[0]))[:width]
    room = width - len(ordered)
    ids = [candidate for candidate, _ in ordered] + [-1] * room
    return ids, [key for _, key in ordered] + [-np.inf] * room


def blocked(array: Array, block_rows: int) -> Blocks:
    """The rows of an array in blocks, each memory of its own."""
    cuts = range(0, len(array), block_rows)
    return Blocks.of([array[cut : cut + block_rows].copy() for cut in cuts], block_rows)
