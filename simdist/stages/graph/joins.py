"""Joins: the rows that a row links to are compared with one another, in small exact tiles of codes.

Two rows that share a neighbour are likely neighbours. A task takes the links of one block, copies
the codes and lists of every row they name (most lie near: cell order), and proposes to each of
those rows what it had not met; a merge of all proposals follows. So a join copies each row it needs
once, and does with it what a dense tile does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.partitions import Blocked, Partition
from simdist.runner.plan import Record, Task
from simdist.stages.graph.lists import bucketed
from simdist.types import Float32, Ids, Int32

if TYPE_CHECKING:
    from simdist.compiled.joins import CodesAt
    from simdist.runner.context import Context
    from simdist.stages.graph.config import Knobs

__all__ = ["compute_join", "join_nbytes"]

PROPOSED_NBYTES = 44  # a proposal as found, put together and sorted
LEAST_NAMED = 1 << 13  # however long a row is
HELD_NBYTES = 48 << 20  # of codes and lists of the rows that some links name


def join_nbytes(partition: Blocked, params: Knobs, width: int) -> int:
    """What a join task holds at most: its links, codes and lists of the rows they name, and what it
    proposes."""
    rows = min(partition.block_rows, partition.rows)
    named = _most_named(partition, params.keep, 2 * width * rows) + 2 * width + 1
    proposed = rows * 2 * width * PROPOSED_NBYTES
    held = named * (_row_nbytes(partition.dim, params.keep) + 24) + 16 * width * rows
    return held + proposed + (1 << 20)


def _row_nbytes(dim: int, keep: int) -> int:
    return -(-dim // 64) * 64 + 16 + 8 * keep


def _most_named(partition: Blocked, keep: int, links: int) -> int:
    """Rows whose codes and lists are copied at once, of those that so many links name."""
    fit = HELD_NBYTES // _row_nbytes(partition.dim, keep)
    return min(max(fit, LEAST_NAMED), links, partition.rows)


def compute_join(context: Context, task: Task) -> Record:
    """Proposals of one block's links.

    args: block; lists: the round whose lists to go on from; links: the round of their links;
    width: of the links, each way.
    """
    join = _Join(context, task)
    parts, compared, start = [], 0, 0
    while start < len(join.links):
        done, found, pairs = join.from_row(start)
        parts.append(found)
        compared += pairs
        start += done
    whole = len(parts) == 1
    rows, candidates = parts[0] if whole else map(np.concatenate, zip(*parts, strict=True))
    order, starts = bucketed(rows // join.partition.block_rows, join.partition)
    return Record(
        task.key,
        {
            "rows": context.write_array("proposed-rows", rows[order]),
            "candidates": context.write_array("proposed", candidates[order][:, None]),
            "starts": context.write_array("starts", starts),
        },
        {"scored": compared},
    )


class _Join:
    """The links of one block, and what lists and codes they lead to."""

    def __init__(self, context: Context, task: Task) -> None:
        from simdist.compiled.blocks import Blocks  # noqa: PLC0415 - numba only on workers
        from simdist.compiled.codes import Room, code_nbytes  # noqa: PLC0415

        self.context = context
        self.partition = Partition.of(context.inputs["partition"])
        block, self.width = task.args["block"], task.args["width"]
        self.first, _ = self.partition.span(block)
        self.links = context.load(context.records(task.args["links"])[block].objects["links"])
        lists = [context.load(r.objects["lists"]) for r in context.records(task.args["lists"])]
        self.lists = Blocks.of(lists, self.partition.block_rows)
        self.room = Room(self.links.shape[1], code_nbytes(self.partition.dim))
        keep = context.config.resolved.keep
        self.most = _most_named(self.partition, keep, self.links.size)

    def from_row(self, start: int) -> tuple[int, tuple[Int32, Ids], int]:
        """(rows done, (rows [e], candidates [e]), pairs compared) of the links of as many rows
        from `start` on as name no more than `most`."""
        from simdist.compiled.joins import entered_in, join, name  # noqa: PLC0415

        check = self.context.check
        links = np.array(self.links[start:])
        named = name(self.first + start, links, self.most)
        links = links[: len(named.own)]
        codes, facts = self._codes(named.positions)
        lists = self.lists.take(named.positions, between=check)
        lists &= -2  # what is new from now on was found here
        compared = join(links, named, codes, facts, self.room, lists, self.width)
        return len(named.own), entered_in(named.positions, lists), compared

    def _codes(self, positions: Int32) -> tuple[CodesAt, Float32]:
        """Codes and facts of some rows: copied, or where they are."""
        from simdist.compiled.joins import CodesAt  # noqa: PLC0415

        partition, check = self.partition, self.context.check
        if partition.in_place:
            facts = partition.facts.take(positions, between=check)
            return CodesAt.within(partition.codes, positions), facts
        codes, facts = partition.take_codes(positions, between=check)
        return CodesAt.of(codes), facts
