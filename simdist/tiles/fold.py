"""Dense tiles: every pair of a block, or of a pair of blocks, folded into reducer states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from simdist.errors import ConfigError
from simdist.measures.base import Measure, Prepared, Rows
from simdist.tiles.ids import as_ids
from simdist.tiles.reducers import Reducer
from simdist.tiles.shape import Tile, cuts
from simdist.types import Array, Float32, Ids

__all__ = ["Check", "fold", "fold_pair"]

State = TypeVar("State", bound=tuple[Array, ...])
Check = Callable[[], None]


def fold(
    measure: Measure,
    X: Rows,
    Y: Rows | None,
    reducer: Reducer[State],
    *,
    rows: Ids | None = None,
    columns: Ids | None = None,
    start: State | None = None,
    tile: Tile | None = None,
    check: Check | None = None,
) -> State:
    """Fold the matrix of X against Y, tile by tile; never more than one tile of it exists.

    X: [n, d] prepared rows or a raw array; Y: [m, d], or None for the symmetric problem X against
        X, where each pair is computed once and folded on both sides (as far as the measure is
        symmetric; otherwise both halves are computed).
    rows, columns: global ids, [n] and [m] int64; by default positions. With Y=None only `rows`.
    start: the state to go on from (not written to); default the reducer's empty state. A TopK that
        starts from good lists folds faster.
    tile: the shape of a GEMM; default `Tile()`.
    check: called between tiles; raises (`Cancelled`) to stop.
    Returns the state; `reducer.finalize(state)` is the result.
    Raises ConfigError for a request without meaning, InputError for ids that do not fit.
    """
    A = measure.prepare(X)
    _refuse_separate_numbering(reducer, Y, rows, columns)
    row_ids = as_ids(rows, len(A), "rows")
    state = reducer.init(row_ids) if start is None else _copy(start)
    run = _Run(measure, reducer, tile or Tile(), check)
    if Y is None:
        if columns is not None:
            raise ConfigError("fold: columns= without Y; the symmetric problem has one set of ids")
        if reducer.whole_rows or not measure.traits.symmetric:
            return run.rectangle(A, row_ids, A, row_ids, state)
        return run.triangle(A, row_ids, state)
    B = measure.prepare(Y)
    return run.rectangle(A, row_ids, B, as_ids(columns, len(B), "columns"), state)


def fold_pair(
    measure: Measure,
    X_a: Rows,
    X_b: Rows,
    reducer: Reducer[State],
    *,
    rows_a: Ids,
    rows_b: Ids,
    start: tuple[State, State] | None = None,
    tile: Tile | None = None,
    check: Check | None = None,
) -> tuple[State, State]:
    """Fold one block pair of a symmetric problem for both sides: the unit of a distributed task.

    X_a: [n_a, d], X_b: [n_b, d], prepared or raw; rows_a, rows_b: their global ids.
    start: states to go on from (not written to).
    Returns (state of rows_a over columns rows_b, state of rows_b over columns rows_a). Where both
    sides are the same block (equal ids), each pair within it is computed once, the first state is
    the whole answer and the second is its `start` (or empty): merging both counts nothing twice.
    The blocks are otherwise disjoint.
    Raises ConfigError where the reducer needs whole rows.
    """
    if reducer.whole_rows:
        raise ConfigError(
            f"fold_pair: {type(reducer).__name__} needs tiles that span all columns; use fold"
        )
    A, B = measure.prepare(X_a), measure.prepare(X_b)
    ids_a, ids_b = as_ids(rows_a, len(A), "rows_a"), as_ids(rows_b, len(B), "rows_b")
    if start is None:
        state_a, state_b = reducer.init(ids_a), reducer.init(ids_b)
    else:
        state_a, state_b = _copy(start[0]), _copy(start[1])
    run = _Run(measure, reducer, tile or Tile(), check)
    if np.array_equal(ids_a, ids_b):
        if measure.traits.symmetric:
            return run.triangle(A, ids_a, state_a), state_b
        return run.rectangle(A, ids_a, A, ids_a, state_a), state_b
    if not measure.traits.symmetric:
        state_a = run.rectangle(A, ids_a, B, ids_b, state_a)
        return state_a, run.rectangle(B, ids_b, A, ids_a, state_b)
    side_a, side_b = _Side(A, ids_a, slice(0, len(A))), _Side(B, ids_b, slice(0, len(B)))
    return run.both(side_a, side_b, state_a, state_b)


@dataclass(frozen=True, slots=True)
class _Side:
    """The rows of a block that take part, on one side of a rectangle."""

    block: Prepared
    ids: Ids
    cut: slice


@dataclass(frozen=True, slots=True)
class _Run(Generic[State]):
    """One fold: the tile buffer is the only memory it takes beside the states."""

    measure: Measure
    reducer: Reducer[State]
    tile: Tile
    check: Check | None

    def rectangle(self, A: Prepared, a_ids: Ids, B: Prepared, b_ids: Ids, state: State) -> State:
        """All of A against all of B, for the rows of A."""
        n, m = len(A), len(B)
        shape = (Tile(self.tile.rows, max(1, m)) if self.reducer.whole_rows else self.tile).within(
            n, m
        )
        buffer = self._buffer(shape)
        for i in cuts(0, n, shape.rows):
            for j in cuts(0, m, shape.columns):
                block = self._block(A, i, B, j, buffer)
                state = self._update(state, i, block, a_ids[i], b_ids[j])
        return state

    def triangle(self, A: Prepared, ids: Ids, state: State) -> State:
        """A against itself: halves against each other, then each half against itself.

        ┌────┬────┐   A pair of halves is folded on both sides at once; what remains on the
        │ \\  │ X  │   diagonal is halved again until it is one tile. So all but the diagonal
        │    │    │   tiles are computed once.
        ├────┼────┤
        │    │ \\  │
        └────┴────┘
        """
        leaf = min(self.tile.rows, self.tile.columns)

        def descend(low: int, high: int, state: State) -> State:
            if high - low <= leaf:
                s = slice(low, high)
                if high == low:
                    return state
                block = self._block(A, s, A, s, self._buffer(Tile(high - low, high - low)))
                return self._update(state, s, block, ids[s], ids[s])
            # Whole leaves on the left, so that every cut is a full tile but the last.
            middle = low + leaf * max(1, (high - low) // leaf // 2)
            # The diagonal first: its neighbours raise the bars of what follows.
            state = descend(low, middle, state)
            state = descend(middle, high, state)
            left, right = _Side(A, ids, slice(low, middle)), _Side(A, ids, slice(middle, high))
            return self.both(left, right, state, state)[0]

        return descend(0, len(A), state)

    def both(self, a: _Side, b: _Side, state_a: State, state_b: State) -> tuple[State, State]:
        """Rows of a against rows of b, folded for both sides. One state may serve as both."""
        n, m = a.cut.stop - a.cut.start, b.cut.stop - b.cut.start
        shape = self.tile.within(n, m)
        buffer = self._buffer(shape)
        one = state_a is state_b
        for i in cuts(a.cut.start, a.cut.stop, shape.rows):
            for j in cuts(b.cut.start, b.cut.stop, shape.columns):
                block = self._block(a.block, i, b.block, j, buffer)
                rows, columns = a.ids[i], b.ids[j]
                if self.reducer.by_row:
                    parts = _part(state_a, i), _part(state_b, j)
                    news = self.reducer.update_both(*parts, block, rows, columns)
                    _write(parts[0], news[0])
                    _write(parts[1], news[1])
                elif one:
                    state_a = self.reducer.update(state_a, block, rows, columns)
                    state_a = state_b = self.reducer.update(state_a, block.T, columns, rows)
                else:
                    state_a, state_b = self.reducer.update_both(
                        state_a, state_b, block, rows, columns
                    )
        return state_a, state_b

    def _buffer(self, shape: Tile) -> Float32:
        """Where the tiles of a GEMM lie, one after the other; empty where they are allocated."""
        reused = self.reducer.wants == "nearness" and self.measure.traits.gemm
        return np.empty(shape.rows * shape.columns if reused else 0, np.float32)

    def _block(self, A: Prepared, i: slice, B: Prepared, j: slice, buffer: Float32) -> Float32:
        """One tile: values or nearness, as the reducer wants."""
        if self.check is not None:
            self.check()
        left, right = A.take(i), B.take(j)
        if self.reducer.wants == "values":
            return self.measure.block(left, right)
        if not self.measure.traits.gemm:
            return self.measure.nearness(left, right)
        # `measure.nearness` without its allocation: the buffer stays in the cache.
        n, m = len(left), len(right)
        tile = buffer[: n * m].reshape(n, m)
        np.matmul(left.vectors, right.vectors.T, out=tile)
        if left.terms is not None:
            tile += left.terms[:, None]
        if right.terms is not None:
            tile += right.terms
        return tile

    def _update(self, state: State, cut: slice, block: Float32, rows: Ids, columns: Ids) -> State:
        if not self.reducer.by_row:
            return self.reducer.update(state, block, rows, columns)
        part = _part(state, cut)
        _write(part, self.reducer.update(part, block, rows, columns))
        return state


def _part(state: State, cut: slice) -> State:
    """Views of some rows of a state."""
    return type(state)(*(field[cut] for field in state))


def _write(part: State, new: State) -> None:
    """What an update returned, put where the views look (nothing to do where it wrote in place)."""
    for old, field in zip(part, new, strict=True):
        if field is not old:
            old[...] = field


def _copy(state: State) -> State:
    return type(state)(*(np.array(field) for field in state))


def _refuse_separate_numbering(
    reducer: Reducer[Any], Y: Rows | None, rows: Ids | None, columns: Ids | None
) -> None:
    if Y is not None and rows is None and columns is None and reducer.exclude_self:
        raise ConfigError(
            f"fold(X, Y) without ids: {type(reducer).__name__} would take column i for row i "
            "itself and skip it. Pass rows= and columns= (global ids), or exclude_self=False where "
            "they are two sets"
        )
