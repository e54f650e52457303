"""Stage `affinity_propagation`: see the package docstring. Input: graph.

high, low   the median weight, exactly: histograms of a float's bits    task a row shard
start       a shard's distinct columns                                  task a row shard
turns.py    messages, until the exemplars have settled                  rounds
exemplars.py  exemplars, labels                                         rounds
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.operators import ShardedCsr
from simdist.runner.plan import Commit, Job, Record, Round, Rounds, Task
from simdist.stages.affinity.config import AffinityConfig
from simdist.stages.affinity.exemplars import (
    compute_adopt,
    compute_assign,
    compute_central,
    compute_choose,
    compute_exemplars,
    compute_finish,
    compute_pairs,
    compute_second,
)
from simdist.stages.affinity.turns import (
    Ended,
    compute_alone,
    compute_collect,
    compute_send,
    compute_start,
    next_turn,
    shard_nbytes,
)
from simdist.store.datasets import Shard
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["AffinityPropagationStage"]

BITS = 16  # of a float32, that a histogram counts at once
LISTED = 100  # clusters that the manifest tells, as (cluster, rows, exemplar), the largest first


class AffinityPropagationStage:
    """See the module docstring. Each shard has labels [rows] int64 (-1: no exemplar) and a Parquet
    table (row, cluster, exemplar); the dataset `exemplars` [k] int64, the rows they are."""

    name: ClassVar[str] = "affinity_propagation"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        operator = ShardedCsr.of(job.inputs["graph"])
        for step in _median_story(operator, job.config, rounds):
            if step.name not in rounds:
                return step
        preference = _preference(operator, job.config, rounds)
        if "start" not in rounds:
            return _each(operator, "start", "start")
        ended = next_turn(rounds, operator, job.config, preference)
        if isinstance(ended, Round):
            return ended
        for step in _exemplar_story(operator, job.config, rounds, ended):
            if step.name not in rounds:
                return step
        return _manifest(operator, job.config, rounds, ended, preference, context)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)


def _each(operator: ShardedCsr, name: str, kind: str, **args: Json) -> Round:
    """A task a row shard."""
    return Round(
        name,
        tuple(
            Task(f"{name}-{i:06d}", kind, {"shard": i, **args}, shard_nbytes(operator, i))
            for i in range(operator.shards)
        ),
    )


def _median_story(operator: ShardedCsr, config: AffinityConfig, rounds: Rounds) -> Iterator[Round]:
    """Two passes over the weights, where their median is asked for."""
    if config.preference == "median" and operator.entries:
        yield _each(operator, "high", "high")
        high, _ = _bin(rounds["high"], (operator.entries - 1) // 2)
        yield _each(operator, "low", "low", high=high)


def _preference(operator: ShardedCsr, config: AffinityConfig, rounds: Rounds) -> float:
    """What was asked, or the median of the weights: the lower of two in the middle."""
    if config.preference != "median":
        return float(config.preference)
    if not operator.entries:
        return 0.0
    high, rank = _bin(rounds["high"], (operator.entries - 1) // 2)
    low, _ = _bin(rounds["low"], rank)
    return float(np.array([(high << BITS) | low], np.uint32).view(np.float32)[0])


def _bin(records: Sequence[Record], rank: int) -> tuple[int, int]:
    """The value of this rank, from counts of values, and the rank among those equal to it."""
    total: dict[int, int] = {}
    for record in records:
        for value, count in zip(record.facts["values"], record.facts["counts"], strict=True):
            total[value] = total.get(value, 0) + count
    for value in sorted(total):
        if rank < total[value]:
            return value, rank
        rank -= total[value]
    raise AssertionError("a rank below the number of entries lies in some bin")


def _histogram(context: Context, task: Task) -> Record:
    """Positive floats order as their bits do: counts of the upper half of them, then of the lower
    half where the upper is `high`."""
    shard = ShardedCsr.of(context.inputs["graph"]).shard(task.args["shard"])
    bits = shard.weights.view(np.uint32)
    if task.kind == "high":
        part = bits >> BITS
    else:
        part = bits[(bits >> BITS) == task.args["high"]] & ((1 << BITS) - 1)
    values, counts = np.unique(part, return_counts=True)
    return Record(task.key, {}, {"values": values.tolist(), "counts": counts.tolist()})


def _exemplar_story(
    operator: ShardedCsr, config: AffinityConfig, rounds: Rounds, ended: Ended
) -> Iterator[Round]:
    yield _each(operator, "choose", "choose", of=ended.round)
    name, number, left = "choose", 0, operator.nodes + 1
    while 0 < (now := _left(rounds[name])) < left:
        yield _each(operator, f"adopt-{number:04d}", "adopt", of=name)
        name, number, left = f"adopt-{number:04d}", number + 1, now
    yield _each(operator, "central", "central", of=name)
    nbytes = 128 * ended.exemplars + (16 << 20)
    yield Round("exemplars", (Task("exemplars", "exemplars", {}, nbytes),))
    yield _each(operator, "assign", "assign", of=name)
    if config.rounds == 2:
        yield _each(operator, "pairs", "pairs")
        pairs = sum(int(record.facts["pairs"]) for record in rounds["pairs"])
        yield Round("second", (Task("second", "second", {}, nbytes + 160 * pairs),))
    yield _each(operator, "finish", "finish")


def _left(records: Sequence[Record]) -> int:
    return sum(int(record.facts["left"]) for record in records)


def _manifest(
    operator: ShardedCsr,
    config: AffinityConfig,
    rounds: Rounds,
    ended: Ended,
    preference: float,
    context: Context,
) -> Commit:
    finish, shards = rounds["finish"], []
    exemplars = context.load(finish[0].objects["exemplars"])
    sizes = np.zeros(len(exemplars), np.int64)
    for i, record in enumerate(finish):
        objects = {role: record.objects[role] for role in ("labels", "clusters")}
        shards.append(Shard(operator.rows(i), objects))
        sizes += context.load(record.objects["sizes"])
    largest = np.argsort(-sizes, kind="stable")[:LISTED]
    converged = ended.converged
    metrics: dict[str, Json] = {
        "preference": preference,
        "turns": ended.turns,
        "exemplars": int(rounds["exemplars"][0].facts["exemplars"]),
        "unlabelled": sum(int(record.facts["none"]) for record in finish),
        "entries": operator.entries,
    }
    if config.rounds == 2:
        second = rounds["second"][0].facts
        converged = converged and second["converged"]
        metrics |= {"first": metrics["exemplars"], "exemplars": second["exemplars"]}
        metrics["second_turns"] = second["turns"]
    metrics["state"] = "converged" if converged else "unconverged"
    metrics["largest"] = [[int(c), int(sizes[c]), int(exemplars[c])] for c in largest]
    objects = {"exemplars": finish[0].objects["exemplars"]}
    return Commit(operator.nodes, tuple(shards), metrics, objects)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "high": _histogram,
    "low": _histogram,
    "start": compute_start,
    "send": compute_send,
    "collect": compute_collect,
    "alone": compute_alone,
    "choose": compute_choose,
    "adopt": compute_adopt,
    "central": compute_central,
    "exemplars": compute_exemplars,
    "assign": compute_assign,
    "pairs": compute_pairs,
    "second": compute_second,
    "finish": compute_finish,
}
