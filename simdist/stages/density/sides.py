"""What is read: the rows of either side of a fold, in units of their bandwidth, and values.

    keys      data [n, d] ── panels ──> ScaledRows        values   an array, columns of a table, or
    queries   at   [m, d] ── chunks ──> ScaledRows                 the keys themselves

Chunks, panels and how many panels a task folds follow from n, m, d and the width of the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.panels import rows_between
from simdist.partitions import power_of_two
from simdist.runner.resident import keep_within
from simdist.store.datasets import Dataset
from simdist.tiles.gaussian import COLUMNS, ROWS, ScaledRows, scaled
from simdist.types import Array, Float64, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = [
    "BASE_NBYTES",
    "Side",
    "Values",
    "Width",
    "chunk_rows",
    "panel_rows",
    "panels_together",
    "refuse_mismatch",
    "tile_nbytes",
    "width_of",
]

BASE_NBYTES = 16 << 20
CHUNK_NBYTES, PANEL_NBYTES = 8 << 20, 16 << 20  # of rows in float64
LEAST_CHUNK, MOST_CHUNK, MOST_PANEL = 512, 8192, 1 << 16
CHUNKS_WANTED = 8  # keeps a few workers busy on small data
TASK_FLOPS = 2.0**39  # of a fold: some seconds
EXP_FLOPS = 40  # what one exponential costs, as products of a matrix are counted
FLOAT32_SQUARES = 1024.0  # mean squared length at bandwidth 1 up to which float32 is precise
FLOAT32_LONGEST = 1e12  # squared length beyond which float32 is not tried


def chunk_rows(rows: int, dim: int) -> int:
    """Rows of a chunk of queries."""
    largest = min(max(power_of_two(CHUNK_NBYTES // (8 * dim)), LEAST_CHUNK), MOST_CHUNK)
    wanted = 2 * power_of_two(max(rows // CHUNKS_WANTED - 1, 1))
    return min(max(wanted, LEAST_CHUNK), largest)


def panel_rows(dim: int) -> int:
    """Rows of a panel of keys."""
    return min(max(power_of_two(PANEL_NBYTES // (8 * dim)), COLUMNS), MOST_PANEL)


def panels_together(queries: int, dim: int, width: int, *, times: int = 1) -> int:
    """Panels that one task folds for so many queries. width: columns of the values. times: how
    many exponentials a pair takes."""
    each = queries * panel_rows(dim) * (2.0 * dim + times * (EXP_FLOPS + 2.0 * width))
    return max(int(TASK_FLOPS / each), 1)


def tile_nbytes(queries: int, dim: int, width: int) -> int:
    """What a fold of so many queries holds at most: either side as read and as scaled, the state
    before and after, the tile, its parts in work, and a panel's values."""
    panel = panel_rows(dim)
    sides = 8 * (queries + panel) * (3 * dim + 2)
    states = 8 * queries * (2 + width) * 3 + 16 * panel * width
    return sides + states + 5 * 8 * ROWS * COLUMNS + BASE_NBYTES


@dataclass(frozen=True, slots=True)
class Width:
    """A bandwidth as a task takes it. center, widths: [d]. squares: mean squared length of the
    data's rows in these units; longest: no row's is larger."""

    center: Float64
    widths: Float64
    squares: float
    longest: float

    def times(self, factor: float) -> Width:
        """A bandwidth `factor` times as wide."""
        return Width(
            self.center,
            self.widths * factor,
            self.squares / factor**2,
            self.longest / factor**2,
        )

    def dtype(self, precision: str, *sides: Side) -> str:
        """What products are taken in: see `kernel_density`."""
        if precision != "auto":
            return precision
        wide = any(side.dtype == "float64" for side in sides)
        small = self.squares <= FLOAT32_SQUARES and self.longest <= FLOAT32_LONGEST
        return "float32" if small and not wide else "float64"


def width_of(context: Context) -> Width:
    """The bandwidth of the job at hand."""
    data = context.inputs["bandwidth"]
    center, widths = (
        np.asarray(context.load(data.manifest.objects[role], store=data.store))
        for role in ("center", "widths")
    )
    return Width(center, widths, float(data.metrics["squares"]), float(data.metrics["longest"]))


