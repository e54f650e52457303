"""Results of a walk, in runs of rows that fit a task: what was kept by column block, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from simdist.operators import ShardedCsr
from simdist.runner.plan import Record, Round, Task
from simdist.stages.propagate.walk import roles_of
from simdist.store.datasets import Shard
from simdist.types import Array, Ids, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["finish_round", "label_runs", "labels_table", "runs_of", "shards_of"]

RUN_NBYTES = 32 << 20


def finish_round(operator: ShardedCsr, name: str, of: str, dim: int, **args: Json) -> Round:
    """A task a row shard, which turns the state that round `of` left into results."""
    tasks = []
    for i in range(operator.shards):
        run = min(operator.rows(i), _run_rows(dim)) * (8 * dim + 64)
        tasks.append(
            Task(f"{name}-{i:06d}", name, {"shard": i, "of": of, **args}, 4 * run + (16 << 20))
        )
    return Round(name, tuple(tasks))


def _run_rows(dim: int) -> int:
    return max(RUN_NBYTES // (8 * dim), 1)


def runs_of(context: Context, record: Record, rows: int, dim: int) -> Iterator[tuple[int, Array]]:
    """(first local row, rows [m, dim]) of a shard's state, run by run, as it was kept."""
    blocks = [record.objects[role] for role in roles_of(record)]
    size = _run_rows(dim)
    for first in range(0, rows, size):
        context.check()
        yield (
            first,
            np.concatenate([context.load(block)[first : first + size] for block in blocks], axis=1),
        )


def shards_of(records: Sequence[Record]) -> tuple[Shard, ...]:
    """The dataset's shards: run after run of record after record. A record has each run's objects
    under `role-00000` and their rows as the fact "rows"."""
    shards = []
    for record in records:
        for run, rows in enumerate(record.facts["rows"]):
            ending = f"-{run:05d}"
            objects = {
                role.removesuffix(ending): ref
                for role, ref in record.objects.items()
                if role.endswith(ending)
            }
            shards.append(Shard(int(rows), objects))
    return tuple(shards)


def label_runs(context: Context, task: Task, dim: int, classes: Ids) -> Record:
    """Labels and scores of a shard's state: a row takes the class that scores most (the lowest of
    equals), -1 where nothing reached it. Facts: rows of each run, and how many are unreached."""
    operator, i = ShardedCsr.of(context.inputs["graph"]), task.args["shard"]
    state = context.records(task.args["of"])[i]
    objects, sizes, unreached = {}, [], 0
    for run, (first, scores) in enumerate(runs_of(context, state, operator.rows(i), dim)):
        best = scores.argmax(axis=1)
        top = scores[np.arange(len(scores)), best]
        labels = np.where(top > 0, classes[best], -1)
        unreached += int(np.sum(labels < 0))
        rows = np.arange(len(scores)) + operator.span(i)[0] + first
        objects[f"labels-{run:05d}"] = context.write_array("labels", labels)
        objects[f"scores-{run:05d}"] = context.write_array("scores", scores.astype(np.float64))
        objects[f"table-{run:05d}"] = context.write_table("labels", labels_table(rows, labels, top))
        sizes.append(len(scores))
    return Record(task.key, objects, {"rows": sizes, "unreached": unreached})


def labels_table(rows: Ids, labels: Ids, scores: Array) -> pa.Table:
    """row int64, label int64, score float64: what SQL reads."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    columns = {"row": rows, "label": labels, "score": np.asarray(scores, np.float64)}
    return pa.table({name: pa.array(column) for name, column in columns.items()})
