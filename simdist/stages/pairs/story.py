"""The stage: which round follows which, what is refused, and the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from simdist.errors import ConfigError, InputError
from simdist.measures import resolve
from simdist.panels import refuse_zero_rows
from simdist.partitions import block_rows
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.pairs.cells import (
    PairRecall,
    cells_round,
    choose_round,
    compute_cells,
    compute_choose,
)
from simdist.stages.pairs.config import JoinConfig
from simdist.stages.pairs.finish import compute_finish, finish_round, shards_of
from simdist.stages.pairs.pairs import Sets, compute_pairs, pair_round
from simdist.stages.pairs.parts import PAIR_NBYTES, parts_nbytes, too_many
from simdist.stages.pairs.sample import compute_sample, expected, sample_round
from simdist.tiles.threshold import threshold_nbytes
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["SimilarityJoin"]

CERTAIN = PairRecall(1.0, 1.0, 1.0, 0, 0)  # every pair was looked at


class SimilarityJoin:
    """See the package's docstring. Inputs: vectors; against, where it is another data set; for the
    approximate method the partition of `against`, or of vectors."""

    name: ClassVar[str] = "similarity_join"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        sets = Sets(context)
        _refuse(job, sets)
        for step in _story(context, sets, rounds):
            if step.name not in rounds:
                return step
        return _manifest(context, sets, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: JoinConfig, rows: int, dim: int) -> Forecast:
        """Cost of n rows among themselves, all pairs; how many will be near enough nobody knows
        before the sample."""
        panel = max(1, min(block_rows(rows, dim), rows))
        blocks = -(-rows // panel)
        vectors = 16 * panel * (dim + 1) + threshold_nbytes(
            resolve(config.measure), panel, panel, dim
        )
        return Forecast(
            tasks=blocks * (blocks + 1) // 2 + 2,
            nbytes=vectors + parts_nbytes() + (8 << 20),
            flops=float(rows) * rows * dim * (1.0 if config.method == "exact" else 0.1),
            written=rows * PAIR_NBYTES,
        )


def _refuse(job: Job, sets: Sets) -> None:
    traits = sets.x.measure.traits
    if not sets.two and not traits.symmetric:
        raise ConfigError(
            f"{sets.x.measure.name} is not symmetric, so a pair of rows has two values: join the"
            " rows against themselves as another data set (against=)"
        )
    if sets.two and sets.other.dim != sets.x.dim:
        raise InputError(
            f"vectors have {sets.x.dim} dimensions, those of `against` {sets.other.dim}"
            f" ({job.inputs['against'].uri}): they must come from the same embedding."
        )
    for role in ("vectors", "against"):
        if role in job.inputs:
            refuse_zero_rows(job.inputs[role], sets.x.measure)


def _story(context: Context, sets: Sets, done: Rounds) -> Iterator[Round]:
    """The rounds in order. Past a `yield`, the round is committed: its facts are in `done`."""
    config = context.config
    yield sample_round(context, sets)
    forecast = expected(context, sets)
    if forecast.pairs > config.max_pairs:
        raise too_many(context, str(forecast))
    reach = 0
    if config.method == "approximate":
        yield choose_round(context, sets)
        reach = int(done["choose"][0].facts["reach"])
    step = cells_round(context, sets, reach) if reach else pair_round(sets)
    yield step
    found = done[step.name]
    total = sum(int(record.facts["pairs"]) for record in found)
    if total > config.max_pairs:
        raise too_many(context, f"{total:,} pairs")
    yield finish_round(sets, found)


def _manifest(context: Context, sets: Sets, rounds: Rounds) -> Commit:
    config = context.config
    shards = shards_of(rounds["finish"])
    recall: Json = CERTAIN.to_json()
    reach = 0
    if config.method == "approximate":
        facts = rounds["choose"][0].facts
        recall, reach = facts["recall"], int(facts["reach"])
    found = rounds["cells" if reach else "pairs"]
    metrics: dict[str, Json] = {
        "nodes": sets.x.rows,
        "pairs": sum(shard.rows for shard in shards),
        "threshold": float(config.threshold),
        "measure": sets.x.measure.name,
        "method": "approximate" if reach else "exact",
        "recall": recall,
        "expected": expected(context, sets).to_json(),
        "parts": sum(len(record.facts["parts"]) for record in found),
        "rounds": list(rounds),
    }
    if reach:
        metrics["reach"] = reach
    if sets.two:
        metrics["against"] = sets.other.rows
    return Commit(rows=sum(shard.rows for shard in shards), shards=shards, metrics=metrics)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "sample": compute_sample,
    "choose": compute_choose,
    "pairs": compute_pairs,
    "cells": compute_cells,
    "finish": compute_finish,
}
