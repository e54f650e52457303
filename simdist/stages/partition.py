"""Stage `partition`: vectors into cell order, with overlapping cells. See simdist.partitions.

    sample    a few rows of every shard, drawn by seed            one task per shard
    leaders   C of them lead cells, the rest order rows within    one task
    assign    nearest cells of every row                          one task per shard
    gather    rows of a range of cell order, from every shard     one task per block

Vectors move once, in `gather`, from dataset order into cell order; not at all where they lie in the
memory of this process (`in_place`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures import Prepared, resolve
from simdist.measures.surrogates import around, middle
from simdist.panels import refuse_zero_rows
from simdist.partitions import (
    FANOUT,
    LOOKED_UP_NBYTES,
    SLICE,
    as_surrogate,
    block_rows,
    cell_count,
    has_codes,
    matrix_in_memory,
    measure_surrogate,
    nearest_leaders,
    order_leaders,
    terms_of,
)
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.costs import Work, partition_rounds
from simdist.store.datasets import Shard
from simdist.types import Array, Float32, Ids, Int32, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.store.datasets import Dataset

__all__ = ["FANOUT", "PartitionConfig", "PartitionStage"]

MOST_ROWS = 2**31 - 2  # positions and positions + 1 are int32
SHARD_NBYTES = 16 << 20  # of vectors in a shard at most, as they are imported
FINE = 8  # fine leaders per cell: they order the rows within a cell


@dataclass(frozen=True, slots=True)
class PartitionConfig:
    """measure: a measure's spec. cells: how many, by default sqrt(n) / 4. fanout: how many nearest
    cells are kept for each row. seed: draws the leaders.

    in_place: rows are not copied into cell order, and are looked up where they are: for float32
    rows that this process holds in memory, for the length of a call, under a measure that has
    codes (without them rows are looked up too often).
    """

    measure: Json
    cells: int | None = None
    fanout: int = FANOUT
    seed: int = 0
    in_place: bool = False

    def __post_init__(self) -> None:
        if self.cells is not None and self.cells < 1:
            raise ConfigError(
                f"partition cells={self.cells}: expected at least 1, or none to choose"
            )
        if not 1 <= self.fanout <= 255:
            raise ConfigError(f"partition fanout={self.fanout}: expected 1 to 255")

    def to_json(self) -> dict[str, Json]:
        value = asdict(self)
        if not self.in_place:  # what lies in stores was committed without it
            del value["in_place"]
        return value


@dataclass(frozen=True, slots=True)
class Shape:
    """What follows from n, d and the config: the same on every engine and under every budget."""

    rows: int
    dim: int
    cells: int
    fine: int
    fanout: int
    block_rows: int

    @classmethod
    def of(cls, config: PartitionConfig, rows: int, dim: int) -> Shape:
        cells = min(config.cells or cell_count(rows), rows)
        return cls(
            rows=rows,
            dim=dim,
            cells=cells,
            fine=min(cells * FINE, rows),
            fanout=min(config.fanout, cells),
            block_rows=block_rows(rows, dim),
        )

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.block_rows)


class PartitionStage:
    """See the module docstring."""

    name: ClassVar[str] = "partition"
    VERSION: ClassVar[int] = 4

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        source = job.inputs["vectors"]
        shape = _shape(job.config, source)
        _refuse_too_many_rows(source)
        refuse_zero_rows(source, resolve(job.config.measure))
        for step in _story(source, shape):
            if step.name not in rounds:
                return step
        return _manifest(shape, rounds, context)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: PartitionConfig, rows: int, dim: int) -> Forecast:
        """Cost of partitioning n rows of dimension d."""
        shape = Shape.of(config, rows, dim)
        return Forecast(
            tasks=2 * -(-rows // 8192) + 1 + shape.blocks,
            nbytes=max(
                _leaders_nbytes(shape),
                _assign_nbytes(shape, min(rows, SHARD_NBYTES // (4 * dim) + 1)),
                _gather_nbytes(shape),
            ),
            flops=2.0 * rows * dim * (shape.cells + FINE),
            written=rows * (5 * dim + 24 + 13 * shape.fanout),
            rounds=partition_rounds(
                Work(
                    rows,
                    dim,
                    k=1,
                    cells=shape.cells,
                    known=shape.fanout,
                    coded=has_codes(resolve(config.measure)),
                )
            ),
        )


def _shape(config: PartitionConfig, source: Dataset) -> Shape:
    return Shape.of(config, source.rows, int(source.metrics["dim"]))


def _refuse_too_many_rows(source: Dataset) -> None:
    if source.rows > MOST_ROWS:
        raise InputError(
            f"{source.uri} has {source.rows} rows; a partition numbers positions in 32 bits and"
            f" takes at most {MOST_ROWS}. Split the data set; knn searches one part in another."
        )


def _story(source: Dataset, shape: Shape) -> Iterator[Round]:
    shards = source.manifest.shards
    offsets = np.concatenate([[0], np.cumsum([shard.rows for shard in shards])])
    largest = max(shard.rows for shard in shards)
    row_nbytes = 4 * shape.dim
    leaders_nbytes = shape.fine * row_nbytes
    sample_nbytes = 2 * leaders_nbytes + 32 * shape.fine + (1 << 20)
    yield Round(
        "sample",
        tuple(
            Task(f"sample-{s:06d}", "sample", {"shard": s, "first": int(offsets[s])}, sample_nbytes)
            for s in range(len(shards))
        ),
    )
    yield Round("leaders", (Task("leaders", "leaders", {}, _leaders_nbytes(shape)),))
    assign_nbytes = _assign_nbytes(shape, largest)
    yield Round(
        "assign",
        tuple(
            Task(f"assign-{s:06d}", "assign", {"shard": s}, assign_nbytes)
            for s in range(len(shards))
        ),
    )
    yield Round(
        "gather",
        tuple(
            Task(f"gather-{b:06d}", "gather", {"block": b}, _gather_nbytes(shape))
            for b in range(shape.blocks)
        ),
        consumes=("sample", "assign"),
    )


def _leaders_nbytes(shape: Shape) -> int:
    return 8 * 4 * shape.dim * shape.fine + (4 << 20)


def _assign_nbytes(shape: Shape, largest: int) -> int:
    """largest: rows of the largest shard."""
    return (
        (3 * largest + 2 * shape.fine) * 4 * shape.dim
        + SLICE * shape.cells * 4
        + largest * (8 * shape.fanout + 128)
        + (1 << 20)
    )


def _gather_nbytes(shape: Shape) -> int:
    rows = min(shape.block_rows, shape.rows)
    held = 3 * 4 * shape.dim + shape.dim + 80 + 40 * shape.fanout + 64
    return rows * held + 64 * shape.fine + (1 << 20)


def _sample(context: Context, task: Task) -> Record:
    """This shard's share of the sampled rows, as they are; rows are drawn over the whole set."""
    source = context.inputs["vectors"]
    shape = _shape(context.config, source)
    shard = source.manifest.shards[task.args["shard"]]
    drawn = _drawn(context, shape) - task.args["first"]
    local = drawn[(drawn >= 0) & (drawn < shard.rows)]
    vectors = _vectors(context, shard)[local].astype(np.float32)
    return Record(task.key, {"vectors": context.write_array("sample", vectors)})


