"""What only the data decides (pairs a row, joins until the recall is reached), followed over sizes.

runs of a few shapes ──> a plane in log(rows) and log(dim) for each figure ──> Typical elsewhere
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simdist.stages.costs import Typical

__all__ = ["Followed"]

FALLS = 0.4  # a join that no run has seen scores, and misses, so much of what the one before did
MOST_JOINS = 6

Shape = tuple[int, int]  # rows, dimensions


@dataclass(frozen=True)
class Followed:
    """Figures of runs that follow the number of rows and of dimensions, carried on to others."""

    runs: Sequence[dict]
    recall: float

    def at(self, rows: int, dim: int) -> Typical:
        """What the data would decide for so many rows."""
        kept = [Typical(**run["typical"]) for run in self.runs]
        to = (rows, dim)
        joins = self._joins(to)
        return replace(
            kept[-1],
            leaf_copies=_plane(to, self._points([it.leaf_copies for it in kept])),
            leaf_share=_plane(to, self._points([it.leaf_share for it in kept])),
            pairs=self._each(to, [it.pairs for it in kept], joins),
            proposals=self._each(to, [it.proposals for it in kept], joins),
            joins=joins,
        )

    def _joins(self, to: Shape) -> int:
        """As many as bring what is missed below what may be."""
        number, missed = 0, 1.0
        while number < MOST_JOINS:
            number += 1
            missed = self._missed(to, number, missed)
            if missed <= 1.0 - self.recall:
                break
        return number

    def _missed(self, to: Shape, joins: int, before: float) -> float:
        """Neighbours missed after so many joins, as a share; before: after one fewer. Followed over
        the sizes where that was measured; else it falls as it did at the largest."""
        seen = [
            ((run["rows"], run["dim"]), math.log(max(1.0 - run["recalls"][str(joins)], 1e-4)))
            for run in self.runs
            if str(joins) in run["recalls"]
        ]
        if joins == 1 or len({n for (n, _), _ in seen}) > 1:
            return min(math.exp(_plane(to, seen)), 1.0)
        falls = [
            (1.0 - run["recalls"][str(joins)]) / (1.0 - run["recalls"][str(joins - 1)])
            for run in self.runs
            if {str(joins), str(joins - 1)} <= set(run["recalls"])
        ]
        return before * (float(np.mean(falls)) if falls else FALLS)

    def _each(
        self, to: Shape, values: Sequence[tuple[float, ...]], joins: int
    ) -> tuple[float, ...]:
        """A figure of each join: followed where runs have it, else a part of the one before."""
        found: list[float] = []
        for number in range(joins):
            here = [
                ((r["rows"], r["dim"]), v[number])
                for r, v in zip(self.runs, values, strict=True)
                if len(v) > number
            ]
            found.append(max(_plane(to, here), 0.0) if here else found[-1] * FALLS)
        return tuple(found)

    def _points(self, values: Sequence[float]) -> list[tuple[Shape, float]]:
        return [((r["rows"], r["dim"]), v) for r, v in zip(self.runs, values, strict=True)]


def _plane(to: Shape, points: Sequence[tuple[Shape, float]]) -> float:
    """Least squares of a plane in the logarithms of a shape, at `to`: of the smallest tilt where
    the points leave it open, as those of one size only do."""
    logs = np.log([shape for shape, _ in points])
    values = np.array([value for _, value in points])
    middle = logs.mean(axis=0)
    tilt, *_ = np.linalg.lstsq(logs - middle, values - values.mean(), rcond=1e-9)
    return float(values.mean() + (np.log(to) - middle) @ tilt)
