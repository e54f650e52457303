"""Stage `neighbor_gp_parameters`: y checked and added up, and the kernel fitted on subsets.

targets   y of a shard as float64, its moments     task per shard
fit       subsets drawn, likelihood maximised      one task
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.measures.kernels import Kernel, resolve
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.neighbor_gp.config import ParametersConfig, prepared_kernel
from simdist.stages.neighbor_gp.marginal import Fitted, Subset, fit_marginal
from simdist.stages.neighbor_gp.space import inverse_lengthscales
from simdist.stages.neighbor_gp.targets import Moments, moments_of, read_targets, take
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Float64, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["NeighborParameters", "Parameters", "fitted_parameters", "subset_rows", "subset_shape"]

BASE_NBYTES = 16 << 20
TARGET_NBYTES = 200  # of a row whose y is read from Parquet


@dataclass(frozen=True, slots=True)
class Parameters:
    """A fitted kernel, in the units of the rows and of standardised targets.

    kernel: without White. noise: its variance. mean, scale: y = mean + scale * (what is modelled).
    weights: [d] of the scaled space. middle: [d] from where rows are seen there.
    """

    kernel: Kernel
    noise: float
    mean: float
    scale: float
    weights: Float64
    middle: Float64
    likelihood: float
    evaluations: int
    subset: tuple[int, int]
    constant: bool = False

    def to_json(self) -> dict[str, Json]:
        return {
            "kernel": self.kernel.spec(),
            "formula": str(self.kernel),
            "hyperparameters": self.named,
            "noise": self.noise,
            "mean": self.mean,
            "scale": self.scale,
            "weights": [float(weight) for weight in self.weights],
            "middle": [float(value) for value in self.middle],
            "likelihood": self.likelihood,
            "evaluations": self.evaluations,
            "subset": list(self.subset),
            "constant": self.constant,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Parameters:
        subsets, rows = value["subset"]
        return cls(
            resolve(value["kernel"]),
            float(value["noise"]),
            float(value["mean"]),
            float(value["scale"]),
            np.array(value["weights"], np.float64),
            np.array(value["middle"], np.float64),
            float(value["likelihood"]),
            int(value["evaluations"]),
            (int(subsets), int(rows)),
            bool(value["constant"]),
        )

    @classmethod
    def of(cls, dataset: Dataset) -> Parameters:
        """Those that `neighbor_gp_parameters` committed."""
        return cls.from_json(dataset.metrics)

    @property
    def named(self) -> dict[str, float]:
        """Free hyper-parameters by name: variances, lengthscales in units of the columns."""
        values = np.exp(self.kernel.theta).tolist()
        return dict(zip(self.kernel.names, values, strict=True))

    def scaled(self, X: Array) -> Array:
        """Rows in the kernel's own lengths. X: [m, d] -> float32."""
        with np.errstate(over="ignore"):
            rows = ((np.asarray(X, np.float64) - self.middle) * self.weights).astype(np.float32)
        if not np.isfinite(rows).all():
            row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise InputError(
                f"row {row} lies more than 1e38 lengthscales from the training rows: scale the data"
            )
        return rows

    def standardised(self, y: Array) -> Float64:
        out: Float64 = (np.asarray(y, np.float64) - self.mean) / self.scale
        return out


