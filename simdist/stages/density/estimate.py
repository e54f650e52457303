"""Stages `kernel_density` and `outlier_scores`: how dense the data is at each row.

kernel_density   fold, finish      log f(x) = log sum_j exp(-|x - x_j|^2 / 2 h^2) - log n - volume
outlier_scores   finish, or        -log f, left out of its own estimate; or relative to the
                 fold, finish      log f of its neighbours, averaged under the same kernel
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.panels import rows_between
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.density.fold import (
    FieldConfig,
    Problem,
    each_chunk,
    fold_forecast,
    fold_round,
    fold_task,
    id_column,
    log_volume,
    merged_state,
)
from simdist.stages.density.sides import chunk_rows, refuse_mismatch, width_of
from simdist.store.datasets import Shard
from simdist.tiles.softmax import attended
from simdist.types import Float64, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["KernelDensityStage", "Method", "OutlierConfig", "OutlierStage", "refuse_alone"]

AROUND = 3.0  # bandwidths: what counts as a row's neighbourhood, wide enough to hold some rows

Method: TypeAlias = Literal["density", "relative"]


def refuse_alone(problem: Problem) -> None:
    """InputError where a row would have no other row to be compared with."""
    if problem.count < 1:
        raise InputError(
            f"{problem.data.dataset.uri} has {problem.data.rows} row: without itself a row has no"
            " other to be compared with. Give at= where the estimate is wanted."
        )


class KernelDensityStage:
    """Inputs: vectors, bandwidth; at, where it is not the data. Each shard has

    log_density   [rows] float64
    density       Parquet (row, id, log_density)
    """

    name: ClassVar[str] = "kernel_density"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        refuse_mismatch(job.inputs["vectors"], at=job.inputs.get("at"))
        problem = Problem.of(context, 0)
        refuse_alone(problem)
        for step in (fold_round(problem, "fold"), each_chunk(problem, "finish", "finish")):
            if step.name not in rounds:
                return step
        metrics: dict[str, Json] = {
            "leave_one_out": problem.apart,
            "data_rows": problem.data.rows,
            **_said(job),
        }
        return Commit(problem.queries.rows, _shards(problem, rounds), metrics)

    def compute(self, context: Context, task: Task) -> Record:
        problem = Problem.of(context, 0)
        if task.kind == "finish":
            return _density(context, task, problem)
        rows = problem.queries.read(*problem.queries.span(task.args["chunk"]))
        return fold_task(context, task, problem, width_of(context), rows)

    def forecast(self, config: FieldConfig, rows: int, dim: int) -> Forecast:
        """Of n rows over themselves."""
        tasks, nbytes, flops = fold_forecast(rows, dim, 0)
        return Forecast(tasks, nbytes, flops, 40 * rows)


def _said(job: Job) -> dict[str, Json]:
    """What the bandwidth's manifest says in short."""
    metrics = job.inputs["bandwidth"].metrics
    return {name: metrics[name] for name in ("rule", "bandwidth")}


def _shards(problem: Problem, rounds: Rounds) -> tuple[Shard, ...]:
    spans = (problem.queries.span(chunk) for chunk in range(problem.queries.chunks))
    pairs = zip(spans, rounds["finish"], strict=True)
    return tuple(Shard(last - first, record.objects) for (first, last), record in pairs)


def _density(context: Context, task: Task, problem: Problem) -> Record:
    chunk = task.args["chunk"]
    state = merged_state(context, problem, "fold", chunk)
    volume = log_volume(width_of(context)) + math.log(problem.count)
    log_density = attended(state, np.float64).logsumexp - volume
    return _write(context, task, problem, "log_density", log_density, "density")


def _write(
    context: Context, task: Task, problem: Problem, role: str, values: Float64, table: str
) -> Record:
    """[rows] values of a chunk as .npy and, with rows and ids, as Parquet."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    first, last = problem.queries.span(task.args["chunk"])
    ids = dict(id_column(problem.queries.dataset, first, last))
    columns = {"row": np.arange(first, last), **ids, role: values}
    objects = {
        role: context.write_array(role, values),
        table: context.write_table(table, pa.table(columns)),
    }
    return Record(task.key, objects)


@dataclass(frozen=True, slots=True)
class OutlierConfig(FieldConfig):
    """method: see `outlier_scores`."""

    method: Method = "density"

    def __post_init__(self) -> None:
        FieldConfig.__post_init__(self)
        if self.method not in ("density", "relative"):
            raise ConfigError(f"method={self.method!r}: expected 'density' or 'relative'")

    def to_json(self) -> Json:
        return asdict(self) if self.method == "relative" else {"method": self.method}


class OutlierStage:
    """Inputs: vectors, bandwidth, density (of each row of the data, left out). Each shard has

    scores     [rows] float64, larger is further out
    outliers   Parquet (row, id, scores)
    """

    name: ClassVar[str] = "outlier_scores"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        problem = Problem.of(context, 0)
        story = [each_chunk(problem, "finish", "finish")]
        if job.config.method == "relative":
            near = (fold_round(problem, name, near=name == "near") for name in ("near", "count"))
            story = [*near, *story]
        for step in story:
            if step.name not in rounds:
                return step
        metrics = {"method": job.config.method, **_said(job)}
        return Commit(problem.queries.rows, _shards(problem, rounds), metrics)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: OutlierConfig, rows: int, dim: int) -> Forecast:
        """Two more folds where scores are relative."""
        tasks, nbytes, flops = fold_forecast(rows, dim, 0)
        if config.method == "density":
            return Forecast(-(-rows // chunk_rows(rows, dim)), nbytes, 0.0, 40 * rows)
        return Forecast(2 * tasks, nbytes, 2 * flops, 40 * rows)


def _fold(context: Context, task: Task) -> Record:
    """What is near each row, by number, or by density where the round is "near"."""
    problem, width = Problem.of(context, 0), width_of(context).times(AROUND)
    density = context.inputs["density"]

    def logs(first: int, last: int) -> Float64:
        found: Float64 = rows_between(density, "log_density", first, last)
        return found

    rows = problem.queries.read(*problem.queries.span(task.args["chunk"]))
    bias = logs if task.args["near"] else None
    return fold_task(context, task, problem, width, rows, bias=bias)


def _scores(context: Context, task: Task) -> Record:
    problem, chunk = Problem.of(context, 0), task.args["chunk"]
    own = rows_between(context.inputs["density"], "log_density", *problem.queries.span(chunk))
    scores = -own.astype(np.float64)
    if context.config.method == "relative":
        near, count = (
            attended(merged_state(context, problem, name, chunk), np.float64).logsumexp
            for name in ("near", "count")
        )
        scores = scores + near - count
    return _write(context, task, problem, "scores", scores, "outliers")


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {"fold": _fold, "finish": _scores}
