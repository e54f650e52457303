"""Rows to learn from, wherever they lie, and which of them are held out.

    Stored(dataset) ┐
                    ├─ read(first, last) ──> Part(X, Y, weights), raw ── Scale ──> training rows
    Arrays(X, Y)    ┘

A row is held out, and drawn for the sample, by a number that follows from the seed and the row's
own number: the same whatever task reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from simdist.errors import InputError
from simdist.panels import rows_between, values_between
from simdist.types import Array, Float64

if TYPE_CHECKING:
    from simdist.stages.gp.config import SparseGPConfig
    from simdist.store.datasets import Dataset

__all__ = ["Arrays", "Part", "Scale", "Stored", "Table", "chances", "held_out", "training"]

HELD_OUT, SAMPLE = 1, 2  # what a row's chance is for


class Part(NamedTuple):
    """Some rows. X: [r, d]. Y: [r, t] float64. weights: [r] float64, or None where all are 1."""

    X: Array
    Y: Float64
    weights: Float64 | None

    def take(self, which: Array | slice) -> Part:
        return Part(
            self.X[which],
            self.Y[which],
            None if self.weights is None else self.weights[which],
        )

    def span(self, first: int, last: int) -> Part:
        return self.take(np.s_[first:last])


class Table(Protocol):
    """Rows in order, as parts."""

    @property
    def rows(self) -> int: ...

    @property
    def dim(self) -> int: ...

    def read(self, first: int, last: int) -> Part: ...


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """A vectors dataset with its targets in kept columns."""

    dataset: Dataset
    targets: tuple[str, ...]
    noise_column: str | None = None

    @property
    def rows(self) -> int:
        return self.dataset.rows

    @property
    def dim(self) -> int:
        return int(self.dataset.metrics["dim"])

    def read(self, first: int, last: int) -> Part:
        X = rows_between(self.dataset, "vectors", first, last)
        Y = values_between(self.dataset, self.targets, first, last)
        if self.noise_column is None:
            return Part(X, Y, None)
        noise = values_between(self.dataset, [self.noise_column], first, last, what="noise")
        return Part(X, Y, weights_of(noise[:, 0], first))


@dataclass(frozen=True, eq=False, slots=True)
class Arrays:
    """Arrays in memory. X: [n, d]; Y: [n, t]; noise: [n] relative variances, or None."""

    X: Array
    Y: Float64
    noise: Float64 | None = None

    @property
    def rows(self) -> int:
        return len(self.X)

    @property
    def dim(self) -> int:
        return int(self.X.shape[1])

    def read(self, first: int, last: int) -> Part:
        weights = None if self.noise is None else weights_of(self.noise[first:last], first)
        return Part(self.X[first:last], self.Y[first:last], weights)


def weights_of(noise: Float64, first: int) -> Float64:
    """1 / noise; InputError where a row's is not positive."""
    wrong = np.flatnonzero(~(noise > 0))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"row {first + row} has noise {noise[row]}; expected a positive variance, relative to"
            " other rows'"
        )
    return np.asarray(1.0 / noise)


@dataclass(frozen=True, eq=False, slots=True)
class Scale:
    """mean, scale: [t] of the targets: what is learned is (y - mean) / scale.
    middle, spread: [d] of the rows; a column that does not vary has spread 1."""

    mean: Float64
    scale: Float64
    middle: Float64
    spread: Float64


def training(
    table: Table, config: SparseGPConfig, scale: Scale, first: int, last: int, *, rest: bool = False
) -> Part:
    """Rows first..last that are learned from, targets standardised; `rest`: those held out."""
    part = table.read(first, last)
    out = held_out(config, first, last)
    if rest or out.any():
        part = part.take(out if rest else ~out)
    return Part(part.X, (part.Y - scale.mean) / scale.scale, part.weights)


def held_out(config: SparseGPConfig, first: int, last: int) -> Array:
    """[rows] bool, which of rows first..last are not learned from."""
    return chances(config.seed, HELD_OUT, first, last) < config.held_out


def chances(seed: int, purpose: int, first: int, last: int) -> Float64:
    """[rows] uniform numbers in [0, 1) that follow from the row numbers (splitmix64)."""
    with np.errstate(over="ignore"):
        x = np.arange(first, last, dtype=np.uint64)
        x += np.uint64((seed * 0x9E3779B97F4A7C15 + purpose * 0xD1B54A32D192ED03) % 2**64)
        x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
