"""Stage `label_propagation`: labels of a few nodes handed on to the others. Inputs: graph, labels.

    classes  which labels there are                   task a row shard
    start    one-hot rows of those that are known     task a row shard
    walk-*   a step; ends when no score moves         task a row shard
    finish   the class that scores most               task a row shard

clamped    X' = D^-1 A X, known rows set back: the harmonic function of Zhu and Ghahramani (2002)
spreading  X' = alpha D^-1/2 A D^-1/2 X + (1 - alpha) X0: Zhou et al. (NIPS 2003)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.operators import ShardedCsr
from simdist.panels import rows_between
from simdist.runner.plan import Commit, Job, Record, Round, Rounds, Task
from simdist.stages.propagate.config import LabelConfig
from simdist.stages.propagate.features import refuse_other_rows
from simdist.stages.propagate.finish import finish_round, label_runs, shards_of
from simdist.stages.propagate.walk import (
    Walking,
    block_cuts,
    compute_walk,
    next_walk,
    walk_nbytes,
)
from simdist.types import Float64, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["LabelPropagationStage", "classes_of", "classes_round", "compute_classes", "one_hot"]

MAX_CLASSES = 10_000  # listed in every task's args and in the manifest


class LabelPropagationStage:
    """See the module docstring."""

    name: ClassVar[str] = "label_propagation"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        operator = ShardedCsr.of(job.inputs["graph"])
        config: LabelConfig = job.config
        refuse_other_rows(operator, job.inputs["labels"], "labels")
        if "classes" not in rounds:
            return classes_round(operator)
        classes = classes_of(rounds)
        dim = len(classes)
        if "start" not in rounds:
            return Round(
                "start",
                tuple(
                    Task(
                        f"start-{i:06d}",
                        "start",
                        {"shard": i, "classes": classes},
                        walk_nbytes(operator, i, dim),
                    )
                    for i in range(operator.shards)
                ),
            )
        walking = Walking(config.walk, "walk", "start", dim, config.steps, config.stops_at)
        walked = next_walk(rounds, operator, walking)
        if isinstance(walked, Round):
            return walked
        if "finish" not in rounds:
            return finish_round(operator, "finish", walked.round, dim, classes=classes)
        metrics = label_metrics(rounds, classes)
        metrics |= {
            "kind": config.kind,
            "steps": walked.steps,
            "change": walked.change,
            "tolerance": config.stops_at,
            "state": walked.state,
        }
        return Commit(operator.nodes, shards_of(rounds["finish"]), metrics)

    def compute(self, context: Context, task: Task) -> Record:
        if task.kind == "classes":
            return compute_classes(context, task)
        if task.kind == "start":
            return _start(context, task)
        if task.kind == "walk":
            return compute_walk(context, task)
        classes = np.array(task.args["classes"], np.int64)
        return label_runs(context, task, len(classes), classes)


def classes_round(operator: ShardedCsr) -> Round:
    """A task a row shard, which says what labels it has."""
    return Round(
        "classes",
        tuple(
            Task(f"classes-{i:06d}", "classes", {"shard": i}, 64 * operator.rows(i) + (16 << 20))
            for i in range(operator.shards)
        ),
    )


def compute_classes(context: Context, task: Task) -> Record:
    """Facts: classes, ascending; known: how many rows have one."""
    labels = _labels(context, task.args["shard"])
    found = np.unique(labels[labels >= 0])
    if len(found) > MAX_CLASSES:
        raise InputError(_too_many(len(found)))
    return Record(task.key, {}, {"classes": found.tolist(), "known": int(np.sum(labels >= 0))})


def classes_of(rounds: Rounds) -> list[int]:
    """All classes, ascending; InputError where there is none, or too many."""
    classes = sorted({label for record in rounds["classes"] for label in record.facts["classes"]})
    if not classes:
        raise InputError("no row has a label: every one is -1. Label at least one row of a class.")
    if len(classes) > MAX_CLASSES:
        raise InputError(_too_many(len(classes)))
    return classes


def _too_many(count: int) -> str:
    return (
        f"the labels have {count} classes; at most {MAX_CLASSES} can be handed on, each is a column"
        " of scores. Are these row numbers?"
    )


def label_metrics(rounds: Rounds, classes: list[int]) -> dict[str, Json]:
    """What a manifest of labels says of them."""
    return {
        "classes": classes,
        "known": sum(int(record.facts["known"]) for record in rounds["classes"]),
        "unreached": sum(int(record.facts["unreached"]) for record in rounds["finish"]),
    }


def one_hot(labels: Ids, classes: Ids, columns: slice = slice(None)) -> Float64:
    """[m, classes] float64: 1 where a row has the class; a row of zeros for -1."""
    wanted = classes[columns]
    out = np.zeros((len(labels), len(wanted)))
    place = np.searchsorted(wanted, labels).clip(0, len(wanted) - 1)
    rows = np.flatnonzero((labels >= 0) & (wanted[place] == labels))
    out[rows, place[rows]] = 1.0
    return out


def _labels(context: Context, shard: int) -> Ids:
    operator = ShardedCsr.of(context.inputs["graph"])
    return np.asarray(rows_between(context.inputs["labels"], "labels", *operator.span(shard)))


def _start(context: Context, task: Task) -> Record:
    """A shard's known rows, one-hot, and which these are."""
    operator = ShardedCsr.of(context.inputs["graph"])
    labels, classes = _labels(context, task.args["shard"]), np.array(task.args["classes"], np.int64)
    objects = {"held": context.write_array("held", labels >= 0)}
    for place, columns in enumerate(block_cuts(operator, len(classes))):
        block = one_hot(labels, classes, columns)
        objects[f"x-{place:05d}"] = context.write_array("walk", block)
    return Record(task.key, objects)
