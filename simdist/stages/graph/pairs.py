"""All pairs, block pair by block pair, each tile computed once and used for both sides.

    0   1   2   3        task (a, b): best columns of block b for rows of a, and of a for b
  ┌───┬───┬───┬───┐      merge of block i: states of row i of this triangle and of column i,
0 │ ● │ ● │ ● │ ● │      in plan order
  ├───┼───┼───┼───┤
1 │   │ ● │ ● │ ● │
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from simdist.runner.plan import Record, Round, Task
from simdist.tiles import TopK, TopKState, fold_pair

if TYPE_CHECKING:
    from simdist.measures.base import Measure, Prepared
    from simdist.runner.context import Context

__all__ = ["Panels", "compute_pair", "merged", "pair_round"]


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


def pair_round(name: str, panels: Panels, width: int) -> Round:
    """One task per block pair; width: how many columns are kept per row."""
    first, last = panels.span(0)
    rows = last - first
    nbytes = 4 * rows * (4 * panels.dim + 12 * width) + (16 << 20)
    return Round(
        name,
        tuple(
            Task(f"{name}-{a:05d}-{b:05d}", "pair", {"a": a, "b": b, "width": width}, nbytes)
            for a in range(panels.blocks)
            for b in range(a, panels.blocks)
        ),
    )


def compute_pair(context: Context, panels: Panels, task: Task) -> Record:
    """Both sides of one block pair."""
    a, b = task.args["a"], task.args["b"]
    states = fold_pair(
        panels.measure,
        panels.block(a),
        panels.block(b),
        TopK(task.args["width"]),
        rows_a=np.arange(*panels.span(a)),
        rows_b=np.arange(*panels.span(b)),
        check=context.check,
    )
    objects = {}
    for side, state in zip(("a", "b"), states, strict=True):
        objects[f"ids_{side}"] = context.write_array("pair-ids", state.ids)
        objects[f"keys_{side}"] = context.write_array("pair-keys", state.keys)
        if a == b:
            break
    return Record(task.key, objects)


def merged(context: Context, panels: Panels, round_name: str, block: int, width: int) -> TopKState:
    """Best columns over all pairs a block took part in, merged in plan order."""
    top = TopK(width)
    state = top.init(np.arange(*panels.span(block)))
    records = {record.task: record for record in context.records(round_name)}
    for other in range(panels.blocks):
        context.check()
        a, b = min(block, other), max(block, other)
        side = "a" if block == a else "b"
        objects = records[f"{round_name}-{a:05d}-{b:05d}"].objects
        state = top.merge(
            state,
            TopKState(context.load(objects[f"ids_{side}"]), context.load(objects[f"keys_{side}"])),
        )
    return state
