"""Which round follows which, and what the manifest says of the eigenpairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.operators import ShardedCsr
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.solvers.lobpcg import ROWS, spare_of
from simdist.stages.spectral.config import DEGREE, SpectralConfig, direct_nbytes
from simdist.stages.spectral.cost import direct_rounds, sharded_rounds
from simdist.stages.spectral.direct import compute_direct
from simdist.stages.spectral.sharded import COMPUTE, filter_name
from simdist.store.datasets import Shard
from simdist.types import Float64, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["SpectralStage"]

BASE_NBYTES = 16 << 20
SHARD_ENTRIES = 3_000_000  # of the graph, as a forecast takes it
PASSES = 50  # as a forecast takes it: graphs of data took 21 to 65 to residuals of 1e-3


class SpectralStage:
    """See the package docstring. Inputs: links and components. Shards as the graph's, with

    vectors    [rows, dim] float32, float64 where the tolerance asks for it
    degrees    [rows] float64, 0 for a node without edges; density [rows] float64, d^alpha
    embedding  Parquet (row int64, vector fixed_size_list<float32>[dim], isolated bool)
    """

    name: ClassVar[str] = "spectral_embedding"
    VERSION: ClassVar[int] = 3
    on_edges: ClassVar[bool] = True  # how `forecast` wants to be asked

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        plan = _Plan.of(job)
        if plan.direct:
            for step in plan.direct_rounds():
                if step.name not in rounds:
                    return step
            return _direct_manifest(plan, rounds["direct"][0])
        for step in plan.rounds(rounds):
            if step.name not in rounds:
                return step
        return _manifest(plan, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        """One task of any round."""
        if task.kind == "direct":
            return compute_direct(context, task)
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: SpectralConfig, rows: int, dim: int, *, entries: int) -> Forecast:
        """Cost of a connected graph of n nodes and so many entries; of PASSES, as many as they are
        depends on its eigenvalues."""
        flops = 2.0 * PASSES * config.block * entries
        result = rows * (8 * config.dim + 16)
        if config.taken(rows, entries) == "direct":
            nbytes = direct_nbytes(rows, entries, config.block) + BASE_NBYTES
            steps = direct_rounds(config, rows, entries, passes=PASSES)
            return Forecast(1, nbytes, flops, result, steps)
        shards = max(1, -(-entries // SHARD_ENTRIES))
        degree, own = config.degree(rows, entries), -(-rows // shards)
        size, block = np.dtype(config.dtype).itemsize, config.block
        moved = 12 * entries // shards + own * (24 + (size + 8) * block + 8)
        nbytes = _held(config, degree, own, 1) + moved
        steps = tuple(
            sharded_rounds(config, rows, entries, shards=shards, degree=degree, passes=PASSES)
        )
        tasks, written = sum(step.tasks for step in steps), sum(step.written for step in steps)
        return Forecast(tasks, nbytes, flops, written, steps)


def _held(config: SpectralConfig, degree: int, rows: int, components: int) -> int:
    """What a task on so many rows holds beside a product: blocks at rest, a panel of the basis."""
    block, size = config.block, np.dtype(config.dtype).itemsize
    kept = 1 + spare_of(degree)
    width = (2 + kept) * block
    panels = 2 * 8 * width * (2 * ROWS + 2 * width)
    deflated = 24 * block * min(rows, components)
    return rows * (8 * 4 * block + size * (2 * kept + 3) * block) + panels + deflated + BASE_NBYTES


@dataclass(frozen=True, slots=True)
class _Plan:
    """A job's sizes and what follows from them."""

    config: SpectralConfig
    matrix: ShardedCsr
    components: int

    @classmethod
    def of(cls, job: Job) -> _Plan:
        matrix = ShardedCsr.of(job.inputs["links"])
        labels = job.inputs["components"]
        if [s.rows for s in labels.shards] != [s.rows for s in matrix.dataset.shards]:
            raise InputError(
                f"{labels.uri} labels {labels.rows} nodes, not the {matrix.nodes} of"
                f" {matrix.dataset.uri}: find the components of this graph"
            )
        plan = cls(job.config, matrix, int(labels.metrics["components"]))
        plan.refuse()
        return plan

    def refuse(self) -> None:
        """InputError where there are not so many eigenvectors beside the known ones."""
        most = self.matrix.nodes - self.components
        if self.config.dim > most:
            raise InputError(
                f"dim={self.config.dim} eigenvectors of a graph of {self.matrix.nodes} nodes in"
                f" {self.components} components: its Laplacian has {most} beside the null space."
                f" Ask for dim <= {most}."
                if most
                else f"no node of {self.matrix.dataset.uri} has an edge: there is nothing to embed"
            )

    @property
    def direct(self) -> bool:
        return self.solver == "direct"

    @property
    def solver(self) -> str:
        return self.config.taken(self.matrix.nodes, self.matrix.entries)

    @property
    def degree(self) -> int:
        return self.config.degree(self.matrix.nodes, self.matrix.entries)

    def direct_rounds(self) -> Iterator[Round]:
        sizes = self.matrix.nodes, self.matrix.entries, self.config.block
        nbytes = direct_nbytes(*sizes) + BASE_NBYTES
        yield Round("direct", (Task("direct", "direct", {}, nbytes, spreads=True),))

    def rounds(self, done: Rounds) -> Iterator[Round]:
        """Rounds as long as their facts are known."""
        yield self._each("start")
        step = 0
        while True:
            if step:
                for j in range(2, self.degree + 1):
                    yield self._each(filter_name(step, j), "filter", step=step, j=j)
            yield self._each(f"product-{step}", "product", step=step)
            yield self._one(f"solve-{step}", step)
            yield self._each(f"update-{step}", "update", step=step)
            if self.settled(done, step) or self.passes(step + 1) > self.config.max_passes:
                break
            step += 1
        yield self._each("measure", step=step)
        values = np.array(done[f"solve-{step}"][0].facts["values"][: self.config.dim])
        volume = sum(float(record.facts["volume"]) for record in done["start"])
        factors = self.config.factors(_largest(done["measure"]), values, volume)
        yield self._each("vectors", step=step, factors=[float(value) for value in factors])

    def passes(self, step: int) -> int:
        """Products with a block up to product `step`."""
        return 1 + step * self.degree

    def settled(self, done: Rounds, step: int) -> bool:
        """Whether all residuals asked for are within the tolerance."""
        squares = _summed(done[f"update-{step}"], "squares")
        dim = self.config.dim
        return len(squares) >= dim and math.sqrt(max(squares[:dim])) <= self.config.tolerance

    def last(self, done: Rounds) -> int:
        """The last step that was taken."""
        return int(max(int(name[7:]) for name in done if name.startswith("update-")))

    def _each(self, name: str, kind: str | None = None, **args: Json) -> Round:
        """A task for each shard."""
        kind = kind or name
        given = {**args, "degree": self.degree}
        return Round(
            name,
            tuple(
                Task(f"{name}-{i:06d}", kind, {"shard": i, **given}, self._nbytes(kind, i))
                for i in range(self.matrix.shards)
            ),
        )

    def _one(self, name: str, step: int) -> Round:
        width = self._basis
        return Round(
            name,
            (
                Task(
                    name,
                    "solve",
                    {"step": step, "degree": self.degree},
                    80 * width**2 + BASE_NBYTES,
                ),
            ),
        )

    @property
    def _basis(self) -> int:
        return (3 + spare_of(self.degree)) * self.config.block

    def _nbytes(self, kind: str, i: int) -> int:
        """What a task holds: what a product does, blocks at rest, a panel of the basis."""
        size = np.dtype(self.config.dtype).itemsize
        moved = 0 if kind == "update" else self.matrix.product_nbytes(i, self.config.block, size)
        return _held(self.config, self.degree, self.matrix.rows(i), self.components) + moved


