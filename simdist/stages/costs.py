"""What the rounds of a partition and of a k-NN graph cost, from n, d and the knobs alone.

    Work(rows, dim, k, knobs) ──> partition_rounds | graph_rounds ──> RoundForecasts

Formulas where n and d decide, constants where the data does: `Typical` holds those, measured on the
synthetic sets of tests/bench, and every one can be given anew. Bytes are those of the arrays that a
round leaves and reads; requests are what an S3 store would be asked (head and put of an object
written, head and ranges of one fetched, one look and one put for a task's record).

May import the runner and partitions; stages ask it, it knows no stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from simdist.partitions import FANOUT, block_rows, cell_count, power_of_two
from simdist.runner.plan import RoundForecast

__all__ = [
    "TASK_REQUESTS",
    "Typical",
    "Work",
    "graph_nbytes",
    "graph_rounds",
    "moves",
    "partition_rounds",
    "typical_of",
]

FINE = 8  # fine leaders of a cell
SHARD_NBYTES, SHARD_ROWS = 16 << 20, 1 << 17  # of vectors as they are imported, at most
LEAF_TASK_NBYTES, LEAF_TASKS, CELL_NBYTES = 64 << 20, 16, 16 << 20
NEAR_LEAF_TASKS = 2000  # that propose to one block: parts of the cells its rows lie in
FLOAT, INT, LONG, FLAG = 4, 4, 8, 1
EDGE_NBYTES = 5.5  # of a neighbour and its value in Parquet: 12 before it is encoded
RECORD_NBYTES = 220  # of an object in the index of a round: key, sha256, size
TASK_REQUESTS = 2  # is there a record, and the record
CHUNK, FACTS = 64, 16  # bytes that a row's code is made of, and of its scale and terms
PART = 8 << 20  # bytes of one request


@dataclass(frozen=True, slots=True)
class Typical:
    """What the data decides, as it was on the sets measured.

    leaf_copies: leaves that a row lies in, for each cell it joins. leaf_share: rows of the leaf
        that a row meets, as a share of leaf_rows.
    pairs: scored for a row in each join, first to last; the last goes for any that follow.
    proposals: that a join leaves for each row.
    outside: share of a row's links that lie in other blocks. distinct: rows that the links of a
        block name, for each of these links.
    opened: share of the blocks that a worker opens whole to look up rows in them. near: share of
        the blocks whose joins propose something to a block.
    joins: until the recall asked for is reached; at least as many as the knobs say.
    """

    leaf_copies: float = 2.0
    leaf_share: float = 0.6
    pairs: tuple[float, ...] = (440.0, 220.0, 80.0, 20.0)
    proposals: tuple[float, ...] = (24.0, 12.0, 5.0, 2.0)
    outside: float = 0.9
    distinct: float = 0.5
    opened: float = 1.0
    near: float = 0.5
    joins: int = 2


@dataclass(frozen=True, slots=True)
class Work:
    """A graph to build: n rows of d dimensions, k neighbours, and every knob that costs.

    coded: whether leaves and joins work on int8 codes; else walks score float32 rows pair by pair.
    known: cells that a partition keeps for each row. cells: how many there are, by default as
    partitions have them.
    """

    rows: int
    dim: int
    k: int
    fanout: int = 4
    leaf_rows: int = 512
    leaf_neighbors: int = 10
    keep: int = 24
    links: int = 20
    joins: int = 0
    sample: int = 1000
    coded: bool = True
    known: int = FANOUT
    cells: int = 0
    typical: Typical = Typical()

    @property
    def blocks(self) -> int:
        return -(-self.rows // block_rows(self.rows, self.dim))

    @property
    def shards(self) -> int:
        size = min(power_of_two(SHARD_NBYTES // (FLOAT * self.dim)), SHARD_ROWS)
        return -(-self.rows // size)

    @property
    def cell_total(self) -> int:
        return min(self.cells or cell_count(self.rows), self.rows)

    @property
    def sampled(self) -> int:
        """Rows whose neighbours are found exactly, to begin with."""
        return min(self.sample, self.rows)

    @property
    def float_nbytes(self) -> int:
        """Of a float32 row."""
        return FLOAT * self.dim

    @property
    def code_nbytes(self) -> int:
        """Of a row as leaves and joins read it."""
        return -(-self.dim // CHUNK) * CHUNK + FACTS if self.coded else self.float_nbytes

    @property
    def copies(self) -> int:
        """Rows of all cells together, for the graph's first leaves."""
        return self.rows * min(self.fanout, self.cell_total)

    @property
    def cell_cap(self) -> int:
        """Rows of a cell that a task holds at once; larger ones are worked on in parts."""
        return max(power_of_two(CELL_NBYTES // self.code_nbytes), 2 * self.leaf_rows)

    @property
    def leaf_tasks(self) -> int:
        cell = self.copies // self.cell_total
        if cell > self.cell_cap:
            return self.cell_total * -(-cell // self.cell_cap)
        most = power_of_two(LEAF_TASK_NBYTES // self.code_nbytes)
        return -(-self.copies // min(most, max(self.copies // LEAF_TASKS, 1)))


def typical_of(work: Work, seen: Mapping[str, Mapping[str, float]]) -> Typical:
    """What the data of a graph that was built decided. seen: facts of its rounds, by name, summed
    over their tasks, and `written`, the bytes that those left."""
    leaves = seen.get("leaves-0", {})
    entries = leaves.get("entries", work.copies * Typical().leaf_copies)
    met = leaves.get("tile_entries", entries * work.leaf_rows * Typical().leaf_share)
    kind = "join-0-" if work.coded else "walk-0-"
    joins = [seen[name] for name in sorted(seen) if name.startswith(kind)]
    starts = work.blocks * (work.blocks + 1) * LONG
    left = (max(join.get("written", 0.0) - starts, 0.0) / (INT + LONG) for join in joins)
    return Typical(
        leaf_copies=entries / work.copies,
        leaf_share=met / (entries * work.leaf_rows),
        pairs=tuple(join.get("scored", 0.0) / work.rows for join in joins) or Typical().pairs,
        proposals=tuple(each / work.rows for each in left) or Typical().proposals,
        joins=len(joins) or Typical().joins,
    )


def partition_rounds(work: Work) -> tuple[RoundForecast, ...]:
    """Rounds sample, leaders, assign, gather."""
    n, d, row = work.rows, work.dim, work.float_nbytes
    shards, blocks, cells = work.shards, work.blocks, work.cell_total
    fine = min(cells * FINE, n)
    known = min(work.known, cells)
    codes = work.code_nbytes if work.coded else 0
    starts = (fine + 1) * LONG
    leaders = (cells + fine) * (row + FLOAT)
    kept = row + codes + LONG + known * (2 * INT + FLAG)
    return (
        RoundForecast(
            "sample",
            shards,
            read=n * row,
            written=fine * row,
            requests=shards * TASK_REQUESTS + moves(shards, n * row) + moves(shards, fine * row),
            rows=n,
        ),
        RoundForecast(
            "leaders",
            1,
            flops=2.0 * fine * cells * d,
            read=fine * row + _index(shards, 1),
            written=leaders,
            moved=fine * row,
            requests=TASK_REQUESTS + moves(shards, fine * row) + moves(5, leaders),
            rows=fine,
        ),
        RoundForecast(
            "assign",
            shards,
            flops=2.0 * n * d * (cells + FINE),
            read=n * row,
            written=n * (known + 1) * INT + shards * starts,
            common=leaders,
            requests=shards * TASK_REQUESTS
            + moves(shards, n * row)
            + moves(3 * shards, n * (known + 1) * INT + shards * starts),
            common_requests=moves(5, leaders),
            rows=n,
        ),
        RoundForecast(
            "gather",
            blocks,
            written=n * kept + blocks * ((cells + 1) * LONG + cells * known * LONG),
            moved=n * row,
            common=n * (row + (known + 1) * INT) + shards * starts + _index(shards, 3),
            reach=_touched(shards, n // max(blocks, 1)),
            requests=blocks * TASK_REQUESTS + moves(9 * blocks, n * kept),
            common_requests=moves(4 * shards, n * (row + (known + 1) * INT)),
            rows=n,
        ),
    )


def graph_rounds(work: Work) -> tuple[RoundForecast, ...]:
    """Rounds of the first effort: leaves, merge, a look at what they found, joins, a look at the
    recall, finish."""
    joins = max(work.joins, work.typical.joins)
    return (
        *_leaf_rounds(work),
        _truth(work),
        _look(work, "pilot-0"),
        *_join_rounds(work, joins),
        _look(work, f"check-0-{joins}-{work.sampled}"),
        _finish(work),
    )


def _leaf_rounds(work: Work) -> Iterator[RoundForecast]:
    """leaves-0 and merge-0."""
    n, blocks, tasks, known = work.rows, work.blocks, work.leaf_tasks, work.known
    entries = work.copies * work.typical.leaf_copies
    left = int(entries * (INT + work.leaf_neighbors * (INT + FLOAT)))
    starts = tasks * (blocks + 1) * LONG
    members = n * known * (INT + FLAG) + blocks * (work.cell_total + 1) * LONG
    opened = int(n * work.code_nbytes * work.typical.opened)
    tile = 2.0 * entries * work.typical.leaf_share * work.leaf_rows * work.dim
    split = 2.0 * work.copies * _leaders_of_cell(work) * work.dim
    yield RoundForecast(
        "leaves-0",
        tasks,
        flops=0.0 if work.coded else split + tile,
        ops=split + tile if work.coded else 0.0,
        written=left + starts,
        moved=(work.copies - n) * work.code_nbytes,
        common=members + opened,
        requests=tasks * TASK_REQUESTS + moves(3 * tasks, left),
        common_requests=moves(5 * blocks, members + opened),
        rows=work.copies,
    )
    near = min(NEAR_LEAF_TASKS / tasks, 1.0)
    yield _merge(work, "merge-leaves-0", left, tasks, near=near, rescored=not work.coded)


def _join_rounds(work: Work, joins: int) -> Iterator[RoundForecast]:
    """links and join and merge, or links and walk where rows have no codes."""
    n, blocks, t = work.rows, work.blocks, work.typical
    lists = n * work.keep * LONG
    edge = 2 * INT + FLAG
    edges = n * work.links * edge + blocks * (blocks + 1) * LONG
    links = n * 2 * work.links * INT
    named = int(n * work.code_nbytes * t.opened) + lists
    named_nbytes = work.code_nbytes + work.keep * LONG
    for number in range(1, joins + 1):
        pairs = n * _nth(t.pairs, number)
        left = int(n * _nth(t.proposals, number) * (INT + LONG))
        starts = blocks * (blocks + 1) * LONG
        written = left + starts if work.coded else _lists_nbytes(work)
        yield RoundForecast(
            f"links-0-{number}",
            blocks,
            read=lists,
            written=links,
            moved=n * work.links * edge,
            common=edges + _index(blocks, 5),
            requests=blocks * TASK_REQUESTS + moves(blocks, lists) + moves(blocks, links),
            common_requests=moves(4 * blocks, edges),
            rows=n,
        )
        yield RoundForecast(
            f"join-0-{number}" if work.coded else f"walk-0-{number}",
            blocks,
            pairs=pairs,
            ops=2.0 * pairs * work.dim,
            read=links,
            written=written,
            moved=int(2 * n * work.links * t.outside * t.distinct * named_nbytes),
            common=named + _index(blocks, 6),
            requests=blocks * TASK_REQUESTS + moves(blocks, links) + moves(3 * blocks, written),
            common_requests=moves(3 * blocks, named),
            rows=n,
        )
        if work.coded:
            yield _merge(work, f"merge-join-0-{number}", left, blocks, near=t.near)


def _merge(
    work: Work, name: str, left: int, tasks: int, *, near: float, rescored: bool = False
) -> RoundForecast:
    """What so many tasks proposed, `left` bytes, into the lists of every block. near: the share of
    those tasks that propose to one block; of the others it reads where their proposals begin."""
    n, blocks = work.rows, work.blocks
    lists = n * work.keep * LONG
    pairs = float(n * work.keep) if rescored else 0.0
    opened = int(n * work.float_nbytes * work.typical.opened) if rescored else 0
    starts = tasks * (blocks + 1) * LONG
    common = left + starts + opened + _index(tasks, 3)
    return RoundForecast(
        name,
        blocks,
        pairs=pairs,
        ops=2.0 * pairs * work.dim,
        read=lists,
        written=_lists_nbytes(work),
        moved=left,
        common=common,
        reach=(near * left + common - left) / common,
        requests=blocks * TASK_REQUESTS
        + moves(blocks, lists)
        + moves(5 * blocks, _lists_nbytes(work)),
        common_requests=moves(3 * tasks, left) + (moves(blocks, opened) if opened else 0),
        rows=n,
    )


def _truth(work: Work) -> RoundForecast:
    """True neighbours of the sampled rows."""
    n, blocks, sample = work.rows, work.blocks, work.sampled
    vectors, found = n * work.float_nbytes, blocks * sample * work.k * (LONG + FLOAT)
    return RoundForecast(
        f"truth-0-{sample}",
        blocks,
        flops=2.0 * sample * n * work.dim,
        read=vectors,
        written=found,
        common=sample * work.float_nbytes,
        requests=blocks * TASK_REQUESTS + moves(2 * blocks, vectors) + moves(2 * blocks, found),
        common_requests=min(sample, blocks),
        rows=n,
    )


def _look(work: Work, name: str) -> RoundForecast:
    """The recall of the lists so far on the sampled rows: one task, which opens all lists."""
    blocks, sample = work.blocks, work.sampled
    opened = blocks * sample * work.k * (LONG + FLOAT) + work.rows * work.keep * LONG
    return RoundForecast(
        name,
        1,
        pairs=float(sample * work.keep),
        ops=2.0 * sample * work.keep * work.dim,
        read=opened + _index(blocks, 7),
        requests=TASK_REQUESTS + moves(3 * blocks, opened),
        rows=sample,
    )


def _finish(work: Work) -> RoundForecast:
    n, blocks, t, row = work.rows, work.blocks, work.typical, work.float_nbytes
    lists, graph = n * work.keep * LONG, graph_nbytes(n, work.k)
    return RoundForecast(
        "finish",
        blocks,
        pairs=float(n * work.keep),
        ops=2.0 * n * work.keep * work.dim,
        read=lists,
        written=graph,
        moved=int(n * work.keep * t.outside * t.distinct * row),
        common=int(n * row * t.opened) + n * LONG,
        requests=blocks * TASK_REQUESTS + moves(blocks, lists) + moves(blocks, graph),
        common_requests=moves(2 * blocks, n * row),
        rows=n,
    )


def graph_nbytes(rows: int, k: int) -> int:
    """Of a finished graph, as Parquet."""
    return int(rows * (k * EDGE_NBYTES + LONG))


def moves(objects: int, nbytes: int) -> int:
    """Requests for so many objects of so many bytes in all, either way: a head for each, and the
    object whole or in parts."""
    return objects + max(objects, nbytes // PART)


def _index(tasks: int, objects: int) -> int:
    """Bytes of the object that lists a round's records."""
    return tasks * (objects * RECORD_NBYTES + 100)


def _touched(shards: int, rows: int) -> float:
    """Share of the shards that hold one of so many rows drawn at random."""
    return 1.0 - math.exp(-rows / shards)


def _lists_nbytes(work: Work) -> int:
    """Lists of all rows, and their links as edges by the target's block."""
    row = work.keep * LONG + work.links * (2 * INT + FLAG)
    return work.rows * row + work.blocks * (work.blocks + 1) * LONG


def _leaders_of_cell(work: Work) -> float:
    """How many leaders a copy is compared with while its cell is split, once."""
    cell = work.copies / work.cell_total
    return max(2.0, 2.0 * min(cell, work.cell_cap) / work.leaf_rows)


def _nth(values: tuple[float, ...], number: int) -> float:
    """The figure of the join of this number (from 1); the last one for those after it."""
    return values[min(number, len(values)) - 1]
