"""Stage `kernel_ridge`: the rounds of a fit over a stored dataset. Input: vectors, targets kept.

    centers      rows drawn, their kernel matrix factored              one task
    pass         P, b and the traces of rows                           task per span, then sums
    path         eigenvectors of P                                     one task    ┐ only where one
    judge        errors of every alpha; sums of the rows held out      task / span ┘ of several
    model        the alpha, the coefficients                           one task      alphas is taken

More centres than a matrix is made for are solved by conjugate gradients: `falkon_stage`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

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
    write_statistics,
)
from simdist.runner.plan import (
    Commit,
    Forecast,
    Job,
    Record,
    Round,
    RoundForecast,
    Rounds,
    Task,
)
from simdist.solvers.ridge import RidgePath
from simdist.stages.costs import TASK_REQUESTS, moves
from simdist.stages.machines import falkon_stage
from simdist.stages.machines.centers import centers_round, compute_centers, read_chosen
from simdist.stages.machines.config import RidgeConfig
from simdist.stages.machines.machine import model_commit, write_machine
from simdist.stages.machines.ridge import (
    Around,
    best_alpha,
    judge_block,
    path_of,
    ridge_machine,
    ridge_metrics,
)
from simdist.stages.machines.rows import refuse_no_weight, rows_taken

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["KernelRidgeStage"]

BASE_NBYTES = 16 << 20


class KernelRidgeStage:
    """See the module docstring. The dataset has a row for every centre, in one shard, with

    centers [r, d], coefficients [r, t], offsets [t]   float64; f(x) = k(x, centers) C + offsets
    """

    name: ClassVar[str] = "kernel_ridge"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        story = falkon_stage.story if job.config.taken == "cg" else _story
        for step in story(job, rounds):
            if step.name not in rounds:
                return step
        return model_commit(rounds["model"][0])

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: RidgeConfig, rows: int, dim: int) -> Forecast:
        """Cost of n rows, where no centre is left out and there is one target for each named."""
        m, t = min(config.centers.count, max(rows, 1)), len(config.targets)
        if config.taken == "cg":
            return falkon_stage.forecast(config, rows, dim)
        cuts = spans(rows, m, dim)
        size = cuts[0][1] - cuts[0][0] if cuts else 0
        looks = 2 if config.chooses else 1
        flops = looks * 2.0 * rows * m * (m + dim) + 12.0 * m**3
        state = statistics_nbytes(m, t)
        read = looks * rows * (4 * dim + 8 * t)
        written = len(cuts) * state + 16 * m * m
        passes = RoundForecast(
            "pass",
            looks * len(cuts),
            flops=flops,
            read=read,
            written=written,
            common=8 * m * m,
            common_requests=2,
            requests=looks * len(cuts) * TASK_REQUESTS + moves(len(cuts), read),
            rows=looks * rows,
        )
        nbytes = max(block_nbytes(size, dim, m, t), 48 * m * m) + BASE_NBYTES
        return Forecast(looks * len(cuts) + 3, nbytes, flops, written, (passes,))


def _story(job: Job, rounds: Rounds) -> Iterator[Round]:
    """Rounds as long as their facts are known."""
    vectors, config = job.inputs["vectors"], job.config
    dim, t = int(vectors.metrics["dim"]), len(config.targets)
    yield centers_round(vectors, config.centers)
    m = int(rounds["centers"][0].facts["centers"])
    cuts, state = spans(vectors.rows, m, dim), statistics_nbytes(m, t)
    size = cuts[0][1] - cuts[0][0]
    held = block_nbytes(size, dim, m, t) + BASE_NBYTES

    def each(name: str, nbytes: int) -> Round:
        return Round(
            name,
            tuple(
                Task(f"{name}-{place:05d}", name, {"first": first, "last": last}, nbytes)
                for place, (first, last) in enumerate(cuts)
            ),
        )

    yield each("pass", held)
    yield from merge_rounds("pass", len(cuts), state)
    if config.chooses:
        yield Round("path", (Task("path", "path", {}, 48 * m * m + BASE_NBYTES),))
        yield each("judge", held + 8 * m * m + 8 * size * t * len(config.alphas))
        if config.choice == "held_out":
            yield from merge_rounds("judge", len(cuts), state)
    yield Round("model", (Task("model", "model", {"spans": len(cuts)}, 48 * m * m + BASE_NBYTES),))


def _pass(context: Context, task: Task) -> Record:
    """What rows add to the sums."""
    X, Y, weights = rows_taken(context, task, held=False)
    whitening = read_chosen(context).whitening
    found = gram_block(whitening, X, Y, weights=weights, check=context.check)
    return Record(task.key, write_statistics(context, found))


def _path(context: Context, task: Task) -> Record:
    """P in the basis of its eigenvectors, and the means."""
    sums = _sums(context, "pass")
    refuse_no_weight(sums.w)
    about, path = path_of(sums, context.config)
    objects = {
        "values": context.write_array("path", path.values),
        "vectors": context.write_array("path", path.vectors),
        "rotated": context.write_array("path", path.rotated),
        "a": context.write_array("means", about.a),
        "y": context.write_array("means", about.y),
        "yy": context.write_array("means", about.yy),
    }
    return Record(task.key, objects, {"w": about.w})


def _judge(context: Context, task: Task) -> Record:
    """Errors of every alpha on a span's rows; of rows held out, what they add to the sums too."""
    out = context.config.choice == "held_out"
    rows = rows_taken(context, task, held=out)
    whitening = read_chosen(context).whitening
    about, path = _read_path(context)
    squares = judge_block(whitening, rows, about, path, context.config, check=context.check)
    facts = {"squares": squares.tolist(), "w": rows.weight}
    if not out:
        return Record(task.key, {}, facts)
    X, Y, weights = rows
    found = gram_block(whitening, X, Y, weights=weights, check=context.check)
    return Record(task.key, write_statistics(context, found), facts)


