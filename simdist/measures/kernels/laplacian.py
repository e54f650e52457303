"""The kernel of the Manhattan distance: `Laplacian`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from simdist.measures.base import Measure, Traits
from simdist.measures.kernels.base import KernelGradient, Pullback
from simdist.measures.kernels.distance import OfDistance
from simdist.measures.rows import as_points
from simdist.measures.vectors import Manhattan
from simdist.types import Array, Float64

__all__ = ["Laplacian"]


@dataclass(frozen=True, slots=True, repr=False)
class Laplacian(OfDistance):
    """exp(-sum_k |x_k - y_k| / lengthscale_k): a product of one exponential kernel per column.

    Rough, and kind to columns that jump. There is no matrix product for it: a compiled loop of
    n m d steps each way. At equal entries, where it has no gradient, 0 is taken. scikit-learn's
    gamma is 1 / lengthscale.
    """

    name = "laplacian"
    inside: ClassVar[Measure] = Manhattan()
    traits = Traits(kind="similarity", psd=True, low=0.0, high=1.0, shift_invariant=True)

    def profile(self, distances: Array) -> Array:
        np.negative(distances, out=distances)
        return np.exp(distances, out=distances)

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        return math.exp(-float(np.abs(self._gaps(x[None], y[None])).sum()))

    def matrix(self, X: Array, Y: Array) -> Float64:
        from simdist.compiled import gaps  # noqa: PLC0415  numba comes with the first call

        return self.profile(gaps.absolute_gaps(*self._scaled(X, Y)))

    def rowwise(self, X: Array, Y: Array) -> Float64:
        distances = np.einsum("ij->i", np.abs(self._gaps(X, Y)))
        return self.profile(distances)

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        from simdist.compiled import gaps  # noqa: PLC0415  numba comes with the first call

        A, B = self._scaled(X, Y)
        K = self.profile(gaps.absolute_gaps(A, B))
        d = np.shape(X)[1]

        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            dA, dB, scaled = gaps.absolute_back(C * K, A, B)
            theta = self._theta_gradient(lengthscale=scaled)
            if not inputs:
                return KernelGradient(theta)
            weights = -1.0 / self._scales(A.shape[1])
            return KernelGradient(theta, self._back(dA * weights, d), self._back(dB * weights, d))

        return K, pullback
