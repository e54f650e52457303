"""Stages `dirichlet_gp` and `dirichlet_gp_predict`: which round follows which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from simdist.errors import InputError
from simdist.grams import Whitening, block_nbytes, span_rows, spans
from simdist.lists import ids_of_rows
from simdist.measures.kernels import Kernel, resolve
from simdist.panels import rows_between
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.dirichlet.bound import ClassSums, Posterior, Softness
from simdist.stages.dirichlet.calibrate import Sharpness, probabilities
from simdist.stages.dirichlet.config import DirichletConfig, PlainConfig, prepared_kernel
from simdist.stages.dirichlet.fit import Rows, Settled, class_sums, fit_kernel, settle
from simdist.stages.dirichlet.labels import (
    classes_between,
    codes_at,
    codes_between,
    refuse_many,
)
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Float64, Ids, Json, ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["DirichletModel", "DirichletPredict", "Drawn", "Model", "drawn_rows", "read_model"]

BASE_NBYTES = 16 << 20
LABEL_NBYTES = 300  # of a row's label, read as Parquet and as Python
MOST_HELD = 5000
RUN_ROWS = 4096  # predicted together


class Drawn(NamedTuple):
    """Rows by their numbers, ascending each. held: kept apart; subset: the kernel is learned from;
    inducing: the points."""

    held: Ids
    subset: Ids
    inducing: Ids


def drawn_rows(config: DirichletConfig, n: int, rng: np.random.Generator) -> Drawn:
    """Held-out rows, and the subset and inducing points among the others."""
    h = _held(config, n)
    most = min(n - h, max(config.subset, config.inducing))
    order = rng.choice(n, h + most, replace=False).astype(np.int64)
    rest = order[h:]
    parts = (order[:h], rest[: config.subset], rest[: config.inducing])
    return Drawn(*(np.sort(part) for part in parts))


@dataclass(frozen=True, eq=False, slots=True)
class Model:
    """A fitted classifier in memory."""

    whitening: Whitening
    settled: Settled
    classes: list[Json]

    def probabilities(self, X: Array) -> Float64:
        """X: [r, d] -> [r, c]."""
        kernel, found = self.whitening.kernel, self.settled
        mean, variance = found.posterior.latent(self.whitening.columns(X), kernel.diagonal(X))
        return probabilities(mean, variance, found.sharpness)


class DirichletModel:
    """The classifier. Inputs: vectors. Its rows are the inducing points: one shard with Z [m, d];
    objects L [m, m], alpha [m, c], mu [c], factors [c, m, m]; the metrics say the rest."""

    name: ClassVar[str] = "dirichlet_gp"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """labels, start, gram, settle, and the manifest."""
        vectors, config = job.inputs["vectors"], job.config
        n, dim = vectors.rows, int(vectors.metrics["dim"])
        if "labels" not in rounds:
            prepared_kernel(config.kernel, dim)
            return _labels_round(vectors)
        classes = _classes(rounds["labels"])
        m, c = min(config.inducing, n), len(classes)
        if "start" not in rounds:
            nbytes = _start_nbytes(config, n, dim, c)
            return Round("start", (Task("start", "start", {"classes": classes}, nbytes),))
        if "gram" not in rounds:
            nbytes = block_nbytes(min(n, span_rows(n, m, dim)), dim, m, 1) + 16 * c * m * m
            return Round(
                "gram",
                tuple(
                    Task(
                        f"gram-{i:06d}",
                        "gram",
                        {"first": first, "last": last, "classes": classes},
                        nbytes + LABEL_NBYTES * (last - first) + BASE_NBYTES,
                    )
                    for i, (first, last) in enumerate(spans(n, m, dim))
                ),
            )
        if "settle" not in rounds:
            nbytes = _settle_nbytes(config, n, dim, c)
            return Round("settle", (Task("settle", "settle", {"classes": classes}, nbytes),))
        return _manifest(job, rounds, classes)

    def compute(self, context: Context, task: Task) -> Record:
        """One task of any round."""
        return {"labels": _labels, "start": _start, "gram": _gram, "settle": _settle}[task.kind](
            context, task
        )

    def forecast(self, config: DirichletConfig, rows: int, dim: int) -> Forecast:
        """Cost with ten classes: how many there are is known when labels are read."""
        m, c = min(config.inducing, rows), 10
        passes = len(spans(rows, m, dim))
        return Forecast(
            tasks=passes + 3,
            nbytes=max(_settle_nbytes(config, rows, dim, c), _start_nbytes(config, rows, dim, c)),
            flops=2.0 * rows * m * (m + dim) + 8.0 * c * m**3,
            written=(passes + 2) * 8 * c * m * m,
        )


class DirichletPredict:
    """Inputs: queries (vectors), model. Shards as the queries', with probabilities [rows, c]
    float64 and the Parquet table (row, id, label, probability)."""

    name: ClassVar[str] = "dirichlet_gp_predict"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        queries, model = job.inputs["queries"], job.inputs["model"]
        dim, m = int(queries.metrics["dim"]), int(model.metrics["inducing"])
        classes = model.metrics["classes"]
        if dim != int(model.metrics["dim"]):
            raise InputError(
                f"{queries.uri} has {dim} columns; the model was fitted on {model.metrics['dim']}:"
                " give rows with the same columns"
            )
        if "predict" not in rounds:
            tasks = []
            for i, shard in enumerate(queries.shards):
                held = min(shard.rows, RUN_ROWS) * 8 * (3 * m + 3 * dim)
                nbytes = held + shard.rows * (24 * len(classes) + LABEL_NBYTES)
                nbytes += 8 * (len(classes) + 3) * m * m + BASE_NBYTES
                tasks.append(Task(f"predict-{i:06d}", "predict", {"shard": i}, nbytes))
            return Round("predict", tuple(tasks))
        shards = tuple(
            Shard(shard.rows, record.objects)
            for shard, record in zip(queries.shards, rounds["predict"], strict=True)
        )
        return Commit(queries.rows, shards, {"classes": classes})

    def compute(self, context: Context, task: Task) -> Record:
        queries, model = context.inputs["queries"], read_model(context.inputs["model"])
        shard = queries.shards[task.args["shard"]]
        X = context.load(shard.objects["vectors"], store=queries.store)
        parts = []
        for first in range(0, shard.rows, RUN_ROWS):
            context.check()
            parts.append(model.probabilities(X[first : first + RUN_ROWS]))
        p = np.concatenate(parts)
        offset = sum(other.rows for other in queries.shards[: task.args["shard"]])
        rows = np.arange(offset, offset + shard.rows)
        objects = {
            "probabilities": context.write_array("probabilities", p),
            "table": context.write_table("predictions", _table(queries, rows, p, model.classes)),
        }
        return Record(task.key, objects)

    def forecast(self, config: PlainConfig, rows: int, dim: int) -> Forecast:
        m, c = 1024, 10
        one = min(rows, max(1, (16 << 20) // (4 * dim)))
        nbytes = 8 * (RUN_ROWS * 3 * (m + dim) + (c + 3) * m * m) + one * LABEL_NBYTES
        return Forecast(-(-rows // one), nbytes, 1.0 * rows * c * m * m, rows * 8 * (c + 4))


def read_model(dataset: Dataset) -> Model:
    """A committed classifier as arrays, mapped where the store is local."""
    if dataset.stage != DirichletModel.name:
        raise InputError(
            f"{dataset.uri} was made by stage {dataset.stage}; expected a model that"
            f" {DirichletModel.name} committed"
        )
    metrics = dataset.metrics
    refs = {**dataset.manifest.objects, **dataset.shards[0].objects}
    found = {role: dataset.store.read_array(ref) for role, ref in refs.items()}
    softness = Softness(float(metrics["eps"]), float(metrics["scale"]))
    sharpness = Sharpness(float(metrics["temperature"]), float(metrics["kappa"]))
    predicts = Posterior(found["alpha"], found["mu"], found["factors"], softness.scale)
    kernel = resolve(metrics["kernel"])
    whitening = Whitening(
        kernel, found["Z"], np.asfortranarray(found["L"]), float(metrics["jitter"])
    )
    settled = Settled(predicts, softness, sharpness, metrics["held_out"])
    return Model(whitening, settled, list(metrics["classes"]))


def _labels_round(vectors: Dataset) -> Round:
    return Round(
        "labels",
        tuple(
            Task(f"labels-{i:06d}", "labels", {"shard": i}, LABEL_NBYTES * shard.rows + BASE_NBYTES)
            for i, shard in enumerate(vectors.shards)
        ),
    )


def _labels(context: Context, task: Task) -> Record:
    """Facts: the classes of a shard's rows."""
    shards, i = context.inputs["vectors"].shards, task.args["shard"]
    first = sum(shard.rows for shard in shards[:i])
    found = classes_between(context, context.config.labels, first, first + shards[i].rows)
    return Record(task.key, {}, {"classes": found})


