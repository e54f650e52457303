"""Files of edges: which there are, and their rows as batches of arrays.

    path, glob, folder, s3:// prefix ──> EdgeFile(uri, nbytes, etag), sorted ──> EdgeBatch, in order

Parquet and CSV (with a header; .tsv: by tabs). Edges are numbered within a file from 0, as errors
name them.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simdist.errors import InputError
from simdist.store.objects import Objects
from simdist.store.place import Place
from simdist.types import Array, Ids, Json

if TYPE_CHECKING:
    from simdist.store.store import Store

__all__ = ["FORMATS", "EdgeBatch", "EdgeColumns", "EdgeFile", "batches", "find", "row_count"]

FORMATS: Mapping[str, str] = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv"}
BATCH_ROWS = 262_144
BLOCK_NBYTES = 4 << 20  # of a CSV file, parsed at once


@dataclass(frozen=True, slots=True)
class EdgeFile:
    """A file as it was when it was listed. uri: an absolute local path, or an object's address."""

    uri: str
    nbytes: int
    etag: str | None

    def to_json(self) -> dict[str, Json]:
        return asdict(self)

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.uri).suffix.lower()


@dataclass(frozen=True, slots=True)
class EdgeColumns:
    """Columns of the ends of an edge, and of its weight; None: every edge weighs 1."""

    row: str
    neighbor: str
    weight: str | None

    @property
    def names(self) -> list[str]:
        return [name for name in (self.row, self.neighbor, self.weight) if name is not None]


class EdgeBatch(NamedTuple):
    """Consecutive edges of a file, from its edge `first` on."""

    first: int
    rows: Ids
    neighbors: Ids
    weights: Array


def find(path: str, store: Store | None) -> tuple[tuple[EdgeFile, ...], Objects | None]:
    """The files a path, glob, folder or s3:// prefix names, and what reaches them (None: locally).

    store: lends its endpoint and credentials to s3:// files.
    Raises InputError where there is none, or one of another format.
    """
    scheme, mark, rest = path.partition("://")
    if mark and scheme != "file":
        found, objects = _remote(scheme, rest, store)
    else:
        found, objects = _local(rest if mark else path), None
    if not found:
        raise InputError(f"no file of edges: {path} matches nothing that ends in {_suffixes()}")
    for file in found:
        if file.suffix not in FORMATS:
            raise InputError(
                f"{file.uri}: its suffix {file.suffix!r} tells no format of edges; expected one of"
                f" {_suffixes()}, or a local .npz"
            )
    return tuple(sorted(found, key=lambda file: file.uri)), objects


def row_count(file: EdgeFile, objects: Objects | None) -> int | None:
    """How many edges a Parquet file says it has; None where only reading it tells."""
    if FORMATS[file.suffix] != "parquet":
        return None
    with _parquet(file, objects) as opened:
        return int(opened.metadata.num_rows)


def batches(
    file: EdgeFile,
    objects: Objects | None,
    columns: EdgeColumns,
    first: int = 0,
    count: int | None = None,
) -> Iterator[EdgeBatch]:
    """Edges [first, first + count) of a file, some BATCH_ROWS at a time.

    Raises InputError for a missing column, a NULL, a node that is no whole number, a weight that is
    no number, and a file that changed since it was listed.
    """
    last = None if count is None else first + count
    for begin, table in _tables(file, objects, columns, first):
        if last is not None and begin >= last:
            return
        low = max(first - begin, 0)
        high = len(table) if last is None else min(last - begin, len(table))
        if low < high:
            yield _batch(file, columns, table.slice(low, high - low), begin + low)


