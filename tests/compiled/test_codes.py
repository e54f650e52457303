"""Codes of rows, and the kernels on them, against numpy's integers and float32."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from compiled.listing import (
    BIAS,
    OFFSET,
    SCALE,
    best,
    candidate,
    coded,
    filled,
    keys_between,
    listed,
    vectors,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import composite

from simdist.compiled.codes import (
    FACTS,
    Room,
    code_nbytes,
    encode,
    leaders_of,
    leaf_top,
)
from simdist.compiled.joins import CodesAt, Named, entered_in, join, name
from simdist.compiled.lists import EMPTY, empty_lists, key_of
from simdist.types import Array, Float32, Ids, Int32

DIMS = st.sampled_from([1, 63, 64, 65, 384, 1024])


@pytest.mark.parametrize(("dim", "nbytes"), [(1, 64), (63, 64), (64, 64), (65, 128), (1024, 1024)])
def test_a_code_takes_whole_cache_lines(dim: int, nbytes: int):
    assert code_nbytes(dim) == nbytes


def top(
    codes: Array,
    facts: Float32,
    rows: Int32,
    width: int,
    *,
    ids: Int32 | None = None,
    room: Room | None = None,
) -> Ids:
    """Best columns of every row of a leaf, descending: the kernel gives them in any order."""
    out = np.full((len(rows), width), 77, np.int64)
    room = room or Room(len(rows), codes.shape[1])
    leaf_top(codes, facts, rows, rows if ids is None else ids, room, out)
    return np.sort(out, axis=1)[:, ::-1]


def check_codes(x: Float32, centre: Array, codes: Array, facts: Float32) -> None:
    """What encode promises: half a step, zeros at the end, and facts that follow from codes."""
    dim = x.shape[1]
    scale = facts[:, SCALE].astype(np.float64)
    gap = np.abs(x.astype(np.float64) - centre - scale[:, None] * codes[:, :dim])
    assert (gap <= scale[:, None] * (0.5 + 1e-5)).all()  # the scale is rounded to float32
    whole = codes.astype(np.int64)
    assert (np.abs(whole).max(axis=1, initial=0) == np.where(scale > 0, 127, 0)).all()
    assert (codes[:, dim:] == 0).all()
    bias = (-0.5 * scale * scale * (whole**2).sum(axis=1)).astype(np.float32)
    np.testing.assert_array_equal(facts[:, BIAS], bias)
    np.testing.assert_array_equal(facts[:, OFFSET].view(np.int32), -128 * whole.sum(axis=1))


@settings(deadline=None)  # the first call compiles
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 70), dim=DIMS, far=st.booleans())
def test_codes_are_at_most_half_a_step_from_their_rows(seed: int, rows: int, dim: int, far: bool):
    rng = np.random.default_rng(seed)
    x = vectors(rng, rows, dim) + np.float32(1000.0 if far else 0.0)
    centre = x.mean(axis=0, dtype=np.float64)
    codes = np.full((rows, code_nbytes(dim)), 99, np.int8)
    facts = np.full((rows, FACTS), np.nan, np.float32)
    encode(x, centre, codes, facts)
    check_codes(x, centre, codes, facts)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -5.0, 1e-20, 1e-36, 1e15, -1e15])
def test_constant_rows_and_those_with_one_value_are_coded(value: float):
    x = np.zeros((3, 65), np.float32)
    x[0, 7] = value
    x[1] = value
    codes, facts = np.empty((3, 128), np.int8), np.empty((3, FACTS), np.float32)
    for centre in (np.zeros(65), np.full(65, 1e-3), x[1].astype(np.float64)):
        encode(x, centre, codes, facts)
        check_codes(x, centre, codes, facts)


@pytest.mark.parametrize("value", [3e-37, 1e-40, 1.4e-45, 180 * 1.4e-45])
def test_rows_whose_steps_would_be_denormal_are_their_centre(value: float):
    x = np.full((2, 3), value, np.float32)
    codes, facts = np.full((2, 64), 99, np.int8), np.empty((2, FACTS), np.float32)
    encode(x, np.zeros(3), codes, facts)
    assert (codes == 0).all()
    assert facts[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("centre", [0.0, 2.0**70, -(2.0**127)])
@pytest.mark.parametrize("value", [1e25, 3e38])
def test_rows_too_long_for_float32_are_infinitely_far_from_others(value: float, centre: float):
    x = np.array([[value, 1.0], [-value, 1.0], [centre, 1.0], [centre, 2.0]], np.float32)
    codes, facts = np.empty((4, 64), np.int8), np.empty((4, FACTS), np.float32)
    encode(x, np.array([centre, 0.0]), codes, facts)
    assert listed(top(codes, facts, np.arange(4, dtype=np.int32), 8)) == [[], [], [3], [2]]


@pytest.mark.parametrize("centre", [0.0, -(2.0**127)])
def test_rows_infinitely_far_leave_the_others_of_a_large_leaf_as_they_are(centre: float):
    rng = np.random.default_rng(9)
    x = vectors(rng, 100, 3)
    x[:, 0] += np.float32(centre)
    far = rng.permutation(100)[:30]
    x[far, 1] = np.where(np.arange(30) % 2, 3e38, 1e25)
    codes, facts = np.empty((100, 64), np.int8), np.empty((100, FACTS), np.float32)
    encode(x, np.array([centre, 0.0, 0.0]), codes, facts)
    near = np.setdiff1d(np.arange(100), far).astype(np.int32)
    found = top(codes, facts, np.arange(100, dtype=np.int32), 10)
    assert (found[far] == EMPTY).all()
    np.testing.assert_array_equal(found[near], top(codes, facts, near, 10))


def test_rows_are_read_where_they_lie_and_left_as_they_are():
    x = vectors(np.random.default_rng(4), 9, 20)
    expected = coded(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    strided = np.repeat(x, 2, axis=0)[::2]
    for rows in (frozen, strided, np.asfortranarray(x)):
        for found, wanted in zip(coded(rows), expected, strict=True):
            np.testing.assert_array_equal(found.view(np.int8), wanted.view(np.int8))
    np.testing.assert_array_equal(frozen, x)


@settings(deadline=None)  # the first call compiles
@given(seed=st.integers(0, 10**6), dim=DIMS)
def test_keys_are_minus_half_the_squared_distance_of_what_is_coded(seed: int, dim: int):
    rng = np.random.default_rng(seed)
    codes, facts = coded(vectors(rng, 12, dim))
    x = facts[:, SCALE].astype(np.float64)[:, None] * codes
    expected = -0.5 * ((x[:, None] - x) ** 2).sum(axis=-1)
    size = float((x**2).sum(axis=1).max())
    np.testing.assert_allclose(keys_between(codes, facts), expected, atol=1e-6 * size)


def kept(keys: Float32, ids: Int32, width: int) -> list[list[int]]:
    """Every row's best others by keys [m, m], ties to the smaller id."""
    size = len(ids)
    return [
        best((candidate(keys[i, j], int(ids[j])) for j in range(size) if j != i), width)
        for i in range(size)
    ]


