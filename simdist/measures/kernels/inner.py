"""Kernels of the inner product, s = sum_k variance_k x_k y_k: not stationary, they know the origin.

Linear       s + bias                    linear regression
Polynomial   (s + bias)^degree           polynomials of up to that degree
ArcCosine    see the class               an infinite layer of random neurons

A = sqrt(v) X, B = sqrt(v) Y, G = A B'       way back, W = d / dG: d/dA = W B, d/dB = W' A,
                                             d/dlog v_k = A_k . (W B)_k
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from simdist.errors import ConfigError
from simdist.measures.base import Traits
from simdist.measures.kernels.base import KernelGradient, Pullback
from simdist.measures.kernels.leaf import Leaf, Scales
from simdist.measures.rows import Prepared, Rows, as_points
from simdist.measures.vectors import Dot
from simdist.types import Array, Float32, Float64

__all__ = ["ArcCosine", "Linear", "OfProduct", "Polynomial"]

_INSIDE = Dot()


@dataclass(frozen=True, slots=True, repr=False)
class OfProduct(Leaf):
    """What kernels of the inner product share.

    variance: one number, or one per column (a tuple; or `ard=True`, and `for_dim(d)` later).
    bias: 0 for none, which is not free.
    """

    variance: Scales = 1.0
    bias: float = 0.0
    ard: bool = False

    parameters: ClassVar[tuple[str, ...]] = ("variance", "bias")
    zero_allowed: ClassVar[tuple[str, ...]] = ("bias",)
    per_column: ClassVar[str | None] = "variance"

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        return float(self.rowwise(x[None], y[None])[0])

    def represent(self, X: Array) -> Prepared:
        """Rows times the root of their variance, in float32; columns that are not read are 0."""
        weights = np.zeros(X.shape[1])
        read = slice(None) if self.active is None else list(self.active)
        weights[read] = np.sqrt(self._scales(self._count(X.shape[1])))
        with np.errstate(over="ignore"):
            return _INSIDE.represent(X * weights)

    def _weighted(self, X: Array, Y: Array) -> tuple[Float64, Float64]:
        A, B = self._both_rows(X, Y)
        root = np.sqrt(self._scales(A.shape[1]))
        seen: Float64 = A * root
        return seen, (seen if B is A else B * root)

    def _products(self, X: Array, Y: Array) -> Float64:
        """s of rows with their counterparts -> [n]."""
        A, B = self._weighted(X, Y)
        products: Float64 = np.einsum("ij,ij->i", A, B)
        return products

    def _gradient(self, parts: Parts, d: int, *, bias: float, inputs: bool) -> KernelGradient:
        """From d/dA, d/dB and d/dlog v to the gradient of theta and rows."""
        theta = self._theta_gradient(variance=parts.variance, bias=self.bias * bias)
        if not inputs:
            return KernelGradient(theta)
        root = np.sqrt(self._scales(parts.A.shape[1]))
        Y = None if parts.B is None else self._back(parts.B * root, d)
        return KernelGradient(theta, self._back(parts.A * root, d), Y)


@dataclass(frozen=True, slots=True)
class Parts:
    """Gradients with respect to weighted rows, and to log variance [k]."""

    A: Float64
    B: Float64 | None
    variance: Float64


def through_product(W: Float64, A: Float64, B: Float64) -> Parts:
    """The way back through G = A B'. W: [n, m], d / dG."""
    WB = W @ B
    return Parts(WB, W.T @ A, np.einsum("ik,ik->k", A, WB))


@dataclass(frozen=True, slots=True, repr=False)
class _Power(OfProduct):
    """(s + bias)^degree."""

    @property
    @abstractmethod
    def power(self) -> int:
        """The degree."""

    def matrix(self, X: Array, Y: Array) -> Float64:
        A, B = self._weighted(X, Y)
        return self._raised(A @ B.T)

    def diagonal(self, X: Array) -> Float64:
        return self._raised(self._products(X, X))

    def rowwise(self, X: Array, Y: Array) -> Float64:
        return self._raised(self._products(X, Y))

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        A, B = self._weighted(X, Y)
        G = A @ B.T
        slope = self._slope(G)

        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            W = C if slope is None else C * slope
            parts = through_product(W, A, B)
            return self._gradient(parts, np.shape(X)[1], bias=float(W.sum()), inputs=inputs)

        return self._raised(G), pullback

    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        A, _ = self._weighted(X, X)
        slope = self._slope(np.einsum("ij,ij->i", A, A))
        w = np.asarray(c, dtype=np.float64) * (1.0 if slope is None else slope)
        parts = Parts(2.0 * w[:, None] * A, None, w @ np.square(A))
        return self._gradient(parts, np.shape(X)[1], bias=float(w.sum()), inputs=inputs)

    # -- as a measure: the inner product, then a power of it --

    def block(self, X: Rows, Y: Rows) -> Float32:
        return self._raised_float32(_INSIDE.nearness(*self.both(X, Y)))

    def pairs(self, X: Rows, Y: Rows) -> Float32:
        return self._raised_float32(_INSIDE.pairs(*self.matched(X, Y)))

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        A, B = self.both(X, Y)
        return self._raised_float32(_INSIDE.pairs_at(A, rows, B, columns))

    def nearness(self, X: Rows, Y: Rows) -> Float32:
        return _INSIDE.nearness(*self.both(X, Y)) if self.traits.gemm else self.block(X, Y)

    def correct(self, nearness: Float32) -> Float32:
        return self._raised_float32(nearness) if self.traits.gemm else nearness

    # -- helpers --

    def _raised_float32(self, products: Float32) -> Float32:
        raised: Float32 = _power(products + np.float32(self.bias), self.power)
        return raised

    def _raised(self, G: Float64) -> Float64:
        shifted = G + self.bias if self.bias else G
        raised: Float64 = _power(shifted, self.power)
        return raised

    def _slope(self, G: Float64) -> Float64 | None:
        """d/dG; None for 1."""
        if self.power == 1:
            return None
        slope: Float64 = self.power * _power(G + self.bias, self.power - 1)
        return slope


