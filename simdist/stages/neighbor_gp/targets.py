"""Targets of stored rows: a column kept beside the vectors, or an array in the same store.

    rounds of `neighbor_gp_parameters`: each shard's y as float64, checked, and its moments

Moments are merged in the order of the shards (Chan, Golub and LeVeque 1983), so that the mean is
the same on every engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.panels import rows_between, values_between
from simdist.types import Array, Float64, Ids, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.store.datasets import Dataset

__all__ = ["Moments", "Targets", "moments_of", "read_targets", "refuse_not_finite", "take"]

FLAT = 1e-12  # of the mean: a spread below is rounding, and the target constant


@dataclass(frozen=True, slots=True)
class Targets:
    """Where y lies: in a kept column, or in an array [n] float64. One of them."""

    column: str | None = None
    array: ObjectRef | None = None

    def __post_init__(self) -> None:
        if (self.column is None) == (self.array is None):
            raise ConfigError("targets are a kept column or an array, one of them: give y")

    def to_json(self) -> Json:
        return {"column": self.column, "array": None if self.array is None else self.array.sha256}


@dataclass(frozen=True, slots=True)
class Moments:
    """count, mean, and m2: the sum of squares around it. `+` adds other rows."""

    count: int
    mean: float
    m2: float

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        gap = other.mean - self.mean
        return Moments(
            count,
            self.mean + gap * other.count / count,
            self.m2 + other.m2 + gap * gap * self.count * other.count / count,
        )

    @property
    def constant(self) -> bool:
        """Whether y is the same everywhere, to rounding."""
        return self._spread <= FLAT * abs(self.mean)

    @property
    def scale(self) -> float:
        """What y is divided by: its standard deviation; where it has none, its own size, 1 of 0."""
        return (abs(self.mean) or 1.0) if self.constant else self._spread

    @property
    def _spread(self) -> float:
        return float(np.sqrt(self.m2 / self.count))


def moments_of(parts: Iterable[Array]) -> Moments:
    """Of targets in parts, as the round adds them up. Not empty."""
    total: Moments | None = None
    for y in parts:
        one = Moments(len(y), float(np.mean(y)), float(np.sum(np.square(y - np.mean(y)))))
        total = one if total is None else total + one
    assert total is not None  # a dataset has rows
    return total


def read_targets(context: Context, targets: Targets, first: int, last: int) -> Float64:
    """y of rows first..last. Raises InputError for NaN, with its row."""
    vectors = context.inputs["vectors"]
    if targets.array is None:
        assert targets.column is not None  # see Targets
        return values_between(vectors, (targets.column,), first, last)[:, 0]
    y = np.asarray(context.load(targets.array))
    if len(y) != vectors.rows:
        raise InputError(f"y has {len(y)} values; {vectors.uri} has {vectors.rows} rows")
    refuse_not_finite(y[first:last], first)
    return y[first:last]


def refuse_not_finite(y: Array, first: int = 0) -> None:
    """InputError naming the first target that is NaN or infinite. first: the number of y[0]."""
    bad = np.flatnonzero(~np.isfinite(y))
    if len(bad):
        raise InputError(
            f"y is {y[bad[0]]} in row {first + bad[0]}; expected finite numbers: leave such rows"
            " out of the training set"
        )


def take(dataset: Dataset, role: str, rows: Ids) -> Array:
    """Rows of an array that lies in a dataset's shards. rows: ascending -> copies, in order."""
    parts, offset = [], 0
    for shard in dataset.shards:
        low, high = np.searchsorted(rows, [offset, offset + shard.rows])
        if low < high:
            whole = rows_between(dataset, role, offset, offset + shard.rows)
            parts.append(whole[rows[low:high] - offset])
        offset += shard.rows
    return np.concatenate(parts)
