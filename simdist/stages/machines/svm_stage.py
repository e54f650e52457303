"""Stage `kernel_svm`: a fit over a stored dataset. Input: vectors, the target kept.

    classes    which there are                                  task per span
    centers    rows drawn, their kernel matrix factored         one task
    direct     all classes, where one task holds the features   one task      ┐
      look-i   losses, gradient and curvature                   span x group  │ one or the other,
      look-i-sums                                               by eights     │ a rule of n and m
      step-i   the next point of every class                    task a group  ┘
    model      the coefficients                                 one task

A group is as many classes as have curvature of 96 MiB. Every look is committed, a kill costs one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.grams import merge_name, merge_rounds, spans
from simdist.panels import rows_between
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.solvers.hinge import (
    HingeState,
    HingeSums,
    advance,
    dense_direction,
    hinge_start,
)
from simdist.stages.machines.centers import centers_round, compute_centers, read_chosen
from simdist.stages.machines.columns import (
    Class,
    classes_in,
    labels_between,
    weights_between,
)
from simdist.stages.machines.config import SvmConfig
from simdist.stages.machines.machine import model_commit, write_machine
from simdist.stages.machines.svm import (
    HELD_NBYTES,
    Labelled,
    features_nbytes,
    groups_of,
    looked_at,
    refuse_classes,
    solved_in_one,
    svm_machine,
    svm_metrics,
)
from simdist.types import ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["KernelSvmStage"]

BASE_NBYTES = 16 << 20
LOOKS = 12  # as a forecast takes it
ROW_FACTS = ("stage", "zone", "scale", "gradient", "objective", "settled")


class KernelSvmStage:
    """See the module docstring. The dataset has a row for every centre, in one shard, with

    centers [r, d], coefficients [r, K], offsets [K]   float64; K = 1 column for two classes
    """

    name: ClassVar[str] = "kernel_svm"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        for step in _story(job, rounds):
            if step.name not in rounds:
                return step
        return model_commit(rounds["model"][0])

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: SvmConfig, rows: int, dim: int) -> Forecast:
        """Cost of n rows of ten classes, a tenth of them inside each margin: how many classes and
        rows there are inside is not known."""
        m = min(config.centers.count, max(rows, 1))
        held = features_nbytes(rows, m)
        flops = LOOKS * 2.0 * rows * m * (m + dim)
        if held <= HELD_NBYTES:
            nbytes = 3 * held + 8 * rows * dim + 24 * m * m + BASE_NBYTES
            return Forecast(4, nbytes, 2.0 * rows * m * (m + dim), 16 * m * m)
        cuts, groups = spans(rows, m, dim), groups_of(10, m)
        size = groups[0][1] - groups[0][0]
        nbytes = _look_nbytes(cuts[0][1] - cuts[0][0], dim, m, size)
        written = LOOKS * len(cuts) * 80 * m * m
        return Forecast(LOOKS * len(cuts) * len(groups), nbytes, flops, written)


def _look_nbytes(rows: int, dim: int, m: int, columns: int) -> int:
    """What a look holds: its rows, three blocks of features, curvature of a group, twice."""
    block = min(rows, max(256, (16 << 20) // (8 * m)))
    M = m + 1
    return 8 * (rows * (dim + 2) + 5 * block * (M + dim) + (2 * columns + 2) * M * M) + BASE_NBYTES


def _story(job: Job, rounds: Rounds) -> Iterator[Round]:
    """Rounds as long as their facts are known."""
    vectors, config = job.inputs["vectors"], job.config
    dim, n = int(vectors.metrics["dim"]), vectors.rows
    whole = spans(n, 1, dim)
    yield Round(
        "classes",
        tuple(
            Task(
                f"classes-{place:05d}",
                "classes",
                {"first": first, "last": last},
                200 * (last - first) + BASE_NBYTES,
            )
            for place, (first, last) in enumerate(whole)
        ),
    )
    classes = _classes(rounds["classes"])
    refuse_classes(classes)
    yield centers_round(vectors, config.centers)
    m = int(rounds["centers"][0].facts["centers"])
    held = features_nbytes(n, m)
    square = 8 * (m + 1) ** 2
    if held <= HELD_NBYTES:
        nbytes = 3 * held + 8 * n * dim + 3 * square + BASE_NBYTES
        yield Round("direct", (Task("direct", "direct", {"classes": classes}, nbytes),))
        done = "direct"
    else:
        plan = _Plan(spans(n, m, dim), groups_of(len(classes), m), dim, m, classes)
        yield from plan.looks(rounds, config)
        done = _last(rounds)
    yield Round(
        "model",
        (Task("model", "model", {"of": done, "classes": classes}, 3 * square + BASE_NBYTES),),
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """cuts: rows of the tasks of a look. groups: columns of the tasks of a step."""

    cuts: list[tuple[int, int]]
    groups: list[tuple[int, int]]
    dim: int
    m: int
    classes: list[Class]

    def looks(self, rounds: Rounds, config: SvmConfig) -> Iterator[Round]:
        """Looks and steps until every class is settled, or max_steps are used up."""
        square = 8 * (self.m + 1) ** 2
        for look in range(config.max_steps):
            before = rounds[f"step-{look - 1}"] if look else ()
            going = [not all(record.facts["settled"]) for record in before]
            if look and not any(going):
                return
            for place, (first, last) in enumerate(self.groups):
                if not look or going[place]:
                    yield self.look(look, place)
                    name, nbytes = f"look-{look}-group-{place}", (last - first) * square
                    yield from merge_rounds(name, len(self.cuts), nbytes)
            yield Round(
                f"step-{look}",
                tuple(
                    Task(
                        f"step-{look}-{place:03d}",
                        "step",
                        {
                            "group": [first, last],
                            "place": place,
                            "look": look,
                            "spans": len(self.cuts),
                            "going": not look or going[place],
                        },
                        (last - first + 2) * square + BASE_NBYTES,
                    )
                    for place, (first, last) in enumerate(self.groups)
                ),
            )

    def look(self, look: int, place: int) -> Round:
        """A task for each span of rows, at one group of classes."""
        first, last = self.groups[place]
        name, rows = f"look-{look}-group-{place}", self.cuts[0][1] - self.cuts[0][0]
        args = {"group": [first, last], "place": place, "look": look, "classes": self.classes}
        nbytes = _look_nbytes(rows, self.dim, self.m, last - first)
        return Round(
            name,
            tuple(
                Task(f"{name}-{span:05d}", "look", {"first": a, "last": b, **args}, nbytes)
                for span, (a, b) in enumerate(self.cuts)
            ),
        )


def _last(rounds: Rounds) -> str:
    """The last step that was taken."""
    return f"step-{max(int(name[5:]) for name in rounds if name.startswith('step-'))}"


def _classes(records: Sequence[Record]) -> list[Class]:
    return sorted({label for record in records for label in record.facts["classes"]})


def _find_classes(context: Context, task: Task) -> Record:
    """The classes of a span's rows that have a weight."""
    vectors, config = context.inputs["vectors"], context.config
    first, last = task.args["first"], task.args["last"]
    weights = weights_between(vectors, config.weights, first, last)
    found = classes_in(vectors, config.target, first, last, weights)
    return Record(task.key, {}, {"classes": found})


