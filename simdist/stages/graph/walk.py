"""Walks: neighbours of neighbours scored pair by pair, for measures that have no codes.

What `joins` does with tiles of codes, with the measure's own values: of every row, whoever can be
reached over two links and is not in its list yet. Rows of other blocks are visited block by block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.measures.base import Measure
from simdist.partitions import LOOKED_UP_NBYTES, Blocked, Partition
from simdist.runner.plan import Record, Task
from simdist.stages.graph.lists import new_share, read_lists, write_lists
from simdist.types import Float32, Ids, Int32

if TYPE_CHECKING:
    from simdist.compiled.blocks import Blocks
    from simdist.measures import Prepared
    from simdist.runner.context import Context
    from simdist.stages.graph.config import Knobs

__all__ = ["compute_walk", "gathered_nbytes", "rescored", "scored_nbytes", "walk_nbytes"]

PAIRS_AT_ONCE = 1 << 20  # found before any of them is scored: blocks are visited that often
LINKS_NBYTES = 4 << 20  # of links, gathered for as many rows as that allows
PAIR_NBYTES = 36  # row, candidate, its place, key, and the order in which blocks are visited
ENOUGH = 64  # rows that must fit before some more are walked
VALUES_AT_ONCE = 1 << 16  # of a measure without a GEMM form
GATHER_NBYTES = 64 << 20  # 16 MiB of both sides, and the same in float64
LISTED_NBYTES = 8 << 20  # pairs as compiled kernels take them
MOST_CANDIDATES = 2048  # of one row in one walk: CANDIDATES of simdist.compiled.graph


def walk_nbytes(partition: Blocked, params: Knobs, width: int) -> int:
    """What a walk task holds at most: lists as read, walked and written, links of some rows'
    neighbours, and candidates while they are scored. Other blocks are mapped one by one."""
    rows = min(partition.block_rows, partition.rows)
    links = 3 * max(LINKS_NBYTES, 16 * width**2)
    scored = scored_nbytes(partition, rows * min(MOST_CANDIDATES, 4 * width**2))
    return rows * (60 * params.keep + 8 * width) + links + scored + (1 << 20)


def scored_nbytes(partition: Blocked, pairs: int) -> int:
    """What `nearness_of_found` holds at most: two mapped blocks, or one and rows that were looked
    up, and so many pairs."""
    rows = min(partition.block_rows, partition.rows)
    gathered = 2 * LOOKED_UP_NBYTES
    if not partition.measure.traits.gemm:
        gathered = gathered_nbytes(partition.measure)
    held = PAIR_NBYTES * min(PAIRS_AT_ONCE, pairs) + 4 * MOST_CANDIDATES
    return 8 * rows * (partition.dim + 1) + held + gathered


def gathered_nbytes(measure: Measure) -> int:
    """What values of listed pairs hold at most beside the pairs: a measure that only knows how to
    compare row by row is given copies of both sides."""
    inner = getattr(measure, "measure", None)
    if isinstance(inner, Measure):  # scaled, squashed: what it makes of another measure's values
        return gathered_nbytes(inner)
    return LISTED_NBYTES if type(measure).pairs_at is not Measure.pairs_at else GATHER_NBYTES


def compute_walk(context: Context, task: Task) -> Record:
    """One round of neighbours of neighbours for one block; its new lists.

    args: block; lists: the round whose lists to go on from; links: the round of their links;
    width: of the links, each way.
    """
    from simdist.compiled.blocks import Blocks  # noqa: PLC0415
    from simdist.compiled.lists import enter_found, ids_of, joined  # noqa: PLC0415

    partition = Partition.of(context.inputs["partition"])
    args = task.args
    first, last = partition.span(args["block"])
    lists = read_lists(context, args["lists"], args["block"])
    links = Blocks.of(
        [context.load(r.objects["links"]) for r in context.records(args["links"])],
        partition.block_rows,
    )
    ids = ids_of(lists)
    joined(lists, args["width"])
    found = np.empty(PAIRS_AT_ONCE, np.int32)
    scored, start = 0, first
    while start < last:
        indptr = _walked(context, links, start, ids[start - first :], found)
        here = slice(start - first, start - first + len(indptr) - 1)
        enter_found(
            indptr, found, nearness_of_found(context, partition, start, indptr, found), lists[here]
        )
        scored += int(indptr[-1])
        start += len(indptr) - 1
    objects = write_lists(context, partition, first, lists, args["width"])
    facts = {"scored": scored, "fresh": new_share(lists, context.config.k)}
    return Record(task.key, objects, facts)


def rescored(
    context: Context, partition: Partition, first: int, found: Ids, known: Ids | None
) -> Ids:
    """Lists of the same candidates with the keys that walks give them, entered into what is known.

    A leaf's tile rounds otherwise than the walks' kernel. Were both kinds of keys in one list,
    whichever is rounded up would win every tie, and copies of one row could not agree on which of
    them have the smallest numbers.
    """
    from simdist.compiled.lists import empty_lists, enter_found, ids_of  # noqa: PLC0415

    lists = empty_lists(*found.shape) if known is None else known
    ids = ids_of(found)
    step = max(1, PAIRS_AT_ONCE // ids.shape[1])
    for start in range(0, len(ids), step):
        here = slice(start, start + step)
        valid = ids[here] >= 0
        indptr = np.concatenate([[0], np.cumsum(valid.sum(axis=1))])
        listed = ids[here][valid]
        keys = nearness_of_found(context, partition, first + start, indptr, listed)
        enter_found(indptr, listed, keys, lists[here])
    return lists


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
    own = partition.block(first // partition.block_rows)
    keys = np.empty(len(found), np.float32)
    local = np.empty(len(found), np.int32)
    for chosen, others, which in partition.visits(found):
        context.check()
        if measure.traits.gemm:
            local[chosen] = which
            score(chosen, rows, local, *_places(own), *_places(others), partition.dim, keys)
            continue
        for cut in range(0, len(chosen), VALUES_AT_ONCE):
            part = slice(cut, cut + VALUES_AT_ONCE)
            at = chosen[part]
            values = measure.pairs_at(own, rows[at], others, which[part])
            keys[at] = values if measure.traits.kind == "similarity" else -values
    return keys


def _places(rows: Prepared) -> tuple[int, int]:
    """Addresses of the first vector and of the first term; no terms are at 0."""
    return rows.vectors.ctypes.data, 0 if rows.terms is None else rows.terms.ctypes.data
