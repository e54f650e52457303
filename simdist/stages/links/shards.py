"""A links dataset as it is written: how rows are cut, what a shard holds, what its manifest says.

See `simdist.operators` for the layout; every stage that makes such a dataset writes shards here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.runner.plan import Commit
from simdist.store.datasets import Shard
from simdist.types import Float32, Ids, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.store.store import Store

__all__ = ["SHARD_ENTRIES", "Ranges", "commit_of", "write_shard"]

SHARD_ENTRIES = 3_000_000  # of a shard, if rows have equally many: some 100 MB while it is merged


@dataclass(frozen=True, slots=True)
class Ranges:
    """Rows cut into runs of `size`, the last one shorter. Travels in the arguments of tasks."""

    nodes: int
    size: int

    @classmethod
    def of(cls, nodes: int, entries: int) -> Ranges:
        """As few runs as keep shards of that many entries in all to SHARD_ENTRIES on average."""
        count = max(1, -(-entries // SHARD_ENTRIES))
        return cls(nodes, max(1, -(-nodes // count)))

    @property
    def count(self) -> int:
        return -(-self.nodes // self.size)

    def span(self, i: int) -> tuple[int, int]:
        """First row of a run, and the one after its last."""
        return i * self.size, min((i + 1) * self.size, self.nodes)


def write_shard(
    store: Store, ranges: Ranges, i: int, indptr: Ids, indices: Ids, weights: Float32
) -> tuple[dict[str, ObjectRef], dict[str, Json]]:
    """Objects and facts of the rows of run i. indptr: [rows + 1], from 0; columns ascending."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    begin, end = ranges.span(i)
    counts = np.diff(indptr)
    row_of = np.repeat(np.arange(end - begin), counts)
    degrees = np.bincount(row_of, weights=weights, minlength=end - begin)
    row_of += begin
    edges = pa.table({"row": row_of, "neighbor": indices, "weight": weights})
    objects = {
        "indptr": store.write_array("links-indptr", indptr),
        "indices": store.write_array("links-indices", indices),
        "weights": store.write_array("links-weights", weights),
        "degrees": store.write_array("links-degrees", degrees),
        "edges": store.write_table("links-edges", edges),
    }
    facts: dict[str, Json] = {
        "entries": len(indices),
        "isolated": int((counts == 0).sum()),
        "sources": _sources(ranges, indptr, indices),
    }
    return objects, facts


def _sources(ranges: Ranges, indptr: Ids, indices: Ids) -> list[list[int]]:
    """(run, how many of its rows are columns here), ascending."""
    from simdist.compiled.csr import columns_within  # noqa: PLC0415 - numba only where rows are

    cursors = indptr[:-1].copy()
    counts = (
        len(columns_within(indptr, indices, cursors, *ranges.span(run)))
        for run in range(ranges.count)
    )
    return [[run, count] for run, count in enumerate(counts) if count]


def commit_of(
    ranges: Ranges,
    written: Sequence[tuple[Mapping[str, ObjectRef], Mapping[str, Json]]],
    metrics: Mapping[str, Json],
    *,
    fingerprint: str | None = None,
    config: Json = None,
) -> Commit:
    """The manifest of shards as `write_shard` left them, in order of their rows."""
    shards = []
    for i, (objects, facts) in enumerate(written):
        first, last = ranges.span(i)
        kept = {name: facts[name] for name in ("entries", "sources")}
        shards.append(Shard(last - first, objects, kept))
    said: dict[str, Json] = {
        "nodes": ranges.nodes,
        "entries": sum(int(facts["entries"]) for _, facts in written),
        "symmetric": True,
        "isolated": sum(int(facts["isolated"]) for _, facts in written),
        "dtype": "float32",
        **metrics,
    }
    return Commit(ranges.nodes, tuple(shards), said, fingerprint=fingerprint, config=config)
