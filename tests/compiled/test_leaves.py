"""Cells cut into leaves, against what the words of simdist.compiled.leaves promise."""

from __future__ import annotations

import numpy as np
import pytest
from compiled.listing import coded, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from simdist.compiled.codes import Room, leaders_of, leaf_top
from simdist.compiled.leaves import cell_leaves, draw, leader_count, parted, random_state
from simdist.types import Array, Float32, Ids, Int32


def folded(
    rows: int, dim: int, *, most: int, fanout: int = 2, kinds: int = 0, seed: int = 1
) -> tuple[list[Int32], list[Ids]]:
    """Rows of every leaf and their candidates, as the kernel gives them."""
    codes, facts = coded(vectors(np.random.default_rng(rows), rows, dim, kinds=kinds))
    room = Room(max(most, leader_count(rows, most)), codes.shape[1])
    members = np.arange(0, 10 * rows, 10, dtype=np.int32)
    found, candidates, leaves, entries = cell_leaves(
        codes, facts, members, room, random_state(seed), fanout=fanout, most=most, width=5
    )
    expected = one_by_one(codes, facts, room, random_state(seed), fanout, most)
    sizes = [len(leaf) for leaf in expected]
    np.testing.assert_array_equal(found, 10 * np.concatenate(expected))
    assert (leaves, entries) == (len(sizes), sum(size**2 for size in sizes))
    return expected, np.split(candidates, np.cumsum(sizes)[:-1])


def one_by_one(
    codes: Array, facts: Float32, room: Room, random: Array, fanout: int, most: int
) -> list[Int32]:
    """Leaves of a cell: the last span found that is too large is cut next."""
    leaves, waiting = [], [(np.arange(len(codes), dtype=np.int32), fanout)]
    while waiting:
        rows, joins = waiting.pop()
        if len(rows) <= most:
            leaves.append(rows)
            continue
        leaders = draw(rows, leader_count(len(rows), most), random)
        near = np.empty((len(rows), min(joins, len(leaders))), np.int32)
        leaders_of(codes, facts, rows, leaders, room, near)
        cut = np.empty(near.size, np.int32)
        spans = np.empty((near.size // 2 + 2, 2), np.int64)
        parts = [cut[a:b] for a, b in spans[: parted(near, most, random, rows, cut, spans)]]
        leaves += [part for part in parts if len(part) <= most]
        waiting += [(part, 1) for part in parts if len(part) > most]
    return leaves


@pytest.mark.parametrize(
    ("rows", "most"), [(2, 8), (8, 8), (9, 8), (500, 8), (500, 60), (400, 1024)]
)
def test_nearly_every_row_is_in_a_leaf_and_no_leaf_is_larger_than_asked(rows: int, most: int):
    leaves, _ = folded(rows, 12, most=most)
    assert len(np.unique(np.concatenate(leaves))) >= 0.98 * rows  # a few stay alone everywhere
    sizes = [len(leaf) for leaf in leaves]
    assert min(sizes) >= 2
    assert max(sizes) <= most
    if rows <= most:
        assert sizes == [rows]


def test_a_row_joins_two_children_of_its_cell_and_one_from_then_on():
    for fanout in (1, 2):
        leaves, _ = folded(600, 12, most=40, fanout=fanout)
        _, copies = np.unique(np.concatenate(leaves), return_counts=True)
        assert copies.max() == fanout
        assert copies.mean() > fanout - 0.4  # twice in one leaf is once


def test_candidates_are_those_of_each_leafs_tile():
    leaves, candidates = folded(300, 20, most=50)
    codes, facts = coded(vectors(np.random.default_rng(300), 300, 20))
    room = Room(50, codes.shape[1])
    for leaf, best in zip(leaves, candidates, strict=True):
        expected = np.empty((len(leaf), 5), np.int64)
        leaf_top(codes, facts, leaf, 10 * leaf, room, expected)
        np.testing.assert_array_equal(np.sort(best), np.sort(expected))


@pytest.mark.parametrize("kinds", [1, 2, 5])
def test_equal_rows_are_cut_at_random_until_they_fit(kinds: int):
    leaves, _ = folded(700, 6, most=30, kinds=kinds)
    assert max(len(leaf) for leaf in leaves) <= 30
    assert len(np.unique(np.concatenate(leaves))) >= 690


def test_the_same_seed_gives_the_same_leaves_and_another_gives_others():
    first, again, other = (folded(400, 9, most=40, seed=seed) for seed in (3, 3, 4))
    assert [leaf.tolist() for leaf in first[0]] == [leaf.tolist() for leaf in again[0]]
    assert [leaf.tolist() for leaf in first[0]] != [leaf.tolist() for leaf in other[0]]


def test_a_draw_is_without_repetition_and_reaches_every_row():
    rows = np.arange(100, 120, dtype=np.int32)
    random = random_state(5)
    seen: set[int] = set()
    for _ in range(60):
        drawn = draw(rows, 6, random).tolist()
        assert len(set(drawn)) == 6
        seen.update(drawn)
    assert seen == set(rows.tolist())
    assert sorted(draw(rows, 20, random).tolist()) == rows.tolist()
    assert rows.tolist() == list(range(100, 120))


@settings(deadline=None, max_examples=60)  # the first call compiles
@given(
    size=st.integers(2, 80),
    children=st.integers(1, 12),
    fanout=st.integers(1, 2),
    most=st.integers(2, 40),
    seed=st.integers(0, 10**6),
)
def test_children_stay_whole_and_small_ones_go_together(
    size: int, children: int, fanout: int, most: int, seed: int
):
    rng = np.random.default_rng(seed)
    width = min(fanout, children)
    near = np.stack([rng.permutation(children)[:width] for _ in range(size)]).astype(np.int32)
    rows = np.sort(rng.choice(1000, size, replace=False)).astype(np.int32)
    cut = np.empty(near.size, np.int32)
    spans = np.empty((near.size // 2 + 2, 2), np.int64)
    count = parted(near, most, random_state(seed), rows, cut, spans)
    found = [cut[first:last].tolist() for first, last in spans[:count].tolist()]
    assert all(len(part) >= 2 and part == sorted(set(part)) for part in found)
    for child in range(children):
        mine = rows[(near == child).any(axis=1)].tolist()
        holders = [part for part in found if set(mine) & set(part)]
        if len(mine) > 0.9 * size:  # has not shrunk: two halves
            assert any(set(mine[:1]) <= set(part) for part in holders) or len(mine) < 3
        elif len(mine) > 1:
            assert any(set(mine) <= set(part) for part in holders)
    limit = max(most, int(np.bincount(near.ravel(), minlength=children).max()))
    assert all(len(part) <= limit for part in found)
