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

from simdist.measures.base import Measure
from simdist.partitions import Blocked, Partition
from simdist.runner.plan import Record, Round, Task
from simdist.types import Array, Float32, Ids, Int32, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.compiled.blocks import Blocks
    from simdist.measures import Prepared
    from simdist.runner.context import Context
    from simdist.stages.graph.config import Knobs

__all__ = [
    "Lists",
    "block_round",
    "compute_join",
    "compute_links",
    "compute_merge",
    "gathered_nbytes",
    "join_nbytes",
    "links_nbytes",
    "merge_nbytes",
    "write_lists",
]

PAIRS_AT_ONCE = 1 << 20  # found before any of them is scored: blocks are visited that often
LINKS_NBYTES = 4 << 20  # of links, gathered for as many rows as that allows
PAIR_NBYTES = 32  # row, candidate, key, and the order in which blocks are visited
ENOUGH = 64  # rows that must fit before some more are walked
VALUES_AT_ONCE = 1 << 16  # of a measure without a GEMM form
GATHER_NBYTES = 64 << 20  # 16 MiB of both sides, and the same in float64
LISTED_NBYTES = 8 << 20  # pairs as compiled kernels take them
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


def merge_nbytes(partition: Blocked, params: Knobs, ranks: int) -> int:
    """What a merge task holds at most: lists as read, made and written, the entries of one leaf
    task, and its lists rescored. ranks: how many cells each row joined."""
    rows = min(partition.block_rows, partition.rows)
    entries = 2 * ranks * (12 * params.leaf_neighbors + 8)  # a row lies in two leaves of a cell
    scored = _scored_nbytes(partition, rows * params.keep)
    return rows * (60 * params.keep + entries) + scored + (1 << 20)


def links_nbytes(partition: Blocked, params: Knobs, width: int) -> int:
    """What a links task holds at most: lists, edges while the nearest are chosen, the links."""
    rows = min(partition.block_rows, partition.rows)
    return rows * (10 * params.keep + 16 * width + 3 * width * EDGE_NBYTES) + (1 << 20)


def join_nbytes(partition: Blocked, params: Knobs, width: int) -> int:
    """What a join task holds at most: lists as read, joined and written, links of some rows'
    neighbours, and candidates while they are scored. Other blocks are mapped one by one."""
    rows = min(partition.block_rows, partition.rows)
    links = 3 * max(LINKS_NBYTES, 16 * width**2)
    scored = _scored_nbytes(partition, rows * min(MOST_CANDIDATES, 4 * width**2))
    return rows * (60 * params.keep + 8 * width) + links + scored + (1 << 20)


def _scored_nbytes(partition: Blocked, pairs: int) -> int:
    """What `nearness_of_found` holds at most: two mapped blocks, and so many pairs."""
    rows = min(partition.block_rows, partition.rows)
    gathered = 0 if partition.measure.traits.gemm else gathered_nbytes(partition.measure)
    held = PAIR_NBYTES * min(PAIRS_AT_ONCE, pairs) + 4 * MOST_CANDIDATES
    return 8 * rows * (partition.dim + 1) + held + gathered


