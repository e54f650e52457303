"""What is kept of a tile: a commutative monoid over states.

    init(rows) ──update(tile)──update(tile)──┐
                                             ├─merge──> state ──finalize──> result
    init(rows) ──update(tile)────────────────┘

A state is a NamedTuple of arrays, so that it can go to a store field by field. `init` is the empty
state and the unit of `merge`; `merge` is associative, and commutative up to rounding. A reducer
sees rows and columns as global ids and never learns which task made the tile, or in which order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Literal, TypeVar

from simdist.errors import ConfigError
from simdist.types import Array, Float32, Ids

__all__ = ["Reducer"]

State = TypeVar("State", bound=tuple[Array, ...])


class Reducer(ABC, Generic[State]):
    """Base of all reducers; subclasses are frozen dataclasses. Law tests: `testing.ReducerLaws`.

    wants: what a tile holds: "values" of the measure, or "nearness" (larger is nearer, cheaper).
    by_row: True where every array of the state has the rows as its first axis, so that a part of
        the rows can be updated alone; False where the state sums over rows.
    whole_rows: True where a tile must span all columns (its update multiplies columns by columns).
    exclude_self: True where an entry whose column id is its row id is skipped.
    """

    wants: ClassVar[Literal["values", "nearness"]] = "values"
    by_row: ClassVar[bool] = True
    whole_rows: ClassVar[bool] = False
    exclude_self: bool = False

    @abstractmethod
    def init(self, rows: Ids) -> State:
        """The empty state of these rows (global ids, [n] int64)."""

    @abstractmethod
    def update(self, state: State, tile: Float32, rows: Ids, columns: Ids) -> State:
        """Fold in tile [n, m]. May write into the state's arrays; keep only what is returned."""

    @abstractmethod
    def merge(self, a: State, b: State) -> State:
        """Both together: two states of the same rows over disjoint sets of columns (or, where the
        state sums over rows, over disjoint sets of rows). Writes to neither."""

    @abstractmethod
    def finalize(self, state: State) -> Any:
        """What the user asked for."""

    @abstractmethod
    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of the state of so many rows, folded over so many columns."""

    def scratch_nbytes(self, rows: int, columns: int) -> int:
        """Bytes an update of a tile of this shape needs beside the tile and the state."""
        return 0

    def update_both(
        self, row_state: State, column_state: State, tile: Float32, rows: Ids, columns: Ids
    ) -> tuple[State, State]:
        """Fold a tile of a symmetric problem into the states of its rows and of its columns."""
        return (
            self.update(row_state, tile, rows, columns),
            self.update(column_state, tile.T, columns, rows),
        )

    def update_lists(
        self, state: State, entries: Float32, indptr: Ids, rows: Ids, columns: Ids
    ) -> State:
        """Fold in listed pairs: entries[indptr[i]:indptr[i + 1]] are row i's, `columns` [nnz]."""
        raise ConfigError(
            f"{type(self).__name__} cannot fold candidate lists: it needs whole rows of the "
            "matrix; use fold"
        )
