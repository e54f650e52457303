"""What kernels of the Euclidean distance share: K = f(r^2), and the way back by f'(r^2)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from simdist.measures.base import Measure, Traits
from simdist.measures.kernels.base import KernelGradient, Pullback
from simdist.measures.kernels.distance import OfDistance
from simdist.measures.kernels.squares import Squares
from simdist.measures.rows import as_points
from simdist.measures.vectors import SqEuclidean
from simdist.types import Array, Float64

__all__ = ["Radial"]


@dataclass(frozen=True, slots=True, repr=False)
class Radial(OfDistance):
    """f(r) of r = |(x - y) / lengthscale|, 1 at r = 0 and falling.

    lengthscale: one number, or one per column (a tuple; or `ard=True`, and `for_dim(d)` later).

    `profile` takes r^2. slope: c where f'(r^2) = c S, and S is what `fill` leaves.
    """

    inside: ClassVar[Measure] = SqEuclidean()
    slope: ClassVar[float] = -0.5
    own_slope: ClassVar[bool] = True  # False: S is K itself, as for RBF
    traits = Traits(kind="similarity", psd=True, low=0.0, high=1.0, gemm=True, shift_invariant=True)

    # -- what a subclass says --

    @abstractmethod
    def fill(self, r2: Float64, S: Float64) -> None:
        """K over r2, and S into S. Where f' has no value, S is 0."""

    def shape_gradient(self, C: Float64, K: Float64, S: Float64) -> dict[str, float]:
        """sum_ij C_ij df/dlog(parameter) of the parameters that are no lengthscale."""
        return {}

    # -- float64 --

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        gaps = self._gaps(x[None], y[None])
        return float(self.profile(np.square(gaps).sum(axis=1))[0])

    def matrix(self, X: Array, Y: Array) -> Float64:
        squares = self._squares(X, Y)
        K = np.empty((len(squares.A), len(squares.B)))
        squares.map(K, by=self._profile_over)
        return K

    def rowwise(self, X: Array, Y: Array) -> Float64:
        gaps = self._gaps(X, Y)
        return self.profile(np.einsum("ij,ij->i", gaps, gaps))

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        squares = self._squares(X, Y)
        K = np.empty((len(squares.A), len(squares.B)))
        S = np.empty_like(K) if self.own_slope else K
        if self.own_slope:
            squares.map(K, S, by=self.fill)
        else:
            squares.map(K, by=self._profile_over)
        d = np.shape(X)[1]

        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            found = squares.back(C, S, inputs=inputs)
            theta = self._theta_gradient(
                lengthscale=-2.0 * self.slope * found.scaled,
                **self.shape_gradient(C, K, S),
            )
            if found.A is None or found.B is None:
                return KernelGradient(theta)
            weights = self.slope / self._scales(found.A.shape[1])
            return KernelGradient(
                theta, self._back(found.A * weights, d), self._back(found.B * weights, d)
            )

        return K, pullback

    # -- helpers --

    def _squares(self, X: Array, Y: Array) -> Squares:
        return Squares.of(*self._scaled(X, Y), name=self.name)

    def _profile_over(self, r2: Float64) -> None:
        K = self.profile(r2)
        if K is not r2:
            r2[:] = K
