"""Stage `index`: the cells a search looks into, over a stored partition. See simdist.inverted.

    train     k-means over sampled rows, in codes                    one task
    assign    every row's cell; inverted lists of a block            one task per block

Rows stay where the partition has them. Each block (one shard) has the objects

    members  [m] int32       block-local positions, by cell: those of cell c at
    starts   [C + 1] int64     members[starts[c]:starts[c + 1]]
    codes    [m, d'] int8    and facts [m, 3]: of a measure with a GEMM form that the partition has
                               no codes for (dot, jaccard), as they score candidates

and the dataset as a whole `centres` [C, d'] int8 with `centre_facts`, coded in what is left of a
row when `near` [d] float64 is taken off, `score` [d] where blocks have codes of their own, and
`sizes` [C] int64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.inverted import (
    Codes,
    Lists,
    Shelf,
    by_cell,
    cell_total,
    code,
    code_scores,
    homes,
    middle_of,
    near_rows,
    train,
    trained_rows,
)
from simdist.measures import Measure, Prepared
from simdist.partitions import SLICE, Partition, block_rows
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, RoundForecast, Rounds, Task
from simdist.stages.costs import TASK_REQUESTS, moves
from simdist.stages.search.config import IndexConfig
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["IndexStage", "StoredIndex"]

JUDGED = 4096  # rows that say where the middle of all rows is


@dataclass(frozen=True)
class StoredIndex:
    """Read access to a stored index and the partition under it."""

    partition: Partition
    dataset: Dataset

    @property
    def measure(self) -> Measure:
        return self.partition.measure

    @property
    def cells(self) -> int:
        return int(self.dataset.metrics["cells"])

    @cached_property
    def centres(self) -> Codes:
        return Codes(self._whole("centres"), np.array(self._whole("centre_facts")))

    def near(self, rows: Prepared) -> Codes:
        """Rows of any set, prepared for the measure, as they ask which cells are nearest."""
        return code(near_rows(self.measure, rows), self._whole("near"))

    def scores(self, rows: Prepared) -> Codes | None:
        """Rows of any set as candidates are scored against them; None where there are no codes."""
        if not self.measure.traits.gemm:
            return None
        centre = self.partition.centre if self.partition.coded else self._whole("score")
        return code_scores(self.measure, rows, centre)

    @cached_property
    def sizes(self) -> Ids:
        """[C] rows of each cell."""
        return self._whole("sizes")

    def lists(self, block: int) -> Lists:
        """Inverted lists of a block."""
        return Lists(self._array(block, "members"), self._array(block, "starts"))

    def shelf(self, block: int, lists: Lists | None = None) -> Shelf:
        """A block as a search looks at it. lists: of some of its rows, by default of all."""
        codes = None
        if self.partition.coded:
            codes = Codes(
                self.partition.array(block, "codes"), self.partition.array(block, "facts")
            )
        elif self.measure.traits.gemm:
            codes = Codes(self._array(block, "codes"), self._array(block, "facts"))
        return Shelf(
            self.partition.block(block),
            self.partition.array(block, "rows"),
            codes,
            self.lists(block) if lists is None else lists,
            self.partition.span(block)[0],
        )

    def _array(self, block: int, role: str) -> Array:
        return self.dataset.store.read_array(self.dataset.shards[block].objects[role])

    def _whole(self, role: str) -> Array:
        return self.dataset.store.read_array(self.dataset.manifest.objects[role])


class IndexStage:
    """See the module docstring. Input: the partition of a corpus."""

    name: ClassVar[str] = "index"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """Train, assign, and the manifest."""
        partition = Partition.of(job.inputs["partition"])
        cells = _cells(job.config, partition)
        if "train" not in rounds:
            trained = trained_rows(partition.rows, cells)
            nbytes = _train_nbytes(partition.dim, cells, trained)
            return Round("train", (Task("train", "train", {}, nbytes),))
        if "assign" not in rounds:
            block = min(partition.block_rows, partition.rows)
            nbytes = _assign_nbytes(partition.dim, cells, block)
            blocks = range(partition.blocks)
            tasks = (Task(f"assign-{b:06d}", "assign", {"block": b}, nbytes) for b in blocks)
            return Round("assign", tuple(tasks))
        shards, sizes = [], np.zeros(cells, np.int64)
        for block, record in enumerate(rounds["assign"]):
            first, last = partition.span(block)
            shards.append(Shard(last - first, record.objects))
            sizes += np.diff(context.load(record.objects["starts"]))
        return Commit(
            rows=partition.rows,
            shards=tuple(shards),
            metrics={
                "dim": partition.dim,
                "cells": cells,
                "measure": partition.measure.name,
                "spec": partition.measure.spec(),
                "trained": trained_rows(partition.rows, cells),
                "rounds": list(rounds),
            },
            objects={
                **rounds["train"][0].objects,
                "sizes": context.write_array("sizes", sizes),
            },
        )

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: IndexConfig, rows: int, dim: int) -> Forecast:
        """Cost for a corpus of n rows of dimension d."""
        cells = min(config.cells or cell_total(rows), rows)
        trained, block = trained_rows(rows, cells), min(block_rows(rows, dim), rows)
        blocks = -(-rows // block)
        learning, finding = 8.0 * trained * cells * dim, 2.0 * rows * cells * dim
        return Forecast(
            tasks=blocks + 1,
            nbytes=max(_train_nbytes(dim, cells, trained), _assign_nbytes(dim, cells, block)),
            flops=0.0,
            written=4 * rows + 8 * cells * blocks + cells * dim,
            rounds=(
                RoundForecast(
                    "train",
                    1,
                    ops=learning,
                    read=trained * dim,
                    written=cells * dim,
                    requests=TASK_REQUESTS + moves(blocks, trained * dim),
                    rows=trained,
                ),
                RoundForecast(
                    "assign",
                    blocks,
                    ops=finding,
                    read=rows * dim + blocks * cells * dim,
                    written=4 * rows + 8 * cells * blocks,
                    requests=blocks * TASK_REQUESTS + moves(2 * blocks, rows * dim),
                    rows=rows,
                ),
            ),
        )


def _cells(config: IndexConfig, partition: Partition) -> int:
    coded = partition.measure.traits.gemm
    return min(config.cells or cell_total(partition.rows, coded=coded), partition.rows)


def _train_nbytes(dim: int, cells: int, trained: int) -> int:
    """Rows are coded a slice at a time; centres as float64 sums, float32 and codes."""
    return trained * (dim + 96) + 16 * cells * dim + 12 * dim * SLICE + 32 * SLICE + (8 << 20)


def _assign_nbytes(dim: int, cells: int, block: int) -> int:
    return block * (14 * dim + 64) + cells * (dim + 64) + 128 * SLICE + (8 << 20)


def _train(context: Context, task: Task) -> Record:
    """Centres of the cells, from rows spread over the whole set."""
    partition = Partition.of(context.inputs["partition"])
    cells = _cells(context.config, partition)
    count = trained_rows(partition.rows, cells)
    chosen = np.sort(context.rng("trained").choice(partition.rows, count, replace=False))
    few = partition.take(chosen[:: max(1, count // JUDGED)])
    near, objects = middle_of(near_rows(partition.measure, few)), {}
    if partition.coded:
        near = np.asarray(partition.centre)
        rows = Codes(*partition.take_codes(chosen, between=context.check))
    else:
        parts = []
        for start in range(0, count, SLICE):
            context.check()
            part = partition.take(chosen[start : start + SLICE])
            parts.append(code(near_rows(partition.measure, part), near))
        rows = Codes(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        if partition.measure.traits.gemm:
            objects["score"] = context.write_array("index", middle_of(few))
    centres = train(rows, len(near), cells, context.rng("cells"), check=context.check)
    objects |= {
        "centres": context.write_array("index", centres.codes),
        "centre_facts": context.write_array("index", centres.facts),
        "near": context.write_array("index", near),
    }
    return Record(task.key, objects)


def _assign(context: Context, task: Task) -> Record:
    """The cell of every row of a block."""
    partition, block = Partition.of(context.inputs["partition"]), task.args["block"]
    made = context.records("train")[0].objects
    centres = Codes(context.load(made["centres"]), np.array(context.load(made["centre_facts"])))
    objects = {}
    if partition.coded:
        rows = Codes(partition.array(block, "codes"), np.array(partition.array(block, "facts")))
    else:
        prepared = partition.block(block)
        rows = code(near_rows(partition.measure, prepared), context.load(made["near"]))
        if partition.measure.traits.gemm:
            scores = code_scores(partition.measure, prepared, context.load(made["score"]))
            objects["codes"] = context.write_array("codes", scores.codes)
            objects["facts"] = context.write_array("facts", scores.facts)
    lists = by_cell(homes(centres, rows, check=context.check), len(centres))
    objects["members"] = context.write_array("members", lists.members)
    objects["starts"] = context.write_array("starts", lists.starts)
    return Record(task.key, objects)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {"train": _train, "assign": _assign}
