"""Queries, keys and values of a job as blocks and panels, and the names under which they come.

queries   vectors ──> blocks of QUERY_ROWS
keys      vectors ──> panels, coded once; panels ──> spans that one task looks at
values    vectors with as many rows, or numeric columns kept beside the keys
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simdist.panels import rows_between
from simdist.partitions import block_rows
from simdist.stages.sparse_attention.bounds import KeyFacts
from simdist.stages.sparse_attention.columns import Column, column_values, with_classes
from simdist.stages.sparse_attention.config import SparseConfig
from simdist.stages.sparse_attention.fold import (
    PILOT,
)
from simdist.stages.sparse_attention.queries import Panel, Queries
from simdist.types import Array, Float64

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.store.datasets import Dataset

__all__ = ["MANY", "QUERY_ROWS", "Sources", "sub_rows"]

QUERY_ROWS = 1024  # of a block
LEVELS_NBYTES = 64 << 20  # of the levels that a task keeps between scan and score
MANY = 16  # times PILOT: where a scan is dear enough to ask a few keys first


@dataclass(frozen=True)
class Sources:
    """What a task reads. Panels and blocks follow from rows and dimensions alone."""

    queries: Dataset
    keys: Dataset
    values: Dataset | None  # None: columns of the keys
    config: SparseConfig

    @classmethod
    def of(cls, context: Context) -> Sources:
        inputs = context.inputs
        return cls(inputs["queries"], inputs["keys"], inputs.get("values"), context.config)

    @property
    def dim(self) -> int:
        return int(self.keys.metrics["dim"])

    def columns(self, context: Context) -> tuple[Column, ...]:
        """What the columns of the keys are, as round `pilot` saw them, classes as `classes` did."""
        facts = context.records("pilot")[0].facts
        found = [Column(name, kind) for name, kind in facts["kinds"]]
        if any(column.text for column in found):
            found = with_classes(found, [r.facts["classes"] for r in context.records("classes")])
        return tuple(found)

    def width(self, context: Context) -> int:
        """Columns of the values."""
        if self.values is None:
            return sum(column.width for column in self.columns(context))
        return int(self.values.metrics["dim"])

    @property
    def dtype(self) -> type:
        """Of the output: columns are averaged as they are, vectors as vectors."""
        return np.float64 if self.values is None else np.float32

    @property
    def blocks(self) -> int:
        return -(-self.queries.rows // QUERY_ROWS)

    def block(self, block: int) -> tuple[int, int]:
        first = block * QUERY_ROWS
        return first, min(first + QUERY_ROWS, self.queries.rows)

    @cached_property
    def panel_rows(self) -> int:
        return block_rows(self.keys.rows, self.dim)

    @property
    def panels(self) -> int:
        return -(-self.keys.rows // self.panel_rows)

    def panel(self, panel: int) -> tuple[int, int]:
        first = panel * self.panel_rows
        return first, min(first + self.panel_rows, self.keys.rows)

    @property
    def spans(self) -> tuple[range, ...]:
        """Panels of each span."""
        each = max(self.config.span // self.panel_rows, 1)
        return tuple(
            range(first, min(first + each, self.panels)) for first in range(0, self.panels, each)
        )

    def read_keys(self, first: int, last: int) -> Array:
        return _vectors(self.keys, first, last)

    def read_values(self, context: Context, first: int, last: int) -> Array:
        """[rows, width]: float32 vectors, or float64 of columns, checked."""
        if self.values is None:
            return column_values(self.keys, self.columns(context), first, last)
        return _vectors(self.values, first, last)

    def coded_panel(self, context: Context, panel: int) -> Panel:
        """A panel with the codes that round `codes` left."""
        from simdist.compiled.twice_coded import Coded  # noqa: PLC0415 - numba only on workers

        objects = context.records("codes")[panel].objects
        first, last = self.panel(panel)
        coded = Coded(*(context.load(objects[role]) for role in ("coarse", "fine", "facts")))
        values = (
            context.load(objects["values"])
            if self.values is None
            else self.read_values(context, first, last)
        )
        return Panel.of(coded, self.read_keys(first, last), values, first)

    def coded_panels(self, context: Context, span: range) -> Iterator[Panel]:
        return (self.coded_panel(context, panel) for panel in span)

    def facts(self, context: Context) -> KeyFacts:
        """Of all keys and values, merged in plan order."""
        records = context.records("codes")
        found = KeyFacts.from_json(records[0].facts)
        for record in records[1:]:
            found = found.merge(KeyFacts.from_json(record.facts))
        return found

    def read_queries(
        self, context: Context, block: int, facts: KeyFacts, *, parts: int | None = None
    ) -> Queries:
        return Queries.of(
            _vectors(self.queries, *self.block(block)),
            self.centre(context),
            facts,
            self.config,
            single=self.dtype == np.float32,
            parts=parts,
            own=np.arange(*self.block(block)) if self.config.exclude_self else None,
        )

    def centre(self, context: Context) -> Float64:
        return np.asarray(context.load(context.records("pilot")[0].objects["centre"]))

    def pilot(self, context: Context) -> Panel | None:
        """A few evenly spaced keys, where there are many."""
        from simdist.compiled.twice_coded import encode  # noqa: PLC0415 - numba only on workers

        objects = context.records("pilot")[0].objects
        if "keys" not in objects:
            return None
        keys = context.load(objects["keys"])
        return Panel.of(encode(keys, self.centre(context)), keys, keys[:, :1])

    @property
    def pilot_rows(self) -> Array:
        """Ascending rows of the keys that stand for all where the codes' centre is looked for."""
        return np.unique(np.linspace(0, self.keys.rows - 1, PILOT).astype(np.int64))


def sub_rows(keys: int) -> int:
    """Queries whose levels against so many keys are kept at once."""
    return int(min(max(LEVELS_NBYTES // (2 * keys), 8), 256))


def _vectors(dataset: Dataset, first: int, last: int) -> Array:
    return np.asarray(rows_between(dataset, "vectors", first, last), np.float32)
