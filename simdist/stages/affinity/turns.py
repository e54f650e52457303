"""Rounds of messages: a turn is a `send` and a `collect`, a task a row shard each.

    send-*     availabilities from the last sums, then responsibilities; sums by column
    collect-*  sums of all shards for one's own columns; exemplars, and how many changed

A graph of one shard takes many turns in one task (`alone-*`), until the exemplars have settled or
some seconds are over. Every round is a committed state: a run that is killed goes on from the last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from simdist.operators import ShardedCsr
from simdist.runner.plan import Record, Round, Rounds, Task
from simdist.stages.affinity.config import AffinityConfig
from simdist.stages.affinity.messages import (
    Edges,
    Messages,
    available,
    column_sums,
    nothing_said,
    parted,
    responsible,
    settle,
)
from simdist.types import Array, Bools, Float64, Ids, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = [
    "Ended",
    "compute_alone",
    "compute_collect",
    "compute_send",
    "compute_start",
    "edges_of",
    "gathered",
    "next_turn",
    "shard_nbytes",
    "turns_in_memory",
]

ALONE_WORK = 1e9  # entries passed over between two commits of a graph of one shard
NOISE = 1e-9  # relative: a hundredth of a float32's step, and far above the rounding of sums


@dataclass(frozen=True, slots=True)
class Ended:
    """The messages have settled, or the turns are spent. round: the last one, which says who is an
    exemplar."""

    round: str
    turns: int
    converged: bool
    exemplars: int


def shard_nbytes(operator: ShardedCsr, i: int) -> int:
    """What a task of a turn holds at most: some ten arrays along the edges."""
    return 96 * operator.shard_entries(i) + 96 * operator.rows(i) + (16 << 20)


def next_turn(
    rounds: Rounds, operator: ShardedCsr, config: AffinityConfig, preference: float
) -> Round | Ended:
    """The first round of messages that is not committed yet, or how they ended."""
    if operator.shards == 1:
        return _next_alone(rounds, operator, config, preference)
    turn, still, exemplars = 0, 0, 0
    while (name := f"collect-{turn:05d}") in rounds:
        changed = sum(int(record.facts["changed"]) for record in rounds[name])
        exemplars = sum(int(record.facts["exemplars"]) for record in rounds[name])
        still, turn = (0 if changed else still + 1), turn + 1
    if _over(config, turn, still, exemplars):
        return Ended(f"collect-{turn - 1:05d}", turn, _settled(config, still, exemplars), exemplars)
    kind = "collect" if f"send-{turn:05d}" in rounds else "send"
    name = f"{kind}-{turn:05d}"
    return Round(
        name,
        tuple(
            Task(
                f"{name}-{i:06d}",
                kind,
                {"shard": i, "turn": turn, "preference": preference},
                shard_nbytes(operator, i),
            )
            for i in range(operator.shards)
        ),
    )


def _next_alone(
    rounds: Rounds, operator: ShardedCsr, config: AffinityConfig, preference: float
) -> Round | Ended:
    part, turn, still, exemplars = 0, 0, 0, 0
    while (name := f"alone-{part:05d}") in rounds:
        facts = rounds[name][0].facts
        turn, still, exemplars = facts["turns"], facts["still"], facts["exemplars"]
        part += 1
    if _over(config, turn, still, exemplars):
        return Ended(f"alone-{part - 1:05d}", turn, _settled(config, still, exemplars), exemplars)
    most = max(int(ALONE_WORK / max(operator.entries, 1)), 1)
    args = {"part": part, "turns": most, "preference": preference}
    return Round(name, (Task(name, "alone", args, shard_nbytes(operator, 0)),))


def _settled(config: AffinityConfig, still: int, exemplars: int) -> bool:
    """The exemplars are there, and were the same for `patience` turns: so many less one changes."""
    return exemplars > 0 and still >= config.patience


def _over(config: AffinityConfig, turn: int, still: int, exemplars: int) -> bool:
    return turn >= config.turns or _settled(config, still, exemplars)


def compute_start(context: Context, task: Task) -> Record:
    """Distinct columns of a shard, and which of them every entry has."""
    operator = ShardedCsr.of(context.inputs["graph"])
    columns, place = np.unique(operator.shard(task.args["shard"]).indices, return_inverse=True)
    objects = {
        "columns": context.write_array("columns", columns),
        "place": context.write_array("place", place.astype(np.int32)),
    }
    return Record(task.key, objects)


def edges_of(context: Context, i: int, preference: float) -> Edges:
    """A shard's edges; equal weights are parted by a noise that follows from row and column."""
    shard = ShardedCsr.of(context.inputs["graph"]).shard(i)
    start = context.records("start")[i].objects
    rows = np.repeat(np.arange(shard.begin, shard.end), np.diff(shard.indptr))
    similarity = shard.weights.astype(np.float64)
    similarity *= 1.0 + NOISE * parted(rows, shard.indices, context.config.seed)
    columns, place = (np.asarray(context.load(start[role])) for role in ("columns", "place"))
    return Edges(shard.indptr, similarity, columns, place, preference)


def gathered(context: Context, i: int, name: str, role: str, columns: Ids) -> Array:
    """[h] what the owners of a shard's columns said in round `name`, column by column."""
    operator, records = ShardedCsr.of(context.inputs["graph"]), context.records(name)
    parts = []
    for source in operator.sources(i):
        context.check()
        first, last = operator.span(source)
        here = slice(*np.searchsorted(columns, [first, last]))
        parts.append(context.load(records[source].objects[role])[columns[here] - first])
    return np.concatenate(parts) if parts else np.empty(0)


