"""From candidate positions to the committed graph: values by one fixed kernel, rows, Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.lists import graph_table, ids_of_rows
from simdist.partitions import Blocked, Partition
from simdist.runner.plan import Record, Task
from simdist.runner.resident import keep_within
from simdist.stages.graph.lists import read_lists
from simdist.stages.graph.walk import gathered_nbytes
from simdist.types import Array, Float32, Ids, Int32

if TYPE_CHECKING:
    from simdist.measures.base import Measure
    from simdist.runner.context import Context

__all__ = ["ROWS_AT_ONCE", "compute_finish", "finish_nbytes", "rerank", "rerank_nbytes"]

ROWS_AT_ONCE = 2048


def finish_nbytes(partition: Blocked, keep: int, k: int) -> int:
    """What a finish task holds at most: lists, one chunk's candidate rows, the table."""
    rows = min(partition.block_rows, partition.rows)
    return rows * (9 * keep + 48 * k + 128) + rerank_nbytes(partition, keep) + (4 << 20)


def rerank_nbytes(partition: Blocked, width: int) -> int:
    """What `rerank` holds at most for one chunk of rows with lists of `width`: their vectors, two
    mapped blocks, the pairs, and what the measure gathers of them."""
    rows = min(partition.block_rows, partition.rows)
    own = min(ROWS_AT_ONCE, partition.rows)
    pairs = own * width
    vectors = 4 * (own + 2 * rows) * (partition.dim + 1)
    return vectors + 60 * pairs + gathered_nbytes(partition.measure)


def compute_finish(context: Context, task: Task) -> Record:
    """One block of the graph. args: block; lists: the round whose lists to finish."""
    from simdist.compiled.lists import fill_short, ids_of  # noqa: PLC0415 - numba only on workers

    partition = Partition.of(context.inputs["partition"])
    k = context.config.k
    block = task.args["block"]
    first, last = partition.span(block)
    lists = read_lists(context, task.args["lists"], block)
    short = fill_short(first, partition.rows, lists, k)
    ids = ids_of(lists)
    neighbors = np.empty((last - first, k), np.int64)
    values = np.empty((last - first, k), np.float32)
    for start in range(0, last - first, ROWS_AT_ONCE):
        context.check()
        part = slice(start, min(start + ROWS_AT_ONCE, last - first))
        rows = np.arange(first + part.start, first + part.stop)
        _, neighbors[part], values[part] = rerank(partition, rows, ids[part], k)
    rows = np.array(partition.array(block, "rows"))
    table = graph_table(rows, ids_of_rows(context.inputs["vectors"], rows), neighbors, values)
    return Record(task.key, {"graph": context.write_table("graph", table)}, {"filled": short})


def rerank(
    partition: Partition, rows: Array, candidates: Int32, k: int
) -> tuple[Int32, Ids, Float32]:
    """Each row's k best candidates by (value, dataset row), recomputed by the fixed kernel.

    rows: [m] positions. candidates: [m, w] positions, -1 for none; k or more of each row's exist.
    Returns positions [m, k] int32, dataset rows [m, k] int64, values [m, k] float32.
    """
    from simdist.compiled.graph import sort_lists  # noqa: PLC0415 - numba only on workers

    measure = partition.measure
    width = candidates.shape[1]
    listed = np.flatnonzero(candidates >= 0)
    others = candidates.ravel()[listed]
    at = listed // width
    sign = np.float32(distance_sign(measure))
    distance = np.full(candidates.shape, np.inf, np.float32)
    numbers = np.full(candidates.shape, np.iinfo(np.int64).max)
    theirs = partition.numbers.take(others, between=keep_within)
    if partition.in_place:
        mine = partition.numbers.take(rows)
        distance.put(listed, sign * partition.rows_in_place.pairs(mine[at], theirs))
    else:
        own = partition.take(rows)
        for chosen, found, which in partition.visits(others):
            values = measure.pairs_at(own, at[chosen], found, which)
            distance.put(listed[chosen], sign * values)
    numbers.put(listed, theirs)
    positions = np.array(candidates)
    sort_lists(distance, numbers, positions)
    return positions[:, :k], numbers[:, :k], sign * distance[:, :k]


def distance_sign(measure: Measure) -> int:
    """The sign that makes smaller mean nearer."""
    return -1 if measure.traits.kind == "similarity" else 1
