"""Kernels of the k-NN graph for measures without codes, and the order of a finished list."""

from __future__ import annotations

import numpy as np
import pytest
from compiled.listing import best, blocked, candidate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import composite

from simdist.compiled.graph import CANDIDATES, score, sort_lists, tile_top, walk
from simdist.types import Array, Int32


@settings(deadline=None)  # the first call compiles
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 70),
    width=st.integers(1, 40),
    tied=st.booleans(),
)
def test_tile_top_is_each_rows_best_others_with_ties_to_the_smaller_id(
    seed: int, size: int, width: int, tied: bool
):
    rng = np.random.default_rng(seed)
    shape = (size, size)
    some = np.array([-np.inf, np.nan, -5.0, -0.0, 0.0, 2.0])
    nearness = rng.choice(some, shape) if tied else rng.standard_normal(shape)
    members = rng.choice(10_000, size, replace=False).astype(np.int32)
    out = np.full((size, width), 77, np.int64)
    tile_top(nearness.astype(np.float32), members, out)
    for i in range(size):
        others = [
            candidate(float(np.float32(nearness[i, j])), int(members[j]))
            for j in range(size)
            if j != i and nearness[i, j] > -np.inf
        ]
        assert out[i].tolist() == best(others, width)


@composite
def graphs(draw: st.DrawFn) -> tuple[Int32, Int32]:
    """Lists of a small graph, -1 where there are fewer, and links of its rows."""
    rows = draw(st.integers(2, 14))
    width = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    ids = np.full((rows, draw(st.integers(1, 5))), -1, np.int32)
    links = np.zeros((rows, 2 * width), np.int32)
    for row in range(rows):
        others = rng.permutation(np.delete(np.arange(rows), row))
        held = rng.integers(0, min(ids.shape[1], len(others)) + 1)
        ids[row, :held] = others[:held]
        count = rng.integers(0, min(2 * width, len(others)) + 1)
        links[row, :count] = (rng.permutation(others)[:count] + 1) * rng.choice([-1, 1], count)
    return ids, links


def theirs_of(mine: Array, links: Array) -> Array:
    """The links of whoever each link leads to."""
    return links[np.maximum(np.abs(mine) - 1, 0)]


@settings(deadline=None)  # the first call compiles
@given(graph=graphs())
def test_walk_finds_everyone_over_two_links_one_of_them_new(graph: tuple[Int32, Int32]):
    ids, links = graph
    first, last = 1, len(ids)
    indptr = np.empty(last - first + 1, np.int64)
    found = np.empty((last - first) * CANDIDATES, np.int32)
    walk(first, ids[first:], links[first:], theirs_of(links[first:], links), indptr, found)
    for row in range(first, last):
        reached: list[int] = []
        for mine in links[row][links[row] != 0]:
            theirs = links[abs(mine) - 1]
            for other in theirs[theirs != 0]:
                there = abs(int(other)) - 1
                new = mine < 0 or other < 0
                known = there == row or there in ids[row] or there in reached
                if new and not known:
                    reached.append(there)
        mine_found = found[indptr[row - first] : indptr[row - first + 1]]
        assert mine_found.tolist() == reached


@pytest.mark.parametrize("kept", [4, 3000, 9000])
def test_walk_stops_at_its_candidates_and_takes_lists_of_any_length(kept: int):
    rows, width = 2 * CANDIDATES + 500, 150
    rng = np.random.default_rng(5)
    links = -(1 + rng.integers(0, rows, (rows, 2 * width)).astype(np.int32))
    ids = np.full((3, kept), -1, np.int32)
    known = rng.permutation(rows - 3)[: min(kept, 1000)] + 3
    ids[:, : len(known)] = known
    indptr, found = np.empty(4, np.int64), np.empty(3 * CANDIDATES, np.int32)
    walk(0, ids, links[:3], theirs_of(links[:3], links), indptr, found)
    for row in range(3):
        mine = found[indptr[row] : indptr[row + 1]]
        assert len(mine) == CANDIDATES
        assert len(np.unique(mine)) == CANDIDATES
        assert not np.isin(mine, known).any()
        assert row not in mine


def scored(
    x: Array, terms: Array | None, rows: Array, found: Array, block_rows: int, keys: Array
) -> None:
    """Keys of listed pairs, block by block, as a walk has them."""
    vectors = blocked(x, block_rows)
    no_terms = np.zeros(len(x), np.float32)
    offsets = blocked(no_terms if terms is None else terms, block_rows)
    own, own_terms = x.ctypes.data, 0 if terms is None else terms.ctypes.data
    for block, chosen in vectors.visits(found):
        first = block * block_rows
        column = int(vectors.addresses[block]) - 4 * x.shape[1] * first
        column_terms = 0 if terms is None else int(offsets.addresses[block]) - 4 * first
        score(chosen, rows, found, own, own_terms, column, column_terms, x.shape[1], keys)


@settings(deadline=None)  # the first call compiles
@given(
    seed=st.integers(0, 10**6),
    dim=st.integers(1, 70),
    shift=st.integers(0, 5),
    with_terms=st.booleans(),
)
def test_score_is_the_dot_product_and_both_terms(seed: int, dim: int, shift: int, with_terms: bool):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, dim)).astype(np.float32)
    terms = rng.standard_normal(40).astype(np.float32)
    rows, found = rng.integers(0, 40, (2, 100)).astype(np.int32)
    keys = np.empty(100, np.float32)
    scored(x, terms if with_terms else None, rows, found, 1 << shift, keys)
    expected = (x[rows].astype(np.float64) * x[found]).sum(axis=1)
    if with_terms:
        expected += terms[rows].astype(np.float64) + terms[found]
    np.testing.assert_allclose(keys, expected, rtol=1e-5, atol=1e-5 * dim)


def test_equal_rows_score_equal_wherever_they_lie():
    rng = np.random.default_rng(3)
    kinds = rng.standard_normal((3, 53)).astype(np.float32)
    member = rng.integers(0, 3, 64)
    rows, found = (side.ravel().astype(np.int32) for side in np.indices((64, 64)))
    keys = np.empty(64 * 64, np.float32)
    scored(kinds[member], None, rows, found, 8, keys)
    for i in range(3):
        for j in range(3):
            same = keys.reshape(64, 64)[np.ix_(member == i, member == j)]
            assert len(np.unique(same)) == 1


@settings(deadline=None)  # the first call compiles
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 8), width=st.integers(1, 12))
def test_lists_are_sorted_by_value_then_number(seed: int, rows: int, width: int):
    rng = np.random.default_rng(seed)
    values = rng.choice(np.array([-1.0, 0.0, 2.0, np.inf], np.float32), (rows, width))
    numbers = np.stack([rng.permutation(100)[:width] for _ in range(rows)]).astype(np.int64)
    ids = (numbers * 7 % 101).astype(np.int32)
    order = np.lexsort((numbers, values), axis=-1)
    expected = [np.take_along_axis(a, order, axis=1) for a in (values, numbers, ids)]
    sort_lists(values, numbers, ids)
    for found, wanted in zip((values, numbers, ids), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
