"""Who lists a row: of many edges, those whose source has the row nearest in its list."""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import fixed, kernel
from simdist.types import Array, Ids, Int32

__all__ = ["NearestEdges"]


class NearestEdges:
    """Of each row of a span the nearest `most` edges among all that are added, nearest slot first,
    and of one slot those that were added first. 5 rows `most` bytes.

    Everyone may list the same few rows: what a row has too many of is let go at once.
    """

    def __init__(self, span: range, most: int) -> None:
        self._first = span.start
        self._counts = np.zeros(len(span), np.int32)
        self._sources = np.empty((len(span), most), np.int32)
        self._slots = np.empty((len(span), most), np.uint8)

    def add(self, targets: Array, sources: Array, slots: Array, width: int) -> None:
        """Edges [e] as `simdist.compiled.lists.take_edges` leaves them, all into the span; those of
        a slot below `width` count."""
        edges = (fixed(targets, np.int32), fixed(sources, np.int32), fixed(slots, np.uint8))
        _enter(*edges, width, self._first, self._counts, self._sources, self._slots)

    def all(self) -> tuple[Int32, Ids]:
        """(sources [e], starts [rows + 1]) row by row."""
        held = np.arange(self._sources.shape[1], dtype=np.int32) < self._counts[:, None]
        starts = np.zeros(len(self._counts) + 1, np.int64)
        np.cumsum(self._counts, out=starts[1:])
        return self._sources[held], starts


@kernel
def _enter(
    targets: Int32,
    sources: Int32,
    slots: Array,
    width: int,
    first: int,
    counts: Int32,
    kept: Int32,
    at: Array,
) -> None:
    most = kept.shape[1]
    for e in range(len(targets)):
        slot = slots[e]
        row = targets[e] - first
        if slot >= width or (counts[row] == most and at[row, most - 1] <= slot):
            continue
        place = min(counts[row], most - 1)
        counts[row] = place + 1
        while place > 0 and at[row, place - 1] > slot:
            at[row, place] = at[row, place - 1]
            kept[row, place] = kept[row, place - 1]
            place -= 1
        at[row, place] = slot
        kept[row, place] = sources[e]
