"""All pairs, block pair by block pair, each tile computed once and used for both sides.

    0   1   2   3
  ┌───┬───┬───┬───┐    ◆  a block against itself, first: where the lists of its pairs start
0 │ ◆ │ ● │ ● │ ● │       from, so that most of what follows is rejected at a glance
  ├───┼───┼───┼───┤    ●  two blocks: best columns of b for rows of a, and of a for rows of b
1 │   │ ◆ │ ● │ ● │
  ├───┼───┼───┼───┤    merge of block i: the states of row i and column i, in plan order
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from simdist.runner.plan import Record, Round, Task
from simdist.tiles import TopK, TopKState, fold, fold_pair
from simdist.tiles.exact import reach
from simdist.types import ObjectRef

if TYPE_CHECKING:
    from simdist.measures.base import Measure, Prepared
    from simdist.runner.context import Context

__all__ = ["Panels", "compute_diagonal", "compute_pair", "merged", "pair_nbytes", "pair_rounds"]


class Panels(Protocol):
    """Rows in consecutive panels; ids are first..last of `span`."""

    @property
    def blocks(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def measure(self) -> Measure: ...
    def span(self, block: int) -> tuple[int, int]: ...
    def block(self, block: int) -> Prepared: ...
    def near(self, rows: Prepared) -> Prepared: ...


def pair_rounds(name: str, panels: Panels, width: int) -> Iterator[Round]:
    """Rounds `{name}-diagonal` and `name`, one task per block pair; width: columns kept per row."""
    first, last = panels.span(0)
    nbytes = pair_nbytes(last - first, panels.dim, width)
    blocks = range(panels.blocks)
    yield Round(
        f"{name}-diagonal",
        tuple(
            Task(f"{name}-diagonal-{a:06d}", "diagonal", {"a": a, "width": width}, nbytes)
            for a in blocks
        ),
    )
    args = {"width": width, "diagonal": f"{name}-diagonal"}
    yield Round(
        name,
        tuple(
            Task(f"{name}-{a:06d}-{b:06d}", "pair", {"a": a, "b": b, **args}, nbytes)
            for a in blocks
            for b in blocks[a + 1 :]
        ),
    )


def pair_nbytes(rows: int, dim: int, width: int) -> int:
    """What a pair of panels of so many rows holds at most."""
    return 4 * rows * (4 * dim + 12 * width) + (16 << 20)


def compute_diagonal(context: Context, panels: Panels, task: Task) -> Record:
    """A block against itself; facts say how far its rows reach (simdist.tiles.exact)."""
    block = panels.near(panels.block(task.args["a"]))
    state = fold(
        panels.measure,
        block,
        None,
        TopK(task.args["width"]),
        rows=np.arange(*panels.span(task.args["a"])),
        check=context.check,
    )
    far = reach(block)
    objects = _write(context, "a", state)
    return Record(task.key, objects, {"norm": far.norm, "term": far.term})


def compute_pair(context: Context, panels: Panels, task: Task) -> Record:
    """Both sides of two different blocks, each starting from its own diagonal's lists."""
    a, b = task.args["a"], task.args["b"]
    diagonal = context.records(task.args["diagonal"])
    states = fold_pair(
        panels.measure,
        panels.near(panels.block(a)),
        panels.near(panels.block(b)),
        TopK(task.args["width"]),
        rows_a=np.arange(*panels.span(a)),
        rows_b=np.arange(*panels.span(b)),
        start=(_read(context, diagonal[a], "a"), _read(context, diagonal[b], "a")),
        check=context.check,
    )
    objects = _write(context, "a", states[0]) | _write(context, "b", states[1])
    return Record(task.key, objects)


def merged(context: Context, panels: Panels, name: str, block: int, width: int) -> TopKState:
    """Best columns over all pairs a block took part in, merged in plan order."""
    top = TopK(width)
    state = _read(context, context.records(f"{name}-diagonal")[block], "a")
    records = {record.task: record for record in context.records(name)}
    for other in range(panels.blocks):
        if other == block:
            continue
        context.check()
        a, b = min(block, other), max(block, other)
        side = "a" if block == a else "b"
        state = top.merge(state, _read(context, records[f"{name}-{a:06d}-{b:06d}"], side))
    return state


def _write(context: Context, side: str, state: TopKState) -> dict[str, ObjectRef]:
    return {
        f"ids_{side}": context.write_array("pair-ids", state.ids),
        f"keys_{side}": context.write_array("pair-keys", state.keys),
    }


def _read(context: Context, record: Record, side: str) -> TopKState:
    return TopKState(
        context.load(record.objects[f"ids_{side}"]), context.load(record.objects[f"keys_{side}"])
    )