def _power(base: Array, power: int) -> Array:
    """base^power for a power of at least 1, by products: numpy's takes a logarithm each."""
    found = base
    for digit in bin(power)[3:]:
        found = found * found
        if digit == "1":
            found = found * base
    return found


@dataclass(frozen=True, slots=True, repr=False)
class Linear(_Power):
    """sum_k variance_k x_k y_k + bias: Bayesian linear regression, with weights of that variance.

    bias: variance of the intercept; 0, the default, for none.
    """

    name = "linear"

    @property
    def traits(self) -> Traits:
        return Traits(kind="similarity", psd=True, gemm=True)

    @property
    def power(self) -> int:
        return 1


@dataclass(frozen=True, slots=True, repr=False)
class Polynomial(_Power):
    """(sum_k variance_k x_k y_k + bias)^degree: all products of up to `degree` columns.

    degree: at least 1. An odd one has the GEMM form; an even one is large for opposite rows too.
    bias: how much the lower degrees count; 0 for none of them.
    """

    degree: int = 3
    bias: float = 1.0

    name = "polynomial"

    def __post_init__(self) -> None:
        if type(self.degree) is not int or self.degree < 1:
            raise ConfigError(
                f"Polynomial.degree is {self.degree!r}; it is an integer of at least 1."
            )
        Leaf.__post_init__(self)

    @property
    def traits(self) -> Traits:
        odd = self.degree % 2 == 1
        return Traits(kind="similarity", psd=True, gemm=odd, low=-np.inf if odd else 0.0)

    @property
    def power(self) -> int:
        return self.degree

    def _options(self) -> tuple[str, ...]:
        return ("degree",)


