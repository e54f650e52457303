"""Leaves: overlapping cells split by random leaders until a dense tile of each is cheap.

cell (rows that have it among their nearest) ──> leaders ──> children, each row in its nearest 2
child too large ──> split again, each row in one        child that does not shrink ──> cut
leaf ──> one tile ──> every row's best others in it ──> proposals, bucketed by block

Where rows have codes (simdist.compiled.codes) leaders and tiles are integer ones; any other measure
gives its own tiles, on cells formed under its surrogate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simdist.partitions import SLICE, Partition, measure_surrogate, nearest_leaders, power_of_two
from simdist.runner.plan import Record, Round, Task
from simdist.stages.graph.config import Knobs
from simdist.stages.graph.lists import bucketed
from simdist.types import Array, Ids, Int32, Json

if TYPE_CHECKING:
    from simdist.compiled.codes import Room
    from simdist.measures import Prepared
    from simdist.runner.context import Context

__all__ = [
    "LeafPass",
    "cell_cap",
    "compute_leaves",
    "leaf_goal",
    "leaf_nbytes",
    "leaf_passes",
    "leaf_rounds",
]

TASK_NBYTES = 64 << 20  # rows a task reads, cell by cell, as it reads them
TASKS_WANTED = 16  # enough to keep a few workers busy on small data
TASKS_OF_A_WAVE = 8
CELL_NBYTES = 32 << 20  # of rows it holds at once
FIRST_FANOUT = 2  # children a row joins when its cell is first split; one below that
SQUARE_ROWS = 1024  # of a tile whose other half is mirrored: simdist.compiled.codes
LARGER = (1, 4, 16)  # leaves of later passes
SECONDS_BETWEEN_CHECKS = 0.005  # leaves take tenths of a millisecond, or as long as a measure does


@dataclass(frozen=True, slots=True)
class LeafPass:
    """One way of covering the rows with leaves. ranks: how many of its nearest cells a row joins.
    leaf_rows: rows of a leaf at most. number: makes splits differ between passes."""

    ranks: int
    leaf_rows: int
    number: int = 0


def leaf_passes(params: Knobs, rows: int, known: int) -> tuple[LeafPass, ...]:
    """Ever more leaves: the nearest cells; all cells a row knows; those in ever larger leaves. As
    far as that is less than half the work of all pairs. known: cells kept for each row."""
    ranks = min(params.fanout, known)
    wider = (LeafPass(known, params.leaf_rows * by, i) for i, by in enumerate(LARGER, start=1))
    cheap = (way for way in wider if FIRST_FANOUT * way.ranks * way.leaf_rows < rows / 2)
    return LeafPass(ranks, params.leaf_rows), *cheap


def leaf_rounds(name: str, partition: Partition, params: Knobs, way: LeafPass) -> Iterator[Round]:
    """One task per group of consecutive cells, or per part of a cell too large to hold. In one
    round; of rows in place in waves, merged one after the other, so that what leaves propose is
    never much more than twice what lists keep of it."""
    if not partition.in_place:
        yield Round(name, tuple(_leaf_tasks(name, partition, params, way, TASKS_WANTED)))
        return
    proposed = FIRST_FANOUT * way.ranks * params.leaf_neighbors
    waves = max(1, round(proposed / (2 * params.keep)))
    tasks = tuple(_leaf_tasks(name, partition, params, way, waves * TASKS_OF_A_WAVE))
    waves = min(waves, len(tasks))
    for wave in range(waves):
        yield Round(f"{name}-{wave}", tasks[wave::waves])


def _leaf_tasks(
    name: str, partition: Partition, params: Knobs, way: LeafPass, wanted: int
) -> Iterator[Task]:
    dim, coded = partition.dim, partition.coded
    cap = cell_cap(dim, way.leaf_rows, coded=coded)
    copies = np.asarray(partition.sizes)[:, : way.ranks].sum(axis=1)
    goal = leaf_goal(int(copies.sum()), dim, coded=coded, wanted=wanted)
    for cells, part, parts, rows in _groups(copies, goal, cap):
        held = min(cap, int(copies[cells.start : cells.stop].max()))
        nbytes = leaf_nbytes(dim, params, way.leaf_rows, held=held, rows=rows, coded=coded)
        args: dict[str, Json] = {
            "first_cell": cells.start,
            "last_cell": cells.stop,
            "part": part,
            "parts": parts,
            "ranks": way.ranks,
            "leaf_rows": way.leaf_rows,
            "level": way.number,
        }
        yield Task(f"{name}-{cells.start:06d}-{part:04d}", "leaves", args, nbytes)


def cell_cap(dim: int, leaf_rows: int, *, coded: bool) -> int:
    """Rows of a cell that a task holds at once; larger cells are worked on in parts."""
    return max(power_of_two(CELL_NBYTES // _row_nbytes(dim, coded)), 2 * leaf_rows)


def leaf_goal(copies: int, dim: int, *, coded: bool, wanted: int = TASKS_WANTED) -> int:
    """Rows of a group of cells; copies: rows of all cells together; wanted: tasks, at least."""
    fit = power_of_two(TASK_NBYTES // _row_nbytes(dim, coded))
    return min(fit, max(copies // wanted, 1))


def leaf_nbytes(
    dim: int, params: Knobs, leaf_rows: int, *, held: int, rows: int, coded: bool
) -> int:
    """What a leaf task holds at most: its largest cell and the children being split off, one tile,
    and what was found. held: rows of the largest cell; rows: of all its cells."""
    leaf = min(leaf_rows, held)
    leaders = max(2, 2 * held // leaf_rows)
    found = FIRST_FANOUT * rows * (24 * params.leaf_neighbors + 40)
    if coded:
        room = tile_nbytes(max(leaf, leaders), dim)
        return held * (_row_nbytes(dim, coded) + 128) + found + room + (1 << 20)
    split = held * 16 * dim + 4 * min(SLICE, held) * leaders
    return held * 128 + split + found + 8 * leaf**2 + (1 << 20)


def _row_nbytes(dim: int, coded: bool) -> int:
    return -(-dim // 64) * 64 + 16 if coded else 4 * dim


def tile_nbytes(rows: int, dim: int) -> int:
    """What tiles of codes of up to so many rows are worked out in."""
    return rows * (dim + 192) + 4 * min(rows, SQUARE_ROWS) ** 2 + 64 * rows


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
            parts = -(-2 * rows // cap)  # they are not equally large
            for part in range(parts):
                yield range(cell, cell + 1), part, parts, -(-rows // parts)
            first = cell + 1
        else:
            total += rows
    if total:
        yield range(first, len(copies)), 0, 1, total


def compute_leaves(context: Context, task: Task) -> Record:
    """Proposals (row, its best others in one leaf) of some cells, bucketed by the row's block."""
    partition = Partition.of(context.inputs["partition"])
    width = context.config.resolved.leaf_neighbors
    args = task.args
    cells = range(args["first_cell"], args["last_cell"])
    found = _Found(width)
    for cell, members in zip(cells, partition.members(cells, args["ranks"]), strict=True):
        leaders = context.rng("parts", args["level"], cell)
        for piece, held in enumerate(_pieces(partition, members, args, leaders)):
            context.check()
            rng = context.rng("split", args["level"], cell, args["part"], piece)
            seed = int(rng.integers(1 << 63))
            if partition.coded:
                found.add(*_folded_codes(partition, held, args["leaf_rows"], width, seed))
                continue
            for folded in _folded(partition, held, args["leaf_rows"], width, seed, context.check):
                found.add(*folded)
    rows, candidates = found.all()
    order, starts = bucketed(rows // partition.block_rows, partition)
    return Record(
        task.key,
        {
            "rows": context.write_array("proposed-rows", rows[order]),
            "candidates": context.write_array("proposed", candidates[order]),
            "starts": context.write_array("starts", starts),
        },
        {"entries": len(rows), "leaves": found.leaves, "tile_entries": found.tile_entries},
    )


def _pieces(
    partition: Partition, members: Int32, args: Mapping[str, Any], rng: np.random.Generator
) -> Iterator[Int32]:
    """The rows of a cell that a task holds together: all, or of a cell too large to hold, those
    that are nearest to one of a few leaders, the same for all its parts; in halves drawn at random
    where they are still too many."""
    part, parts = args["part"], args["parts"]
    if parts == 1:
        if len(members) > 1:
            yield members
        return
    cap = cell_cap(partition.dim, args["leaf_rows"], coded=partition.coded)
    leaders = rng.choice(members, parts, replace=False)
    mine = []
    for start in range(0, len(members), cap):
        rows = members[start : start + cap]
        near = _nearest_of(partition, np.concatenate([leaders, rows]), parts)
        mine.append(rows[near == part])
    found = np.concatenate(mine)
    pieces = np.array_split(rng.permutation(found), max(1, -(-len(found) // cap)))
    yield from (np.sort(piece) for piece in pieces if len(piece) > 1)


def _nearest_of(partition: Partition, members: Int32, leaders: int) -> Int32:
    """Which of the first few rows is nearest to each of the others, [others]."""
    rows = np.arange(leaders, len(members), dtype=np.int32)
    first = np.arange(leaders, dtype=np.int32)
    if not partition.coded:
        view = measure_surrogate(partition.measure).prepare(partition.take(members).vectors)
        return nearest_leaders(view.take(rows), view.take(first), 1)[:, 0]
    from simdist.compiled.codes import Room, leaders_of  # noqa: PLC0415

    codes, facts = partition.take_codes(members)
    near = np.empty((len(rows), 1), np.int32)
    leaders_of(codes, facts, rows, first, Room(leaders, codes.shape[1]), near)
    return near[:, 0]


def _folded_codes(
    partition: Partition, held: Int32, most: int, width: int, seed: int
) -> tuple[Int32, Ids, int, int]:
    """(rows, candidates, leaves, entries of their tiles) of rows that have codes."""
    from simdist.compiled.leaves import cell_leaves, random_state  # noqa: PLC0415

    codes, facts = partition.take_codes(held)
    room = _room(len(held), most, codes.shape[1])
    random = random_state(seed)
    return cell_leaves(
        codes, facts, held, room, random, fanout=FIRST_FANOUT, most=most, width=width
    )


def _room(rows: int, most: int, nbytes: int) -> Room:
    """For the leaves of a cell, and for its leaders."""
    from simdist.compiled.codes import Room  # noqa: PLC0415 - numba only on workers

    return Room(min(max(most, -(-2 * rows // most), 2), rows), nbytes)


def _folded(
    partition: Partition,
    held: Int32,
    most: int,
    width: int,
    seed: int,
    check: Callable[[], None],
) -> Iterator[tuple[Int32, Ids, int, int]]:
    """As `_folded_codes`, leaf by leaf, of rows under a measure that has no codes."""
    from simdist.compiled.graph import tile_top  # noqa: PLC0415
    from simdist.compiled.leaves import random_state  # noqa: PLC0415

    rows = partition.take(held)
    view = measure_surrogate(partition.measure).prepare(rows.vectors)
    asked = 0.0
    every = np.arange(len(held), dtype=np.int32)
    for leaf in _leaves(view, every, FIRST_FANOUT, most, random_state(seed)):
        now = time.monotonic()
        if now - asked > SECONDS_BETWEEN_CHECKS:
            check()
            asked = now
        inside = rows.take(leaf)
        nearness = partition.measure.nearness(inside, inside)
        best = np.empty((len(leaf), width), np.int64)
        tile_top(np.require(nearness, np.float32, ["C", "W"]), held[leaf], best)
        yield held[leaf], best, 1, len(leaf) ** 2


def _leaves(view: Prepared, rows: Int32, fanout: int, most: int, random: Array) -> Iterator[Int32]:
    """Rows of every leaf, ascending: at most `most`."""
    from simdist.compiled.leaves import draw, leader_count, parted  # noqa: PLC0415

    if len(rows) <= most:
        yield rows
        return
    leaders = draw(rows, leader_count(len(rows), most), random)
    near = nearest_leaders(view.take(rows), view.take(leaders), min(fanout, len(leaders)))
    cut = np.empty(near.size, np.int32)
    spans = np.empty((near.size // 2 + 2, 2), np.int64)
    count = parted(near, most, random, rows, cut, spans)
    for first, last in spans[:count].tolist():
        yield from _leaves(view, cut[first:last], 1, most, random)


class _Found:
    """Collects what leaves propose."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.leaves = 0
        self.tile_entries = 0
        self.parts: list[tuple[Int32, Ids]] = []

    def add(self, rows: Int32, candidates: Ids, leaves: int, tile_entries: int) -> None:
        """Some leaves: rows [e] positions, candidates [e, width]."""
        self.parts.append((rows, candidates))
        self.leaves += leaves
        self.tile_entries += tile_entries

    def all(self) -> tuple[Int32, Ids]:
        """rows [e], candidates [e, width]."""
        if not self.parts:
            return np.empty(0, np.int32), np.empty((0, self.width), np.int64)
        rows, candidates = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        self.parts.clear()
        return rows, candidates
