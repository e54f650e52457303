"""The recurrence of message passing, and its rounds: a task a row shard and step.

    shard 0   X_0 ──┬──> X'_0 = keep (W X)_0 + restart X0_0      records walk-00007 ──> walk-00008
    shard 1   X_1 ──┼──> X'_1                                    each a committed state: a run that
    shard 2   X_2 ──┴──> X'_2                                    is killed goes on from the last

X lies in the store as one array a row shard and column block, so neither the number of rows nor of
columns has to fit a worker. A graph of one shard whose X fits a task (FUSED values) takes the
shortest way: as many steps in one task as make about FUSED_WORK operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.operators import ShardedCsr, degree_power
from simdist.runner.plan import Record, Round, Rounds, Task
from simdist.stages.propagate.config import Walk
from simdist.types import Array, Bools, Float64, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = [
    "Walked",
    "Walking",
    "advance",
    "block_cuts",
    "column_width",
    "compute_walk",
    "next_walk",
    "roles_of",
    "walk_nbytes",
]

BLOCK_NBYTES = 32 << 20  # of one source block [rows, width] in float64
FUSED = 8_000_000  # values of X, 64 MB in float64: one task holds a few times that
FUSED_WORK = 2e10  # multiply-adds between two commits of a fused walk, some ten seconds


def column_width(operator: ShardedCsr, dim: int) -> int:
    """Columns of a block of X: as many as make a shard's block BLOCK_NBYTES."""
    rows = max(operator.rows(i) for i in range(operator.shards))
    return min(max(BLOCK_NBYTES // (8 * max(rows, 1)), 1), dim)


def block_cuts(operator: ShardedCsr, dim: int) -> list[slice]:
    """The columns of every block of X, ascending."""
    width = column_width(operator, dim)
    return [slice(first, min(first + width, dim)) for first in range(0, dim, width)]


def roles_of(record: Record) -> list[str]:
    """Roles of a state's column blocks, in the order of their columns."""
    return sorted(role for role in record.objects if role.startswith("x-"))


@dataclass(frozen=True, slots=True)
class Walking:
    """A walk to be done. prefix: of its rounds' names. start: the round that left X0 and, where
    rows are held, which. dim: columns of X. dtype: what X is kept as between steps."""

    walk: Walk
    prefix: str
    start: str
    dim: int
    steps: int
    tolerance: float | None = None
    dtype: str = "float64"


@dataclass(frozen=True, slots=True)
class Walked:
    """A walk that is over. round: the one that left X. change: the largest move of a value in the
    last step. state: "converged" or "unconverged", by the tolerance; "done" where there is none."""

    round: str
    steps: int
    change: float
    state: str


def next_walk(rounds: Rounds, operator: ShardedCsr, walking: Walking) -> Round | Walked:
    """The walk's first round that is not committed yet, or how it ended."""
    steps, change, last, count = 0, float("inf"), walking.start, 0
    while (name := f"{walking.prefix}-{count:05d}") in rounds:
        steps += int(rounds[name][0].facts["steps"])
        change = max(float(record.facts["change"]) for record in rounds[name])
        last, count = name, count + 1
    tolerance = walking.tolerance
    close = tolerance is not None and change <= tolerance
    if close or steps >= walking.steps:
        ended = "converged" if close else "unconverged"
        return Walked(last, steps, change, "done" if tolerance is None else ended)
    args = {
        "of": last,
        "start": walking.start,
        "walk": walking.walk.to_json(),
        "steps": _steps_at_once(operator, walking, walking.steps - steps),
        "tolerance": tolerance,
        "dtype": walking.dtype,
    }
    return Round(
        name,
        tuple(
            Task(
                f"{name}-{i:06d}",
                "walk",
                {"shard": i, **args},
                walk_nbytes(operator, i, walking.dim),
            )
            for i in range(operator.shards)
        ),
    )


def walk_nbytes(operator: ShardedCsr, i: int, dim: int) -> int:
    """What a task of a walk holds at most, for shard i."""
    rows, width = operator.rows(i), column_width(operator, dim)
    fused = 6 * 8 * operator.nodes * dim if _fits(operator, dim) else 0
    blocks = operator.product_nbytes(i, width) + 5 * 8 * rows * width
    return max(blocks, 12 * operator.entries + fused if fused else 0) + (16 << 20)


def _fits(operator: ShardedCsr, dim: int) -> bool:
    return operator.shards == 1 and operator.nodes * dim <= FUSED


def _steps_at_once(operator: ShardedCsr, walking: Walking, left: int) -> int:
    if not _fits(operator, walking.dim):
        return 1
    work = (operator.entries + 4 * operator.nodes) * walking.dim
    return min(max(int(FUSED_WORK / max(work, 1)), 1), left)


def advance(
    operator: ShardedCsr,
    i: int,
    walk: Walk,
    x_of: Callable[[int], Array],
    x0: Array,
    *,
    held: Bools | None = None,
    check: Callable[[], None],
) -> Float64:
    """Shard i's rows of X after one step, [rows, b] float64.

    x_of: shard -> its rows of X, [rows_s, b]. x0: [rows, b]. held: [rows] rows that X0 knows.
    """
    own, degrees = x_of(i), operator.degrees(i) + walk.loops

    def inward(source: int) -> Float64:
        return degree_power(operator.degrees(source) + walk.loops, -walk.power)

    out = operator.product(i, x_of, scale_of=inward, check=check)
    if walk.loops:
        out += (walk.loops * inward(i))[:, None] * own
    out *= degree_power(degrees, walk.power - 1.0)[:, None]
    if walk.idle:
        alone = degrees == 0
        out[alone] = own[alone]
    out *= walk.keep
    if walk.restart:
        out += walk.restart * np.asarray(x0, np.float64)
    if walk.hold and held is not None:
        out[held] = x0[held]
    if walk.low is not None or walk.high is not None:
        np.clip(out, walk.low, walk.high, out=out)
    return out


def compute_walk(context: Context, task: Task) -> Record:
    """args: shard, of, start, walk, steps, tolerance, dtype. Facts: steps done, change."""
    args, operator = task.args, ShardedCsr.of(context.inputs["graph"])
    i, walk = args["shard"], Walk(**args["walk"])
    past, start = context.records(args["of"]), context.records(args["start"])[i]
    held = np.asarray(context.load(start.objects["held"])) if walk.hold else None
    if args["steps"] > 1:
        return _fused(context, task, held)
    objects: dict[str, ObjectRef] = {}
    change = 0.0
    for role in roles_of(start):

        def x_of(source: int, role: str = role) -> Array:
            return context.load(past[source].objects[role])

        x0 = context.load(start.objects[role])
        out = advance(operator, i, walk, x_of, x0, held=held, check=context.check)
        change = max(change, _largest(out, x_of(i)))
        objects[role] = context.write_array("walk", out.astype(args["dtype"], copy=False))
    return Record(task.key, objects, {"steps": 1, "change": change})


def _fused(context: Context, task: Task, held: Bools | None) -> Record:
    """Many steps of a graph that is one shard, X in memory in between."""
    args, operator = task.args, ShardedCsr.of(context.inputs["graph"])
    walk, past = Walk(**args["walk"]), context.records(args["of"])[0]
    start = context.records(args["start"])[0]
    roles = roles_of(start)
    X: list[Array] = [context.load(past.objects[role]) for role in roles]
    X0 = [context.load(start.objects[role]) for role in roles]
    change, done = float("inf"), 0
    close = -1.0 if args["tolerance"] is None else args["tolerance"]
    while done < args["steps"] and change > close:
        change, done = 0.0, done + 1
        for place, block in enumerate(X):

            def x_of(_: int, block: Array = block) -> Array:
                return block

            out = advance(operator, 0, walk, x_of, X0[place], held=held, check=context.check)
            change = max(change, _largest(out, block))
            X[place] = out
    objects = {
        role: context.write_array("walk", block.astype(args["dtype"], copy=False))
        for role, block in zip(roles, X, strict=True)
    }
    return Record(task.key, objects, {"steps": done, "change": change})


def _largest(out: Float64, before: Array) -> float:
    """The largest move of any value."""
    return float(np.abs(out - before).max(initial=0.0))
