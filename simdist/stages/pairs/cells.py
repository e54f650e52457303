"""The approximate join: only pairs that share a cell of the stored partition.

Among themselves, two rows share a cell where it is among the `reach` nearest of both; of two sets,
a row of x looks into its `reach` nearest cells of the partition of the other, and finds the rows
whose nearest cell that is. So one look at the true pairs of sampled rows tells the pair recall of
every reach, before a single cell is joined: the smallest that keeps the promise is taken, and where
none does, every pair is looked at.

A pair that shares several cells is counted in the first of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from simdist.partitions import SLICE, Partition, nearest_cells
from simdist.runner.plan import Record, Round, Task
from simdist.stages.pairs.pairs import Sets
from simdist.stages.pairs.parts import Parts, parts_nbytes, parts_of
from simdist.tiles.threshold import fold_threshold
from simdist.types import Array, Bools, Float32, Float64, Ids, Int32, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["PairRecall", "cells_round", "choose_round", "compute_cells", "compute_choose"]

PAIRS_OF_A_TASK = 1 << 30  # looked at
CELL_ROWS = 8192  # of a cell at once
Z = 1.96


@dataclass(frozen=True, slots=True)
class PairRecall:
    """The share of all pairs that were found, with its 95 % interval.

    pairs: true pairs of the sampled rows, which it was measured on. rows: those that have any.
    """

    estimate: float
    low: float
    high: float
    pairs: int
    rows: int

    def to_json(self) -> Json:
        return {
            "estimate": self.estimate,
            "low": self.low,
            "high": self.high,
            "pairs": self.pairs,
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, value: Json) -> PairRecall:
        return cls(**value)

    @classmethod
    def of(cls, found: Ids, true: Ids) -> PairRecall:
        """found, true: [m] pairs of each sampled row that has any.

        A ratio of sums over rows, whose pairs stand or fall together: a Wilson interval whose
        sample size is deflated by the spread between rows (Kish 1965). The rows that miss most may
        be too rare for the sample, so the spread is taken as if one more had been drawn, with as
        many pairs as the mean and none of them found; where nothing was missed, each row counts as
        one pair.
        """
        rows, pairs = len(true), int(true.sum())
        if not pairs:
            return cls(1.0, 0.0, 1.0, 0, 0)
        p = float(found.sum() / pairs)
        effective = float(rows)
        if 0.0 < p < 1.0 and rows > 1:
            gaps = np.append(found - p * true, p * true.mean())
            variance = float((gaps**2).sum()) * rows / (rows - 1) / pairs**2
            effective = min(p * (1 - p) / variance, float(pairs))
        shrink = 1 + Z * Z / effective
        centre = (p + Z * Z / (2 * effective)) / shrink
        half = Z / shrink * math.sqrt(p * (1 - p) / effective + Z * Z / (4 * effective**2))
        low, high = max(0.0, centre - half), min(1.0, centre + half)
        return cls(round(p, 6), round(low, 6), round(high, 6), pairs, rows)


def choose_round(context: Context, sets: Sets) -> Round:
    """One task: it sees the pairs of the sampled rows alone."""
    partition = _partition(context)
    pairs = sum(int(record.facts["pairs"]) for record in context.records("sample"))
    fanout = partition.sizes.shape[1]
    near = min(SLICE, sets.x.rows) * 4 * len(partition.sizes) if sets.two else 0
    nbytes = pairs * (64 + 16 * fanout) + 24 * partition.block_rows + near + (32 << 20)
    nbytes += context.config.sample * 8 * (sets.x.dim + len(partition.sizes))
    return Round("choose", (Task("choose", "choose", {}, nbytes),))


def compute_choose(context: Context, task: Task) -> Record:
    """The smallest reach whose pair recall keeps the promise; facts: reach 0 where none does."""
    sets, partition = Sets(context), _partition(context)
    rows, needed = _needed(context, sets, partition)
    owners, member = np.unique(rows, return_inverse=True)
    true = np.bincount(member, minlength=len(owners))
    reaches = range(1, partition.sizes.shape[1] + 1)
    tried = [
        PairRecall.of(np.bincount(member[needed <= r], minlength=len(owners)), true)
        for r in reaches
    ]
    kept = [
        r for r, recall in zip(reaches, tried, strict=True) if recall.low >= context.config.recall
    ]
    reach = kept[0] if kept else 0
    recall = tried[reach - 1] if reach else PairRecall(1.0, 1.0, 1.0, int(true.sum()), len(true))
    return Record(task.key, {}, {"reach": reach, "recall": recall.to_json()})


def cells_round(context: Context, sets: Sets, reach: int) -> Round:
    """Runs of cells with about as many pairs to look at."""
    partition = _partition(context)
    ends = np.cumsum(_work(sets, partition, reach))
    rows = min(CELL_ROWS, partition.rows)
    held = 24 * int(partition.sizes[:, :reach].sum(axis=1).max(initial=0)) * (1 + reach)
    nbytes = sets.nbytes(rows, rows) + parts_nbytes() + held
    if sets.two:
        panel = sets.x.span(0)[1]
        slices = 4 * min(SLICE, panel) * len(partition.sizes)
        nbytes += 4 * panel * (2 * sets.x.dim + 6 * reach) + slices
    tasks, first = [], 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + PAIRS_OF_A_TASK, side="right")))
        for panel in range(sets.x.blocks if sets.two else 1):
            args = {"first": first, "last": last, "reach": reach, "rows": panel}
            tasks.append(Task(f"cells-{first:06d}-{panel:06d}", "cells", args, nbytes))
        first = last
    return Round("cells", tuple(tasks))


def compute_cells(context: Context, task: Task) -> Record:
    """The pairs of some cells, in dataset rows."""
    sets, partition = Sets(context), _partition(context)
    parts = Parts(
        context, bucket_rows=sets.bucket_rows, most=context.config.max_pairs, ordered=False
    )
    if sets.two:
        _join_two(context, sets, partition, task, parts)
    else:
        _join_among(context, sets, partition, task, parts)
    return parts.record(task.key)


def _join_among(
    context: Context, sets: Sets, partition: Partition, task: Task, parts: Parts
) -> None:
    """The rows of each cell among themselves."""
    reach = task.args["reach"]
    for cell in range(task.args["first"], task.args["last"]):
        members = partition.members(range(cell, cell + 1), reach)[0]
        shared = _Shared(
            cell,
            _cells_of(partition, members)[:, :reach],
            partition.numbers.take(members),
            parts,
        )
        starts = range(0, len(members), CELL_ROWS)
        for a in starts:
            X = partition.take(members[a : a + CELL_ROWS])
            for b in starts[a // CELL_ROWS :]:
                fold_threshold(
                    context.config.limit(),
                    X,
                    None if a == b else partition.take(members[b : b + CELL_ROWS]),
                    partial(shared.take, a, b),
                    near=sets.near,
                    check=context.check,
                )


@dataclass(frozen=True, slots=True)
class _Shared:
    """A cell's pairs on their way to the parts, but for those that an earlier cell has too.

    near: [m, reach] cells of its members; rows: [m] their dataset rows.
    """

    cell: int
    near: Int32
    rows: Ids
    parts: Parts

    def take(self, first: int, second: int, at: Array, other: Array, values: Float32) -> None:
        """Pairs of members, counted from a first one and from a second one."""
        at, other = at + first, other + second
        mine = _first_shared(self.near[at], self.near[other]) == self.cell
        a, b = self.rows[at[mine]], self.rows[other[mine]]
        self.parts.take(np.minimum(a, b), np.maximum(a, b), values[mine])


def _join_two(context: Context, sets: Sets, partition: Partition, task: Task, parts: Parts) -> None:
    """A panel of x against the rows of some cells of the other."""
    X, first = sets.x.block(task.args["rows"]), sets.x.span(task.args["rows"])[0]
    near = nearest_cells(partition, X, task.args["reach"], check=context.check)
    ends = np.cumsum(np.asarray(partition.sizes)[:, 0])
    for cell in range(task.args["first"], task.args["last"]):
        who = np.flatnonzero((near == cell).any(axis=1))
        low, high = int(ends[cell - 1]) if cell else 0, int(ends[cell])
        for start, column in product(range(0, len(who), CELL_ROWS), range(low, high, CELL_ROWS)):
            chosen = who[start : start + CELL_ROWS]
            positions = np.arange(column, min(column + CELL_ROWS, high), dtype=np.int64)
            fold_threshold(
                context.config.limit(),
                X.take(chosen),
                partition.take(positions),
                partial(_listed, parts, chosen + first, partition.numbers.take(positions)),
                near=sets.near,
                check=context.check,
            )


def _listed(
    parts: Parts, rows: Ids, columns: Ids, at: Array, other: Array, values: Float32
) -> None:
    """A sink of places in lists of rows and columns; partial over the lists."""
    parts.take(rows[at], columns[other], values)


def _work(sets: Sets, partition: Partition, reach: int) -> Float64:
    """Pairs to look at in every cell, about."""
    sizes = np.asarray(partition.sizes, np.float64)
    if sets.two:
        share = min(sets.x.rows, sets.x.panel_rows) / max(partition.rows, 1)
        found: Float64 = sizes[:, :reach].sum(axis=1) * share * sizes[:, 0]
    else:
        found = sizes[:, :reach].sum(axis=1) ** 2 / 2
    return found


def _needed(context: Context, sets: Sets, partition: Partition) -> tuple[Ids, Ids]:
    """The sampled rows' pairs: [p] whose, and [p] the smallest reach that finds each."""
    records = context.records("sample")
    whole = parts_of(context, records, 0, sets.x.rows, bucket_rows=sets.bucket_rows)
    found = list(whole)
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rows = np.concatenate([part.rows for part in found])
    others = np.concatenate([part.columns for part in found])
    fanout = partition.sizes.shape[1]
    far = np.full(len(rows), fanout + 1, np.int64)
    if sets.two:
        own, at = np.unique(rows, return_inverse=True)
        near = nearest_cells(partition, sets.x.take(own), fanout, check=context.check)[at]
        home = _cells_at(partition, others)[:, 0]
        same = near == home[:, None]
        return rows, np.where(same.any(axis=1), same.argmax(axis=1) + 1, far)
    mine, theirs = _cells_at(partition, rows), _cells_at(partition, others)
    needed = far
    for r in range(fanout, 0, -1):
        shared = _first_shared(mine[:, :r], theirs[:, :r]) >= 0
        needed = np.where(shared, r, needed)
    return rows, needed


