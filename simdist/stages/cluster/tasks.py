"""What the rounds of clustering share: tasks of panels, and a task's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simdist.runner.plan import Round, Task
from simdist.stages.cluster.config import ClusterConfig
from simdist.stages.cluster.points import Coordinates, Points
from simdist.types import Float64, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["block_of", "each", "once", "points_of"]

SLICE = 8192  # rows compared with all centers at once
BASE_NBYTES = 16 << 20


def points_of(context: Context) -> Points:
    """The rows of the job at hand."""
    inputs = context.inputs
    return Points(inputs["embedding"], inputs.get("components"))


def block_of(context: Context, panel: int, at: dict[str, Json]) -> tuple[Ids, Float64]:
    """(rows, coordinates) of a panel's rows that take part."""
    context.check()
    config: ClusterConfig = context.config
    where = Coordinates.from_json(at)
    return points_of(context).block(panel, where, normalize=config.normalize)


def each(points: Points, name: str, kind: str, dim: int, width: int, **args: Json) -> Round:
    """A task a panel. width: centers that a row is compared with."""
    rows = min(points.panel_rows, points.rows)
    nbytes = 8 * rows * (4 * dim + 8) + 24 * SLICE * width + BASE_NBYTES
    return Round(
        name,
        tuple(
            Task(f"{name}-{panel:06d}", kind, {"panel": panel, **args}, nbytes)
            for panel in range(points.panels)
        ),
    )


def once(name: str, kind: str, nbytes: int, **args: Json) -> Round:
    """A single task, which holds so many bytes of its own."""
    return Round(name, (Task(name, kind, args, nbytes + BASE_NBYTES),))
