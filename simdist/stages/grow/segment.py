"""Stage `segment`: appended rows under the cells of the partition their graph was built on.

    new shard ── leaders of the stored partition ──> its rows by (nearest cell, row), an array more

A segment's shard has the objects of a partition's block (see simdist.partitions), with rows
numbered as in the grown vectors. It is cell order within a shard only: a few new rows need no
shuffle, and `compact` makes one partition of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simdist.errors import ObjectMissing
from simdist.measures import Prepared, resolve
from simdist.panels import refuse_zero_rows
from simdist.partitions import SLICE, Partition, nearest_cells
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.grow.lineage import partition_of, promise_of
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["Block", "SegmentStage"]


class SegmentStage:
    """Inputs: graph, whose partition has the leaders, and vectors, the grown ones. Without a
    partition (an exact graph) there is nothing to store."""

    name: ClassVar[str] = "segment"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        graph, vectors = job.inputs["graph"], job.inputs["vectors"]
        refuse_zero_rows(vectors, resolve(promise_of(graph).measure))
        partition = partition_of(graph)
        metrics = {"dim": vectors.metrics["dim"]}
        if partition is None:
            return Commit(0, (), metrics)
        first = int(vectors.metrics["first_shard"])
        if "cells" not in rounds:
            cells, dim = int(partition.metrics["cells"]), int(partition.metrics["dim"])
            rows = max(shard.rows for shard in vectors.shards[first:])
            fanout = int(partition.metrics["fanout"])
            nbytes = 4 * dim * (3 * rows + cells) + SLICE * cells * 4 + rows * (40 * fanout + 64)
            return Round(
                "cells",
                tuple(
                    Task(f"cells-{s:06d}", "cells", {"shard": s}, nbytes + (2 << 20))
                    for s in range(first, len(vectors.shards))
                ),
            )
        shards = tuple(
            Shard(shard.rows, record.objects)
            for shard, record in zip(vectors.shards[first:], rounds["cells"], strict=True)
        )
        return Commit(sum(shard.rows for shard in shards), shards, metrics)

    def compute(self, context: Context, task: Task) -> Record:
        return _cells(context, task)

    def forecast(self, config: Any, rows: int, dim: int) -> Forecast:
        """Cost of at most n rows."""
        shard = max(1, min(rows, (16 << 20) // (4 * dim)))
        flops = 2.0 * rows * dim * rows**0.5 / 4
        return Forecast(-(-rows // shard), 12 * dim * shard + (32 << 20), flops, 4 * dim * rows)


def _cells(context: Context, task: Task) -> Record:
    """A shard's rows, prepared, by nearest cell, and its cells' members."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415 - numba only on workers

    vectors = context.inputs["vectors"]
    dataset = partition_of(context.inputs["graph"])
    if dataset is None:
        raise ObjectMissing(f"{context.inputs['graph'].uri} has no partition any more")
    partition = Partition.of(dataset)
    number = task.args["shard"]
    shard = vectors.shards[number]
    offset = sum(s.rows for s in vectors.shards[:number])
    rows = partition.measure.prepare(context.load(shard.objects["vectors"], store=vectors.store))
    count = int(dataset.metrics["fanout"])
    cells = nearest_cells(partition, rows, count, check=context.check)
    order = np.argsort(cells[:, 0], kind="stable")
    cells, rows = cells[order], rows.take(order)
    entries = np.empty(cells.size, np.int64)
    starts = np.empty(len(partition.sizes) + 1, np.int64)
    bucket_order(cells.ravel(), len(partition.sizes), entries, starts)
    entries = entries[: starts[-1]]
    objects = {
        "vectors": context.write_array("block", rows.vectors),
        "rows": context.write_array("rows", offset + order),
        "cells": context.write_array("cells", cells),
        "members": context.write_array("members", (entries // count).astype(np.int32)),
        "starts": context.write_array("starts", starts),
        "ranks": context.write_array("ranks", (entries % count).astype(np.uint8)),
    }
    if rows.terms is not None:
        objects["terms"] = context.write_array("terms", rows.terms)
    return Record(task.key, objects)


@dataclass(frozen=True)
class Block:
    """A block of a partition, or a shard of a segment: rows by nearest cell. Opened once a task."""

    dataset: Dataset
    shard: Shard

    @classmethod
    def all_of(cls, *datasets: Dataset) -> list[Block]:
        return [cls(dataset, shard) for dataset in datasets for shard in dataset.shards]

    def array(self, role: str) -> Array:
        return self.dataset.store.read_array(self.shard.objects[role])

    @cached_property
    def rows(self) -> Ids:
        return np.asarray(self.array("rows"))

    @cached_property
    def _members(self) -> tuple[Ids, Array, Array]:
        return np.asarray(self.array("starts")), self.array("members"), self.array("ranks")

    def prepared(self) -> Prepared:
        terms = self.array("terms") if "terms" in self.shard.objects else None
        return Prepared(self.array("vectors"), terms)

    def bounds(self, cells: int) -> Ids:
        """[C + 1]: rows whose nearest cell is c are those at bounds[c]:bounds[c + 1]."""
        return np.searchsorted(self.array("cells")[:, 0], np.arange(cells + 1))

    def others(self, cell: int, ranks: int) -> Ids:
        """Places of the rows that have the cell among their `ranks` nearest, but not first."""
        starts, members, rank = self._members
        part = slice(starts[cell], starts[cell + 1])
        return members[part][(rank[part] > 0) & (rank[part] < ranks)].astype(np.int64)
