"""Stage `compact`: the changes of a grown graph folded into one plain graph, in row order.

Row numbers stay, tombstones stay: a deleted row has no row in the Parquet. Its partition is one of
all rows that the vectors have by then, so what appended rows had to look through as segments is
cells again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.lists import graph_table, ids_of_rows, tombstones
from simdist.partitions import block_rows
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.grow.config import CompactConfig
from simdist.stages.grow.lists import Lists
from simdist.store.datasets import Shard
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["CompactStage"]

CARRIED = ("k", "measure", "method", "recall", "edges", "deleted")


class CompactStage:
    """Inputs: graph, its vectors, lists (`graph_lists`) and, unless every pair was looked at, the
    partition that the plain graph is to stand on."""

    name: ClassVar[str] = "compact"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        graph, lists = job.inputs["graph"], Lists(job.inputs["lists"])
        size = lists.panel_rows
        panels = range(-(-graph.rows // size))
        if "fold" not in rounds:
            nbytes = size * (96 * lists.k + 256) + (24 << 20)
            return Round(
                "fold", tuple(Task(f"fold-{p:06d}", "fold", {"panel": p}, nbytes) for p in panels)
            )
        shards = tuple(
            Shard(int(record.facts["rows"]), record.objects)
            for record in rounds["fold"]
            if record.objects
        )
        metrics: dict[str, Json] = {name: graph.metrics[name] for name in CARRIED}
        return Commit(graph.rows, shards, metrics, graph.manifest.objects)

    def compute(self, context: Context, task: Task) -> Record:
        """A panel's lists, changes folded in."""
        graph, lists = context.inputs["graph"], Lists(context.inputs["lists"])
        first = task.args["panel"] * lists.panel_rows
        rows = np.arange(first, min(first + lists.panel_rows, graph.rows))
        rows = rows[~np.isin(rows, tombstones(graph))]
        if not len(rows):
            return Record(task.key, {}, {"rows": 0})
        neighbors, values = lists.take(rows)
        table = graph_table(rows, ids_of_rows(context.inputs["vectors"], rows), neighbors, values)
        return Record(task.key, {"graph": context.write_table("graph", table)}, {"rows": len(rows)})

    def forecast(self, config: CompactConfig, rows: int, dim: int) -> Forecast:
        """Cost of writing n rows' lists anew."""
        k = config.promise.k
        size = block_rows(rows, 3 * k)
        return Forecast(-(-rows // size), size * (96 * k + 256) + (24 << 20), 0.0, rows * 12 * k)