@settings(deadline=None, max_examples=60)  # the first call compiles
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 140),
    width=st.integers(1, 40),
    dim=DIMS,
    kinds=st.sampled_from([0, 0, 1, 3]),
)
@example(seed=1, size=64, width=10, dim=5, kinds=0)
@example(seed=1, size=65, width=24, dim=5, kinds=0)
@example(seed=1, size=97, width=25, dim=5, kinds=0)
@example(seed=1, size=128, width=10, dim=5, kinds=2)
def test_leaf_top_is_each_rows_best_others_with_ties_to_the_smaller_id(
    seed: int, size: int, width: int, dim: int, kinds: int
):
    rng = np.random.default_rng(seed)
    codes, facts = coded(vectors(rng, size + 5, dim, kinds=kinds))
    rows = rng.permutation(size + 5)[:size].astype(np.int32)
    ids = rng.choice(2**31 - 1, size, replace=False).astype(np.int32)
    found = top(codes, facts, rows, width, ids=ids)
    assert found.tolist() == kept(keys_between(codes[rows], facts[rows]), ids, width)


def test_a_room_serves_tiles_of_every_size_it_has_room_for():
    rng = np.random.default_rng(8)
    codes, facts = coded(vectors(rng, 100, 70))
    keys = keys_between(codes, facts)
    room = Room(100, codes.shape[1])
    for size in (100, 3, 33, 1, 64):  # what a larger tile left behind does no harm
        rows = rng.permutation(100)[:size].astype(np.int32)
        found = top(codes, facts, rows, 6, room=room)
        assert found.tolist() == kept(keys[np.ix_(rows, rows)], rows, 6)


