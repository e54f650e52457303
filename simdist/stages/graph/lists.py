"""Candidate lists of a block: merged from leaves, linked, joined with their neighbours' lists.

A block's lists are three arrays, `ids` [m, keep] int32 positions, `keys` [m, keep] float32 and
`fresh` [m, keep] uint8 (new since the last join), sorted as simdist.compiled.graph says; and its
forward links as edges (target, source), bucketed by the target's block, so that the block of the
target finds who lists its rows without looking at everyone. A round reads the old lists and writes
new ones: the answer does not depend on who was first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.partitions import Partition
from simdist.runner.plan import Record, Round, Task
from simdist.types import Array, Float32, Ids, Int32, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.stages.graph.config import Knobs

__all__ = [
    "block_round",
    "compute_join",
    "compute_links",
    "compute_merge",
    "join_nbytes",
    "write_lists",
]

ROWS_AT_ONCE = 1024  # of a join: their candidates and scores stay in the cache


def block_round(
    name: str, kind: str, partition: Partition, nbytes: int, args: dict[str, Json]
) -> Round:
    """A round of one task per block."""
    return Round(
        name,
        tuple(
            Task(f"{name}-{block:06d}", kind, {"block": block, **args}, nbytes)
            for block in range(partition.blocks)
        ),
    )


def join_nbytes(partition: Partition, params: Knobs) -> int:
    """What a merge, links or join task holds at most: lists twice, edges, one chunk's candidates.

    Vectors and other blocks' links are mapped, not held.
    """
    rows = min(partition.block_rows, partition.rows)
    candidates = ROWS_AT_ONCE * 2048 * 12
    gathered = 0 if partition.measure.traits.gemm else ROWS_AT_ONCE * 2048 * 4 * partition.dim // 8
    return rows * (2 * 9 * params.keep + 40 * params.links) + candidates + gathered


def compute_merge(context: Context, task: Task) -> Record:
    """Entries of all leaf tasks into the lists of one block.

    args: block; leaves: the round of leaf tasks; lists: the round whose lists to go on from.
    """
    from simdist.compiled.graph import insert_entries, mark_fresh  # noqa: PLC0415

    partition = Partition.of(context.inputs["partition"])
    params = context.config.resolved
    block = task.args["block"]
    first, last = partition.span(block)
    if task.args["lists"] is None:
        ids = np.full((last - first, params.keep), -1, np.int32)
        keys = np.full((last - first, params.keep), -np.inf, np.float32)
        before_fresh = np.ones(ids.shape, np.uint8)
    else:
        ids, keys, before_fresh = read_lists(context, task.args["lists"], block)
    before = ids.copy()
    for record in context.records(task.args["leaves"]):
        context.check()
        starts = context.load(record.objects["starts"])
        low, high = int(starts[block]), int(starts[block + 1])
        if low == high:
            continue
        rows, entry_ids, entry_keys = (
            np.array(context.load(record.objects[role])[low:high])
            for role in ("rows", "ids", "keys")
        )
        insert_entries(rows - np.int32(first), entry_ids, entry_keys, ids, keys)
    fresh = np.empty(ids.shape, np.uint8)
    mark_fresh(before, before_fresh, 0, ids, fresh)
    objects = write_lists(context, partition, first, ids, keys, fresh)
    return Record(task.key, objects, {"fresh": _fresh_share(fresh, context.config.k)})


def compute_links(context: Context, task: Task) -> Record:
    """Both directions of every row's links, from its own list and the edges others left for it.

    args: block; lists: the round whose lists to link; links: how many each way.
    """
    from simdist.compiled.graph import link  # noqa: PLC0415

    partition = Partition.of(context.inputs["partition"])
    width = task.args["links"]
    block = task.args["block"]
    first, last = partition.span(block)
    ids, _, fresh = read_lists(context, task.args["lists"], block)
    sources, starts, source_fresh = _edges(
        context, task.args["lists"], block, first, last - first, width
    )
    links = np.empty((last - first, 2 * width), np.int32)
    link(ids, fresh, sources, starts, source_fresh, width, links)
    return Record(task.key, {"links": context.write_array("links", links)})


def compute_join(context: Context, task: Task) -> Record:
    """One round of neighbours-of-neighbours for one block.

    args: block; lists: the round whose lists to go on from; links: the round of their links;
    width: of the links, both ways.
    """
    from simdist.compiled.blocks import Blocks  # noqa: PLC0415
    from simdist.compiled.graph import CANDIDATES, insert_found, mark_fresh, walk  # noqa: PLC0415

    partition = Partition.of(context.inputs["partition"])
    args = task.args
    first, last = partition.span(args["block"])
    ids, keys, before_fresh = read_lists(context, args["lists"], args["block"])
    links = Blocks.of(
        [context.load(r.objects["links"]) for r in context.records(args["links"])],
        partition.block_rows,
    )
    before = ids.copy()
    found = np.empty(ROWS_AT_ONCE * CANDIDATES, np.int32)
    scored = 0
    for start in range(first, last, ROWS_AT_ONCE):
        context.check()
        stop = min(start + ROWS_AT_ONCE, last)
        here = slice(start - first, stop - first)
        indptr = np.empty(stop - start + 1, np.int64)
        walk(start, stop, ids[here], links.addresses, 2 * args["width"], links.shift, indptr, found)
        found_keys = nearness_of_found(partition, start, indptr, found)
        insert_found(indptr, found, found_keys, ids[here], keys[here])
        scored += int(indptr[-1])
    fresh = np.empty(ids.shape, np.uint8)
    mark_fresh(before, before_fresh, args["width"], ids, fresh)
    objects = write_lists(context, partition, first, ids, keys, fresh)
    facts = {"scored": scored, "fresh": _fresh_share(fresh, context.config.k)}
    return Record(task.key, objects, facts)


def nearness_of_found(partition: Partition, first: int, indptr: Ids, found: Int32) -> Float32:
    """Nearness of each candidate to its row: compiled where the measure has a GEMM form, else the
    measure's own listed pairs, larger is nearer either way."""
    from simdist.compiled.graph import score  # noqa: PLC0415

    measure = partition.measure
    if measure.traits.gemm:
        keys = np.empty(int(indptr[-1]), np.float32)
        vectors = partition.vectors
        terms = np.empty(0, np.int64) if partition.terms is None else partition.terms.addresses
        score(first, indptr, found, vectors.addresses, partition.dim, terms, vectors.shift, keys)
        return keys
    distinct, columns = np.unique(found[: indptr[-1]], return_inverse=True)
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    own = partition.take(np.arange(first, first + len(indptr) - 1))
    values = measure.pairs_at(own, rows, partition.take(distinct), columns)
    keys = values if measure.traits.kind == "similarity" else -values
    return np.require(keys, np.float32, "C")  # a measure of one's own may return float64


