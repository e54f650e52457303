"""Which rows pass a condition: by shard of the corpus, then by block and cell of its index.

filter   the kept columns of a shard ──> its rows that pass        task per shard
place    those of a block ──> its inverted lists, of them alone    task per block
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.inverted import passing
from simdist.runner.plan import Record, Round, Task
from simdist.stages.search.where import read_where
from simdist.stages.search.world import World

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["compute_filter", "compute_place", "filter_round", "place_round"]

COLUMN_NBYTES = 256  # of a row's kept columns, read and filtered, where they are short texts


def filter_round(world: World) -> Round:
    """A task per shard of the corpus."""
    shards = world.corpus.dataset.shards
    return Round(
        "filter",
        tuple(
            Task(
                f"filter-{s:06d}",
                "filter",
                {"shard": s},
                2 * shard.objects["rows"].nbytes + shard.rows * COLUMN_NBYTES + (8 << 20),
            )
            for s, shard in enumerate(shards)
        ),
    )


def place_round(world: World) -> Round:
    """A task per block of the partition."""
    partition = world.partition
    block = min(partition.block_rows, partition.rows)
    largest = max(shard.rows for shard in world.corpus.dataset.shards)
    nbytes = 64 * block + 17 * largest + 16 * world.index.cells + (1 << 20)
    return Round(
        "place",
        tuple(
            Task(f"place-{b:06d}", "place", {"block": b}, nbytes) for b in range(partition.blocks)
        ),
    )


def compute_filter(context: Context, task: Task) -> Record:
    """Rows of a shard of the corpus that pass."""
    world, shard = World(context), task.args["shard"]
    where, corpus = read_where(world.config.where), world.corpus.dataset
    columns = where.columns()
    table = corpus.store.read_table(
        corpus.shards[shard].objects["rows"],
        None if columns is None else list(dict.fromkeys(["row", *columns])),
    )
    rows = where.rows(table, corpus)["row"].to_numpy().astype(np.int64)
    return Record(task.key, {"rows": context.write_array("passing", rows)}, {"passing": len(rows)})


def compute_place(context: Context, task: Task) -> Record:
    """Inverted lists of a block, of its rows that pass."""
    world, block = World(context), task.args["block"]
    numbers = np.asarray(world.partition.array(block, "rows"))
    chosen = np.zeros(len(numbers), np.bool_)
    offset = 0
    for shard, record in zip(world.corpus.dataset.shards, context.records("filter"), strict=True):
        passed = np.zeros(shard.rows, np.bool_)
        passed[context.load(record.objects["rows"]) - offset] = True
        here = (numbers >= offset) & (numbers < offset + shard.rows)
        chosen[here] = passed[numbers[here] - offset]
        offset += shard.rows
    lists = passing(world.index.lists(block), chosen)
    objects = {
        "members": context.write_array("members", lists.members),
        "starts": context.write_array("starts", lists.starts),
    }
    return Record(task.key, objects)