def _rows(context: Context, first: int, last: int, classes: list[Class]) -> Labelled:
    vectors, config = context.inputs["vectors"], context.config
    X = rows_between(vectors, "vectors", first, last)
    weights = weights_between(vectors, config.weights, first, last)
    there = None if weights is None or weights.all() else np.flatnonzero(weights)
    places = labels_between(vectors, config.target, first, last, classes)
    if there is None or weights is None:
        return Labelled(X, places, weights)
    return Labelled(X[there], places[there], weights[there])


def _direct(context: Context, task: Task) -> Record:
    """All classes in one task."""
    vectors, classes = context.inputs["vectors"], task.args["classes"]
    rows = _rows(context, 0, vectors.rows, classes)
    whitening = read_chosen(context).whitening
    state = solved_in_one(whitening, rows, len(classes), context.config, context.check)
    return _write_state(context, task, state)


def _look(context: Context, task: Task) -> Record:
    """What a span's rows say of a group of classes."""
    classes, (first, last) = task.args["classes"], task.args["group"]
    state = _state(context, task)
    rows = _rows(context, task.args["first"], task.args["last"], classes)
    found = looked_at(
        read_chosen(context).whitening,
        rows,
        state,
        slice(first, last),
        len(classes),
        context.config,
        check=context.check,
    )
    return _write_sums(context, task, found)


