"""Lengths of rows, and rows of length one."""

from __future__ import annotations

import numpy as np
import pytest

from simdist.compiled.norms import square_lengths, unit_rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [1, 7, 384])
def test_squares_add_up_in_float64(dtype: type, dim: int):
    rows = np.random.default_rng(0).standard_normal((50, dim)).astype(dtype)
    expected = (rows.astype(np.float64) ** 2).sum(axis=1)
    np.testing.assert_allclose(square_lengths(rows), expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_divided_in_the_precision_they_come_in(dtype: type):
    rows = np.random.default_rng(1).standard_normal((200, 33)).astype(dtype)
    vectors, lengths = unit_rows(rows)
    np.testing.assert_allclose(lengths, np.linalg.norm(rows.astype(np.float64), axis=1), rtol=1e-14)
    expected = (rows / lengths.astype(dtype)[:, None]).astype(np.float32)
    np.testing.assert_array_equal(vectors, expected)


def test_a_row_of_zeros_and_one_too_long_divide_nothing_else():
    rows = np.array([[0.0, 0.0], [3.0, 4.0], [3e38, 3e38]], np.float32)
    vectors, lengths = unit_rows(rows)
    assert lengths[:2].tolist() == [0.0, 5.0]
    assert np.isnan(vectors[0]).all()
    np.testing.assert_allclose(vectors[1], [0.6, 0.8], rtol=1e-7)
    assert vectors[2].tolist() == [0.0, 0.0]  # its length is no float32


def test_rows_may_be_any_view():
    rows = np.random.default_rng(2).standard_normal((40, 12)).astype(np.float32)
    view = rows[::3, ::-1]
    view.flags.writeable = False
    np.testing.assert_array_equal(unit_rows(view)[0], unit_rows(np.ascontiguousarray(view))[0])
