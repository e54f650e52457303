"""How good a k-NN list is: recall against exact lists of sampled rows, with an honest interval.

Recall of a row is the share of its k true neighbours that its list holds. Rows are sampled, and the
k hits of one row hang together (a row in a bad cell misses many), so the interval is built on rows:
a Wilson score interval whose sample size is deflated by the measured clustering (the design effect
of Kish 1965), with the finite population correction. Rows that miss everything may be too rare for
the sample (one in 500, say), and then nothing measured speaks of them: so the spread is taken as if
one more row with no recall had been drawn, down to where each row counts once, as if it had one
neighbour. That is also what holds where every sampled row is perfect: never [1, 1] unless all rows
were looked at.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from simdist.types import Array, Float32, Float64, Ids, Json

__all__ = ["Recall", "hits", "interval", "summary", "tie_hits"]

Z = 1.959964  # two-sided 95 %
COMPARED = 1 << 24  # ids compared at once (bytes)


@dataclass(frozen=True, slots=True)
class Recall:
    """Sampled recall of a graph.

    estimate, low, high: recall by id and its 95 % interval.
    tie_aware: recall counting a neighbour as right when it is as near as the true k-th.
    p5: recall of the row at the 5th percentile. rows: how many rows were sampled.
    target: what was asked for (of `low`), None where nothing was.
    """

    estimate: float
    low: float
    high: float
    tie_aware: float
    p5: float
    rows: int
    target: float | None = None

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Json) -> Recall:
        return cls(**value)

    def __str__(self) -> str:
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}] on {self.rows} rows"


def hits(found: Ids, truth: Ids) -> Float64:
    """Recall of every row: share of truth[i] that found[i] holds. Both [m, k]; ids distinct."""
    shares = np.empty(len(truth), np.float64)
    step = max(1, COMPARED // max(1, found.shape[1] * truth.shape[1]))
    for start in range(0, len(truth), step):
        part = slice(start, start + step)
        same = found[part, :, None] == truth[part, None, :]
        shares[part] = (same.any(axis=1) & (truth[part] >= 0)).sum(axis=1)
    shares /= np.maximum((truth >= 0).sum(axis=1), 1)
    return shares


def tie_hits(found: Float32, truth: Float32, *, larger_is_nearer: bool) -> Float64:
    """Recall of every row counting values at least as near as the k-th true one. Both [m, k],
    nearest first, computed by the same kernel."""
    bar = truth[:, -1:]
    good: Float64 = ((found >= bar) if larger_is_nearer else (found <= bar)).mean(axis=1)
    return good


def interval(per_row: Float64, k: int, *, population: int) -> tuple[float, float]:
    """95 % interval of the mean of per-row recalls. per_row: [m]; population: rows of the set."""
    m = len(per_row)
    p = float(per_row.mean())
    if m >= population:
        return p, p
    effective = float(m)
    if m > 1 and 0.0 < p < 1.0:
        spread = float(per_row.var(ddof=1))
        guarded = m * p * (1 - p) / (spread + p * p / m)
        measured = m * p * (1 - p) / spread if spread > 0.0 else math.inf
        effective = min(measured, max(guarded, float(m)), float(m * k))
    effective *= (population - 1) / (population - m)
    shrink = 1 + Z * Z / effective
    centre = (p + Z * Z / (2 * effective)) / shrink
    half = Z / shrink * math.sqrt(p * (1 - p) / effective + Z * Z / (4 * effective**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def summary(
    per_row: Float64, ties: Float64, k: int, *, population: int, target: float | None
) -> Recall:
    """The Recall of sampled rows."""
    low, high = interval(per_row, k, population=population)
    return Recall(
        estimate=_rounded(per_row.mean()),
        low=math.floor(low * 1e6) / 1e6,  # outwards: a sample never proves 1
        high=math.ceil(high * 1e6) / 1e6,
        tie_aware=_rounded(ties.mean()),
        p5=_rounded(np.percentile(per_row, 5)),
        rows=len(per_row),
        target=target,
    )


def _rounded(value: Array | float) -> float:
    return round(float(value), 6)
