"""Kernel principal components from the sums of one pass, and stage `kernel_pca`. Input: vectors.

    centers                                              one task
    pass       P = sum a a^T, A1 = sum a                 task per span, then sums
    model      eigenvectors U of P - A1 A1^T / n         one task

    score(x) = U^T (a(x) - A1 / n)                       = k(x, Z) L^-T U - U^T A1 / n

Where every row is a centre, P - A1 A1^T / n has the eigenvalues of the centred kernel matrix, and
the scores of the rows are those of Schoelkopf, Smola, Mueller (1998).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.grams import (
    GramStatistics,
    block_nbytes,
    gram_block,
    merge_name,
    merge_rounds,
    merge_statistics,
    read_statistics,
    spans,
    statistics_nbytes,
    tree_sum,
    write_statistics,
)
from simdist.panels import rows_between
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.machines.centers import (
    Chosen,
    centers_round,
    compute_centers,
    read_chosen,
)
from simdist.stages.machines.config import PcaConfig
from simdist.stages.machines.machine import Machine, model_commit, unwhitened, write_machine
from simdist.types import Array, Float64, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["KernelPcaStage", "PcaFit", "components_of", "fit_pca"]

BASE_NBYTES = 16 << 20
NOTHING = 1e-12  # of the largest eigenvalue: a direction in which the rows do not differ


@dataclass(frozen=True, eq=False, slots=True)
class PcaFit:
    """machine: rows to scores. eigenvalues: [k] largest first, of the centred kernel matrix.
    metrics: what a manifest says."""

    machine: Machine
    eigenvalues: Float64
    metrics: dict[str, Json]


def components_of(sums: GramStatistics, chosen: Chosen, config: PcaConfig) -> PcaFit:
    """The components of the rows that were summed.

    The centre farthest along a component is on its positive side, the first of equals. Raises
    InputError where no two rows differ under the kernel.
    """
    from scipy.linalg import eigh  # noqa: PLC0415 - only where something is fitted

    whitening, n = chosen.whitening, float(sums.n)
    mean = sums.A1 / n
    P = sums.P - np.outer(sums.A1, mean)
    m = len(P)
    k = m if config.components is None else min(config.components, m)
    values, U = eigh(P, subset_by_index=[m - k, m - 1], driver="evr")
    values, U = values[::-1], U[:, ::-1]
    there = values > NOTHING * max(float(values[0]), NOTHING * sums.kk)
    if not there.any():
        raise InputError(
            f"all {sums.n} rows are the same to kernel {whitening.kernel}: there is no direction in"
            " which they differ. Look at the rows, and at the kernel's lengthscale."
        )
    values, U = values[there], U[:, there]
    machine = Machine(whitening.kernel, whitening.Z, unwhitened(whitening, U), -(mean @ U))
    scores = machine(whitening.Z)
    farthest = np.argmax(np.abs(scores), axis=0)
    signs = np.where(scores[farthest, np.arange(len(values))] < 0, -1.0, 1.0)
    machine = Machine(
        whitening.kernel, whitening.Z, machine.coefficients * signs, machine.offsets * signs
    )
    total = float(np.trace(P)) + sums.trace_gap
    metrics: dict[str, Json] = {
        **chosen.facts(),
        "components": len(values),
        "eigenvalues": values.tolist(),
        "explained": (values / total).tolist() if total > 0 else [],
        "trained_rows": sums.n,
        "trace_gap": sums.trace_gap / sums.kk if sums.kk > 0 else 0.0,
        "passes": 1,
    }
    return PcaFit(machine, values, metrics)


def fit_pca(
    X: Array, chosen: Chosen, config: PcaConfig, *, check: Callable[[], None] | None = None
) -> PcaFit:
    """A fit of an array: the rounds of the stage, one after another. X: [n, d]."""
    nothing = np.empty((len(X), 0))
    parts = [
        gram_block(chosen.whitening, X[first:last], nothing[first:last], check=check)
        for first, last in spans(len(X), chosen.whitening.m, X.shape[1])
    ]
    return components_of(tree_sum(parts), chosen, config)


class KernelPcaStage:
    """See the module docstring. The dataset has a row for every centre, in one shard, with

    centers [r, d], coefficients [r, k], offsets [k]   float64; scores = k(x, centers) C + offsets
    """

    name: ClassVar[str] = "kernel_pca"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        for step in _story(job, rounds):
            if step.name not in rounds:
                return step
        return model_commit(rounds["model"][0])

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: PcaConfig, rows: int, dim: int) -> Forecast:
        """Cost of n rows, where no centre is left out."""
        m = min(config.centers.count, max(rows, 1))
        cuts = spans(rows, m, dim)
        size = cuts[0][1] - cuts[0][0] if cuts else 0
        nbytes = max(block_nbytes(size, dim, m, 0), 48 * m * m) + BASE_NBYTES
        flops = 2.0 * rows * m * (m + dim) + 12.0 * m**3
        written = len(cuts) * statistics_nbytes(m, 0) + 16 * m * m
        return Forecast(len(cuts) + 2, nbytes, flops, written)


def _story(job: Job, rounds: Rounds) -> Iterator[Round]:
    vectors, config = job.inputs["vectors"], job.config
    yield centers_round(vectors, config.centers)
    m = int(rounds["centers"][0].facts["centers"])
    dim = int(vectors.metrics["dim"])
    cuts = spans(vectors.rows, m, dim)
    nbytes = block_nbytes(cuts[0][1] - cuts[0][0], dim, m, 0) + BASE_NBYTES
    yield Round(
        "pass",
        tuple(
            Task(f"pass-{place:05d}", "pass", {"first": first, "last": last}, nbytes)
            for place, (first, last) in enumerate(cuts)
        ),
    )
    yield from merge_rounds("pass", len(cuts), statistics_nbytes(m, 0))
    yield Round("model", (Task("model", "model", {}, 48 * m * m + BASE_NBYTES),))


def _pass(context: Context, task: Task) -> Record:
    """What rows add to the sums."""
    first, last = task.args["first"], task.args["last"]
    X = rows_between(context.inputs["vectors"], "vectors", first, last)
    whitening = read_chosen(context).whitening
    found = gram_block(whitening, X, np.empty((len(X), 0)), check=context.check)
    return Record(task.key, write_statistics(context, found))


def _model(context: Context, task: Task) -> Record:
    """The components."""
    count = len(context.records("pass"))
    objects = context.records(merge_name("pass", count))[0].objects
    fit = components_of(read_statistics(context, objects), read_chosen(context), context.config)
    return Record(task.key, write_machine(context, fit.machine), fit.metrics)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "centers": compute_centers,
    "pass": _pass,
    "merge": merge_statistics,
    "model": _model,
}