def _drawn(context: Context, shape: Shape) -> Ids:
    rows = context.rng("leaders").choice(shape.rows, shape.fine, replace=False, shuffle=False)
    return np.sort(rows).astype(np.int64)


def _leaders(context: Context, task: Task) -> Record:
    """Which sampled rows lead cells, in an order that keeps near cells together."""
    measure = resolve(context.config.measure)
    surrogate = measure_surrogate(measure)
    shape = _shape(context.config, context.inputs["vectors"])
    sample = np.concatenate([context.load(r.objects["vectors"]) for r in context.records("sample")])
    prepared = as_surrogate(surrogate, measure, measure.prepare(sample))
    origin = middle(surrogate, prepared)
    prepared = around(surrogate, prepared, origin)
    chosen = context.rng("cells").choice(len(sample), shape.cells, replace=False)
    chosen = chosen[order_leaders(prepared.vectors[chosen])]
    leaders = prepared.take(chosen)
    cell = nearest_leaders(prepared, leaders, 1)[:, 0].astype(np.int64)
    cell[chosen] = np.arange(shape.cells)  # an identical leader must not empty another's cell
    fine = np.concatenate(
        [rows[order_leaders(prepared.vectors[rows])] for rows in _by_cell(cell, shape.cells)]
    )
    starts = np.searchsorted(cell[fine], np.arange(shape.cells + 1))
    return Record(
        task.key,
        {
            "leaders": context.write_array("leaders", leaders.vectors),
            "leader_terms": context.write_array("leaders", terms_of(leaders)),
            "fine": context.write_array("leaders", prepared.vectors[fine]),
            "fine_terms": context.write_array("leaders", terms_of(prepared.take(fine))),
            "fine_starts": context.write_array("leaders", starts.astype(np.int64)),
            **({} if origin is None else {"origin": context.write_array("leaders", origin)}),
            "centre": context.write_array(
                "leaders", measure.prepare(sample).vectors.mean(axis=0, dtype=np.float64)
            ),
        },
    )


