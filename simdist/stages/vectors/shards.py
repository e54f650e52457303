"""Batches of any length become shards of one length, written as they fill.

    batches  |---|-----|--|----|          source files, row groups, batches: any cuts
    shards   |------|------|------|-|     [R, d] .npy + rows(row, id, kept columns) .parquet
    runs     |-------------|--------|     hashes of ids, sorted, for finding duplicates

Shard borders follow from the row number and d alone, so the same rows give the same objects
whatever files they came in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from simdist.types import Array, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

Hashes: TypeAlias = npt.NDArray[np.uint64]

__all__ = ["RUN_ROWS", "ShardWriter", "hashes_of", "shard_rows"]

SHARD_NBYTES = 16 << 20  # of float32: large enough for one request, small enough to hold a few
MOST_ROWS = 1 << 17  # of a shard, however short its vectors: ids and kept columns take room too
RUN_ROWS = 1 << 20  # ids whose hashes are sorted together: 16 MiB


def shard_rows(dim: int) -> int:
    """Rows of a shard: a power of two, about 16 MiB as float32."""
    rows = max(1, SHARD_NBYTES // (4 * dim))
    return int(min(1 << (rows.bit_length() - 1), MOST_ROWS))


class ShardWriter:
    """Collects vectors and rows, and writes a shard whenever one is full.

    first_row: the number of the first row added; a shard starts there.
    schema: of the rows table. hashed: whether its ids are to be checked for duplicates.
    After `close`: vectors and rows, one object a shard; runs, one object a run.
    """

    def __init__(
        self,
        context: Context,
        *,
        first_row: int,
        dim: int,
        dtype: str,
        schema: pa.Schema,
        hashed: bool,
    ) -> None:
        self.vectors: list[ObjectRef] = []
        self.rows: list[ObjectRef] = []
        self.runs: list[ObjectRef] = []
        self._context = context
        self._schema = schema
        self._hashed = hashed
        self._buffer = np.empty((shard_rows(dim), dim), dtype)
        self._filled = 0
        self._batches: list[pa.RecordBatch] = []
        self._run_row = first_row
        self._hashes: list[Hashes] = []

    def add(self, vectors: Array, batch: pa.RecordBatch) -> None:
        """Take rows in order: vectors [m, d] and as many rows of the rows table."""
        if self._hashed:
            self._hashes.append(hashes_of(batch.column("id")))
            if sum(map(len, self._hashes)) >= RUN_ROWS:
                self._write_run()
        while len(vectors):
            count = min(len(vectors), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + count] = vectors[:count]
            self._batches.append(batch.slice(0, count))
            self._filled += count
            if self._filled == len(self._buffer):
                self._write_shard()
            vectors, batch = vectors[count:], batch.slice(count)

    def close(self) -> None:
        """Write what is left."""
        if self._filled:
            self._write_shard()
        if self._hashes:
            self._write_run()

    def _write_shard(self) -> None:
        table = pa.Table.from_batches(self._batches, self._schema)
        self.vectors.append(self._context.write_array("vectors", self._buffer[: self._filled]))
        self.rows.append(self._context.write_table("rows", table))
        self._filled = 0
        self._batches = []

    def _write_run(self) -> None:
        """[2, m] uint64: hashes in ascending order, and the row each belongs to."""
        hashes = np.concatenate(self._hashes)
        self._hashes = []
        order = np.argsort(hashes, kind="stable")
        run = np.stack([hashes[order], order.view(np.uint64) + np.uint64(self._run_row)])
        self.runs.append(self._context.write_array("hashes", run))
        self._run_row += len(hashes)


def hashes_of(ids: pa.Array) -> Hashes:
    """64-bit hashes of int64 or string ids without NULLs: [m] uint64."""
    from simdist.compiled import hashing  # noqa: PLC0415 - numba, which only a worker needs

    if pa.types.is_int64(ids.type):
        numbers: Hashes = hashing.hash_integers(_read_only(ids.to_numpy().view(np.uint64)))
        return numbers
    _, offsets, data = ids.buffers()
    starts = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    text = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    hashes: Hashes = hashing.hash_strings(_read_only(text), _read_only(starts))
    return hashes


def _read_only(array: Array) -> Array:
    """Arrow's buffers may be writable or not: to numba two types, each compiled in its own time."""
    view = array.view()
    view.flags.writeable = False
    return view
