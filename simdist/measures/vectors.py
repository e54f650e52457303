"""Measures between vectors: inner product, cosine, Euclidean and Manhattan.

    Dot          x.y                                     similarity, psd
    Cosine       x.y / (|x| |y|)                         similarity, psd, no value for zeros
    SqEuclidean  |x - y|^2 = |x|^2 + |y|^2 - 2 x.y       distance
    Euclidean    |x - y|                                 distance, metric
    Manhattan    sum_k |x_k - y_k|                       distance, metric, no GEMM form

*Precision.* A block of Euclidean distances comes from a matrix product, which cancels for
near-duplicates: its squared distances are off by up to about c eps (|x|^2 + |y|^2), with
eps = 1.2e-7 and c = max(4, sqrt(d) / 2), so two rows of length 1 closer than about 1e-3 look alike
(and a negative square is clipped to 0). Centring the data once helps where rows are long against
their distances. `pairs` subtracts first and is exact to float32 rounding, whatever the distance:
take it for every value that is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.measures.base import Measure, Traits
from simdist.measures.in_place import AsTheyAre, InPlace, Units, odd_lengths
from simdist.measures.rows import Prepared, Rows, as_float32, as_points, square_norms
from simdist.types import Array, Float32, Float64, Ids

__all__ = ["Cosine", "Dot", "Euclidean", "Manhattan", "SqEuclidean"]


class _CompiledPairs(Measure):
    """A measure whose listed pairs run in one kernel of `simdist.compiled.distances`."""

    __slots__ = ()

    kernel: ClassVar[str]

    def pairs(self, X: Rows, Y: Rows) -> Float32:
        A, B = self.matched(X, Y)
        order = np.arange(len(A))
        return self.pairs_at(A, order, B, order)

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        from simdist.compiled import distances  # noqa: PLC0415  numba comes with the first call

        A, B = self.both(X, Y)
        rows, columns = self.listed(A, rows, B, columns)
        values: Float32 = getattr(distances, self.kernel)(A.vectors, rows, B.vectors, columns)
        return values

    def in_place(self, rows: Float32) -> InPlace:
        return AsTheyAre(self, rows)


@dataclass(frozen=True, slots=True)
class Dot(_CompiledPairs):
    """The inner product, x.y. Larger is more similar; a row need not be most similar to itself."""

    name = "dot"
    kernel = "dots"
    traits = Traits(kind="similarity", psd=True, gemm=True)

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        return float(x @ y)

    def represent(self, X: Array) -> Prepared:
        vectors = as_float32(X, of=self.name)
        square_norms(vectors, of=self.name)  # refuses rows whose products overflow
        return Prepared(vectors)


@dataclass(frozen=True, slots=True)
class Cosine(_CompiledPairs):
    """The cosine of the angle between two rows, x.y / (|x| |y|), in [-1, 1].

    Rows are normalised once, in the precision they come in, so their lengths may lie anywhere.
    A row of zeros has no direction: InputError with its number. Values near 1 resolve angles down
    to about 5e-4 radians: for finer ones take Euclidean on normalised rows.
    """

    name = "cosine"
    kernel = "dots"
    traits = Traits(kind="similarity", psd=True, low=-1.0, high=1.0, zero_rows=False, gemm=True)

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        if not (x.any() and y.any()):
            raise InputError("cosine has no value for a point of zeros: it has no direction.")
        x, y = x / np.abs(x).max(), y / np.abs(y).max()  # so that squares do not overflow
        cosine = float(x @ y) / float(np.linalg.norm(x) * np.linalg.norm(y))
        return min(1.0, max(-1.0, cosine))

    def represent(self, X: Array) -> Prepared:
        from simdist.compiled.norms import unit_rows  # noqa: PLC0415 - numba at the first call

        rows = X if X.dtype == np.float64 else as_float32(X, of=self.name)
        vectors, lengths = unit_rows(rows)
        # Decided row by row, so that a row has the same bits in any company.
        odd = np.flatnonzero(odd_lengths(lengths))
        if len(odd):
            vectors[odd] = self._rescaled(rows, odd)
        return Prepared(vectors)

    def diag(self, X: Rows) -> Float32:
        return np.ones(len(self.prepare(X)), np.float32)

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        return self.correct(_CompiledPairs.pairs_at(self, X, rows, Y, columns))

    def correct(self, nearness: Float32) -> Float32:
        return np.clip(nearness, -1.0, 1.0)

    def in_place(self, rows: Float32) -> InPlace:
        return Units(self, rows)

    def _rescaled(self, rows: Array, odd: Ids) -> Float64:
        """Unit rows of `odd`, whose squares overflow or vanish: their largest entry goes first."""
        chosen = rows[odd].astype(np.float64)
        largest = np.abs(chosen).max(axis=1, keepdims=True)
        zero = odd[largest[:, 0] == 0]
        if len(zero):
            raise InputError(
                f"cosine has no value for a row of zeros, and row {zero[0]} of rows of shape "
                f"{rows.shape} is one ({len(zero)} in all). Drop it, or use a measure that takes "
                f"zeros, such as euclidean."
            )
        chosen /= largest
        unit: Float64 = chosen / np.sqrt(np.einsum("ij,ij->i", chosen, chosen))[:, None]
        return unit


@dataclass(frozen=True, slots=True)
class SqEuclidean(_CompiledPairs):
    """The squared Euclidean distance, |x - y|^2. Precision of blocks: module docstring."""

    name = "sqeuclidean"
    kernel = "square_gaps"
    traits = Traits(kind="distance", low=0.0, gemm=True, negative_type=True, shift_invariant=True)

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        return float(np.square(x - y).sum())

    def represent(self, X: Array) -> Prepared:
        return _with_half_squares(X, of=self.name)

    def diag(self, X: Rows) -> Float32:
        return np.zeros(len(self.prepare(X)), np.float32)

    def correct(self, nearness: Float32) -> Float32:
        return _squares(nearness)


@dataclass(frozen=True, slots=True)
class Euclidean(_CompiledPairs):
    """The Euclidean distance, |x - y|. Precision of blocks: module docstring."""

    name = "euclidean"
    kernel = "gaps"
    traits = Traits(
        kind="distance",
        metric=True,
        low=0.0,
        gemm=True,
        negative_type=True,
        shift_invariant=True,
    )

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        return float(np.linalg.norm(x - y))

    def represent(self, X: Array) -> Prepared:
        return _with_half_squares(X, of=self.name)

    def diag(self, X: Rows) -> Float32:
        return np.zeros(len(self.prepare(X)), np.float32)

    def correct(self, nearness: Float32) -> Float32:
        squares = _squares(nearness)
        return np.sqrt(squares, out=squares)


@dataclass(frozen=True, slots=True)
class Manhattan(_CompiledPairs):
    """The Manhattan distance, sum_k |x_k - y_k|. No GEMM form: a compiled loop, about 3 times the
    time of a matrix product of the same shape."""

    name = "manhattan"
    kernel = "absolute_gaps"
    traits = Traits(kind="distance", metric=True, low=0.0, negative_type=True, shift_invariant=True)

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        return float(np.abs(x - y).sum())

    def block(self, X: Rows, Y: Rows) -> Float32:
        from simdist.compiled import distances  # noqa: PLC0415  numba comes with the first call

        A, B = self.both(X, Y)
        return distances.manhattan_block(A.vectors, B.vectors)

    def diag(self, X: Rows) -> Float32:
        return np.zeros(len(self.prepare(X)), np.float32)


def _with_half_squares(X: Array, *, of: str) -> Prepared:
    """x and -|x|^2 / 2, so that nearness = x.y - |x|^2 / 2 - |y|^2 / 2 = -|x - y|^2 / 2."""
    vectors = as_float32(X, of=of)
    return Prepared(vectors, (-0.5 * square_norms(vectors, of=of)).astype(np.float32))


def _squares(nearness: Float32) -> Float32:
    """-|x - y|^2 / 2 to |x - y|^2, a new array; what cancelled below 0 becomes 0."""
    squares = np.multiply(nearness, np.float32(-2.0))
    return np.maximum(squares, np.float32(0.0), out=squares)
