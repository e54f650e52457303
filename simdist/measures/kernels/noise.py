"""Kernels that do not look at the rows: `Constant` and `White`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from simdist.measures.base import Traits
from simdist.measures.kernels.base import Kernel, KernelGradient, Pullback
from simdist.measures.kernels.leaf import Leaf
from simdist.measures.rows import Rows, as_points
from simdist.types import Array, Float32, Float64

__all__ = ["Constant", "White"]


@dataclass(frozen=True, slots=True, repr=False)
class Constant(Leaf):
    """The same for every two rows: an unknown offset of the whole function.

    variance: positive.
    """

    variance: float = 1.0

    name = "constant"
    parameters: ClassVar[tuple[str, ...]] = ("variance",)

    @property
    def traits(self) -> Traits:
        value = float(np.float32(self.variance))
        return Traits(kind="similarity", psd=True, low=value, high=value, shift_invariant=True)

    def pair(self, x: Array, y: Array) -> float:
        as_points(x, y, of=self.name)
        return self.variance

    def matrix(self, X: Array, Y: Array) -> Float64:
        A, B = self._both_rows(X, Y)
        return np.full((len(A), len(B)), self.variance)

    def diagonal(self, X: Array) -> Float64:
        return np.full(len(self._rows(X)), self.variance)

    def rowwise(self, X: Array, Y: Array) -> Float64:
        A, _ = self._both_rows(X, Y)
        return np.full(len(A), self.variance)

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            theta = self._theta_gradient(variance=self.variance * float(C.sum()))
            return _flat(theta, X, Y, inputs=inputs)

        return self.matrix(X, Y), pullback

    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        self._rows(X)
        theta = self._theta_gradient(variance=self.variance * float(np.sum(c)))
        return _flat(theta, X, None, inputs=inputs)


@dataclass(frozen=True, slots=True, repr=False)
class White(Leaf):
    """Noise that every row has for itself: `variance` of a row with itself, 0 between two rows.

    Which rows are one is told by identity, never by what they hold: in `matrix(X, X)`, one array
    on both sides, row i is row i; two arrays are rows of two, even where they are equal. So new
    rows that repeat old ones do not share their noise, and a prediction, `matrix(new, old)`, never
    sees it. Of two points, `pair(x, x)` with one object. scikit-learn's WhiteKernel does the same.
    Tiles and graphs, whose blocks are cut out of the rows, see it in `diag` alone.

    variance: positive.
    """

    variance: float = 1.0

    name = "white"
    parameters: ClassVar[tuple[str, ...]] = ("variance",)

    @property
    def traits(self) -> Traits:
        high = float(np.float32(self.variance))
        return Traits(kind="similarity", psd=True, low=0.0, high=high, shift_invariant=True)

    def pair(self, x: Array, y: Array) -> float:
        as_points(x, y, of=self.name)
        return self.variance if y is x else 0.0

    def matrix(self, X: Array, Y: Array) -> Float64:
        A, B = self._both_rows(X, Y)
        K = np.zeros((len(A), len(B)))
        if Y is X:
            np.fill_diagonal(K, self.variance)
        return K

    def diagonal(self, X: Array) -> Float64:
        return np.full(len(self._rows(X)), self.variance)

    def rowwise(self, X: Array, Y: Array) -> Float64:
        A, _ = self._both_rows(X, Y)
        return np.full(len(A), self.variance if Y is X else 0.0)

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        A, B = self.both(X, Y)
        rows, columns = self.listed(A, rows, B, columns)
        same = (rows == columns) & (Y is X)
        return np.where(same, np.float32(self.variance), np.float32(0.0))

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            seen = float(np.trace(C)) if Y is X else 0.0
            theta = self._theta_gradient(variance=self.variance * seen)
            return _flat(theta, X, Y, inputs=inputs)

        return self.matrix(X, Y), pullback

    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        self._rows(X)
        theta = self._theta_gradient(variance=self.variance * float(np.sum(c)))
        return _flat(theta, X, None, inputs=inputs)

    def noiseless(self) -> Kernel | None:
        return None


def _flat(theta: Float64, X: Array, Y: Array | None, *, inputs: bool) -> KernelGradient:
    """A gradient that the rows have no part in."""
    if not inputs:
        return KernelGradient(theta)
    return KernelGradient(
        theta, np.zeros(np.shape(X)), None if Y is None else np.zeros(np.shape(Y))
    )
