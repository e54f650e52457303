"""A search of arrays, in this process: the same cells, kernels and rules, and no store.

    corpus [n, d] ──> ArrayIndex ──┐
    queries [m, d] ──> pieces ─────┴──> threads of the engine ──> Hits

Pieces follow from m alone, and a query's list from nothing but itself: any number of threads gives
the same hits.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simdist.errors import InputError
from simdist.inverted import (
    Codes,
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
    near_rows,
    passing,
    places,
    probes,
    ranked,
    scanned,
    train,
    trained_rows,
    width_of,
)
from simdist.measures import Measure, Prepared
from simdist.models.hits import Hits
from simdist.partitions import has_codes
from simdist.recall import Recall
from simdist.stages.search import NEVER, SearchConfig, among, every_row, fewest_probes
from simdist.tiles import TopKState
from simdist.tiles.exact import signed
from simdist.types import Array, Bools, Float64, Ids, Int32

if TYPE_CHECKING:
    from simdist.engine.base import Engine

__all__ = ["ArrayIndex", "index_array", "passing_rows", "retrieve_array"]

FEW = 1024  # queries that are not worth more than one piece
PIECE = 16_384  # queries that four pieces share: two threads, or four, end together
ROWS_AT_ONCE = 16_384  # rows that are given to cells in one task


@dataclass(frozen=True, slots=True)
class ArrayIndex:
    """An array in cells, as `index` makes it and `retrieve` looks into it; in memory.

    measure: what it is for. Holds the prepared rows, their codes (a quarter of that) and lists.
    """

    measure: Measure
    shelf: Shelf
    homes: Int32
    centres: Codes
    near: Float64
    score: Float64 | None

    def __len__(self) -> int:
        return len(self.shelf.rows)

    def __repr__(self) -> str:
        return f"ArrayIndex({len(self)} rows, {len(self.centres)} cells, {self.measure.name})"

    def scores(self, rows: Prepared) -> Codes:
        """Queries as candidates are scored against them; the measure has a GEMM form."""
        assert self.score is not None
        return code_scores(self.measure, rows, self.score)


def index_array(
    x: Array, measure: Measure, *, cells: int | None, seed: int, engine: Engine
) -> ArrayIndex:
    """The cells of an array. x: [n, d]."""
    rows = measure.prepare(_checked(x, "corpus"))
    return _index_rows(rows, measure, cells=cells, seed=seed, engine=engine)


def _index_rows(
    rows: Prepared, measure: Measure, *, cells: int | None, seed: int, engine: Engine
) -> ArrayIndex:
    """The cells of prepared rows: k-means in codes, then every row in its cell."""
    gemm = measure.traits.gemm
    cells = min(cells or cell_total(len(rows), coded=gemm), len(rows))
    rng = _rng(seed, "trained")
    chosen = np.sort(rng.choice(len(rows), trained_rows(len(rows), cells), replace=False))
    near = near_rows(measure, rows)
    centre = middle_of(near)
    coded = code(near, centre)
    some = Codes(coded.codes[chosen], coded.facts[chosen])
    centres = train(some, near.vectors.shape[1], cells, _rng(seed, "cells"))

    def find(part: slice) -> Int32:
        return homes(centres, Codes(coded.codes[part], coded.facts[part]))

    starts = range(0, len(rows), ROWS_AT_ONCE)
    parts = [slice(start, start + ROWS_AT_ONCE) for start in starts]
    home = np.concatenate(_mapped(engine, find, parts))
    score, scores = None, coded if gemm else None
    if gemm and not has_codes(measure):
        score = middle_of(rows)
        scores = code_scores(measure, rows, score)
    elif gemm:
        score = centre
    shelf = Shelf(rows, np.arange(len(rows)), scores, by_cell(home, cells))
    return ArrayIndex(measure, shelf, home, centres, centre, score)


def retrieve_array(
    queries: Array,
    corpus: Array | ArrayIndex,
    config: SearchConfig,
    measure: Measure,
    *,
    chosen: Bools | None,
    engine: Engine,
) -> Hits:
    """The hits of an array of queries. chosen: [n] which rows may be found; None: all."""
    index: ArrayIndex | None
    X = measure.prepare(_checked(queries, "queries"))
    if isinstance(corpus, ArrayIndex):
        index, rows = corpus, corpus.shelf.rows
    else:
        index, rows = None, measure.prepare(_checked(corpus, "corpus"))
    if rows.vectors.shape[1] != X.vectors.shape[1]:
        raise InputError(
            f"queries have {X.vectors.shape[1]} dimensions, the corpus {rows.vectors.shape[1]}:"
            " they must come from the same embedding."
        )
    asked = _Asked(X, rows, passing_rows(chosen, len(rows)), config, measure, engine)
    cells = (
        len(index.centres)
        if index is not None
        else cell_total(len(rows), coded=measure.traits.gemm)
    )
    new = len(rows) if index is None else 0
    if config.method == "exact" or every_row(config, len(X), asked.passing, cells, unsorted=new):
        return asked.exactly()
    if index is None:
        index = _index_rows(rows, measure, cells=None, seed=config.seed, engine=engine)
    return asked.over(index)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One retrieval. X: queries; Y: the corpus, both prepared. chosen: rows that may be found."""

    X: Prepared
    Y: Prepared
    chosen: Ids | None
    config: SearchConfig
    measure: Measure
    engine: Engine

    @property
    def passing(self) -> int:
        return len(self.Y) if self.chosen is None else len(self.chosen)

    @property
    def found(self) -> tuple[Prepared, Ids]:
        """The rows that may be found, and which they are."""
        if self.chosen is None:
            return self.Y, np.arange(len(self.Y))
        return self.Y.take(self.chosen), self.chosen

    def exactly(self) -> Hits:
        """Every query with every row that may be found."""
        certain = Recall(1.0, 1.0, 1.0, tie_aware=1.0, p5=1.0, rows=len(self.X))
        return self._hits(self._exact(self.X), certain, None)

    def over(self, index: ArrayIndex) -> Hits:
        """Over the cells of an index; or every row, where no number of probes is enough."""
        shelf = index.shelf
        if self.chosen is not None:
            mask = np.zeros(len(self.Y), np.bool_)
            mask[self.chosen] = True
            shelf = replace(shelf, lists=passing(shelf.lists, mask))
        held = shelf.lists.sizes > 0
        count, recall = min(self.config.probes or 1, int(held.sum())), None
        if self.config.recall is not None or self.config.probes is None:
            count, recall = self._measured(index, shelf, held)
        if not count:
            return self.exactly()
        among_cells = np.flatnonzero(held).astype(np.int32)

        def search(part: slice) -> TopKState:
            X = self.X.take(part)
            near = code(near_rows(self.measure, X), index.near)
            cells = probes(index.centres, near, count, among=among_cells)
            return self._probed(index, shelf, X, near, cells)

        parts = _mapped(self.engine, search, _pieces(len(self.X)))
        state = TopKState(*(np.concatenate(both) for both in zip(*parts, strict=True)))
        wanted = min(self.config.k, self.passing)
        short = np.flatnonzero(state.ids[:, wanted - 1] < 0)
        if len(short):  # the probed cells hold fewer than k rows: look everywhere
            state.ids[short], state.keys[short] = self._exact(self.X.take(short))
        return self._hits(state, recall, count)

    def _probed(
        self, index: ArrayIndex, shelf: Shelf, X: Prepared, near: Codes, cells: Int32
    ) -> TopKState:
        k = self.config.k
        if shelf.codes is None:
            return compared(self.measure, X, [shelf], cells, k)
        scores = near if has_codes(self.measure) else index.scores(X)
        lists = candidates([shelf], scores, cells, width_of(k))
        return ranked(self.measure, X, [shelf], lists, k)

    def _exact(self, X: Prepared) -> TopKState:
        """Exact lists of some queries."""
        Y, columns = self.found

        def search(part: slice) -> TopKState:
            return best_of(self.measure, X.take(part), Y, columns, self.config.k)

        parts = _mapped(self.engine, search, _pieces(len(X)))
        return TopKState(*(np.concatenate(both) for both in zip(*parts, strict=True)))

    def _measured(self, index: ArrayIndex, shelf: Shelf, held: Bools) -> tuple[int, Recall]:
        """How many probes, from a sample of the queries. See simdist.stages.search.truth."""
        config, size = self.config, min(self.config.sample, len(self.X))
        drawn = _rng(config.seed, "recall").choice(len(self.X), size, replace=False)
        X = self.X.take(np.sort(drawn))
        truth = self._exact(X).ids
        near = code(near_rows(self.measure, X), index.near)
        needed = places(index.centres, near, index.homes[truth], held)
        if shelf.codes is not None:
            from simdist.compiled.lists import ids_of  # noqa: PLC0415 - numba where rows are read

            scores = near if has_codes(self.measure) else index.scores(X)

            def best(part: slice) -> Ids:
                some = Codes(scores.codes[part], scores.facts[part])
                return scanned([shelf], some, width_of(config.k))

            lists = np.concatenate(_mapped(self.engine, best, _pieces(size)))
            needed[~among(truth, ids_of(lists).astype(np.int64))] = NEVER
        needed[truth < 0] = -1
        k = max(1, min(config.k, self.passing))
        return fewest_probes(needed, int(held.sum()), config, k, len(self.X))

    def _hits(self, state: TopKState, recall: Recall | None, count: int | None) -> Hits:
        found = state.ids >= 0
        values = signed(self.measure, state.keys[found]) + np.float32(0.0)  # no -0.0
        return Hits(
            np.concatenate([[0], np.cumsum(found.sum(axis=1))]).astype(np.int64),
            state.ids[found],
            values,
            recall=recall,
            k=self.config.k,
            measure=self.config.measure,
            corpus=len(self.Y),
            passing=self.passing,
            probes=count,
        )


