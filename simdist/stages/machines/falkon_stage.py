"""The rounds of `kernel_ridge` by conjugate gradients: every step is committed, a kill costs one.

    centers                  as ever                                            one task
    fit-targets              K_uf y and its like                                task per span
    fit-start                preconditioner, first direction                    task per alpha
        fit-product-i        K_uf (K_fu W), W the directions of all alphas      task per span
        fit-step-i           the next point and direction                       task per alpha
    judge                    errors on the rows held out      ┐ only where one of several alphas
    refit-targets, ...       the alpha taken, on all rows     ┘ is to be chosen
    check, model             errors on the rows; the coefficients

States are vectors of m numbers for each alpha and target; a step adds up those of all spans itself,
in plan order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from simdist.grams import spans
from simdist.runner.plan import Forecast, Job, Record, Round, RoundForecast, Rounds, Task
from simdist.solvers.cg import CgState, cg_start, cg_step, relative
from simdist.stages.costs import TASK_REQUESTS, moves
from simdist.stages.machines.centers import centers_round, read_chosen
from simdist.stages.machines.config import RidgeConfig
from simdist.stages.machines.falkon import (
    Targets,
    add_targets,
    best_of,
    errors_of,
    falkon_machine,
    falkon_metrics,
    preconditioner,
    product_block,
    right_side,
    solved_with,
    target_block,
    whitened_image,
)
from simdist.stages.machines.machine import Machine, unwhitened, write_machine
from simdist.stages.machines.rows import refuse_no_weight, rows_taken
from simdist.types import Float64, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["COMPUTE", "forecast", "story"]

BASE_NBYTES = 16 << 20
STEPS = 20  # as a forecast takes it


def story(job: Job, rounds: Rounds) -> Iterator[Round]:
    """Rounds as long as their facts are known."""
    vectors, config = job.inputs["vectors"], job.config
    dim, t = int(vectors.metrics["dim"]), len(config.targets)
    yield centers_round(vectors, config.centers)
    m = int(rounds["centers"][0].facts["centers"])
    plan = _Plan(spans(vectors.rows, m, dim), m, dim, t)
    if config.chooses:
        yield from plan.solve(rounds, "fit", config.alphas, config)
        last = plan.last(rounds, "fit")
        yield plan.each("judge", "errors", of=f"fit-{last}", alphas=list(config.alphas))
        alpha = config.alphas[_best(rounds)]
        yield from plan.solve(rounds, "refit", (alpha,), config)
    else:
        yield from plan.solve(rounds, "refit", config.alphas, config)
    last = plan.last(rounds, "refit")
    yield plan.each("check", "errors", of=f"refit-{last}", alphas=[0])
    args = {"step": last, "alpha": config.alphas[_best(rounds)] if config.chooses else None}
    yield plan.one("model", "falkon-model", 0, **args)


class _Plan:
    """Sizes of a job, and the rounds that follow from them."""

    def __init__(self, cuts: list[tuple[int, int]], m: int, dim: int, t: int) -> None:
        self.cuts, self.m, self.dim, self.t = cuts, m, dim, t
        self.rows = cuts[0][1] - cuts[0][0]

    def solve(
        self, rounds: Rounds, name: str, alphas: tuple[float, ...], config: RidgeConfig
    ) -> Iterator[Round]:
        """Conjugate gradients until they have converged, or max_steps are used up."""
        m, count = self.m, len(alphas)
        yield self.each(f"{name}-targets", "targets", of=name, alphas=list(alphas))
        yield self.alphas(f"{name}-start", "cg-start", name, alphas, 0)
        for step in range(config.max_steps):
            before = f"{name}-start" if step == 0 else f"{name}-step-{step - 1}"
            if max(float(r.facts["relative"]) for r in rounds[before]) <= config.tolerance:
                return
            given: dict[str, Json] = {"of": name, "before": before, "alphas": list(alphas)}
            yield self.each(f"{name}-product-{step}", "product", **given)
            nbytes = 8 * m * self.t * (count * len(self.cuts) + 8)
            yield self.alphas(f"{name}-step-{step}", "cg-step", name, alphas, nbytes, step=step)

    def last(self, rounds: Rounds, name: str) -> str:
        """The round after which it ended: "start", or "step-7"."""
        steps = [int(key.rsplit("-", 1)[1]) for key in rounds if key.startswith(f"{name}-step-")]
        return f"step-{max(steps)}" if steps else "start"

    def each(self, round_name: str, kind: str, *, alphas: list[float], **args: Json) -> Round:
        """A task for each span of rows."""
        columns = self.t * max(len(alphas), 1)
        r = min(self.rows, max(256, (16 << 20) // (8 * self.m)))
        nbytes = 8 * (
            self.rows * (self.dim + 2 * self.t + 2)
            + 3 * r * (self.m + self.dim)
            + 4 * self.m * (columns + self.dim)
            + self.m * self.m
        )
        tasks = tuple(
            Task(
                f"{round_name}-{place:05d}",
                kind,
                {"first": first, "last": last, **args},
                nbytes + BASE_NBYTES,
            )
            for place, (first, last) in enumerate(self.cuts)
        )
        return Round(round_name, tasks)

    def alphas(
        self,
        round_name: str,
        kind: str,
        name: str,
        alphas: tuple[float, ...],
        nbytes: int,
        **args: Json,
    ) -> Round:
        """A task for each alpha."""
        held = nbytes + 8 * 4 * self.m * self.m + BASE_NBYTES
        return Round(
            round_name,
            tuple(
                Task(
                    f"{round_name}-{j:03d}",
                    kind,
                    {"of": name, "place": j, "alpha": alpha, **args},
                    held,
                )
                for j, alpha in enumerate(alphas)
            ),
        )

    def one(self, round_name: str, kind: str, nbytes: int, **args: Json) -> Round:
        held = nbytes + 8 * 2 * self.m * self.m + BASE_NBYTES
        return Round(round_name, (Task(round_name, kind, args, held),))


def _held(name: str) -> bool | None:
    """Which rows a solve is over: without those held out, or all."""
    return False if name == "fit" else None


def _targets(context: Context, task: Task) -> Record:
    """What rows add to the sums that stay."""
    rows = rows_taken(context, task, held=_held(task.args["of"]))
    found = target_block(read_chosen(context).whitening, rows, context.check)
    return Record(
        task.key,
        {
            "ky": context.write_array("targets", found.ky),
            "k": context.write_array("targets", found.k),
        },
        {"y": found.y.tolist(), "yy": found.yy.tolist(), "w": found.w, "n": found.n},
    )


def _read_targets(context: Context, name: str) -> Targets:
    return add_targets(
        [
            Targets(
                np.asarray(context.load(record.objects["ky"])),
                np.asarray(context.load(record.objects["k"])),
                np.array(record.facts["y"]),
                np.array(record.facts["yy"]),
                float(record.facts["w"]),
                int(record.facts["n"]),
            )
            for record in context.records(f"{name}-targets")
        ]
    )


def _start(context: Context, task: Task) -> Record:
    """The preconditioner of one alpha, and the state at 0."""
    name, config = task.args["of"], context.config
    whitening, sums = read_chosen(context).whitening, _read_targets(context, task.args["of"])
    b, a = right_side(whitening, sums, intercept=config.intercept)
    R = preconditioner(whitening, sums.w, task.args["alpha"])
    state = cg_start(b, solved_with(R))
    more = {
        "upper": context.write_array(f"preconditioner-{name}", R.T),  # C order: no copy
        "a": context.write_array("means", a),
    }
    return _write_state(context, task, state, more)


def _write_state(
    context: Context, task: Task, state: CgState, more: dict[str, ObjectRef]
) -> Record:
    """A state, and the direction as the spans take it: L^-T p."""
    whitening = read_chosen(context).whitening
    objects = {
        "x": context.write_array("cg", state.x),
        "r": context.write_array("cg", state.r),
        "p": context.write_array("cg", state.p),
        "W": context.write_array("cg", unwhitened(whitening, state.p)),
    }
    facts = {
        "rho": state.rho.tolist(),
        "size": state.size.tolist(),
        "relative": float(relative(state).max(initial=0.0)),
    }
    return Record(task.key, {**objects, **more}, facts)


def _read_state(context: Context, record: Record) -> CgState:
    x, r, p = (np.asarray(context.load(record.objects[role])) for role in ("x", "r", "p"))
    return CgState(x, r, p, np.array(record.facts["rho"]), np.array(record.facts["size"]))


def _product(context: Context, task: Task) -> Record:
    """The product of a span's rows, with the directions of all alphas side by side."""
    rows = rows_taken(context, task, held=_held(task.args["of"]))
    records = context.records(task.args["before"])
    W = np.concatenate([context.load(record.objects["W"]) for record in records], axis=1)
    found = product_block(read_chosen(context).whitening, rows, W, context.check)
    return Record(task.key, {"product": context.write_array("product", found)})


