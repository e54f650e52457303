"""From points (recall, cost) to statements: what does recall 0.95 cost, how does time grow with n.

    frontier(points)            those that nothing beats in both
    cost_at(points, 0.95)       cost of a recall between two settings
    slope(sizes, seconds)       exponent of n in seconds ~ n^slope

Pure arithmetic: what the tables of frontier, growth and leaderboard say is tested here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Point", "cost_at", "frontier", "misses", "slope"]


class Point(NamedTuple):
    """One setting: recall it reached, and what it cost (seconds, wall or CPU)."""

    recall: float
    cost: float


def frontier(points: Iterable[Point]) -> list[Point]:
    """Points that no other reaches with less cost and at least the recall, by rising recall."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost, -one.recall)):
        if not kept or point.recall > kept[-1].recall:
            kept.append(point)
    return kept


def cost_at(points: Iterable[Point], recall: float) -> float | None:
    """What a recall costs: between two settings of the frontier the logarithm of cost is taken to
    be linear in the logarithm of 1 - recall. Below the cheapest setting: that setting's cost, since
    it gives at least as much. None above the best: nothing is guessed."""
    kept = frontier(points)
    if not kept or kept[-1].recall < recall:
        return None
    above = next(i for i, point in enumerate(kept) if point.recall >= recall)
    if above == 0:
        return kept[0].cost
    low, high = kept[above - 1], kept[above]
    left, right = misses(low.recall), misses(high.recall)
    share = (misses(recall) - left) / (right - left)
    return math.exp(math.log(low.cost) + share * (math.log(high.cost) - math.log(low.cost)))


def misses(recall: float) -> float:
    """-log10(1 - recall): 0.9 is 1, 0.99 is 2. A perfect sample counts as one in a million off."""
    return -math.log10(max(1 - recall, 1e-6))


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Exponent of the power law through the points: least squares in logarithms."""
    fit = np.polyfit(np.log(np.asarray(sizes, float)), np.log(np.asarray(seconds, float)), 1)
    return float(fit[0])
