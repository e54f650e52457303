"""Reading a stored partition, and the sizes and orders that follow from n and d."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages.partitioning import partition_job, partitioned

from simdist.engine import open_engine
from simdist.errors import ConfigError
from simdist.measures import Prepared, resolve
from simdist.models.vectors import import_array
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
from simdist.runner import run
from simdist.stages.partition import PartitionConfig
from simdist.store.held import HeldStore
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


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_rows_in_place_are_those_that_were_moved(x: Array, measure: str) -> None:
    moved = partitioned(x, measure)
    store = HeldStore(1 << 30)
    with closing(store), open_engine("local", workers=1) as engine:
        source = import_array(x, store=store, engine=engine)
        job = partition_job(source, measure, in_place=True)
        lying = Partition.of(run(job, store=store, engine=engine))
        assert lying.in_place
        assert not moved.in_place
        assert "vectors" not in lying.dataset.manifest.shards[0].objects
        for block in range(moved.blocks):
            for role in ("rows", "codes", "facts", "members", "starts", "ranks"):
                np.testing.assert_array_equal(lying.array(block, role), moved.array(block, role))
            same_rows(lying.block(block), moved.block(block))
            parts = list(lying.pieces(block))
            numbers = np.concatenate([ids for _, ids in parts])
            np.testing.assert_array_equal(numbers, moved.array(block, "rows"))
            vectors = np.concatenate([rows.vectors for rows, _ in parts])
            np.testing.assert_array_equal(vectors, moved.block(block).vectors)
        positions = np.random.default_rng(1).integers(0, N, 3000).astype(np.int32)
        for partition in (lying, moved):
            seen = np.zeros(len(positions), bool)
            for places, rows, which in partition.visits(positions):
                same_rows(rows.take(which), moved.take(positions[places]))
                assert not seen[places].any()
                seen[places] = True
            assert seen.all()


def test_rows_elsewhere_cannot_be_in_place(x: Array) -> None:
    with pytest.raises(ConfigError, match="rows that this process holds in memory"):
        partitioned(x, in_place=True)


def test_a_partition_that_moves_its_rows_is_called_as_ever() -> None:
    assert "in_place" not in PartitionConfig("cosine").to_json()
    assert PartitionConfig("cosine", in_place=True).to_json()["in_place"] is True


def same_rows(found: Prepared, expected: Prepared) -> None:
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert (found.terms is None) == (expected.terms is None)
    if found.terms is not None:
        np.testing.assert_array_equal(found.terms, expected.terms)


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