def _classes(records: Sequence[Record]) -> list[Json]:
    """All classes, ascending."""
    found = sorted({label for record in records for label in record.facts["classes"]})
    refuse_many(len(found))
    return found


def _start(context: Context, task: Task) -> Record:
    """Inducing points and held-out rows, and the kernel as facts."""
    config, vectors = context.config, context.inputs["vectors"]
    drawn = drawn_rows(config, vectors.rows, context.rng("start"))
    Z = np.asarray(_taken(vectors, drawn.inducing), np.float64)
    kernel = prepared_kernel(config.kernel, Z.shape[1])
    classes = task.args["classes"]
    subset = _rows_at(context, drawn.subset, classes)
    kernel, bound, evaluations = fit_kernel(
        kernel, subset, len(classes), Z, iterations=config.iterations, check=context.check
    )
    objects = {
        "Z": context.write_array("inducing", Z),
        "held": context.write_array("held", drawn.held),
    }
    facts = {"kernel": kernel.spec(), "bound": bound, "evaluations": evaluations}
    return Record(task.key, objects, {**facts, "subset": len(drawn.subset)})


def _gram(context: Context, task: Task) -> Record:
    """Sums over a span's rows, without those held out."""
    vectors, first, last = context.inputs["vectors"], task.args["first"], task.args["last"]
    classes = task.args["classes"]
    held = context.load(context.records("start")[0].objects["held"])
    own = ~np.isin(np.arange(first, last), held)
    codes = codes_between(context, context.config.labels, classes, first, last)
    X = rows_between(vectors, "vectors", first, last)
    rows = Rows(X[own], codes[own])
    found = class_sums(_whitening(context), rows, len(classes), check=context.check)
    return Record(task.key, _write_sums(context, found))


