"""Reading one source file: its layout from metadata, and its rows as a stream of small batches.

                    layout                              batches(part, skip, rows)
    Parquet         footer: rows of each row group      pages as they are decoded, one row group on
    Arrow file      length of each record batch         slices of one record batch at a time
    Arrow stream    lengths, by reading it once         from the start
    .npy            header                              row ranges, from anywhere
    ORC             footer, stripe by stripe            slices of one stripe at a time
    JSON lines      length, by reading it once          from the start

A *part* is what can be read without what lies before it. Memory follows the batch, not the file or
its row groups (ORC: a stripe; Arrow files on an object store: a record batch).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
from pyarrow import ipc, json

from simdist.errors import InputError
from simdist.npy import HEADER_NBYTES, read_header
from simdist.stages.vectors.sources import Source, opened

if TYPE_CHECKING:
    from simdist.store.objects import Objects

__all__ = ["BUFFER_NBYTES", "NPY_COLUMN", "Layout", "Span", "batches", "layout"]

BUFFER_NBYTES = 4 << 20  # of one column's compressed bytes, read ahead
NPY_COLUMN = "vector"  # what a matrix without column names calls its only column


@dataclass(frozen=True, slots=True)
class Layout:
    """What metadata says of a file.

    parts: rows of each part, in file order; None where every row is a part of its own (.npy).
    holds_part: whether reading a batch holds the whole part it is cut from.
    """

    rows: int
    parts: tuple[int, ...] | None
    schema: pa.Schema
    holds_part: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """`rows` rows of a file from its row `first` on, which is row `skip` of its part `part`."""

    first: int
    rows: int
    part: int
    skip: int


class Reader(Protocol):
    """How one format is read from an open file."""

    def layout(self, file: Any) -> Layout: ...

    def batches(
        self, file: Any, columns: Sequence[str], span: Span, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of at most `batch_rows` rows from the first row of `span.part` on; they may go on
        past the span's end."""


def layout(source: Source, objects: Objects | None) -> Layout:
    """The file's layout. Raises InputError where it cannot be read as what its suffix says."""
    with _readable(source), _opened(source, objects) as file:
        return READERS[source.format].layout(file)


