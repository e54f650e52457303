"""Rows in blocks, read as one matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled.listing import blocked
from hypothesis import given, settings
from hypothesis import strategies as st

from simdist.compiled.blocks import Blocks
from simdist.types import Array


@settings(deadline=None)  # the first call compiles
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 70),
    shift=st.integers(0, 6),
    dim=st.integers(1, 5),
)
def test_positions_are_found_across_blocks(seed: int, rows: int, shift: int, dim: int):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, dim)).astype(np.float32)
    blocks = blocked(x, 1 << shift)
    positions = rng.integers(0, rows, 50)
    np.testing.assert_array_equal(blocks.take(positions), x[positions])


def test_take_keeps_dtype_and_takes_vectors_of_numbers():
    numbers = np.arange(10, dtype=np.int64)[::-1].copy()
    blocks = blocked(numbers, 4)
    taken = blocks.take(np.array([9, 0, 4, 4]))
    assert taken.dtype == np.int64
    assert taken.tolist() == [0, 9, 5, 5]
    assert blocks.take(np.empty(0, np.int64)).shape == (0,)


def test_every_block_is_visited_once_whatever_the_order_of_positions():
    blocks = blocked(np.arange(20, dtype=np.float32), 8)
    positions = np.array([19, 1, 9, 0, 18])
    visits = {block: places.tolist() for block, places in blocks.visits(positions)}
    assert visits == {0: [1, 3], 1: [2], 2: [0, 4]}
    calls: list[None] = []
    blocks.take(positions, between=lambda: calls.append(None))
    assert len(calls) == 3
    assert list(blocks.visits(np.empty(0, np.int64))) == []


def test_what_is_taken_is_a_copy():
    x = np.zeros((4, 2), np.float32)
    blocks = Blocks.of([x], 4)
    blocks.take(np.arange(4))[:] = 1.0
    assert (x == 0.0).all()


def test_memory_mapped_blocks_are_read_where_they_lie(tmp_path: Path):
    x = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)
    mapped: list[Array] = []
    for cut in range(0, 40, 16):
        path = tmp_path / f"{cut}.npy"
        np.save(path, x[cut : cut + 16])
        mapped.append(np.load(path, mmap_mode="r"))
    blocks = Blocks.of(mapped, 16)
    positions = np.array([39, 0, 16, 15])
    np.testing.assert_array_equal(blocks.take(positions), x[positions])


@pytest.mark.parametrize(("lengths", "block_rows"), [([4, 3, 4], 4), ([6, 6], 6), ([2, 4], 4)])
def test_blocks_of_unequal_or_odd_length_are_refused(lengths: list[int], block_rows: int):
    arrays = [np.zeros((length, 2), np.float32) for length in lengths]
    with pytest.raises(ValueError, match=r"all but the last need"):
        Blocks.of(arrays, block_rows)
