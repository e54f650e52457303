"""Stage `propagate`: features walked over a links graph. Inputs: graph, and a vectors dataset of as
many rows as it has nodes. What is committed is a vectors dataset again, under the same ids.

    start   features by (row shard, column block)     task a row shard
    walk-*  a step                                    task a row shard
    finish  vectors in runs of rows, first zero row   task a row shard
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.lists import ids_of_rows
from simdist.operators import ShardedCsr
from simdist.panels import rows_between
from simdist.runner.plan import Commit, Job, Record, Round, Rounds, Task
from simdist.stages.propagate.config import PropagateConfig
from simdist.stages.propagate.finish import finish_round, runs_of, shards_of
from simdist.stages.propagate.walk import (
    Walking,
    block_cuts,
    compute_walk,
    next_walk,
    walk_nbytes,
)
from simdist.store.datasets import Dataset
from simdist.types import Ids, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["PropagateStage", "refuse_other_rows", "start_round", "vectors_start"]


class PropagateStage:
    """See the module docstring."""

    name: ClassVar[str] = "propagate"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        operator, features = ShardedCsr.of(job.inputs["graph"]), job.inputs["features"]
        refuse_other_rows(operator, features, "features")
        config: PropagateConfig = job.config
        dim = int(features.metrics["dim"])
        if "start" not in rounds:
            return start_round(operator, dim)
        walking = Walking(
            config.walk, "walk", "start", dim, config.step_count, config.stops_at, "float32"
        )
        walked = next_walk(rounds, operator, walking)
        if isinstance(walked, Round):
            return walked
        if "finish" not in rounds:
            return finish_round(operator, "finish", walked.round, dim)
        zero = [record.facts["zero"] for record in rounds["finish"]]
        metrics: dict[str, Json] = {
            "dim": dim,
            "dtype": "float32",
            "id": features.metrics.get("id", "row"),
            "first_zero_row": next((row for row in zero if row is not None), None),
            "kind": config.kind,
            "steps": walked.steps,
            "change": walked.change,
            "state": walked.state,
        }
        return Commit(operator.nodes, shards_of(rounds["finish"]), metrics)

    def compute(self, context: Context, task: Task) -> Record:
        if task.kind == "start":
            return vectors_start(context, task)
        return compute_walk(context, task) if task.kind == "walk" else _finish(context, task)


def refuse_other_rows(operator: ShardedCsr, data: Dataset, what: str) -> None:
    """InputError where a dataset has not one row for every node."""
    if data.rows != operator.nodes:
        raise InputError(
            f"the graph {operator.dataset.uri} has {operator.nodes} nodes, the {what}"
            f" {data.uri} have {data.rows} rows: expected a row for every node, in the same order"
        )


def start_round(operator: ShardedCsr, dim: int) -> Round:
    """A task a row shard, which cuts its rows of the features into column blocks."""
    return Round(
        "start",
        tuple(
            Task(f"start-{i:06d}", "start", {"shard": i}, walk_nbytes(operator, i, dim))
            for i in range(operator.shards)
        ),
    )


def vectors_start(context: Context, task: Task) -> Record:
    """A shard's rows of the features, a column block at a time, as float32."""
    operator, features = ShardedCsr.of(context.inputs["graph"]), context.inputs["features"]
    span = operator.span(task.args["shard"])
    objects = {}
    for place, columns in enumerate(block_cuts(operator, int(features.metrics["dim"]))):
        context.check()
        block = rows_between(features, "vectors", *span, columns)
        objects[f"x-{place:05d}"] = context.write_array("walk", block.astype(np.float32))
    return Record(task.key, objects)


def _finish(context: Context, task: Task) -> Record:
    """A shard's rows as vectors, run by run."""
    operator, features = ShardedCsr.of(context.inputs["graph"]), context.inputs["features"]
    i, dim = task.args["shard"], int(features.metrics["dim"])
    begin, _ = operator.span(i)
    state, factor = context.records(task.args["of"])[i], np.float32(context.config.factor)
    objects, sizes, zero = {}, [], None
    for run, (first, rows) in enumerate(runs_of(context, state, operator.rows(i), dim)):
        numbers = np.arange(len(rows)) + begin + first
        vectors = rows * factor
        objects[f"vectors-{run:05d}"] = context.write_array("vectors", vectors)
        objects[f"rows-{run:05d}"] = context.write_table("rows", _rows_table(features, numbers))
        blank = np.flatnonzero(~vectors.any(axis=1))
        if zero is None and len(blank):
            zero = int(numbers[blank[0]])
        sizes.append(len(rows))
    return Record(task.key, objects, {"rows": sizes, "zero": zero})


def _rows_table(features: Dataset, rows: Ids) -> pa.Table:
    """row, and the id that the features have for it."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    known = "rows" in features.shards[0].objects
    ids = ids_of_rows(features, rows) if known else pa.array(rows)
    return pa.table({"row": pa.array(rows), "id": ids})