def _step(context: Context, task: Task) -> Record:
    """The next state of one alpha."""
    name, step, place = task.args["of"], task.args["step"], task.args["place"]
    before = f"{name}-start" if step == 0 else f"{name}-step-{step - 1}"
    state = _read_state(context, context.records(before)[place])
    start = context.records(f"{name}-start")[place].objects
    t = state.x.shape[1]
    columns = slice(place * t, (place + 1) * t)
    parts = context.records(f"{name}-product-{step}")
    product = np.sum([context.load(r.objects["product"])[:, columns] for r in parts], axis=0)
    whitening, a = read_chosen(context).whitening, np.asarray(context.load(start["a"]))
    w = sum(float(record.facts["w"]) for record in context.records(f"{name}-targets"))
    q = whitened_image(whitening, product, state.p, task.args["alpha"], a, w)
    R = np.asarray(context.load(start["upper"])).T
    return _write_state(context, task, cg_step(state, q, solved_with(R)), {})


def _machines(context: Context, of: str) -> list[Machine]:
    """A machine for every alpha of a round of states, such as "fit-step-3"."""
    name = of.partition("-")[0]
    whitening, sums = read_chosen(context).whitening, _read_targets(context, name)
    starts = context.records(f"{name}-start")
    return [
        falkon_machine(
            whitening,
            np.asarray(context.load(record.objects["x"])),
            sums,
            np.asarray(context.load(start.objects["a"])),
            context.config.intercept,
        )
        for record, start in zip(context.records(of), starts, strict=True)
    ]


