"""A search over cells, in codes: what is entered, and which cells are nearest."""

from __future__ import annotations

import numpy as np
import pytest
from compiled.listing import listed, vectors

from simdist.compiled.lists import empty_lists
from simdist.compiled.probe import Desk, keep_of, probe
from simdist.inverted import Codes, Lists, by_cell, code, probes
from simdist.measures import Prepared

NOWHERE = np.zeros(24)


def keys(queries: Codes, rows: Codes) -> np.ndarray:
    """[m, n] keys in the order of operations that all kernels keep."""
    dots = (queries.codes.astype(np.float64) @ rows.codes.astype(np.float64).T).astype(np.float32)
    scales = queries.facts[:, :1] * rows.facts[:, 0]
    return scales * dots + (queries.facts[:, 1:2] + rows.facts[:, 1])


def searched(
    rows: Codes, lists: Lists, queries: Codes, near: np.ndarray, keep: int, first: int = 0
) -> list[list[int]]:
    """What every query's list holds after its cells were looked into."""
    found = empty_lists(len(queries), keep)
    asked = by_cell(near.ravel(), len(lists.starts) - 1)
    who = (asked.members // near.shape[1]).astype(np.int64)
    desk = Desk(rows.codes.shape[1])
    probe(*rows, *lists, *queries, who, asked.starts, first=first, desk=desk, lists=found)
    return listed(found)


@pytest.mark.parametrize("count", [1, 3, 700, 2100])
def test_queries_find_the_best_rows_of_the_cells_they_probe_and_no_others(count: int) -> None:
    rng = np.random.default_rng(count)
    rows = code(Prepared(vectors(rng, 500, 24)), NOWHERE)
    queries = code(Prepared(vectors(rng, count, 24)), NOWHERE)
    home = rng.integers(0, 9, 500).astype(np.int32)
    home[home == 4] = 5  # an empty cell
    near = rng.permuted(np.tile(np.arange(9), (count, 1)), axis=1)[:, :3].astype(np.int32)
    found = searched(rows, by_cell(home, 9), queries, near, 16, first=1000)
    for query in range(0, count, max(1, count // 50)):
        held = np.flatnonzero(np.isin(home, near[query]))
        mine = keys(Codes(queries.codes[[query]], queries.facts[[query]]), rows)[0, held]
        best = held[np.lexsort((held, -mine))][:16]
        assert found[query] == (best + 1000).tolist()


def test_lists_are_the_same_in_any_order_of_looking() -> None:
    rng = np.random.default_rng(3)
    rows = code(Prepared(vectors(rng, 300, 24, kinds=40)), NOWHERE)
    queries = code(Prepared(vectors(rng, 50, 24)), NOWHERE)
    lists = by_cell(rng.integers(0, 6, 300).astype(np.int32), 6)
    near = rng.permuted(np.tile(np.arange(6), (50, 1)), axis=1)[:, :4].astype(np.int32)
    whole = searched(rows, lists, queries, near, 8)
    assert whole == searched(rows, lists, queries, near[:, ::-1].copy(), 8)
    parted = [
        searched(rows, lists, Codes(queries.codes[p], queries.facts[p]), near[p], 8)
        for p in (slice(0, 17), slice(17, 50))
    ]
    assert whole == parted[0] + parted[1]


def test_a_list_has_whole_lines_of_places() -> None:
    assert [keep_of(wanted) for wanted in (1, 8, 9, 24)] == [8, 8, 16, 24]


@pytest.mark.parametrize(
    ("cells", "kinds", "dim"), [(1, 0, 3), (7, 0, 16), (400, 0, 24), (400, 5, 24), (1500, 0, 130)]
)
def test_the_nearest_cells_are_those_of_the_largest_keys(cells: int, kinds: int, dim: int) -> None:
    rng = np.random.default_rng(cells + kinds)
    centres = code(Prepared(vectors(rng, cells, dim, kinds=kinds)), np.zeros(dim))
    rows = code(Prepared(vectors(rng, 37, dim)), np.zeros(dim))
    some = np.flatnonzero(rng.random(cells) < 0.6).astype(np.int32)
    for among in (np.arange(cells, dtype=np.int32), some if len(some) else None):
        chosen = np.arange(cells) if among is None else among
        order = np.argsort(-keys(rows, centres)[:, chosen], axis=1, kind="stable")
        for count in {1, 2, -(-len(chosen) // 2), len(chosen)} & set(range(len(chosen) + 1)):
            found, best = probes(centres, rows, count, among=among), chosen[order[:, :count]]
            assert np.array_equal(found[:, 0], best[:, 0])
            assert np.array_equal(np.sort(found, axis=1), np.sort(best, axis=1))
