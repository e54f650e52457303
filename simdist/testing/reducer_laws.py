"""The laws every reducer keeps, whatever tiles, cuts and merge orders it meets.

    dense matrix ──────────────── oracle ───────────────┐
        │                                               ├── equal
        └─ random tiles, cuts, merge trees ─ finalize ──┘

Inherit and say what the reducer gives on a dense matrix:

    class TestDegree(ReducerLaws):
        def reducer(self, problem):
            return Degree()

        def dense(self, problem, matrix):
            return (matrix.sum(axis=1),)

Problems hold vectors of small integers, whose inner products are exact in float32: ties are real
ties, and a reducer that only selects must agree to the last bit.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simdist.errors import ConfigError
from simdist.measures import Dot
from simdist.tiles import Candidates, Reducer, Tile, fold, fold_candidates, fold_pair
from simdist.types import Array, Float32, Ids

__all__ = ["Problem", "ReducerLaws"]

MEASURE = Dot()


@dataclass(frozen=True, slots=True)
class Problem:
    """Two sets of vectors with global ids, and a seed for cuts, trees and payloads.

    X: [n, d], Y: [m, d] float32 holding small integers, with duplicates; rows: [n], columns: [m]
    distinct int64 ids from anywhere, in any order; some ids may be in both.
    """

    X: Float32
    Y: Float32
    rows: Ids
    columns: Ids
    seed: int

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def matrix(self) -> Float32:
        return MEASURE.block(self.X, self.Y)

    def symmetric(self) -> Problem:
        """X against itself."""
        return Problem(self.X, self.X, self.rows, self.rows, self.seed)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Small problems of every shape."""
    n, m = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    d, spread = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    X, Y = (rng.integers(-spread, spread + 1, (size, d)).astype(np.float32) for size in (n, m))
    universe = rng.permutation(draw(st.sampled_from([80, 10**6]))) * draw(
        st.sampled_from([1, 7, 2**40])
    )
    return Problem(X, Y, universe[:n], rng.permutation(universe[: n + m])[:m], seed)


tiles = st.builds(Tile, st.integers(1, 50), st.integers(1, 50))
# Derandomised: a law that fails, fails for everyone. Laws are inherited by many classes, which
# hypothesis would otherwise report as a mistake.
_laws = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.differing_executors],
)


