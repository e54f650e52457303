"""What kernels of a distance between scaled rows share: lengthscales, and the float32 face.

    k(x, y) = f(distance(x / l, y / l))         f(0) = 1, falling

As measures they keep the form of the distance inside: its prepared rows, its nearness (far pairs,
whose value is 0 in float32, keep their order), its listed pairs; f comes last.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from simdist.measures.base import Measure
from simdist.measures.kernels.base import KernelGradient
from simdist.measures.kernels.leaf import Leaf, Scales
from simdist.measures.rows import Prepared, Rows
from simdist.types import Array, Float32, Float64

__all__ = ["OfDistance"]


@dataclass(frozen=True, slots=True, repr=False)
class OfDistance(Leaf):
    """See the module docstring.

    lengthscale: one number, or one per column (a tuple; or `ard=True`, and `for_dim(d)` later).
    inside: the distance, as a measure.
    """

    lengthscale: Scales = 1.0
    ard: bool = False

    parameters: ClassVar[tuple[str, ...]] = ("lengthscale",)
    per_column: ClassVar[str | None] = "lengthscale"
    inside: ClassVar[Measure]

    @abstractmethod
    def profile(self, distances: Array) -> Array:
        """f, elementwise, of any float dtype and shape; may write into what it is given."""

    # -- float64 --

    def diagonal(self, X: Array) -> Float64:
        return np.ones(len(self._rows(X)))

    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        flat = np.zeros(self._rows(X).shape[1])
        theta = self._theta_gradient(**dict.fromkeys(self.parameters, flat))
        return KernelGradient(theta, np.zeros(np.shape(X)) if inputs else None)

    # -- float32 --

    def represent(self, X: Array) -> Prepared:
        weights = np.zeros(X.shape[1])  # columns that are not read: 0
        read = slice(None) if self.active is None else list(self.active)
        weights[read] = 1.0 / np.asarray(self._scales(self._count(X.shape[1])))
        with np.errstate(over="ignore"):
            return self.inside.represent(X * weights)  # float64: rounded once

    def block(self, X: Rows, Y: Rows) -> Float32:
        return self._of(self.inside.block(*self.both(X, Y)))

    def pairs(self, X: Rows, Y: Rows) -> Float32:
        return self._of(self.inside.pairs(*self.matched(X, Y)))

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        A, B = self.both(X, Y)
        return self._of(self.inside.pairs_at(A, rows, B, columns))

    def diag(self, X: Rows) -> Float32:
        return np.ones(len(self.prepare(X)), np.float32)

    def nearness(self, X: Rows, Y: Rows) -> Float32:
        return self.inside.nearness(*self.both(X, Y))

    def correct(self, nearness: Float32) -> Float32:
        return self._of(self.inside.correct(nearness))

    def _of(self, distances: Float32) -> Float32:
        with np.errstate(under="ignore"):
            values: Float32 = self.profile(distances)
            return values

    # -- for subclasses --

    def _gaps(self, X: Array, Y: Array) -> Float64:
        """(X_i - Y_i) / l -> [n, k], row by row."""
        A, B = self._both_rows(X, Y)
        gaps: Float64 = (A - B) / self._scales(A.shape[1])
        return gaps

    def _scaled(self, X: Array, Y: Array) -> tuple[Float64, Float64]:
        """Both sides over their lengthscales, from the middle of Y; one array where one came."""
        A, B = self._both_rows(X, Y)
        scales = self._scales(A.shape[1])
        middle = B.mean(axis=0) if len(B) else 0.0
        seen: Float64 = (A - middle) / scales
        return seen, (seen if B is A else (B - middle) / scales)
