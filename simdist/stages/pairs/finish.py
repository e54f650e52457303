"""Parts into the result: sorted Parquet shards of about as many pairs each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from simdist.runner.plan import Record, Round, Task
from simdist.stages.pairs.pairs import Sets
from simdist.stages.pairs.parts import Pairs, parts_of
from simdist.store.datasets import Shard
from simdist.types import Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["compute_finish", "finish_round", "pair_table", "shards_of"]

SHARD_PAIRS = 1 << 21
SORTING_NBYTES = 100  # of a pair: as read, its place, as sorted, as Parquet


def finish_round(sets: Sets, found: Sequence[Record]) -> Round:
    """Row ranges with about SHARD_PAIRS pairs each, cut between buckets."""
    counts: dict[int, int] = {}
    for record in found:
        for bucket, pairs in record.facts["buckets"]:
            counts[bucket] = counts.get(bucket, 0) + pairs
    spans: list[tuple[int, int]] = []  # first row, pairs
    held, first = 0, 0
    for bucket in sorted(counts):
        if held and held + counts[bucket] > SHARD_PAIRS:
            spans.append((first, held))
            held, first = 0, bucket * sets.bucket_rows
        held += counts[bucket]
    spans.append((first, held))
    ends = [first for first, _ in spans[1:]] + [sets.x.rows]
    return Round(
        "finish",
        tuple(
            Task(
                f"finish-{place:06d}",
                "finish",
                {"first": first, "last": last, "pairs": pairs},
                # A row is not cut, and may have a pair with every other.
                SORTING_NBYTES * min(pairs, max(SHARD_PAIRS, sets.other.rows)) + (16 << 20),
            )
            for place, ((first, pairs), last) in enumerate(zip(spans, ends, strict=True))
        ),
    )


def compute_finish(context: Context, task: Task) -> Record:
    """The pairs of some rows, sorted by (row, neighbor), in pieces of at most SHARD_PAIRS."""
    objects, pairs, spans = {}, [], []
    for piece, found in enumerate(_pieces(context, **task.args)):
        context.check()
        objects[f"pairs-{piece:06d}"] = context.write_table("pairs", pair_table(found))
        pairs.append(len(found.rows))
        ends = [int(found.rows[0]), int(found.rows[-1])] if len(found.rows) else []
        spans.append(ends)
    return Record(task.key, objects, {"pairs": pairs, "rows": spans})


def pair_table(pairs: Pairs) -> pa.Table:
    """row int64, neighbor int64, value float32."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    return pa.table(
        {
            "row": pa.array(pairs.rows),
            "neighbor": pa.array(pairs.columns),
            "value": pa.array(pairs.values),
        }
    )


def shards_of(records: Sequence[Record]) -> tuple[Shard, ...]:
    """A shard for every piece; `rows` of its facts: the first and the last row in it."""
    shards = []
    for record in records:
        for piece, pairs in enumerate(record.facts["pairs"]):
            facts: dict[str, Json] = {"rows": record.facts["rows"][piece]}
            shards.append(Shard(pairs, {"pairs": record.objects[f"pairs-{piece:06d}"]}, facts))
    return tuple(shards)


def _pieces(context: Context, first: int, last: int, pairs: int) -> Iterator[Pairs]:
    """Sorted pairs of whole rows, at most SHARD_PAIRS at a time unless one row alone has more; at
    least one piece, which may be empty."""
    if pairs <= SHARD_PAIRS:
        yield _sorted(_parts(context, first, last))
        return
    counts = np.zeros(last - first, np.int64)  # of one bucket: more than that is not in one task
    for part in _parts(context, first, last):
        counts += np.diff(np.searchsorted(part.rows, np.arange(first, last + 1)))
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + SHARD_PAIRS, side="right"))
        stop = max(stop, start + 1)
        yield _sorted(_parts(context, first + start, first + stop))
        start = stop


def _parts(context: Context, first: int, last: int) -> list[Pairs]:
    records = context.records(_round_of_pairs(context))
    return list(parts_of(context, records, first, last, bucket_rows=Sets(context).bucket_rows))


def _round_of_pairs(context: Context) -> str:
    return "cells" if "cells" in context.spec.rounds else "pairs"


def _sorted(parts: Sequence[Pairs]) -> Pairs:
    """Parts joined and sorted by (row, column)."""
    if not parts:
        none = np.empty(0, np.int64)
        return Pairs(none, none, np.empty(0, np.float32))
    rows, columns, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.lexsort((columns, rows))
    return Pairs(rows[order], columns[order], values[order])
