"""Pairs to the shards of both of their rows, and looking things up across shards.

pairs, shard by shard ── spread ──> (node, other, value), both ways, sorted by node
                                               │ slices
node shard [first, last) <── gather ───────────┘   others [e] of each node, ascending
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.measures import resolve
from simdist.runner.plan import Record, Round, Task
from simdist.tiles.threshold import Threshold
from simdist.types import Array, Float32, Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.store.datasets import Dataset

__all__ = ["Nodes", "compute_gather", "compute_spread", "gather_round", "spread_round"]

SHARD_NODES = 1 << 21
SHARD_ENTRIES = 1 << 22  # each pair is two
BUCKETS = 1 << 12  # equal runs of nodes, counted


@dataclass(frozen=True)
class Nodes:
    """Nodes in shards of consecutive ones, as `gather` left them."""

    context: Context

    @cached_property
    def count(self) -> int:
        pairs = self.context.inputs["pairs"]
        return int(pairs.metrics["nodes"])

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First node of every shard, and the one after its last."""
        records = self.context.records("gather")
        return tuple((int(r.facts["first"]), int(r.facts["last"])) for r in records)

    @cached_property
    def firsts(self) -> Ids:
        return np.array([first for first, _ in self.spans], np.int64)

    def load(self, name: str, shard: int, role: str) -> Array:
        """An object of a shard's record of a round in which every shard had a task."""
        return self.context.load(self.context.records(name)[shard].objects[role])

    def look_up(self, records: Sequence[Record], role: str, nodes: Ids) -> Array:
        """What each shard's record says of some nodes [m]: entries of its array `role`, which is
        indexed by node."""
        order = np.argsort(nodes, kind="stable")
        ascending = nodes[order]
        parts, places = [], []
        for record, (first, last) in zip(records, self.spans, strict=True):
            low, high = (int(at) for at in np.searchsorted(ascending, [first, last]))
            if low < high:
                array = self.context.load(record.objects[role])
                parts.append(array[ascending[low:high] - first])
                places.append(order[low:high])
        if not parts:
            return self.context.load(records[0].objects[role])[:0]
        found = np.concatenate(parts)
        out = np.empty_like(found)
        out[np.concatenate(places)] = found
        return out


def edges_of(dataset: Dataset, shard: int) -> tuple[Ids, Ids, Float32]:
    """Row, other row and value of a shard of pairs, or of a links dataset's edges."""
    found = dataset.shards[shard]
    both = "edges" in found.objects
    names = ["row", "neighbor", "weight" if both else "value"]
    table = dataset.store.read_table(found.objects["edges" if both else "pairs"], names)
    rows, others, values = (table[name].to_numpy() for name in names)
    return rows, others, values


def spread_round(context: Context) -> Round:
    """One task per shard of pairs."""
    pairs = context.inputs["pairs"]
    return Round(
        "spread",
        tuple(
            Task(f"spread-{s:06d}", "spread", {"shard": s}, 80 * _entries(pairs, s) + (16 << 20))
            for s in range(len(pairs.shards))
        ),
    )


def _entries(pairs: Dataset, shard: int) -> int:
    found = pairs.shards[shard]
    return int(found.facts.get("entries", 2 * found.rows))


