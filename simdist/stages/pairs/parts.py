"""Pairs on their way to the result: a buffer that is written as a part whenever it is full.

    sink ──> rows | columns | values ──full──> part 0: sorted by row, three arrays in the store
                                     ──full──> part 1 ...
             record: objects rows-000000, columns-000000, values-000000, ...
                     facts   pairs, parts [pairs of each], buckets [[bucket, pairs], ...]

A bucket is a run of consecutive rows; what the buckets of all records add up to says where the
result is cut into shards, before anybody reads a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simdist.errors import PlanTooLarge
from simdist.runner.plan import Record
from simdist.types import Array, Float32, Ids, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["PAIR_NBYTES", "Pairs", "Parts", "parts_nbytes", "parts_of", "too_many"]

PART_PAIRS = 1 << 20  # of a part: 20 MiB
MOST_AT_ONCE = 1 << 18  # pairs that a sink is given at a time (simdist.tiles.threshold.BATCH)
PAIR_NBYTES = 20


class Pairs(NamedTuple):
    """rows, columns: [p] int64 global numbers; values: [p] float32."""

    rows: Ids
    columns: Ids
    values: Float32


def parts_nbytes() -> int:
    """What a buffer holds, with what writing a part of it takes."""
    return (PAIR_NBYTES + 8 + PAIR_NBYTES) * (PART_PAIRS + MOST_AT_ONCE)


class Parts:
    """A sink for pairs in global numbers.

    bucket_rows: rows of a bucket. most: pairs this task may find; more are refused.
    ordered: columns of any one row come in ascending order, as a walk over tiles gives them.
    """

    def __init__(self, context: Context, *, bucket_rows: int, most: int, ordered: bool) -> None:
        self._context = context
        self._bucket_rows, self._most, self._ordered = bucket_rows, most, ordered
        room = PART_PAIRS + MOST_AT_ONCE
        self._rows, self._columns = np.empty(room, np.int64), np.empty(room, np.int64)
        self._values = np.empty(room, np.float32)
        self._held = 0
        self._objects: dict[str, ObjectRef] = {}
        self._sizes: list[int] = []
        self._buckets: dict[int, int] = {}

    @property
    def total(self) -> int:
        return sum(self._sizes) + self._held

    def take(self, rows: Array, columns: Array, values: Float32) -> None:
        """Some more pairs, at most MOST_AT_ONCE."""
        room = slice(self._held, self._held + len(rows))
        self._rows[room], self._columns[room], self._values[room] = rows, columns, values
        self._held += len(rows)
        if self.total > self._most:
            raise too_many(self._context, f"more than {self._most:,} pairs")
        if self._held >= PART_PAIRS:
            self._write()

    def record(self, key: str) -> Record:
        """What is left is written too; the record that lists all parts."""
        if self._held:
            self._write()
        buckets = [[bucket, self._buckets[bucket]] for bucket in sorted(self._buckets)]
        found: dict[str, Json] = {"pairs": self.total, "parts": self._sizes, "buckets": buckets}
        return Record(key, self._objects, found)

    def _write(self) -> None:
        held, part = slice(0, self._held), len(self._sizes)
        rows, columns = self._rows[held], self._columns[held]
        order = np.argsort(rows, kind="stable") if self._ordered else np.lexsort((columns, rows))
        arrays: dict[str, Array] = {"rows": rows, "columns": columns}
        arrays["values"] = self._values[held]
        for name, array in arrays.items():
            self._objects[f"{name}-{part:06d}"] = self._context.write_array("part", array[order])
        buckets, counts = np.unique(rows // self._bucket_rows, return_counts=True)
        for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self._sizes.append(self._held)
        self._held = 0


def parts_of(
    context: Context, records: Sequence[Record], first: int, last: int, *, bucket_rows: int
) -> Iterator[Pairs]:
    """The pairs of rows first..last, part by part in plan order, sorted by row in each; mapped."""
    for record in records:
        spans = (bucket * bucket_rows for bucket, _ in record.facts["buckets"])
        if not any(span < last and span + bucket_rows > first for span in spans):
            continue
        for part in range(len(record.facts["parts"])):
            context.check()  # lets go of the pages of parts that were looked into before
            rows = context.load(record.objects[f"rows-{part:06d}"])
            low, high = (int(at) for at in np.searchsorted(rows, [first, last]))
            if low == high:
                continue
            columns = context.load(record.objects[f"columns-{part:06d}"])
            values = context.load(record.objects[f"values-{part:06d}"])
            yield Pairs(rows[low:high], columns[low:high], values[low:high])


def too_many(context: Context, found: str) -> PlanTooLarge:
    """More pairs than max_pairs. found: how many, in words; a forecast or a count."""
    config = context.config
    measure = config.limit().measure
    stricter = "higher" if measure.traits.kind == "similarity" else "lower"
    return PlanTooLarge(
        f"similarity_join at {measure.name} threshold {config.threshold:g} gives {found};"
        f" max_pairs is {config.max_pairs:,}. Take a {stricter} threshold, collapse exact"
        " duplicates first (deduplicate does), or raise max_pairs: a pair takes 20 bytes."
    )