def batches(
    source: Source, objects: Objects | None, *, columns: Sequence[str], span: Span, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a span in file order, in batches of at most `batch_rows` rows.

    Raises InputError where the file cannot be read, or has fewer rows than its metadata says.
    """
    skip, left = span.skip, span.rows
    with _readable(source), _opened(source, objects) as file:
        for batch in READERS[source.format].batches(file, columns, span, batch_rows):
            piece = batch.slice(skip, left)
            skip -= min(skip, len(batch))
            left -= len(piece)
            if len(piece):
                yield piece
            if not left:
                return
    raise InputError(
        f"{source.uri} ended {left} rows early: its metadata promised more. It was cut short or"
        " changed while it was read; write it again, then import again."
    )


class ParquetReader:
    """Row groups are decoded page by page; what lies before a row group is never read."""

    def layout(self, file: Any) -> Layout:
        metadata = self._open(file).metadata
        parts = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        return Layout(metadata.num_rows, parts, metadata.schema.to_arrow_schema())

    def batches(
        self, file: Any, columns: Sequence[str], span: Span, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        parquet = self._open(file)
        groups = range(span.part, parquet.num_row_groups)
        yield from parquet.iter_batches(
            batch_size=batch_rows, row_groups=groups, columns=list(columns), use_threads=False
        )

    @staticmethod
    def _open(file: Any) -> Any:
        # Without a buffer size pyarrow reads a column chunk whole, however large it is.
        return pq.ParquetFile(file, buffer_size=BUFFER_NBYTES, pre_buffer=False)


class ArrowReader:
    """The file format reads any record batch; the stream format (no magic at its start) only
    forwards. A mapped uncompressed batch is a view, so a huge one costs nothing."""

    def layout(self, file: Any) -> Layout:
        if not self._is_file(file):
            return self._stream_layout(file)
        reader = ipc.open_file(file)
        if not reader.num_record_batches:
            return Layout(0, (), reader.schema)
        cheapest = min(range(len(reader.schema)), key=lambda i: _width(reader.schema.field(i).type))
        lengths = ipc.open_file(
            file, options=ipc.IpcReadOptions(included_fields=[cheapest], use_threads=False)
        )
        parts = tuple(len(lengths.get_batch(i)) for i in range(lengths.num_record_batches))
        return Layout(sum(parts), parts, reader.schema, not _is_view(reader.get_batch(0)))

    def batches(
        self, file: Any, columns: Sequence[str], span: Span, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        if self._is_file(file):
            schema = ipc.open_file(file).schema
            fields = sorted(schema.get_field_index(name) for name in columns)
            options = ipc.IpcReadOptions(included_fields=fields, use_threads=False)
            reader = ipc.open_file(file, options=options)
            whole = (reader.get_batch(i) for i in range(span.part, reader.num_record_batches))
        else:
            whole = iter(ipc.open_stream(file))
        for batch in whole:
            yield from _cut(batch.select(list(columns)), batch_rows)

    def _stream_layout(self, file: Any) -> Layout:
        rows, view = 0, True
        reader = ipc.open_stream(file)
        for batch in reader:
            rows += len(batch)
            view = view and _is_view(batch)
        return Layout(rows, (rows,), reader.schema, not view)

    @staticmethod
    def _is_file(file: Any) -> bool:
        start = bytes(file.read(6))
        file.seek(0)
        if start.startswith(b"FEA1"):
            raise ValueError("Feather version 1 is no Arrow file; write it again as version 2")
        return start == b"ARROW1"


class NpyReader:
    """A C-ordered matrix: any row range is one read."""

    def layout(self, file: Any) -> Layout:
        (rows, dim), dtype, _ = self._header(file)
        vector = pa.list_(pa.from_numpy_dtype(dtype.newbyteorder("=")), dim)
        return Layout(rows, None, pa.schema({NPY_COLUMN: vector}))

    def batches(
        self, file: Any, columns: Sequence[str], span: Span, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        (rows, dim), dtype, start = self._header(file)
        row_nbytes = dim * dtype.itemsize
        file.seek(start + span.part * row_nbytes)
        for first in range(span.part, rows, batch_rows):
            data = file.read(min(batch_rows, rows - first) * row_nbytes)
            whole = len(data) // row_nbytes * dim  # a file cut short ends within a row
            values = np.frombuffer(data, dtype, count=whole)
            values = values.astype(dtype.newbyteorder("="), copy=False)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), dim)
            yield pa.record_batch([vectors], names=[NPY_COLUMN])

    @staticmethod
    def _header(file: Any) -> tuple[tuple[int, int], np.dtype[Any], int]:
        shape, dtype, fortran, begin = read_header(file.read(HEADER_NBYTES))
        if len(shape) != 2 or dtype.kind not in "fiub":
            raise ValueError(
                f"it holds an array of shape {shape} and dtype {dtype}; expected a matrix [rows, d]"
                " of float16, float32 or float64"
            )
        if fortran and min(shape) > 1:
            raise ValueError(
                "its rows are not contiguous (Fortran order); save np.ascontiguousarray(x)"
            )
        return (shape[0], shape[1]), dtype, begin


class OrcReader:
    """Stripe by stripe; the file does not say how many rows a stripe has, so one column is read."""

    def layout(self, file: Any) -> Layout:
        orc = self._open(file)
        cheapest = min(orc.schema, key=lambda field: _width(field.type)).name
        parts = tuple(orc.read_stripe(i, columns=[cheapest]).num_rows for i in range(orc.nstripes))
        return Layout(orc.nrows, parts, orc.schema, holds_part=True)

    def batches(
        self, file: Any, columns: Sequence[str], span: Span, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        orc = self._open(file)
        for stripe in range(span.part, orc.nstripes):
            yield from _cut(orc.read_stripe(stripe, columns=list(columns)), batch_rows)

    @staticmethod
    def _open(file: Any) -> Any:
        return pyarrow.orc.ORCFile(file)


class JsonReader:
    """One object a line, read block by block. Lists of whole numbers are read as float64, because
    `[1, 0]` in the first block says nothing of `[0.5, 2]` in the next."""

    def layout(self, file: Any) -> Layout:
        reader = self._open(file)
        rows = sum(len(batch) for batch in reader)
        return Layout(rows, (rows,), reader.schema)

    def batches(
        self, file: Any, columns: Sequence[str], span: Span, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        for batch in self._open(file):
            yield from _cut(batch.select(list(columns)), batch_rows)

    @staticmethod
    def _open(file: Any) -> Any:
        block = json.ReadOptions(use_threads=False, block_size=2 * BUFFER_NBYTES)
        head = pa.BufferReader(_first_lines(file, 2 * BUFFER_NBYTES))
        schema = json.open_json(head, read_options=block).schema
        floats = pa.schema(
            [
                field.with_type(pa.list_(pa.float64())) if _is_integer_list(field.type) else field
                for field in schema
            ]
        )
        parse = json.ParseOptions(explicit_schema=floats)
        return json.open_json(file, read_options=block, parse_options=parse)


READERS: Mapping[str, Reader] = {
    "parquet": ParquetReader(),
    "arrow": ArrowReader(),
    "npy": NpyReader(),
    "orc": OrcReader(),
    "json": JsonReader(),
}


@contextmanager
def _opened(source: Source, objects: Objects | None) -> Iterator[Any]:
    with opened(source, objects, mapped=source.format == "arrow") as file:
        yield file


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    """Turns what a reader says of a broken file into an InputError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        text = " ".join(str(error).split())[:400]
        raise InputError(
            f"{source.uri} cannot be read as {source.format} ({source.nbytes} bytes):"
            f" {type(error).__name__}: {text}. Check that it was written to its end, that you may"
            " read it, and that its suffix names its format."
        ) from error


def _first_lines(file: Any, nbytes: int) -> bytes:
    """Whole lines from the start of a file, which is left at its start."""
    data = bytes(file.read(nbytes))
    file.seek(0)
    return data if len(data) < nbytes else data[: data.rfind(b"\n") + 1]


def _cut(batch: Any, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(batch), rows):
        yield batch.slice(start, rows)


def _width(kind: pa.DataType) -> int:
    """Bits of one value; large where they vary, so that the cheapest column can be chosen."""
    try:
        return int(kind.bit_width)
    except ValueError:
        return 1 << 20


def _is_view(batch: pa.RecordBatch) -> bool:
    """Whether a batch points into a mapped file, rather than holding memory of its own."""
    buffers = [part for column in batch.columns for part in column.buffers() if part is not None]
    return all(part.parent is not None for part in buffers)


def _is_integer_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_integer(kind.value_type))