def read_lists(context: Context, round_name: str, block: int) -> tuple[Int32, Float32, Array]:
    """Writable copies of a block's ids, keys and fresh flags as a round left them."""
    objects = context.records(round_name)[block].objects
    ids, keys, fresh = (np.array(context.load(objects[r])) for r in ("ids", "keys", "fresh"))
    return ids, keys, fresh


def write_lists(
    context: Context, partition: Partition, first: int, ids: Int32, keys: Float32, fresh: Array
) -> dict[str, ObjectRef]:
    """Leave a block's lists, and its forward links as edges bucketed by the target's block."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415

    rows = np.arange(first, first + len(ids), dtype=np.int32)
    # Slot by slot, so that a stable sort by target keeps a row's nearest links first.
    targets = ids.T.ravel()
    order = np.empty(len(targets), np.int64)
    starts = np.empty(partition.blocks + 1, np.int64)
    blocks = np.where(targets < 0, -1, targets // partition.block_rows)
    bucket_order(blocks, partition.blocks, order, starts)
    order = order[: starts[-1]]
    slots = np.minimum(order // len(ids), 255)  # beyond that, which is nearer matters no more
    return {
        "ids": context.write_array("list-ids", ids),
        "keys": context.write_array("list-keys", keys),
        "fresh": context.write_array("list-fresh", fresh),
        "targets": context.write_array("edge-targets", targets[order]),
        "sources": context.write_array("edge-sources", np.tile(rows, ids.shape[1])[order]),
        "slots": context.write_array("edge-slots", slots.astype(np.uint8)),
        "edge_fresh": context.write_array("edge-fresh", fresh.T.ravel()[order]),
        "starts": context.write_array("starts", starts),
    }


def _edges(
    context: Context, round_name: str, block: int, first: int, rows: int, width: int
) -> tuple[Int32, Ids, Array]:
    """Who lists the rows of a block among their best `width`: sources, starts, fresh flags."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415

    parts: list[tuple[Array, ...]] = []
    for record in context.records(round_name):
        starts = context.load(record.objects["starts"])
        part = slice(int(starts[block]), int(starts[block + 1]))
        slots = context.load(record.objects["slots"])[part]
        near = slots < width
        parts.append(
            (
                context.load(record.objects["targets"])[part][near],
                context.load(record.objects["sources"])[part][near],
                slots[near],
                context.load(record.objects["edge_fresh"])[part][near],
            )
        )
    targets, sources, slots, fresh = (np.concatenate(c) for c in zip(*parts, strict=True))
    by_slot = np.empty(len(slots), np.int64)
    bucket_order(slots, width, by_slot, np.empty(width + 1, np.int64))
    by_target = np.empty(len(slots), np.int64)
    row_starts = np.empty(rows + 1, np.int64)
    bucket_order(targets[by_slot] - first, rows, by_target, row_starts)
    order = by_slot[by_target]
    return sources[order], row_starts, fresh[order]


def _fresh_share(fresh: Array, k: int) -> float:
    """Share of the first k entries that are new: what the last round still changed."""
    return round(float(fresh[:, :k].mean()), 6)
