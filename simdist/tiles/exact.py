"""From float32 lists to the exact answer: recompute, certify, and redo the few rows left over.

    fold(TopK(k + slack)) ──lists──> rerank ──values, ids──> certify ──sure──> done
      float32 GEMM keys              measure.pairs_at           │
                                                                └─unsure──> fold_exact

*The exact answer* of a row is, by definition, its k columns first in the order (value by
`measure.pairs`, nearest first; id ascending), the row itself left out. `pairs` gives a pair the
same bits in any company, so this answer does not depend on tiles, tasks or threads, and exact
duplicates tie exactly. A GEMM promises neither: its keys carry rounding errors of about
d 2^-24 |x| |y| that differ between tiles.

*The certificate.* A column outside a row's list has a GEMM key of at most the list's weakest. Key
and true nearness differ by at most E (`key_error`), so its value is at most as near as
correct(weakest + E). Where the k-th recomputed value is strictly nearer than that, no column
outside can belong to the k, and the row is exact. Rows with many near-ties (duplicates) are not
certified, and are redone by `fold_exact`. Keys of distances are taken from the middle of the
columns (`measures.surrogates.around`): E shrinks with how far rows are from there.

*What is assumed.* With a GEMM form: terms are rounded to float32 once, `pairs` errs by no more than
a few float32 roundings of its sums, `correct` is monotone to within 8 units in the last place.
Without one: `block` and `pairs` are within (d + 16) 2^-24 of the value, relatively, as sums of
non-negative terms are. The shipped measures keep this; a measure of your own that computes its
block with more cancellation than its pairs does not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simdist.errors import InputError
from simdist.measures.base import Measure, Prepared, Rows
from simdist.measures.surrogates import around, middle
from simdist.tiles.candidates import PAIRS
from simdist.tiles.fold import Check, fold
from simdist.tiles.ids import as_ids, locate
from simdist.tiles.shape import Tile, cuts
from simdist.tiles.topk import TopK, TopKState
from simdist.types import Bools, Float32, Float64, Ids

__all__ = [
    "Nearest",
    "Reach",
    "certify",
    "fold_exact",
    "key_error",
    "nearest",
    "reach",
    "rerank",
    "signed",
    "useful_key",
]

UNIT = 2.0**-24  # half the distance from 1 to the next float32
LOWEST = np.finfo(np.float32).min


class Nearest(NamedTuple):
    """values: [n, k] float32, nearest first. ids: [n, k] int64, ascending among equal values."""

    values: Float32
    ids: Ids


class Reach(NamedTuple):
    """How far columns reach: the largest |y| and the largest |term|. Of two sets: `join`."""

    norm: float
    term: float

    def join(self, other: Reach) -> Reach:
        return Reach(max(self.norm, other.norm), max(self.term, other.term))


def nearest(
    measure: Measure,
    X: Rows,
    Y: Rows | None,
    k: int,
    *,
    rows: Ids | None = None,
    columns: Ids | None = None,
    exclude_self: bool = True,
    slack: int = 8,
    tile: Tile | None = None,
    check: Check | None = None,
) -> Nearest:
    """The exact k nearest columns of every row, in one process.

    X: [n, d]; Y: [m, d], or None for X against itself; prepared or raw. Arguments as for `fold`.
    slack: how many more than k are selected by GEMM key. More make fewer rows go the slow way.
    Many rows against many columns go by codes first (tiles.screened), with the same answer.
    Raises InputError where a row has fewer than k columns to choose from.
    """
    A = measure.prepare(X)
    B = A if Y is None else measure.prepare(Y)
    row_ids = as_ids(rows, len(A), "rows")
    column_ids = row_ids if Y is None else as_ids(columns, len(B), "columns")
    from simdist.tiles import screened  # noqa: PLC0415 - it is built on this module

    if Y is not None and screened.worth_screening(measure, len(A), len(B), A.vectors.shape[1], k):
        found = screened.nearest_screened(
            measure,
            A,
            B,
            k,
            rows=row_ids,
            columns=column_ids,
            exclude_self=exclude_self,
            check=check,
        )
        if found is not None:
            return found
    origin = middle(measure, B)
    near_A = around(measure, A, origin)
    near_B = near_A if Y is None else around(measure, B, origin)
    topk = TopK(k + slack, exclude_self=exclude_self)
    lists = fold(
        measure,
        near_A,
        None if Y is None else near_B,
        topk,
        rows=rows,
        columns=columns,
        tile=tile,
        check=check,
    )
    values, ids = rerank(measure, A, B, lists.ids, k, rows=row_ids, columns=column_ids)
    sure = certify(measure, near_A, reach(near_B), weakest=lists.keys[:, -1], worst=values[:, -1])
    redo = np.flatnonzero(~sure)
    state = fold_exact(
        measure,
        A.take(redo),
        B,
        TopK(k, exclude_self=exclude_self),
        rows=row_ids[redo],
        columns=column_ids,
        worst=values[redo, -1],
        tile=tile,
        check=check,
    )
    values[redo], ids[redo] = signed(measure, state.keys), state.ids
    return Nearest(values, ids)


def rerank(
    measure: Measure,
    X: Rows,
    Y: Rows | None,
    lists: Ids,
    k: int,
    *,
    rows: Ids | None = None,
    columns: Ids | None = None,
    pairs: int = PAIRS,
) -> Nearest:
    """The k best of each row's list by the measure's fixed kernel.

    X: [n, d]; Y: [m, d], every listed column among them (None: X). rows, columns: global ids.
    lists: [n, l] distinct column ids, l >= k, -1 where empty.
    pairs: how many values are computed at a time: memory beyond the result is about 40 bytes each.
    Raises InputError where a row lists fewer than k columns.
    """
    A = measure.prepare(X)
    B = A if Y is None else measure.prepare(Y)
    row_ids = as_ids(rows, len(A), "rows")
    column_ids = row_ids if Y is None else as_ids(columns, len(B), "columns")
    if lists.ndim != 2 or len(lists) != len(A):
        raise InputError(f"rerank: lists of shape {lists.shape} for {len(A)} rows; expected [n, l]")
    filled = (lists >= 0).sum(axis=1)
    if len(filled) and filled.min() < k:
        row = int(np.argmin(filled))
        raise InputError(
            f"rerank: row {row_ids[row]} lists {filled[row]} columns and k is {k}; lower k, or "
            "search more columns"
        )
    result = Nearest(np.empty((len(A), k), np.float32), np.empty((len(A), k), np.int64))
    for cut in cuts(0, len(A), max(1, pairs // max(1, lists.shape[1]))):
        ids = np.asarray(lists[cut])
        at, slot = np.nonzero(ids >= 0)
        keys = np.full(ids.shape, -np.inf, np.float32)
        positions = locate(column_ids, ids[at, slot], "rerank")
        keys[at, slot] = signed(measure, measure.pairs_at(A.take(cut), at, B, positions))
        # Empty slots go last even where a value is infinite: they are no candidates.
        order = np.lexsort((ids, -keys, ids < 0), axis=-1)[:, :k]
        result.ids[cut] = np.take_along_axis(ids, order, axis=1)
        result.values[cut] = signed(measure, np.take_along_axis(keys, order, axis=1))
    return result


def certify(
    measure: Measure, X: Rows, columns: Reach, *, weakest: Float32, worst: Float32
) -> Bools:
    """Which rows are provably exact. True is a proof; False says nothing.

    X: [n, d] the rows. columns: the reach of all columns searched.
    weakest: [n] the last GEMM key of each list, -inf where the list has room (so holds all).
    worst: [n] the k-th value that `rerank` found.
    """
    A = measure.prepare(X)
    full = weakest > -np.inf
    error = key_error(measure, A, columns)
    sure: Bools = ~full
    optimistic = _optimistic(measure, weakest[full], error[full])
    sure[full] = signed(measure, worst[full]) > optimistic
    return sure


def reach(Y: Prepared) -> Reach:
    """The reach of prepared columns; of none, (0, 0)."""
    return Reach(float(_norms(Y).max(initial=0.0)), float(_terms(Y).max(initial=0.0)))


def key_error(measure: Measure, X: Prepared, columns: Reach) -> Float64:
    """E: [n] how far a GEMM key of a row may lie from the nearness that `pairs` stands for.

    |fl(x.y) - x.y| <= g |x| |y| with g = d u / (1 - d u), in any order of summation, fused or not
    (Higham 2002, section 3.1); adding two terms, shifting both rows to another origin (each entry
    is rounded once), and what `pairs` rounds itself, adds a few u of the sizes involved. Without a
    GEMM form it is a relative error: the factor of |key|.
    """
    d = X.vectors.shape[1]
    g = (d + 16) * UNIT / (1 - (d + 16) * UNIT)
    if not measure.traits.gemm:
        return np.full(len(X), 2 * g)
    error: Float64 = g * _norms(X) * columns.norm + 16 * UNIT * (_terms(X) + columns.term)
    return error


def fold_exact(
    measure: Measure,
    X: Rows,
    Y: Rows,
    reducer: TopK,
    *,
    rows: Ids,
    columns: Ids,
    worst: Float32 | None = None,
    tile: Tile | None = None,
    check: Check | None = None,
) -> TopKState:
    """The exact lists of a few rows over some of the columns; merge them with `reducer.merge`.

    X: [n, d], Y: [m, d]; rows, columns: their global ids.
    worst: [n] a value that k columns are known to reach (`rerank`'s last): what is provably farther
        by its GEMM key is not evaluated. Without it, every pair is.
    Returns a TopKState whose keys are *values*, negated for a distance (`signed` turns them back):
    these do not mix with nearness keys.

    Rows that are exact duplicates of each other are evaluated once. So what costs is the number of
    *different* rows that could not be certified, each one GEMM row and its near-ties, however many
    thousand copies they have.
    """
    A, B = measure.prepare(X), measure.prepare(Y)
    row_ids, column_ids = as_ids(rows, len(A), "rows"), as_ids(columns, len(B), "columns")
    first, member = _distinct(A)
    alike = A.take(first)
    # One more than k: a row may find itself in the list it shares with its duplicates.
    shared = TopK(reducer.k + 1, exclude_self=False)
    floor = np.full(len(first), np.inf, np.float32)
    if worst is None:
        floor[:] = -np.inf
    else:
        np.minimum.at(floor, member, signed(measure, worst))
    state = shared.init(row_ids[first])
    origin = middle(measure, B)
    near_A, near_B = around(measure, alike, origin), around(measure, B, origin)
    useful = useful_key(measure, key_error(measure, near_A, reach(near_B)), floor)
    shape = (tile or Tile()).within(len(alike), len(B))
    for i in cuts(0, len(alike), shape.rows):
        part = TopKState(state.ids[i], state.keys[i])
        for j in cuts(0, len(B), shape.columns):
            if check is not None:
                check()
            chosen = measure.nearness(near_A.take(i), near_B.take(j)) >= useful[i][:, None]
            _offer_pairs(measure, alike.take(i), B.take(j), chosen, column_ids[j], part)
    return _for_each(reducer, state, member, row_ids)


def signed(measure: Measure, values: Float32) -> Float32:
    """Values as keys, or keys back as values: negated for a distance, so that larger is nearer."""
    return values if measure.traits.kind == "similarity" else np.negative(values)


def _offer_pairs(
    measure: Measure, X: Prepared, Y: Prepared, chosen: Bools, columns: Ids, state: TopKState
) -> None:
    """Values of the chosen pairs [n, m] into the lists, in place, a bounded number at a time."""
    topk = TopK(state.ids.shape[1], exclude_self=False)
    step = max(1, PAIRS // max(1, len(Y)))
    for cut in cuts(0, len(X), step):
        at, positions = np.nonzero(chosen[cut])
        if not len(at):
            continue
        keys = signed(measure, measure.pairs_at(X.take(cut), at, Y, positions))
        ends = np.cumsum(np.bincount(at, minlength=len(chosen[cut])))
        part = TopKState(state.ids[cut], state.keys[cut])
        no_ids = np.full(len(part.ids), -1)
        topk.update_lists(part, keys, np.append(0, ends), no_ids, columns[positions])


def _for_each(reducer: TopK, state: TopKState, member: Ids, rows: Ids) -> TopKState:
    """Lists of k + 1 shared by duplicates -> lists of k, each row without itself."""
    ids, keys = state.ids[member], state.keys[member]
    if reducer.exclude_self:
        keep = ids != rows[:, None]
        # The first k kept: where the row is not in its list, its last entry goes.
        order = np.argsort(~keep, axis=1, kind="stable")[:, : reducer.k]
    else:
        order = np.broadcast_to(np.arange(reducer.k), (len(ids), reducer.k))
    return TopKState(np.take_along_axis(ids, order, 1), np.take_along_axis(keys, order, 1))


def _distinct(X: Prepared) -> tuple[Ids, Ids]:
    """Bit-identical rows: the position of the first of each kind, and each row's kind [n]."""
    parts = [X.vectors] if X.terms is None else [X.vectors, X.terms[:, None]]
    content = np.ascontiguousarray(np.concatenate(parts, axis=1))
    whole = content.view(np.dtype((np.void, content.shape[1] * 4)))[:, 0]
    _, first, member = np.unique(whole, return_index=True, return_inverse=True)
    return first.astype(np.int64), member.astype(np.int64)


def _optimistic(measure: Measure, keys: Float32, error: Float64) -> Float32:
    """The nearest a pair with such a GEMM key can be, as a signed value; rounded outwards."""
    if measure.traits.gemm:
        bound = np.asarray(keys, np.float64) + error
    else:
        bound = keys * (1.0 + np.sign(keys) * error)
    up = np.nextafter(bound.astype(np.float32), np.float32(np.inf))
    values = signed(measure, measure.correct(up)).astype(np.float64)
    return np.nextafter((values + 8 * UNIT * np.abs(values)).astype(np.float32), np.float32(np.inf))


def useful_key(measure: Measure, error: Float64, floor: Float32) -> Float32:
    """The smallest GEMM key [n] whose optimistic value reaches the floor: found by bisection, as
    `correct` need not have an inverse. -inf where every key does. The 8 units of slack in
    `_optimistic` cover a `correct` that is not quite monotone in its last bits."""
    low = np.full(len(floor), _ordered(LOWEST))
    high = np.full(len(floor), _ordered(-LOWEST))
    with np.errstate(all="ignore"):  # the ends of the float range overflow, in the right direction
        everything = _optimistic(measure, np.full(len(floor), LOWEST), error) >= floor
        for _ in range(33):
            middle = (low + high) // 2
            reached = _optimistic(measure, _from_ordered(middle), error) >= floor
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.where(everything, np.float32(-np.inf), _from_ordered(high))


def _ordered(keys: Float32 | np.float32) -> Ids:
    """float32 as int64 in the same order."""
    bits = np.asarray(keys, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _from_ordered(ordered: Ids) -> Float32:
    bits = np.abs(ordered) | np.where(ordered < 0, 0x80000000, 0)
    return bits.astype(np.uint32).view(np.float32)


def _norms(X: Prepared) -> Float64:
    squares: Float64 = np.einsum("ij,ij->i", X.vectors, X.vectors, dtype=np.float64)
    return np.sqrt(squares)


def _terms(X: Prepared) -> Float64:
    return np.zeros(len(X)) if X.terms is None else np.abs(X.terms).astype(np.float64)
