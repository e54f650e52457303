"""Stage `apply_machine`: a fitted machine on the rows of a stored dataset. Inputs: vectors, model.

    apply    f of a shard's rows, in blocks     task per shard

What is committed has the shards of the vectors, each with

    values [rows, t] float64     predictions (ridge) or decision values (svm)
    labels [rows] int64          svm of integers: the class; of strings: its place in `classes`
    table  Parquet               row, id, prediction | row, id, label, value

and of kernel PCA a vectors dataset: `vectors` [rows, k] float32 and `rows`, so that graphs and
clusters can be made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.panels import rows_between
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.machines.columns import Class, labels_between, numbers_between
from simdist.stages.machines.machine import Machine, evaluate_nbytes, read_machine
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Float64, Ids, Json, ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["ApplyConfig", "ApplyMachine", "classified"]

BASE_NBYTES = 16 << 20
PIECE = 8192  # rows evaluated at a time


@dataclass(frozen=True, slots=True)
class ApplyConfig:
    """targets: kept columns of what is true, by which predictions are judged; None: nobody knows.
    One for each output of a ridge machine, one of classes for an svm, none for kernel PCA."""

    targets: tuple[str, ...] | None = None

    def to_json(self) -> Json:
        return {} if self.targets is None else {"targets": list(self.targets)}


class ApplyMachine:
    """See the module docstring."""

    name: ClassVar[str] = "apply_machine"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The one round, then the manifest."""
        vectors, model = job.inputs["vectors"], job.inputs["model"]
        if "apply" in rounds:
            return _commit(vectors, model, rounds)
        machine = read_machine(model)
        _refuse_targets(job.config.targets, model, machine)
        dim = int(vectors.metrics["dim"])
        if machine.Z.shape[1] != dim:
            raise InputError(
                f"{model.uri} was fitted on {machine.Z.shape[1]} columns; {vectors.uri} has rows of"
                f" {dim}: they must come from the same import"
            )
        r, t = machine.coefficients.shape
        return Round(
            "apply",
            tuple(
                Task(
                    f"apply-{place:06d}",
                    "apply",
                    {"shard": place},
                    evaluate_nbytes(PIECE, r, dim, t)
                    + shard.rows * (24 * t + 8 * dim + 64)
                    + BASE_NBYTES,
                )
                for place, shard in enumerate(vectors.shards)
            ),
        )

    def compute(self, context: Context, task: Task) -> Record:
        """A shard's rows."""
        vectors, model = context.inputs["vectors"], context.inputs["model"]
        place = task.args["shard"]
        first = sum(shard.rows for shard in vectors.shards[:place])
        last = first + vectors.shards[place].rows
        values = _evaluated(context, read_machine(model), vectors, first, last)
        rows = np.arange(first, last)
        ids = _ids(vectors, place, rows)
        if model.stage == "kernel_pca":
            return _vectors(context, task, values, rows, ids)
        objects: dict[str, ObjectRef] = {"values": context.write_array("values", values)}
        classes = model.metrics.get("classes")
        facts = _judged(vectors, context.config.targets, classes, values, first)
        if classes is None:
            table = _predictions(rows, ids, values)
        else:
            places = classified(values)
            labels = np.array(classes)[places]
            numbers = places if labels.dtype.kind == "U" else labels.astype(np.int64)
            objects["labels"] = context.write_array("labels", numbers)
            table = _labels(rows, ids, labels, values)
        objects["table"] = context.write_table("predictions", table)
        return Record(task.key, objects, facts)

    def forecast(self, config: ApplyConfig, rows: int, dim: int) -> Forecast:
        """Cost of a model of a thousand centres and one output: what model it is, is not known."""
        shard = min(rows, 1 << 17)
        nbytes = evaluate_nbytes(PIECE, 1024, dim, 1) + shard * (8 * dim + 88) + BASE_NBYTES
        tasks = -(-rows // shard) if shard else 0
        return Forecast(tasks, nbytes, 2.0 * rows * 1024 * (dim + 1), 24 * rows)


def _refuse_targets(targets: tuple[str, ...] | None, model: Dataset, machine: Machine) -> None:
    """ConfigError where predictions cannot be judged by so many columns."""
    if targets is None:
        return
    wanted = 1 if "classes" in model.metrics else len(machine.offsets)
    if model.stage == "kernel_pca" or len(targets) != wanted:
        wanted = 0 if model.stage == "kernel_pca" else wanted
        raise ConfigError(
            f"targets={list(targets)}: {model.stage} {model.uri} is judged by {wanted} columns"
        )


def classified(values: Float64) -> Ids:
    """[n] places of classes by their decision values [n, K]: the largest, or the second of two
    where the one value is above 0."""
    if values.shape[1] == 1:
        return np.asarray(values[:, 0] > 0, np.int64)
    return np.asarray(values.argmax(axis=1), np.int64)


def _evaluated(
    context: Context, machine: Machine, vectors: Dataset, first: int, last: int
) -> Float64:
    out = np.empty((last - first, len(machine.offsets)))
    for begin in range(first, last, PIECE):
        context.check()
        end = min(begin + PIECE, last)
        out[begin - first : end - first] = machine(rows_between(vectors, "vectors", begin, end))
    return out


def _judged(
    vectors: Dataset,
    targets: tuple[str, ...] | None,
    classes: list[Class] | None,
    values: Float64,
    first: int,
) -> dict[str, Json]:
    """What a shard's predictions are worth: sums of errors, or how many are right."""
    if targets is None:
        return {}
    last = first + len(values)
    if classes is not None:
        places = labels_between(vectors, targets[0], first, last, classes)
        return {"right": int(np.sum(classified(values) == places))}
    truth = numbers_between(vectors, targets, first, last)
    return {
        "errors": np.square(truth - values).sum(axis=0).tolist(),
        "sums": truth.sum(axis=0).tolist(),
        "squares": np.square(truth).sum(axis=0).tolist(),
    }


def _verdict(records: Sequence[Record], rows: int) -> dict[str, Json]:
    """rmse and r2 of every target (None of one that is constant), or accuracy."""
    if "right" in records[0].facts:
        return {"accuracy": sum(int(record.facts["right"]) for record in records) / rows}
    if "errors" not in records[0].facts:
        return {}
    errors, sums, squares = (
        np.sum([record.facts[name] for record in records], axis=0)
        for name in ("errors", "sums", "squares")
    )
    spread = squares - np.square(sums) / rows
    return {
        "rmse": np.sqrt(errors / rows).tolist(),
        "r2": [
            1.0 - float(e) / float(s) if s > 0 else None
            for e, s in zip(errors, spread, strict=True)
        ],
    }


def _ids(vectors: Dataset, place: int, rows: Ids) -> Array | pa.ChunkedArray:
    shard = vectors.shards[place]
    if "rows" not in shard.objects:
        return rows
    return vectors.store.read_table(shard.objects["rows"], ["id"])["id"]


def _vectors(
    context: Context, task: Task, values: Float64, rows: Ids, ids: Array | pa.ChunkedArray
) -> Record:
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    vectors = values.astype(np.float32)
    blank = np.flatnonzero(~vectors.any(axis=1))
    objects = {
        "vectors": context.write_array("vectors", vectors),
        "rows": context.write_table("rows", pa.table({"row": rows, "id": ids})),
    }
    return Record(task.key, objects, {"zero": int(rows[blank[0]]) if len(blank) else None})


def _predictions(rows: Ids, ids: Array | pa.ChunkedArray, values: Float64) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    flat = pa.array(np.ascontiguousarray(values).ravel())
    t = values.shape[1]
    column = flat if t == 1 else pa.FixedSizeListArray.from_arrays(flat, t)
    return pa.table({"row": rows, "id": ids, "prediction": column})


def _labels(rows: Ids, ids: Array | pa.ChunkedArray, labels: Array, values: Float64) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    return pa.table({"row": rows, "id": ids, "label": labels, "value": values.max(axis=1)})


def _commit(vectors: Dataset, model: Dataset, rounds: Rounds) -> Commit:
    records = rounds["apply"]
    shards = tuple(
        Shard(shard.rows, dict(record.objects))
        for shard, record in zip(vectors.shards, records, strict=True)
    )
    metrics: dict[str, Json] = {"model": model.stage, "formula": model.metrics["formula"]}
    if model.stage == "kernel_pca":
        zeros = [record.facts["zero"] for record in records if record.facts["zero"] is not None]
        metrics |= {
            "dim": int(model.metrics["components"]),
            "dtype": "float32",
            "id": vectors.metrics.get("id", "row"),
            "first_zero_row": min(zeros, default=None),
        }
    classes: list[Class] | None = model.metrics.get("classes")
    if classes is not None:
        metrics["classes"] = classes
    metrics |= _verdict(records, vectors.rows)
    return Commit(vectors.rows, shards, metrics)
