"""An array as a vectors dataset: its shards are written by whoever holds it, and committed.

    x [n, d] ── cut every `shard_rows(d)` rows ──> vectors-*.npy, rows-*.parquet ──> commit

No task reads the array again: what lies in the store is what an import of the same rows from a .npy
file would leave, under the same fingerprint.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from simdist.runner.plan import Commit, Job, Round, Rounds, Taskless
from simdist.stages.vectors.checking import finite_rows, first_zero_row
from simdist.stages.vectors.formats import NPY_COLUMN
from simdist.stages.vectors.shards import shard_rows
from simdist.stages.vectors.stage import ImportVectors, commit_of
from simdist.types import Array, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.store.store import Store

__all__ = ["ArrayConfig", "ImportArray", "write_shards"]

WRITERS = 2  # shards hashed and written side by side
ROWS = pa.schema([("row", pa.int64()), ("id", pa.int64())])


@dataclass(frozen=True, slots=True)
class ArrayConfig:
    """The shards of an array as they lie in the store. zero: its first row of zeros, if any."""

    rows: int
    dim: int
    dtype: str
    vectors: tuple[ObjectRef, ...]
    tables: tuple[ObjectRef, ...]
    zero: int | None

    def to_json(self) -> dict[str, Json]:
        shards: list[Json] = [ref.sha256 for ref in (*self.vectors, *self.tables)]
        return {**self.content(), "array": shards}

    def content(self) -> dict[str, Json]:
        """What a committed manifest says: that of an import of the same rows from a file."""
        return {"vector": NPY_COLUMN, "id": None, "keep": []}


def write_shards(x: Array, store: Store) -> ArrayConfig:
    """Write an array's shards. x: [n, d] float16, float32 or float64 (narrowed), not empty.

    Raises InputError naming the first row with an element that is not finite as float32.
    """
    dtype = np.dtype(np.float16 if x.dtype == np.float16 else np.float32)
    size = shard_rows(x.shape[1])
    as_it_is = x.dtype == dtype and x.flags.c_contiguous
    kept = not as_it_is and store.has_room(x.size * dtype.itemsize)
    whole = np.empty(x.shape, dtype) if kept else None  # so that all rows lie in one piece

    def write(first: int) -> tuple[ObjectRef, ObjectRef, int | None]:
        part = slice(first, first + size)
        rows = finite_rows(
            x[part],
            dtype,
            f"the array, row {{row}} of {len(x)}",
            first,
            out=None if whole is None else whole[part],
        )
        numbers = pa.array(np.arange(first, first + len(rows)))
        zero = first_zero_row(rows)
        return (
            store.write_array("vectors", rows),
            store.write_table("rows", pa.table([numbers, numbers], schema=ROWS)),
            None if zero is None else first + zero,
        )

    with ThreadPoolExecutor(WRITERS, thread_name_prefix="simdist-array") as pool:
        written = list(pool.map(write, range(0, len(x), size)))
    vectors, tables, zeros = zip(*written, strict=True)
    first_zero = min((zero for zero in zeros if zero is not None), default=None)
    return ArrayConfig(len(x), x.shape[1], dtype.name, vectors, tables, first_zero)


class ImportArray(Taskless):
    """Commits shards that lie in the store already; has no tasks."""

    name: ClassVar[str] = ImportVectors.name
    VERSION: ClassVar[int] = ImportVectors.VERSION

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        config: ArrayConfig = job.config
        return commit_of(
            config.content(),
            list(config.vectors),
            list(config.tables),
            rows=config.rows,
            dim=config.dim,
            dtype=config.dtype,
            id_type="row",
            zero=config.zero,
        )
