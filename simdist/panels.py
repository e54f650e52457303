"""A vectors dataset in dataset order, as panels: equal runs of rows that a task can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.measures.base import Measure, Prepared
from simdist.measures.surrogates import around, middle
from simdist.partitions import block_rows
from simdist.runner.resident import keep_within
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Float32, Float64, Ids

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RowPanels", "ids_between", "refuse_zero_rows", "rows_between", "values_between"]

JUDGED = 256  # rows that say how far from the origin all of them lie


@dataclass(frozen=True)
class RowPanels:
    """A vectors dataset in dataset order, as panels of equal numbers of rows."""

    dataset: Dataset
    measure: Measure

    @property
    def dim(self) -> int:
        return int(self.dataset.metrics["dim"])

    @property
    def rows(self) -> int:
        return self.dataset.rows

    @cached_property
    def panel_rows(self) -> int:
        return block_rows(self.rows, self.dim)

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.panel_rows)

    @cached_property
    def offsets(self) -> Ids:
        """First row of every shard, and the number of all rows."""
        return np.cumsum([0, *(shard.rows for shard in self.dataset.manifest.shards)])

    def span(self, block: int) -> tuple[int, int]:
        first = block * self.panel_rows
        return first, min(first + self.panel_rows, self.rows)

    def block(self, block: int) -> Prepared:
        first, last = self.span(block)
        parts = []
        for shard, low, high in self._overlaps(first, last):
            keep_within()
            parts.append(self._vectors(shard)[low:high])
        return self.measure.prepare(parts[0] if len(parts) == 1 else np.concatenate(parts))

    @cached_property
    def middle(self) -> Float32 | None:
        """From where products of rows are precise, judged by the first few; None: as they are."""
        return middle(self.measure, self.take(np.arange(min(JUDGED, self.rows))))

    def near(self, rows: Prepared) -> Prepared:
        """Prepared rows as keys are taken from them: see simdist.measures.surrogates."""
        return around(self.measure, rows, self.middle)

    def take(self, rows: Ids) -> Prepared:
        """Prepared copies of ascending `rows`."""
        parts = []
        for s, shard in enumerate(self.dataset.manifest.shards):
            low, high = np.searchsorted(rows, self.offsets[s : s + 2])
            if low < high:
                keep_within()
                parts.append(self._vectors(shard)[rows[low:high] - self.offsets[s]])
        return self.measure.prepare(np.concatenate(parts))

    def _overlaps(self, first: int, last: int) -> Iterator[tuple[Shard, int, int]]:
        for s, shard in enumerate(self.dataset.manifest.shards):
            offset = int(self.offsets[s])
            low, high = max(first - offset, 0), min(last - offset, shard.rows)
            if low < high:
                yield shard, low, high

    def _vectors(self, shard: Shard) -> Array:
        return self.dataset.store.read_array(shard.objects["vectors"])


def refuse_zero_rows(dataset: Dataset, measure: Measure) -> None:
    """InputError where the vectors have a row of zeros that the measure cannot take."""
    row = dataset.metrics.get("first_zero_row")
    if row is not None and not measure.traits.zero_rows:
        raise InputError(
            f"row {row} of {dataset.uri} is all zeros, which {measure.name} cannot compare: it has"
            " no direction. Remove such rows before the import, or use a measure that takes them"
            " (dot, euclidean)."
        )


def rows_between(
    dataset: Dataset, role: str, first: int, last: int, columns: slice = slice(None)
) -> Array:
    """Rows first..last of an array that lies in a dataset's shards, some of its columns.

    role: which object of a shard, [rows] or [rows, d]. Mapped where one shard has all of them, else
    a copy, one shard open at a time.
    """
    parts, offset = [], 0
    for shard in dataset.shards:
        low, high = max(first - offset, 0), min(last - offset, shard.rows)
        offset += shard.rows
        if low < high:
            keep_within()
            rows = dataset.store.read_array(shard.objects[role])[low:high]
            parts.append(rows if rows.ndim == 1 else rows[:, columns])
    if len(parts) == 1:
        return parts[0]
    if not parts:
        raise InputError(
            f"{dataset.uri} has {offset} rows; none of {first} to {last} is among them"
        )
    return np.concatenate(parts)


def values_between(
    dataset: Dataset, columns: Sequence[str], first: int, last: int, *, what: str = "target"
) -> Float64:
    """Rows first..last of numeric columns that a vectors dataset keeps -> [rows, columns] float64.

    Raises InputError where the dataset keeps no such column, where one is not numeric, and for a
    NULL, NaN or infinity, with its row and id. what: what errors call a column.
    """
    parts, offset = [], 0
    for shard in dataset.shards:
        low, high = max(first - offset, 0), min(last - offset, shard.rows)
        if low < high:
            keep_within()
            parts.append(_numbers(dataset, shard, columns, what, (low, high, offset)))
        offset += shard.rows
    return np.concatenate(parts) if parts else np.empty((0, len(columns)))


def ids_between(dataset: Dataset, first: int, last: int) -> pa.ChunkedArray | None:
    """Ids of rows first..last of a vectors dataset, integers or strings; None where a dataset has
    no table of rows."""
    import pyarrow as pa  # noqa: PLC0415 - not needed to plan

    parts: list[pa.Array] = []
    offset = 0
    for shard in dataset.shards:
        low, high = max(first - offset, 0), min(last - offset, shard.rows)
        offset += shard.rows
        if low < high:
            if "rows" not in shard.objects:
                return None
            column = dataset.store.read_table(shard.objects["rows"], ["id"])["id"]
            parts += column.slice(low, high - low).chunks
    return pa.chunked_array(parts)


def _numbers(
    dataset: Dataset, shard: Shard, columns: Sequence[str], what: str, at: tuple[int, int, int]
) -> Float64:
    """Columns of rows low..high of one shard, whose first row is number `offset`."""
    low, high, offset = at
    if "rows" not in shard.objects:
        raise InputError(f"{dataset.uri} ({dataset.stage}) keeps no columns beside its vectors")
    table = dataset.store.read_table(shard.objects["rows"], ["id", *columns])
    found = np.empty((high - low, len(columns)))
    for place, name in enumerate(columns):
        if name not in table.column_names:
            kept = dataset.store.read_table(shard.objects["rows"]).column_names
            others = ", ".join(sorted(set(kept) - {"row", "id"})) or "none"
            raise InputError(
                f"{dataset.uri} has no {what} column {name!r}; it keeps: {others}. Name the column"
                " in keep when the vectors are imported."
            )
        column = table[name].slice(low, high - low)
        if str(column.type) not in _NUMBERS:
            raise InputError(
                f"{what} column {name!r} of {dataset.uri} holds {column.type}; expected numbers"
            )
        values = column.cast("float64").to_numpy()  # a NULL comes as NaN
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            first = int(wrong[0])
            value = "NULL" if column[first].as_py() is None else str(values[first])
            raise InputError(
                f"{what} column {name!r} of {dataset.uri} is {value} in row {offset + low + first}"
                f" (id {table['id'][low + first].as_py()!r}); expected finite numbers. Leave such"
                " rows out of the import, or fill them."
            )
        found[:, place] = values
    return found


_NUMBERS = frozenset(
    ["bool", "halffloat", "float", "double"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