class ReducerLaws(ABC):
    """Inherit in a test class; pytest finds the laws. `tolerance` is relative to the largest entry
    of the expected array; 0 asks for equality."""

    tolerance: ClassVar[float] = 0.0
    lists: ClassVar[bool] = True  # False: the reducer refuses candidate lists

    @abstractmethod
    def reducer(self, problem: Problem) -> Reducer[Any]:
        """The reducer under test, with whatever it carries for this problem's ids."""

    @abstractmethod
    def dense(self, problem: Problem, matrix: Float32) -> Sequence[Array]:
        """What `finalize` gives, field by field, from the whole matrix [n, m]."""

    @_laws
    @given(problem=problems(), tile=tiles)
    def test_any_tiles_give_the_dense_answer(self, problem: Problem, tile: Tile) -> None:
        reducer = self.reducer(problem)
        state = self._fold(reducer, problem, tile=tile)
        self._agree(reducer.finalize(state), self.dense(problem, problem.matrix()))

    @_laws
    @given(problem=problems(), tile=tiles)
    def test_any_cut_merged_in_any_order_gives_the_dense_answer(
        self, problem: Problem, tile: Tile
    ) -> None:
        reducer, rng = self.reducer(problem), problem.rng()
        states = [self._fold(reducer, part, tile=tile) for part in self._parts(reducer, problem)]
        while len(states) > 1:
            a, b = rng.permutation(len(states))[:2]
            merged = reducer.merge(states[a], states[b])
            states = [s for p, s in enumerate(states) if p not in {a, b}] + [merged]
        self._agree(reducer.finalize(states[0]), self.dense(problem, problem.matrix()))

    @_laws
    @given(problem=problems())
    def test_merge_is_associative_and_commutative(self, problem: Problem) -> None:
        reducer = self.reducer(problem)
        empty = reducer.init(problem.rows)
        states = [self._fold(reducer, part) for part in self._parts(reducer, problem)]
        a, b, c = (*states, empty, empty)[:3]
        left = reducer.merge(reducer.merge(a, b), c)
        right = reducer.merge(a, reducer.merge(b, c))
        swapped = reducer.merge(c, reducer.merge(b, a))
        self._agree(reducer.finalize(left), tuple(reducer.finalize(right)))
        self._agree(reducer.finalize(left), tuple(reducer.finalize(swapped)))

    @_laws
    @given(problem=problems())
    def test_the_empty_state_changes_nothing(self, problem: Problem) -> None:
        reducer = self.reducer(problem)
        empty, state = reducer.init(problem.rows), self._fold(reducer, problem)
        expected = tuple(reducer.finalize(state))
        self._agree(reducer.finalize(reducer.merge(empty, state)), expected)
        self._agree(reducer.finalize(reducer.merge(state, empty)), expected)
        both = reducer.finalize(reducer.merge(empty, empty))
        self._agree(both, tuple(reducer.finalize(empty)))

    @_laws
    @given(problem=problems())
    def test_merge_writes_to_neither_side(self, problem: Problem) -> None:
        reducer = self.reducer(problem)
        states = [self._fold(reducer, part) for part in self._parts(reducer, problem)]
        a, b = (*states, states[0])[:2]
        for field in (*a, *b):
            field.flags.writeable = False
        before = [np.array(field) for field in (*a, *b)]
        reducer.merge(a, b)
        for field, old in zip((*a, *b), before, strict=True):
            np.testing.assert_array_equal(field, old)

    @_laws
    @given(problem=problems(), tile=tiles)
    def test_a_symmetric_fold_on_both_sides_is_the_one_sided_fold(
        self, problem: Problem, tile: Tile
    ) -> None:
        problem = problem.symmetric()
        reducer = self.reducer(problem)
        both = fold(MEASURE, problem.X, None, reducer, rows=problem.rows, tile=tile)
        one = self._fold(reducer, problem, tile=tile)
        self._agree(reducer.finalize(both), tuple(reducer.finalize(one)))

    @_laws
    @given(problem=problems(), tile=tiles)
    def test_block_pairs_merged_up_give_the_symmetric_answer(
        self, problem: Problem, tile: Tile
    ) -> None:
        problem = problem.symmetric()
        reducer = self.reducer(problem)
        X = problem.X
        if reducer.whole_rows:
            with pytest.raises(ConfigError, match="span all columns"):
                fold_pair(MEASURE, X, X, reducer, rows_a=problem.rows, rows_b=problem.rows)
            return
        cuts = _cuts(problem.rng(), len(problem.rows))
        states = [reducer.init(problem.rows[c]) for c in cuts]
        for a in range(len(cuts)):
            for b in range(a, len(cuts)):
                sides = fold_pair(
                    MEASURE,
                    X[cuts[a]],
                    X[cuts[b]],
                    reducer,
                    rows_a=problem.rows[cuts[a]],
                    rows_b=problem.rows[cuts[b]],
                    tile=tile,
                )
                states[a] = reducer.merge(states[a], sides[0])
                states[b] = reducer.merge(states[b], sides[1])
        if reducer.by_row:
            whole = type(states[0])(*(np.concatenate(field) for field in zip(*states, strict=True)))
        else:
            whole = functools.reduce(reducer.merge, states)
        self._agree(reducer.finalize(whole), self.dense(problem, problem.matrix()))

    @_laws
    @given(problem=problems(), pairs=st.integers(1, 100))
    def test_lists_of_all_pairs_give_the_dense_answer(self, problem: Problem, pairs: int) -> None:
        reducer, rng = self.reducer(problem), problem.rng()
        n, m = len(problem.rows), len(problem.columns)
        indices = np.concatenate([rng.permutation(m) for _ in range(n)])
        fold_lists = functools.partial(
            fold_candidates,
            MEASURE,
            problem.X,
            problem.Y,
            Candidates(np.arange(n + 1) * m, indices),
            reducer,
            rows=problem.rows,
            columns=problem.columns,
            pairs=pairs,
        )
        if not self.lists:
            with pytest.raises(ConfigError, match="cannot fold candidate lists"):
                fold_lists()
            return
        state = fold_lists()
        self._agree(reducer.finalize(state), self.dense(problem, problem.matrix()))

    @_laws
    @given(problem=problems())
    def test_a_state_is_named_arrays_of_the_stated_size(self, problem: Problem) -> None:
        reducer = self.reducer(problem)
        state = self._fold(reducer, problem)
        assert all(isinstance(field, np.ndarray) for field in state)
        assert len(state._fields) == len(state)
        stated = reducer.nbytes(len(problem.rows), len(problem.columns))
        assert sum(field.nbytes for field in state) == stated
        if reducer.by_row:
            assert all(len(field) == len(problem.rows) for field in state)

    def _fold(self, reducer: Reducer[Any], problem: Problem, *, tile: Tile | None = None) -> Any:
        return fold(
            MEASURE,
            problem.X,
            problem.Y,
            reducer,
            rows=problem.rows,
            columns=problem.columns,
            tile=tile,
        )

    def _parts(self, reducer: Reducer[Any], problem: Problem) -> list[Problem]:
        """The problem cut where its states may be merged: across columns, or across rows."""
        rng, p = problem.rng(), problem
        if reducer.by_row:
            order = rng.permutation(len(p.columns))
            return [
                Problem(p.X, p.Y[order[c]], p.rows, p.columns[order[c]], p.seed)
                for c in _cuts(rng, len(p.columns))
            ]
        order = rng.permutation(len(p.rows))
        return [
            Problem(p.X[order[c]], p.Y, p.rows[order[c]], p.columns, p.seed)
            for c in _cuts(rng, len(p.rows))
        ]

    def _agree(self, found: Sequence[Array], expected: Sequence[Array]) -> None:
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            if self.tolerance == 0:
                np.testing.assert_array_equal(a, b)
                continue
            finite = np.asarray(b)[np.isfinite(b)]
            largest = np.abs(finite).max(initial=1e-30)
            np.testing.assert_allclose(a, b, rtol=self.tolerance, atol=self.tolerance * largest)


def _cuts(rng: np.random.Generator, size: int) -> list[slice]:
    """A few consecutive slices covering 0..size, some empty."""
    ends = np.sort(rng.integers(0, size + 1, rng.integers(0, 5))).tolist()
    return [slice(a, b) for a, b in zip([0, *ends], [*ends, size], strict=True)]
