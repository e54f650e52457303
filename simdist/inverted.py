"""Inverted lists: which rows lie in which cell, and a search that looks into few of them.

    rows ── k-means in codes ──> centres ── nearest ──> cell of every row ──> lists by cell
    queries ── nearest centres ──> cells they probe ── tiles of codes ──> candidates
    candidates ── values by the measure's own kernel, (value, row) ──> the k best

The cells of a stored partition are few (sqrt(n) / 4) and led by rows drawn at random: right for the
overlapping leaves of a graph, where every row asks. A search asks with few queries, and what it
scans decides its speed. On 53,666 package embeddings, k = 10, recall 0.95 by id takes 35 % of the
rows in 464 cells of that kind, 16 % after one step of k-means, and 4 % in 1,856 cells of k-means
(Lloyd 1982; the inverted file of Sivic and Zisserman 2003, Jegou et al. 2011).

All comparisons are made in int8 codes (simdist.compiled.codes): a pair has one key wherever it is
computed. What codes lose is counted with the recall, which is measured on the queries themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from simdist.measures.base import Measure, Prepared
from simdist.partitions import SLICE, as_surrogate, has_codes, measure_surrogate
from simdist.tiles.exact import fold_exact, nearest, signed
from simdist.tiles.topk import TopK, TopKState
from simdist.types import Array, Bools, Float32, Float64, Ids, Int32

__all__ = [
    "TURNS",
    "Codes",
    "Lists",
    "Shelf",
    "best_of",
    "by_cell",
    "candidates",
    "cell_total",
    "code",
    "code_scores",
    "compared",
    "homes",
    "middle_of",
    "near_rows",
    "passing",
    "places",
    "probes",
    "ranked",
    "scanned",
    "train",
    "trained_rows",
    "width_of",
]

PER_ROOT = 8  # cells for the square root of the rows: routing then costs about what scanning does
LEAST_ROWS = 8  # of a cell, on average
TRAINED = 32  # rows of a cell that its centre is learned from
MOST_TRAINED = 1 << 19  # rows that k-means looks at, in one task
SLACK = 8  # candidates beyond k by float32 key: more make fewer rows doubtful
TURNS = 6  # of Lloyd's iteration
PLACED = 256  # rows whose keys with all centres are held at once
WIDTH = 4  # candidates beyond twice k: what int8 leaves in doubt

Check = Callable[[], None]


class Codes(NamedTuple):
    """codes: [n, whole chunks of bytes] int8; facts: [n, 3] float32: see simdist.compiled.codes."""

    codes: Array
    facts: Float32

    def __len__(self) -> int:
        return len(self.codes)


class Lists(NamedTuple):
    """Inverted lists of some rows: those of cell c are members[starts[c]:starts[c + 1]].

    members: [e] int32, or int64 of queries. starts: [C + 1] int64.
    """

    members: Array
    starts: Ids

    @property
    def sizes(self) -> Ids:
        return np.diff(self.starts)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Rows that a search looks at together: a block of a partition, or an array.

    rows: prepared. numbers: [n] which rows of the data set they are. codes: None where the measure
    has no GEMM form. lists: by cell; first: number of the first row among all shelves.
    """

    rows: Prepared
    numbers: Ids
    codes: Codes | None
    lists: Lists
    first: int = 0


