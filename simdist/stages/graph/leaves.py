"""Leaves: overlapping cells split by random leaders until a dense tile of each is cheap.

cell (rows that have it among their nearest) ──> leaders ──> children, each row in its nearest 2
child too large ──> split again, each row in one        child that does not shrink ──> cut
leaf ──> one GEMM ──> every row's best others in it ──> entries, bucketed by block
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from simdist.measures import Prepared
from simdist.partitions import SLICE, Partition, measure_surrogate, nearest_leaders, power_of_two
from simdist.runner.plan import Record, Round, Task
from simdist.stages.graph.config import Knobs
from simdist.types import Array, Float32, Ids, Int32, Json

if TYPE_CHECKING:
    from simdist.measures.base import Measure
    from simdist.runner.context import Context

__all__ = ["cell_cap", "compute_leaves", "leaf_goal", "leaf_nbytes", "leaf_round"]

TASK_NBYTES = 64 << 20  # vectors a task reads, cell by cell
TASKS_WANTED = 16  # enough to keep a few workers busy on small data
CELL_NBYTES = 16 << 20  # vectors it holds at once
FIRST_FANOUT = 2  # children a row joins when its cell is first split; one below that
SMALL = 8  # children below leaf_rows / SMALL share a leaf with their neighbour


def leaf_round(name: str, partition: Partition, params: Knobs, ranks: int, level: int) -> Round:
    """One task per group of consecutive cells, or per part of a cell too large to hold.

    ranks: how many of a row's nearest cells it joins. level: makes splits differ between rounds.
    """
    cap = cell_cap(partition.dim, params)
    copies = np.asarray(partition.sizes)[:, :ranks].sum(axis=1)
    goal = leaf_goal(int(copies.sum()), partition.dim)
    tasks = []
    for cells, part, parts, rows in _groups(copies, goal, cap):
        held = min(cap, int(copies[cells.start : cells.stop].max()))
        nbytes = leaf_nbytes(partition.dim, params, held=held, rows=rows)
        args: dict[str, Json] = {
            "first_cell": cells.start,
            "last_cell": cells.stop,
            "part": part,
            "parts": parts,
            "ranks": ranks,
            "level": level,
        }
        tasks.append(Task(f"{name}-{cells.start:06d}-{part:04d}", "leaves", args, nbytes))
    return Round(name, tuple(tasks))


def cell_cap(dim: int, params: Knobs) -> int:
    """Rows of a cell that a task holds at once; larger cells are worked on in parts."""
    return max(power_of_two(CELL_NBYTES // (4 * dim)), 2 * params.leaf_rows)


def leaf_goal(copies: int, dim: int) -> int:
    """Rows of a group of cells; copies: rows of all cells together."""
    return min(power_of_two(TASK_NBYTES // (4 * dim)), max(copies // TASKS_WANTED, 1))


def leaf_nbytes(dim: int, params: Knobs, *, held: int, rows: int) -> int:
    """What a leaf task holds at most: its largest cell and the children being split off, one tile,
    and what was found. held: rows of the largest cell; rows: of all its cells."""
    leaf = min(params.leaf_rows, held)
    leaders = max(2, 2 * held // params.leaf_rows)
    return (
        held * (16 * dim + 64)
        + 4 * min(SLICE, held) * leaders
        + FIRST_FANOUT * rows * (16 * params.leaf_neighbors + 40)
        + 8 * leaf**2
        + (1 << 20)
    )


def _groups(copies: Ids, goal: int, cap: int) -> Iterator[tuple[range, int, int, int]]:
    """(cells, part, parts, rows): consecutive cells of at most `goal` rows in all; a cell of more
    than `cap` rows stands alone, in equal parts."""
    first, total = 0, 0
    for cell, rows in enumerate(copies.tolist()):
        if rows > cap or total + rows > goal:
            if total:
                yield range(first, cell), 0, 1, total
            first, total = cell, 0
        if rows > cap:
            parts = -(-rows // cap)
            for part in range(parts):
                yield range(cell, cell + 1), part, parts, -(-rows // parts)
            first = cell + 1
        else:
            total += rows
    if total:
        yield range(first, len(copies)), 0, 1, total


def compute_leaves(context: Context, task: Task) -> Record:
    """Entries (row, its best others in one leaf) of some cells, bucketed by the row's block."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415 - numba only on workers

    partition = Partition.of(context.inputs["partition"])
    params = context.config.resolved
    args = task.args
    cells = range(args["first_cell"], args["last_cell"])
    entries = _Entries(partition.measure, params.leaf_neighbors)
    for cell, members in zip(cells, partition.members(cells, args["ranks"]), strict=True):
        if args["parts"] > 1:
            members = np.array_split(members, args["parts"])[args["part"]]  # noqa: PLW2901
        if len(members) < 2:
            continue
        splitter = _Splitter(
            partition.measure,
            params.leaf_rows,
            context.rng("split", args["level"], cell, args["part"]),
        )
        for leaf, prepared in splitter.leaves(partition.take(members)):
            context.check()
            entries.add(members[leaf], prepared)
    rows, ids, keys = entries.all()
    blocks = rows // partition.block_rows
    order = np.empty(len(rows), np.int64)
    starts = np.empty(partition.blocks + 1, np.int64)
    bucket_order(blocks, partition.blocks, order, starts)
    return Record(
        task.key,
        {
            "rows": context.write_array("entry-rows", rows[order]),
            "ids": context.write_array("entry-ids", ids[order]),
            "keys": context.write_array("entry-keys", keys[order]),
            "starts": context.write_array("starts", starts),
        },
        {"entries": len(rows), "leaves": entries.leaves, "tile_entries": entries.tile_entries},
    )