def _by_cell(cell: Array, cells: int) -> list[Ids]:
    order = np.argsort(cell, kind="stable")
    return np.split(order, np.searchsorted(cell[order], np.arange(1, cells)))


def _assign(context: Context, task: Task) -> Record:
    """Nearest cells of a shard's rows, and the shard's rows in order of (fine leader, row)."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415 - numba only on workers

    measure = resolve(context.config.measure)
    surrogate = measure_surrogate(measure)
    source = context.inputs["vectors"]
    shape = _shape(context.config, source)
    found = context.records("leaders")[0].objects
    leaders = Prepared(context.load(found["leaders"]), context.load(found["leader_terms"]))
    fine = Prepared(context.load(found["fine"]), context.load(found["fine_terms"]))
    fine_starts = context.load(found["fine_starts"])
    raw = _vectors(context, source.manifest.shards[task.args["shard"]])
    rows = as_surrogate(surrogate, measure, measure.prepare(raw))
    rows = around(surrogate, rows, context.load(found["origin"]) if "origin" in found else None)
    cells = nearest_leaders(rows, leaders, shape.fanout, check=context.check)
    code = np.empty(len(rows), np.int64)
    for cell, members in enumerate(_by_cell(cells[:, 0], shape.cells)):
        if len(members):
            span = slice(fine_starts[cell], fine_starts[cell + 1])
            near = nearest_leaders(rows.take(members), fine.take(span), 1)[:, 0]
            code[members] = near + fine_starts[cell]
    order = np.empty(len(rows), np.int64)
    starts = np.empty(shape.fine + 1, np.int64)
    bucket_order(code, shape.fine, order, starts)
    return Record(
        task.key,
        {
            "cells": context.write_array("cells", cells),
            "order": context.write_array("order", order.astype(np.int32)),
            "starts": context.write_array("order", starts),
        },
    )


def _gather(context: Context, task: Task) -> Record:
    """The rows of one block of cell order, collected from every shard, and its cells' members."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415 - numba only on workers

    measure = resolve(context.config.measure)
    source = context.inputs["vectors"]
    shape = _shape(context.config, source)
    first = task.args["block"] * shape.block_rows
    last = min(first + shape.block_rows, shape.rows)
    records = context.records("assign")
    # Shard by shard: a table of all shards' counts would outgrow the block where data is large.
    before = np.zeros(shape.fine + 1, np.int64)
    for record in records:
        before += context.load(record.objects["starts"])
    place = before[:-1].copy()  # position of the next run of each fine leader
    touched = slice(
        int(np.searchsorted(before, first, side="right")) - 1, int(np.searchsorted(before, last))
    )
    numbers = np.empty(last - first, np.int64)
    cells = np.empty((last - first, shape.fanout), np.int32)
    in_place = context.config.in_place
    vectors = None if in_place else np.empty((last - first, shape.dim), np.float32)
    offset = 0
    for shard, record in zip(source.manifest.shards, records, strict=True):
        context.check()
        local, positions = _runs(context, record, place, touched, range(first, last))
        if len(local):
            if vectors is not None:
                vectors[positions] = _vectors(context, shard)[local]
            cells[positions] = context.load(record.objects["cells"])[local]
            numbers[positions] = offset + local
        offset += shard.rows
        place += np.diff(context.load(record.objects["starts"]))
    flat = cells.ravel()
    order = np.empty(len(flat), np.int64)
    starts = np.empty(shape.cells + 1, np.int64)
    bucket_order(flat, shape.cells, order, starts)
    order = order[: starts[-1]]
    objects = {
        "rows": context.write_array("rows", numbers),
        "members": context.write_array("members", (order // shape.fanout).astype(np.int32)),
        "starts": context.write_array("starts", starts),
        "ranks": context.write_array("ranks", (order % shape.fanout).astype(np.uint8)),
    }
    if vectors is None:
        objects |= _coded(context, len(numbers), _rows_at(context, numbers))
    else:
        objects["cells"] = context.write_array("cells", cells)
        prepared = measure.prepare(vectors)
        objects["vectors"] = context.write_array("block", prepared.vectors)
        if prepared.terms is not None:
            objects["terms"] = context.write_array("terms", prepared.terms)
        if has_codes(measure):
            objects |= _coded(context, len(numbers), iter([prepared]))
    sizes = np.zeros((shape.cells, shape.fanout), np.int64)
    for rank in range(shape.fanout):
        sizes[:, rank] = np.bincount(cells[:, rank], minlength=shape.cells)
    objects["sizes"] = context.write_array("sizes", sizes)
    return Record(task.key, objects)


def _rows_at(context: Context, numbers: Ids) -> Iterator[Prepared]:
    """Rows by number, prepared, in that order, a few at a time."""
    rows = resolve(context.config.measure).in_place(_matrix(context.inputs["vectors"]))
    step = max(LOOKED_UP_NBYTES // (4 * rows.rows.shape[1]), 1)
    for start in range(0, len(numbers), step):
        context.check()
        yield rows.take(numbers[start : start + step])


def _matrix(source: Dataset) -> Float32:
    """The rows in place; ConfigError where they are not in memory."""
    rows = matrix_in_memory(source)
    if rows is None:
        raise ConfigError(
            f"a partition in place is of float32 rows that this process holds in memory, one after"
            f" the other; those of {source.uri} are not. Leave in_place out."
        )
    return rows


def _coded(context: Context, count: int, parts: Iterator[Prepared]) -> dict[str, ObjectRef]:
    """So many rows, part by part, as int8 codes around the centre of the sample."""
    from simdist.compiled.codes import FACTS, code_nbytes, encode  # noqa: PLC0415

    centre = context.load(context.records("leaders")[0].objects["centre"])
    codes = np.empty((count, code_nbytes(len(centre))), np.int8)
    facts = np.empty((count, FACTS), np.float32)
    done = 0
    for rows in parts:
        here = slice(done, done + len(rows))
        encode(rows.vectors, centre, codes[here], facts[here])
        done += len(rows)
    return {
        "codes": context.write_array("codes", codes),
        "facts": context.write_array("facts", facts),
    }


def _runs(
    context: Context, record: Record, place: Ids, touched: slice, block: range
) -> tuple[Int32, Ids]:
    """A shard's rows that fall into the block's positions, and where in the block they go."""
    starts = context.load(record.objects["starts"])
    order = context.load(record.objects["order"])
    low, high = starts[touched.start], starts[touched.stop]
    local = order[low:high]
    lengths = np.diff(starts[touched.start : touched.stop + 1])
    run = np.repeat(np.arange(len(lengths)), lengths)
    positions = place[touched][run] + np.arange(low, high) - starts[touched][run] - block.start
    inside = (positions >= 0) & (positions < len(block))
    return local[inside], positions[inside]


def _manifest(shape: Shape, rounds: Rounds, context: Context) -> Commit:
    """Blocks in cell order; the sum of their cell sizes; the leaders."""
    found = rounds["leaders"][0].objects
    records = rounds["gather"]
    sizes = sum(context.load(r.objects["sizes"]) for r in records)
    shards = []
    for b, record in enumerate(records):
        rows = min(shape.block_rows, shape.rows - b * shape.block_rows)
        shards.append(Shard(rows, {r: o for r, o in record.objects.items() if r != "sizes"}))
    return Commit(
        rows=shape.rows,
        shards=tuple(shards),
        metrics={
            "dim": shape.dim,
            "cells": shape.cells,
            "fanout": shape.fanout,
            "block_rows": shape.block_rows,
            "largest_cell": int(np.asarray(sizes)[:, 0].max()),
        },
        objects={
            "leaders": found["leaders"],
            "leader_terms": found["leader_terms"],
            "centre": found["centre"],
            "sizes": context.write_array("sizes", np.asarray(sizes)),
            **({"origin": found["origin"]} if "origin" in found else {}),
        },
    )


def _vectors(context: Context, shard: Shard) -> Array:
    return context.load(shard.objects["vectors"], store=context.inputs["vectors"].store)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "sample": _sample,
    "leaders": _leaders,
    "assign": _assign,
    "gather": _gather,
}
