"""Stage `map_features`: features of the rows of a stored dataset. Inputs: vectors, model.

    map    f of a run of rows, in blocks     task a run

What is committed is a vectors dataset: `vectors` [rows, components] float32, and `rows` with the
ids and kept columns that the rows came with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.panels import rows_between
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.runner.resident import keep_within
from simdist.stages.features.maps import map_nbytes, read_map
from simdist.store.datasets import Dataset, Shard
from simdist.types import Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["ApplyConfig", "MapFeatures"]

BASE_NBYTES = 16 << 20
ID_NBYTES = 256  # of a row's id and kept columns, guessed


@dataclass(frozen=True, slots=True)
class ApplyConfig:
    """components: how many features the model has, at most. run: rows of a shard of features."""

    components: int
    run: int

    def to_json(self) -> Json:
        return {"components": self.components, "run": self.run}


class MapFeatures:
    """See the module docstring."""

    name: ClassVar[str] = "map_features"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        vectors, model, run = job.inputs["vectors"], job.inputs["model"], job.config.run
        if "map" in rounds:
            return _commit(vectors, model, rounds)
        columns, components = read_map(model).columns, model.rows
        dim = int(vectors.metrics["dim"])
        if columns != dim:
            raise InputError(
                f"{model.uri} was fitted on rows of {columns} columns; {vectors.uri} has {dim}:"
                " give rows with the same columns"
            )
        nbytes = _task_nbytes(min(run, vectors.rows), components, dim)
        tasks = (
            Task(f"map-{place:06d}", "map", {"first": first}, nbytes)
            for place, first in enumerate(range(0, vectors.rows, run))
        )
        return Round("map", tuple(tasks))

    def compute(self, context: Context, task: Task) -> Record:
        vectors, first = context.inputs["vectors"], int(task.args["first"])
        last = min(first + context.config.run, vectors.rows)
        rows = rows_between(vectors, "vectors", first, last)
        found = read_map(context.inputs["model"])(rows, dtype=np.float32, check=context.check)
        blank = np.flatnonzero(~found.any(axis=1))
        objects = {
            "vectors": context.write_array("vectors", found),
            "rows": context.write_table("rows", _table(vectors, first, last)),
        }
        facts = {"rows": last - first, "zero": first + int(blank[0]) if len(blank) else None}
        return Record(task.key, objects, facts)

    def forecast(self, config: ApplyConfig, rows: int, dim: int) -> Forecast:
        """Cost with a Nystroem map; a random one costs less."""
        run, components = min(config.run, rows), config.components
        nbytes = _task_nbytes(run, components, dim)
        flops = 2.0 * rows * components * (dim + components)
        return Forecast(-(-rows // max(run, 1)), nbytes, flops, 4 * rows * components)


def _task_nbytes(rows: int, components: int, dim: int) -> int:
    return map_nbytes(rows, components, dim) + rows * ID_NBYTES + BASE_NBYTES


def _table(vectors: Dataset, first: int, last: int) -> pa.Table:
    """The rows table of a run of rows: row, id and what else is kept."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    if "rows" not in vectors.shards[0].objects:
        rows = pa.array(np.arange(first, last))
        return pa.table({"row": rows, "id": rows})
    parts, offset = [], 0
    for shard in vectors.shards:
        low, high = max(first - offset, 0), min(last - offset, shard.rows)
        offset += shard.rows
        if low < high:
            keep_within()
            table = vectors.store.read_table(shard.objects["rows"])
            parts.append(table.slice(low, high - low))
    return pa.concat_tables(parts).combine_chunks()


def _commit(vectors: Dataset, model: Dataset, rounds: Rounds) -> Commit:
    records = rounds["map"]
    shards = tuple(Shard(int(record.facts["rows"]), dict(record.objects)) for record in records)
    zeros = [record.facts["zero"] for record in records if record.facts["zero"] is not None]
    metrics: dict[str, Json] = {
        "dim": model.rows,
        "dtype": "float32",
        "id": vectors.metrics.get("id", "row"),
        "first_zero_row": min(zeros, default=None),
        "map": model.metrics["map"],
        "formula": model.metrics["formula"],
    }
    return Commit(vectors.rows, shards, metrics)
