"""A first look at all rows: means and spreads of targets and columns, and a sample of the rows.

Sums of parts are added by Chan's formula, in plan order; the sample is the rows with the lowest
chances, whatever parts they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simdist.errors import InputError
from simdist.stages.gp.config import SparseGPConfig
from simdist.stages.gp.table import SAMPLE, Part, Scale, Table, chances, held_out
from simdist.types import Array, Float64, Json

__all__ = ["Moments", "Sample", "refuse_few", "sampled", "scale_of", "survey"]

BLOCK = 1 << 16  # rows summed at a time
FARTHEST = 1e90  # spread of a column, or one over it: lengthscales around it are still numbers


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """n rows that are learned from; mean [t + d] of targets and columns, and squares [t + d], their
    sums of squared deviations; low, high [t] of the targets. kept: rows held out."""

    n: int
    mean: Float64
    squares: Float64
    low: Float64
    high: Float64
    kept: int

    @classmethod
    def of(cls, values: Float64, t: int, kept: int) -> Moments:
        """values: [r, t + d] of some rows."""
        n, width = len(values), values.shape[1]
        if not n:
            none = np.full(t, np.inf)
            return cls(0, np.zeros(width), np.zeros(width), none, -none, kept)
        mean = values.mean(axis=0)
        y = values[:, :t]
        squares = np.square(values - mean).sum(axis=0)
        return cls(n, mean, squares, y.min(axis=0), y.max(axis=0), kept)

    def __add__(self, other: Moments) -> Moments:
        n = self.n + other.n
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        kept = self.kept + other.kept
        if not n:
            return Moments(0, self.mean, self.squares, low, high, kept)
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.n / n)
        squares = self.squares + other.squares + apart**2 * (self.n * other.n / n)
        return Moments(n, mean, squares, low, high, kept)

    def to_json(self) -> dict[str, Json]:
        if not self.n:
            return {"n": 0, "kept": self.kept, "width": len(self.mean), "t": len(self.low)}
        found = {"n": self.n, "kept": self.kept}
        return found | {
            name: [float(value) for value in getattr(self, name)]
            for name in ("mean", "squares", "low", "high")
        }

    @classmethod
    def from_json(cls, value: dict[str, Json]) -> Moments:
        if not value["n"]:
            return cls.of(np.empty((0, value["width"])), value["t"], value["kept"])
        arrays = {name: np.array(value[name]) for name in ("mean", "squares", "low", "high")}
        return cls(n=value["n"], kept=value["kept"], **arrays)


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """Rows drawn from those that are learned from, in order of their chances, raw.

    chance: [s]. part: their X (float64), Y and weights.
    """

    chance: Float64
    part: Part

    def to_array(self) -> Float64:
        """[s, 1 + d + t + 1], for a store."""
        weights = self.part.weights
        weights = np.ones(len(self.chance)) if weights is None else weights
        return np.column_stack([self.chance, self.part.X, self.part.Y, weights])

    @classmethod
    def of_array(cls, array: Array, t: int, *, weighted: bool) -> Sample:
        """What `to_array` gave."""
        X, Y = array[:, 1 : -t - 1], array[:, -t - 1 : -1]
        weights = array[:, -1] if weighted else None
        parts = (np.ascontiguousarray(X), np.ascontiguousarray(Y), weights)
        return cls(array[:, 0], Part(*parts))


def survey(table: Table, config: SparseGPConfig, first: int, last: int) -> tuple[Moments, Sample]:
    """Moments of rows first..last, and their share of the sample."""
    t = config.outputs
    total: Moments | None = None
    drawn: list[Sample] = []
    least = min(1.0, 1.2 * config.sample_rows(table.rows) / table.rows)
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        part = table.read(begin, end)
        learned = ~held_out(config, begin, end)
        values = np.column_stack([part.Y, part.X.astype(np.float64)])
        found = Moments.of(values[learned], t, int(np.sum(~learned)))
        total = found if total is None else total + found
        chance = chances(config.seed, SAMPLE, begin, end)
        which = learned & (chance < least)
        some = part.take(which)
        some = Part(some.X.astype(np.float64), some.Y, some.weights)
        drawn.append(Sample(chance[which], some))
    assert total is not None  # a span has rows
    return total, _joined(drawn)


def sampled(samples: Sequence[Sample], most: int) -> Sample:
    """The `most` rows with the lowest chances of all parts' samples."""
    whole = _joined(samples)
    order = np.argsort(whole.chance, kind="stable")[:most]
    return Sample(whole.chance[order], whole.part.take(order))


def _joined(samples: Sequence[Sample]) -> Sample:
    parts = [sample.part for sample in samples]
    weights = None
    if parts[0].weights is not None:
        weights = np.concatenate([part.weights for part in parts if part.weights is not None])
    X, Y = (np.concatenate([getattr(part, name) for part in parts]) for name in ("X", "Y"))
    return Sample(np.concatenate([s.chance for s in samples]), Part(X, Y, weights))


def scale_of(config: SparseGPConfig, total: Moments) -> Scale:
    """What standardises the targets. InputError for a target that does not vary, and for a column
    of the rows whose spread no lengthscale can follow."""
    t = config.outputs
    for place, name in enumerate(config.targets):
        if total.low[place] == total.high[place]:
            raise InputError(
                f"target {name!r} is {total.low[place]:g} in all {total.n} rows that are learned"
                " from: a constant needs no model, and has no scale to measure noise by. Leave it"
                " out."
            )
    deviation = np.sqrt(total.squares / total.n)
    # A spread below rounding of the mean is none.
    steady = deviation <= 1e-12 * np.abs(total.mean)
    deviation[steady] = 0.0
    for place, name in enumerate(config.targets):
        if not deviation[place] > 0 or not np.isfinite(deviation[place]):
            raise InputError(
                f"target {name!r} varies by {deviation[place]:g} around {total.mean[place]:g},"
                " which float64 cannot tell: subtract an offset, or scale it, first"
            )
    spread = deviation[t:]
    odd = np.flatnonzero((spread > 0) & ~((spread > 1.0 / FARTHEST) & (spread < FARTHEST)))
    if len(odd):
        raise InputError(
            f"column {odd[0]} of the rows varies by {spread[odd[0]]:g}: lengthscales lie between"
            " 1e-100 and 1e100. Scale the rows to about unit spread."
        )
    return Scale(
        mean=total.mean[:t],
        scale=deviation[:t],
        middle=total.mean[t:],
        spread=np.where(spread > 0, spread, 1.0),
    )


def refuse_few(config: SparseGPConfig, total: Moments) -> None:
    """InputError where there are not rows enough to learn from."""
    if total.n < 2:
        raise InputError(
            f"{total.n} row(s) to learn from (n_samples={total.n}, {total.kept} held out); a"
            " Gaussian process needs at least 2, or it has no scale to measure by"
        )