class NeighborParameters:
    """See the module docstring. Inputs: vectors. A shard for every shard of these, with "targets"
    [rows] float64; the metrics are `Parameters`."""

    name: ClassVar[str] = "neighbor_gp_parameters"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """targets, fit, and the manifest."""
        vectors, config = job.inputs["vectors"], job.config
        if "targets" not in rounds:
            prepared_kernel(config.kernel, config.noise, int(vectors.metrics["dim"]))
            return _targets_round(vectors)
        if "fit" not in rounds:
            dim, (number, rows) = int(vectors.metrics["dim"]), subset_shape(config, vectors.rows)
            return Round("fit", (Task("fit", "fit", {}, _fit_nbytes(number * rows, rows, dim)),))
        shards = tuple(
            Shard(shard.rows, {"targets": record.objects["targets"]})
            for shard, record in zip(vectors.shards, rounds["targets"], strict=True)
        )
        return Commit(vectors.rows, shards, dict(rounds["fit"][0].facts))

    def compute(self, context: Context, task: Task) -> Record:
        return _fit(context, task) if task.kind == "fit" else _targets(context, task)

    def forecast(self, config: ParametersConfig, rows: int, dim: int) -> Forecast:
        number, size = subset_shape(config, rows)
        shards = max(1, -(-rows // min(1 << 17, max(1, (16 << 20) // (4 * dim)))))
        evaluations = 2.0 * config.iterations + 1.0
        return Forecast(
            tasks=shards + 1,
            nbytes=max(_fit_nbytes(number * size, size, dim), TARGET_NBYTES * rows // shards),
            flops=evaluations * number * size**2 * (1.5 * size + 6.0 * dim),
            written=8 * rows,
        )


def subset_shape(config: ParametersConfig, n: int) -> tuple[int, int]:
    """Subsets, and rows of each, of n rows: no row is in two of them."""
    rows = min(config.subset, n)
    return max(1, min(config.subsets, n // rows)), rows


def subset_rows(config: ParametersConfig, n: int, rng: np.random.Generator) -> Ids:
    """[subsets, rows] of the training rows."""
    number, rows = subset_shape(config, n)
    chosen: Ids = rng.choice(n, number * rows, replace=False).astype(np.int64)
    return chosen.reshape(number, rows)


def fitted_parameters(
    config: ParametersConfig,
    moments: Moments,
    X: Sequence[Array],
    y: Sequence[Array],
    *,
    check: Callable[[], None] | None = None,
) -> Parameters:
    """From subsets of rows. X: [b, d] each, y: [b] each; moments: of all targets."""
    kernel, noise = prepared_kernel(config.kernel, config.noise, X[0].shape[1])
    mean, scale = moments.mean, moments.scale
    subsets = [
        Subset(np.asarray(rows, np.float64), (np.asarray(part) - mean) / scale)
        for rows, part in zip(X, y, strict=True)
    ]
    if moments.constant:  # no scale of y to learn from: the kernel says what it says
        fitted = Fitted(kernel, noise, 0.0, 0)
    else:
        fitted = fit_marginal(kernel, noise, subsets, iterations=config.iterations, check=check)
    return Parameters(
        kernel=fitted.kernel,
        noise=fitted.noise,
        mean=mean,
        scale=scale,
        weights=inverse_lengthscales(fitted.kernel, X[0].shape[1]),
        middle=np.mean(subsets[0].X, axis=0),
        likelihood=fitted.likelihood,
        evaluations=fitted.evaluations,
        subset=(len(X), len(X[0])),
        constant=moments.constant,
    )


def _targets_round(vectors: Dataset) -> Round:
    return Round(
        "targets",
        tuple(
            Task(
                f"targets-{i:06d}",
                "targets",
                {"shard": i},
                TARGET_NBYTES * shard.rows + BASE_NBYTES,
            )
            for i, shard in enumerate(vectors.shards)
        ),
    )


def _fit_nbytes(total: int, rows: int, dim: int) -> int:
    """Seven matrices of one subset, and the rows of all."""
    return 8 * (7 * rows * rows + 4 * total * dim) + BASE_NBYTES


def _targets(context: Context, task: Task) -> Record:
    """A shard's y, and its moments as facts."""
    shards = context.inputs["vectors"].shards
    first = sum(shard.rows for shard in shards[: task.args["shard"]])
    y = read_targets(
        context, context.config.targets, first, first + shards[task.args["shard"]].rows
    )
    found = moments_of([y])
    return Record(
        task.key,
        {"targets": context.write_array("targets", np.array(y, np.float64))},
        {"count": found.count, "mean": found.mean, "m2": found.m2},
    )


def _fit(context: Context, task: Task) -> Record:
    """Subsets drawn from all rows, and the parameters as facts."""
    vectors, config = context.inputs["vectors"], context.config
    records = context.records("targets")
    parts = [Moments(int(r.facts["count"]), r.facts["mean"], r.facts["m2"]) for r in records]
    moments = parts[0]
    for part in parts[1:]:
        moments = moments + part
    X, y = [], []
    for rows in subset_rows(config, vectors.rows, context.rng("subset")):
        order = np.argsort(rows)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        X.append(take(vectors, "vectors", rows[order])[back])
        y.append(_targets_of(context, records, vectors, rows[order])[back])
    found = fitted_parameters(config, moments, X, y, check=context.check)
    return Record(task.key, {}, found.to_json())


def _targets_of(
    context: Context, records: Sequence[Record], vectors: Dataset, rows: Ids
) -> Float64:
    """y of ascending rows."""
    parts, offset = [], 0
    for shard, record in zip(vectors.shards, records, strict=True):
        low, high = np.searchsorted(rows, [offset, offset + shard.rows])
        if low < high:
            parts.append(context.load(record.objects["targets"])[rows[low:high] - offset])
        offset += shard.rows
    return np.concatenate(parts)
