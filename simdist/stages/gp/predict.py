"""Stage `gp_predict`: a fitted model on the rows of a dataset, span by span.

model, vectors ──> task a span: means, variances ──> Parquet, row by row
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.panels import ids_between, rows_between
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.gp.model import Fitted
from simdist.store.datasets import Dataset, Shard
from simdist.types import Float64, Json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["PredictConfig", "PredictStage", "read_model"]

BASE_NBYTES = 24 << 20
SHARD_ROWS = 1 << 17
BLOCKS = 4  # of 16 MiB that a prediction holds
ROLES = ("L", "alpha", "factors", "noise", "mean", "scale", "calibration")


@dataclass(frozen=True, slots=True)
class PredictConfig:
    """Nothing to choose."""

    def to_json(self) -> Json:
        return {}


def read_model(dataset: Dataset) -> Fitted:
    """The model that a *sparse_gp* dataset is; InputError for another dataset."""
    if dataset.stage != "sparse_gp":
        raise InputError(
            f"{dataset.uri} was committed by {dataset.stage}; expected a model of sparse_gp"
        )
    store = dataset.store
    arrays = {role: store.read_array(dataset.manifest.objects[role]) for role in ROLES}
    arrays["Z"] = store.read_array(dataset.shards[0].objects["inducing"])
    return Fitted.of(dataset.metrics["model"], arrays)


class PredictStage:
    """See the module docstring. Inputs: model and vectors. A *gp_predictions* dataset: shards of
    consecutive rows with

    mean, variance, latent   [rows] float64 ([rows, t] of several targets); noise in `variance`
    table                    Parquet (row, id, mean, variance, latent_variance; of several targets
                             with the target's name behind: mean_price)
    """

    name: ClassVar[str] = "gp_predict"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        vectors, model = job.inputs["vectors"], job.inputs["model"]
        metrics = model.metrics
        dim = int(metrics["inputs_dim"])
        if vectors.metrics.get("dim") != dim:
            raise InputError(
                f"{vectors.uri} has rows of {vectors.metrics.get('dim')} columns; the model"
                f" {model.uri} was fitted on rows of {dim}"
            )
        cuts = _cuts(vectors.rows)
        if "predict" not in rounds:
            nbytes = _nbytes(int(metrics["inducing"]), dim, int(metrics["outputs"]))
            return Round(
                "predict",
                tuple(
                    Task(f"predict-{i:05d}", "predict", {"span": list(span)}, nbytes)
                    for i, span in enumerate(cuts)
                ),
            )
        shards = tuple(
            Shard(last - first, record.objects)
            for (first, last), record in zip(cuts, rounds["predict"], strict=True)
        )
        return Commit(vectors.rows, shards, {"targets": metrics["targets"]})

    def compute(self, context: Context, task: Task) -> Record:
        first, last = task.args["span"]
        model, vectors = context.inputs["model"], context.inputs["vectors"]
        fitted = read_model(model)
        X = rows_between(vectors, "vectors", first, last)
        mean, latent = fitted.moments(X, check=context.check)
        found = {"mean": mean, "variance": latent + fitted.noise_variance, "latent": latent}
        if fitted.outputs == 1:
            found = {role: values[:, 0] for role, values in found.items()}
        objects = {role: context.write_array("gp", values) for role, values in found.items()}
        table = _table(found, first, ids_between(vectors, first, last), model.metrics["targets"])
        return Record(task.key, {**objects, "table": context.write_table("predictions", table)})

    def forecast(self, config: PredictConfig, rows: int, dim: int, *, model: int = 512) -> Forecast:
        """Cost with so many inducing points and one target."""
        nbytes = _nbytes(model, dim, 1)
        return Forecast(len(_cuts(rows)), nbytes, 3.0 * rows * model**2, 56 * rows)


def _table(
    found: Mapping[str, Float64], first: int, ids: pa.ChunkedArray | None, targets: list[str]
) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - not needed to plan

    columns: dict[str, Any] = {"row": np.arange(first, first + len(found["mean"]))}
    if ids is not None:
        columns["id"] = ids
    for role, values in found.items():
        name = "latent_variance" if role == "latent" else role
        if values.ndim == 1:
            columns[name] = values
            continue
        for j, target in enumerate(targets):
            columns[f"{name}_{target}"] = np.ascontiguousarray(values[:, j])
    return pa.table(columns)


def _cuts(n: int) -> list[tuple[int, int]]:
    return [(first, min(first + SHARD_ROWS, n)) for first in range(0, n, SHARD_ROWS)]


def _nbytes(m: int, dim: int, t: int) -> int:
    rows = SHARD_ROWS * (4 * dim + 8 * 8 * t)
    return rows + 8 * m * m * (2 + 2 * t) + BLOCKS * (16 << 20) + BASE_NBYTES
