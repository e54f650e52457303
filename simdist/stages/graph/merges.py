"""Merges: what the tasks of a round propose, entered into the lists of one block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.partitions import Blocked, Partition, has_codes
from simdist.runner.plan import Record, Task
from simdist.stages.graph.lists import new_share, read_lists, write_lists
from simdist.stages.graph.walk import rescored, scored_nbytes

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.stages.graph.config import Knobs

__all__ = ["compute_merge", "compute_rescore", "merge_nbytes", "rescore_nbytes"]

MERGED_AT_ONCE = 1 << 16  # proposals copied from the store


def merge_nbytes(partition: Blocked, params: Knobs) -> int:
    """What a merge task holds at most: lists as read, made and written, some proposals, its edges,
    and its lists rescored where there are no codes."""
    entries = MERGED_AT_ONCE * (4 + 8 * params.leaf_neighbors)
    if not has_codes(partition.measure):
        return entries + rescore_nbytes(partition, params)
    return entries + min(partition.block_rows, partition.rows) * 60 * params.keep + (1 << 20)


def rescore_nbytes(partition: Blocked, params: Knobs) -> int:
    """What a rescore task holds at most: lists as read, scored and written."""
    rows = min(partition.block_rows, partition.rows)
    return rows * 60 * params.keep + scored_nbytes(partition, rows * params.keep) + (1 << 20)


def compute_rescore(context: Context, task: Task) -> Record:
    """The lists of one block, every candidate scored as walks score and new.

    args: block; lists: the round whose lists; links: how many the next walk will use.
    """
    partition = Partition.of(context.inputs["partition"])
    block = task.args["block"]
    first, _ = partition.span(block)
    found = read_lists(context, task.args["lists"], block)
    lists = rescored(context, partition, first, found, None)
    return Record(task.key, write_lists(context, partition, first, lists, task.args["links"]))


def compute_merge(context: Context, task: Task) -> Record:
    """What tasks of a round propose into the lists of one block.

    args: block; proposals: that round; lists: the round whose lists to go on from, none to begin;
    joined: how many places of those have been joined; links: how many the next join will use.
    """
    from simdist.compiled.lists import empty_lists, entered, joined  # noqa: PLC0415

    partition = Partition.of(context.inputs["partition"])
    params = context.config.resolved
    block = task.args["block"]
    first, last = partition.span(block)
    before = task.args["lists"]
    begin = before is None or not partition.coded
    lists = empty_lists(last - first, params.keep) if begin else read_lists(context, before, block)
    joined(lists, task.args["joined"])
    for record in context.records(task.args["proposals"]):
        context.check()
        starts = context.load(record.objects["starts"])
        for low in range(int(starts[block]), int(starts[block + 1]), MERGED_AT_ONCE):
            part = slice(low, min(low + MERGED_AT_ONCE, int(starts[block + 1])))
            rows = np.array(context.load(record.objects["rows"])[part])
            candidates = np.array(context.load(record.objects["candidates"])[part])
            entered(rows - np.int32(first), candidates, lists)
    if not partition.coded:  # a leaf's tile rounds otherwise than listed pairs do
        known = None if before is None else read_lists(context, before, block)
        lists = rescored(context, partition, first, lists, known)
    objects = write_lists(context, partition, first, lists, task.args["links"])
    return Record(task.key, objects, {"fresh": new_share(lists, context.config.k)})