@settings(deadline=None, max_examples=60)  # the first call compiles
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 40),
    count=st.integers(1, 70),
    dim=DIMS,
    kinds=st.sampled_from([0, 3]),
    data=st.data(),
)
def test_leaders_are_the_nearest_with_ties_to_the_lower(
    seed: int, rows: int, count: int, dim: int, kinds: int, data: st.DataObject
):
    rng = np.random.default_rng(seed)
    codes, facts = coded(vectors(rng, 80, dim, kinds=kinds))
    mine = rng.integers(0, 80, rows).astype(np.int32)
    leaders = rng.permutation(80)[:count].astype(np.int32)
    width = data.draw(st.integers(1, min(count, 4)))
    out = np.full((rows, width), 77, np.int32)
    leaders_of(codes, facts, mine, leaders, Room(count, codes.shape[1]), out)
    dots = codes[mine].astype(np.int64) @ codes[leaders].astype(np.int64).T
    scales = facts[mine, SCALE][:, None] * facts[leaders, SCALE]
    keys = scales * dots.astype(np.float32) + facts[leaders, BIAS]
    np.testing.assert_array_equal(out, np.argsort(-keys, axis=1, kind="stable")[:, :width])


def test_leaders_that_are_infinitely_far_come_last_and_once():
    x = np.array([[1.0], [1e25], [2.0], [-1e25]], np.float32)
    codes, facts = np.empty((4, 64), np.int8), np.empty((4, FACTS), np.float32)
    encode(x, np.zeros(1), codes, facts)
    out = np.empty((1, 3), np.int32)
    for leaders, expected in (([1, 2, 3], [1, 0, 2]), ([3, 1, 0], [2, 0, 1])):
        chosen = np.array(leaders, np.int32)
        leaders_of(codes, facts, np.zeros(1, np.int32), chosen, Room(3, 64), out)
        assert out.tolist() == [expected]


@composite
def linked(draw: st.DrawFn, *, most: int = 70) -> tuple[Int32, int]:
    """Links over some positions: distinct in a row, any of them new, 0 at the end."""
    total = draw(st.integers(2, 90))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    links = np.zeros((draw(st.integers(1, 12)), draw(st.integers(1, most))), np.int32)
    share = draw(st.sampled_from([0.1, 0.5, 1.0]))
    for row in links:
        count = rng.integers(0, min(len(row), total) + 1)
        chosen = rng.permutation(total)[:count] + 1
        row[:count] = np.where(rng.random(count) < share, -chosen, chosen)
    return links, total


def named(first: int, links: Int32) -> list[int]:
    """Positions in the order that rows and their links name them."""
    marks = [m for r, row in enumerate(links) for m in (first + r + 1, *row[row != 0].tolist())]
    return list(dict.fromkeys(abs(mark) - 1 for mark in marks))


def numbered(links: Int32, first: int) -> tuple[Int32, Named]:
    """Links numbered by the kernel, and what they name; the rows begin at position `first`."""
    links = links.copy()
    found = name(first, links, links.size + len(links))
    assert len(found.own) == len(links)
    return links, found


