"""Measures made of another measure: `Scaled` columns, and the `Squash` of a distance.

Both keep the GEMM form of what they modify: Scaled changes the prepared rows, Squash only the
correction, so a tile costs what the inner measure's tile costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures.base import Measure, Traits
from simdist.measures.rows import Prepared, Rows, as_points
from simdist.types import Array, Float32

__all__ = ["Scaled", "Squash"]


@dataclass(frozen=True, slots=True)
class Scaled(Measure):
    """Another measure on columns divided by their lengthscales: measure(x / l, y / l).

    A column with a long lengthscale matters little (automatic relevance determination: Rasmussen
    and Williams 2006, section 5.1). Rows are rounded to float32 after the division, so that
    near-duplicates are precise to about eps |x / l|.

    measure: any measure.
    lengthscales: [d], one per column, positive and finite, in the columns' units; any sequence.
    """

    measure: Measure
    lengthscales: Sequence[float]  # kept as a tuple of floats

    name = "scaled"

    def __post_init__(self) -> None:
        _expect_measure(self.measure, "Scaled")
        given: Any = self.lengthscales
        if isinstance(given, str) or not hasattr(given, "__len__") or len(given) == 0:
            raise ConfigError(
                f"Scaled.lengthscales is a sequence of one number per column; got {given!r}."
            )
        scales = tuple(
            _positive(scale, f"Scaled.lengthscales[{column}]", "column's")
            for column, scale in enumerate(given)
        )
        object.__setattr__(self, "lengthscales", scales)

    @property
    def traits(self) -> Traits:
        return self.measure.traits

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        scales = self._scales(len(x))
        return self.measure.pair(x / scales, y / scales)

    def represent(self, X: Array) -> Prepared:
        scales = self._scales(X.shape[1])
        with np.errstate(over="ignore"):
            scaled = X / scales  # float64: rounded once, by the inner measure
        return self.measure.prepare(scaled)

    def block(self, X: Rows, Y: Rows) -> Float32:
        return self.measure.block(*self.both(X, Y))

    def pairs(self, X: Rows, Y: Rows) -> Float32:
        return self.measure.pairs(*self.matched(X, Y))

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        A, B = self.both(X, Y)
        return self.measure.pairs_at(A, rows, B, columns)

    def diag(self, X: Rows) -> Float32:
        return self.measure.diag(self.prepare(X))

    def nearness(self, X: Rows, Y: Rows) -> Float32:
        return self.measure.nearness(*self.both(X, Y))

    def correct(self, nearness: Float32) -> Float32:
        return self.measure.correct(nearness)

    def surrogate(self) -> Measure:
        return _surrogate_of(self)

    def _scales(self, columns: int) -> Array:
        if len(self.lengthscales) != columns:
            raise InputError(
                f"scaled has {len(self.lengthscales)} lengthscales and the rows have {columns} "
                f"columns; it needs one lengthscale per column."
            )
        return np.array(self.lengthscales)


@dataclass(frozen=True, slots=True)
class Squash(Measure):
    """A distance turned into a similarity: exp(-distance / scale), in (0, 1] for distances >= 0.

    Of squared Euclidean it is the Gaussian kernel with scale = 2 lengthscale^2, of Euclidean the
    exponential one, of Manhattan the Laplacian one; all three are positive semi-definite.
    Nearness stays the distance's own: far pairs, whose similarity is 0 in float32, keep their
    order.

    measure: a distance.
    scale: positive and finite, in the distance's units.
    """

    measure: Measure
    scale: float

    name = "squash"

    def __post_init__(self) -> None:
        _expect_measure(self.measure, "Squash")
        if self.measure.traits.kind != "distance":
            raise ConfigError(
                f"Squash turns a distance into a similarity, and {self.measure.name} is a "
                f"similarity already. Use it as it is, or squash a distance such as euclidean."
            )
        object.__setattr__(self, "scale", _positive(self.scale, "Squash.scale", "distance's"))

    @property
    def traits(self) -> Traits:
        inner = self.measure.traits
        return replace(
            inner,
            kind="similarity",
            psd=inner.negative_type,
            metric=False,
            negative_type=False,
            low=math.exp(-inner.high / self.scale),
            high=math.exp(-inner.low / self.scale),
        )

    def pair(self, x: Array, y: Array) -> float:
        return math.exp(-self.measure.pair(x, y) / self.scale)

    def represent(self, X: Array) -> Prepared:
        return self.measure.prepare(X)

    def block(self, X: Rows, Y: Rows) -> Float32:
        return self._squashed(self.measure.block(*self.both(X, Y)))

    def pairs(self, X: Rows, Y: Rows) -> Float32:
        return self._squashed(self.measure.pairs(*self.matched(X, Y)))

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        A, B = self.both(X, Y)
        return self._squashed(self.measure.pairs_at(A, rows, B, columns))

    def diag(self, X: Rows) -> Float32:
        return self._squashed(self.measure.diag(self.prepare(X)))

    def nearness(self, X: Rows, Y: Rows) -> Float32:
        return self.measure.nearness(*self.both(X, Y))

    def correct(self, nearness: Float32) -> Float32:
        return self._squashed(self.measure.correct(nearness))

    def surrogate(self) -> Measure:
        return _surrogate_of(self)

    def _squashed(self, distances: Float32) -> Float32:
        with np.errstate(under="ignore"):
            exponents = np.multiply(distances, np.float32(-1.0 / self.scale))
            return np.exp(exponents, out=exponents)


def _surrogate_of(modified: Scaled | Squash) -> Measure:
    """That of the measure inside, whose prepared rows are these; itself where that is its own."""
    inside = modified.measure.surrogate()
    return modified if inside == modified.measure else inside


def _expect_measure(measure: object, of: str) -> None:
    if not isinstance(measure, Measure):
        raise ConfigError(
            f"{of}.measure is {measure!r}, which is not a measure. Pass an instance, "
            f"such as Euclidean(), or build the whole with resolve({{'name': {of.lower()!r}, "
            f"'measure': 'euclidean', ...}})."
        )


def _positive(value: Any, field: str, whose: str) -> float:
    if not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ConfigError(
            f"{field} is {value!r}; it is a positive and finite number in the {whose} units."
        )
    return float(value)
