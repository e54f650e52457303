"""What a task of a growing graph looks at: vectors and lists by row, who is gone, who is asked for.

*Asked* rows are those whose lists are being made, in chunks of ascending rows:

    new      rows behind the last row of the graph before
    broken   rows that list a deleted one                   found by the round of that name
    all      every living row                               where the old lists fall short too

An asked row's list so far is *wide* (more than k), its keys are values of the fixed kernel, negated
for a distance, so that larger is nearer. A list that is not asked for can only gain: what is nearer
than its last entry is *offered* to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from simdist.lists import tombstones
from simdist.measures import Prepared, resolve
from simdist.measures.base import Measure
from simdist.panels import RowPanels
from simdist.partitions import power_of_two
from simdist.runner.resident import keep_within
from simdist.stages.grow.lineage import Promise, partition_of, promise_of, segments_of
from simdist.stages.grow.lists import Change, Lists
from simdist.stages.grow.segment import Block
from simdist.store.datasets import Dataset
from simdist.tiles.exact import signed
from simdist.types import Array, Bools, Float32, Ids, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["Asked", "Offers", "World", "offered_objects", "offered_to", "wide"]

Asked: TypeAlias = Literal["new", "broken", "all"]

MOST_ASKED = 4096  # rows of a chunk
LEAST_ASKED = 512
ENOUGH_ASKED = 2048  # broken rows of a chunk, as soon as there are so many
CHUNKS_WANTED = 8
HELD_NBYTES = 32 << 20  # of rows taken from all over the vectors at once


def wide(k: int) -> int:
    """Length of a list while it is made."""
    return max(2 * k, k + 16)


@dataclass(frozen=True)
class Offers:
    """Rows offered to lists: row `who` to the list of row `to`, with its key. [p] each, sorted by
    (to, who)."""

    to: Ids
    who: Ids
    keys: Float32

    @classmethod
    def of(cls, parts: list[Offers]) -> Offers:
        """All of them, each once."""
        to, who, keys = (
            np.concatenate([getattr(part, name) for part in parts] or [np.empty(0, dtype)])
            for name, dtype in (("to", np.int64), ("who", np.int64), ("keys", np.float32))
        )
        order = np.lexsort((who, to))
        to, who, keys = to[order], who[order], keys[order]
        fresh = np.ones(len(to), bool)
        fresh[1:] = (to[1:] != to[:-1]) | (who[1:] != who[:-1])
        return cls(to[fresh], who[fresh], keys[fresh])


@dataclass(frozen=True)
class World:
    """settled: the round whose lists stand in for the graph's, "" for the graph's own."""

    context: Context
    settled: str = ""

    @cached_property
    def graph(self) -> Dataset:
        """The graph before."""
        return self.context.inputs["graph"]

    @cached_property
    def vectors(self) -> Dataset:
        return self.context.inputs["vectors"]

    @cached_property
    def promise(self) -> Promise:
        return promise_of(self.graph)

    @property
    def k(self) -> int:
        return self.promise.k

    @cached_property
    def measure(self) -> Measure:
        return resolve(self.promise.measure)

    @cached_property
    def panels(self) -> RowPanels:
        return RowPanels(self.vectors, self.measure)

    @property
    def rows(self) -> int:
        return self.vectors.rows

    @cached_property
    def gone(self) -> Ids:
        """Rows deleted, before and now, ascending."""
        gone = tombstones(self.graph)
        deleted = self.context.config.deleted
        return gone if deleted is None else np.union1d(gone, self.context.load(deleted))

    @property
    def living(self) -> int:
        return self.rows - len(self.gone)

    def alive(self, rows: Ids) -> Bools:
        """Which of some rows are not gone; any shape. What is no row (-1) is not alive."""
        there: Bools = rows >= 0
        if len(self.gone):
            at = np.minimum(np.searchsorted(self.gone, rows), len(self.gone) - 1)
            there &= self.gone[at] != rows
        return there

    @cached_property
    def partition(self) -> Dataset | None:
        return partition_of(self.graph)

    @cached_property
    def blocks(self) -> list[Block]:
        """All rows by nearest cell: the partition's blocks, and those of appended rows."""
        segments = [*segments_of(self.graph)]
        if "segment" in self.context.inputs:
            segments.append(self.context.inputs["segment"])
        return [] if self.partition is None else Block.all_of(self.partition, *segments)

    @cached_property
    def lists(self) -> Lists:
        """Lists that stand so far, by row."""
        newer: dict[int, list[Change]] = {}
        if self.settled:
            for panel, record in enumerate(self.context.records(self.settled)):
                if record.objects:
                    arrays = (record.objects[r] for r in ("rows", "neighbors", "values"))
                    newer[panel] = [Change(*(self.context.load(ref) for ref in arrays))]
        return Lists(self.context.inputs["lists"], newer)

    @property
    def list_panels(self) -> int:
        """Panels of lists: those of the graph before, and more where rows were appended."""
        return -(-self.rows // self.lists.panel_rows)

    # -- who is asked for --

    def spans(self, of: Asked) -> list[tuple[int, int]]:
        """Where each chunk of asked rows lies: ascending, none overlaps another."""
        if of == "broken":
            size = self.lists.panel_rows
            return [(first * size, min(last * size, self.rows)) for first, last in self._broken]
        if of == "new":
            first, last = self.graph.rows, self.rows
            size = 2 * power_of_two(max(1, (last - first) // CHUNKS_WANTED))
            size = min(max(size, LEAST_ASKED), MOST_ASKED)
        else:
            first, last, size = 0, self.rows, self.lists.panel_rows
        return [(low, min(low + size, last)) for low in range(first, last, size)]

    @cached_property
    def _broken(self) -> list[tuple[int, int]]:
        """Panels of lists that a chunk of broken rows comes from: few rows are not worth a task,
        and what they look at is the same for many."""
        groups, held, first = [], 0, 0
        records = self.context.records("broken")
        for panel, record in enumerate(records, 1):
            held += int(record.facts["rows"])
            if held >= ENOUGH_ASKED or panel == len(records):
                groups.append((first, panel))
                held, first = 0, panel
        return groups

    def asked(self, of: Asked, chunk: int) -> Ids:
        """Rows of a chunk, ascending."""
        if of == "broken":
            records = self.context.records("broken")[slice(*self._broken[chunk])]
            return np.concatenate([self.context.load(r.objects["rows"]) for r in records])
        rows = np.arange(*self.spans(of)[chunk])
        return rows[self.alive(rows)]

    def standing(self, of: Asked, made: str, rows: Ids) -> Ids:
        """[m, k] neighbours of `rows`, ascending: of asked ones as round `made` left them."""
        neighbors, _ = self.lists.take(rows)
        for chunk, (low, high) in enumerate(self.spans(of)):
            start, stop = np.searchsorted(rows, [low, high])
            if start == stop:
                continue
            asked = self.asked(of, chunk)
            if not len(asked):
                continue
            at = np.minimum(np.searchsorted(asked, rows[start:stop]), len(asked) - 1)
            there = np.flatnonzero(asked[at] == rows[start:stop])
            ids = self.context.load(self.context.records(made)[chunk].objects["ids"])
            neighbors[start + there] = ids[at[there], : self.k]
        return neighbors

    # -- values --

    def keys(self, X: Prepared, at: Ids, ids: Ids) -> Float32:
        """Keys of listed pairs by the fixed kernel: row at[p] of X with row ids[p] of the data."""
        keys = np.empty(len(ids), np.float32)
        rows, place = np.unique(ids, return_inverse=True)
        step = max(1, HELD_NBYTES // (4 * self.panels.dim))
        for start in range(0, len(rows), step):
            self.context.check()
            taken = self.panels.take(rows[start : start + step])
            here = slice(None) if len(rows) <= step else _between(place, start, start + step)
            values = self.measure.pairs_at(X, at[here], taken, place[here] - start)
            keys[here] = signed(self.measure, values)
        return keys

    def offers(self, of: Asked, to: Ids, who: Ids, keys: Float32) -> Offers:
        """What of all this the lists of `to` would take: nearer than their last entry."""
        if of == "broken":  # nothing came that other lists lack
            return Offers.of([])
        if of == "new":
            old = to < self.graph.rows
            to, who, keys = to[old], who[old], keys[old]
        rows, place = np.unique(to, return_inverse=True)
        last, last_keys = self.last(rows)
        bar = last_keys[place]
        better = (keys > bar) | ((keys == bar) & (who < last[place]))
        return Offers(to[better], who[better], keys[better])

    def last(self, rows: Ids) -> tuple[Ids, Float32]:
        """The last neighbour of `rows`, ascending, and its key."""
        neighbors, values = self.lists.last(rows)
        return neighbors, signed(self.measure, values)

    def panel_blocks(self) -> Iterator[tuple[Ids, Prepared]]:
        """Living rows of every panel of vectors, prepared, in turn."""
        for block in range(self.panels.blocks):
            keep_within()
            yield self.panel_block(block)

    def panel_block(self, block: int) -> tuple[Ids, Prepared]:
        """Living rows of one panel of vectors, prepared."""
        rows = np.arange(*self.panels.span(block))
        alive = self.alive(rows)
        prepared = self.panels.block(block)
        return (rows, prepared) if alive.all() else (rows[alive], prepared.take(alive))


def offered_objects(context: Context, offers: Offers) -> dict[str, ObjectRef]:
    """Offers at rest, by role."""
    return {
        "to": context.write_array("offers", offers.to),
        "who": context.write_array("offers", offers.who),
        "offered": context.write_array("offers", offers.keys),
    }


def offered_to(context: Context, made: str, rows: Ids) -> Offers:
    """What the tasks of round `made` offered to any of `rows`, a run of ascending rows."""
    parts = []
    for record in context.records(made):
        keep_within()
        to = context.load(record.objects["to"])
        part = slice(*np.searchsorted(to, [rows[0], rows[-1] + 1])) if len(rows) else slice(0)
        who, keys = (context.load(record.objects[role])[part] for role in ("who", "offered"))
        parts.append(Offers(np.asarray(to[part]), who, keys))
    return Offers.of(parts)


def _between(places: Array, low: int, high: int) -> Ids:
    return np.flatnonzero((places >= low) & (places < high))
