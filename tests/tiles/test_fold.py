"""What callers of the folds rely on, whatever the reducer."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from simdist.errors import Cancelled, ConfigError, InputError
from simdist.measures import (
    Cosine,
    Dot,
    Euclidean,
    Manhattan,
    Measure,
    Scaled,
    Squash,
    Traits,
)
from simdist.tiles import Candidates, Softmax, Tile, TopK, fold, fold_candidates, fold_pair


@dataclass(frozen=True, slots=True)
class Ahead(Measure):
    """How far y is ahead of x: as asymmetric as can be."""

    name = "ahead"
    traits = Traits(kind="similarity", symmetric=False)

    def pair(self, x, y):
        return float((y - x).sum())


MEASURES = [
    Dot(),
    Cosine(),
    Euclidean(),
    Manhattan(),
    Scaled(Euclidean(), (0.5, 1.0, 2.0, 4.0)),
    Squash(Manhattan(), 0.001),
    Ahead(),
]


def _integers(n: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).integers(-4, 5, (n, 4)).astype(np.float32)
    x[:, 0] = 5  # no row of zeros
    return x


def _best(nearness, rows, columns, k):
    keys = nearness.astype(float)
    keys[rows[:, None] == columns] = -np.inf
    ids = np.broadcast_to(columns, keys.shape)
    return np.take_along_axis(ids, np.lexsort((ids, -keys), axis=1)[:, :k], 1)


@pytest.fixture(params=MEASURES, ids=lambda measure: str(measure.name))
def measure(request):
    return request.param


def test_every_measure_folds_to_its_nearest(measure):
    x, ids = _integers(70), np.random.default_rng(1).permutation(500)[:70]
    expected = _best(measure.nearness(x, x), ids, ids, 5)
    state = fold(measure, x, None, TopK(5), rows=ids, tile=Tile(16, 24))
    np.testing.assert_array_equal(state.ids, expected)


def test_a_block_pair_gives_both_sides_of_every_measure(measure):
    x, ids = _integers(50), np.arange(100, 150)
    near = measure.nearness(x, x)
    a, b = fold_pair(
        measure, x[:20], x[20:], TopK(5), rows_a=ids[:20], rows_b=ids[20:], tile=Tile(7, 9)
    )
    np.testing.assert_array_equal(a.ids, _best(near[:20, 20:], ids[:20], ids[20:], 5))
    np.testing.assert_array_equal(b.ids, _best(near[20:, :20], ids[20:], ids[:20], 5))


def test_a_block_with_itself_gives_the_block_for_every_measure(measure):
    x, ids = _integers(50), np.arange(100, 150)
    a, b = fold_pair(measure, x, x, TopK(5), rows_a=ids, rows_b=ids, tile=Tile(7, 9))
    np.testing.assert_array_equal(a.ids, _best(measure.nearness(x, x), ids, ids, 5))
    assert (b.ids == -1).all()


def test_candidate_lists_rank_as_tiles_do(measure):
    x, ids, rng = _integers(50), np.arange(100, 150), np.random.default_rng(2)
    lists = [rng.permutation(50)[: rng.integers(0, 12)] for _ in range(50)]
    indptr = np.cumsum([0, *map(len, lists)])
    near = measure.nearness(x, x)
    masked = np.full_like(near, -np.inf)
    for i, chosen in enumerate(lists):
        masked[i, chosen] = near[i, chosen]
    candidates = Candidates(indptr, np.concatenate(lists))
    state = fold_candidates(measure, x, None, candidates, TopK(4), rows=ids, pairs=10)
    expected = TopK(4).update(TopK(4).init(ids), masked, ids, ids)
    # Cosines that tie in exact arithmetic differ in their last bits: compare keys, not ids.
    np.testing.assert_allclose(state.keys, expected.keys, rtol=1e-6)
    for i, (ids_of_i, keys) in enumerate(zip(state.ids, state.keys, strict=True)):
        listed = ids_of_i >= 0
        np.testing.assert_allclose(masked[i, ids_of_i[listed] - 100], keys[listed], rtol=1e-6)


def test_a_block_with_itself_is_folded_once_and_merging_both_sides_counts_once():
    x, ids = _integers(40), np.arange(40)
    reducer = Softmax(0.1, np.ones((40, 1)))
    a, b = fold_pair(Dot(), x, x, reducer, rows_a=ids, rows_b=ids, tile=Tile(8, 8))
    both = reducer.finalize(reducer.merge(a, b))
    np.testing.assert_array_equal(both.logsumexp, reducer.finalize(a).logsumexp)
    np.testing.assert_array_equal(b.total, 0)


def test_a_fold_that_starts_from_lists_equals_a_merge_and_leaves_them_alone():
    x, ids, topk = _integers(60), np.arange(60), TopK(4)
    diagonal = fold(Dot(), x[:30], None, topk, rows=ids[:30])
    before = diagonal.ids.copy()
    pair = {"rows_a": ids[:30], "rows_b": ids[30:]}
    empty = topk.init(ids[30:])
    warm, _ = fold_pair(Dot(), x[:30], x[30:], topk, **pair, start=(diagonal, empty))
    cold, _ = fold_pair(Dot(), x[:30], x[30:], topk, **pair)
    np.testing.assert_array_equal(warm.ids, topk.merge(diagonal, cold).ids)
    np.testing.assert_array_equal(diagonal.ids, before)
    assert (empty.ids == -1).all()


def test_candidates_read_the_old_lists_and_write_new_ones():
    x, topk = _integers(30), TopK(3)
    old = fold(Dot(), x[:, ::-1].copy(), None, topk)
    before = old.ids.copy()
    lists = Candidates(np.arange(31) * 3, old.ids.ravel())
    new = fold_candidates(Dot(), x, None, lists, topk, start=old)
    np.testing.assert_array_equal(old.ids, before)
    assert not np.shares_memory(new.ids, old.ids)


def test_check_is_asked_between_tiles_and_stops_the_fold():
    asked = 0

    def check():
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Cancelled("the driver gave up")

    x = _integers(64)
    with pytest.raises(Cancelled):
        fold(Dot(), x, x, TopK(2), rows=np.arange(64), tile=Tile(16, 16), check=check)
    assert asked == 3
    asked = 0
    lists = Candidates(np.arange(65), np.arange(64))
    with pytest.raises(Cancelled):
        fold_candidates(Dot(), x, None, lists, TopK(2), pairs=8, check=check)


def test_two_sets_without_ids_are_not_taken_for_one():
    x = _integers(5)
    with pytest.raises(ConfigError, match="Pass rows= and columns="):
        fold(Dot(), x, x, TopK(2))
    state = fold(Dot(), x, x, TopK(5, exclude_self=False))
    assert (np.sort(state.ids, axis=1) == np.arange(5)).all()


def test_columns_without_a_second_set_are_refused():
    x = _integers(5)
    with pytest.raises(ConfigError, match="columns= without Y"):
        fold(Dot(), x, None, TopK(2), columns=np.arange(5))


def test_ids_that_do_not_fit_are_refused_with_both_numbers():
    x = _integers(5)
    with pytest.raises(InputError, match="rows: 4 ids for 5 vectors"):
        fold(Dot(), x, None, TopK(2), rows=np.arange(4))


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 1, 1], [0], "indptr of 3 entries"),
        ([0, 1, 1, 3], [0], "ending at 3 for 3 rows and 1 indices"),
        ([0, 2, 1, 2], [0, 1], "indptr descends"),
        ([0, 1, 1, 2], [0, 3], r"positions from 0 to 3; the 3 columns are 0 to 2"),
    ],
)
def test_lists_that_do_not_fit_are_refused(indptr, indices, message):
    lists = Candidates(np.array(indptr), np.array(indices))
    with pytest.raises(InputError, match=message):
        fold_candidates(Dot(), _integers(3), None, lists, TopK(2))


def test_importing_tiles_imports_no_compiler():
    code = "import sys, simdist.tiles, simdist.tiles.exact, simdist.tiles.memory; "
    code += "sys.exit('numba' in sys.modules or 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 0
