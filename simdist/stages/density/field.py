"""Stages `score_field` and `denoise`: where the data pulls a point, and points that follow.

Attn(x) = sum_j w_j x_j,  w = softmax(-|x - x_j|^2 / 2 sigma^2)      the fold, values its keys

score_field   (Attn(x) - x) / sigma^2, the gradient of log p_sigma     fold, finish
denoise       x <- Attn(x) + (sigma' / sigma) (x - Attn(x))            fold-00, move-00, fold-01,
              for a falling sigma, and sigma' = 0 in the last step     move-01, ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import ConfigError
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.density.fold import (
    FieldConfig,
    Precision,
    Problem,
    each_chunk,
    fold_forecast,
    fold_round,
    fold_task,
    id_column,
    log_volume,
    merged_state,
)
from simdist.stages.density.sides import Side, Width, refuse_mismatch, width_of
from simdist.store.datasets import Shard
from simdist.tiles.gaussian import ScaledRows
from simdist.tiles.softmax import attended
from simdist.types import Array, Float64, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["DenoiseConfig", "DenoiseStage", "ScoreFieldStage"]


class ScoreFieldStage:
    """Inputs: vectors, at, bandwidth. Each shard has

    scores        [rows, d] float64, the gradient of the log density
    log_density   [rows] float64
    field         Parquet (row, id, score list<float32>, log_density)
    """

    name: ClassVar[str] = "score_field"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        refuse_mismatch(job.inputs["vectors"], at=job.inputs["at"])
        problem = _problem(context)
        for step in (fold_round(problem, "fold"), each_chunk(problem, "finish", "finish")):
            if step.name not in rounds:
                return step
        shards = _shards(problem, [record.objects for record in rounds["finish"]])
        metrics = job.inputs["bandwidth"].metrics
        said = {"data_rows": problem.data.rows, "bandwidth": metrics["bandwidth"]}
        return Commit(problem.queries.rows, shards, said)

    def compute(self, context: Context, task: Task) -> Record:
        problem, width = _problem(context), width_of(context)
        if task.kind == "finish":
            return _field(context, task, problem, width)
        rows = problem.queries.read(*problem.queries.span(task.args["chunk"]))
        return fold_task(context, task, problem, width, rows, values=_keys)

    def forecast(self, config: FieldConfig, rows: int, dim: int) -> Forecast:
        """Of n points under n rows."""
        tasks, nbytes, flops = fold_forecast(rows, dim, dim)
        return Forecast(tasks, nbytes, flops, 20 * rows * dim)


def _problem(context: Context) -> Problem:
    return Problem.of(context, int(context.inputs["vectors"].metrics["dim"]))


def _shards(problem: Problem, objects: list[Mapping[str, ObjectRef]]) -> tuple[Shard, ...]:
    spans = (problem.queries.span(chunk) for chunk in range(problem.queries.chunks))
    return tuple(Shard(last - first, o) for (first, last), o in zip(spans, objects, strict=True))


def _keys(first: int, last: int, keys: ScaledRows) -> Array:
    return keys.rows


def _field(context: Context, task: Task, problem: Problem, width: Width) -> Record:
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    chunk = task.args["chunk"]
    first, last = problem.queries.span(chunk)
    found = attended(merged_state(context, problem, "fold", chunk), np.float64)
    points = (problem.queries.read(first, last).astype(np.float64) - width.center) / width.widths
    scores = (found.output - points) / width.widths
    log_density = found.logsumexp - (log_volume(width) + math.log(problem.data.rows))
    columns = {
        "row": np.arange(first, last),
        **dict(id_column(problem.queries.dataset, first, last)),
        "score": _lists(scores),
        "log_density": log_density,
    }
    objects = {
        "scores": context.write_array("scores", scores),
        "log_density": context.write_array("log_density", log_density),
        "field": context.write_table("field", pa.table(columns)),
    }
    return Record(task.key, objects)


def _lists(rows: Array) -> Json:
    """[m, d] as a column of fixed-size lists of float32."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    flat = pa.array(rows.astype(np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


@dataclass(frozen=True, slots=True)
class DenoiseConfig:
    """sigmas: of the steps, falling; the first is the bandwidth's. precision: see
    `kernel_density`."""

    sigmas: tuple[float, ...]
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        FieldConfig(self.precision)
        falling = all(b < a for a, b in zip(self.sigmas, self.sigmas[1:], strict=False))
        if not self.sigmas or not falling or not (self.sigmas[-1] > 0):
            raise ConfigError(f"sigmas={list(self.sigmas)}: expected falling numbers above 0")

    def to_json(self) -> Json:
        return {"sigmas": list(self.sigmas), "precision": self.precision}


