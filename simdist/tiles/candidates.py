"""Listed pairs only: refinement, re-ranking, sparse attention."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np

from simdist.errors import InputError
from simdist.measures.base import Measure, Prepared, Rows
from simdist.tiles.fold import Check
from simdist.tiles.ids import as_ids
from simdist.tiles.reducers import Reducer
from simdist.types import Array, Float32, Ids

__all__ = ["PAIRS", "Candidates", "fold_candidates"]

State = TypeVar("State", bound=tuple[Array, ...])

PAIRS = 1 << 18  # pairs evaluated at a time


class Candidates(NamedTuple):
    """A ragged list of columns per row, as in CSR.

    indptr: [n + 1] int64; indices: [nnz] int64 positions in Y; those of row i are
    indices[indptr[i]:indptr[i + 1]], in any order. A pair listed twice is folded twice (TopK keeps
    it once).
    """

    indptr: Ids
    indices: Ids


def fold_candidates(
    measure: Measure,
    X: Rows,
    Y: Rows | None,
    candidates: Candidates,
    reducer: Reducer[State],
    *,
    rows: Ids | None = None,
    columns: Ids | None = None,
    start: State | None = None,
    pairs: int = PAIRS,
    check: Check | None = None,
) -> State:
    """Fold only the listed pairs.

    X: [n, d]; Y: [m, d], or None where columns are rows of X; prepared or raw.
    rows, columns: global ids of X and Y; by default positions (Y=None: columns are `rows`).
    start: the state to go on from. It is read, never written: a round that derives `candidates`
        from old lists gets new ones, and the answer does not depend on the order of rows.
    pairs: how many pairs are evaluated at a time (more in one row are not split).
    check: called between batches; raises to stop.

    Values come from `measure.pairs_at`; nearness is summed in float64 for a GEMM form, so that the
    key of a pair may differ in its last bits from a tile's.
    Raises InputError for lists that do not fit.
    """
    A = measure.prepare(X)
    B = A if Y is None else measure.prepare(Y)
    row_ids = as_ids(rows, len(A), "rows")
    column_ids = row_ids if Y is None else as_ids(columns, len(B), "columns")
    indptr, indices = _checked(candidates, len(A), len(B))
    state = reducer.init(row_ids) if start is None else type(start)(*(np.array(f) for f in start))
    low = 0
    while low < len(A):
        if check is not None:
            check()
        high = int(np.searchsorted(indptr, indptr[low] + max(1, pairs), side="right")) - 1
        high = min(len(A), max(high, low + 1))
        listed = indices[indptr[low] : indptr[high]]
        cut, local = slice(low, high), indptr[low : high + 1] - indptr[low]
        if len(listed):
            some = Candidates(local, listed)
            entries = _entries(measure, A.take(cut), B, some, wants=reducer.wants)
            part = type(state)(*(field[cut] for field in state)) if reducer.by_row else state
            new = reducer.update_lists(part, entries, local, row_ids[cut], column_ids[listed])
            if reducer.by_row:
                for field, value in zip(state, new, strict=True):
                    field[cut] = value
            else:
                state = new
        low = high
    return state


def _entries(
    measure: Measure, A: Prepared, B: Prepared, listed: Candidates, *, wants: str
) -> Float32:
    """One entry per listed pair: its value, or its nearness."""
    indptr, positions = listed
    at = np.repeat(np.arange(len(A)), np.diff(indptr))
    if wants == "values":
        return measure.pairs_at(A, at, B, positions)
    if measure.traits.gemm:
        from simdist.compiled.distances import dots  # noqa: PLC0415  numba comes with the first call

        entries = dots(A.vectors, at, B.vectors, positions)
        if A.terms is not None:
            entries += A.terms[at]
        if B.terms is not None:
            entries += B.terms[positions]
        return entries
    # Without a GEMM form a measure tells nearness by the block only.
    parts = [
        measure.nearness(A.take(slice(i, i + 1)), B.take(positions[indptr[i] : indptr[i + 1]]))[0]
        for i in range(len(A))
        if indptr[i + 1] > indptr[i]
    ]
    return np.concatenate(parts)


def _checked(candidates: Candidates, n: int, m: int) -> tuple[Ids, Ids]:
    indptr, indices = (np.asarray(field, np.int64) for field in candidates)
    if len(indptr) != n + 1 or indptr[0] != 0 or indptr[-1] != len(indices):
        raise InputError(
            f"candidates: indptr of {len(indptr)} entries ending at "
            f"{indptr[-1] if len(indptr) else None} for {n} rows and {len(indices)} indices; "
            "expected rows + 1 entries from 0 to the number of indices"
        )
    if (np.diff(indptr) < 0).any():
        raise InputError("candidates: indptr descends; it must list the rows' ends in order")
    if len(indices) and not 0 <= indices.min() <= indices.max() < m:
        raise InputError(
            f"candidates: positions from {indices.min()} to {indices.max()}; the {m} columns are "
            f"0 to {m - 1}. Lists hold positions in Y, not global ids"
        )
    return indptr, indices