def _settle(context: Context, task: Task) -> Record:
    """All spans' sums in plan order, and what predicts."""
    classes = task.args["classes"]
    total: ClassSums | None = None
    for record in context.records("gram"):
        context.check()
        part = _read_sums(context, record.objects)
        total = part if total is None else total + part
    assert total is not None  # n is at least 1
    whitening = _whitening(context)
    held = np.asarray(context.load(context.records("start")[0].objects["held"]))
    rows = _rows_at(context, held, classes)
    found = settle(whitening, total, rows, check=context.check)
    arrays = {
        "L": np.ascontiguousarray(whitening.L),
        "alpha": found.posterior.alpha,
        "mu": found.posterior.mu,
        "factors": found.posterior.factors,
    }
    objects = {role: context.write_array(role.lower(), array) for role, array in arrays.items()}
    facts = {
        "eps": found.softness.eps,
        "scale": found.softness.scale,
        "temperature": found.sharpness.t,
        "kappa": found.sharpness.kappa,
        "held_out": found.held_out,
        "trace_gap": total.trace_gap,
        "jitter": whitening.jitter,
    }
    return Record(task.key, objects, facts)


def _manifest(job: Job, rounds: Rounds, classes: list[Json]) -> Commit:
    start, settled = rounds["start"][0], rounds["settle"][0]
    vectors = job.inputs["vectors"]
    m = min(job.config.inducing, vectors.rows - _held(job.config, vectors.rows))
    kernel = resolve(start.facts["kernel"])
    metrics: dict[str, Json] = {
        **start.facts,
        **settled.facts,
        "formula": str(kernel),
        "classes": classes,
        "inducing": m,
        "dim": int(vectors.metrics["dim"]),
        "training_rows": vectors.rows,
        "passes": 1,
    }
    return Commit(m, (Shard(m, {"Z": start.objects["Z"]}),), metrics, settled.objects)


