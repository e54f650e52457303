"""The k nearest columns of every row: k-NN graphs, retrieval, hard negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from simdist.errors import ConfigError
from simdist.tiles.reducers import Reducer
from simdist.types import Array, Float32, Ids

__all__ = ["TopK", "TopKState"]

# The compiled kernels are imported where they run: numba costs a second and 100 MB, and a driver
# that only plans never folds.


class TopKState(NamedTuple):
    """Bounded lists, each row sorted by (key descending, id ascending), ids distinct.

    ids: [n, k] int64 global column ids, -1 where empty.
    keys: [n, k] float32 nearness, -inf where empty.
    """

    ids: Ids
    keys: Float32


@dataclass(frozen=True)
class TopK(Reducer[TopKState]):
    """The k best columns per row by nearness; ties go to the smaller id.

    k: list length, at least 1.
    exclude_self: skip the column whose global id is the row's own; False where rows and columns
        are two sets numbered separately.

    Keys are what the tile holds. From a float32 GEMM the key of a pair may differ in its last bits
    between tile shapes and positions, so exact ties may be torn and the list is exact only up to
    that rounding: `tiles.exact` recomputes values with one fixed kernel and says which rows are
    provably exact. Ids are non-negative.
    """

    wants: ClassVar[Literal["values", "nearness"]] = "nearness"
    k: int
    exclude_self: bool = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"TopK: k={self.k}; give a positive number of neighbours")

    def init(self, rows: Ids) -> TopKState:
        shape = (len(rows), self.k)
        return TopKState(np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32))

    def update(self, state: TopKState, tile: Float32, rows: Ids, columns: Ids) -> TopKState:
        from simdist.compiled.selection import select_rows  # noqa: PLC0415

        state = _owned(state)
        select_rows(
            _kernel(tile, np.float32),
            _kernel(rows, np.int64),
            _kernel(columns, np.int64),
            *state,
            self.exclude_self,
        )
        return state

    def update_both(
        self, row_state: TopKState, column_state: TopKState, tile: Float32, rows: Ids, columns: Ids
    ) -> tuple[TopKState, TopKState]:
        """One pass over the tile serves both sides."""
        from simdist.compiled.selection import select_both  # noqa: PLC0415

        row_state, column_state = _owned(row_state), _owned(column_state)
        select_both(
            _kernel(tile, np.float32),
            _kernel(rows, np.int64),
            _kernel(columns, np.int64),
            *row_state,
            *column_state,
            self.exclude_self,
        )
        return row_state, column_state

    def update_lists(
        self, state: TopKState, entries: Float32, indptr: Ids, rows: Ids, columns: Ids
    ) -> TopKState:
        from simdist.compiled.selection import select_lists  # noqa: PLC0415

        state = _owned(state)
        select_lists(
            _kernel(entries, np.float32),
            _kernel(indptr, np.int64),
            _kernel(rows, np.int64),
            _kernel(columns, np.int64),
            *state,
            self.exclude_self,
        )
        return state

    def merge(self, a: TopKState, b: TopKState) -> TopKState:
        from simdist.compiled.selection import merge_lists  # noqa: PLC0415

        merged = TopKState(np.array(a.ids), np.array(a.keys))
        merge_lists(*merged, _kernel(b.ids, np.int64), _kernel(b.keys, np.float32))
        return merged

    def finalize(self, state: TopKState) -> TopKState:
        """The lists themselves; the caller corrects nearness to values (`measure.correct`)."""
        return state

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * self.k * 12

    def scratch_nbytes(self, rows: int, columns: int) -> int:
        return 4 * columns  # the columns' bars


def _kernel(array: Array, dtype: type) -> Array:
    """The array as the kernels are compiled for: C order, writable (a read-only or memory-mapped
    array is another type to numba, and another compile)."""
    return np.require(np.asarray(array), dtype, ["C", "W", "A"])


def _owned(state: TopKState) -> TopKState:
    """The state in arrays a kernel may write to: itself, or a copy of a read-only one."""
    return TopKState(_kernel(state.ids, np.int64), _kernel(state.keys, np.float32))