def cell_total(rows: int, *, coded: bool = True) -> int:
    """How many cells a search has: 8 sqrt(n), of 8 rows at least; sqrt(n) where rows are compared
    one cell after the other, without codes."""
    per_root = PER_ROOT if coded else 1
    return max(1, min(round(per_root * math.sqrt(rows)), rows // LEAST_ROWS))


def trained_rows(rows: int, cells: int) -> int:
    """How many rows k-means looks at."""
    return max(cells, min(rows, TRAINED * cells, MOST_TRAINED))


def width_of(k: int) -> int:
    """Candidates kept of each query by their keys, of which k stay by their values."""
    from simdist.compiled.probe import keep_of  # noqa: PLC0415 - numba only on workers

    return keep_of(2 * k + WIDTH)


def near_rows(measure: Measure, rows: Prepared) -> Prepared:
    """Prepared rows as cells are formed of them: see simdist.partitions.measure_surrogate."""
    return as_surrogate(measure_surrogate(measure), measure, rows)


def middle_of(rows: Prepared) -> Float64:
    """Around where rows are coded: their mean."""
    centre: Float64 = rows.vectors.mean(axis=0, dtype=np.float64)
    return centre


def code(rows: Prepared, centre: Float64) -> Codes:
    """Codes of rows around a centre [d]; two are as near as |x - y|^2 says."""
    from simdist.compiled.codes import FACTS, code_nbytes, encode  # noqa: PLC0415
    from simdist.compiled.simd import aligned  # noqa: PLC0415

    count, nbytes = len(rows), code_nbytes(rows.vectors.shape[1])
    codes = aligned(count * nbytes, np.int8).reshape(count, nbytes)
    facts = np.empty((count, FACTS), np.float32)
    encode(rows.vectors, np.asarray(centre, np.float64), codes, facts)
    return Codes(codes, facts)


def code_scores(measure: Measure, rows: Prepared, centre: Float64) -> Codes:
    """Codes whose keys order candidates as the measure does; it has a GEMM form.

    With y = x - centre, x.z + s + t = y.w + h(x) + h(z), h(x) = centre.x - |centre|^2 / 2 + s. A
    measure whose nearness is a distance of its rows takes that distance instead: `code`.
    """
    from simdist.compiled.codes import BIAS  # noqa: PLC0415 - numba only on workers

    coded = code(rows, centre)
    if not has_codes(measure):
        heads = rows.vectors @ centre - 0.5 * float(centre @ centre)
        coded.facts[:, BIAS] = heads if rows.terms is None else heads + rows.terms
    return coded


def train(
    rows: Codes, dim: int, cells: int, random: np.random.Generator, *, check: Check | None = None
) -> Codes:
    """Centres of cells: TURNS of Lloyd's iteration from rows drawn at random, in codes.

    A cell that nobody is nearest to keeps its centre.
    """
    from simdist.compiled.probe import add_up  # noqa: PLC0415 - numba only on workers

    drawn = np.sort(random.choice(len(rows), cells, replace=False))
    sums, counts = np.zeros((cells, dim)), np.zeros(cells, np.int64)
    add_up(rows.codes[drawn], rows.facts[drawn], np.arange(cells, dtype=np.int32), sums, counts)
    centres, origin = sums.astype(np.float32), np.zeros(dim)
    for _ in range(TURNS):
        labels = homes(code(Prepared(centres), origin), rows, check=check)
        sums[:], counts[:] = 0.0, 0
        add_up(rows.codes, rows.facts, labels, sums, counts)
        held = counts > 0
        centres[held] = sums[held] / counts[held, None]
    return code(Prepared(centres), origin)


def homes(centres: Codes, rows: Codes, *, check: Check | None = None) -> Int32:
    """[n] the nearest cell of every row."""
    return probes(centres, rows, 1, check=check)[:, 0]


def probes(
    centres: Codes,
    rows: Codes,
    count: int,
    *,
    among: Int32 | None = None,
    check: Check | None = None,
) -> Int32:
    """[n, count] the nearest cells of every row: the very nearest first, the others in any order;
    of equally near ones those of lower numbers.

    among: cells to choose from, ascending, `count` at least; None: all.
    """
    from simdist.compiled.probe import route  # noqa: PLC0415 - numba only on workers

    cells = np.arange(len(centres), dtype=np.int32) if among is None else among
    out = np.empty((len(rows), count), np.int32)
    for start in range(0, len(rows), SLICE):
        if check is not None:
            check()
        part = slice(start, start + SLICE)
        route(*centres, cells, rows.codes[part], rows.facts[part], out[part])
    return out


def places(centres: Codes, rows: Codes, cells: Int32, among: Bools) -> Int32:
    """[n, k] how many probes reach each of some cells [n, k]: its place among a row's nearest.

    among: [C] which cells are probed at all. The same keys as `probes`: products of codes are whole
    numbers that float32 holds up to 1,040 dimensions, and float64 always.
    """
    exact: Any = np.float32 if rows.codes.shape[1] * 127**2 < 2**24 else np.float64
    chosen = np.flatnonzero(among)
    numbers = centres.codes[chosen].astype(exact).T
    found = np.empty(cells.shape, np.int32)
    for start in range(0, len(rows), PLACED):
        part = slice(start, start + PLACED)
        dots = (rows.codes[part].astype(exact) @ numbers).astype(np.float32)
        keys = rows.facts[part, :1] * centres.facts[chosen, 0] * dots
        keys += rows.facts[part, 1:2] + centres.facts[chosen, 1]
        at = np.searchsorted(chosen, cells[part])
        mine = np.take_along_axis(keys, at, axis=1)
        for slot in range(cells.shape[1]):
            own, here = mine[:, slot, None], at[:, slot, None]
            before = (keys > own) | ((keys == own) & (np.arange(len(chosen)) < here))
            found[part, slot] = before.sum(axis=1) + 1
    return found


def by_cell(labels: Int32, cells: int) -> Lists:
    """Rows by their cell, ascending in each."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415 - numba only on workers

    order, starts = np.empty(len(labels), np.int64), np.empty(cells + 1, np.int64)
    bucket_order(labels, cells, order, starts)
    return Lists(order[: starts[-1]].astype(np.int32), starts)


def passing(lists: Lists, chosen: Bools) -> Lists:
    """The lists of chosen rows alone. chosen: [n]."""
    keep = chosen[lists.members]
    before = np.concatenate([[0], np.cumsum(keep)])
    return Lists(lists.members[keep], before[lists.starts].astype(np.int64))


def candidates(
    shelves: Iterable[Shelf],
    queries: Codes,
    near: Int32,
    width: int,
    *,
    check: Check | None = None,
) -> Ids:
    """[m, width] lists (simdist.compiled.lists) of the queries' best rows in the cells they probe,
    by key. near: [m, p] cells of the queries. A candidate's id is its place among all shelves."""
    from simdist.compiled.lists import empty_lists  # noqa: PLC0415 - numba only on workers
    from simdist.compiled.probe import Desk, probe  # noqa: PLC0415

    found = empty_lists(len(queries), width)
    desk = Desk(queries.codes.shape[1])
    turns: list[Lists] = []
    for shelf in shelves:
        if check is not None:
            check()
        assert shelf.codes is not None
        # The nearest cell of every query first: it sets the bar for the others.
        turns = turns or _turns((near[:, :1], near[:, 1:]), len(shelf.lists.starts) - 1)
        for asked in turns:
            probe(
                *shelf.codes,
                *shelf.lists,
                *queries,
                *asked,
                first=shelf.first,
                desk=desk,
                lists=found,
            )
    return found


def _turns(parts: Sequence[Int32], cells: int) -> list[Lists]:
    """Who asks which cell, of each part [m, p] of the cells that queries probe."""
    turns = []
    for part in parts:
        if part.shape[1]:
            by = by_cell(part.ravel(), cells)
            turns.append(Lists((by.members // part.shape[1]).astype(np.int64), by.starts))
    return turns


def scanned(
    shelves: Iterable[Shelf], queries: Codes, width: int, *, check: Check | None = None
) -> Ids:
    """As `candidates`, of every row of the shelves' lists."""
    everywhere = (
        Shelf(
            s.rows,
            s.numbers,
            s.codes,
            Lists(s.lists.members, _whole(len(s.lists.members))),
            s.first,
        )
        for s in shelves
    )
    return candidates(
        everywhere, queries, np.zeros((len(queries), 1), np.int32), width, check=check
    )


def ranked(
    measure: Measure, X: Prepared, shelves: Sequence[Shelf], lists: Ids, k: int
) -> TopKState:
    """The k best of candidates by (value, row of the data set); -1 where there are fewer.

    Keys of the state are values, negated for a distance.
    """
    from simdist.compiled.lists import empty_lists, enter_entries, ids_of  # noqa: PLC0415
    from simdist.compiled.probe import keep_of  # noqa: PLC0415

    places = ids_of(lists)
    best = empty_lists(len(places), keep_of(k))
    numbers, keys = np.full(places.shape, -1, np.int32), np.zeros(places.shape, np.float32)
    for shelf in shelves:
        inside = (places >= shelf.first) & (places < shelf.first + len(shelf.rows))
        at, _ = np.nonzero(inside)
        local = places[inside].astype(np.int64) - shelf.first
        keys[inside] = signed(measure, measure.pairs_at(X, at, shelf.rows, local))
        numbers[inside] = shelf.numbers[local]
    enter_entries(np.arange(len(places), dtype=np.int32), numbers, keys, best)
    return TopKState(ids_of(best[:, :k]).astype(np.int64), _keys_of(best[:, :k]))


def best_of(
    measure: Measure, X: Prepared, Y: Prepared, columns: Ids, k: int, check: Check | None = None
) -> TopKState:
    """The k best of some columns for every row of X, by (value, column), exactly and certified.

    columns: [m] rows of the data set. Keys of the state are values, negated for a distance.
    """
    rows = np.arange(len(X))
    if len(columns) < k:  # too few to fill a list: every pair
        top = TopK(k, exclude_self=False)
        if not len(columns):
            return top.init(rows)
        return fold_exact(measure, X, Y, top, rows=rows, columns=columns, check=check)
    found = nearest(
        measure, X, Y, k, rows=rows, columns=columns, exclude_self=False, slack=SLACK, check=check
    )
    return TopKState(found.ids, signed(measure, found.values))


def compared(
    measure: Measure,
    X: Prepared,
    shelves: Iterable[Shelf],
    near: Int32,
    k: int,
    *,
    check: Check | None = None,
) -> TopKState:
    """The k best rows in the cells that queries probe, cell by cell, in float32: for measures
    whose rows have no codes."""
    top = TopK(k, exclude_self=False)
    state = top.init(np.arange(len(X)))
    for shelf in shelves:
        asked = by_cell(near.ravel(), len(shelf.lists.starts) - 1)
        for cell in np.flatnonzero((asked.sizes > 0) & (shelf.lists.sizes > 0)):
            who = asked.members[slice(*asked.starts[cell : cell + 2])] // near.shape[1]
            rows = shelf.lists.members[slice(*shelf.lists.starts[cell : cell + 2])]
            found = best_of(
                measure, X.take(who), shelf.rows.take(rows), shelf.numbers[rows], k, check
            )
            state.ids[who], state.keys[who] = top.merge(
                TopKState(state.ids[who], state.keys[who]), found
            )
    return state


def _keys_of(lists: Ids) -> Float32:
    """Keys of candidates, any shape; -inf where EMPTY."""
    ordered = lists >> 32
    bits = ordered ^ ((ordered >> 63) & 0x7FFFFFFF)
    return bits.astype(np.int32).view(np.float32)


def _whole(count: int) -> Ids:
    """Starts of one list of everything."""
    return np.array([0, count], np.int64)
