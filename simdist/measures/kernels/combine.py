"""Kernels made of kernels: sums, products, and a kernel times a number.

    2.0 * RBF() + Linear() * Periodic() + White(0.1)

A sum adds functions that are independent; a product is a kernel that is large only where both are
(Rasmussen and Williams 2006, section 4.2.4). The hyper-parameters of the whole are those of its
parts in order, under their names; where two parts share a name, the place of the part stands before
it: "0.rbf.lengthscale".
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simdist.errors import ConfigError
from simdist.measures.base import Traits
from simdist.measures.kernels.base import Kernel, KernelGradient, Pullback, number, positive
from simdist.measures.kernels.leaf import exponentials, names_of
from simdist.measures.kernels.noise import Constant
from simdist.measures.rows import Prepared, Rows
from simdist.types import Array, Float32, Float64

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Product", "Scale", "Sum", "add", "multiply"]


def add(left: Any, right: Any) -> Any:
    """left + right; a number is a `Constant`."""
    parts = [Constant(float(each)) if isinstance(each, Real) else each for each in (left, right)]
    kernels = all(isinstance(part, Kernel) for part in parts)
    return Sum(tuple(parts)) if kernels else NotImplemented


def multiply(left: Kernel, right: Any) -> Any:
    """left * right; a number makes it a `Scale`."""
    if isinstance(right, Kernel):
        return Product((left, right))
    return Scale(left, float(right)) if isinstance(right, Real) else NotImplemented


@dataclass(frozen=True, slots=True, repr=False)
class _Many(Kernel):
    """What sums and products share. kernels: two or more; nested ones of the same kind are one."""

    kernels: tuple[Kernel, ...]

    joint: ClassVar[str]

    @staticmethod
    @abstractmethod
    def join(left: Float64, right: Float64) -> Float64:
        """The values of two parts as one, written into the left."""

    def __post_init__(self) -> None:
        parts: list[Kernel] = []
        given: Any = self.kernels
        for part in given if isinstance(given, Iterable) else (given,):
            if not isinstance(part, Kernel):
                raise ConfigError(
                    f"{type(self).__name__}.kernels holds {part!r}, which is not a kernel."
                )
            parts.extend(part.kernels if isinstance(part, type(self)) else (part,))
        if len(parts) < 2:
            raise ConfigError(f"{type(self).__name__} is made of two kernels or more.")
        object.__setattr__(self, "kernels", tuple(parts))

    def pair(self, x: Array, y: Array) -> float:
        values = [np.array([kernel.pair(x, y)]) for kernel in self.kernels]
        return float(reduce(self.join, values)[0])

    def matrix(self, X: Array, Y: Array) -> Float64:
        return reduce(self.join, [kernel.matrix(X, Y) for kernel in self.kernels])

    def diagonal(self, X: Array) -> Float64:
        return reduce(self.join, [kernel.diagonal(X) for kernel in self.kernels])

    def rowwise(self, X: Array, Y: Array) -> Float64:
        return reduce(self.join, [kernel.rowwise(X, Y) for kernel in self.kernels])

    def diag(self, X: Rows) -> Float32:
        return self.diagonal(self.prepare(X).vectors).astype(np.float32)

    @property
    def theta(self) -> Float64:
        return np.concatenate([kernel.theta for kernel in self.kernels])

    @property
    def names(self) -> tuple[str, ...]:
        each = [kernel.names for kernel in self.kernels]
        seen = [name for names in each for name in names]
        if len(set(seen)) == len(seen):
            return tuple(seen)
        return tuple(f"{place}.{name}" for place, names in enumerate(each) for name in names)

    def with_theta(self, theta: Array) -> Self:
        lengths = [len(kernel.theta) for kernel in self.kernels]
        exponentials(theta, sum(lengths), of=self)  # refuses what does not fit
        cuts = np.cumsum(lengths)[:-1]
        pieces = np.split(np.asarray(theta, dtype=np.float64), cuts)
        changed = [k.with_theta(piece) for k, piece in zip(self.kernels, pieces, strict=True)]
        return replace(self, kernels=tuple(changed))

    def for_dim(self, d: int) -> Self:
        return replace(self, kernels=tuple(kernel.for_dim(d) for kernel in self.kernels))

    def formula(self, digits: int | None = None) -> str:
        shown = []
        for kernel in self.kernels:
            text = kernel.formula(digits)
            shown.append(f"({text})" if self._needs_brackets(kernel) else text)
        return self.joint.join(shown)

    def _needs_brackets(self, kernel: Kernel) -> bool:
        return False


@dataclass(frozen=True, slots=True, repr=False)
class Sum(_Many):
    """k1(x, y) + k2(x, y) + ..., written `k1 + k2`."""

    name = "sum"
    joint = " + "

    @property
    def traits(self) -> Traits:
        each = [kernel.traits for kernel in self.kernels]
        return _traits(each, sum(t.low for t in each), sum(t.high for t in each))

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        found = [kernel.matrix_and_vjp(X, Y) for kernel in self.kernels]

        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            return _together([back(C, inputs=inputs) for _, back in found])

        K = found[0][0] + found[1][0]
        for matrix, _ in found[2:]:
            K += matrix
        return K, pullback

    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        return _together([k.vjp_diagonal(X, c, inputs=inputs) for k in self.kernels])

    def noiseless(self) -> Kernel | None:
        parts = [kernel.noiseless() for kernel in self.kernels]
        left = tuple(part for part in parts if part is not None)
        if len(left) < 2:
            return left[0] if left else None
        return replace(self, kernels=left)

    @staticmethod
    def join(left: Float64, right: Float64) -> Float64:
        left += right
        return left


@dataclass(frozen=True, slots=True, repr=False)
class Product(_Many):
    """k1(x, y) k2(x, y) ..., written `k1 * k2`."""

    name = "product"
    joint = " * "

    @property
    def traits(self) -> Traits:
        each = [kernel.traits for kernel in self.kernels]
        low, high = reduce(_product_of_bounds, [(t.low, t.high) for t in each])
        return _traits(each, low, high)

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        found = [kernel.matrix_and_vjp(X, Y) for kernel in self.kernels]
        matrices = [matrix for matrix, _ in found]

        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            return _together(
                [
                    back(_all_but(place, matrices, C), inputs=inputs)
                    for place, (_, back) in enumerate(found)
                ]
            )

        K = matrices[0] * matrices[1]
        for matrix in matrices[2:]:
            K *= matrix
        return K, pullback

    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        each = [kernel.diagonal(X) for kernel in self.kernels]
        c = np.asarray(c, dtype=np.float64)
        return _together(
            [
                kernel.vjp_diagonal(X, _all_but(place, each, c), inputs=inputs)
                for place, kernel in enumerate(self.kernels)
            ]
        )

    def noiseless(self) -> Kernel | None:
        parts = [kernel.noiseless() for kernel in self.kernels]
        left = tuple(part for part in parts if part is not None)
        return replace(self, kernels=left) if len(left) == len(parts) else None

    @staticmethod
    def join(left: Float64, right: Float64) -> Float64:
        left *= right
        return left

    def _needs_brackets(self, kernel: Kernel) -> bool:
        return isinstance(kernel, Sum | Scale)


@dataclass(frozen=True, slots=True, repr=False)
class Scale(Kernel):
    """variance k(x, y), written `variance * k`: how far the function goes up and down.

    kernel: any kernel; where it is a Scale too, the two are one.
    variance: positive.
    fixed: ("variance",) where it is not free.
    """

    kernel: Kernel
    variance: float = 1.0
    fixed: tuple[str, ...] = ()

    name = "scale"

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise ConfigError(f"Scale.kernel is {self.kernel!r}, which is not a kernel.")
        fixed = names_of(self.fixed)
        if fixed not in ((), ("variance",)):
            raise ConfigError(f"Scale.fixed is {self.fixed!r}; its one parameter is variance.")
        object.__setattr__(self, "fixed", fixed)
        variance = positive(self.variance, "Scale.variance")
        if isinstance(self.kernel, Scale) and self.kernel.fixed == fixed:
            variance *= self.kernel.variance
            object.__setattr__(self, "kernel", self.kernel.kernel)
        object.__setattr__(self, "variance", variance)

    @property
    def traits(self) -> Traits:
        inner = self.kernel.traits
        v = np.float32(self.variance)
        low, high = (float(v * np.float32(bound)) for bound in (inner.low, inner.high))
        return replace(inner, low=low, high=high)

    # -- float64 --

    def pair(self, x: Array, y: Array) -> float:
        return self.variance * self.kernel.pair(x, y)

    def matrix(self, X: Array, Y: Array) -> Float64:
        K = self.kernel.matrix(X, Y)
        K *= self.variance
        return K

    def diagonal(self, X: Array) -> Float64:
        return self.variance * self.kernel.diagonal(X)

    def rowwise(self, X: Array, Y: Array) -> Float64:
        return self.variance * self.kernel.rowwise(X, Y)

    def matrix_and_vjp(self, X: Array, Y: Array) -> tuple[Float64, Pullback]:
        inside, back = self.kernel.matrix_and_vjp(X, Y)

        def pullback(C: Float64, *, inputs: bool = True) -> KernelGradient:
            own = 0.0 if self.fixed else self.variance * float(np.vdot(C, inside))
            return self._times(back(C, inputs=inputs), own)

        return self.variance * inside, pullback

    def vjp_diagonal(self, X: Array, c: Array, *, inputs: bool = True) -> KernelGradient:
        own = 0.0 if self.fixed else self.variance * float(np.dot(c, self.kernel.diagonal(X)))
        return self._times(self.kernel.vjp_diagonal(X, c, inputs=inputs), own)

    # -- hyper-parameters --

    @property
    def theta(self) -> Float64:
        own = [] if self.fixed else [np.log(self.variance)]
        return np.concatenate([own, self.kernel.theta])

    @property
    def names(self) -> tuple[str, ...]:
        own = () if self.fixed else (f"{self.name}.variance",)
        return own + self.kernel.names

    def with_theta(self, theta: Array) -> Self:
        values = list(exponentials(theta, len(self.theta), of=self))
        if self.fixed:
            return replace(self, kernel=self.kernel.with_theta(theta))
        return replace(self, kernel=self.kernel.with_theta(theta[1:]), variance=values[0])

    def for_dim(self, d: int) -> Self:
        return replace(self, kernel=self.kernel.for_dim(d))

    def noiseless(self) -> Kernel | None:
        inside = self.kernel.noiseless()
        return None if inside is None else replace(self, kernel=inside)

    # -- as a measure: what it scales, its values times variance --

    def represent(self, X: Array) -> Prepared:
        return self.kernel.represent(X)

    def block(self, X: Rows, Y: Rows) -> Float32:
        return self._scaled(self.kernel.block(*self._same(X, Y)))

    def pairs(self, X: Rows, Y: Rows) -> Float32:
        self.matched(X, Y)
        return self._scaled(self.kernel.pairs(*self._same(X, Y)))

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        A, B = self._same(X, Y)
        return self._scaled(self.kernel.pairs_at(A, rows, B, columns))

    def diag(self, X: Rows) -> Float32:
        return self._scaled(self.kernel.diag(self.prepare(X)))

    def nearness(self, X: Rows, Y: Rows) -> Float32:
        return self.kernel.nearness(*self._same(X, Y))

    def correct(self, nearness: Float32) -> Float32:
        return self._scaled(self.kernel.correct(nearness))

    # -- how it prints --

    def formula(self, digits: int | None = None) -> str:
        inside = self.kernel.formula(digits)
        if self.fixed or isinstance(self.kernel, Scale):
            options = f", fixed={self.fixed!r}" if self.fixed else ""
            return f"Scale({inside}, {number(self.variance, digits)}{options})"
        bracketed = f"({inside})" if isinstance(self.kernel, Sum | Product) else inside
        return f"{number(self.variance, digits)} * {bracketed}"

    # -- helpers --

    def _same(self, X: Rows, Y: Rows) -> tuple[Prepared, Prepared]:
        return self.both(X, Y)

    def _scaled(self, values: Float32) -> Float32:
        with np.errstate(under="ignore"):
            scaled: Float32 = values * np.float32(self.variance)
            return scaled

    def _times(self, inner: KernelGradient, own: float) -> KernelGradient:
        """The gradient of variance * k from that of k, and that of log variance."""
        v = self.variance
        head = [] if self.fixed else [own]
        return KernelGradient(
            np.concatenate([head, v * inner.theta]),
            None if inner.X is None else v * inner.X,
            None if inner.Y is None else v * inner.Y,
        )


def _traits(each: list[Traits], low: float, high: float) -> Traits:
    return Traits(
        kind="similarity",
        psd=all(t.psd for t in each),
        low=low,
        high=high,
        zero_rows=all(t.zero_rows for t in each),
        shift_invariant=all(t.shift_invariant for t in each),
    )


def _product_of_bounds(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    with np.errstate(invalid="ignore"):
        ends = [0.0 if 0.0 in (a, b) else a * b for a in one for b in other]
    return min(ends), max(ends)


def _all_but(place: int, factors: list[Float64], C: Float64) -> Float64:
    """C times all factors but one."""
    for other, factor in enumerate(factors):
        if other != place:
            C = C * factor
    return C


def _together(parts: list[KernelGradient]) -> KernelGradient:
    """The gradients of the parts as that of the whole: thetas in a row, rows added."""
    theta = np.concatenate([part.theta for part in parts])
    return KernelGradient(theta, _sum([p.X for p in parts]), _sum([p.Y for p in parts]))


def _sum(rows: list[Float64 | None]) -> Float64 | None:
    found = [each for each in rows if each is not None]
    return reduce(np.add, found) if found else None
