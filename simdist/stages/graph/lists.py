"""Candidate lists of a block: merged from leaves, linked, joined with their neighbours' lists.

A block's lists are three arrays, `ids` [m, keep] int32 positions, `keys` [m, keep] float32 and
`fresh` [m, keep] uint8 (new since the last join), sorted as simdist.compiled.graph says; and its
forward links as edges (target, source), bucketed by the target's block, so that the block of the
target finds who lists its rows without looking at everyone. A round reads the old lists and writes
new ones: the answer does not depend on who was first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simdist.partitions import Partition
from simdist.runner.plan import Record, Round, Task
from simdist.types import Array, Float32, Ids, Int32, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.stages.graph.config import Knobs

__all__ = [
    "Lists",
    "block_round",
    "compute_join",
    "compute_links",
    "compute_merge",
    "join_nbytes",
    "links_nbytes",
    "merge_nbytes",
    "write_lists",
]

ROWS_AT_ONCE = 1024  # of a join: their candidates and scores stay in the cache
MOST_CANDIDATES = 2048  # of one row in one join: CANDIDATES of simdist.compiled.graph
EDGE_NBYTES = 64  # an edge while edges are sorted by target and slot


class Lists(NamedTuple):
    """ids: [m, keep] int32 positions; keys: [m, keep] float32; fresh: [m, keep] uint8."""

    ids: Int32
    keys: Float32
    fresh: Array


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


def merge_nbytes(partition: Partition, params: Knobs, ranks: int) -> int:
    """What a merge task holds at most: lists as read, made and written, the entries of one leaf
    task, and one chunk of lists rescored. ranks: how many cells each row joined."""
    rows = min(partition.block_rows, partition.rows)
    entries = 2 * ranks * (12 * params.leaf_neighbors + 8)  # a row lies in two leaves of a cell
    pairs = ROWS_AT_ONCE * params.keep
    return rows * (60 * params.keep + entries) + _scored_nbytes(partition, pairs) + (1 << 20)


def links_nbytes(partition: Partition, params: Knobs, width: int) -> int:
    """What a links task holds at most: lists, edges while the nearest are chosen, the links."""
    rows = min(partition.block_rows, partition.rows)
    return rows * (10 * params.keep + 16 * width + 3 * width * EDGE_NBYTES) + (1 << 20)


def join_nbytes(partition: Partition, params: Knobs, width: int) -> int:
    """What a join task holds at most: lists as read, joined and written, and one chunk's
    candidates. Vectors and other blocks' links are mapped, not held."""
    rows = min(partition.block_rows, partition.rows)
    pairs = ROWS_AT_ONCE * min(MOST_CANDIDATES, (2 * width) ** 2)
    found = 4 * ROWS_AT_ONCE * MOST_CANDIDATES
    return rows * 60 * params.keep + found + _scored_nbytes(partition, pairs) + (1 << 20)


def _scored_nbytes(partition: Partition, pairs: int) -> int:
    """What `nearness_of_found` holds at most for so many pairs."""
    if partition.measure.traits.gemm:
        return 8 * pairs
    gathered = min(pairs, partition.rows) + ROWS_AT_ONCE
    return 64 * pairs + 4 * (partition.dim + 1) * gathered


def compute_merge(context: Context, task: Task) -> Record:
    """Entries of all leaf tasks into the lists of one block.

    args: block; leaves: the round of leaf tasks; lists: the round whose lists to go on from.
    """
    from simdist.compiled.graph import insert_entries, mark_fresh  # noqa: PLC0415

    partition = Partition.of(context.inputs["partition"])
    block = task.args["block"]
    first, last = partition.span(block)
    ids, keys = _empty_lists(last - first, context.config.resolved.keep)
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
    found_ids, found_keys = _rescored(context, partition, first, ids)
    if task.args["lists"] is None:
        ids, keys = found_ids, found_keys
        fresh = (ids >= 0).astype(np.uint8)
    else:
        ids, keys, before_fresh = read_lists(context, task.args["lists"], block)
        before = ids.copy()
        insert_entries(np.arange(len(ids), dtype=np.int32), found_ids, found_keys, ids, keys)
        fresh = np.empty(ids.shape, np.uint8)
        mark_fresh(before, before_fresh, 0, ids, fresh)
    objects = write_lists(context, partition, first, Lists(ids, keys, fresh))
    return Record(task.key, objects, {"fresh": _fresh_share(fresh, context.config.k)})


def _empty_lists(rows: int, keep: int) -> tuple[Int32, Float32]:
    return np.full((rows, keep), -1, np.int32), np.full((rows, keep), -np.inf, np.float32)


def _rescored(
    context: Context, partition: Partition, first: int, found: Int32
) -> tuple[Int32, Float32]:
    """Lists of the same ids, with the keys that joins give them.

    A leaf's GEMM rounds otherwise than the joins' kernel. Were both kinds of keys in one list,
    whichever is rounded up would win every tie, and copies of one row could not agree on which of
    them have the smallest numbers.
    """
    from simdist.compiled.graph import insert_found  # noqa: PLC0415

    ids, keys = _empty_lists(*found.shape)
    for start in range(0, len(found), ROWS_AT_ONCE):
        context.check()
        here = slice(start, start + ROWS_AT_ONCE)
        valid = found[here] >= 0
        indptr = np.concatenate([[0], np.cumsum(valid.sum(axis=1))])
        listed = found[here][valid]
        scores = nearness_of_found(partition, first + start, indptr, listed)
        insert_found(indptr, listed, scores, ids[here], keys[here])
    return ids, keys


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
        context, task.args["lists"], block, range(first, last), width
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
    objects = write_lists(context, partition, first, Lists(ids, keys, fresh))
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


def read_lists(context: Context, round_name: str, block: int) -> Lists:
    """Writable copies of a block's lists as a round left them."""
    objects = context.records(round_name)[block].objects
    return Lists(*(np.array(context.load(objects[role])) for role in Lists._fields))


def write_lists(
    context: Context, partition: Partition, first: int, lists: Lists
) -> dict[str, ObjectRef]:
    """Leave a block's lists, and its forward links as edges bucketed by the target's block."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415

    ids, keys, fresh = lists
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


class _Edges(NamedTuple):
    """Who lists whom: targets [e] and sources [e] int32 positions, the slot of the source's list
    that holds the target [e] uint8, and whether it is new there [e] uint8."""

    targets: Int32
    sources: Int32
    slots: Array
    fresh: Array


def _edges(
    context: Context, round_name: str, block: int, span: range, width: int
) -> tuple[Int32, Ids, Array]:
    """Who lists the rows of a block among their best `width`: sources, starts, fresh flags.

    Everyone may list the same few rows: of each row's, only the nearest 2 `width` are held, which
    is as far as `link` looks.
    """
    parts: list[_Edges] = []
    held = 0
    for record in context.records(round_name):
        context.check()
        starts = context.load(record.objects["starts"])
        part = slice(int(starts[block]), int(starts[block + 1]))
        near = np.flatnonzero(context.load(record.objects["slots"])[part] < width)
        roles = ("targets", "sources", "slots", "edge_fresh")
        parts.append(_Edges(*(context.load(record.objects[r])[part][near] for r in roles)))
        held += len(near)
        if held > 2 * width * len(span):
            parts = [_nearest_edges(parts, span, width)[0]]
            held = len(parts[0].targets)
    edges, row_starts = _nearest_edges(parts, span, width)
    return edges.sources, row_starts, edges.fresh


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


def _fresh_share(fresh: Array, k: int) -> float:
    """Share of the first k entries that are new: what the last round still changed."""
    return round(float(fresh[:, :k].mean()), 6)
