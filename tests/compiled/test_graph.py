"""Kernels of the k-NN graph against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from compiled.listing import Entry, best, blocked, empty_lists
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import composite

from simdist.compiled.graph import (
    CANDIDATES,
    fill_short,
    insert_entries,
    insert_found,
    leaf_top,
    link,
    mark_fresh,
    score,
    sort_lists,
    walk,
)
from simdist.types import Array

KEYS = [-np.inf, -3.0, -1.0, 0.0, 0.5, 1.0, 2.0]  # few, so that ties are the rule


@composite
def entries(draw: st.DrawFn) -> list[Entry]:
    pairs = st.tuples(st.integers(-1, 8), st.sampled_from(KEYS))
    return draw(st.lists(pairs, max_size=24))


def inserted(order: list[Entry], width: int, *, row: int = 0) -> tuple[Array, Array]:
    """The list of one row among others after inserting entries one by one."""
    ids, keys = empty_lists(row + 2, width)
    rows = np.full(len(order), row, np.int32)
    offered = np.array([candidate for candidate, _ in order], np.int32).reshape(-1, 1)
    values = np.array([key for _, key in order], np.float32).reshape(-1, 1)
    insert_entries(rows, offered, values, ids, keys)
    untouched = np.delete(ids, row, axis=0)
    assert (untouched == -1).all()
    return ids[row], keys[row]


@settings(deadline=None)  # the first call compiles
@given(offered=entries(), width=st.integers(1, 6), data=st.data())
def test_a_list_ends_the_same_in_whatever_order_entries_come(
    offered: list[Entry], width: int, data: st.DataObject
):
    expected = best(offered, width)
    for order in (offered, data.draw(st.permutations(offered)), offered + offered):
        ids, keys = inserted(order, width, row=1)
        assert (ids.tolist(), keys.tolist()) == expected


def test_what_is_infinitely_far_or_no_number_stays_out():
    ids, keys = inserted([(3, -np.inf), (4, np.nan), (5, 1.0), (6, np.nan)], 3)
    assert ids.tolist() == [5, -1, -1]
    assert keys.tolist() == [1.0, -np.inf, -np.inf]


@settings(deadline=None)  # the first call compiles
@given(offered=entries(), width=st.integers(1, 6))
def test_found_candidates_go_in_as_entries_do(offered: list[Entry], width: int):
    offered = [entry for entry in offered if entry[0] >= 0]
    ids, keys = empty_lists(2, width)
    found = np.array([candidate for candidate, _ in offered], np.int32)
    values = np.array([key for _, key in offered], np.float32)
    insert_found(np.array([0, 0, len(offered)]), found, values, ids, keys)
    assert (ids[1].tolist(), keys[1].tolist()) == best(offered, width)
    assert (ids[0] == -1).all()


@settings(deadline=None)  # the first call compiles
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 150),
    width=st.integers(1, 40),
    tied=st.booleans(),
)
def test_leaf_top_is_argsort_without_the_diagonal(seed: int, size: int, width: int, tied: bool):
    rng = np.random.default_rng(seed)
    if tied:
        nearness = rng.integers(0, 3, (size, size)).astype(np.float32)
        terms = rng.integers(0, 2, size).astype(np.float32)
    else:
        nearness = rng.standard_normal((size, size)).astype(np.float32)
        terms = rng.standard_normal(size).astype(np.float32)
    members = np.sort(rng.choice(10_000, size, replace=False)).astype(np.int32)
    ids, keys = empty_lists(size, width)
    leaf_top(nearness, terms, members, ids, keys)
    key = nearness + terms
    np.fill_diagonal(key, -np.inf)
    order = np.argsort(-key, axis=1, kind="stable")[:, : min(width, size - 1)]
    count = order.shape[1]
    np.testing.assert_array_equal(ids[:, :count], members[order])
    expected = np.take_along_axis(key, order, axis=1) + terms[:, None]
    np.testing.assert_array_equal(keys[:, :count], expected)
    assert (ids[:, count:] == -1).all()
    assert (keys[:, count:] == -np.inf).all()


def test_leaf_top_keeps_negative_similarities():
    nearness = np.full((70, 70), -5.0, np.float32)
    ids, keys = empty_lists(70, 4)
    leaf_top(nearness, np.zeros(70, np.float32), np.arange(70, dtype=np.int32), ids, keys)
    assert ids[0].tolist() == [1, 2, 3, 4]
    assert ids[2].tolist() == [0, 1, 3, 4]
    assert (keys == -5.0).all()


@composite
def graphs(draw: st.DrawFn) -> tuple[Array, Array, int]:
    """Lists of a small graph and which entries are fresh, and a width."""
    rows = draw(st.integers(2, 14))
    width = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    ids, _ = empty_lists(rows, width)
    for row in range(rows):
        others = np.delete(np.arange(rows), row)
        chosen = rng.choice(others, min(width, rng.integers(0, len(others) + 1)), replace=False)
        ids[row, : len(chosen)] = chosen
    fresh = rng.integers(0, 2, ids.shape).astype(np.uint8)
    return ids, fresh, draw(st.integers(1, 6))


def linked(ids: Array, fresh: Array, width: int) -> Array:
    """Links by the kernel, sources by (slot, row) as a links task gives them."""
    near = [
        (int(ids[row, slot]), slot, row)
        for row in range(len(ids))
        for slot in range(min(width, ids.shape[1]))
        if ids[row, slot] >= 0
    ]
    near.sort()
    sources = np.array([row for _, _, row in near], np.int32)
    flags = np.array([fresh[row, slot] for _, slot, row in near], np.uint8)
    starts = np.searchsorted([target for target, _, _ in near], np.arange(len(ids) + 1))
    links = np.full((len(ids), 2 * width), 99, np.int32)
    link(ids, fresh, sources, starts.astype(np.int64), flags, width, links)
    return links


@settings(deadline=None)  # the first call compiles
@given(graph=graphs())
def test_links_are_neighbours_then_those_that_list_the_row_each_once(
    graph: tuple[Array, Array, int],
):
    ids, fresh, width = graph
    links = linked(ids, fresh, width)
    for row in range(len(ids)):
        forward = [
            (int(target), bool(new))
            for target, new in zip(ids[row, :width], fresh[row, :width], strict=True)
            if target >= 0
        ]
        known = {target for target, _ in forward}
        reverse = [
            (source, bool(fresh[source, slot]))
            for slot in range(min(width, ids.shape[1]))
            for source in range(len(ids))
            if ids[source, slot] == row and source not in known
        ][:width]
        expected = [-(j + 1) if new else j + 1 for j, new in forward + reverse]
        assert links[row, : len(expected)].tolist() == expected
        assert (links[row, len(expected) :] == 0).all()


def theirs_of(mine: Array, links: Array) -> Array:
    """The links of whoever each link leads to."""
    return links[np.maximum(np.abs(mine) - 1, 0)]


@settings(deadline=None)  # the first call compiles
@given(graph=graphs())
def test_walk_finds_everyone_over_two_links_one_of_them_new(graph: tuple[Array, Array, int]):
    ids, fresh, width = graph
    links = linked(ids, fresh, width)
    first, last = 1, len(ids)
    indptr = np.empty(last - first + 1, np.int64)
    found = np.empty((last - first) * CANDIDATES, np.int32)
    walk(first, ids[first:], links[first:], theirs_of(links[first:], links), indptr, found)
    for row in range(first, last):
        reached: list[int] = []
        for mine in links[row][links[row] != 0]:
            theirs = links[abs(mine) - 1]
            for other in theirs[theirs != 0]:
                candidate = abs(int(other)) - 1
                new = mine < 0 or other < 0
                known = candidate == row or candidate in ids[row] or candidate in reached
                if new and not known:
                    reached.append(candidate)
        mine_found = found[indptr[row - first] : indptr[row - first + 1]]
        assert mine_found.tolist() == reached


@pytest.mark.parametrize("kept", [4, 3000, 9000])
def test_walk_stops_at_its_candidates_and_takes_lists_of_any_length(kept: int):
    rows, width = 2 * CANDIDATES + 500, 150
    rng = np.random.default_rng(5)
    links = -(1 + rng.integers(0, rows, (rows, 2 * width)).astype(np.int32))
    ids, _ = empty_lists(3, kept)
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
    """Keys of listed pairs, block by block, as a join has them."""
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
@given(graph=graphs(), other=graphs(), joined=st.integers(0, 5))
def test_an_entry_is_fresh_until_it_has_been_joined(
    graph: tuple[Array, Array, int], other: tuple[Array, Array, int], joined: int
):
    rows, width = min(len(graph[0]), len(other[0])), min(graph[0].shape[1], other[0].shape[1])
    before, before_fresh = (np.ascontiguousarray(a[:rows, :width]) for a in graph[:2])
    ids = np.ascontiguousarray(other[0][:rows, :width])
    fresh = np.full(ids.shape, 7, np.uint8)
    mark_fresh(before, before_fresh, joined, ids, fresh)
    for row in range(rows):
        for slot in range(width):
            held = ids[row, slot]
            if held < 0:
                expected = 0
            elif held in before[row]:
                place = before[row].tolist().index(held)
                expected = before_fresh[row, place] if place >= joined else 0
            else:
                expected = 1
            assert fresh[row, slot] == expected


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


@settings(deadline=None)  # the first call compiles
@given(
    seed=st.integers(0, 10**6),
    total=st.integers(2, 30),
    width=st.integers(1, 12),
    data=st.data(),
)
def test_short_lists_are_filled_from_beside_the_row(
    seed: int, total: int, width: int, data: st.DataObject
):
    rng = np.random.default_rng(seed)
    least = data.draw(st.integers(1, min(width, total - 1)))
    first = data.draw(st.integers(0, total - 1))
    count = data.draw(st.integers(1, total - first))
    ids, keys = empty_lists(count, width)
    for r in range(count):
        others = np.delete(np.arange(total), first + r)
        held = rng.integers(0, min(width, len(others)) + 1)
        ids[r, :held] = rng.choice(others, held, replace=False)
        keys[r, :held] = -np.arange(held)
    before = ids.copy()
    short = fill_short(first, total, ids, keys, least)
    assert short == ((before >= 0).sum(axis=1) < least).sum()
    for r in range(count):
        filled = ids[r][ids[r] >= 0]
        held = (before[r] >= 0).sum()
        assert len(filled) == max(held, least)
        assert len(set(filled.tolist())) == len(filled)
        assert first + r not in filled
        assert filled.max(initial=0) < total
        np.testing.assert_array_equal(filled[:held], before[r, :held])
        assert (keys[r, held:] == -np.inf).all()
        if held == 0 and least == 1:
            assert filled[0] == (first + r + 1) % total