def _model(context: Context, task: Task) -> Record:
    """The alpha with the least error, and the machine that it gives on all rows."""
    config, chosen = context.config, read_chosen(context)
    sums = _sums(context, "pass")
    refuse_no_weight(sums.w)
    alpha, squares, w = config.alphas[0], None, sums.w
    if config.chooses:
        judged = context.records("judge")
        squares = np.sum([record.facts["squares"] for record in judged], axis=0)
        w = sum(float(record.facts["w"]) for record in judged)
        about, _ = _read_path(context)
        alpha = config.alphas[best_alpha(squares, about, config)]
        if config.choice == "held_out":
            sums = sums + _sums(context, "judge")
    machine, fitted = ridge_machine(chosen.whitening, sums, alpha, intercept=config.intercept)
    metrics = ridge_metrics(
        config, chosen.facts(), sums, alpha=alpha, fitted=fitted, squares=squares, judged_weight=w
    )
    return Record(task.key, write_machine(context, machine), metrics)


def _sums(context: Context, name: str) -> GramStatistics:
    count = len(context.records(name))
    record = context.records(merge_name(name, count))[0]
    return read_statistics(context, record.objects)


def _read_path(context: Context) -> tuple[Around, RidgePath]:
    record = context.records("path")[0]
    values, vectors, rotated, a, y, yy = (
        np.asarray(context.load(record.objects[role]))
        for role in ("values", "vectors", "rotated", "a", "y", "yy")
    )
    nothing = np.empty((0, 0))  # P and b are in the path, rotated
    about = Around(nothing, nothing, yy, a, y, float(record.facts["w"]))
    return about, RidgePath(values, vectors, rotated)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "centers": compute_centers,
    "pass": _pass,
    "merge": merge_statistics,
    "path": _path,
    "judge": _judge,
    "model": _model,
    **falkon_stage.COMPUTE,
}
