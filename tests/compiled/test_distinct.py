"""Numbering the distinct ones among some positions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdist.compiled.distinct import distinct


@given(
    positions=st.lists(st.integers(0, 2**31 - 2) | st.integers(0, 9), min_size=1, max_size=200),
    most=st.integers(1, 40),
)
def test_positions_are_numbered_in_the_order_they_come(positions: list[int], most: int):
    given_positions = np.array(positions, np.int32)
    found, which = distinct(given_positions, most)
    expected: list[int] = []
    done = 0
    for position in positions:
        if position not in expected:
            if len(expected) == most:
                break
            expected.append(position)
        done += 1
    assert found.tolist() == expected
    assert len(which) == done
    assert found[which].tolist() == positions[:done]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_view_that_may_not_be_written_will_do(dtype: type):
    positions = np.arange(20, dtype=dtype)[::2]
    positions.flags.writeable = False
    found, which = distinct(positions, 3)
    assert found.tolist() == [0, 2, 4]
    assert which.tolist() == [0, 1, 2]