@dataclass(frozen=True, slots=True, repr=False)
class ArcCosine(OfProduct):
    """An infinitely wide layer of neurons max(0, w.x)^order with normal weights w.

        (|x| |y|)^order J(angle) / pi,   |x|^2 = x.x, x.y = sum_k variance_k x_k y_k + bias
        order 0   J = pi - a                                     steps
        order 1   J = sin a + (pi - a) cos a                     ReLU
        order 2   J = 3 sin a cos a + (pi - a) (1 + 2 cos^2 a)

    order: 0, 1 or 2. Order 0 is rough: at equal directions it has no gradient, and 0 is taken, and
    angles below 1e-8 are lost. A row of zeros, without bias, is at right angles to all. Source: Cho
    and Saul 2009.
    """

    order: int = 1
    bias: float = 1.0

    name = "arc_cosine"

    def __post_init__(self) -> None:
        if type(self.order) is not int or self.order not in _ANGULAR:
            raise ConfigError(f"ArcCosine.order is {self.order!r}; it is 0, 1 or 2.")
        Leaf.__post_init__(self)

    @property
    def traits(self) -> Traits:
        high = 1.0 if self.order == 0 else np.inf
        return Traits(kind="similarity", psd=True, low=0.0, high=high)

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        v = self._scales(self._count(len(x)))
        a, b = self._rows(x[None])[0], self._rows(y[None])[0]
        G, s, t = (float((v * p * q).sum() + self.bias) for p, q in ((a, b), (a, a), (b, b)))
        cosine = G / math.sqrt(s * t) if s * t > 0 else 0.0
        if s > 0 and np.array_equal(a, b):
            cosine = 1.0
        J = _ANGULAR[self.order](np.array(min(1.0, max(-1.0, cosine))))[0]
        return math.sqrt(s * t) ** self.order * float(J) / math.pi

    def represent(self, X: Array) -> Prepared:
        return Leaf.represent(self, X)

    def matrix(self, X: Array, Y: Array) -> Float64:
        return self._sides(X, Y).K

    def diagonal(self, X: Array) -> Float64:
        # J(0) / pi is 1 for orders 0 and 1, and 3 for order 2.
        lengths = self._products(X, X) + self.bias
        full = (1.0, 1.0, 3.0)[self.order] * lengths**self.order
        return full if self.order else np.where(lengths > 0, full, 0.5)

    def rowwise(self, X: Array, Y: Array) -> Float64:
        A, B = self._weighted(X, Y)
        G, s, t = (np.einsum("ij,ij->i", P, Q) + self.bias for P, Q in ((A, B), (A, A), (B, B)))
        K, _ = _angular(G, s, t, self.order)
        # Equal rows have angle 0, whatever rounding says: at small ones it shows.
        return np.where((A == B).all(axis=1), self.diagonal(X), K)

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        sides = self._sides(X, Y)
        A, B, G, K = sides.A, sides.B, sides.G, sides.K
        d = np.shape(X)[1]

        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            W = C * sides.slope  # d/dG
            # d/dlog |x|^2 and its like: K ~ (s t)^(order / 2) J(G / sqrt(s t))
            both = C * (0.5 * self.order * K) - 0.5 * W * G
            w, v = (_over(both.sum(axis=1), sides.s), _over(both.sum(axis=0), sides.t))
            parts = through_product(W, A, B)
            parts = Parts(
                parts.A + 2.0 * w[:, None] * A,
                None if parts.B is None else parts.B + 2.0 * v[:, None] * B,
                parts.variance + w @ np.square(A) + v @ np.square(B),
            )
            bias = float(W.sum() + w.sum() + v.sum())
            return self._gradient(parts, d, bias=bias, inputs=inputs)

        return K, pullback

    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        A, _ = self._weighted(X, X)
        lengths = np.einsum("ij,ij->i", A, A) + self.bias
        slope = (np.zeros_like, np.ones_like, lambda s: 6.0 * s)[self.order](lengths)
        w = np.asarray(c, dtype=np.float64) * slope
        parts = Parts(2.0 * w[:, None] * A, None, w @ np.square(A))
        return self._gradient(parts, np.shape(X)[1], bias=float(w.sum()), inputs=inputs)

    def _options(self) -> tuple[str, ...]:
        return ("order",)

    def _sides(self, X: Array, Y: Array) -> _Sides:
        A, B = self._weighted(X, Y)
        G = A @ B.T + self.bias
        s = np.einsum("ij,ij->i", A, A) + self.bias
        t = s if B is A else np.einsum("ij,ij->i", B, B) + self.bias
        if B is A:
            np.fill_diagonal(G, s)
        K, slope = _angular(G, s[:, None], t, self.order)
        return _Sides(A, B, G, s, t, K, slope)


class _Sides(NamedTuple):
    """What ArcCosine computed on the way there. s: [n], t: [m] squared lengths, slope: dK/dG."""

    A: Float64
    B: Float64
    G: Float64
    s: Float64
    t: Float64
    K: Float64
    slope: Float64


def _angular(G: Float64, s: Float64, t: Float64, order: int) -> tuple[Float64, Float64]:
    """K and dK/dG of products G and squared lengths s, t that broadcast to it."""
    lengths = np.sqrt(s) * np.sqrt(t)
    cosines = np.divide(G, lengths, out=np.zeros(G.shape), where=lengths > 0)
    J, slope = _ANGULAR[order](np.clip(cosines, -1.0, 1.0, out=cosines))
    K = lengths**order * (J / math.pi)
    if order:
        return K, lengths ** (order - 1) * (slope / math.pi)
    return K, _over(slope / math.pi, lengths)


def _steps(c: Float64) -> tuple[Float64, Float64]:
    """J of order 0 and dJ/dcos, from the cosine; 0 where the angle is none but for rounding."""
    sine = np.sqrt(1.0 - np.square(c))
    slope = np.divide(1.0, sine, out=np.zeros(np.shape(c)), where=sine > 1e-7)
    return math.pi - np.arccos(c), slope


def _ramps(c: Float64) -> tuple[Float64, Float64]:
    slope = math.pi - np.arccos(c)
    return np.sqrt(1.0 - np.square(c)) + slope * c, slope


def _squares(c: Float64) -> tuple[Float64, Float64]:
    rest, sine = math.pi - np.arccos(c), np.sqrt(1.0 - np.square(c))
    return 3.0 * sine * c + rest * (1.0 + 2.0 * np.square(c)), 4.0 * (sine + rest * c)


_ANGULAR: dict[int, Callable[[Float64], tuple[Float64, Float64]]] = {
    0: _steps,
    1: _ramps,
    2: _squares,
}


def _over(numerator: Float64, denominator: Float64) -> Float64:
    """numerator / denominator, and 0 where the latter is 0."""
    return np.divide(
        numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0
    )
