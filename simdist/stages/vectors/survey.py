"""What is known of all files before any is read, and the cut into tasks that follows from it.

    file      |----------|--|-----------------|       row groups, record batches: parts
    shards    |---|---|---|---|---|---|---|---|---|   R rows each, R from d alone
    tasks     |-----------|-------------------|---|   whole shards; a part is rarely read twice

A row's global number is known from the counts in the files' metadata, so tasks need not wait for
one another.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import pyarrow as pa

from simdist.errors import InputError
from simdist.stages.vectors import checking
from simdist.stages.vectors.checking import Place, Wanted
from simdist.stages.vectors.formats import Span, batches, layout
from simdist.stages.vectors.shards import shard_rows
from simdist.stages.vectors.sources import Source
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.store.objects import Objects

__all__ = ["FileFacts", "Plan", "Run", "decode_schema", "encode_schema", "plan_of", "survey"]

PEEK_ROWS = 64  # of each file, to see how large ids and kept columns are
SHARDS_PER_TASK = 8  # at most: 128 MiB of float32, seconds of work
TASKS_WANTED = 16  # fewer shards per task than that where there would be fewer tasks


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What metadata and the first rows say of a file.

    parts: see `formats.Layout`. dim, dtype: of its vectors; None without rows.
    schema: of the rows table. row_nbytes: of a row of it, from the first rows.
    part_nbytes: held while reading any of it.
    """

    rows: int
    parts: tuple[int, ...] | None
    dim: int | None
    dtype: str
    schema: pa.Schema
    row_nbytes: int
    part_nbytes: int

    def to_json(self) -> dict[str, Json]:
        return {
            "rows": self.rows,
            "parts": None if self.parts is None else list(self.parts),
            "dim": self.dim,
            "dtype": self.dtype,
            "schema": encode_schema(self.schema),
            "row_nbytes": self.row_nbytes,
            "part_nbytes": self.part_nbytes,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> FileFacts:
        parts = None if value["parts"] is None else tuple(value["parts"])
        schema = decode_schema(value["schema"])
        return cls(**{**value, "parts": parts, "schema": schema})


@dataclass(frozen=True, slots=True)
class Run:
    """What one task reads: `rows` rows from global row `first` on, as spans of files (by place in
    the listing)."""

    first: int
    rows: int
    spans: tuple[tuple[int, Span], ...]
    part_nbytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All files as one matrix.

    starts: [files + 1] the global row each file begins at. ends: rows of a file up to and with each
    part, by file.
    """

    sources: tuple[Source, ...]
    files: tuple[FileFacts, ...]
    starts: tuple[int, ...]
    ends: tuple[tuple[int, ...], ...]
    dim: int
    dtype: str
    schema: pa.Schema

    @property
    def rows(self) -> int:
        return self.starts[-1]

    @property
    def row_nbytes(self) -> int:
        return max(facts.row_nbytes for facts in self.files)

    def where(self, row: int) -> str:
        """The file and file row of a global row, for messages."""
        file = bisect_right(self.starts, row) - 1
        return f"{self.sources[file].uri} row {row - self.starts[file]}"

    def runs(self) -> Iterator[Run]:
        """The cut into tasks: whole shards, and where a part holds several, all of them in one
        task, because what lies before them in the part must be decoded anyway."""
        size = shard_rows(self.dim)
        shards = -(-self.rows // size)
        wanted = min(max(1, shards // TASKS_WANTED), SHARDS_PER_TASK)
        first, last_part = 0, self._part_at(0)[:2]
        for shard in range(1, shards):
            *part, skip = self._part_at(shard * size)
            if shard - first >= wanted and (part != last_part or skip == 0):
                yield self._run(first * size, shard * size)
                first = shard
            last_part = part
        yield self._run(first * size, self.rows)

    def _run(self, first: int, stop: int) -> Run:
        spans = []
        row = first
        while row < stop:
            file, part, skip = self._part_at(row)
            count = min(stop, self.starts[file + 1]) - row
            spans.append((file, Span(row - self.starts[file], count, part, skip)))
            row += count
        held = max(self.files[file].part_nbytes for file, _ in spans)
        return Run(first, stop - first, tuple(spans), held)

    def _part_at(self, row: int) -> list[int]:
        """[file, part, rows of the part before this one] of a global row."""
        file = bisect_right(self.starts, row) - 1
        local = row - self.starts[file]
        if self.files[file].parts is None:
            return [file, local, 0]
        ends = self.ends[file]
        part = bisect_right(ends, local)
        return [file, part, local - (ends[part - 1] if part else 0)]


def survey(
    source: Source, objects: Objects | None, wanted: Wanted, types: Mapping[str, pa.DataType]
) -> FileFacts:
    """Look at a file's metadata and first rows. types: of the Hive columns.

    Raises InputError where the file cannot be read or does not hold what is wanted.
    """
    found = layout(source, objects)
    schema = checking.check_columns(source, found.schema, wanted, types)
    dtype = checking.dtype_of(schema.field(wanted.vector).type)
    fields = checking.row_fields(schema, wanted)
    if not found.rows:
        return FileFacts(0, found.parts, None, dtype, fields, 0, 0)
    start = Place(source.uri, row=0, number=0)
    vector = next(_head(source, objects, [wanted.vector], rows=1))
    dim = checking.dim_of(vector.column(wanted.vector), wanted.vector, start)
    row_nbytes = 16  # row and id, where nothing else is asked for
    if others := [name for name in wanted.stored_in(source) if name != wanted.vector]:
        head = next(_head(source, objects, others, rows=min(PEEK_ROWS, found.rows)))
        rows = checking.rows_of(head, source, wanted, fields, start)
        row_nbytes = -(-rows.nbytes // len(rows))
    part_nbytes = 0
    if found.holds_part and found.parts:
        part_nbytes = max(found.parts) * (vector.nbytes + row_nbytes)
    return FileFacts(found.rows, found.parts, dim, dtype, fields, row_nbytes, part_nbytes)


def _head(
    source: Source, objects: Objects | None, columns: list[str], *, rows: int
) -> Iterator[pa.RecordBatch]:
    span = Span(first=0, rows=rows, part=0, skip=0)
    return batches(source, objects, columns=columns, span=span, batch_rows=rows)


def plan_of(sources: Sequence[Source], files: Sequence[FileFacts]) -> Plan:
    """All files together. Raises InputError for no rows, or files whose d or types do not agree."""
    held = [(source, facts) for source, facts in zip(sources, files, strict=True) if facts.rows]
    if not held:
        raise InputError(
            f"no rows to import: {sources[0].uri}"
            f"{f' and {len(sources) - 1} more files' if len(sources) > 1 else ''} have none. Check"
            " the path, and the job that writes it."
        )
    first_source, first = held[0]
    for source, facts in held:
        if facts.dim != first.dim:
            raise InputError(
                f"{source.uri} has vectors of {facts.dim} elements, {first_source.uri} of"
                f" {first.dim}. All vectors of an import have one length: narrow the path to files"
                " of one model, or import them apart."
            )
    assert first.dim is not None
    half = all(facts.dtype == "float16" for _, facts in held)
    return Plan(
        sources=tuple(sources),
        files=tuple(files),
        starts=(0, *accumulate(facts.rows for facts in files)),
        ends=tuple(tuple(accumulate(facts.parts or ())) for facts in files),
        dim=first.dim,
        dtype="float16" if half else "float32",
        schema=checking.unify([(source.uri, facts.schema) for source, facts in held]),
    )


def encode_schema(schema: pa.Schema) -> str:
    """An Arrow schema as text, for JSON."""
    return base64.b64encode(schema.serialize()).decode("ascii")


def decode_schema(text: str) -> pa.Schema:
    """The schema that `encode_schema` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
