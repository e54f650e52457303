"""Stages `neighbor_gp` and `neighbor_gp_predict`: local solves over lists of neighbours.

    solve    rows of a shard of k-NN lists, each from its own neighbours       task per shard

`neighbor_gp` solves a sample of the training rows, each without itself, and commits the model: what
the parameters are, and the factor by which variances are off. `neighbor_gp_predict` solves rows of
the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from simdist.errors import ObjectMissing
from simdist.lists import ids_of_rows
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.neighbor_gp.config import ModelConfig, PredictConfig
from simdist.stages.neighbor_gp.local import Local, local_nbytes, predict_rows
from simdist.stages.neighbor_gp.parameters import Parameters
from simdist.stages.neighbor_gp.scores import calibrated_report
from simdist.stages.neighbor_gp.targets import take
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Float64, Ids, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["NeighborModel", "NeighborPredict", "Predicted", "predicted", "without_self"]

BASE_NBYTES = 16 << 20
RUN_NBYTES = 64 << 20  # of neighbours fetched at a time
LISTED_NBYTES = 40  # of one neighbour in a list, as a table and as arrays


class NeighborModel:
    """The model. Inputs: vectors, parameters, scaled, sample (of these) and hits (k + 1 neighbours
    of the sample in them). Rows are the sample's, with mean and latent [rows], standardised, each
    without itself; the metrics are `Parameters`, the calibration and the scores."""

    name: ClassVar[str] = "neighbor_gp"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """solve, and the manifest with the calibration and the scores."""
        parameters, hits = Parameters.of(job.inputs["parameters"]), job.inputs["hits"]
        if "solve" not in rounds:
            return _solve_round(hits, job.inputs["vectors"])
        records = rounds["solve"]
        local = Local(*(_whole(context, records, role) for role in ("mean", "latent")))
        positions = take(job.inputs["sample"], "positions", np.arange(hits.rows))
        y = take(job.inputs["parameters"], "targets", positions)
        found = predicted(local, parameters)
        calibration, scores = calibrated_report(y, found.mean, found.variance)
        metrics = {
            **parameters.to_json(),
            "calibration": calibration,
            "held_out": scores,
            "neighbors": job.config.neighbors,
            "method": job.config.method,
            "recall": job.config.recall,
            "training_rows": job.inputs["vectors"].rows,
            "dim": int(job.inputs["vectors"].metrics["dim"]),
        }
        shards = tuple(
            Shard(shard.rows, record.objects)
            for shard, record in zip(hits.shards, records, strict=True)
        )
        return Commit(hits.rows, shards, metrics)

    def compute(self, context: Context, task: Task) -> Record:
        """Local solves of a sample's shard, standardised."""
        own = take(context.inputs["sample"], "positions", _span(context, task))
        training = _Training(context.inputs["vectors"], context.inputs["parameters"])
        queries = take(training.vectors, "vectors", own)
        parameters = Parameters.of(training.targets)
        local = _solve(context, task, parameters, training, queries, own)
        objects = {
            "mean": context.write_array("mean", local.mean),
            "latent": context.write_array("latent", local.latent),
        }
        return Record(task.key, objects)

    def forecast(self, config: ModelConfig, rows: int, dim: int) -> Forecast:
        return _forecast(min(rows, 2000), config.neighbors, dim)


class NeighborPredict:
    """Inputs: queries (vectors), hits (of them in the model's scaled rows) and the model, whose own
    inputs are read where it lies. Shards as the hits', with mean, variance, latent [rows] float64
    and the Parquet table (row, id, mean, variance, latent_variance)."""

    name: ClassVar[str] = "neighbor_gp_predict"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        hits = job.inputs["hits"]
        if "solve" not in rounds:
            return _solve_round(hits, job.inputs["queries"])
        shards = tuple(
            Shard(shard.rows, record.objects)
            for shard, record in zip(hits.shards, rounds["solve"], strict=True)
        )
        metrics: dict[str, Json] = {
            "neighbors": job.config.neighbors,
            "recall": hits.metrics.get("recall"),
            "leave_one_out": job.config.exclude_self,
        }
        return Commit(hits.rows, shards, metrics)

    def compute(self, context: Context, task: Task) -> Record:
        rows, model = _span(context, task), context.inputs["model"]
        parameters = Parameters.of(model)
        own = rows if context.config.exclude_self else None
        training = _Training(_made_from(model, "vectors"), _made_from(model, "parameters"))
        queries = take(context.inputs["queries"], "vectors", rows)
        local = _solve(context, task, parameters, training, queries, own)
        found = predicted(local, parameters, float(model.metrics["calibration"]))
        objects = {
            "mean": context.write_array("mean", found.mean),
            "variance": context.write_array("variance", found.variance),
            "latent": context.write_array("latent", found.latent),
        }
        table = _table(context.inputs["queries"], rows, found)
        return Record(task.key, {**objects, "table": context.write_table("predictions", table)})

    def forecast(self, config: PredictConfig, rows: int, dim: int) -> Forecast:
        return _forecast(rows, config.neighbors, dim)