class DenoiseStage:
    """Inputs: vectors, at (the noisy points), bandwidth (first sigma). A vectors dataset with as
    many rows as `at`, in its order and under its ids: each shard has

    vectors   [rows, d] float32, float64 where the noisy points are
    rows      Parquet (row, id)
    points    Parquet (row, id, vector list<float32>)
    """

    name: ClassVar[str] = "denoise"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        refuse_mismatch(job.inputs["vectors"], at=job.inputs["at"])
        problem, config = _problem(context), job.config
        for step in _denoise_story(problem, config):
            if step.name not in rounds:
                return step
        last = rounds[_named("move", len(config.sigmas) - 1)]
        zeros = [record.facts["zero"] for record in last]
        metrics: dict[str, Json] = {
            "dim": problem.data.dim,
            "dtype": _dtype(problem.queries),
            "id": problem.queries.dataset.metrics.get("id", "row"),
            "first_zero_row": min((zero for zero in zeros if zero is not None), default=None),
            "sigmas": list(config.sigmas),
            "data_rows": problem.data.rows,
        }
        return Commit(problem.queries.rows, _shards(problem, [r.objects for r in last]), metrics)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: DenoiseConfig, rows: int, dim: int) -> Forecast:
        """Of n points under n rows, every step."""
        steps = len(config.sigmas)
        tasks, nbytes, flops = fold_forecast(rows, dim, dim)
        return Forecast(tasks * steps, nbytes, flops * steps, 16 * rows * dim * steps)


def _denoise_story(problem: Problem, config: DenoiseConfig) -> Iterator[Round]:
    for step in range(len(config.sigmas)):
        yield fold_round(problem, _named("fold", step), step=step)
        yield each_chunk(problem, _named("move", step), "move", step=step)


def _named(kind: str, step: int) -> str:
    return f"{kind}-{step:03d}"


def _dtype(side: Side) -> str:
    return "float64" if side.dtype == "float64" else "float32"


def _at(context: Context, problem: Problem, chunk: int, step: int) -> Array:
    """Where a chunk's points are before a step."""
    if step == 0:
        return problem.queries.read(*problem.queries.span(chunk))
    record = context.records(_named("move", step - 1))[chunk]
    return context.load(record.objects["points"])


def _width(context: Context, step: int) -> Width:
    sigmas = context.config.sigmas
    return width_of(context).times(sigmas[step] / sigmas[0])


def _fold(context: Context, task: Task) -> Record:
    problem, step = _problem(context), task.args["step"]
    rows = _at(context, problem, task.args["chunk"], step)
    return fold_task(context, task, problem, _width(context, step), rows, values=_keys)


def _move(context: Context, task: Task) -> Record:
    """Points after a step; the last one leaves the result."""
    problem, chunk, step = _problem(context), task.args["chunk"], task.args["step"]
    width, sigmas = _width(context, step), context.config.sigmas
    found = attended(merged_state(context, problem, _named("fold", step), chunk), np.float64)
    mean = found.output * width.widths + width.center
    if step + 1 == len(sigmas):
        return _finish(context, task, problem, mean)
    points = _at(context, problem, chunk, step).astype(np.float64)
    moved = mean + (sigmas[step + 1] / sigmas[step]) * (points - mean)
    return Record(task.key, {"points": context.write_array("points", moved)})


def _finish(context: Context, task: Task, problem: Problem, points: Float64) -> Record:
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    first, last = problem.queries.span(task.args["chunk"])
    rows: Array = points.astype(_dtype(problem.queries))
    numbers = np.arange(first, last)
    ids = dict(id_column(problem.queries.dataset, first, last))
    named = {"row": numbers, "id": numbers, **ids}
    zeros = np.flatnonzero(~rows.any(axis=1))
    objects = {
        "vectors": context.write_array("vectors", rows),
        "rows": context.write_table("rows", pa.table(named)),
        "points": context.write_table("points", pa.table({**named, "vector": _lists(rows)})),
    }
    return Record(task.key, objects, {"zero": first + int(zeros[0]) if len(zeros) else None})


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {"fold": _fold, "move": _move}
