"""A kernel that is one formula: its parameters, the columns that it reads, how it prints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures.kernels.base import Kernel, number, positive
from simdist.measures.rows import Prepared, as_float32, as_rows
from simdist.types import Array, Float64

__all__ = ["Leaf", "Scales"]

Scales: TypeAlias = "float | tuple[float, ...]"


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Leaf(Kernel):
    """What all single kernels have.

    active: the columns that the kernel reads; None: all. Others do not change it.
    fixed: names of parameters that are not free: no part of theta.

    A subclass names its parameters in `parameters`, all positive; of those in `zero_allowed`, 0
    says "without", and is not free. The one named `per_column` may be a tuple, one number a column
    of those it reads; it is made one by `ard=True` and `for_dim`.
    """

    active: tuple[int, ...] | None = None
    fixed: tuple[str, ...] = ()

    parameters: ClassVar[tuple[str, ...]] = ()
    zero_allowed: ClassVar[tuple[str, ...]] = ()
    per_column: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        kind = type(self).__name__
        object.__setattr__(self, "active", _columns(self.active, kind))
        fixed = names_of(self.fixed)
        unknown = [name for name in fixed if name not in self.parameters]
        if unknown:
            raise ConfigError(
                f"{kind}.fixed names {unknown[0]!r}; its parameters: "
                f"{', '.join(self.parameters) or 'none'}."
            )
        object.__setattr__(self, "fixed", fixed)
        for name in self.parameters:
            checked = self._checked(name, getattr(self, name))
            object.__setattr__(self, name, checked)
            if isinstance(checked, tuple):
                object.__setattr__(self, "ard", True)
                self._expect_scales(self.active, checked)

    # -- hyper-parameters --

    @property
    def theta(self) -> Float64:
        values = [value for name in self._free() for value in self._values(name)]
        return np.log(np.array(values, dtype=np.float64))

    @property
    def names(self) -> tuple[str, ...]:
        found: list[str] = []
        for name in self._free():
            value = getattr(self, name)
            if isinstance(value, tuple):
                columns = self.active or range(len(value))
                found.extend(f"{self.name}.{name}[{column}]" for column in columns)
            else:
                found.append(f"{self.name}.{name}")
        return tuple(found)

    def with_theta(self, theta: Array) -> Self:
        values = exponentials(theta, len(self.theta), of=self)
        changed: dict[str, Any] = {}
        for name in self._free():
            own = getattr(self, name)
            if isinstance(own, tuple):
                changed[name] = tuple(next(values) for _ in own)
            else:
                changed[name] = next(values)
        return replace(self, **changed)

    def for_dim(self, d: int) -> Self:
        columns = self._count(d)
        name = self.per_column
        if name is None:
            return self
        own = getattr(self, name)
        if isinstance(own, tuple):
            if len(own) != columns:
                raise ConfigError(
                    f"{self.name} has {len(own)} values of {name} and reads {columns} columns: "
                    f"one per column is needed."
                )
            return self
        return replace(self, **{name: (own,) * columns}) if self._is_ard() else self

    def noiseless(self) -> Kernel | None:
        return self

    # -- as a measure --

    def represent(self, X: Array) -> Prepared:
        vectors = as_float32(X, of=self.name)
        self._count(vectors.shape[1])
        return Prepared(vectors)

    # -- how it prints --

    def formula(self, digits: int | None = None) -> str:
        parts = [f"{name}={_shown(getattr(self, name), digits)}" for name in self._options()]
        parts += [f"{name}={_shown(getattr(self, name), digits)}" for name in self.parameters]
        one_only = self.per_column and not isinstance(getattr(self, self.per_column), tuple)
        if one_only and self._is_ard():
            parts.append("ard=True")
        if self.active is not None:
            parts.append(f"active={self.active!r}")
        if self.fixed:
            parts.append(f"fixed={self.fixed!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    # -- for subclasses --

    def _options(self) -> tuple[str, ...]:
        """Fields that are no hyper-parameters and are printed, such as a degree."""
        return ()

    def _rows(self, X: Array) -> Float64:
        """The active columns as finite float64 [n, k]."""
        X = as_rows(X, of=self.name)
        self._count(X.shape[1])
        chosen = X if self.active is None else X[:, list(self.active)]
        return chosen.astype(np.float64, copy=False)

    def _both_rows(self, X: Array, Y: Array) -> tuple[Float64, Float64]:
        """The active columns of either side; one array where one was given."""
        A = self._rows(X)
        B = A if Y is X else self._rows(Y)
        if np.shape(X)[1] != np.shape(Y)[1]:
            raise InputError(
                f"{self.name} compares rows of one dimension; got X {np.shape(X)} and "
                f"Y {np.shape(Y)}, [rows, columns]."
            )
        return A, B

    def _back(self, gradient: Float64, d: int) -> Float64:
        """A gradient [n, k] of the active columns as one of all d columns."""
        if self.active is None:
            return gradient
        full = np.zeros((len(gradient), d))
        full[:, list(self.active)] = gradient
        return full

    def _scales(self, columns: int) -> Float64 | float:
        """The per-column parameter, to be broadcast along rows [n, columns]."""
        own = getattr(self, self.per_column or "")
        if not isinstance(own, tuple):
            return float(own)
        if len(own) != columns:
            raise InputError(
                f"{self.name} has {len(own)} values of {self.per_column} and the rows have "
                f"{columns} columns that it reads; it needs one per column."
            )
        return np.array(own)

    def _theta_gradient(self, **gradients: Float64 | float) -> Float64:
        """The gradient of theta from that of each parameter's logarithm, what is fixed left out.

        A per-column one comes [columns], and is summed where one number serves all of them.
        """
        parts = []
        for name in self._free():
            gradient = np.atleast_1d(np.asarray(gradients[name], dtype=np.float64))
            tied = not isinstance(getattr(self, name), tuple)
            parts.append(gradient.sum(keepdims=True) if tied else gradient)
        return np.concatenate(parts) if parts else np.zeros(0)

    # -- helpers --

    def _is_ard(self) -> bool:
        return bool(getattr(self, "ard", False))

    def _checked(self, name: str, value: Any) -> Scales:
        field = f"{type(self).__name__}.{name}"
        or_zero = name in self.zero_allowed
        if name != self.per_column or not isinstance(value, Iterable) or isinstance(value, str):
            return positive(_scalar(value), field, or_zero=or_zero)
        scales = tuple(positive(_scalar(v), f"{field}[{i}]") for i, v in enumerate(value))
        if not scales:
            raise ConfigError(f"{field} is an empty sequence; it has one number per column.")
        return scales

    def _expect_scales(self, active: tuple[int, ...] | None, scales: tuple[float, ...]) -> None:
        if active is not None and len(active) != len(scales):
            raise ConfigError(
                f"{type(self).__name__} reads {len(active)} columns and has {len(scales)} values "
                f"of {self.per_column}; it needs one per column."
            )

    def _count(self, d: int) -> int:
        """How many columns it reads of rows that have d."""
        if self.active is None:
            return d
        if max(self.active) >= d:
            raise InputError(
                f"{self.name} reads column {max(self.active)} (active={self.active}) and the rows "
                f"have {d} columns."
            )
        return len(self.active)

    def _free(self) -> Iterator[str]:
        for name in self.parameters:
            if name not in self.fixed and getattr(self, name) != 0:
                yield name

    def _values(self, name: str) -> tuple[float, ...]:
        value: Scales = getattr(self, name)
        if isinstance(value, tuple):
            return value
        if name == self.per_column and self._is_ard():
            raise ConfigError(
                f"{self} has one {name} per column, and does not know yet how many columns there "
                f"are: take kernel.for_dim(d) first."
            )
        return (value,)


def names_of(fixed: Any) -> tuple[str, ...]:
    """`fixed` as a tuple; a string is one name."""
    return (fixed,) if isinstance(fixed, str) else tuple(fixed)


def exponentials(theta: Array, expected: int, *, of: Kernel) -> Iterator[float]:
    """exp(theta), one after another, once their number is checked."""
    theta = np.asarray(theta, dtype=np.float64)
    if theta.shape != (expected,):
        raise InputError(
            f"{of} has {expected} free hyper-parameters; got theta of shape {theta.shape}."
        )
    if not np.isfinite(theta).all() or np.abs(theta).max(initial=0.0) > _LARGEST:
        raise InputError(
            f"theta of {of} is {theta}: the logarithms of positive numbers, from {-_LARGEST:.0f} "
            f"to {_LARGEST:.0f}."
        )
    return iter([math.exp(value) for value in theta])


_SHOWN = 12  # numbers of a tuple, when it is shown short
_LARGEST = 700.0  # exp of it is a float64 that is neither 0 nor infinite


def _columns(active: Any, kind: str) -> tuple[int, ...] | None:
    if active is None:
        return None
    columns = tuple(active) if isinstance(active, Iterable) else (active,)
    whole = all(isinstance(c, int | np.integer) and not isinstance(c, bool) for c in columns)
    if not columns or not whole or min(columns) < 0 or len(set(columns)) != len(columns):
        raise ConfigError(
            f"{kind}.active is {active!r}; it lists columns from 0, each once, or is None for all."
        )
    return tuple(int(column) for column in columns)


def _scalar(value: Any) -> Any:
    """A numpy scalar as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _shown(value: Any, digits: int | None) -> str:
    if isinstance(value, tuple):
        if digits is not None and len(value) > _SHOWN:
            first, last = (
                ", ".join(number(v, digits) for v in part) for part in (value[:3], value[-1:])
            )
            return f"({first}, ..., {last})"
        inside = ", ".join(number(v, digits) for v in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return number(value, digits) if isinstance(value, float) else repr(value)