@settings(deadline=None)  # the first call compiles
@given(graph=linked(), first=st.integers(0, 40))
def test_rows_are_numbered_as_they_are_named_and_links_stay_new_or_not(
    graph: tuple[Int32, int], first: int
):
    links, _ = graph
    found, among = numbered(links, first)
    assert among.positions.tolist() == named(first, links)
    np.testing.assert_array_equal(among.positions[among.own], first + np.arange(len(links)))
    back = np.append(among.positions, -1)[np.abs(found) - 1] + 1
    np.testing.assert_array_equal(np.sign(found) * back, links)


@settings(deadline=None)  # the first call compiles
@given(graph=linked(), most=st.integers(1, 60))
def test_numbering_stops_at_the_row_after_which_more_than_asked_are_named(
    graph: tuple[Int32, int], most: int
):
    links, total = graph
    found = links.copy()
    among = name(total, found, most)
    done = len(among.own)
    assert 1 <= done <= len(links)
    assert among.positions.tolist() == named(total, links[:done])
    np.testing.assert_array_equal(found[done:], links[done:])
    assert done == len(links) or len(among.positions) > most
    assert len(named(total, links[: done - 1])) <= most


def lists_among(rng: np.random.Generator, keys: Float32, positions: Int32, keep: int) -> Ids:
    """Lists that hold some of the positions' other rows already, none new."""
    lists = empty_lists(len(keys), keep)
    for row in range(len(keys)):
        others = np.delete(np.arange(len(keys)), row)
        chosen = others[rng.random(len(others)) < rng.choice([0.0, 0.1, 0.6])]
        lists[row] = best(
            (candidate(keys[row, j], int(positions[j]), new=False) for j in chosen), keep
        )
    return lists


def pairs_of(row: Iterable[int]) -> list[tuple[int, int]]:
    """Pairs that one row's links say to compare, by number."""
    marks = [int(mark) for mark in row if mark != 0]
    return [
        (abs(a) - 1, abs(b) - 1)
        for place, a in enumerate(marks)
        for b in marks[place + 1 :]
        if a < 0 or b < 0
    ]


def joined_by_hand(
    links: Int32, positions: Int32, keys: Float32, lists: Ids
) -> tuple[list[list[int]], int]:
    """Lists after all pairs were offered to both sides, and how many pairs there were."""
    offers = [filled(row) for row in lists]
    pairs = [pair for row in links for pair in pairs_of(row)]
    for a, b in pairs:
        offers[a].append(candidate(keys[a, b], int(positions[b])))
        offers[b].append(candidate(keys[a, b], int(positions[a])))
    return [best(offer, lists.shape[1]) for offer in offers], len(pairs)


@settings(deadline=None, max_examples=60)  # the first call compiles
@given(
    graph=linked(),
    seed=st.integers(0, 10**6),
    dim=DIMS,
    kinds=st.sampled_from([0, 0, 3]),
    keep=st.sampled_from([8, 24]),
)
def test_a_join_compares_the_links_of_every_row_where_one_is_new(
    graph: tuple[Int32, int], seed: int, dim: int, kinds: int, keep: int
):
    links, among = numbered(graph[0], graph[1])
    positions = among.positions
    rng = np.random.default_rng(seed)
    codes, facts = coded(vectors(rng, graph[1] + len(links), dim, kinds=kinds))
    codes, facts = codes[positions], facts[positions]
    keys = keys_between(codes, facts)
    lists = lists_among(rng, keys, positions, keep)
    expected, pairs = joined_by_hand(links, positions, keys, lists)
    room = Room(links.shape[1], codes.shape[1])
    assert join(links, among, CodesAt.of(codes), facts, room, lists, 0) == pairs
    assert lists.tolist() == expected