def _tables(
    file: EdgeFile, objects: Objects | None, columns: EdgeColumns, first: int
) -> Iterator[tuple[int, Any]]:
    """(number of its first edge, table) of a file's batches, from the one that holds `first` on or
    from an earlier one."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need
    from pyarrow import csv  # noqa: PLC0415

    if FORMATS[file.suffix] == "parquet":
        with _parquet(file, objects) as opened:
            _refuse_missing(file, columns, opened.schema_arrow.names)
            sizes = [opened.metadata.row_group(g).num_rows for g in range(opened.num_row_groups)]
            ends = np.cumsum(sizes) if sizes else np.zeros(0, np.int64)
            group = int(np.searchsorted(ends, first, side="right"))
            begin = int(ends[group - 1]) if group else 0
            groups = list(range(group, len(sizes)))
            for batch in opened.iter_batches(
                BATCH_ROWS, row_groups=groups, columns=columns.names, use_threads=False
            ):
                yield begin, pa.Table.from_batches([batch])
                begin += len(batch)
        return
    with _opened(file, objects) as source:
        try:
            reader = csv.open_csv(
                source,
                read_options=csv.ReadOptions(use_threads=False, block_size=BLOCK_NBYTES),
                parse_options=csv.ParseOptions(delimiter="\t" if file.suffix == ".tsv" else ","),
            )
            _refuse_missing(file, columns, reader.schema.names)
            begin = 0
            for batch in reader:
                yield begin, pa.Table.from_batches([batch]).select(columns.names)
                begin += len(batch)
        except pa.ArrowInvalid as error:
            raise InputError(f"{file.uri} cannot be read as CSV with a header: {error}") from None


def _batch(file: EdgeFile, columns: EdgeColumns, table: Any, first: int) -> EdgeBatch:
    """The columns as arrays, refused where they are none."""
    import pyarrow as pa  # noqa: PLC0415

    found: list[Array] = []
    for name in columns.names:
        column = table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no rows
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([])
        if column.null_count:
            row = first + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise InputError(f"{file.uri}, edge {row}: column {name!r} is NULL; expected a number")
        wanted = pa.types.is_integer if name != columns.weight else _is_number
        if not wanted(column.type):
            kind = "whole numbers" if name != columns.weight else "numbers"
            raise InputError(
                f"{file.uri}: column {name!r} holds {column.type}; expected {kind}. Nodes are"
                " numbered from 0: join your own names to numbers first."
            )
        found.append(column.to_numpy(zero_copy_only=False))
    rows, neighbors = (ends.astype(np.int64, copy=False) for ends in found[:2])
    weights = found[2] if columns.weight is not None else np.ones(len(rows), np.float32)
    return EdgeBatch(first, rows, neighbors, weights)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _refuse_missing(file: EdgeFile, columns: EdgeColumns, there: list[str]) -> None:
    missing = [name for name in columns.names if name not in there]
    if missing:
        raise InputError(
            f"{file.uri} has no column {missing[0]!r}; its columns are {', '.join(there)}. Name"
            " them with row=, neighbor= and weight=."
        )


@contextmanager
def _parquet(file: EdgeFile, objects: Objects | None) -> Iterator[Any]:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    with _opened(file, objects) as source:
        try:
            opened = pq.ParquetFile(source)
        except pa.ArrowInvalid as error:
            raise InputError(f"{file.uri} cannot be read as Parquet: {error}") from None
        with opened:
            yield opened


@contextmanager
def _opened(file: EdgeFile, objects: Objects | None) -> Iterator[Any]:
    """The file for pyarrow; InputError where it is not the one that was listed."""
    import pyarrow as pa  # noqa: PLC0415

    now = _as_it_is(file, objects)
    if now != file:
        raise InputError(
            f"{file.uri} {'is gone' if now is None else 'changed'} since the import began. Let its"
            " writer finish, then run the import again."
        )
    source = pa.OSFile(file.uri) if objects is None else objects.open(_key(file.uri))
    with source:
        yield source


def _as_it_is(file: EdgeFile, objects: Objects | None) -> EdgeFile | None:
    if objects is None:
        return _listed(file.uri) if os.path.exists(file.uri) else None
    info = objects.head(_key(file.uri))
    return None if info is None else EdgeFile(file.uri, info.nbytes, info.etag)


def _listed(path: str) -> EdgeFile:
    state = Path(path).stat()
    return EdgeFile(path, state.st_size, f"{state.st_mtime_ns:x}-{state.st_size:x}")


def _local(path: str) -> list[EdgeFile]:
    text = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(text):
        below = glob.glob(os.path.join(glob.escape(text), "**", "*"), recursive=True)
        return [_listed(name) for name in below if PurePosixPath(name).suffix.lower() in FORMATS]
    names = [text] if os.path.isfile(text) else glob.glob(text, recursive=True)
    return [_listed(name) for name in names if os.path.isfile(name)]


def _remote(scheme: str, rest: str, store: Store | None) -> tuple[list[EdgeFile], Objects]:
    """What lies at an address, or below it."""
    root = f"{scheme}://{rest.split('/', 1)[0]}"
    place = Place.parse(root, {})
    if store is not None and store.objects.place.scheme == place.scheme:
        place = replace(place, options=store.objects.place.options)
    objects, key = Objects(place), rest.partition("/")[2]
    info = objects.head(key) if key and not key.endswith("/") else None
    if info is not None:
        return [EdgeFile(f"{root}/{key}", info.nbytes, info.etag)], objects
    prefix = f"{key.rstrip('/')}/" if key else ""
    found = [
        EdgeFile(f"{root}/{info.key}", info.nbytes, info.etag)
        for info in objects.list(prefix)
        if PurePosixPath(info.key).suffix.lower() in FORMATS
    ]
    return found, objects


def _key(uri: str) -> str:
    return uri.split("://", 1)[1].partition("/")[2]


def _suffixes() -> str:
    return ", ".join(FORMATS)