def passing_rows(chosen: Bools | None, rows: int) -> Ids | None:
    """The rows of a mask, ascending; InputError where it is none of so many rows."""
    if chosen is None:
        return None
    mask = np.asarray(chosen)
    if mask.dtype != np.bool_ or mask.shape != (rows,):
        raise InputError(
            f"where: a mask of {mask.dtype} {mask.shape}; of a corpus array of {rows} rows expected"
            f" bool ({rows},), True for rows that may be found. Conditions on columns are for"
            " stored datasets, which keep them."
        )
    return np.flatnonzero(mask)


def _checked(x: Array, what: str) -> Array:
    rows = np.asarray(x)
    if rows.ndim != 2 or rows.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(
            f"{what}: expected rows [n, d] of float16, float32 or float64; got {rows.dtype} of"
            f" shape {rows.shape}"
        )
    if not rows.size:
        raise InputError(
            f"{what}: no rows or no columns, {rows.dtype} of shape {rows.shape}; expected at least"
            " one row of one element"
        )
    return rows


def _pieces(queries: int) -> list[slice]:
    """Queries cut into what one task searches for: by their number alone."""
    count = 1 if queries <= FEW else 4 * math.ceil(queries / PIECE)
    size = math.ceil(queries / count)
    return [slice(start, min(start + size, queries)) for start in range(0, queries, size)]


def _mapped(engine: Engine, fn: Callable[[slice], Any], parts: Sequence[slice]) -> list[Any]:
    """The function of every part, in order, on the engine's threads."""
    if len(parts) == 1:
        return [fn(parts[0])]
    refs = [engine.submit(fn, part, key=f"search-{n}") for n, part in enumerate(parts)]
    return [engine.get(ref) for ref in refs]


def _rng(seed: int, key: str) -> np.random.Generator:
    """As a task of a stage draws."""
    return np.random.default_rng([seed, zlib.crc32(key.encode())])
