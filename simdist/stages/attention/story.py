"""Which round of attention follows which, what it costs, and what is committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from simdist.errors import InputError
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, RoundForecast, Rounds, Task
from simdist.stages.attention.config import FAN, AttentionConfig, Sizes
from simdist.stages.attention.fold import COMPUTE, shift_of
from simdist.stages.attention.sides import refuse_unkept, sizes_of
from simdist.stages.costs import TASK_REQUESTS
from simdist.store.datasets import Dataset, Shard
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["AttentionStage"]


class AttentionStage:
    """See the package docstring. Inputs: queries, keys and values; all three may be one dataset."""

    name: ClassVar[str] = "attention"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        sizes = sizes_of(job.config, job.inputs)
        if not rounds:
            _refuse(job.config, job.inputs)
        for step in _story(job.config, sizes):
            if step.name not in rounds:
                return step
        return _manifest(job, sizes, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: AttentionConfig, rows: int, dim: int) -> Forecast:
        """Cost of n queries over as many keys, with values of as many columns."""
        width = len(config.values) or dim // config.heads * config.kv_heads
        key_dim = dim // config.heads * config.kv_heads
        sizes = Sizes.of(config, rows, rows, dim, key_dim, width)
        rounds = tuple(_costs(config, sizes))
        return Forecast(
            tasks=sum(told.tasks for told in rounds),
            nbytes=max(told.nbytes for told in rounds),
            flops=rounds[0].flops,
            written=sum(told.written for told in rounds),
            rounds=rounds,
        )


def _costs(config: AttentionConfig, sizes: Sizes) -> Iterator[RoundForecast]:
    """Round by round; of a causal mask, what it leaves out is left out."""
    state, blocks = sizes.state_nbytes(), sizes.blocks
    share = 1.0 if config.causal is None else 0.5
    states = max(1, round(share * sizes.groups)) * blocks
    columns = sizes.head_dim * sizes.kv_heads + sizes.value_dim
    block, group = min(sizes.block_rows, sizes.queries), min(sizes.group_rows, sizes.keys)
    yield RoundForecast(
        "fold",
        states,
        nbytes=sizes.fold_nbytes(),
        flops=2.0 * share * sizes.queries * sizes.keys * (sizes.dim + sizes.output_dim),
        read=4 * states * (block * sizes.dim + group * columns),
        written=states * state,
        requests=states * (TASK_REQUESTS + 4),
        rows=states * block,
    )
    level = 0
    while states > FAN * blocks:
        level, read = level + 1, states * state
        requests, states = 2 * states, blocks * -(-states // (FAN * blocks))
        yield RoundForecast(
            f"merge-{level}",
            states,
            nbytes=sizes.merge_nbytes(),
            read=read,
            written=states * state,
            requests=requests + states * (TASK_REQUESTS + 2),
            rows=states * block,
        )
    yield RoundForecast(
        "finish",
        blocks,
        nbytes=sizes.finish_nbytes(),
        read=states * state,
        written=sizes.queries * (8 * sizes.output_dim + 8 * sizes.heads + 32),
        requests=2 * states + blocks * (TASK_REQUESTS + 6),
        rows=sizes.queries,
    )


def _refuse(config: AttentionConfig, inputs: Mapping[str, Dataset]) -> None:
    """What can be told before the first task."""
    refuse_unkept(config, inputs)
    queries, keys = inputs["queries"], inputs["keys"]
    if config.exclude_self and queries.rows != keys.rows:
        raise InputError(
            f"exclude_self: queries {queries.uri} have {queries.rows} rows, keys {keys.uri}"
            f" {keys.rows}; expected the same rows on both sides"
        )


def _story(config: AttentionConfig, sizes: Sizes) -> Iterator[Round]:
    """Rounds in order: fold, merges as long as a block has more states than one task takes,
    finish."""
    seen = [_groups_seen(config, sizes, block) for block in range(sizes.blocks)]
    yield Round(
        "fold",
        tuple(
            Task(
                f"fold-{block:06d}-{group:06d}",
                "fold",
                {"block": block, "group": group},
                sizes.fold_nbytes(),
            )
            for block, groups in enumerate(seen)
            for group in range(groups)
        ),
    )
    name, level = "fold", 0
    while max(seen) > FAN:
        level += 1
        tasks = []
        for block, states in enumerate(seen):
            for part, first in enumerate(range(0, states, FAN)):
                args = {"block": block, "of": name, "first": first, "last": first + FAN}
                key = f"merge-{level}-{block:06d}-{part:06d}"
                tasks.append(Task(key, "merge", args, sizes.merge_nbytes()))
        name, seen = f"merge-{level}", [-(-states // FAN) for states in seen]
        yield Round(name, tuple(tasks))
    yield Round(
        "finish",
        tuple(
            Task(
                f"finish-{block:06d}",
                "finish",
                {"block": block, "of": name, "first": 0, "last": FAN},
                sizes.finish_nbytes(),
            )
            for block in range(sizes.blocks)
        ),
    )


def _groups_seen(config: AttentionConfig, sizes: Sizes, block: int) -> int:
    """Groups, from the first on, of which some query of a block sees a key."""
    shift = shift_of(config, sizes)
    if shift is None:
        return sizes.groups
    last_key = min(sizes.block(block)[1] + shift, sizes.keys)  # behind the last one seen
    return max(0, -(-last_key // sizes.group_rows))


def _manifest(job: Job, sizes: Sizes, rounds: Rounds) -> Commit:
    shards = []
    for block, record in enumerate(rounds["finish"]):
        begin, end = sizes.block(block)
        shards.append(Shard(end - begin, record.objects))
    zeros = [record.facts["zero"] for record in rounds["finish"]]
    metrics: dict[str, Json] = {
        "dim": sizes.output_dim,
        "dtype": "float32",
        "id": job.inputs["queries"].metrics.get("id", "row"),
        "first_zero_row": next((row for row in zeros if row is not None), None),
        "heads": sizes.heads,
        "keys": sizes.keys,
        "unseeing": sum(int(record.facts["unseeing"]) for record in rounds["finish"]),
        "computed": job.config.dtype,
        "rounds": list(rounds),
    }
    return Commit(rows=sizes.queries, shards=tuple(shards), metrics=metrics)