def gathered_nbytes(measure: Measure) -> int:
    """What values of listed pairs hold at most beside the pairs: a measure that only knows how to
    compare row by row is given copies of both sides."""
    inner = getattr(measure, "measure", None)
    if isinstance(inner, Measure):  # scaled, squashed: what it makes of another measure's values
        return gathered_nbytes(inner)
    return LISTED_NBYTES if type(measure).pairs_at is not Measure.pairs_at else GATHER_NBYTES


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
    step = max(1, PAIRS_AT_ONCE // found.shape[1])
    for start in range(0, len(found), step):
        here = slice(start, start + step)
        valid = found[here] >= 0
        indptr = np.concatenate([[0], np.cumsum(valid.sum(axis=1))])
        listed = found[here][valid]
        scores = nearness_of_found(context, partition, first + start, indptr, listed)
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
    from simdist.compiled.graph import insert_found, mark_fresh  # noqa: PLC0415

    partition = Partition.of(context.inputs["partition"])
    args = task.args
    first, last = partition.span(args["block"])
    ids, keys, before_fresh = read_lists(context, args["lists"], args["block"])
    links = Blocks.of(
        [context.load(r.objects["links"]) for r in context.records(args["links"])],
        partition.block_rows,
    )
    before = ids.copy()
    found = np.empty(PAIRS_AT_ONCE, np.int32)
    scored, start = 0, first
    while start < last:
        indptr = _walked(context, links, start, ids[start - first :], found)
        here = slice(start - first, start - first + len(indptr) - 1)
        found_keys = nearness_of_found(context, partition, start, indptr, found)
        insert_found(indptr, found, found_keys, ids[here], keys[here])
        scored += int(indptr[-1])
        start += len(indptr) - 1
    fresh = np.empty(ids.shape, np.uint8)
    mark_fresh(before, before_fresh, args["width"], ids, fresh)
    objects = write_lists(context, partition, first, Lists(ids, keys, fresh))
    facts = {"scored": scored, "fresh": _fresh_share(fresh, context.config.k)}
    return Record(task.key, objects, facts)


def _walked(context: Context, links: Blocks, first: int, ids: Int32, found: Int32) -> Ids:
    """Candidates of as many rows from `first` on as `found` has room for; their indptr.

    links: of all rows. ids: the lists of `first` and the rows after it.
    """
    from simdist.compiled.graph import CANDIDATES, walk  # noqa: PLC0415

    block, local = first >> links.shift, first & ((1 << links.shift) - 1)
    own = links.arrays[block][local:]
    width = own.shape[1]
    most = max(1, LINKS_NBYTES // (4 * width**2))
    indptr = np.zeros(1, np.int64)
    done = 0
    while done < len(ids):
        room = (len(found) - int(indptr[-1])) // CANDIDATES
        rows = min(most, room, len(ids) - done)
        if done and (room < ENOUGH or not rows):
            break
        mine = np.array(own[done : done + rows])
        theirs = links.take(np.maximum(np.abs(mine.ravel()) - 1, 0), between=context.check)
        part = np.empty(rows + 1, np.int64)
        here = slice(done, done + rows)
        walk(
            first + done,
            ids[here],
            mine,
            theirs.reshape(rows, width, width),
            part,
            found[indptr[-1] :],
        )
        indptr = np.concatenate([indptr, indptr[-1] + part[1:]])
        done += rows
    return indptr


def nearness_of_found(
    context: Context, partition: Partition, first: int, indptr: Ids, found: Int32
) -> Float32:
    """Nearness of each candidate to its row: compiled where the measure has a GEMM form, else the
    measure's own listed pairs, larger is nearer either way.

    first: position of the first row; all rows lie in its block. indptr, found: see `walk`.
    """
    from simdist.compiled.graph import score  # noqa: PLC0415

    measure = partition.measure
    found = found[: indptr[-1]]
    rows = np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))
    start, _ = partition.span(first // partition.block_rows)
    rows += np.int32(first - start)
    own = partition.mapped(first // partition.block_rows)
    keys = np.empty(len(found), np.float32)
    for block, chosen in partition.vectors.visits(found):
        context.check()
        others, offset = partition.mapped(block), partition.span(block)[0]
        if measure.traits.gemm:
            score(
                chosen, rows, found, *_places(own, 0), *_places(others, offset), partition.dim, keys
            )
            continue
        for cut in range(0, len(chosen), VALUES_AT_ONCE):
            part = chosen[cut : cut + VALUES_AT_ONCE]
            values = measure.pairs_at(own, rows[part], others, found[part] - offset)
            keys[part] = values if measure.traits.kind == "similarity" else -values
    return keys


def _places(rows: Prepared, first: int) -> tuple[int, int]:
    """Addresses where the vector and the term of position 0 would lie; no terms are at 0."""
    vectors = rows.vectors.ctypes.data - first * rows.vectors.strides[0]
    return vectors, 0 if rows.terms is None else rows.terms.ctypes.data - 4 * first


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
