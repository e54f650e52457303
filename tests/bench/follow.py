"""What only the data decides (pairs a row, joins until the recall is reached), followed over sizes.

runs of a few sizes ──> a line in log(rows) for each figure ──> Typical at another size
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


@dataclass(frozen=True)
class Followed:
    """Figures of runs that follow the number of rows, carried on to other sizes."""

    runs: Sequence[dict]
    recall: float

    def at(self, rows: int, dim: int) -> Typical:
        """What the data would decide for so many rows."""
        kept = [Typical(**run["typical"]) for run in self.runs]
        joins = self._joins(rows)
        pairs = self._each(rows, [it.pairs for it in kept], joins)
        left = self._each(rows, [it.proposals for it in kept], joins)
        return replace(
            kept[-1],
            leaf_copies=self._line(rows, [it.leaf_copies for it in kept]),
            leaf_share=self._line(rows, [it.leaf_share for it in kept]),
            pairs=pairs,
            proposals=left,
            joins=joins,
        )

    def _joins(self, rows: int) -> int:
        """As many as bring what is missed below what may be."""
        number, missed = 0, 1.0
        while number < MOST_JOINS:
            number += 1
            missed = self._missed(rows, number, missed)
            if missed <= 1.0 - self.recall:
                break
        return number

    def _missed(self, rows: int, joins: int, before: float) -> float:
        """Neighbours missed after so many joins, as a share; before: after one fewer. Followed over
        the sizes where that was measured; else it falls as it did at the largest."""
        seen = [
            (run["rows"], math.log(max(1.0 - run["recalls"][str(joins)], 1e-4)))
            for run in self.runs
            if str(joins) in run["recalls"]
        ]
        if len({n for n, _ in seen}) > 1:
            slope, at = np.polyfit(np.log([n for n, _ in seen]), [y for _, y in seen], 1)
            return min(math.exp(slope * math.log(rows) + at), 1.0)
        falls = [
            (1.0 - run["recalls"][str(joins)]) / (1.0 - run["recalls"][str(joins - 1)])
            for run in self.runs
            if {str(joins), str(joins - 1)} <= set(run["recalls"])
        ]
        return before * (float(np.mean(falls)) if falls else FALLS)

    def _each(
        self, rows: int, values: Sequence[tuple[float, ...]], joins: int
    ) -> tuple[float, ...]:
        """A figure of each join: followed where runs have it, else a part of the one before."""
        found: list[float] = []
        for number in range(joins):
            here = [
                (r, v[number]) for r, v in zip(self.runs, values, strict=True) if len(v) > number
            ]
            if here:
                found.append(_line(rows, [(r["rows"], value) for r, value in here]))
            else:
                found.append(found[-1] * FALLS)
        return tuple(found)

    def _line(self, rows: int, values: Sequence[float]) -> float:
        return _line(rows, [(r["rows"], v) for r, v in zip(self.runs, values, strict=True)])


def _line(rows: int, points: Sequence[tuple[int, float]]) -> float:
    """Least squares of a line in log(rows), at `rows`; the mean where there is one size only."""
    xs, ys = np.log([n for n, _ in points]), np.array([value for _, value in points])
    if len(set(xs)) < 2:
        return float(ys.mean())
    slope, at = np.polyfit(xs, ys, 1)
    return max(float(slope * math.log(rows) + at), 0.0)
