"""Arrays as kept columns of a vectors dataset: written where the arrays are, committed at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.runner.plan import Commit, Job, Round, Rounds, Taskless
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["ColumnsConfig", "GivenColumns", "write_columns"]


@dataclass(frozen=True, slots=True)
class ColumnsConfig:
    """names of the columns; rows: the table of every shard, as it lies in the store."""

    names: tuple[str, ...]
    rows: tuple[ObjectRef, ...]

    def to_json(self) -> Json:
        return {"keep": list(self.names), "rows": [ref.sha256 for ref in self.rows]}


def write_columns(vectors: Dataset, columns: Mapping[str, Array]) -> ColumnsConfig:
    """Write the shards' tables with further columns. columns: [n] numbers or strings, by name.

    Raises InputError where a column has another number of rows.
    """
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    for name, column in columns.items():
        if len(column) != vectors.rows:
            raise InputError(f"{name} has {len(column)} rows, the vectors {vectors.rows}")
    tables, first = [], 0
    for shard in vectors.shards:
        table = vectors.store.read_table(shard.objects["rows"])
        for name, column in columns.items():
            part = np.asarray(column)[first : first + shard.rows]
            table = table.append_column(name, pa.array(part))
        tables.append(vectors.store.write_table("rows", table))
        first += shard.rows
    return ColumnsConfig(tuple(columns), tuple(tables))


class GivenColumns(Taskless):
    """Commits the vectors with other tables; has no tasks. Input: vectors."""

    name: ClassVar[str] = "given_columns"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        vectors, config = job.inputs["vectors"], job.config
        shards = tuple(
            Shard(shard.rows, {**shard.objects, "rows": ref}, shard.facts)
            for shard, ref in zip(vectors.shards, config.rows, strict=True)
        )
        return Commit(vectors.rows, shards, dict(vectors.metrics))