class Predicted(NamedTuple):
    """In units of y, calibrated. mean: [m]. variance: [m] of y, noise included. latent: [m] of the
    function, without noise."""

    mean: Float64
    variance: Float64
    latent: Float64


def predicted(local: Local, parameters: Parameters, calibration: float = 1.0) -> Predicted:
    """Local solves, which are standardised, in units of y. calibration: what variances are
    multiplied with."""
    scale2 = parameters.scale**2 * calibration
    return Predicted(
        parameters.mean + parameters.scale * local.mean,
        scale2 * (local.latent + parameters.noise),
        scale2 * local.latent,
    )


def without_self(neighbors: Ids, own: Ids) -> Ids:
    """Lists of k + 1 without the rows themselves. neighbors: [m, k + 1], own: [m] -> [m, k].

    A row that is not in its list has copies of itself there: the last of the list goes.
    """
    keep = neighbors != own[:, None]
    order = np.argsort(~keep, axis=1, kind="stable")[:, : neighbors.shape[1] - 1]
    return np.take_along_axis(neighbors, order, axis=1)


def _solve_round(hits: Dataset, vectors: Dataset) -> Round:
    k, dim = int(hits.metrics["k"]), int(vectors.metrics["dim"])
    return Round(
        "solve",
        tuple(
            Task(f"solve-{i:06d}", "solve", {"shard": i}, _nbytes(shard.rows, k, dim))
            for i, shard in enumerate(hits.shards)
        ),
    )


def _nbytes(rows: int, k: int, dim: int) -> int:
    run = _run_rows(k, dim)
    fetched = min(rows, run) * k * (12 * dim + 32)
    solved = local_nbytes(rows, k, dim)
    return int(rows * k * LISTED_NBYTES + fetched + solved + BASE_NBYTES)


def _run_rows(k: int, dim: int) -> int:
    """Rows whose neighbours are fetched together."""
    return max(16, RUN_NBYTES // (k * (12 * dim + 32)))


def _forecast(rows: int, k: int, dim: int) -> Forecast:
    tasks = max(1, -(-rows // (1 << 17)))
    return Forecast(
        tasks=tasks,
        nbytes=_nbytes(-(-rows // tasks), k, dim),
        flops=float(rows) * k * k * (k / 3 + dim + 10),
        written=64 * rows,
    )


def _whole(context: Context, records: Sequence[Record], role: str) -> Array:
    return np.concatenate([context.load(record.objects[role]) for record in records])


def _span(context: Context, task: Task) -> Ids:
    """The rows of a task's shard of lists."""
    shards, i = context.inputs["hits"].shards, task.args["shard"]
    first = sum(shard.rows for shard in shards[:i])
    return np.arange(first, first + shards[i].rows)


class _Training(NamedTuple):
    """The training rows, and the dataset with their targets."""

    vectors: Dataset
    targets: Dataset


def _made_from(model: Dataset, role: str) -> Dataset:
    """An input of a committed model, where it lies."""
    fingerprint = model.manifest.inputs[role]
    manifest = model.store.manifest(fingerprint)
    if manifest is None:
        raise ObjectMissing(
            f"the {role} of model {model.uri} ({fingerprint}) are gone from its store: fit it again"
        )
    return Dataset(model.store, manifest)


def _solve(
    context: Context,
    task: Task,
    parameters: Parameters,
    training: _Training,
    queries: Array,
    own: Ids | None,
) -> Local:
    """A shard's rows, each from its neighbours. queries: [rows, d]. own: their training rows, to be
    left out."""
    hits = context.inputs["hits"]
    shard, k = hits.shards[task.args["shard"]], int(hits.metrics["k"])
    table = hits.store.read_table(shard.objects["graph"], ["neighbors"])
    flat = table["neighbors"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    neighbors = flat.reshape(shard.rows, k)
    if own is not None:
        neighbors = without_self(neighbors, own)
    means, latents, step = [], [], _run_rows(k, queries.shape[1])
    for first in range(0, shard.rows, step):
        context.check()
        run = slice(first, first + step)
        known, places = np.unique(neighbors[run], return_inverse=True)
        found = predict_rows(
            parameters.kernel,
            parameters.noise,
            queries[run],
            places.reshape(neighbors[run].shape),
            take(training.vectors, "vectors", known),
            parameters.standardised(take(training.targets, "targets", known)),
            check=context.check,
        )
        means.append(found.mean)
        latents.append(found.latent)
    return Local(np.concatenate(means), np.concatenate(latents))


def _table(queries: Dataset, rows: Ids, found: Predicted) -> pa.Table:
    """row int64, id, mean, variance, latent_variance float64: what SQL reads."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    ids = ids_of_rows(queries, rows) if "rows" in queries.shards[0].objects else pa.array(rows)
    columns = {"mean": found.mean, "variance": found.variance, "latent_variance": found.latent}
    return pa.table(
        {"row": pa.array(rows), "id": ids, **{k: pa.array(v) for k, v in columns.items()}}
    )
