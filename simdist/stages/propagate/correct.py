"""Stage `correct_and_smooth`: predictions mended by what is known. Inputs: graph, predictions
(vectors, a column a class), labels.

    error      E0 = Y - Z on known rows, 0 elsewhere              task a row shard
    correct-*  E' = a S E + (1 - a) E0, cut to [-1, 1]            task a row shard and step
    mended     Z + scale E, and Y on known rows                   task a row shard
    smooth-*   G' = b S G + (1 - b) G0, cut to [0, 1]             task a row shard and step
    finish     the class that scores most                         task a row shard

S = D^-1/2 A D^-1/2. Autoscale gives each row's error the size that errors have on known rows.
Source: Huang et al., Combining Label Propagation and Simple Models (ICLR 2021, arXiv 2010.13993).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.operators import ShardedCsr
from simdist.panels import rows_between
from simdist.runner.plan import Commit, Job, Record, Round, Rounds, Task
from simdist.stages.propagate.config import CorrectConfig
from simdist.stages.propagate.features import refuse_other_rows
from simdist.stages.propagate.finish import finish_round, label_runs, shards_of
from simdist.stages.propagate.labels import one_hot
from simdist.stages.propagate.walk import (
    Walking,
    block_cuts,
    compute_walk,
    next_walk,
    roles_of,
    walk_nbytes,
)
from simdist.types import Float64, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["CorrectAndSmoothStage"]

LARGEST_SCALE = 1000.0  # rows that hardly any error reached keep it as it is, as the paper's code


class CorrectAndSmoothStage:
    """See the module docstring."""

    name: ClassVar[str] = "correct_and_smooth"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        operator, config = ShardedCsr.of(job.inputs["graph"]), job.config
        for role in ("predictions", "labels"):
            refuse_other_rows(operator, job.inputs[role], role)
        dim = int(job.inputs["predictions"].metrics["dim"])
        if "error" not in rounds:
            return _round(operator, "error", dim)
        known = sum(int(record.facts["known"]) for record in rounds["error"])
        if not known:
            raise InputError("no row has a label: every one is -1. There is nothing to correct by.")
        correcting = Walking(config.correcting, "correct", "error", dim, config.steps)
        corrected = next_walk(rounds, operator, correcting)
        if isinstance(corrected, Round):
            return corrected
        sigma = math.fsum(record.facts["error"] for record in rounds["error"]) / known
        if "mended" not in rounds:
            return _round(operator, "mended", dim, of=corrected.round, sigma=sigma)
        smoothing = Walking(config.smoothing, "smooth", "mended", dim, config.steps)
        smoothed = next_walk(rounds, operator, smoothing)
        if isinstance(smoothed, Round):
            return smoothed
        if "finish" not in rounds:
            return finish_round(operator, "finish", smoothed.round, dim)
        metrics: dict[str, Json] = {
            "classes": list(range(dim)),
            "known": known,
            "unreached": sum(int(record.facts["unreached"]) for record in rounds["finish"]),
            "error": sigma,
            "steps": config.steps,
            "change": smoothed.change,
            "state": smoothed.state,
        }
        return Commit(operator.nodes, shards_of(rounds["finish"]), metrics)

    def compute(self, context: Context, task: Task) -> Record:
        if task.kind == "error":
            return _error(context, task)
        if task.kind == "mended":
            return _mended(context, task)
        if task.kind == "walk":
            return compute_walk(context, task)
        dim = int(context.inputs["predictions"].metrics["dim"])
        return label_runs(context, task, dim, np.arange(dim, dtype=np.int64))


def _round(operator: ShardedCsr, name: str, dim: int, **args: Json) -> Round:
    return Round(
        name,
        tuple(
            Task(f"{name}-{i:06d}", name, {"shard": i, **args}, walk_nbytes(operator, i, dim))
            for i in range(operator.shards)
        ),
    )


def _given(context: Context, shard: int, columns: slice) -> tuple[Float64, Ids, Float64]:
    """A shard's predictions, labels and one-hot labels, some of the columns."""
    operator = ShardedCsr.of(context.inputs["graph"])
    span, inputs = operator.span(shard), context.inputs
    Z = rows_between(inputs["predictions"], "vectors", *span, columns).astype(np.float64)
    labels = np.asarray(rows_between(inputs["labels"], "labels", *span))
    classes = np.arange(int(inputs["predictions"].metrics["dim"]))
    return Z, labels, one_hot(labels, classes, columns)


def _error(context: Context, task: Task) -> Record:
    """Facts: error, the sum of |Y - Z| on known rows; known: how many these are."""
    operator, shard = ShardedCsr.of(context.inputs["graph"]), task.args["shard"]
    dim = int(context.inputs["predictions"].metrics["dim"])
    objects, total, known = {}, 0.0, 0
    for place, columns in enumerate(block_cuts(operator, dim)):
        context.check()
        Z, labels, Y = _given(context, shard, columns)
        high = int(labels.max(initial=-1))
        if high >= dim:
            row = operator.span(shard)[0] + int(labels.argmax())
            raise InputError(
                f"row {row} has label {high}, the predictions have {dim} columns: expected a column"
                " for every class, classes numbered from 0"
            )
        E = np.where((labels >= 0)[:, None], Y - Z, 0.0)
        total, known = total + float(np.abs(E).sum()), int(np.sum(labels >= 0))
        objects[f"x-{place:05d}"] = context.write_array("walk", E)
    return Record(task.key, objects, {"error": total, "known": known})


def _mended(context: Context, task: Task) -> Record:
    """Predictions with the spread errors added, known rows as they are known."""
    operator, args = ShardedCsr.of(context.inputs["graph"]), task.args
    config: CorrectConfig = context.config
    dim = int(context.inputs["predictions"].metrics["dim"])
    state = context.records(args["of"])[args["shard"]]
    errors = [context.load(state.objects[role]) for role in roles_of(state)]
    if config.scale is None:
        size = sum(np.abs(E).sum(axis=1) for E in errors)
        with np.errstate(divide="ignore"):
            scale = args["sigma"] / np.asarray(size)
        scale[~(scale <= LARGEST_SCALE)] = 1.0
    else:
        scale = np.full(operator.rows(args["shard"]), config.scale)
    objects = {}
    for place, columns in enumerate(block_cuts(operator, dim)):
        context.check()
        Z, labels, Y = _given(context, args["shard"], columns)
        G = np.where((labels >= 0)[:, None], Y, Z + scale[:, None] * errors[place])
        objects[f"x-{place:05d}"] = context.write_array("walk", G)
    return Record(task.key, objects)
