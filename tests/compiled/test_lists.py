"""Candidate lists against plain Python."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import pytest
from compiled.listing import best, candidate, edges, filled, listed
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import composite

from simdist.compiled.lists import (
    EMPTY,
    PLACES,
    empty_lists,
    enter,
    enter_entries,
    enter_found,
    entered,
    fill_short,
    id_of,
    ids_of,
    joined,
    key_of,
    link,
    packed,
    tail_of,
)
from simdist.types import Array, Float32, Ids

KEYS = [-np.inf, -3.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, np.inf]  # few, so that ties are the rule
LAST_ID = 2**31 - 2

Entry = tuple[int, float]


@numba.njit
def offered(candidates: Ids, lists: Ids) -> Array:
    """Whether each candidate went into the first list, one after another."""
    went_in = np.empty(len(candidates), np.bool_)
    for c in range(len(candidates)):
        went_in[c] = enter(lists.ctypes.data, lists.shape[1], candidates[c])
    return went_in


@numba.njit
def round_trip(keys: Float32, ids: Array) -> Any:
    """Every key and id packed, and what is read of it."""
    candidates = np.empty(len(keys), np.int64)
    read_keys, read_ids = np.empty(len(keys), np.float32), np.empty(len(keys), np.int64)
    for c in range(len(keys)):
        candidates[c] = packed(keys[c], tail_of(ids[c]))
        read_keys[c], read_ids[c] = key_of(candidates[c]), id_of(candidates[c])
    return candidates, read_keys, read_ids


finite = st.floats(width=32, allow_nan=False)


@settings(deadline=None)  # the first call compiles
@given(entries=st.lists(st.tuples(finite, st.integers(0, LAST_ID)), min_size=1, max_size=20))
def test_a_candidate_gives_back_its_key_and_id_and_is_ordered_by_key_then_id(
    entries: list[tuple[float, int]],
):
    keys = np.array([key for key, _ in entries], np.float32)
    ids = np.array([identifier for _, identifier in entries], np.int32)
    candidates, read_keys, read_ids = round_trip(keys, ids)
    assert candidates.tolist() == [candidate(*entry) for entry in entries]
    np.testing.assert_array_equal(read_keys, keys)
    np.testing.assert_array_equal(read_ids, ids)
    np.testing.assert_array_equal(ids_of(candidates), ids)
    by_number = sorted(range(len(keys)), key=lambda c: -candidates[c])
    by_value = sorted(range(len(keys)), key=lambda c: (-keys[c], ids[c]))
    assert by_number == by_value
    assert (candidates & 1 == 1).all()


def test_keys_go_through_bit_for_bit_but_that_both_zeros_are_one():
    special = [0.0, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -3.4028235e38, np.inf, -np.inf]
    keys = np.array([-0.0, *special], np.float32)
    candidates, read, _ = round_trip(keys, np.zeros(len(keys), np.int32))
    np.testing.assert_array_equal(read.view(np.int32)[1:], keys.view(np.int32)[1:])
    assert candidates[0] == candidates[1]
    assert math.copysign(1.0, read[0]) == 1.0


def test_an_empty_place_is_infinitely_far_and_nobody():
    lists = empty_lists(3, 8)
    assert lists.shape == (3, 8)
    assert (lists == EMPTY).all()
    assert EMPTY & 1 == 0
    assert (ids_of(lists) == -1).all()
    assert key_of(EMPTY) == -np.inf
    assert id_of(EMPTY) == 2**31 - 1
    assert candidate(-np.inf, LAST_ID) > EMPTY


@composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """A candidate has one key, whoever offers it."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=30))
    ids = st.integers(0, len(keys) - 1)
    return [(each, keys[each]) for each in draw(st.lists(ids, max_size=60))]


def packed_in(rows: list[list[Entry]], keep: int, *, known: bool = False) -> Ids:
    """Lists that hold some entries."""
    held = [best((candidate(key, each) for each, key in row), keep) for row in rows]
    lists = np.array(held, np.int64).reshape(len(rows), keep)
    if known:
        lists &= -2
    return lists


