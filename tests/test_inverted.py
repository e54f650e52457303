"""Cells of a search: k-means in codes, lists by cell, and the values of candidates."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

import simdist as sd
from simdist.inverted import (
    Codes,
    Lists,
    Shelf,
    best_of,
    by_cell,
    candidates,
    cell_total,
    code,
    code_scores,
    compared,
    homes,
    middle_of,
    passing,
    places,
    probes,
    ranked,
    train,
    trained_rows,
    width_of,
)
from simdist.measures import Prepared, resolve


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return sd.datasets.clusters(3000, 24, 30, seed=6).rows


def test_there_are_eight_cells_for_the_square_root_of_the_rows_and_eight_rows_for_each() -> None:
    assert [cell_total(rows) for rows in (1, 100, 10_000, 1_000_000)] == [1, 12, 800, 8000]
    assert cell_total(10_000, coded=False) == 100
    assert trained_rows(1_000_000, 8000) == 256_000
    assert trained_rows(50, 12) == 50


def test_cells_are_about_as_tight_as_those_of_scikit_learn(rows) -> None:
    centre = rows.mean(axis=0, dtype=np.float64)
    coded = code(Prepared(rows), centre)
    centres = train(coded, 24, 40, np.random.default_rng(0))
    home = homes(centres, coded)
    means = np.stack([rows[home == c].mean(axis=0) for c in range(40) if (home == c).any()])
    numbers = np.unique(home, return_inverse=True)[1]
    ours = ((rows - means[numbers]) ** 2).sum()
    theirs = KMeans(40, init="random", n_init=1, max_iter=6, random_state=0).fit(rows).inertia_
    assert ours < 1.15 * theirs


def test_a_filtered_list_holds_the_chosen_rows_of_every_cell(rows) -> None:
    lists = by_cell(np.array([2, 0, 2, 1, 0, 2], np.int32), 4)
    chosen = np.array([True, False, False, True, True, True])
    found = passing(lists, chosen)
    assert found.members.tolist() == [4, 3, 0, 5]
    assert found.starts.tolist() == [0, 1, 2, 4, 4]


def test_a_cell_is_reached_by_the_probe_of_its_place(rows) -> None:
    coded = code(Prepared(rows), rows.mean(axis=0, dtype=np.float64))
    centres = train(coded, 24, 40, np.random.default_rng(1))
    among = np.arange(40) % 3 != 0
    some = Codes(coded.codes[:50], coded.facts[:50])
    chosen = np.flatnonzero(among).astype(np.int32)
    for count in (1, 5, 17):
        found = probes(centres, some, count, among=chosen)
        assert places(centres, some, found, among).max() == count
        assert np.all(places(centres, some, found[:, :1], among) == 1)


@pytest.mark.parametrize("measure", ["cosine", "euclidean", "sqeuclidean", "dot", "manhattan"])
def test_looking_into_all_cells_finds_what_comparing_everything_does(rows, measure) -> None:
    chosen = resolve(measure)
    X, Y = chosen.prepare(rows[:60]), chosen.prepare(rows[60:])
    numbers = np.arange(len(Y))[::-1].copy()  # as the data set counts them
    lists = by_cell((np.arange(len(Y)) % 7).astype(np.int32), 7)
    near = np.tile(np.arange(7, dtype=np.int32), (60, 1))
    whole = best_of(chosen, X, Y, numbers, 9)
    if not chosen.traits.gemm:
        found = compared(chosen, X, [Shelf(Y, numbers, None, lists)], near, 9)
    else:
        scores = code_scores(chosen, Y, middle_of(Y))
        shelf = Shelf(Y, numbers, scores, lists)
        held = candidates([shelf], code_scores(chosen, X, middle_of(Y)), near, width_of(9))
        found = ranked(chosen, X, [shelf], held, 9)
    assert (found.ids == whole.ids).mean() > 0.999
    same = found.ids == whole.ids
    assert np.array_equal(found.keys[same], whole.keys[same])


def test_rows_on_several_shelves_are_found_as_on_one(rows) -> None:
    measure = resolve("euclidean")
    X, Y = measure.prepare(rows[:40]), measure.prepare(rows[40:])
    centre, home = middle_of(Y), (np.arange(len(Y)) % 5).astype(np.int32)
    coded = code(Y, centre)
    near = np.tile(np.array([1, 3], np.int32), (40, 1))

    def shelf(part: slice) -> Shelf:
        some = Codes(coded.codes[part], coded.facts[part])
        return Shelf(
            Y.take(part), np.arange(len(Y))[part], some, by_cell(home[part], 5), part.start
        )

    def found(*parts: slice) -> np.ndarray:
        shelves = [shelf(part) for part in parts]
        return ranked(measure, X, shelves, candidates(shelves, code(X, centre), near, 16), 6).ids

    assert np.array_equal(
        found(slice(0, len(Y))), found(slice(0, 1000), slice(1000, 1001), slice(1001, len(Y)))
    )


def test_queries_that_probe_two_cells_find_the_best_of_both(rows) -> None:
    measure = resolve("euclidean")
    X, Y = measure.prepare(rows[:60]), measure.prepare(rows[60:])
    centre = middle_of(Y)
    home = (np.arange(len(Y)) % 9).astype(np.int32)
    shelf = Shelf(Y, np.arange(len(Y)), code(Y, centre), by_cell(home, 9))
    near = np.stack([np.arange(60) % 9, (np.arange(60) + 4) % 9], axis=1).astype(np.int32)
    found = ranked(measure, X, [shelf], candidates([shelf], code(X, centre), near, 24), 6)
    for query in range(60):
        held = np.flatnonzero(np.isin(home, near[query]))
        whole = best_of(measure, X.take(slice(query, query + 1)), Y.take(held), held, 6)
        assert np.array_equal(found.ids[query], whole.ids[0])


def test_cells_that_hold_less_than_k_leave_places_empty(rows) -> None:
    measure = resolve("euclidean")
    Y = measure.prepare(rows[:20])
    lists = Lists(np.array([3, 4], np.int32), np.array([0, 2, 2], np.int64))
    shelf = Shelf(Y, np.arange(20), code(Y, middle_of(Y)), lists)
    near = np.zeros((2, 1), np.int32)
    held = candidates([shelf], code(Y.take(slice(0, 2)), middle_of(Y)), near, 8)
    found = ranked(measure, Y.take(slice(0, 2)), [shelf], held, 5)
    assert sorted(found.ids[0, :2].tolist()) == [3, 4]
    assert np.all(found.ids[:, 2:] == -1)
    assert np.all(np.isneginf(found.keys[:, 2:]))
