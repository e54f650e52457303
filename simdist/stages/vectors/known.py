"""Files that an earlier import has read: their rows are taken from its shards, not read again.

    file (uri, size, etag; columns asked for) ── memo ──> FileFacts, and where its rows lie:
                                                          (vectors, rows) of a shard, skip, count

A prefix that grew overnight is another listing, but most of its files are as they were: only new
and changed ones are read. What is taken from shards gives the same bytes as reading the file would:
these are its values, checked and narrowed already. A memo whose shards are gone, or a store that
gives no etags, costs a reading and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from simdist.stages.vectors.checking import Wanted
from simdist.stages.vectors.formats import Span
from simdist.stages.vectors.sources import Source
from simdist.stages.vectors.survey import FileFacts
from simdist.types import Array, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["Known", "Piece", "look_up", "pieces", "pieces_of", "remember"]

READINGS = 8  # of one file, each after its shards were collected: then it is not remembered again


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a file in a shard: `count` from its row `skip` on."""

    vectors: ObjectRef
    rows: ObjectRef
    skip: int
    count: int

    def to_json(self) -> Json:
        return [self.vectors.to_json(), self.rows.to_json(), self.skip, self.count]

    @classmethod
    def from_json(cls, value: Json) -> Piece:
        vectors, rows, skip, count = value
        return cls(ObjectRef.from_json(vectors), ObjectRef.from_json(rows), skip, count)


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of a file."""

    facts: FileFacts
    pieces: tuple[Piece, ...]

    def to_json(self) -> Json:
        return {"facts": self.facts.to_json(), "pieces": [p.to_json() for p in self.pieces]}

    @classmethod
    def from_json(cls, value: Json) -> Known:
        pieces = tuple(Piece.from_json(piece) for piece in value["pieces"])
        return cls(FileFacts.from_json(value["facts"]), pieces)


def look_up(
    context: Context, source: Source, wanted: Wanted, types: Mapping[str, pa.DataType]
) -> Known | None:
    """What an earlier import left of the file, if its shards still stand. types: of Hive columns.

    Costs a question to the store for the memo, and one an object where there is one.
    """
    return _latest(context, source, wanted, types)[0]


def remember(
    context: Context,
    source: Source,
    wanted: Wanted,
    types: Mapping[str, pa.DataType],
    known: Known,
) -> None:
    """Keep what was learnt of a file, unless it is known."""
    if source.etag is None:
        return
    stands, number = _latest(context, source, wanted, types)
    if stands is None and number < READINGS:
        context.store.write_memo(_key(source, wanted, types, number), known.to_json())


def _latest(
    context: Context, source: Source, wanted: Wanted, types: Mapping[str, pa.DataType]
) -> tuple[Known | None, int]:
    """The memo whose shards stand, if any; how many there are of the file."""
    number = 0
    while source.etag is not None and number < READINGS:
        value = context.store.memo(_key(source, wanted, types, number))
        if value is None:
            break
        number += 1
        known = Known.from_json(value)
        if all(context.store.whole(ref) for p in known.pieces for ref in (p.vectors, p.rows)):
            return known, number
    return None, number


def _key(source: Source, wanted: Wanted, types: Mapping[str, pa.DataType], number: int) -> str:
    hive = {name: str(types[name]) for name, _ in source.partitions}
    told = [source.to_json(), [wanted.vector, wanted.id, list(wanted.keep)], hive, number]
    return f"file {json.dumps(told, sort_keys=True)}"


def pieces_of(
    span: tuple[int, int], size: int, shards: Mapping[int, tuple[ObjectRef, ObjectRef]]
) -> tuple[Piece, ...]:
    """Where a file's rows lie. span: its rows among all. size: rows of a shard. shards: (vectors,
    rows) by number, those of the span among them."""
    first, last = span
    made = []
    for number in range(first // size, -(-last // size)):
        low, high = max(first, number * size), min(last, (number + 1) * size)
        if low < high:
            made.append(Piece(*shards[number], low - number * size, high - low))
    return tuple(made)


def pieces(
    context: Context,
    known: Known,
    span: Span,
    *,
    dtype: str,
    schema: pa.Schema,
    number: int,
    named: bool,
) -> Iterator[tuple[Array, pa.RecordBatch]]:
    """The rows of a span of the file, as (vectors [m, d], rows table), a shard's at a time.

    number: that of the first of them among all rows of the import. named: whether they have ids of
    their own.
    """
    numbered = ("row",) if named else ("row", "id")
    at = 0  # the file's row at which a piece begins
    for piece in known.pieces:
        low, high = max(span.first, at), min(span.first + span.rows, at + piece.count)
        if low < high:
            start, count = piece.skip + low - at, high - low
            vectors = context.load(piece.vectors)[start : start + count].astype(dtype, copy=False)
            table = context.table(piece.rows).slice(start, count)
            yield vectors, _renumbered(table, schema, number, numbered)
            number += count
        at += piece.count


def _renumbered(
    table: pa.Table, schema: pa.Schema, number: int, numbered: Sequence[str]
) -> pa.RecordBatch:
    """Rows as they were imported, with other numbers, in the types of this import."""
    numbers = pa.array(np.arange(number, number + len(table)))
    columns = [
        numbers if field.name in numbered else table[field.name].combine_chunks().cast(field.type)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)