def compute_send(context: Context, task: Task) -> Record:
    """A shard's responsibilities after a turn, and their sums by column."""
    i, turn, damping = task.args["shard"], task.args["turn"], context.config.damping
    edges = edges_of(context, i, task.args["preference"])
    said = nothing_said(edges)
    if turn:
        sent = context.records(f"send-{turn - 1:05d}")[i].objects
        last = f"collect-{turn - 1:05d}"
        own_a = np.asarray(context.load(context.records(last)[i].objects["own_a"]))
        r, a, own_r = (np.asarray(context.load(sent[role])) for role in ("r", "a", "own_r"))
        said = Messages(r, a, own_r, own_a)
        asked = gathered(context, i, last, "asked", edges.columns)
        said = replace(said, a=available(edges, said, asked, damping))
    said = responsible(edges, said, damping)
    arrays = {
        "r": said.r,
        "a": said.a,
        "own_r": said.own_r,
        "sums": column_sums(edges, said),
    }
    return Record(task.key, {role: context.write_array(role, x) for role, x in arrays.items()})


def compute_collect(context: Context, task: Task) -> Record:
    """What all shards say of one shard's columns. Facts: exemplars, and how many of the rows
    changed between being one and not."""
    operator, i, turn = (
        ShardedCsr.of(context.inputs["graph"]),
        task.args["shard"],
        task.args["turn"],
    )
    first, last = operator.span(i)
    sends, starts = context.records(f"send-{turn:05d}"), context.records("start")
    sums = np.zeros(last - first)
    for source in operator.sources(i):  # symmetric: whoever has these columns is a source
        context.check()
        columns = context.load(starts[source].objects["columns"])
        here = slice(*np.searchsorted(columns, [first, last]))
        sums[columns[here] - first] += context.load(sends[source].objects["sums"])[here]
    own_r = np.asarray(context.load(sends[i].objects["own_r"]))
    own_a, before = np.zeros(len(sums)), np.zeros(len(sums), np.bool_)
    if turn:
        past = context.records(f"collect-{turn - 1:05d}")[i].objects
        own_a, before = (np.asarray(context.load(past[role])) for role in ("own_a", "exemplar"))
    said = Messages(np.empty(0), np.empty(0), own_r, own_a)
    own_a, asked, exemplar = settle(said, sums, context.config.damping)
    facts = {
        "exemplars": int(exemplar.sum()),
        "changed": int(np.sum(exemplar != before)) if turn else len(exemplar),
    }
    return Record(task.key, _settled_objects(context, own_a, asked, exemplar), facts)


def _settled_objects(
    context: Context, own_a: Float64, asked: Float64, exemplar: Bools
) -> dict[str, ObjectRef]:
    return {
        "own_a": context.write_array("own_a", own_a),
        "asked": context.write_array("asked", asked),
        "exemplar": context.write_array("exemplar", exemplar),
    }


@dataclass(frozen=True, slots=True)
class _State:
    """Between two turns, all columns in one place. asked: [n] t_k. still: turns with no change."""

    said: Messages
    asked: Float64
    exemplar: Bools
    turn: int = 0
    still: int = 0


def turns_in_memory(
    edges: Edges,
    config: AffinityConfig,
    most: int,
    state: _State | None = None,
    *,
    context: Context,
) -> _State:
    """Turns of a graph whose rows and columns are all here, until it is over or `most` are done."""
    damping = config.damping
    if state is None:
        nobody = np.zeros(edges.rows, np.bool_)
        state = _State(nothing_said(edges), np.zeros(edges.rows), nobody)
    for _ in range(most):
        context.check()
        said = state.said
        if state.turn:
            said = replace(said, a=available(edges, said, state.asked[edges.columns], damping))
        said = responsible(edges, said, damping)
        sums = np.zeros(edges.rows)
        sums[edges.columns] = column_sums(edges, said)
        own_a, asked, exemplar = settle(said, sums, damping)
        same = state.turn > 0 and np.array_equal(exemplar, state.exemplar)
        state = _State(
            replace(said, own_a=own_a),
            asked,
            exemplar,
            state.turn + 1,
            state.still + 1 if same else 0,
        )
        if _over(config, state.turn, state.still, int(exemplar.sum())):
            break
    return state


def compute_alone(context: Context, task: Task) -> Record:
    """Turns of a graph of one shard. Facts: turns so far, still, exemplars."""
    args, config = task.args, context.config
    edges = edges_of(context, 0, args["preference"])
    state = None
    if args["part"]:
        past = context.records(f"alone-{args['part'] - 1:05d}")[0]
        roles = ("r", "a", "own_r", "own_a", "asked", "exemplar")
        r, a, own_r, own_a, asked, exemplar = (context.load(past.objects[role]) for role in roles)
        said, facts = Messages(r, a, own_r, own_a), past.facts
        state = _State(said, asked, exemplar, facts["turns"], facts["still"])
    state = turns_in_memory(edges, config, args["turns"], state, context=context)
    said = state.said
    objects = {
        role: context.write_array(role, array)
        for role, array in (("r", said.r), ("a", said.a), ("own_r", said.own_r))
    }
    objects |= _settled_objects(context, said.own_a, state.asked, state.exemplar)
    facts = {"turns": state.turn, "still": state.still, "exemplars": int(state.exemplar.sum())}
    return Record(task.key, objects, facts)
