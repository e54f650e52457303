"""How good a k-NN list is: recall against exact lists of sampled rows, with an honest interval.

Recall of a row is the share of its k true neighbours that its list holds. Rows are sampled, and the
k hits of one row hang together (a row in a bad cell misses many), so the interval is built on rows:
a Wilson score interval whose sample size is deflated by the measured clustering (the design effect
of Kish 1965), with the finite population correction. Rows that miss everything may be too rare for
the sample (one in 500, say), and then nothing measured speaks of them: so the spread is taken as if
one more row with no recall had been drawn, down to where each row counts once, as if it had one
neighbour. That is also what holds where every sampled row is perfect: never [1, 1] unless all rows
were looked at.

*Many looks, one promise.* Work goes on until a look at the sample passes, so some look passing by
luck must be as rare as the interval says, not each by itself. The builder may look at each graph it
makes, one better than the other, with each of a few sample sizes, fixed beforehand; the 5 % are
dealt out over all these pairs (`spent`), and an interval is built at its own pair's share. So
whatever stopped the work, and though all looks share their rows, the interval reported fails to
cover with at most 5 %: Bonferroni's inequality, with unequal shares as in the alpha spending of
group-sequential trials (Lan and DeMets 1983). A third of what is left goes to each graph, three
quarters of what is left of that to each sample size: the first look is made with 98.75 %, z = 2.50
in place of 1.96. Nothing is saved for looks that cannot come: without a target there is one, and it
has the 5 % for itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

from simdist.types import Array, Float32, Float64, Ids, Json

__all__ = ["Look", "Recall", "enough", "hits", "interval", "spent", "summary", "tie_hits"]

ERROR = 0.05  # of the interval, both sides together
TO_A_GRAPH = 1 / 3  # of the error that is left
TO_A_SIZE = 3 / 4  # of the graph's error that is left
COMPARED = 1 << 24  # ids compared at once (bytes)


@dataclass(frozen=True, slots=True)
class Recall:
    """Sampled recall of a graph.

    estimate, low, high: recall by id and its 95 % interval.
    tie_aware: recall counting a neighbour as right when it is as near as the true k-th.
    p5: recall of the row at the 5th percentile. rows: how many rows were sampled.
    target: what was asked for (of `low`), None where nothing was.
    looks: how many graphs were made and looked at, the last of them this one: the interval covers
        whichever look ended the work. None where no look could do that.
    """

    estimate: float
    low: float
    high: float
    tie_aware: float
    p5: float
    rows: int
    target: float | None = None
    looks: int | None = None

    def to_json(self) -> Json:
        value = asdict(self)
        if self.looks is None:
            del value["looks"]
        return value

    @classmethod
    def from_json(cls, value: Json) -> Recall:
        return cls(**value)

    def __str__(self) -> str:
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}] on {self.rows} rows"


@dataclass(frozen=True, slots=True)
class Look:
    """One of the looks that may end the work. graph: which of the graphs made, from 1.
    size: which of the sample sizes, from 0."""

    graph: int
    size: int


def spent(look: Look | None) -> float:
    """The error, both sides together, that a look may make; over all looks they add up to 5 %.
    None: the only look there is."""
    if look is None:
        return ERROR
    graph = TO_A_GRAPH * (1 - TO_A_GRAPH) ** (look.graph - 1)
    return ERROR * graph * TO_A_SIZE * (1 - TO_A_SIZE) ** look.size


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


def interval(
    per_row: Float64, k: int, *, population: int, look: Look | None = None
) -> tuple[float, float]:
    """Interval of the mean of per-row recalls, 95 % over all looks, or at the only one.

    per_row: [m]; population: rows of the set.
    """
    return _ends(_Sample.of(per_row), k, population=population, error=spent(look))


def enough(
    per_row: Float64,
    k: int,
    *,
    population: int,
    target: float,
    look: Look,
    sizes: Sequence[int],
) -> int | None:
    """The first size past this look's at which the lower end would reach the target, were mean and
    spread of the rows to stay as they are. None where none would."""
    sample = _Sample.of(per_row)
    for size in range(look.size + 1, len(sizes)):
        larger = _Sample(sizes[size], sample.mean, sample.spread)
        error = spent(Look(look.graph, size))
        if _ends(larger, k, population=population, error=error)[0] >= target:
            return size
    return None


def summary(
    per_row: Float64,
    ties: Float64,
    k: int,
    *,
    population: int,
    target: float | None,
    look: Look | None = None,
) -> Recall:
    """The Recall of sampled rows."""
    low, high = interval(per_row, k, population=population, look=look)
    return Recall(
        estimate=_rounded(per_row.mean()),
        low=math.floor(low * 1e6) / 1e6,  # outwards: a sample never proves 1
        high=math.ceil(high * 1e6) / 1e6,
        tie_aware=_rounded(ties.mean()),
        p5=_rounded(np.percentile(per_row, 5)),
        rows=len(per_row),
        target=target,
        looks=None if look is None else look.graph,
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """What the interval is built from. spread: variance of the rows' recalls."""

    rows: int
    mean: float
    spread: float

    @classmethod
    def of(cls, per_row: Float64) -> _Sample:
        spread = float(per_row.var(ddof=1)) if len(per_row) > 1 else 0.0
        return cls(len(per_row), float(per_row.mean()), spread)


def _ends(sample: _Sample, k: int, *, population: int, error: float) -> tuple[float, float]:
    """Both ends of the interval that misses with `error`, half of it on either side."""
    m, p, spread = sample.rows, sample.mean, sample.spread
    if m >= population:
        return p, p
    effective = float(m)
    if m > 1 and 0.0 < p < 1.0:
        guarded = m * p * (1 - p) / (spread + p * p / m)
        measured = m * p * (1 - p) / spread if spread > 0.0 else math.inf
        effective = min(measured, max(guarded, float(m)), float(m * k))
    effective *= (population - 1) / (population - m)
    z = round(NormalDist().inv_cdf(1 - error / 2), 6)
    shrink = 1 + z * z / effective
    centre = (p + z * z / (2 * effective)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / effective + z * z / (4 * effective**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _rounded(value: Array | float) -> float:
    return round(float(value), 6)
