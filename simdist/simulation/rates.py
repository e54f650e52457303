"""Forecasts into seconds of a CPU, and measured seconds into the rates that explain them.

    seconds of a round = (extent / 32 MiB) ** growth *
        (task * tasks + row * rows + byte * (read + written)
         + work * (flops / F + ops / I) + pair * pairs * P)

extent is what the tasks of the round look into, all of it: what a cache holds a smaller part of the
more it is, rows and dimensions alike. F, I and P are a machine's, measured by short loops; the
others are a kind of round's (`leaves`, `join`, ...), fitted to runs. A kind that was not measured
takes those of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from simdist.runner.plan import RoundForecast

__all__ = ["KindRates", "Measured", "Rates", "fitted"]

REFERENCE = 32 << 20  # bytes looked into for which the other rates are given
GROWS_FROM, GROWS_UNTIL = 1 << 20, 4 << 30  # bytes: what caches hold of less is all, of more little
GROWTHS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)  # that are tried
CLEARER = 0.9  # of the squared errors with less growth, at most: else less growth explains as much
SWEEPS = 2000  # of coordinate descent: the problems have five unknowns
RIDGE = 1e-3  # towards the prior, per point: decides only what the points leave open


@dataclass(frozen=True, slots=True)
class KindRates:
    """Of one kind of round.

    task: seconds a task takes beside its work. row: seconds a row. byte: seconds a byte read or
    written. work, pair: how often the machine's own time for the products, and for pairs.
    spread: standard deviation of the logarithm of its tasks' seconds.
    growth: the power of the bytes looked into by which all of it takes longer, because caches hold
        less of them.
    """

    task: float = 0.002
    row: float = 2e-7
    byte: float = 1e-9
    work: float = 1.5
    pair: float = 0.5
    spread: float = 0.15
    growth: float = 0.0

    def grown(self, cost: RoundForecast) -> float:
        """How many times as long everything takes where so much is looked into."""
        return float((_extent(cost) / REFERENCE) ** self.growth)

    def times(self, speed: float) -> KindRates:
        """Those of a cpu that is so many times as fast; `work` counts that cpu's own products."""
        return replace(self, task=self.task / speed, row=self.row / speed, byte=self.byte / speed)


@dataclass(frozen=True, slots=True)
class Rates:
    """What one cpu does while all of its machine's are busy. flops: float32 operations a second in
    matrix products. ops: int8 ones. pair: seconds to fetch two rows from anywhere and compare them.
    kinds: by kind of round. other: of kinds that were not measured."""

    flops: float
    ops: float
    pair: float = 3e-8
    kinds: Mapping[str, KindRates] = field(default_factory=dict)
    other: KindRates = KindRates()

    def of(self, kind: str) -> KindRates:
        """Rates of a kind of round."""
        return self.kinds.get(kind, self.other)

    def times(self, speed: float) -> Rates:
        """Those of a cpu that is so many times as fast."""
        kinds = {name: kind.times(speed) for name, kind in self.kinds.items()}
        return Rates(
            self.flops * speed,
            self.ops * speed,
            self.pair / speed,
            kinds,
            self.other.times(speed),
        )

    def work(self, cost: RoundForecast) -> float:
        """Seconds of its products, were there nothing else."""
        return cost.flops / self.flops + cost.ops / self.ops

    def seconds(self, cost: RoundForecast) -> float:
        """CPU seconds of all tasks of a round."""
        kind = self.of(cost.kind)
        return kind.grown(cost) * (
            kind.task * cost.tasks
            + kind.row * cost.rows
            + kind.byte * (cost.read + cost.written)
            + kind.work * self.work(cost)
            + kind.pair * self.pair * cost.pairs
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """A round that ran: its forecast (with what it turned out to be), and its tasks' seconds."""

    cost: RoundForecast
    seconds: float
    spread: float


def fitted(rates: Rates, rounds: Iterable[Measured]) -> Rates:
    """`rates` with those of every kind that was measured, by least squares of relative errors;
    no rate is negative."""
    by_kind: dict[str, list[Measured]] = {}
    for measured in rounds:
        by_kind.setdefault(measured.cost.kind, []).append(measured)
    kinds = {kind: _of_kind(rates, found) for kind, found in sorted(by_kind.items())}
    return Rates(rates.flops, rates.ops, rates.pair, {**rates.kinds, **kinds}, rates.other)


def _of_kind(rates: Rates, found: Sequence[Measured]) -> KindRates:
    """Least squares of (predicted / measured - 1), for the growth that leaves least of them."""
    kind = KindRates(spread=sum(it.spread for it in found) / len(found))
    growths = GROWTHS if len({_extent(it.cost) for it in found}) > 2 else GROWTHS[:1]
    best, least = kind, math.inf
    for growth in growths:
        fit = _linear(rates, found, replace(kind, growth=growth))
        left = _left(replace(rates, kinds={found[0].cost.kind: fit}), found)
        if left < CLEARER * least:
            best, least = fit, left
    return best


def _extent(cost: RoundForecast) -> int:
    """Bytes that the tasks of a round look into."""
    return int(min(max(cost.common, cost.read, GROWS_FROM), GROWS_UNTIL))


def _left(rates: Rates, found: Sequence[Measured]) -> float:
    """Squares of the relative errors, summed."""
    return sum((rates.seconds(it.cost) / max(it.seconds, 1e-9) - 1.0) ** 2 for it in found)


def _linear(rates: Rates, found: Sequence[Measured], kind: KindRates) -> KindRates:
    """`kind` with its rates fitted, its growth given."""
    prior = rates.other
    scale = (prior.task, prior.row, prior.byte, prior.work, prior.pair)
    lines = []
    for it in found:
        cost = it.cost
        moved, pairs = cost.read + cost.written, cost.pairs * rates.pair
        terms = (cost.tasks, cost.rows, moved, rates.work(cost), pairs)
        seconds = max(it.seconds, 1e-9) / kind.grown(cost)
        lines.append([term * unit / seconds for term, unit in zip(terms, scale, strict=True)])
    times = _least_squares(lines)
    task, row, byte, work, pair = (a * b for a, b in zip(times, scale, strict=True))
    return replace(kind, task=task, row=row, byte=byte, work=work, pair=pair)


def _least_squares(lines: Sequence[Sequence[float]]) -> list[float]:
    """x >= 0 that brings every line's product with x near 1, and x near its mean where free."""
    size = range(len(lines[0]))
    level = len(lines) / max(sum(sum(line) for line in lines), 1e-300)
    ridge = RIDGE * len(lines)
    gram = [[sum(line[i] * line[j] for line in lines) for j in size] for i in size]
    sums = [sum(line[i] for line in lines) + ridge / level for i in size]
    x = [level for _ in size]
    for _ in range(SWEEPS):
        for j in size:
            rest = sum(gram[j][i] * x[i] for i in size if i != j)
            x[j] = max((sums[j] - rest) / (gram[j][j] + ridge / level**2), 0.0)
    return x
