"""TopK, Softmax and Gram keep the laws: one seam, three shapes of answer."""

from __future__ import annotations

import numpy as np
import pytest

from simdist.errors import ConfigError, InputError
from simdist.measures import Dot
from simdist.testing.reducer_laws import Problem, ReducerLaws
from simdist.tiles import Gram, Softmax, Tile, TopK, fold, fold_candidates
from simdist.tiles.candidates import Candidates


class TestTopK(ReducerLaws):
    k = 4
    exclude_self = True

    def reducer(self, problem: Problem) -> TopK:
        return TopK(self.k, exclude_self=self.exclude_self)

    def dense(self, problem, matrix):
        ids = np.full((len(matrix), self.k), -1)
        keys = np.full((len(matrix), self.k), -np.inf, np.float32)
        for i, row in enumerate(matrix):
            ranked = sorted(
                (-key, column)
                for key, column in zip(row, problem.columns, strict=True)
                if not (self.exclude_self and column == problem.rows[i])
            )[: self.k]
            for p, (key, column) in enumerate(ranked):
                ids[i, p], keys[i, p] = column, -key
        return ids, keys


class TestTopKOfOne(TestTopK):
    k = 1


class TestLongTopKWithItself(TestTopK):
    k = 50
    exclude_self = False


class TestSoftmax(ReducerLaws):
    tolerance = 1e-5

    def reducer(self, problem: Problem) -> Softmax:
        values = problem.rng().standard_normal((len(problem.columns), 3))
        return Softmax(0.7, values, ids=problem.columns)

    def dense(self, problem, matrix):
        values = self.reducer(problem).values
        scores = 0.7 * matrix.astype(np.float64)
        peak = scores.max(axis=1, initial=-1e9, keepdims=True)
        weights = np.exp(scores - peak)
        total = weights.sum(axis=1, keepdims=True)
        some = total[:, 0] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            output = np.where(some[:, None], weights @ values / total, 0.0)
            logsumexp = np.where(some, peak[:, 0] + np.log(total[:, 0]), -np.inf)
        return output, logsumexp


class TestGram(ReducerLaws):
    tolerance = 1e-12
    lists = False

    def reducer(self, problem: Problem) -> Gram:
        # Every part of a problem sees the targets of all ids, as a stage would give them.
        ids = np.unique(problem.rows)
        y = np.stack([np.cos(ids % 97), np.sin(ids % 89)], axis=1)
        return _gram(len(problem.columns), y, ids)

    def dense(self, problem, matrix):
        K = matrix.astype(np.float64)
        g = self.reducer(problem)
        y = g.targets[np.searchsorted(g.ids, problem.rows)]
        diagonal = g.diagonal[np.searchsorted(g.ids, problem.rows)]
        return K.T @ K, K.T @ y, (y**2).sum(axis=0), [diagonal.sum()], [len(K)]


def _gram(columns: int, y: np.ndarray, ids: np.ndarray) -> Gram:
    return Gram(max(1, columns), y, diagonal=np.abs(y[:, 0]), ids=ids)


def test_thousands_of_duplicates_keep_the_smallest_ids():
    x = np.ones((3000, 8), np.float32)
    ids = np.random.default_rng(0).permutation(10**6)[:3000]
    state = fold(Dot(), x, None, TopK(5), rows=ids, tile=Tile(256, 512))
    smallest = np.sort(ids)
    for row, found in zip(ids, state.ids, strict=True):
        np.testing.assert_array_equal(found, smallest[smallest != row][:5])


def test_an_id_offered_twice_is_kept_once_with_its_better_key():
    topk, rows = TopK(3), np.array([0])
    state = topk.init(rows)
    first = np.array([[1.0, 2.0, 3.0]], np.float32)
    state = topk.update(state, first, rows, np.array([10, 11, 12]))
    again = np.array([[5.0, 1.5]], np.float32)
    state = topk.update(state, again, rows, np.array([11, 12]))
    np.testing.assert_array_equal(state.ids, [[11, 12, 10]])
    np.testing.assert_array_equal(state.keys, [[5.0, 3.0, 1.0]])


def test_masked_entries_never_enter_a_list():
    topk, rows = TopK(3), np.array([0])
    tile = np.array([[-np.inf, 1.0, -np.inf]], np.float32)
    state = topk.update(topk.init(rows), tile, rows, np.array([4, 5, 6]))
    np.testing.assert_array_equal(state.ids, [[5, -1, -1]])


def test_a_read_only_tile_and_a_transposed_one_are_taken():
    topk, rng = TopK(3), np.random.default_rng(0)
    tile = rng.standard_normal((6, 9)).astype(np.float32)
    rows, columns = np.arange(6), np.arange(100, 109)
    expected = topk.update(topk.init(rows), tile.copy(), rows, columns)
    turned = topk.update(topk.init(rows), np.asfortranarray(tile), rows, columns)
    tile.flags.writeable = False
    found = topk.update(topk.init(rows), tile, rows, columns)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(turned.ids, expected.ids)


def test_softmax_of_large_scores_does_not_overflow():
    x = np.array([[100.0], [-100.0], [1.0]], np.float32)
    reducer = Softmax(10.0, np.eye(3))
    result = reducer.finalize(fold(Dot(), x, x, reducer))
    assert np.isfinite(result.output).all()
    np.testing.assert_allclose(result.output[0], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(result.logsumexp[0], 100_000)


def test_softmax_skips_masked_pairs_and_rows_of_nothing_else():
    reducer, rows = Softmax(1.0, np.array([[2.0], [4.0]])), np.arange(2)
    tile = np.array([[0.0, -np.inf], [-np.inf, -np.inf]], np.float32)
    state = reducer.update(reducer.init(rows), tile, rows, np.arange(2))
    result = reducer.finalize(reducer.merge(state, reducer.init(rows)))
    np.testing.assert_array_equal(result.output, [[2.0], [0.0]])
    np.testing.assert_array_equal(result.logsumexp, [0.0, -np.inf])


def test_gram_refuses_candidate_lists_and_cut_columns():
    gram = Gram(3, np.zeros(2))
    x = np.ones((2, 4), np.float32)
    with pytest.raises(ConfigError, match=r"whole rows of the matrix; use fold"):
        fold_candidates(Dot(), x, None, Candidates(np.array([0, 1, 2]), np.array([1, 0])), gram)
    with pytest.raises(ConfigError, match="a tile of 2 columns; every tile must span all 3"):
        fold(Dot(), x, x, gram)


def test_unknown_ids_are_named():
    reducer = Softmax(1.0, np.zeros((2, 1)), ids=np.array([5, 9]))
    x = np.ones((2, 4), np.float32)
    with pytest.raises(InputError, match=r"Softmax.values: id 7 is not among the 2 given"):
        fold(Dot(), x, x, reducer, columns=np.array([5, 7]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(0), "k=0"),
        (lambda: Tile(0, 5), "rows=0, columns=5"),
        (lambda: Softmax(np.nan, np.zeros((2, 1))), "scale=nan"),
        (lambda: Softmax(1.0, np.zeros(2)), r"values of shape \(2,\)"),
        (lambda: Gram(0, np.zeros(2)), "inducing=0"),
        (lambda: Gram(1, np.zeros(2), diagonal=np.zeros(3)), "3 diagonal values for 2 targets"),
    ],
)
def test_impossible_settings_are_refused_with_what_was_given(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