def _largest(records: Sequence[Record]) -> Float64:
    """[dim] the entry of largest magnitude in each column; of equal ones that of the lower node."""
    entries = np.array([record.facts["largest"] for record in records])
    at = np.argmax(np.abs(entries), axis=0)
    return np.asarray(entries[at, np.arange(entries.shape[1])])


def _summed(records: Sequence[Record], fact: str) -> list[float]:
    """Lists of numbers in facts, added up in plan order."""
    return [math.fsum(column) for column in zip(*(r.facts[fact] for r in records), strict=True)]


def _manifest(plan: _Plan, rounds: Rounds) -> Commit:
    config, step = plan.config, plan.last(rounds)
    squares = _summed(rounds["measure"], "squares")
    values = [float(value) for value in rounds[f"solve-{step}"][0].facts["values"]]
    itemsize = np.dtype(config.dtype).itemsize
    metrics = {
        "solver": plan.solver,
        "degree": plan.degree,
        "block": config.block,
        "passes": plan.passes(step) + 1,
        "bases": step + 1,
        "barriers": len(rounds),
        "bytes_per_pass": plan.matrix.pass_nbytes(config.block, itemsize),
        "isolated": sum(int(record.facts["isolated"]) for record in rounds["start"]),
    }
    shards = tuple(
        Shard(plan.matrix.rows(i), record.objects) for i, record in enumerate(rounds["vectors"])
    )
    return _commit(plan, shards, values, [math.sqrt(square) for square in squares], metrics)


def _direct_manifest(plan: _Plan, record: Record) -> Commit:
    roles = ("vectors", "degrees", "embedding", "density")
    shards = tuple(
        Shard(plan.matrix.rows(i), {role: record.objects[f"{role}-{i}"] for role in roles})
        for i in range(plan.matrix.shards)
    )
    facts = record.facts
    metrics = {
        "solver": "direct",
        "degree": DEGREE,
        "block": plan.config.direct_block,
        "passes": facts["passes"],
        "bases": facts["bases"],
        "barriers": 1,
        "bytes_per_pass": 0,
        "isolated": facts["isolated"],
    }
    return _commit(plan, shards, facts["values"], facts["residuals"], metrics)


def _commit(
    plan: _Plan,
    shards: tuple[Shard, ...],
    values: list[float],
    residuals: list[float],
    metrics: dict[str, Json],
) -> Commit:
    """What both ways have to say. values: [dim] or more, of S, largest first."""
    dim = plan.config.dim
    found = [1.0 - value for value in values]
    converged = len(residuals) == dim and max(residuals) <= plan.config.tolerance
    return Commit(
        rows=plan.matrix.nodes,
        shards=shards,
        metrics={
            "state": "converged" if converged else "unconverged",
            "dim": dim,
            "laplacian": plan.config.laplacian,
            "alpha": plan.config.alpha,
            "time": plan.config.time,
            "tolerance": plan.config.tolerance,
            "eigenvalues": found[:dim],
            "eigengap": found[dim] - found[dim - 1] if len(found) > dim else None,
            "residuals": residuals,
            "components": plan.components,
            **metrics,
        },
    )
