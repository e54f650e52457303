"""Stage `kernel_regression`: a mean of the values near a point (Nadaraya 1964, Watson 1964).

m(x) = sum_j w_j y_j,  w = softmax(-|x - x_j|^2 / 2 h^2)       the fold, values y; fold, finish
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.density.estimate import refuse_alone
from simdist.stages.density.fold import (
    FieldConfig,
    Problem,
    each_chunk,
    fold_forecast,
    fold_round,
    fold_task,
    id_column,
    merged_state,
)
from simdist.stages.density.sides import Values, refuse_mismatch, width_of
from simdist.store.datasets import Shard
from simdist.tiles.gaussian import ScaledRows
from simdist.tiles.softmax import attended
from simdist.types import Array, Float64, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["KernelRegressionStage", "RegressionConfig"]


@dataclass(frozen=True, slots=True)
class RegressionConfig(FieldConfig):
    """columns: of the values input, of its rows' tables; none where it has "values"."""

    columns: tuple[str, ...] = ()

    def to_json(self) -> Json:
        return {"precision": self.precision, "columns": list(self.columns)}


class KernelRegressionStage:
    """Inputs: vectors, values, bandwidth; at, where it is not the data. Each shard has

    predictions   [rows, t] float64
    regression    Parquet (row, id, a column for each of the values)
    """

    name: ClassVar[str] = "kernel_regression"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        refuse_mismatch(job.inputs["vectors"], at=job.inputs.get("at"))
        values = _values(context)
        problem = Problem.of(context, values.width)
        refuse_alone(problem)
        if values.dataset.rows != problem.data.rows:
            raise InputError(
                f"{values.dataset.rows} values ({values.dataset.uri}) for {problem.data.rows} rows:"
                " expected one for each"
            )
        for step in (fold_round(problem, "fold"), each_chunk(problem, "finish", "finish")):
            if step.name not in rounds:
                return step
        spans = (problem.queries.span(chunk) for chunk in range(problem.queries.chunks))
        shards = tuple(
            Shard(last - first, record.objects)
            for (first, last), record in zip(spans, rounds["finish"], strict=True)
        )
        bandwidth = job.inputs["bandwidth"].metrics
        metrics: dict[str, Json] = {
            "columns": values.width,
            "leave_one_out": problem.apart,
            "data_rows": problem.data.rows,
            "rule": bandwidth["rule"],
            "bandwidth": bandwidth["bandwidth"],
        }
        return Commit(problem.queries.rows, shards, metrics)

    def compute(self, context: Context, task: Task) -> Record:
        values = _values(context)
        problem = Problem.of(context, values.width)
        if task.kind == "finish":
            return _predictions(context, task, problem, values)

        def read(first: int, last: int, keys: ScaledRows) -> Array:
            return values.read(first, last) - _origin(values)

        rows = problem.queries.read(*problem.queries.span(task.args["chunk"]))
        return fold_task(context, task, problem, width_of(context), rows, values=read)

    def forecast(self, config: RegressionConfig, rows: int, dim: int) -> Forecast:
        """Of n points under n rows, one value each."""
        tasks, nbytes, flops = fold_forecast(rows, dim, max(len(config.columns), 1))
        return Forecast(tasks, nbytes, flops, 40 * rows)


def _values(context: Context) -> Values:
    return Values(context.inputs["values"], context.config.columns)


def _origin(values: Values) -> Float64:
    """[t] the first row's values: what others are told apart from in float32, however far from 0
    they lie."""
    first: Float64 = values.read(0, 1)[0]
    return first


def _predictions(context: Context, task: Task, problem: Problem, values: Values) -> Record:
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    chunk = task.args["chunk"]
    first, last = problem.queries.span(chunk)
    found = attended(merged_state(context, problem, "fold", chunk), np.float64)
    predictions = found.output + _origin(values)
    names = context.config.columns or tuple(f"prediction_{i}" for i in range(values.width))
    columns = dict(zip(names, predictions.T, strict=True))
    ids = dict(id_column(problem.queries.dataset, first, last))
    table = pa.table({"row": np.arange(first, last), **ids, **columns})
    objects = {
        "predictions": context.write_array("predictions", predictions),
        "regression": context.write_table("regression", table),
    }
    return Record(task.key, objects)
