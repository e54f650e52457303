"""The greedy answer in keep order, in rounds: a row is kept unless an earlier kept row is near it.

    round 0     every shard decides what follows from its own rows
    round 1...  shards with rows that wait look again at what the others decided meanwhile

The first row that waits, over all shards, waits for nobody: each round decides something, and all
rounds together decide what one pass over all rows in keep order would. Most data takes two or
three; a chain that crosses from shard to shard takes as many as it has crossings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from simdist.runner.plan import Record, Round, Rounds, Task
from simdist.stages.dedupe.exchange import Nodes, latest, numbered, outside_of, shard_nbytes
from simdist.stages.dedupe.order import needs_order

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["compute_decide", "decide_rounds", "in_order", "shard_rounds"]


def decide_rounds(context: Context, done: Rounds) -> Iterator[Round]:
    """Rounds until no row waits. Past a `yield`, the round is committed."""
    waiting = list(range(len(context.records("gather"))))
    number = 0
    while waiting:
        step = shard_rounds(context, f"decide-{number:04d}", "decide", waiting)
        yield step
        waiting = [
            int(record.facts["shard"]) for record in done[step.name] if record.facts["waiting"]
        ]
        number += 1


def shard_rounds(context: Context, name: str, kind: str, shards: list[int]) -> Round:
    """A round with a task for each of some shards of nodes."""
    gathered = context.records("gather")
    tasks = []
    for shard in shards:
        facts = gathered[shard].facts
        nbytes = shard_nbytes(int(facts["last"]) - int(facts["first"]), int(facts["entries"]))
        tasks.append(Task(f"{name}-{shard:06d}", kind, {"shard": shard, "round": name}, nbytes))
    return Round(name, tuple(tasks))


def in_order(context: Context) -> str:
    """The round that left every node's neighbours in keep order."""
    return "order" if needs_order(context) else "gather"


def compute_decide(context: Context, task: Task) -> Record:
    """state [n] uint8 of a shard's nodes, and the leader [n] of those that go, with its value."""
    from simdist.compiled.greedy import GONE, KEPT, WAITING, decide  # noqa: PLC0415

    nodes, shard = Nodes(context), task.args["shard"]
    first, last = nodes.spans[shard]
    name = in_order(context)
    indptr, others, values, earlier = (
        nodes.load(name, shard, role) for role in ("indptr", "others", "values", "earlier")
    )
    before = [
        earlier_round
        for earlier_round in numbered(context, "decide")
        if earlier_round < task.args["round"]
    ]
    outside, places = outside_of(others, first, last)
    state = np.full(last - first + len(outside), WAITING, np.uint8)
    leader = np.arange(first, last)
    value = np.full(last - first, np.nan, np.float32)
    order = np.arange(last - first)
    if needs_order(context):
        rank = nodes.load("rank", shard, "rank")
        order = np.lexsort((nodes.load("rank", shard, "tie"), rank))
        state[: last - first][np.isinf(rank)] = GONE
        leader[np.isinf(rank)] = -1
    if before:
        records = latest(context, before, len(nodes.spans))
        state[: last - first] = context.load(records[shard].objects["state"])
        leader = np.array(context.load(records[shard].objects["leader"]))
        value = np.array(context.load(records[shard].objects["value"]))
        if len(outside):
            state[last - first :] = nodes.look_up(records, "state", outside)
    choice = np.full(last - first, -1, np.int64)
    waiting = decide(order, indptr, earlier, places, state, choice)
    went = np.flatnonzero(choice >= 0)
    leader[went], value[went] = others[choice[went]], values[choice[went]]
    own = state[: last - first]
    return Record(
        task.key,
        {
            "state": context.write_array("state", own),
            "leader": context.write_array("leader", leader),
            "value": context.write_array("value", value),
        },
        {"shard": shard, "waiting": waiting, "kept": int((own == KEPT).sum())},
    )