@dataclass(frozen=True)
class Side:
    """The rows of a vectors dataset."""

    dataset: Dataset

    @property
    def rows(self) -> int:
        return self.dataset.rows

    @property
    def dim(self) -> int:
        return int(self.dataset.metrics["dim"])

    @property
    def dtype(self) -> str:
        """As stored: "float16", "float32" or "float64"."""
        return str(self.dataset.metrics.get("dtype", "float32"))

    @property
    def panels(self) -> int:
        return -(-self.rows // panel_rows(self.dim))

    def panel(self, number: int) -> tuple[int, int]:
        """First row of a panel, and the one after its last."""
        first = number * panel_rows(self.dim)
        return first, min(first + panel_rows(self.dim), self.rows)

    @cached_property
    def chunk(self) -> int:
        return chunk_rows(self.rows, self.dim)

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk)

    def span(self, number: int) -> tuple[int, int]:
        """First row of a chunk, and the one after its last."""
        return number * self.chunk, min((number + 1) * self.chunk, self.rows)

    def read(self, first: int, last: int) -> Array:
        """Some rows as they are stored."""
        return rows_between(self.dataset, "vectors", first, last)

    def scaled(self, first: int, last: int, width: Width, dtype: str) -> ScaledRows:
        """Some rows in units of the bandwidth."""
        return scaled(self.read(first, last), width.center, width.widths, dtype)

    def take(self, rows: Ids) -> Float64:
        """Copies of ascending `rows`, one shard open at a time."""
        parts, offset = [], 0
        for shard in self.dataset.shards:
            low, high = np.searchsorted(rows, [offset, offset + shard.rows])
            if low < high:
                keep_within()
                array = self.dataset.store.read_array(shard.objects["vectors"])
                parts.append(array[rows[low:high] - offset].astype(np.float64))
            offset += shard.rows
        return np.concatenate(parts)

    def rows_tables(self) -> bool:
        """Whether shards say the ids of their rows."""
        return all("rows" in shard.objects for shard in self.dataset.shards)


@dataclass(frozen=True, slots=True)
class Values:
    """What is averaged: [n, t] of a dataset with "values", or columns of its rows' tables."""

    dataset: Dataset
    columns: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return len(self.columns) or int(self.dataset.metrics["columns"])

    def read(self, first: int, last: int) -> Float64:
        """[m, t] of some rows; InputError naming a row whose column holds no number."""
        if not self.columns:
            return rows_between(self.dataset, "values", first, last).astype(np.float64)
        return np.concatenate(list(self._parts(first, last)))

    def _parts(self, first: int, last: int) -> Iterator[Float64]:
        offset = 0
        for shard in self.dataset.shards:
            low, high = max(first - offset, 0), min(last - offset, shard.rows)
            if low < high:
                table = self.dataset.store.read_table(shard.objects["rows"], list(self.columns))
                parts = [
                    _numbers(table[name].slice(low, high - low), name, offset + low)
                    for name in self.columns
                ]
                yield np.stack(parts, axis=1)
            offset += shard.rows


def _numbers(column: Json, name: str, first: int) -> Float64:
    """An Arrow column as float64; InputError where it holds something else."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    kind = column.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not numeric:
        raise InputError(f"column {name!r} holds {kind}; expected numbers to average")
    plain = column.cast(pa.int8()) if pa.types.is_boolean(kind) else column
    values = np.asarray(plain.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        row = first + int(np.argmin(finite))
        raise InputError(f"column {name!r}, row {row}: NULL, NaN or infinity; expected a number")
    return values


def refuse_mismatch(data: Dataset, *, at: Dataset | None = None) -> None:
    """InputError where a side has no vectors, or other dimensions than the data."""
    for name, side in (("the data", data), ("at", at)):
        if side is None:
            continue
        if "dim" not in side.metrics or any("vectors" not in s.objects for s in side.shards):
            raise InputError(
                f"{name}: {side.uri} was made by stage {side.stage} and has no vectors: give what"
                " import_vectors, spectral_embedding or denoise committed, or an array"
            )
        if int(side.metrics["dim"]) != int(data.metrics["dim"]):
            raise InputError(
                f"{name} has {side.metrics['dim']} dimensions ({side.uri}), the data"
                f" {data.metrics['dim']} ({data.uri}): they must be of one space"
            )
