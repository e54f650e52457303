"""Kernels that give rows to cells against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simdist.compiled.assign import bucket_order, nearest_columns


@settings(deadline=None)  # the first call compiles
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 12),
    columns=st.integers(1, 20),
    wanted=st.integers(1, 9),
    tied=st.booleans(),
)
def test_nearest_columns_are_argsort_with_ties_to_the_lower(
    seed: int, rows: int, columns: int, wanted: int, tied: bool
):
    rng = np.random.default_rng(seed)
    nearness = rng.integers(0, 3, (rows, columns)) if tied else rng.standard_normal((rows, columns))
    nearness = nearness.astype(np.float32)
    terms = rng.integers(-1, 2, columns).astype(np.float32)
    out = np.full((rows, wanted), 77, np.int32)
    nearest_columns(nearness, terms, out)
    order = np.argsort(-(nearness + terms), axis=1, kind="stable")[:, :wanted]
    np.testing.assert_array_equal(out[:, : order.shape[1]], order)
    assert (out[:, order.shape[1] :] == -1).all()


def test_infinitely_far_columns_fill_up_what_is_asked_for():
    out = np.empty((1, 3), np.int32)
    nearness = np.array([[-np.inf, 1.0, -np.inf]], np.float32)
    nearest_columns(nearness, np.zeros(3, np.float32), out)
    assert out.tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@settings(deadline=None)  # the first call compiles
@given(buckets=st.lists(st.integers(-1, 6), max_size=40))
def test_bucket_order_is_a_stable_sort_without_the_negative(dtype: type, buckets: list[int]):
    if dtype is np.uint8:
        buckets = [bucket for bucket in buckets if bucket >= 0]
    order = np.full(len(buckets), -5, np.int64)
    starts = np.empty(8, np.int64)
    bucket_order(np.array(buckets, dtype), 7, order, starts)
    assert starts[0] == 0
    assert starts[-1] == sum(bucket >= 0 for bucket in buckets)
    for bucket in range(7):
        held = order[starts[bucket] : starts[bucket + 1]].tolist()
        assert held == [e for e, b in enumerate(buckets) if b == bucket]
