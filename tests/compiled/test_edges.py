"""Of all who list a row, those that have it nearest in their lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simdist.compiled.edges import NearestEdges

EDGE = st.tuples(st.integers(100, 107), st.integers(1, 90), st.integers(0, 255))


@given(
    parts=st.lists(st.lists(EDGE, max_size=60), max_size=4),
    most=st.integers(1, 6),
    width=st.integers(1, 300),
)
def test_the_nearest_are_kept_in_the_order_of_slots_then_as_they_came(
    parts: list[list[tuple[int, int, int]]], most: int, width: int
):
    nearest = NearestEdges(range(100, 108), most)
    for part in parts:
        targets, sources, slots = np.array(part, np.int64).reshape(-1, 3).T
        nearest.add(targets, sources, slots.astype(np.uint8), width)
    sources, starts = nearest.all()
    everyone = [edge for part in parts for edge in part if edge[2] < width]
    for row in range(8):
        own = [(slot, source) for target, source, slot in everyone if target == 100 + row]
        own.sort(key=lambda edge: edge[0])  # stable
        expected = [source for _, source in own[:most]]
        assert sources[starts[row] : starts[row + 1]].tolist() == expected
    assert starts[-1] == len(sources)
