"""Block pairs, each looked at once: the exact join.

columns  0   1   2   3
       ┌───┬───┬───┬───┐      one task: a block of rows and a run of blocks of columns
rows 0 │ ◆ │ ● │ ● │ ● │      ◆  a block against itself: columns past the row
       ├───┼───┼───┼───┤      ●  every pair of two blocks
     1 │   │ ◆ │ ● │ ● │
       └───┴───┴───┴───┘      against another data set, all blocks are ●
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from simdist.measures import Prepared, resolve
from simdist.panels import RowPanels
from simdist.runner.plan import Record, Round, Task
from simdist.stages.pairs.parts import Parts, parts_nbytes
from simdist.tiles.threshold import Sink, fold_threshold, threshold_nbytes
from simdist.types import Array, Float32

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["Sets", "compute_pairs", "pair_round", "shifted"]

BUCKETS = 64  # of a panel of rows
MOST_BUCKETS = 8192  # of all rows: records list those that they have pairs of
TASKS_WANTED = 8  # runs of column blocks that a block of rows is cut into, where there are as many
LONGEST_RUN = 8


@dataclass(frozen=True)
class Sets:
    """The rows that are joined: x, and `against` or x itself."""

    context: Context

    @cached_property
    def x(self) -> RowPanels:
        return RowPanels(self.context.inputs["vectors"], resolve(self.context.config.measure))

    @cached_property
    def other(self) -> RowPanels:
        if not self.two:
            return self.x
        return RowPanels(self.context.inputs["against"], self.x.measure)

    @property
    def two(self) -> bool:
        return "against" in self.context.inputs

    @property
    def bucket_rows(self) -> int:
        return max(1, self.x.panel_rows // BUCKETS, -(-self.x.rows // MOST_BUCKETS))

    def near(self, rows: Prepared) -> Prepared:
        """Rows of either set as products of them are formed: from one origin."""
        return self.x.near(rows)

    def nbytes(self, rows: int, columns: int) -> int:
        """Of blocks of so many rows and columns and the folding of them: as they are read, and as
        they are prepared."""
        dim = self.x.dim
        blocks = 8 * (rows + columns) * (dim + 1)
        return blocks + threshold_nbytes(self.x.measure, rows, columns, dim) + (8 << 20)


def pair_round(sets: Sets) -> Round:
    """Every pair of blocks, in runs: how long follows from the number of blocks."""
    blocks = sets.other.blocks
    run = max(1, min(LONGEST_RUN, blocks // TASKS_WANTED))
    nbytes = sets.nbytes(sets.x.span(0)[1], sets.other.span(0)[1]) + parts_nbytes()
    tasks = []
    for a in range(sets.x.blocks):
        for first in range(0 if sets.two else a, blocks, run):
            args = {"rows": a, "first": first, "last": min(first + run, blocks)}
            tasks.append(Task(f"pairs-{a:06d}-{first:06d}", "pairs", args, nbytes))
    return Round("pairs", tuple(tasks))


def compute_pairs(context: Context, task: Task) -> Record:
    """A block of rows against a run of blocks, ascending: so columns ascend in each row."""
    sets = Sets(context)
    limit, a = context.config.limit(), task.args["rows"]
    parts = Parts(
        context, bucket_rows=sets.bucket_rows, most=context.config.max_pairs, ordered=True
    )
    X = sets.x.block(a)
    for b in range(task.args["first"], task.args["last"]):
        itself = b == a and not sets.two
        fold_threshold(
            limit,
            X,
            None if itself else sets.other.block(b),
            shifted(parts.take, sets.x.span(a)[0], sets.other.span(b)[0]),
            near=sets.near,
            check=context.check,
        )
    return parts.record(task.key)


def shifted(take: Callable[[Array, Array, Float32], None], row: int, column: int) -> Sink:
    """A sink of positions in blocks that begin at a row and at a column."""

    def sink(rows: Array, columns: Array, values: Float32) -> None:
        take(rows.astype("int64") + row, columns.astype("int64") + column, values)

    return sink