class _Splitter:
    """Cuts one cell into leaves. Children are yielded with copies of their prepared rows."""

    def __init__(self, measure: Measure, leaf_rows: int, rng: np.random.Generator) -> None:
        self.surrogate = measure_surrogate(measure)
        self.own = self.surrogate == measure
        self.leaf_rows = leaf_rows
        self.rng = rng

    def leaves(self, rows: Prepared) -> Iterator[tuple[Ids, Prepared]]:
        """(places in the cell, their prepared rows) of every leaf."""
        yield from self._split(np.arange(len(rows)), rows, FIRST_FANOUT)

    def _split(self, places: Ids, rows: Prepared, fanout: int) -> Iterator[tuple[Ids, Prepared]]:
        if len(places) <= self.leaf_rows:
            yield places, rows
            return
        for child in self._children(rows, fanout):
            yield from self._split(places[child], rows.take(child), 1)

    def _children(self, rows: Prepared, fanout: int) -> Iterator[Ids]:
        """Places of each child. One that does not shrink (equal rows) is cut at random."""
        from simdist.compiled.assign import bucket_order  # noqa: PLC0415 - numba only on workers

        size = len(rows)
        view = rows if self.own else self.surrogate.prepare(rows.vectors)
        count = min(max(2, -(-2 * size // self.leaf_rows)), size)
        leaders = view.take(self.rng.choice(size, count, replace=False))
        near = nearest_leaders(view, leaders, min(fanout, count))
        order = np.empty(near.size, np.int64)
        starts = np.empty(count + 1, np.int64)
        bucket_order(near.ravel(), count, order, starts)
        order //= near.shape[1]
        waiting: list[Ids] = []
        held = 0
        for child in range(count):
            members = order[starts[child] : starts[child + 1]]
            if len(members) > 0.9 * size:
                shuffled = self.rng.permutation(members)
                yield from (np.sort(half) for half in np.array_split(shuffled, 2))
                continue
            if waiting and held + len(members) > self.leaf_rows:
                yield _union(waiting)  # apart: together they might be as large as their parent
                waiting, held = [], 0
            waiting.append(members)
            held += len(members)
            if held >= max(2, self.leaf_rows // SMALL):
                yield _union(waiting)
                waiting, held = [], 0
        if held > 1:
            yield _union(waiting)


def _union(parts: list[Ids]) -> Ids:
    """Distinct places of a few children, ascending."""
    return np.unique(np.concatenate(parts)) if len(parts) > 1 else parts[0]


class _Entries:
    """Collects what leaves report."""

    def __init__(self, measure: Measure, width: int) -> None:
        self.measure = measure
        self.width = width
        self.leaves = 0
        self.tile_entries = 0
        self.parts: list[tuple[Int32, Int32, Float32]] = []

    def add(self, members: Int32, rows: Prepared) -> None:
        """One leaf: members [m] positions, rows [m, d] their prepared rows."""
        from simdist.compiled.graph import leaf_top  # noqa: PLC0415 - numba only on workers

        tile, terms = leaf_tile(self.measure, rows)
        ids = np.empty((len(members), self.width), np.int32)
        keys = np.empty((len(members), self.width), np.float32)
        leaf_top(tile, terms, members, ids, keys)
        self.parts.append((members, ids, keys))
        self.leaves += 1
        self.tile_entries += len(members) ** 2

    def all(self) -> tuple[Int32, Int32, Float32]:
        """rows [e], ids [e, width], keys [e, width]."""
        if not self.parts:
            shape = (0, self.width)
            return np.empty(0, np.int32), np.empty(shape, np.int32), np.empty(shape, np.float32)
        rows, ids, keys = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        self.parts.clear()
        return rows, ids, keys


def leaf_tile(measure: Measure, rows: Prepared) -> tuple[Float32, Array]:
    """Nearness of a leaf's rows to one another without its additive terms, and those terms."""
    if measure.traits.gemm:
        terms = np.zeros(len(rows), np.float32) if rows.terms is None else rows.terms
        return rows.vectors @ rows.vectors.T, terms
    nearness = np.require(measure.nearness(rows, rows), np.float32, ["C", "W"])
    return nearness, np.zeros(len(rows), np.float32)
