"""Rows or values from an array as a dataset: written where the array is, committed without a task.

Unlike an import they keep float64: a density of rows far apart by tiny bandwidths needs the digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np

from simdist.errors import InputError
from simdist.runner.plan import Commit, Job, Round, Rounds, Taskless
from simdist.store.datasets import Shard
from simdist.types import Array, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.store.store import Store

__all__ = ["GivenConfig", "GivenRows", "Role", "write_given"]

SHARD_NBYTES = 16 << 20

Role: TypeAlias = Literal["vectors", "values"]


@dataclass(frozen=True, slots=True)
class GivenConfig:
    """The shards of an array as they lie in the store. role: what they are. zero: the first row of
    zeros, if any."""

    role: Role
    rows: int
    dim: int
    dtype: str
    shard_rows: int
    arrays: tuple[ObjectRef, ...]
    tables: tuple[ObjectRef, ...]
    zero: int | None

    def to_json(self) -> Json:
        return {"role": self.role, "rows": self.rows, "arrays": [ref.sha256 for ref in self.arrays]}


def write_given(x: Array, store: Store, *, role: Role, what: str) -> GivenConfig:
    """Write an array's shards. x: [n, d] finite numbers (values: [n] too). what: for errors.

    float16 becomes float32, integers float64. Raises InputError for another shape or type, for no
    rows or columns, and naming the first row that is not finite.
    """
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    x = _checked(np.asarray(x), role, what)
    size = max(SHARD_NBYTES // (x.itemsize * x.shape[1]), 1)
    arrays, tables = [], []
    for first in range(0, len(x), size):
        part = x[first : first + size]
        numbers = pa.array(np.arange(first, first + len(part)))
        arrays.append(store.write_array(role, part))
        tables.append(store.write_table("rows", pa.table({"row": numbers, "id": numbers})))
    zeros = np.flatnonzero(~x.any(axis=1))
    zero = int(zeros[0]) if len(zeros) else None
    n, d = x.shape
    return GivenConfig(role, n, d, x.dtype.name, size, tuple(arrays), tuple(tables), zero)


def _checked(x: Array, role: Role, what: str) -> Array:
    if role == "values" and x.ndim == 1:
        x = x[:, None]
    expected = "[n, d]" if role == "vectors" else "[n] or [n, t]"
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise InputError(
            f"{what}: expected {expected} of real numbers; got {x.dtype} of shape {x.shape}"
        )
    if not x.size:
        raise InputError(f"{what}: shape {x.shape} has no rows or no columns; expected some")
    if x.dtype.kind != "f":
        x = x.astype(np.float64)
    elif x.dtype.itemsize < 4:
        x = x.astype(np.float32)
    elif x.dtype.itemsize > 8:
        x = x.astype(np.float64)
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(f"{what}: row {row} of {len(x)} holds NaN or infinity; remove or mend it")
    return x


class GivenRows(Taskless):
    """Commits shards that lie in the store already; has no tasks."""

    name: ClassVar[str] = "given_rows"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        config: GivenConfig = job.config
        shards, left = [], config.rows
        for array, table in zip(config.arrays, config.tables, strict=True):
            objects = {config.role: array, "rows": table}
            shards.append(Shard(min(left, config.shard_rows), objects))
            left -= config.shard_rows
        metrics: dict[str, Json] = {"dtype": config.dtype, "id": "row"}
        if config.role == "vectors":
            metrics |= {"dim": config.dim, "first_zero_row": config.zero}
        else:
            metrics |= {"columns": config.dim}
        return Commit(config.rows, tuple(shards), metrics)
