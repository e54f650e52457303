"""Tiles of int8 rows against numpy's integers, and lanes of keys against numpy's float32."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simdist.compiled.simd import (
    CHUNK,
    GROUP,
    STRIP,
    aligned,
    at_least,
    better,
    count_at_least,
    keys_of,
    lane_maxima,
    lowest_bit,
    offset_of,
    pack,
    panel_nbytes,
    strip,
    turn,
)
from simdist.types import Array, Float32, Int32

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.1, 3e38, -3e38, 1e-40, np.inf, -np.inf, np.nan])


def addressed(rows: Array) -> Array:
    return rows.ctypes.data + rows.shape[1] * np.arange(len(rows), dtype=np.int64)


def dots(columns: Array, rows: Array) -> Int32:
    """Dot products of STRIP rows with any number of columns."""
    nbytes = columns.shape[1]
    groups = -(-len(columns) // GROUP)
    places = np.minimum(np.arange(GROUP * groups), len(columns) - 1)
    beside = addressed(columns)[places]
    panel = aligned(panel_nbytes(len(columns), nbytes), np.uint8)
    pack(beside.ctypes.data, groups, nbytes, panel.ctypes.data)
    own = addressed(rows)
    offsets = np.array([offset_of(int(address), nbytes) for address in own], np.int32)
    out = np.full((STRIP, GROUP * groups + 5), 12345, np.int32)
    strip(
        own.ctypes.data,
        offsets.ctypes.data,
        panel.ctypes.data,
        groups,
        nbytes,
        out.ctypes.data,
        out.strides[0],
    )
    assert (out[:, GROUP * groups :] == 12345).all()  # nothing is written beside the lines
    return out[:, : len(columns)]


@settings(deadline=None)  # the first call compiles
@given(
    seed=st.integers(0, 10**6),
    columns=st.integers(1, 70),
    chunks=st.sampled_from([1, 2, 6, 16]),
    shift=st.integers(0, 3),
)
@example(seed=0, columns=16, chunks=1, shift=0)
@example(seed=0, columns=17, chunks=1, shift=0)
@example(seed=0, columns=48, chunks=2, shift=0)
@example(seed=0, columns=64, chunks=2, shift=1)
def test_dot_products_of_packed_rows_are_exact_wherever_rows_lie(
    seed: int, columns: int, chunks: int, shift: int
):
    rng = np.random.default_rng(seed)
    room = rng.integers(-127, 128, (columns + STRIP) * CHUNK * chunks + shift).astype(np.int8)
    rows = room[shift:].reshape(columns + STRIP, CHUNK * chunks)
    found = dots(rows[:columns], rows[columns:])
    whole = rows.astype(np.int64)
    np.testing.assert_array_equal(found, whole[columns:] @ whole[:columns].T)


@pytest.mark.parametrize("nbytes", [CHUNK, 129_984])
def test_the_largest_codes_stay_exact_up_to_130_000_dimensions(nbytes: int):
    signs = np.array([1, -1] * (STRIP // 2), np.int8)
    columns = np.repeat(np.int8(127) * signs[:3, None], nbytes, axis=1)
    rows = np.repeat(np.int8(127) * signs[:, None], nbytes, axis=1)
    expected = 127 * 127 * nbytes * np.outer(signs.astype(np.int64), signs[:3])
    np.testing.assert_array_equal(dots(columns, rows), expected)


@settings(deadline=None)  # the first call compiles
@given(seed=st.integers(0, 10**6), chunks=st.sampled_from([1, 2, 16]))
def test_the_offset_of_a_row_is_its_sum_by_minus_128(seed: int, chunks: int):
    row = np.random.default_rng(seed).integers(-127, 128, CHUNK * chunks).astype(np.int8)
    assert offset_of(row.ctypes.data, len(row)) == -128 * int(row.sum(dtype=np.int64))


@numba.njit
def lanes(  # noqa: PLR0917 - as numba takes arguments
    dots: Int32,
    scale: float,
    scales: Float32,
    bias: float,
    biases: Float32,
    floor: float,
    floors: Float32,
    both: Float32,
) -> Any:
    """Keys by `keys_of` and by `better`, bits of `better`, of `at_least`, and their count."""
    keys_of(
        dots.ctypes.data,
        scale,
        scales.ctypes.data,
        bias,
        biases.ctypes.data,
        both[0].ctypes.data,
    )
    bits = better(
        dots.ctypes.data,
        scale,
        scales.ctypes.data,
        bias,
        biases.ctypes.data,
        both[1].ctypes.data,
        floor,
        floors.ctypes.data,
    )
    address = both[0].ctypes.data
    return bits, at_least(address, floor), count_at_least(address, floor)


@numba.njit
def lowest(bits: int) -> int:
    return lowest_bit(bits)


def bits_of(chosen: Array) -> int:
    return int(sum(1 << int(lane) for lane in np.flatnonzero(chosen)))


@settings(deadline=None)  # the first call compiles
@given(seed=st.integers(0, 10**6), special=st.booleans())
def test_keys_of_lanes_are_numpys_float32_bit_for_bit(seed: int, special: bool):
    rng = np.random.default_rng(seed)

    def floats(count: int) -> Float32:
        drawn = rng.choice(SPECIAL, count) if special else rng.standard_normal(count)
        return drawn.astype(np.float32)

    products = rng.integers(-(2**31) + 1, 2**31, GROUP).astype(np.int32)
    scales, biases, floors = floats(GROUP), floats(GROUP), floats(GROUP)
    scale, bias, floor = floats(3)
    both = np.empty((2, GROUP), np.float32)
    found = lanes(products, scale, scales, bias, biases, floor, floors, both)
    with np.errstate(all="ignore"):
        keys = (scale * scales) * products.astype(np.float32) + (bias + biases)
        nearer, large = (keys >= floor) | (keys >= floors), keys >= floor
    nan = np.isnan(keys)
    for computed in both:
        np.testing.assert_array_equal(np.isnan(computed), nan)
        np.testing.assert_array_equal(computed[~nan].view(np.int32), keys[~nan].view(np.int32))
    assert found == (bits_of(nearer), bits_of(large), int(large.sum()))


def test_the_lowest_bit_is_found_in_every_place():
    for place in range(63):
        assert lowest(1 << place) == place
        assert lowest((1 << 62) | (1 << place)) == place


@numba.njit
def turned(matrix: Int32, row: int, column: int, to_row: int, to_column: int) -> None:
    """One corner of a matrix into another, transposed."""
    line = 4 * matrix.shape[1]
    start = matrix.ctypes.data
    turn(start + line * row + 4 * column, start + line * to_row + 4 * to_column, line)


def test_a_corner_of_a_matrix_is_turned_into_another():
    rng = np.random.default_rng(6)
    matrix = rng.integers(-(2**31), 2**31, (40, 53)).astype(np.int32)
    expected = matrix.copy()
    expected[19:35, 1:17] = matrix[2:18, 30:46].T
    turned(matrix, 2, 30, 19, 1)
    np.testing.assert_array_equal(matrix, expected)
    expected[3:19, 5:21] = matrix[3:19, 5:21].T
    turned(matrix, 3, 5, 3, 5)  # onto itself
    np.testing.assert_array_equal(matrix, expected)


@numba.njit
def maxima(values: Float32, out: Float32) -> None:
    lane_maxima(values.ctypes.data, len(values) // 32, out.ctypes.data)


@settings(deadline=None)  # the first call compiles
@given(seed=st.integers(0, 10**6), pairs=st.integers(1, 6))
def test_the_maxima_of_lanes_are_those_of_every_32nd_value(seed: int, pairs: int):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(32 * pairs).astype(np.float32)
    values[rng.random(len(values)) < 0.3] = -np.inf
    out = np.full(32, np.nan, np.float32)
    maxima(values, out)
    np.testing.assert_array_equal(out, values.reshape(pairs, 32).max(axis=0))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_aligned_memory_starts_at_a_cache_line(dtype: type):
    for length in (0, 1, 7, 64, 1000):
        room = aligned(length, dtype)
        assert room.dtype == dtype
        assert len(room) == length
        assert length == 0 or room.ctypes.data % 64 == 0
