"""Stages `scale_vectors` and `neighbor_gp_sample`: rows in the kernel's lengths, and some of them.

Both give vectors datasets, for `knn` under euclidean distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.lists import ids_of_rows
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.neighbor_gp.config import PlainConfig, SampleConfig
from simdist.stages.neighbor_gp.parameters import Parameters
from simdist.stages.neighbor_gp.targets import take
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Ids, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["SampleVectors", "ScaleVectors", "sampled_rows"]

BASE_NBYTES = 16 << 20
ID_NBYTES = 100  # of a row's id, as a table and on its way there


class ScaleVectors:
    """Rows over the lengthscales that `parameters` found. Inputs: vectors, parameters. Shards and
    ids as the vectors'."""

    name: ClassVar[str] = "scale_vectors"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """A task per shard, and the manifest."""
        vectors = job.inputs["vectors"]
        _refuse_other_columns(vectors, Parameters.of(job.inputs["parameters"]))
        dim = int(vectors.metrics["dim"])
        if "scale" not in rounds:
            nbytes = [shard.rows * (24 * dim + ID_NBYTES) + BASE_NBYTES for shard in vectors.shards]
            return Round(
                "scale",
                tuple(
                    Task(f"scale-{i:06d}", "scale", {"shard": i}, size)
                    for i, size in enumerate(nbytes)
                ),
            )
        shards = tuple(
            Shard(shard.rows, record.objects)
            for shard, record in zip(vectors.shards, rounds["scale"], strict=True)
        )
        zero = [r.facts["zero"] for r in rounds["scale"] if r.facts["zero"] is not None]
        return Commit(vectors.rows, shards, _vectors_metrics(vectors, zero))

    def compute(self, context: Context, task: Task) -> Record:
        vectors = context.inputs["vectors"]
        shards, i = vectors.shards, task.args["shard"]
        first = sum(shard.rows for shard in shards[:i])
        rows = np.arange(first, first + shards[i].rows)
        X = context.load(shards[i].objects["vectors"], store=vectors.store)
        scaled = Parameters.of(context.inputs["parameters"]).scaled(X)
        return _written(context, task, scaled, rows, vectors)

    def forecast(self, config: PlainConfig, rows: int, dim: int) -> Forecast:
        shards = max(1, -(-rows // min(1 << 17, max(1, (16 << 20) // (4 * dim)))))
        one = -(-rows // shards)
        nbytes = one * (24 * dim + ID_NBYTES) + BASE_NBYTES
        return Forecast(shards, nbytes, 2.0 * rows * dim, rows * (4 * dim + 16))


class SampleVectors:
    """Some rows, in ascending order, one shard; with "positions" [rows] int64, the numbers they
    have where they come from. Inputs: vectors."""

    name: ClassVar[str] = "neighbor_gp_sample"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        vectors, config = job.inputs["vectors"], job.config
        size = min(config.rows, vectors.rows)
        if "sample" not in rounds:
            nbytes = _sample_nbytes(size, int(vectors.metrics["dim"]))
            return Round("sample", (Task("sample", "sample", {}, nbytes),))
        record = rounds["sample"][0]
        zero = [] if record.facts["zero"] is None else [record.facts["zero"]]
        shard = Shard(size, record.objects)
        return Commit(size, (shard,), _vectors_metrics(vectors, zero))

    def compute(self, context: Context, task: Task) -> Record:
        vectors = context.inputs["vectors"]
        chosen = sampled_rows(context.config, vectors.rows, context.rng("sample"))
        found = _written(context, task, take(vectors, "vectors", chosen), chosen, vectors)
        positions = context.write_array("positions", chosen)
        return Record(task.key, {**found.objects, "positions": positions}, found.facts)

    def forecast(self, config: SampleConfig, rows: int, dim: int) -> Forecast:
        size = min(config.rows, rows)
        return Forecast(1, _sample_nbytes(size, dim), 0.0, size * (4 * dim + 24))


def sampled_rows(config: SampleConfig, n: int, rng: np.random.Generator) -> Ids:
    """Ascending rows of n."""
    chosen: Ids = np.sort(rng.choice(n, min(config.rows, n), replace=False)).astype(np.int64)
    return chosen


def _sample_nbytes(size: int, dim: int) -> int:
    return size * (16 * dim + ID_NBYTES) + BASE_NBYTES


def _written(context: Context, task: Task, vectors: Array, rows: Ids, source: Dataset) -> Record:
    """Rows as a shard of a vectors dataset. Facts: zero, the first row of zeros."""
    blank = np.flatnonzero(~vectors.any(axis=1))
    objects = {
        "vectors": context.write_array("vectors", vectors),
        "rows": context.write_table("rows", _rows_table(source, rows)),
    }
    return Record(task.key, objects, {"zero": int(rows[blank[0]]) if len(blank) else None})


def _rows_table(source: Dataset, rows: Ids) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    known = "rows" in source.shards[0].objects
    ids = ids_of_rows(source, rows) if known else pa.array(rows)
    return pa.table({"row": pa.array(rows), "id": ids})


def _vectors_metrics(vectors: Dataset, zero: list[Json]) -> dict[str, Json]:
    return {
        "dim": int(vectors.metrics["dim"]),
        "dtype": "float32",
        "id": vectors.metrics.get("id", "row"),
        "first_zero_row": min(zero, default=None),
    }


def _refuse_other_columns(vectors: Dataset, parameters: Parameters) -> None:
    if int(vectors.metrics["dim"]) != len(parameters.weights):
        raise InputError(
            f"{vectors.uri} has {vectors.metrics['dim']} columns; the model was fitted on"
            f" {len(parameters.weights)}: give rows with the same columns"
        )