@settings(deadline=None)  # the first call compiles
@given(
    offers=entries(),
    held=entries(),
    keep=st.sampled_from([PLACES, 2 * PLACES, 3 * PLACES]),
    data=st.data(),
)
def test_a_list_ends_as_its_best_distinct_candidates_in_whatever_order_they_come(
    offers: list[Entry], held: list[Entry], keep: int, data: st.DataObject
):
    keys = dict(held)
    offers = [(each, keys.get(each, key)) for each, key in offers]
    before = packed_in([held, []], keep, known=True)
    numbers = [candidate(key, each) for each, key in offers]
    expected = best([*filled(before[0]), *numbers], keep)
    for order in (numbers, data.draw(st.permutations(numbers)), numbers + numbers):
        lists = before.copy()
        offered(np.array(order, np.int64), lists)
        assert lists[0].tolist() == expected  # what was known stays known
        assert (lists[1] == EMPTY).all()


@settings(deadline=None)  # the first call compiles
@given(offers=entries())
def test_entering_says_whether_the_candidate_went_in(offers: list[Entry]):
    lists = packed_in([[]], PLACES)
    held: list[int] = []
    numbers = [candidate(key, each) for each, key in offers]
    for number, went_in in zip(numbers, offered(np.array(numbers, np.int64), lists), strict=True):
        after = filled(np.array(best([*held, number], PLACES)))
        assert went_in == (after != held)
        held = after


def test_what_is_known_is_not_made_new_by_meeting_it_again():
    lists = packed_in([[(each, -each) for each in range(PLACES)]], PLACES, known=True)
    before = lists.copy()
    again = [candidate(-each, each) for each in range(PLACES)]
    assert not offered(np.array(again, np.int64), lists).any()
    np.testing.assert_array_equal(lists, before)


@settings(deadline=None)  # the first call compiles
@given(rows=st.lists(entries(), min_size=1, max_size=5), width=st.integers(1, 5))
def test_candidates_ids_with_keys_and_found_ones_go_in_alike(rows: list[list[Entry]], width: int):
    keep = PLACES
    expected = packed_in(rows, keep)
    flat = [(row, *entry) for row, held in enumerate(rows) for entry in held]
    flat += [(0, -1, 7.0)] * (-len(flat) % width)  # nobody
    targets = np.array([row for row, _, _ in flat], np.int32)
    ids = np.array([each for _, each, _ in flat], np.int32)
    keys = np.array([key for _, _, key in flat], np.float32)
    numbers = [candidate(key, each) if each >= 0 else EMPTY for _, each, key in flat]

    one_by_one = empty_lists(len(rows), keep)
    entered(targets, np.array(numbers, np.int64).reshape(-1, 1), one_by_one)
    np.testing.assert_array_equal(one_by_one, expected)

    by_key = empty_lists(len(rows), keep)
    enter_entries(targets, ids.reshape(-1, 1), keys.reshape(-1, 1), by_key)
    np.testing.assert_array_equal(by_key, expected)

    by_row = empty_lists(len(rows), keep)
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    enter_found(indptr, ids, keys, by_row)
    np.testing.assert_array_equal(by_row, expected)

    side_by_side = empty_lists(1, keep)
    wide = np.array(numbers, np.int64).reshape(-1, width)
    entered(np.zeros(len(wide), np.int32), wide, side_by_side)
    assert side_by_side[0].tolist() == best(numbers, keep)


def test_what_is_infinitely_far_or_no_number_stays_out():
    ids = np.array([[3, 4, 5, 6, -1]], np.int32)
    keys = np.array([[-np.inf, np.nan, 1.0, -np.float32(np.nan), 9.0]], np.float32)
    lists = empty_lists(1, PLACES)
    enter_entries(np.zeros(1, np.int32), ids, keys, lists)
    enter_found(np.array([0, 4]), ids[0], keys[0], lists)
    entered(np.zeros(1, np.int32), np.full((1, 3), EMPTY, np.int64), lists)
    entered(np.zeros(1, np.int32), np.array([[candidate(-np.inf, 0)]]), lists)
    assert listed(lists) == [[5]]


