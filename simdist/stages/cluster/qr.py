"""Rounds of cluster_qr over panels: a pivot a round, then the rotation.

    pivot-*   the panel's row furthest from the span of the pivots so far    task a panel
    rotate    the pivots' polar factor                                       one task

The pivots are those that a pivoted QR of all rows in one place would choose: each round compares
all rows. Rows that fit one task go through the same steps in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from simdist.runner.plan import Record, Round, Task
from simdist.stages.cluster.pivots import Pivot, chosen, farthest, rotation
from simdist.stages.cluster.points import Points
from simdist.stages.cluster.tasks import block_of, each, once, points_of
from simdist.types import Float64, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["compute_pivot", "compute_qr", "compute_rotate", "qr_rounds"]


def qr_rounds(points: Points, dim: int, at: dict[str, Json]) -> Iterator[Round]:
    """As many pivots as there are coordinates, and the rotation."""
    for number in range(dim):
        yield each(points, f"pivot-{number:04d}", "pivot", dim, dim, number=number, at=at)
    yield once("rotate", "rotate", 32 * dim * dim, clusters=dim)


def compute_qr(context: Context, task: Task) -> Record:
    """All rows in one place: every pivot, and the rotation. args: at, clusters."""
    panels = range(points_of(context).panels)
    X = np.concatenate([block_of(context, panel, task.args["at"])[1] for panel in panels])
    pivots = np.empty((0, X.shape[1]))
    for _ in range(task.args["clusters"]):
        context.check()
        found = farthest(X, pivots)
        assert found is not None, "there are at least as many rows as clusters"
        pivots = np.concatenate([pivots, found.point[None]])
    return _turned(context, task, pivots)


def compute_pivot(context: Context, task: Task) -> Record:
    """A panel's offer. Facts: length, and the row's coordinates; empty where no row takes part."""
    pivots = _pivots(context, task.args["number"])
    _, X = block_of(context, task.args["panel"], task.args["at"])
    found = farthest(X, pivots.reshape(-1, X.shape[1]))
    if found is None:
        return Record(task.key)
    return Record(task.key, {}, {"length": found.length, "point": found.point.tolist()})


def _pivots(context: Context, count: int) -> Float64:
    """[count, k] the first pivots, in order."""
    points = []
    for number in range(count):
        facts = [record.facts for record in context.records(f"pivot-{number:04d}")]
        offers = [Pivot(f["length"], 0, np.array(f["point"])) if f else None for f in facts]
        best = offers[chosen(offers)]
        assert best is not None, "some panel has rows"
        points.append(best.point)
    return np.array(points)


def compute_rotate(context: Context, task: Task) -> Record:
    """The rotation that turns the pivots to the axes."""
    return _turned(context, task, _pivots(context, task.args["clusters"]))


def _turned(context: Context, task: Task, pivots: Float64) -> Record:
    return Record(task.key, {"turn": context.write_array("turn", rotation(pivots))})
