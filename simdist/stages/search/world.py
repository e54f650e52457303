"""What a task of a search sees: queries, corpus, the index, and which rows pass the condition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simdist.inverted import Lists, Shelf
from simdist.measures import Measure, Prepared, resolve
from simdist.panels import RowPanels
from simdist.partitions import Partition, block_rows
from simdist.stages.search.index import StoredIndex
from simdist.stages.search.memory import GROUP_NBYTES
from simdist.types import Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.stages.search.config import SearchConfig

__all__ = ["World"]


@dataclass(frozen=True)
class World:
    """A context, read as a search reads it. `context` is the driver's or a task's."""

    context: Context

    @property
    def config(self) -> SearchConfig:
        config: SearchConfig = self.context.config
        return config

    @cached_property
    def measure(self) -> Measure:
        return resolve(self.config.measure)

    @cached_property
    def queries(self) -> RowPanels:
        return RowPanels(self.context.inputs["queries"], self.measure)

    @cached_property
    def corpus(self) -> RowPanels:
        return RowPanels(self.context.inputs["corpus"], self.measure)

    @cached_property
    def partition(self) -> Partition:
        return Partition.of(self.context.inputs["partition"])

    @cached_property
    def index(self) -> StoredIndex:
        return StoredIndex(self.partition, self.context.inputs["index"])

    @property
    def coded(self) -> bool:
        return self.measure.traits.gemm

    @property
    def filtered(self) -> bool:
        return self.config.where is not None

    @cached_property
    def counts(self) -> Ids:
        """[shards + 1] how many rows pass before each shard of the corpus, and in all."""
        passed = (record.facts["passing"] for record in self.context.records("filter"))
        return np.cumsum([0, *passed], dtype=np.int64)

    @property
    def rows(self) -> int:
        """How many rows of the corpus may be found."""
        return int(self.counts[-1]) if self.filtered else self.corpus.rows

    @cached_property
    def panel_rows(self) -> int:
        return block_rows(max(self.rows, 1), self.corpus.dim)

    @property
    def panels(self) -> int:
        """Panels that a scan of all rows that pass takes."""
        return -(-self.rows // self.panel_rows)

    def panel(self, number: int) -> tuple[Prepared, Ids]:
        """The rows of a panel, prepared, and which rows of the corpus they are."""
        if not self.filtered:
            return self.corpus.block(number), np.arange(*self.corpus.span(number))
        first = number * self.panel_rows
        last = min(first + self.panel_rows, self.rows)
        parts = []
        for s, record in enumerate(self.context.records("filter")):
            low, high = max(first - self.counts[s], 0), min(last, self.counts[s + 1])
            if low < high - self.counts[s]:
                passed = self.context.load(record.objects["rows"])
                parts.append(passed[low : high - self.counts[s]])
        rows = np.concatenate(parts)
        return self.corpus.take(rows), rows

    @cached_property
    def groups(self) -> tuple[range, ...]:
        """Runs of blocks that one task probes."""
        each = max(1, GROUP_NBYTES // (4 * self.partition.dim * self.partition.block_rows))
        blocks = self.partition.blocks
        return tuple(range(b, min(b + each, blocks)) for b in range(0, blocks, each))

    def lists(self, block: int) -> Lists:
        """Inverted lists of a block, of the rows that pass."""
        if not self.filtered:
            return self.index.lists(block)
        placed = self.context.records("place")[block].objects
        return Lists(self.context.load(placed["members"]), self.context.load(placed["starts"]))

    def shelves(self, blocks: range) -> Iterator[Shelf]:
        """Blocks that hold anything that may be found."""
        for block in blocks:
            lists = self.lists(block)
            if len(lists.members):
                yield self.index.shelf(block, lists)

    @cached_property
    def held(self) -> Ids:
        """[C] how many rows of each cell may be found."""
        if not self.filtered:
            return self.index.sizes
        held = np.zeros(self.index.cells, np.int64)
        for record in self.context.records("place"):
            held += np.diff(self.context.load(record.objects["starts"]))
        return held

    def sampled(self) -> Ids:
        """Queries that recall is measured on."""
        size = min(self.config.sample, self.queries.rows)
        drawn = self.context.rng("recall").choice(self.queries.rows, size, replace=False)
        return np.sort(drawn).astype(np.int64)