@settings(deadline=None)  # the first call compiles
@given(rows=st.lists(entries(), min_size=1, max_size=4), width=st.integers(0, 2 * PLACES))
def test_the_first_places_of_every_list_are_joined(rows: list[list[Entry]], width: int):
    lists = packed_in(rows, PLACES)
    before = lists.copy()
    joined(lists, width)
    np.testing.assert_array_equal(lists[:, width:], before[:, width:])
    np.testing.assert_array_equal(lists[:, :width], before[:, :width] & -2)


@composite
def graphs(draw: st.DrawFn) -> tuple[Ids, int]:
    """Lists of a small graph, some of their places new, and a width."""
    rows = draw(st.integers(2, 30))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    lists = empty_lists(rows, draw(st.sampled_from([PLACES, 2 * PLACES])))
    for row in range(rows):
        others = np.delete(np.arange(rows), row)
        chosen = rng.choice(others, rng.integers(0, len(others) + 1), replace=False)
        held = [(int(each), float(rng.choice(KEYS[1:]))) for each in chosen]
        lists[row] = packed_in([held], lists.shape[1])[0]
    known = (lists != EMPTY) & (rng.random(lists.shape) < 0.5)
    lists[known] &= -2
    return lists, draw(st.integers(1, lists.shape[1] + 2))


@settings(deadline=None)  # the first call compiles
@given(graph=graphs())
def test_links_are_neighbours_then_those_that_list_the_row_each_once(graph: tuple[Ids, int]):
    lists, width = graph
    links = np.full((len(lists), 2 * width), 99, np.int32)
    link(lists, *edges(lists, width), width, links)
    near = [
        [-(each + 1) if place & 1 else each + 1 for each, place in zip(ids, row, strict=False)]
        for ids, row in zip(listed(lists), lists[:, :width], strict=True)
    ]
    for row, mine in enumerate(near):
        known = {abs(mark) for mark in mine}
        reverse = [
            -(source + 1) if near[source][slot] < 0 else source + 1
            for slot in range(width)
            for source in range(len(near))
            if slot < len(near[source])
            and abs(near[source][slot]) == row + 1
            and source + 1 not in known
        ]
        expected = mine + reverse[:width]
        assert links[row].tolist() == expected + [0] * (2 * width - len(expected))


@settings(deadline=None)  # the first call compiles
@given(
    seed=st.integers(0, 10**6),
    total=st.integers(2, 30),
    keep=st.sampled_from([PLACES, 2 * PLACES]),
    data=st.data(),
)
def test_short_lists_are_filled_from_beside_the_row(
    seed: int, total: int, keep: int, data: st.DataObject
):
    rng = np.random.default_rng(seed)
    least = data.draw(st.integers(1, min(keep, total - 1)))
    first = data.draw(st.integers(0, total - 1))
    count = data.draw(st.integers(1, total - first))
    held: list[list[Entry]] = []
    for row in range(count):
        others = np.delete(np.arange(total), first + row)
        chosen = rng.choice(others, rng.integers(0, min(keep, len(others)) + 1), replace=False)
        held.append([(int(each), -float(place)) for place, each in enumerate(chosen)])
    lists = packed_in(held, keep)
    before = lists.copy()
    assert fill_short(first, total, lists, least) == sum(len(row) < least for row in held)
    for row, had in enumerate(held):
        position = first + row
        rank = sorted(
            (each for each in range(total) if each != position),
            key=lambda each: min(
                2 * ((each - position) % total) - 1, 2 * ((position - each) % total)
            ),
        )
        beside = [each for each in rank if each not in {known for known, _ in had}]
        fill = beside[: max(0, least - len(had))]
        assert listed(lists[row : row + 1]) == [[each for each, _ in had] + fill]
        np.testing.assert_array_equal(lists[row, : len(had)], before[row, : len(had)])
        assert all(key_of(place) == -np.inf for place in lists[row, len(had) :])


@pytest.mark.parametrize("place", [candidate(2.5, 7), candidate(-2.5, 7, new=False), EMPTY])
def test_kernels_read_candidates_as_plain_python_does(place: int):
    assert ids_of(np.array([place])).tolist() == [-1 if place == EMPTY else 7]
    assert candidate(float(key_of(place)), id_of(place), new=bool(place & 1)) == place
