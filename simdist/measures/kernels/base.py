"""What every kernel answers: a measure that is a covariance, in float64, with its gradients.

A `Kernel` is a `Measure` (float32 blocks for graphs and tiles) with a second face in float64, for
whoever factorises its matrices:

    K = kernel.matrix(X, Y)                        [n, m]
    K, pullback = kernel.matrix_and_vjp(X, Y)      the same, and the way back:
    pullback(C)                                    d sum_ij C_ij K_ij / d (theta, X, Y)

Hyper-parameters are one vector: `theta`, the logarithms of what is free, under `names`;
`with_theta` gives the kernel that has others. So an optimiser knows a vector and a gradient, never
a kernel's fields.

White noise is the only kernel that asks *which* rows it is given, not what they hold:
`matrix(X, X)` with one array on both sides is the covariance of these rows with themselves;
`matrix(X, Y)` with two arrays is that of different rows, whatever they hold, and sees no noise (so
does scikit-learn).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol, Self

import numpy as np

from simdist.errors import ConfigError
from simdist.measures.base import Measure
from simdist.measures.rows import Rows
from simdist.types import Array, Float32, Float64

__all__ = ["Kernel", "KernelGradient", "Pullback"]


@dataclass(frozen=True, slots=True)
class KernelGradient:
    """The gradient of sum_ij C_ij k(X_i, Y_j), or of sum_i c_i k(X_i, X_i).

    theta: [p], with respect to `Kernel.theta` (logarithms).
    X: [n, d] with respect to the rows on the left, the right side held; of a diagonal, with respect
        to the rows on both sides at once. None where `inputs=False` was asked.
    Y: [m, d] with respect to the rows on the right; None also for a diagonal. Where one array was
        given on both sides, the gradient with respect to it is X + Y.
    """

    theta: Float64
    X: Float64 | None = None
    Y: Float64 | None = None


class Pullback(Protocol):
    """C [n, m] float64 -> the gradient of sum_ij C_ij K_ij. May be called any number of times."""

    def __call__(self, C: Float64, *, inputs: bool = True) -> KernelGradient: ...


class Kernel(Measure, ABC):
    """A positive semi-definite function of two rows, with hyper-parameters. See the module.

    Subclasses are frozen dataclasses. X: [n, d] and Y: [m, d] are arrays of float16, float32 or
    float64; everything below is computed and returned in float64. InputError where rows are not
    finite or do not fit. Law tests: `simdist.testing.KernelLaws`.

        k1 + k2,  k1 * k2,  2.0 * k,  k + 1.0        kernels again; print(kernel) reads like it
        kernel(X), kernel(X, Y)                      matrix(X, X), matrix(X, Y)

    formula: how the class prints; `repr` is Python that gives the kernel back, `str` is short: four
        digits, and of many lengthscales a few.
    """

    __slots__ = ()
    __array_ufunc__ = None  # so that np.float64(2) * kernel comes here

    # -- values --

    @abstractmethod
    def matrix(self, X: Array, Y: Array) -> Float64:
        """K [n, m], a new array. `Y is X` says that the rows are the same rows (White)."""

    @abstractmethod
    def diagonal(self, X: Array) -> Float64:
        """k(X_i, X_i) -> [n], a new array: the diagonal of matrix(X, X)."""

    @abstractmethod
    def rowwise(self, X: Array, Y: Array) -> Float64:
        """k(X_i, Y_i) -> [n], row by row, without cancellation: near-duplicates are precise.

        X, Y: both [n, d]. A pair has the same value in any company.
        """

    # -- gradients --

    @abstractmethod
    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        """K [n, m] and its pullback, which keeps what the way there computed (one or two [n, m]).

        K may be part of what is kept: do not write into it before the last pullback.
        """

    def vjp(self, X: Array, Y: Array, C: Array, *, inputs: bool = True) -> KernelGradient:
        """The gradient of sum_ij C_ij k(X_i, Y_j). C: [n, m].

        inputs=False leaves out X and Y of the gradient, and their cost.
        """
        _, pullback = self.matrix_and_vjp(X, Y)
        return pullback(np.asarray(C, dtype=np.float64), inputs=inputs)

    @abstractmethod
    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        """The gradient of sum_i c_i k(X_i, X_i). c: [n]."""

    # -- hyper-parameters --

    @property
    @abstractmethod
    def theta(self) -> Float64:
        """[p] the free hyper-parameters: logarithms of the positive numbers. A new array.

        ConfigError where lengthscales are one per column and their number is not known yet: take
        `for_dim(d)` first.
        """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What theta holds, p names such as "rbf.lengthscale[3]" (3: the column)."""

    @abstractmethod
    def with_theta(self, theta: Array) -> Self:
        """This kernel with other free hyper-parameters. theta: [p]."""

    @abstractmethod
    def for_dim(self, d: int) -> Self:
        """This kernel for rows of d columns: with `ard`, one lengthscale becomes d of them.

        ConfigError where it has another number of lengthscales, or names columns beyond d.
        """

    @abstractmethod
    def noiseless(self) -> Kernel | None:
        """This kernel without its White parts: the covariance of new rows. None: nothing is left.

        A model that is given White noise takes `kernel.noiseless()` for its kernel and
        `kernel.diagonal(X) - kernel.noiseless().diagonal(X)` for the noise of its rows.
        """

    # -- as a measure: float32 --

    def block(self, X: Rows, Y: Rows) -> Float32:
        if self.traits.gemm:
            return Measure.block(self, X, Y)
        A, B = self.both(X, Y)
        return self.matrix(A.vectors, B.vectors).astype(np.float32)

    def pairs(self, X: Rows, Y: Rows) -> Float32:
        A, B = self.matched(X, Y)
        return self.rowwise(A.vectors, B.vectors).astype(np.float32)

    # -- algebra --

    def __call__(self, X: Array, Y: Array | None = None) -> Float64:
        """matrix(X, Y); without Y, matrix(X, X)."""
        return self.matrix(X, X if Y is None else Y)

    def __add__(self, other: Kernel | float) -> Kernel:
        from simdist.measures.kernels import combine  # noqa: PLC0415  it imports this

        found: Kernel = combine.add(self, other)
        return found

    def __radd__(self, other: float) -> Kernel:
        from simdist.measures.kernels import combine  # noqa: PLC0415  it imports this

        found: Kernel = combine.add(other, self)
        return found

    def __mul__(self, other: Kernel | float) -> Kernel:
        from simdist.measures.kernels import combine  # noqa: PLC0415  it imports this

        found: Kernel = combine.multiply(self, other)
        return found

    def __rmul__(self, other: float) -> Kernel:
        return self * other

    # -- how it prints --

    @abstractmethod
    def formula(self, digits: int | None = None) -> str:
        """The kernel as Python. digits: significant digits of numbers; None: all of them."""

    def __repr__(self) -> str:
        return self.formula()

    def __str__(self) -> str:
        return self.formula(digits=4)


def number(value: float, digits: int | None) -> str:
    """A number as it is printed in a formula."""
    return repr(float(value)) if digits is None else f"{value:.{digits}g}"


def positive(value: Any, field: str, *, or_zero: bool = False) -> float:
    """A positive and finite number, or a ConfigError that names the field."""
    found = float(value) if isinstance(value, Real) and value is not True else np.nan
    if 0 < found < np.inf or (or_zero and found == 0):
        return found
    raise ConfigError(
        f"{field} is {value!r}; it is a {'number of at least 0' if or_zero else 'positive number'}"
        f", finite."
    )
