"""Kernels that come back: `Periodic` in every column, `Cosine` along one direction.

Both see rows as points on circles, where they are an RBF and an inner product:

    Periodic   U = (cos a, sin a) / l, a = 2 pi x / p,  |U_i - V_j| = 2 sin(pi (x_i - y_j) / p) / l
    Cosine     u = (cos a, sin a), a = 2 pi sum_k x_k / p_k,  u_i . v_j = cos(a_i - b_j)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from simdist.measures.base import Traits
from simdist.measures.kernels.base import KernelGradient, Pullback
from simdist.measures.kernels.leaf import Leaf, Scales
from simdist.measures.kernels.squares import Squares
from simdist.measures.rows import as_points
from simdist.types import Array, Float64

__all__ = ["Cosine", "Periodic"]


@dataclass(frozen=True, slots=True, repr=False)
class Periodic(Leaf):
    """exp(-2 sum_k (sin(pi (x_k - y_k) / period) / lengthscale_k)^2): seasons.

    lengthscale: one number, or one per column (a tuple, or `ard=True`), in units of the circle:
        at 1 or more a season is about one wave, at 0.1 it has many.
    period: one number, in the columns' units. For columns with periods of their own take a product:
        `Periodic(active=0, period=24) * Periodic(active=1, period=365)`.
    Source: MacKay 1998; scikit-learn's ExpSineSquared in one dimension.
    """

    lengthscale: Scales = 1.0
    period: float = 1.0
    ard: bool = False

    name = "periodic"
    parameters: ClassVar[tuple[str, ...]] = ("lengthscale", "period")
    per_column: ClassVar[str | None] = "lengthscale"
    traits = Traits(kind="similarity", psd=True, low=0.0, high=1.0, shift_invariant=True)

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        return float(self.rowwise(x[None], y[None])[0])

    def matrix(self, X: Array, Y: Array) -> Float64:
        squares = self._squares(*self._near(X, Y))
        K = np.empty((len(squares.A), len(squares.B)))
        squares.map(K, by=_decay)
        return K

    def diagonal(self, X: Array) -> Float64:
        return np.ones(len(self._rows(X)))

    def rowwise(self, X: Array, Y: Array) -> Float64:
        A, B = self._both_rows(X, Y)
        sines = np.sin((math.pi / self.period) * (A - B)) / self._scales(A.shape[1])
        values: Float64 = np.exp(-2.0 * np.einsum("ij,ij->i", sines, sines))
        return values

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        A, B = self._near(X, Y)
        squares = self._squares(A, B)
        K = np.empty((len(A), len(B)))
        squares.map(K, by=_decay)
        d = np.shape(X)[1]

        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            found = squares.back(C, K, inputs=True)
            assert found.A is not None and found.B is not None  # noqa: PT018  as asked
            # f' = -K / 2: the half is here.
            dA, dB = (
                self._turned(side, -0.5 * gradient)
                for side, gradient in ((squares.A, found.A), (squares.B, found.B))
            )
            theta = self._theta_gradient(
                lengthscale=found.scaled.reshape(2, -1).sum(axis=0),
                period=-float(np.vdot(A, dA) + np.vdot(B, dB)),
            )
            if not inputs:
                return KernelGradient(theta)
            return KernelGradient(theta, self._back(dA, d), self._back(dB, d))

        return K, pullback

    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        flat = np.zeros(self._rows(X).shape[1])
        theta = self._theta_gradient(lengthscale=flat, period=0.0)
        return KernelGradient(theta, np.zeros(np.shape(X)) if inputs else None)

    def _near(self, X: Array, Y: Array) -> tuple[Float64, Float64]:
        """Both sides from the middle of Y, so that a far origin costs no digits of the period."""
        A, B = self._both_rows(X, Y)
        middle = B.mean(axis=0) if len(B) else 0.0
        seen: Float64 = A - middle
        return seen, (seen if B is A else B - middle)

    def _squares(self, A: Float64, B: Float64) -> Squares:
        U = self._circles(A)
        return Squares.of(U, U if B is A else self._circles(B), name=self.name)

    def _circles(self, A: Float64) -> Float64:
        """Points of the circles, cosines then sines: [n, k] -> [n, 2 k]."""
        angles = (2.0 * math.pi / self.period) * A
        scales = self._scales(A.shape[1])
        return np.concatenate([np.cos(angles) / scales, np.sin(angles) / scales], axis=1)

    def _turned(self, U: Float64, gradient: Float64) -> Float64:
        """A gradient of points of circles [n, 2 k] as one of the rows [n, k]."""
        cosines, sines = np.split(U, 2, axis=1)
        by_cosine, by_sine = np.split(gradient, 2, axis=1)
        turned: Float64 = (2.0 * math.pi / self.period) * (by_sine * cosines - by_cosine * sines)
        return turned


@dataclass(frozen=True, slots=True, repr=False)
class Cosine(Leaf):
    """cos(2 pi sum_k (x_k - y_k) / period_k): waves of one length along one direction.

    Not the cosine of the angle between rows: that is `Linear()` on rows of length 1.

    period: one number, or one per column (a tuple, or `ard=True`), in the columns' units.
    """

    period: Scales = 1.0
    ard: bool = False

    name = "cosine_wave"
    parameters: ClassVar[tuple[str, ...]] = ("period",)
    per_column: ClassVar[str | None] = "period"
    traits = Traits(kind="similarity", psd=True, low=-1.0, high=1.0, shift_invariant=True)

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        return float(self.rowwise(x[None], y[None])[0])

    def matrix(self, X: Array, Y: Array) -> Float64:
        return self.matrix_and_vjp(X, Y)[0]

    def diagonal(self, X: Array) -> Float64:
        return np.ones(len(self._rows(X)))

    def rowwise(self, X: Array, Y: Array) -> Float64:
        A, B = self._both_rows(X, Y)
        values: Float64 = np.cos(2.0 * math.pi * self._phases(A - B))
        return values

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        A, B = self._both_rows(X, Y)
        middle = B.mean(axis=0) if len(B) else 0.0
        A, B = A - middle, B - middle
        u, v = (self._circle(side) for side in (A, B))
        K = np.clip(u @ v.T, -1.0, 1.0)
        weights = 2.0 * math.pi / (self._scales(A.shape[1]) * np.ones(A.shape[1]))
        d = np.shape(X)[1]

        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            # d cos(a - b) / da = cos a sin b - sin a cos b
            Cv, Cu = C @ v, C.T @ u
            da = u[:, 0] * Cv[:, 1] - u[:, 1] * Cv[:, 0]
            db = v[:, 0] * Cu[:, 1] - v[:, 1] * Cu[:, 0]
            theta = self._theta_gradient(period=-weights * (da @ A + db @ B))
            if not inputs:
                return KernelGradient(theta)
            return KernelGradient(
                theta, self._back(np.outer(da, weights), d), self._back(np.outer(db, weights), d)
            )

        return K, pullback

    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        theta = self._theta_gradient(period=np.zeros(self._rows(X).shape[1]))
        return KernelGradient(theta, np.zeros(np.shape(X)) if inputs else None)

    def _phases(self, A: Float64) -> Float64:
        """sum_k a_k / p_k -> [n]: turns along the direction."""
        phases: Float64 = np.einsum("ij->i", A / self._scales(A.shape[1]))
        return phases

    def _circle(self, A: Float64) -> Float64:
        angles = 2.0 * math.pi * self._phases(A)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _decay(r2: Float64) -> None:
    """exp(-r2 / 2), in place."""
    r2 *= -0.5
    np.exp(r2, out=r2)