def compute_spread(context: Context, task: Task) -> Record:
    """Pairs near enough, in both directions, sorted by (node, other)."""
    pairs = context.inputs["pairs"]
    rows, others, values = edges_of(pairs, task.args["shard"])
    limit = Threshold(resolve(context.config.measure), context.config.threshold)
    near = limit.reached(values)
    rows, others, values = rows[near], others[near], values[near]
    if "edges" not in pairs.shards[task.args["shard"]].objects:
        rows, others = np.concatenate([rows, others]), np.concatenate([others, rows])
        values = np.concatenate([values, values])
    order = np.lexsort((others, rows))
    buckets, counts = np.unique(rows // _bucket_rows(context), return_counts=True)
    return Record(
        task.key,
        {
            "nodes": context.write_array("spread", rows[order]),
            "others": context.write_array("spread", others[order]),
            "values": context.write_array("spread", values[order]),
        },
        {"buckets": np.stack([buckets, counts], axis=1).tolist()},
    )


def _bucket_rows(context: Context) -> int:
    return max(1, -(-Nodes(context).count // BUCKETS))


def gather_round(context: Context) -> Round:
    """Runs of nodes, cut between buckets, with about as many entries."""
    counts: dict[int, int] = {}
    for record in context.records("spread"):
        for bucket, entries in record.facts["buckets"]:
            counts[bucket] = counts.get(bucket, 0) + entries
    size, nodes = _bucket_rows(context), Nodes(context).count
    cuts, held = [(0, 0)], 0
    for bucket in range(-(-nodes // size)):
        more = counts.get(bucket, 0)
        first = bucket * size
        full = held and held + more > SHARD_ENTRIES
        if full or first + size - cuts[-1][0] > max(SHARD_NODES, size):
            cuts.append((first, 0))
            held = 0
        held += more
        cuts[-1] = (cuts[-1][0], held)
    ends = [first for first, _ in cuts[1:]] + [nodes]
    return Round(
        "gather",
        tuple(
            Task(
                f"gather-{place:06d}",
                "gather",
                {"first": first, "last": last},
                shard_nbytes(last - first, entries),
            )
            for place, ((first, entries), last) in enumerate(zip(cuts, ends, strict=True))
        ),
    )


def shard_nbytes(nodes: int, entries: int) -> int:
    """What a task on a shard of nodes holds at most."""
    return 120 * nodes + 72 * entries + (16 << 20)


def compute_gather(context: Context, task: Task) -> Record:
    """The entries of some nodes: indptr [n + 1], others [e] ascending, values [e]; and how many of
    a node's others come before it, by row: earlier [n]."""
    first, last = task.args["first"], task.args["last"]
    none = np.empty(0, np.int64)
    parts: list[list[Array]] = [[none, none, np.empty(0, np.float32)]]
    for record in context.records("spread"):
        loaded = [context.load(record.objects[role]) for role in ("nodes", "others", "values")]
        low, high = (int(at) for at in np.searchsorted(loaded[0], [first, last]))
        parts.append([array[low:high] for array in loaded])
    nodes, others, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.lexsort((others, nodes))
    nodes, others, values = nodes[order], others[order], values[order]
    if len(others) and not 0 <= others.min() <= others.max() < Nodes(context).count:
        raise InputError(
            f"pairs name row {others.max()}, but there are {Nodes(context).count} rows: they belong"
            " to another data set"
        )
    indptr = np.searchsorted(nodes, np.arange(first, last + 1))
    earlier = np.bincount(nodes[others < nodes] - first, minlength=last - first)
    objects = {
        "earlier": context.write_array("earlier", earlier.astype(np.int64)),
        "indptr": context.write_array("indptr", indptr.astype(np.int64)),
        "others": context.write_array("others", others),
        "values": context.write_array("values", values),
    }
    facts = {"first": first, "last": last, "entries": len(others)}
    return Record(task.key, objects, facts)


def outside_of(others: Ids, first: int, last: int) -> tuple[Ids, Array]:
    """Nodes of other shards among `others`, ascending; and each entry as a place: own nodes first,
    then those [e] int32."""
    far = (others < first) | (others >= last)
    outside = np.unique(others[far])
    places = np.empty(len(others), np.int32)
    places[~far] = others[~far] - first
    places[far] = (last - first) + np.searchsorted(outside, others[far])
    return outside, places


def latest(context: Context, rounds: Sequence[str], shards: int) -> list[Record]:
    """The last record of each shard over rounds that go on with fewer and fewer of them."""
    found: dict[int, Record] = {}
    for name in rounds:
        for record in context.records(name):
            found[int(record.facts["shard"])] = record
    return [found[shard] for shard in range(shards)]


def numbered(context: Context, prefix: str) -> list[str]:
    """Committed rounds prefix-0000, prefix-0001, ..., in order."""
    rounds: Mapping[str, object] = context.spec.rounds
    return sorted(name for name in rounds if name.startswith(f"{prefix}-"))
