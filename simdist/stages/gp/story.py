"""Which round follows which, and the manifest of a fitted model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from simdist.errors import InputError
from simdist.grams import (
    block_nbytes,
    merge_name,
    merge_rounds,
    read_statistics,
    spans,
    statistics_nbytes,
)
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.gp.config import SparseGPConfig
from simdist.stages.gp.model import Fitted, Scores
from simdist.stages.gp.passes import COMPUTE, MODEL, load_progress
from simdist.stages.gp.report import report
from simdist.store.datasets import Shard
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["SparseGPStage"]

BASE_NBYTES = 24 << 20
EVALUATIONS = 40  # as a forecast takes it


class SparseGPStage:
    """See the package docstring. Input: vectors, with the targets among the columns it keeps.

    A *sparse_gp* dataset has one shard of m rows, its inducing points "inducing" [m, d]; objects
    L, alpha, factors, noise, mean, scale, calibration (see `Fitted`); metrics: the report, and
    "model".
    """

    name: ClassVar[str] = "sparse_gp"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        plan = _Plan.of(job)
        for step in plan.rounds(rounds):
            if step.name not in rounds:
                return step
        return _manifest(plan, rounds, context)

    def compute(self, context: Context, task: Task) -> Record:
        """One task of any round."""
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: SparseGPConfig, rows: int, dim: int) -> Forecast:
        """Cost of EVALUATIONS evaluations; how many it takes depends on the data."""
        plan = _Plan(config, rows, dim)
        m, evaluations = config.inducing, EVALUATIONS if config.optimize else 0
        count = len(plan.spans)
        state = statistics_nbytes(m, config.outputs)
        tasks = (evaluations + 1) * (2 * count + 3) + 2 * count
        nbytes = max(plan.pass_nbytes, plan.begin_nbytes)
        flops = (5.0 * evaluations + 2.0) * rows * m * m
        return Forecast(tasks, nbytes, flops, int((evaluations + 1) * 1.2 * count * state))


@dataclass(frozen=True, slots=True)
class _Plan:
    """A job's sizes and what follows from them."""

    config: SparseGPConfig
    n: int
    d: int

    @classmethod
    def of(cls, job: Job) -> _Plan:
        vectors = job.inputs["vectors"]
        if "dim" not in vectors.metrics:
            raise InputError(
                f"{vectors.uri} ({vectors.stage}) is no vectors dataset; import rows with"
                " import_vectors, and keep= their targets"
            )
        return cls(job.config, vectors.rows, int(vectors.metrics["dim"]))

    @property
    def spans(self) -> list[tuple[int, int]]:
        return spans(self.n, self.config.inducing, self.d)

    @property
    def pass_nbytes(self) -> int:
        rows = max(last - first for first, last in self.spans)
        return block_nbytes(rows, self.d, self.config.inducing, self.config.outputs) + BASE_NBYTES

    @property
    def begin_nbytes(self) -> int:
        """The sample, twice, the factor of choosing, and a fit of its first rows with all blocks
        kept."""
        config, t = self.config, self.config.outputs
        s, m = config.sample_rows(self.n), config.inducing
        sample = 3 * 8 * s * (self.d + t + 2)
        mini = 3 * 8 * config.mini_rows * min(m, max(1, config.mini_rows // 8))
        return sample + max(8 * s * m, mini) + 10 * 8 * m * m + BASE_NBYTES

    @property
    def solve_nbytes(self) -> int:
        m, t = self.config.inducing, self.config.outputs
        return 8 * m * m * (10 + t) + 25 * 16 * m * self.d + BASE_NBYTES

    def rounds(self, done: Rounds) -> Iterator[Round]:
        """Rounds as long as their facts are known."""
        yield self._each("survey", "survey", self.begin_nbytes)
        yield self._one("begin", "begin", nbytes=self.begin_nbytes, spreads=True)
        state, step = "begin", 0
        while done[state][0].facts["running"]:
            yield from self._evaluation(done, state, step)
            state, step = f"step-{step}", step + 1
        yield from self._pass("final", state, best=True)
        summed = merge_name("final", len(self.spans))
        yield self._one(
            *("model", "model"),
            state=state,
            sum=summed,
            best=True,
            nbytes=max(self.solve_nbytes, self.begin_nbytes),
        )
        if self.config.held_out:
            yield self._each("test", "test", self.pass_nbytes)

    def _evaluation(self, done: Rounds, state: str, step: int) -> Iterator[Round]:
        """The bound and its gradient where `state` wants to look, and what follows from it."""
        name, bound, slope = f"pass-{step}", f"bound-{step}", f"slope-{step}"
        summed = merge_name(name, len(self.spans))
        yield self._each(name, "pass", self.pass_nbytes, state=state)
        failed = any("failed" in record.facts for record in done[name])
        if not failed:
            yield from merge_rounds(name, len(self.spans), self._state_nbytes)
            yield self._one(bound, "bound", state=state, sum=summed)
            failed = "failed" in done[bound][0].facts
        if not failed:
            yield self._each(slope, "slope", self.pass_nbytes, state=state, bound=bound)
        yield self._one(
            *(f"step-{step}", "step"),
            state=state,
            failed=failed,
            sum=summed,
            bound=bound,
            slope=slope,
            nbytes=max(self.solve_nbytes, self.begin_nbytes),
        )

    def _pass(self, name: str, state: str, **args: Json) -> Iterator[Round]:
        yield self._each(name, "pass", self.pass_nbytes, state=state, **args)
        yield from merge_rounds(name, len(self.spans), self._state_nbytes)

    @property
    def _state_nbytes(self) -> int:
        return statistics_nbytes(self.config.inducing, self.config.outputs)

    def _each(self, name: str, kind: str, nbytes: int, **args: Json) -> Round:
        """A task for each span."""
        return Round(
            name,
            tuple(
                Task(f"{name}-{i:05d}", kind, {"span": list(span), **args}, nbytes)
                for i, span in enumerate(self.spans)
            ),
        )

    def _one(
        self, name: str, kind: str, *, nbytes: int = 0, spreads: bool = False, **args: Json
    ) -> Round:
        task = Task(name, kind, args, nbytes or self.solve_nbytes, spreads=spreads)
        return Round(name, (task,))


def _manifest(plan: _Plan, rounds: Rounds, context: Context) -> Commit:
    steps = sum(name.startswith("step-") for name in rounds)
    progress = load_progress(context, rounds[f"step-{steps - 1}" if steps else "begin"][0])
    record = rounds["model"][0]
    model = Fitted.of(
        record.facts["model"], {name: context.load(record.objects[name]) for name in MODEL}
    )
    last = rounds[merge_name("final", len(plan.spans))][0]
    statistics = read_statistics(context, last.objects)
    scores = None
    for tested in rounds.get("test", ()):
        part = Scores.from_json(tested.facts["scores"])
        scores = part if scores is None else scores + part
    found = report(plan.config, progress, model, statistics, scores, dim=plan.d)
    objects = {name: ref for name, ref in record.objects.items() if name != "Z"}
    return Commit(
        rows=len(model.Z),
        shards=(Shard(len(model.Z), {"inducing": record.objects["Z"]}),),
        metrics={**found, "model": record.facts["model"]},
        objects=objects,
    )