def _first_shared(a: Int32, b: Int32) -> Int32:
    """[p] the lowest cell that rows of a and b [p, r] share; -1 where none. Empty places are -1."""
    none = np.iinfo(np.int32).max
    lowest = np.full(len(a), none, np.int32)
    for place in range(b.shape[1]):
        other = b[:, place : place + 1]
        same: Bools = (a == other) & (other >= 0)
        lowest = np.minimum(lowest, np.where(same.any(axis=1), other[:, 0], none))
    return np.where(lowest == none, np.int32(-1), lowest)


def _cells_at(partition: Partition, rows: Ids) -> Int32:
    """[p, F] nearest cells of dataset rows."""
    distinct, back = np.unique(rows, return_inverse=True)
    return _cells_of(partition, _positions(partition, distinct))[back]


def _positions(partition: Partition, rows: Ids) -> Ids:
    """Positions in cell order of dataset rows [m], one block's numbers at a time."""
    found = np.full(len(rows), -1, np.int64)
    for block in range(partition.blocks):
        numbers = partition.array(block, "rows")
        order = np.argsort(numbers)
        at = np.minimum(np.searchsorted(numbers, rows, sorter=order), len(numbers) - 1)
        here = numbers[order[at]] == rows
        found[here] = partition.span(block)[0] + order[at][here]
    return found


def _cells_of(partition: Partition, positions: Array) -> Int32:
    """[m, F] nearest cells of positions."""
    from simdist.compiled.blocks import Blocks  # noqa: PLC0415 - numba only on workers

    blocks = [partition.array(b, "cells") for b in range(partition.blocks)]
    return Blocks.of(blocks, partition.block_rows).take(positions)


def _partition(context: Context) -> Partition:
    return Partition.of(context.inputs["partition"])