def _judge(context: Context, task: Task) -> Record:
    """[a, t] squared errors of every alpha: on rows held out, or on all at the end."""
    of = task.args["of"]
    rows = rows_taken(context, task, held=True if of.startswith("fit-") else None)
    squares = [errors_of(machine, rows).tolist() for machine in _machines(context, of)]
    return Record(task.key, {}, {"squares": squares, "w": rows.weight})


def _best(rounds: Rounds) -> int:
    """Which alpha the rows held out prefer; every target measured by its own spread."""
    refuse_no_weight(sum(float(record.facts["w"]) for record in rounds["judge"]))
    nothing, sums = np.empty((0, 0)), rounds["fit-targets"]
    y, yy, w = (np.sum([r.facts[key] for r in sums], axis=0) for key in ("y", "yy", "w"))
    return best_of(_squares(rounds["judge"]), Targets(nothing, nothing, y, yy, float(w), 0))


def _squares(records: Sequence[Record]) -> Float64:
    return np.asarray(np.sum([record.facts["squares"] for record in records], axis=0))


def _model(context: Context, task: Task) -> Record:
    """The machine of the alpha that was taken, and what a manifest says of it."""
    config, of = context.config, f"refit-{task.args['step']}"
    alpha = config.alphas[0] if task.args["alpha"] is None else task.args["alpha"]
    fitted = _squares(context.records("check"))[0]
    residual = float(context.records(of)[0].facts["relative"])
    steps = int(of.rsplit("-", 1)[1]) + 1 if "step" in of else 0
    chosen, sums = read_chosen(context).facts(), _read_targets(context, "refit")
    metrics = falkon_metrics(
        config, chosen, sums, alpha=alpha, fitted=fitted, residual=residual, steps=steps
    )
    if config.chooses:
        judged = context.records("judge")
        w = sum(float(record.facts["w"]) for record in judged)
        errors = np.sqrt(_squares(judged) / w)
        metrics |= {"choice": config.choice, "choice_rmse": errors.tolist()}
    return Record(task.key, write_machine(context, _machines(context, of)[0]), metrics)


def forecast(config: RidgeConfig, rows: int, dim: int) -> Forecast:
    """Cost of some 20 steps; how many there are depends on the data."""
    m, t, count = min(config.centers.count, max(rows, 1)), len(config.targets), len(config.alphas)
    cuts = spans(rows, m, dim)
    columns = t * count
    read = STEPS * rows * (4 * dim + 8 * t)
    flops = STEPS * rows * m * (2.0 * dim + 4.0 * columns) + count * 2.0 * m**3
    written = STEPS * len(cuts) * 8 * m * columns + 8 * m * m * (1 + count)
    products = RoundForecast(
        "refit-product",
        STEPS * len(cuts),
        flops=flops,
        read=read,
        written=written,
        common=8 * m * columns,
        common_requests=count,
        requests=STEPS * (len(cuts) * TASK_REQUESTS + moves(len(cuts), read)),
        rows=STEPS * rows,
    )
    nbytes = 8 * (5 * m * m + 3 * m * dim) + BASE_NBYTES
    return Forecast(STEPS * (len(cuts) + count), nbytes, flops, written, (products,))


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "targets": _targets,
    "cg-start": _start,
    "product": _product,
    "cg-step": _step,
    "errors": _judge,
    "falkon-model": _model,
}
