"""Rows that lie in memory as they came, prepared whenever they are asked for: nothing as large as
the data set is held twice.

    InPlace     any measure: copies of the rows that some pairs name, each once
    AsTheyAre   rows whose prepared vectors are the rows themselves: nothing is copied
    Units       cosine: a row is divided by its length while a pair is computed

Values have the bits of `pairs_at` on prepared rows.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simdist.measures.rows import Prepared
from simdist.types import Array, Bools, Float32, Float64, Int32

if TYPE_CHECKING:
    from simdist.measures.base import Measure

__all__ = ["AsTheyAre", "InPlace", "Units", "odd_lengths"]

COPIED_NBYTES = 16 << 20  # of the rows that pairs name


class InPlace:
    """rows: [n, d] float32, finite, C-contiguous, fewer than 2^31; kept by reference."""

    def __init__(self, measure: Measure, rows: Float32) -> None:
        self.measure, self.rows = measure, rows

    def take(self, chosen: Array) -> Prepared:
        """Prepared copies of the rows `chosen` [m], in that order."""
        return self.measure.represent(self._copied(chosen))

    def pairs(self, left: Int32, right: Int32) -> Float32:
        """Values between rows left[p] and right[p] -> [p]."""
        from simdist.compiled.distinct import distinct  # noqa: PLC0415 - numba at the first call

        values = np.empty(len(left), np.float32)
        step = max(COPIED_NBYTES // (16 * self.rows.shape[1]), 1)
        for start in range(0, len(left), step):
            part = slice(start, start + step)
            named = np.concatenate([left[part], right[part]])
            found, which = distinct(named, len(named))
            rows, half = self.take(found), len(named) // 2
            values[part] = self.measure.pairs_at(rows, which[:half], rows, which[half:])
        return values

    def _copied(self, chosen: Array) -> Float32:
        from simdist.compiled.blocks import Blocks  # noqa: PLC0415 - numba at the first call

        return Blocks.of([self.rows], 1 << len(self.rows).bit_length()).take(chosen)


class AsTheyAre(InPlace):
    """Of a measure whose listed pairs need no more than the rows."""

    def pairs(self, left: Int32, right: Int32) -> Float32:
        rows = Prepared(self.rows)
        return self.measure.pairs_at(rows, left, rows, right)


class Units(InPlace):
    """Of cosine."""

    @cached_property
    def _divisors(self) -> Float32 | None:
        """[n] lengths; None where a row has one that it cannot be divided by as it is."""
        from simdist.compiled.norms import square_lengths  # noqa: PLC0415 - numba at the first call

        lengths = np.sqrt(square_lengths(self.rows))
        return None if odd_lengths(lengths).any() else lengths.astype(np.float32)

    def pairs(self, left: Int32, right: Int32) -> Float32:
        from simdist.compiled.distances import unit_dots  # noqa: PLC0415 - numba at the first call

        if self._divisors is None:
            return InPlace.pairs(self, left, right)
        return self.measure.correct(unit_dots(self.rows, self._divisors, left, right))


def odd_lengths(lengths: Float64) -> Bools:
    """Which rows are too long or too short to be divided by their length as it is."""
    odd: Bools = ~((lengths > 1e-30) & (lengths < 1e30))
    return odd