def _held(config: DirichletConfig, n: int) -> int:
    """Rows held out of n."""
    return min(MOST_HELD, int(config.held_out * n))


def _whitening(context: Context) -> Whitening:
    start = context.records("start")[0]
    kernel: Kernel = resolve(start.facts["kernel"])
    return Whitening.of(kernel, context.load(start.objects["Z"]))


def _rows_at(context: Context, rows: Ids, classes: Sequence[Json]) -> Rows:
    """Stored rows with their codes. rows: ascending."""
    X = _taken(context.inputs["vectors"], rows)
    return Rows(X, codes_at(context, context.config.labels, classes, rows))


def _taken(vectors: Dataset, rows: Ids) -> Array:
    """Copies of ascending rows."""
    parts, offset = [], 0
    for shard in vectors.shards:
        low, high = np.searchsorted(rows, [offset, offset + shard.rows])
        if low < high:
            whole = vectors.store.read_array(shard.objects["vectors"])
            parts.append(whole[rows[low:high] - offset])
        offset += shard.rows
    return np.concatenate(parts) if parts else np.empty((0, int(vectors.metrics["dim"])))


def _write_sums(context: Context, found: ClassSums) -> dict[str, ObjectRef]:
    sums = np.column_stack([found.A1, found.kk, found.n])
    return {
        "P": context.write_array("class-grams", found.P),
        "sums": context.write_array("class-sums", sums),
    }


def _read_sums(context: Context, objects: Mapping[str, ObjectRef]) -> ClassSums:
    sums = context.load(objects["sums"])
    return ClassSums(context.load(objects["P"]), sums[:, :-2], sums[:, -2], sums[:, -1])


def _start_nbytes(config: DirichletConfig, n: int, dim: int, classes: int) -> int:
    """The subset and the points, and the sums and factors with which lengthscales are tried."""
    rows, m = min(config.subset, n), min(config.inducing, n)
    tried = min(m, 1024)
    sums = 8 * (classes + 6) * tried * tried
    return sums + block_nbytes(rows, dim, tried, 1) + 24 * (rows + m) * dim + BASE_NBYTES


def _settle_nbytes(config: DirichletConfig, n: int, dim: int, classes: int) -> int:
    """Three sets of sums (two parts and their sum; then held-out rows and all), the factors."""
    m, held = min(config.inducing, n), _held(config, n)
    return 8 * ((4 * classes + 8) * m * m + held * (4 * m + 3 * dim)) + BASE_NBYTES


def _table(queries: Dataset, rows: Ids, p: Float64, classes: Sequence[Json]) -> pa.Table:
    """row int64, id, label, probability float64: what SQL reads."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    ids = ids_of_rows(queries, rows) if "rows" in queries.shards[0].objects else pa.array(rows)
    best = p.argmax(axis=1)
    labels = pa.array(classes).take(pa.array(best))
    top = pa.array(p[np.arange(len(p)), best])
    return pa.table({"row": pa.array(rows), "id": ids, "label": labels, "probability": top})