def _write_sums(context: Context, task: Task, found: HingeSums) -> Record:
    objects = {
        "losses": context.write_array("losses", found.losses),
        "gradient": context.write_array("gradient", found.gradient),
        "curvature": context.write_array("curvature", found.curvature),
    }
    return Record(task.key, objects, {"weight": found.weight})


def _read_sums(context: Context, record: Record) -> HingeSums:
    losses, gradient, curvature = (
        np.asarray(context.load(record.objects[role]))
        for role in ("losses", "gradient", "curvature")
    )
    return HingeSums(losses, gradient, curvature, float(record.facts["weight"]))


def _merge(context: Context, task: Task) -> Record:
    """Sums of sums, in plan order."""
    total: HingeSums | None = None
    for record in context.records(task.args["of"])[task.args["first"] : task.args["last"]]:
        context.check()
        part = _read_sums(context, record)
        total = part if total is None else total + part
    assert total is not None  # a group of a merge has at least one record
    return _write_sums(context, task, total)


def _state(context: Context, task: Task) -> HingeState:
    """Where a group of classes stands before a look."""
    look, (first, last) = task.args["look"], task.args["group"]
    if look == 0:
        return hinge_start(
            read_chosen(context).whitening.m + context.config.intercept, last - first
        )
    return _read_state(context, context.records(f"step-{look - 1}")[task.args["place"]])


def _step(context: Context, task: Task) -> Record:
    """The next point of a group of classes; one that is settled stays."""
    state, config = _state(context, task), context.config
    if not task.args["going"]:
        return _write_state(context, task, state)
    name = f"look-{task.args['look']}-group-{task.args['place']}"
    sums = _read_sums(context, context.records(merge_name(name, task.args["spans"]))[0])
    moved = advance(
        state,
        sums,
        config.loss,
        intercept=config.intercept,
        tolerance=config.tolerance,
        direction=dense_direction(sums, intercept=config.intercept),
    )
    return _write_state(context, task, moved)


def _write_state(context: Context, task: Task, state: HingeState) -> Record:
    objects: dict[str, ObjectRef] = {
        "W": context.write_array("hinge", state.W),
        "D": context.write_array("hinge", state.D),
    }
    facts = {name: getattr(state, name).tolist() for name in ROW_FACTS}
    return Record(task.key, objects, {**facts, "looks": state.looks})


def _read_state(context: Context, record: Record) -> HingeState:
    W, D = (np.asarray(context.load(record.objects[role])) for role in ("W", "D"))
    facts = {name: np.array(record.facts[name]) for name in ROW_FACTS}
    return HingeState(W=W, D=D, looks=int(record.facts["looks"]), **facts)


def _model(context: Context, task: Task) -> Record:
    """The machine of all classes, and what a manifest says of it."""
    states = [_read_state(context, record) for record in context.records(task.args["of"])]
    whole = {
        name: np.concatenate([getattr(state, name) for state in states], axis=-1)
        for name in ("W", "D", *ROW_FACTS)
    }
    state = HingeState(**whole, looks=max(part.looks for part in states))
    chosen, config = read_chosen(context), context.config
    machine = svm_machine(chosen.whitening, state.W, intercept=config.intercept)
    rows = context.inputs["vectors"].rows
    metrics = svm_metrics(config, chosen.facts(), task.args["classes"], state, rows)
    return Record(task.key, write_machine(context, machine), metrics)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "classes": _find_classes,
    "centers": compute_centers,
    "direct": _direct,
    "look": _look,
    "merge": _merge,
    "step": _step,
    "model": _model,
}
