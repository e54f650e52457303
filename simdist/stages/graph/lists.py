"""Candidate lists of a block at rest, and its links.

A block's `lists` [m, keep] int64 are sorted and packed as simdist.compiled.lists says. Beside them
lie its forward links as edges (target, source), bucketed by the target's block, so that the block
of the target finds who lists its rows without looking at everyone. A round reads the old lists and
writes new ones: the answer does not depend on who was first.

    leaves, joins ── propose (row, candidates), bucketed by the row's block ──> merge ──> lists
    lists, edges ── links ──> each row's nearest, and who lists it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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
    "compute_links",
    "links_nbytes",
    "new_share",
    "read_lists",
    "write_lists",
]

EDGE_NBYTES = 60  # an edge while edges are sorted by target and slot


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
    return rows * (10 * params.keep + 16 * width + 3 * width * EDGE_NBYTES) + (1 << 20)


def compute_links(context: Context, task: Task) -> Record:
    """Both directions of every row's links, from its own list and the edges others left for it.

    args: block; lists: the round whose lists to link; links: how many each way.
    """
    from simdist.compiled.lists import link  # noqa: PLC0415

    partition = Partition.of(context.inputs["partition"])
    width = task.args["links"]
    block = task.args["block"]
    first, last = partition.span(block)
    lists = read_lists(context, task.args["lists"], block)
    sources, starts = _edges(context, task.args["lists"], block, range(first, last), width)
    links = np.empty((last - first, 2 * width), np.int32)
    link(lists, sources, starts, width, links)
    return Record(task.key, {"links": context.write_array("links", links)})


def read_lists(context: Context, round_name: str, block: int) -> Ids:
    """A writable copy of a block's lists as a round left them, [m, keep]."""
    return np.array(context.load(context.records(round_name)[block].objects["lists"]))


def write_lists(
    context: Context, partition: Partition, first: int, lists: Ids, width: int
) -> dict[str, ObjectRef]:
    """Leave a block's lists, and their first `width` places as edges bucketed by the target's
    block. first: position of the block's first row."""
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
        "lists": context.write_array("lists", lists),
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


class _Edges(NamedTuple):
    """Who lists whom: targets [e] int32 positions, sources [e] int32 positions + 1, negative where
    the target is new there, and the slot of the source's list that holds it [e] uint8."""

    targets: Int32
    sources: Int32
    slots: Array


def _edges(
    context: Context, round_name: str, block: int, span: range, width: int
) -> tuple[Int32, Ids]:
    """Who lists the rows of a block among their best `width`: sources, starts.

    Everyone may list the same few rows: of each row's, only the nearest 2 `width` are held, which
    is as far as `link` looks.
    """
    parts: list[_Edges] = []
    held = 0
    for record in context.records(round_name):
        context.check()
        starts = context.load(record.objects["starts"])
        part = slice(int(starts[block]), int(starts[block + 1]))
        slots = context.load(record.objects["slots"])[part]
        near = np.flatnonzero(slots < width)
        parts.append(
            _Edges(*(context.load(record.objects[role])[part][near] for role in _Edges._fields))
        )
        held += len(near)
        if held > 2 * width * len(span):
            parts = [_nearest_edges(parts, span, width)[0]]
            held = len(parts[0].targets)
    edges, row_starts = _nearest_edges(parts, span, width)
    return edges.sources, row_starts


def _nearest_edges(parts: list[_Edges], span: range, width: int) -> tuple[_Edges, Ids]:
    """Edges by target, nearest slot first, then in the order given; at most 2 `width` of each."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415

    edges = _Edges(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    by_slot = np.empty(len(edges.slots), np.int64)
    bucket_order(edges.slots, width, by_slot, np.empty(width + 1, np.int64))
    by_target = np.empty(len(edges.slots), np.int64)
    starts = np.empty(len(span) + 1, np.int64)
    bucket_order(edges.targets[by_slot] - np.int32(span.start), len(span), by_target, starts)
    order = by_slot[by_target]
    counts = np.diff(starts)
    if counts.max(initial=0) > 2 * width:
        place = np.arange(len(order)) - np.repeat(starts[:-1], counts)
        order = order[place < 2 * width]
        starts = np.concatenate([[0], np.cumsum(np.minimum(counts, 2 * width))])
    return _Edges(*(column[order] for column in edges)), starts