def test_a_row_that_nobody_lists_meets_those_that_its_nearest_neighbours_list():
    rng = np.random.default_rng(3)
    total, keep, width = 60, 8, 6
    codes, facts = coded(vectors(rng, total, 30))
    keys = keys_between(codes, facts)
    lists = empty_lists(total, keep)
    for row in range(total):
        others = rng.permutation(np.delete(np.arange(total), row))[:width]
        lists[row] = best((candidate(keys[row, j], int(j), new=False) for j in others), keep)
    mine = [place for place in listed(lists[:1])[0] if place >= 0][:width]
    links = np.zeros((1, 2 * width), np.int32)
    links[0, : len(mine)] = [-(place + 1) for place in mine]  # its own neighbours, and no source
    numbered_links, among = numbered(links, 0)
    seen = among.positions
    theirs = lists[seen].copy()
    expected = filled(lists[0])
    for asked in mine[:5]:
        for other in listed(lists[asked : asked + 1])[0][:width]:
            if other in set(seen.tolist()) - {0}:
                expected.append(candidate(keys[0, other], int(other)))
    theirs_codes = codes[seen]
    room = Room(20, codes.shape[1])
    join(numbered_links, among, CodesAt.of(theirs_codes), facts[seen], room, theirs, width)
    assert theirs[among.own[0]].tolist() == best(expected, keep)
    assert not set(expected) <= set(filled(lists[0]))


def test_a_join_of_more_pairs_than_it_remembers_misses_none():
    rng = np.random.default_rng(12)
    links = np.stack([rng.permutation(400)[:90] for _ in range(60)]).astype(np.int32) + 1
    links[:, ::2] *= -1
    links, among = numbered(links, 400)
    positions = among.positions
    codes, facts = coded(vectors(rng, 460, 20))
    codes, facts = codes[positions], facts[positions]
    keys = keys_between(codes, facts)
    lists = empty_lists(len(positions), 16)
    expected, pairs = joined_by_hand(links, positions, keys, lists)
    assert pairs > 10 * (1 << 14)
    room = Room(90, codes.shape[1])
    assert join(links, among, CodesAt.of(codes), facts, room, lists, 0) == pairs
    assert lists.tolist() == expected


def test_what_a_join_found_is_what_is_new_list_by_list():
    positions = np.array([7, 3, 5], np.int32)
    new, known = candidate(-1.0, 3), candidate(-2.0, 9, new=False)
    lists = np.array(
        [[new, known], [known, EMPTY], [new, candidate(-3.0, 4)]],
        np.int64,
    )
    rows, found = entered_in(positions, lists)
    assert rows.tolist() == [7, 5, 5]
    assert found.tolist() == [new, new, candidate(-3.0, 4)]


@pytest.mark.parametrize("dim", [1, 65, 1024])
def test_a_pair_has_one_key_whoever_computes_it(dim: int):
    rng = np.random.default_rng(dim)
    total = 90
    codes, facts = coded(vectors(rng, total, dim, kinds=60))
    seen: dict[tuple[int, int], set[int]] = {}

    def see(rows: Int32, lists: Ids) -> None:
        for row, held, ids in zip(rows.tolist(), lists, listed(lists), strict=True):
            for other, place in zip(ids, held.tolist(), strict=False):
                pair = (min(row, other), max(row, other))
                seen.setdefault(pair, set()).add(place >> 32)

    every = np.arange(total, dtype=np.int32)
    room = Room(total, codes.shape[1])
    for size in (total, 70, 33, 16, 5):
        rows = rng.permutation(total)[:size].astype(np.int32)
        see(rows, top(codes, facts, rows, total, room=room))
        lists = empty_lists(total, 96)
        links = np.where(rng.random(size) < 0.5, rows + 1, -rows - 1).astype(np.int32)[None]
        among = Named(every, rows[:1], np.full(2, -1, np.int32), np.zeros(2, np.int32))
        join(links, among, CodesAt.of(codes), facts, room, lists, 0)
        see(every, lists)
    assert len(seen) == total * (total - 1) // 2
    assert all(len(keys) == 1 for keys in seen.values())
    expected = keys_between(codes, facts)
    for (a, b), keys in seen.items():
        assert key_of(keys.pop() << 32) == expected[a, b]
