"""Candidate lists of a block at rest, and its links.

A block's `lists` [m, keep] int64 are sorted and packed as simdist.compiled.lists says. Beside them
lie its forward links as edges (target, source), bucketed by the target's block, so that the block
of the target finds who lists its rows without looking at everyone. A round reads the old lists and
writes new ones: the answer does not depend on who was first.

    leaves, joins ── propose (row, candidates), bucketed by the row's block ──> merge ──> lists
    lists, edges ── links ──> each row's nearest, and who lists it

Where rows are in place, all this lies in memory, and edges are made in a round of their own when
links are wanted: nobody holds them while joins and the last steps work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.partitions import Blocked, Partition
from simdist.runner.plan import Record, Round, Task
from simdist.types import Array, Ids, Int32, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.stages.graph.config import Knobs

__all__ = [
    "block_round",
    "bucketed",
    "compute_edges",
    "compute_links",
    "links_nbytes",
    "new_share",
    "read_lists",
    "write_lists",
]

EDGES = ("targets", "sources", "slots")  # of an edge: see simdist.compiled.lists.take_edges
EDGE_NBYTES = 14  # of an edge while the nearest are chosen, and chosen


def block_round(
    name: str,
    kind: str,
    partition: Partition,
    nbytes: int,
    args: dict[str, Json],
    *,
    consumes: tuple[str, ...] = (),
) -> Round:
    """A round of one task per block."""
    return Round(
        name,
        tuple(
            Task(f"{name}-{block:06d}", kind, {"block": block, **args}, nbytes)
            for block in range(partition.blocks)
        ),
        consumes,
    )


def links_nbytes(partition: Blocked, params: Knobs, width: int) -> int:
    """What a links task holds at most: lists, edges while the nearest are chosen, the links."""
    rows = min(partition.block_rows, partition.rows)
    return rows * (10 * params.keep + 16 * width + 2 * width * EDGE_NBYTES) + (1 << 20)


def compute_links(context: Context, task: Task) -> Record:
    """Both directions of every row's links, from its own list and the edges others left for it.

    args: block; lists: the round whose lists to link; edges: the round that left their edges;
    links: how many each way.
    """
    from simdist.compiled.lists import link  # noqa: PLC0415

    partition = Partition.of(context.inputs["partition"])
    width = task.args["links"]
    block = task.args["block"]
    first, last = partition.span(block)
    lists = read_lists(context, task.args["lists"], block)
    sources, starts = _edges(context, task.args["edges"], block, range(first, last), width)
    links = np.empty((last - first, 2 * width), np.int32)
    link(lists, sources, starts, width, links)
    return Record(task.key, {"links": context.write_array("links", links)})


def read_lists(context: Context, round_name: str, block: int) -> Ids:
    """A writable copy of a block's lists as a round left them, [m, keep]."""
    return np.array(context.load(context.records(round_name)[block].objects["lists"]))


def write_lists(
    context: Context, partition: Partition, first: int, lists: Ids, width: int
) -> dict[str, ObjectRef]:
    """Leave a block's lists, and their first `width` places as edges, none where that is 0. first:
    position of the block's first row."""
    objects = {"lists": context.write_array("lists", lists)}
    return objects | (_write_edges(context, partition, first, lists, width) if width else {})


def compute_edges(context: Context, task: Task) -> Record:
    """The edges of one block's lists. args: block; lists: the round that left them; links: how many
    places of each."""
    partition = Partition.of(context.inputs["partition"])
    block, width = task.args["block"], task.args["links"]
    first, _ = partition.span(block)
    lists = read_lists(context, task.args["lists"], block)
    return Record(task.key, _write_edges(context, partition, first, lists, width))


def _write_edges(
    context: Context, partition: Partition, first: int, lists: Ids, width: int
) -> dict[str, ObjectRef]:
    """The first `width` places of a block's lists as edges, bucketed by the target's block."""
    from simdist.compiled.lists import count_edges, take_edges  # noqa: PLC0415

    width = min(width, lists.shape[1])
    shift = partition.block_rows.bit_length() - 1  # a power of two
    starts = np.empty(partition.blocks + 1, np.int64)
    count_edges(lists, width, shift, starts)
    count = int(starts[-1])
    targets, sources = np.empty(count, np.int32), np.empty(count, np.int32)
    slots = np.empty(count, np.uint8)
    take_edges(lists, first, width, shift, starts, targets, sources, slots)
    return {
        "targets": context.write_array("edge-targets", targets),
        "sources": context.write_array("edge-sources", sources),
        "slots": context.write_array("edge-slots", slots),
        "starts": context.write_array("starts", starts),
    }


def bucketed(blocks: Array, partition: Partition) -> tuple[Ids, Ids]:
    """(order, starts): entries by block, stable; those of block -1 are left out."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415

    order = np.empty(len(blocks), np.int64)
    starts = np.empty(partition.blocks + 1, np.int64)
    bucket_order(blocks, partition.blocks, order, starts)
    return order[: starts[-1]], starts


def new_share(lists: Ids, k: int) -> float:
    """Share of the first k candidates that are new: what the last round still changed."""
    return round(float((lists[:, :k] & 1).mean()), 6)


def _edges(
    context: Context, round_name: str, block: int, span: range, width: int
) -> tuple[Int32, Ids]:
    """Who lists the rows of a block among their best `width`: sources, starts. Of each row's the
    nearest 2 `width`, which is as far as `link` looks."""
    from simdist.compiled.edges import NearestEdges  # noqa: PLC0415

    nearest = NearestEdges(span, 2 * width)
    for record in context.records(round_name):
        context.check()
        starts = context.load(record.objects["starts"])
        part = slice(int(starts[block]), int(starts[block + 1]))
        targets, sources, slots = (context.load(record.objects[role])[part] for role in EDGES)
        nearest.add(targets, sources, slots, width)
    return nearest.all()
