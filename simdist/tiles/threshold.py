"""Pairs that reach a threshold: streamed out of the tiles, never held whole.

    blocks ──> candidates ──> values by the fixed kernel ──reached──> sink(rows, columns, values)
               codes, or        measure.pairs_at
               float32 products

*The exact answer* is every pair whose value by `measure.pairs` is at least the threshold (of a
distance: at most), the threshold rounded to float32, as values are. `pairs` gives a pair the same
bits in any company, so the answer does not depend on tiles, tasks, threads or the CPU.

A pair that reaches the threshold has a nearness of at least `useful_key` (simdist.tiles.exact: the
rounding of both is bounded there). Candidates are the pairs whose nearness may be that large: by
int8 codes with a bound on what they leave out (simdist.compiled.screen), or by float32 products,
which are slower and leave less over. Which of the two is used changes what is computed, not what
comes out; where codes leave too much over (a low threshold, rows all alike), products take over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from simdist.errors import ConfigError
from simdist.measures.base import Measure, Prepared
from simdist.tiles.candidates import PAIRS
from simdist.tiles.exact import key_error, reach, signed, useful_key
from simdist.tiles.fold import Check
from simdist.tiles.shape import Tile, cuts
from simdist.types import Bools, Float32, Int32

__all__ = ["Sink", "Threshold", "Way", "fold_threshold", "threshold_nbytes"]

Sink: TypeAlias = Callable[[Int32, Int32, Float32], None]  # positions of both sides, values
Way: TypeAlias = Literal["codes", "products"]

BATCH = PAIRS  # candidates evaluated at a time
LEFT_OVER = 1 / 8  # of the pairs: more candidates than that cost more than a product
CODE_CHUNK = 64  # bytes: codes are whole cache lines
MOST_CODED = 1 << 17  # columns: products of more could be beyond 2^31
WASTED = 1 / 2  # of the candidates: fewer that reach the threshold, and a product would spare some


@dataclass(frozen=True, slots=True)
class Threshold:
    """value >= threshold of a similarity, value <= threshold of a distance, in float32."""

    measure: Measure
    value: float

    def __post_init__(self) -> None:
        traits, value = self.measure.traits, self.value
        low, high = (traits.low, traits.high)
        if not np.isfinite(np.float32(value)):
            raise ConfigError(
                f"threshold={value}: expected a finite number, in the measure's units"
            )
        worst, best = (low, high) if traits.kind == "similarity" else (high, low)
        sign = 1.0 if traits.kind == "similarity" else -1.0
        if sign * value > sign * best:
            raise ConfigError(
                f"threshold={value}: no pair reaches it, {self.measure.name} lies in"
                f" [{low}, {high}]. A {traits.kind} {_compared(traits.kind)} it is kept."
            )
        if sign * value <= sign * worst:
            raise ConfigError(
                f"threshold={value}: every pair reaches it, {self.measure.name} lies in"
                f" [{low}, {high}]. A {traits.kind} {_compared(traits.kind)} it is kept."
            )

    def reached(self, values: Float32) -> Bools:
        """Which values are near enough."""
        limit = np.float32(self.value)
        near: Bools = (
            values >= limit if self.measure.traits.kind == "similarity" else (values <= limit)
        )
        return near

    def floors(self, X: Prepared, Y: Prepared) -> Float32:
        """[n] the nearness that a pair of each row reaches at least where its value is near
        enough; of rows and columns as their products are formed."""
        error = key_error(self.measure, X, reach(Y))
        floor = signed(self.measure, np.full(len(X), self.value, np.float32))
        return useful_key(self.measure, error, floor)


def _compared(kind: str) -> str:
    return "of at least" if kind == "similarity" else "of at most"


@dataclass(frozen=True, slots=True)
class _Sides:
    """Both sides of a block pair: as values are computed, and as products are formed."""

    X: Prepared
    Y: Prepared
    near_rows: Prepared
    near_columns: Prepared
    above: bool  # one block against itself: only columns past the row


def fold_threshold(
    threshold: Threshold,
    X: Prepared,
    Y: Prepared | None,
    sink: Sink,
    *,
    near: Callable[[Prepared], Prepared] = lambda rows: rows,
    way: Way | None = None,
    check: Check | None = None,
) -> None:
    """Every pair that reaches the threshold, to the sink, batch by batch.

    X: [n, d]; Y: [m, d], or None: pairs of X among themselves, each once, row before column.
    sink: takes positions in X and in Y and values of at most BATCH pairs at a time. Of any one row,
        columns come in ascending order.
    near: rows as products of them are precise (`RowPanels.near`).
    way: how candidates are found; None: by codes where this CPU multiplies bytes and the measure
        has a GEMM form, as long as they leave little over.
    """
    sides = _sides(X, Y, near)
    if not len(sides.X) or not len(sides.Y):
        return
    floors = threshold.floors(sides.near_rows, sides.near_columns)
    first = 0
    if _by_codes(threshold, way, sides.X.vectors.shape[1]):
        first = _fold_codes(threshold, sides, floors, sink, stay=way is not None, check=check)
    if first < len(sides.Y):
        _fold_products(threshold, sides, floors, sink, first=first, check=check)


def threshold_nbytes(measure: Measure, n: int, m: int | None, d: int) -> int:
    """What `fold_threshold` holds at most beside the rows given: the copies that products need,
    codes, tiles and candidates. What the sink keeps is its own."""
    rows = n + (m or 0)
    movable = measure.traits.gemm and measure.traits.shift_invariant
    moved = 4 * rows * (d + 1) if movable else 0
    codes = rows * (-(-d // CODE_CHUNK) * CODE_CHUNK + 64) + (1 << 20)
    tile = 4 * Tile().within(n, m or n).nbytes
    return moved + codes + tile + 80 * BATCH + 40 * rows


def _sides(X: Prepared, Y: Prepared | None, near: Callable[[Prepared], Prepared]) -> _Sides:
    near_rows = near(X)
    if Y is None:
        return _Sides(X, X, near_rows, near_rows, above=True)
    return _Sides(X, Y, near_rows, near(Y), above=False)


def _by_codes(threshold: Threshold, way: Way | None, dim: int) -> bool:
    if not threshold.measure.traits.gemm or way == "products" or dim > MOST_CODED:
        return False
    from simdist.compiled.screen import VNNI  # noqa: PLC0415 - numba only where needed

    return VNNI or way == "codes"


def _fold_codes(
    threshold: Threshold,
    sides: _Sides,
    floors: Float32,
    sink: Sink,
    *,
    stay: bool,
    check: Check | None,
) -> int:
    """Tiles of codes, column tile by column tile; the first column that is not done. stay: to the
    end, whatever is left over."""
    from simdist.compiled.screen import Screen, encode  # noqa: PLC0415 - numba only where needed

    centre = sides.near_rows.vectors.mean(axis=0, dtype=np.float64)
    rows = encode(sides.near_rows.vectors, sides.near_rows.terms, centre)
    columns = rows
    if not sides.above:
        columns = encode(sides.near_columns.vectors, sides.near_columns.terms, centre)
    tiles = Screen(rows, columns, floors.astype(np.float64), above=sides.above)
    candidates = np.empty((2, max(BATCH, tiles.room)), np.int32)
    for first in range(0, len(columns), tiles.size):
        seen = found = 0
        for count in tiles.batches(first, candidates):
            if check is not None:
                check()
            seen += count
            found += _evaluate(threshold, sides, candidates[:, :count], sink)
        if not stay and seen > LEFT_OVER * tiles.pairs(first) and found < WASTED * seen:
            return first + tiles.size
    return len(columns)


def _fold_products(
    threshold: Threshold,
    sides: _Sides,
    floors: Float32,
    sink: Sink,
    *,
    first: int,
    check: Check | None,
) -> None:
    """Tiles of float32 products (or of whatever the measure's nearness is), from a column on."""
    shape = Tile().within(len(sides.X), len(sides.Y))
    for j in cuts(first, len(sides.Y), shape.columns):
        columns = sides.near_columns.take(j)
        for i in cuts(0, min(len(sides.X), j.stop) if sides.above else len(sides.X), shape.rows):
            if check is not None:
                check()
            near = threshold.measure.nearness(sides.near_rows.take(i), columns)
            chosen = near >= floors[i][:, None]
            if sides.above and i.stop > j.start:
                chosen &= np.arange(j.start, j.stop) > np.arange(i.start, i.stop)[:, None]
            for batch in _batches(chosen):
                corner = np.array([[i.start], [j.start]], np.int32)
                _evaluate(threshold, sides, batch + corner, sink)


def _batches(chosen: Bools) -> Iterator[Int32]:
    """The places of a tile's chosen entries, [2, at most BATCH] at a time."""
    step = max(1, BATCH // chosen.shape[1])
    for cut in cuts(0, len(chosen), step):
        rows, columns = np.nonzero(chosen[cut])
        if len(rows):
            yield np.stack([rows + cut.start, columns]).astype(np.int32)


def _evaluate(threshold: Threshold, sides: _Sides, candidates: Int32, sink: Sink) -> int:
    """Values of candidates, those that reach the threshold to the sink; how many they are."""
    rows, columns = candidates
    values = threshold.measure.pairs_at(sides.X, rows, sides.Y, columns)
    near = threshold.reached(values)
    if near.all():
        kept = rows.copy(), columns.copy(), values
    else:
        kept = rows[near], columns[near], values[near]
    if len(kept[0]):
        sink(*kept)
    return len(kept[0])
