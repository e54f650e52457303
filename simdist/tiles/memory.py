"""What a fold will hold, in bytes, before it runs.

    vectors   prepared rows, float32, and the copy that preparing makes of one side at a time
    states    the reducer's, for every side it folds
    tile      one tile and what measure and reducer need beside it, ids included

The sum is an upper bound of what numpy allocates inside the call, and at most 2.5 times that
(tested with tracemalloc, for float16 and float32 input; float32 rows that a measure need not copy
are counted as if it did). Not counted: arrays the caller holds (raw vectors, `start`, candidate
lists), and the packing buffers of BLAS, about 32 MiB per thread that multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simdist.measures.base import Measure
from simdist.tiles.candidates import PAIRS
from simdist.tiles.reducers import Reducer
from simdist.tiles.screened import large_enough, screened_nbytes
from simdist.tiles.shape import Tile

__all__ = [
    "Memory",
    "around_nbytes",
    "candidates_memory",
    "exact_memory",
    "fold_memory",
    "pair_memory",
    "rerank_memory",
]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by what they are for."""

    vectors: int
    states: int
    tile: int

    @property
    def nbytes(self) -> int:
        return self.vectors + self.states + self.tile

    def __str__(self) -> str:
        parts = {"vectors": self.vectors, "states": self.states, "tile": self.tile}
        return " + ".join(f"{name} {_readable(nbytes)}" for name, nbytes in parts.items())


def fold_memory(
    measure: Measure,
    reducer: Reducer[Any],
    n: int,
    m: int | None,
    d: int,
    *,
    tile: Tile | None = None,
) -> Memory:
    """Of `fold`: n rows of d dimensions against m columns, or against themselves (m=None)."""
    columns = n if m is None else m
    return Memory(
        vectors=_vectors(n, m or 0, d),
        states=reducer.nbytes(n, columns),
        tile=_tile(measure, reducer, n, columns, tile or Tile()),
    )


def pair_memory(
    measure: Measure,
    reducer: Reducer[Any],
    n_a: int,
    n_b: int,
    d: int,
    *,
    tile: Tile | None = None,
) -> Memory:
    """Of `fold_pair`: blocks of n_a and n_b rows."""
    return Memory(
        vectors=_vectors(n_a, n_b, d),
        states=reducer.nbytes(n_a, n_b) + reducer.nbytes(n_b, n_a),
        tile=_tile(measure, reducer, n_a, n_b, tile or Tile()),
    )


def candidates_memory(
    reducer: Reducer[Any], n: int, m: int | None, d: int, *, longest: int = 0, pairs: int = PAIRS
) -> Memory:
    """Of `fold_candidates`: lists of n rows into m columns (None: the rows themselves).

    longest: the longest list, where it is more than `pairs`.
    """
    batch = max(pairs, longest)
    return Memory(
        vectors=_vectors(n, m or 0, d),
        states=reducer.nbytes(n, m or n),
        tile=_PAIR_NBYTES * batch + reducer.scratch_nbytes(batch, 1) + 24 * (n + (m or 0)),
    )


def rerank_memory(
    n: int, m: int | None, d: int, length: int, k: int, *, pairs: int = PAIRS
) -> Memory:
    """Of `exact.rerank`: lists of `length` columns for n rows, over m columns (None: the rows)."""
    return Memory(
        vectors=_vectors(n, m or 0, d),
        states=12 * n * k,
        tile=2 * _PAIR_NBYTES * min(max(pairs, length), n * length)
        + 32 * (n + (m or 0))
        + 9 * n
        + n * length,
    )


def exact_memory(n: int, m: int, d: int, k: int, *, tile: Tile | None = None) -> Memory:
    """Of what `exact.nearest` may do besides a fold: `exact.fold_exact`, or codes. n rows, all
    different, over m columns."""
    shape = (tile or Tile()).within(n, m)
    coded = screened_nbytes(n, m, d, k) if large_enough(n, m, k) else 0
    return Memory(
        # Finding duplicates takes two copies of the rows; then their distinct ones stay.
        vectors=_vectors(n, m, d) + 12 * n * (d + 1),
        states=12 * n * (2 * k + 1) + 9 * n * (k + 1),
        tile=max(
            _EXACT_NBYTES * shape.rows * shape.columns
            + _PAIR_NBYTES * min(PAIRS, shape.rows * shape.columns),
            coded,
        )
        + 40 * (n + m),
    )


def around_nbytes(measure: Measure, n: int, m: int, d: int) -> int:
    """Of the copies that `exact.nearest` and `exact.fold_exact` take keys from where rows lie far
    from the origin: n rows and m columns under L2, nothing under other measures."""
    movable = measure.traits.gemm and measure.traits.shift_invariant
    return 4 * (n + m) * (d + 1) if movable else 0


_PAIR_NBYTES = 48  # positions, ids, the float64 sum, its float32 rounding and terms
_EXACT_NBYTES = 14  # a tile made in two steps while the last one lingers, and what was chosen


def _vectors(n: int, m: int, d: int) -> int:
    return 4 * (n + m) * (d + 1) + 4 * max(n, m) * d


def _tile(measure: Measure, reducer: Reducer[Any], n: int, m: int, tile: Tile) -> int:
    shape = (Tile(tile.rows, max(1, m)) if reducer.whole_rows else tile).within(n, m)
    # A GEMM reuses one buffer; otherwise a tile is made in two steps while the last one lingers.
    tiles = 1 if reducer.wants == "nearness" and measure.traits.gemm else 3
    scratch = max(
        reducer.scratch_nbytes(shape.rows, shape.columns),
        reducer.scratch_nbytes(shape.columns, shape.rows) if reducer.by_row else 0,
    )
    return tiles * shape.nbytes + scratch + 16 * (n + m)


def _readable(nbytes: int) -> str:
    size, unit = float(nbytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
