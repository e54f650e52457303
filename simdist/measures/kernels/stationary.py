"""Kernels of the Euclidean distance r = |(x - y) / lengthscale|, from smooth to rough.

    RBF                 exp(-r^2 / 2)                              smooth: all derivatives
    RationalQuadratic   (1 + r^2 / (2 alpha))^-alpha               RBFs of many lengthscales
    Matern52            (1 + a + a^2 / 3) exp(-a), a = sqrt(5) r   twice differentiable
    Matern32            (1 + a) exp(-a),           a = sqrt(3) r   once
    Matern12            exp(-r)                                    continuous (Ornstein-Uhlenbeck)

Source: Rasmussen and Williams 2006, section 4.2. Derivatives are by r^2, where they are simple:
f' = -f/2 for RBF, -3/2 exp(-a), -5/6 (1 + a) exp(-a), and -exp(-r) / (2 r) for Matern12, which has
no gradient at equal rows: 0 is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from simdist.measures.kernels.radial import Radial
from simdist.measures.kernels.squares import row_blocks, scratch
from simdist.types import Array, Float64

__all__ = ["RBF", "Matern12", "Matern32", "Matern52", "RationalQuadratic"]


@dataclass(frozen=True, slots=True, repr=False)
class RBF(Radial):
    """exp(-r^2 / 2), r = |(x - y) / lengthscale|: the squared exponential, or Gaussian, kernel.

    scikit-learn's gamma is 1 / (2 lengthscale^2).
    """

    name = "rbf"
    own_slope = False

    def profile(self, distances: Array) -> Array:
        distances *= -0.5
        return np.exp(distances, out=distances)

    def fill(self, r2: Float64, S: Float64) -> None:
        S[:] = self.profile(r2)


@dataclass(frozen=True, slots=True, repr=False)
class Matern12(Radial):
    """exp(-r), r = |(x - y) / lengthscale|: the exponential, or Ornstein-Uhlenbeck, kernel."""

    name = "matern12"

    def profile(self, distances: Array) -> Array:
        np.sqrt(distances, out=distances)
        np.negative(distances, out=distances)
        return np.exp(distances, out=distances)

    def fill(self, r2: Float64, S: Float64) -> None:
        r = np.sqrt(r2, out=r2)
        S[:] = 0.0
        np.divide(1.0, r, out=S, where=r > 0)
        K = np.exp(np.negative(r, out=r), out=r)
        S *= K


@dataclass(frozen=True, slots=True, repr=False)
class Matern32(Radial):
    """(1 + a) exp(-a), a = sqrt(3) r, r = |(x - y) / lengthscale|."""

    name = "matern32"
    slope = -1.5

    def profile(self, distances: Array) -> Array:
        distances *= 3.0
        a = np.sqrt(distances, out=distances)
        decay = _decay(a)
        a += 1.0
        a *= decay
        return a

    def fill(self, r2: Float64, S: Float64) -> None:
        r2 *= 3.0
        a = np.sqrt(r2, out=r2)
        np.negative(a, out=S)
        np.exp(S, out=S)
        a += 1.0
        a *= S


@dataclass(frozen=True, slots=True, repr=False)
class Matern52(Radial):
    """(1 + a + a^2 / 3) exp(-a), a = sqrt(5) r, r = |(x - y) / lengthscale|."""

    name = "matern52"
    slope = -5.0 / 6.0

    def profile(self, distances: Array) -> Array:
        distances *= 5.0
        a = np.sqrt(distances, out=scratch(distances, 1))
        decay = _decay(a)
        distances *= 1.0 / 3.0
        a += 1.0
        distances += a
        distances *= decay
        return distances

    def fill(self, r2: Float64, S: Float64) -> None:
        r2 *= 5.0
        a = np.sqrt(r2, out=S)
        decay = _decay(a)
        r2 *= 1.0 / 3.0
        a += 1.0
        r2 += a
        r2 *= decay
        a *= decay


@dataclass(frozen=True, slots=True, repr=False)
class RationalQuadratic(Radial):
    """(1 + r^2 / (2 alpha))^-alpha, r = |(x - y) / lengthscale|: RBFs of many lengthscales.

    alpha: how alike they are; RBF as it grows, the Cauchy kernel at 1. Positive.
    """

    alpha: float = 1.0

    name = "rational_quadratic"
    parameters: ClassVar[tuple[str, ...]] = ("lengthscale", "alpha")

    def profile(self, distances: Array) -> Array:
        distances *= 0.5 / self.alpha
        np.log1p(distances, out=distances)
        distances *= -self.alpha
        return np.exp(distances, out=distances)

    def fill(self, r2: Float64, S: Float64) -> None:
        np.multiply(r2, 0.5 / self.alpha, out=S)
        S += 1.0
        K = self.profile(r2)
        np.divide(K, S, out=S)

    def shape_gradient(self, C: Float64, K: Float64, S: Float64) -> dict[str, float]:
        # u / (1 + u) - log(1 + u) with 1 + u = K / S, and K = (1 + u)^-alpha.
        total = 0.0
        for rows in row_blocks(*K.shape):
            grown = np.divide(K[rows], S[rows], out=np.ones(K[rows].shape), where=S[rows] > 0)
            slope = 1.0 - 1.0 / grown
            slope -= np.log(grown, out=grown)
            slope *= K[rows]
            total += float(np.vdot(C[rows], slope))
        return {"alpha": self.alpha * total}


def _decay(a: Array) -> Array:
    """exp(-a), to be used at once: the next call writes over it."""
    found = np.negative(a, out=scratch(a))
    return np.exp(found, out=found)
