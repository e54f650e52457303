"""Reading a stored partition, and the sizes and orders that follow from n and d."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages.partitioning import partitioned

from simdist.measures import resolve
from simdist.partitions import (
    BLOCK_NBYTES,
    Partition,
    block_rows,
    cell_count,
    measure_surrogate,
    nearest_cells,
    order_leaders,
    power_of_two,
)
from simdist.types import Array

N, D = 9000, 5


@pytest.fixture(scope="module")
def x() -> Array:
    return np.random.default_rng(3).standard_normal((N, D)).astype(np.float32)


@pytest.fixture(scope="module")
def partition(x: Array) -> Partition:
    return partitioned(x, "euclidean", cuts=[2500])


def test_rows_and_vectors_are_found_by_position_across_blocks(
    partition: Partition, x: Array
) -> None:
    assert partition.blocks > 1
    positions = np.random.default_rng(0).permutation(N)[:500]
    rows = partition.numbers.take(positions)
    taken = partition.take(positions)
    expected = partition.measure.prepare(x[rows])
    np.testing.assert_array_equal(taken.vectors, expected.vectors)
    np.testing.assert_allclose(taken.terms, expected.terms, rtol=1e-6)
    everything = partition.numbers.take(np.arange(N))
    np.testing.assert_array_equal(np.sort(everything), np.arange(N))


def test_members_of_cells_are_positions_over_all_blocks(partition: Partition) -> None:
    cells = np.concatenate([partition.array(b, "cells") for b in range(partition.blocks)])
    for ranks in (1, 3):
        found = partition.members(range(2, 7), ranks)
        for cell, members in zip(range(2, 7), found, strict=True):
            expected = np.flatnonzero((cells[:, :ranks] == cell).any(axis=1))
            np.testing.assert_array_equal(members, expected)
            assert len(members) == partition.sizes[cell, :ranks].sum()


def test_new_rows_get_the_cells_they_would_have_had(partition: Partition, x: Array) -> None:
    rows = partition.numbers.take(np.arange(200))
    near = nearest_cells(partition, partition.measure.prepare(x[rows]), 3)
    np.testing.assert_array_equal(near, partition.array(0, "cells")[:200, :3])


def test_a_partition_is_opened_once_per_process(partition: Partition) -> None:
    assert Partition.of(partition.dataset) is Partition.of(partition.dataset)


@given(rows=st.integers(1, 2**40), dim=st.integers(1, 100_000))
def test_blocks_are_powers_of_two_of_bounded_size(rows: int, dim: int) -> None:
    size = block_rows(rows, dim)
    assert size & (size - 1) == 0
    assert size == 1 or size * dim * 4 <= BLOCK_NBYTES
    assert size >= min(4096, power_of_two(BLOCK_NBYTES // (4 * dim)))


def test_small_data_still_gives_several_blocks_and_large_data_full_ones() -> None:
    assert -(-100_000 // block_rows(100_000, 128)) >= 4
    assert block_rows(10**8, 128) * 128 * 4 == BLOCK_NBYTES
    assert cell_count(1) == 1
    assert cell_count(16_000_000) == 1000


@pytest.mark.parametrize("value", [0, 1, 2, 3, 1023, 1024, 1025])
def test_power_of_two_is_the_largest_within(value: int) -> None:
    found = power_of_two(value)
    assert found & (found - 1) == 0
    assert found <= max(value, 1) < 2 * found or value == 0


@pytest.mark.parametrize("rows", [1, 2, 3, 50, 257])
@pytest.mark.parametrize("kind", ["different", "the same"])
def test_leaders_are_put_in_an_order_without_losing_any(rows: int, kind: str) -> None:
    vectors = np.random.default_rng(rows).standard_normal((rows, 3), dtype=np.float32)
    if kind == "the same":
        vectors[:] = vectors[0]
    np.testing.assert_array_equal(np.sort(order_leaders(vectors)), np.arange(rows))


def test_leaders_next_to_each_other_are_near() -> None:
    vectors = np.random.default_rng(1).standard_normal((256, 2), dtype=np.float32)
    ordered = vectors[order_leaders(vectors)]
    step = np.linalg.norm(np.diff(ordered, axis=0), axis=1).mean()
    assert step < 0.4 * np.linalg.norm(np.diff(vectors, axis=0), axis=1).mean()


@pytest.mark.parametrize(
    ("measure", "surrogate"),
    [("cosine", "cosine"), ("euclidean", "euclidean"), ("dot", "direction")],
)
def test_cells_form_under_the_measure_unless_long_rows_would_win_them_all(
    measure: str, surrogate: str
) -> None:
    assert measure_surrogate(resolve(measure)) == resolve(surrogate)
