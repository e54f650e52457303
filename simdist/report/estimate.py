"""How long a planned flow would take on other machines, and what that would cost.

    PlannedFlow ── rounds of each step ──> simulate(machine, workers) ──> Estimate ──> printed

A forecast of forecasts: formulas for the work, rates of a machine, a simulation of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from simdist.engine.memory import format_nbytes
from simdist.errors import ConfigError
from simdist.report.words import amount, duration, plural
from simdist.simulation import Machine, RoundTime, Simulation, simulate
from simdist.types import Json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from simdist.report.plan import PlannedFlow

__all__ = ["Estimate", "StepEstimate", "estimate", "print_estimate"]


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """A step as it would run. nbytes: of its largest task; side_by_side: tasks on one worker then.
    moved: bytes that tasks look at in other parts of the data than their own."""

    name: str
    rows: int
    dim: int
    nbytes: int
    side_by_side: int
    moved: int
    run: Simulation

    @property
    def peak(self) -> int:
        """Bytes that a worker's tasks hold together."""
        return self.nbytes * self.side_by_side

    def to_json(self) -> dict[str, Json]:
        rounds = [{**asdict(step), "held_up_by": step.held_up_by} for step in self.run.rounds]
        return {
            "name": self.name,
            "rows": self.rows,
            "dim": self.dim,
            "seconds": self.run.seconds,
            "dollars": self.run.dollars,
            "moved": self.moved,
            "fetched": self.run.fetched,
            "left": self.run.left,
            "requests": self.run.requests,
            "peak": self.peak,
            "rounds": rounds,
        }


@dataclass(frozen=True, slots=True)
class Estimate:
    """All steps that are not committed, on so many workers of one kind."""

    flow: str
    machine: str
    workers: int
    memory: float
    steps: tuple[StepEstimate, ...]

    @property
    def seconds(self) -> float:
        return sum(step.run.seconds for step in self.steps)

    @property
    def dollars(self) -> float:
        return sum(step.run.dollars for step in self.steps)

    @property
    def too_large(self) -> tuple[StepEstimate, ...]:
        """Steps whose largest task a worker cannot hold."""
        return tuple(step for step in self.steps if step.nbytes > self.memory)

    def to_json(self) -> dict[str, Json]:
        return {
            "flow": self.flow,
            "machine": self.machine,
            "workers": self.workers,
            "seconds": self.seconds,
            "dollars": self.dollars,
            "steps": [step.to_json() for step in self.steps],
        }


def estimate(plan: PlannedFlow, machine: Machine, *, workers: int, seed: int = 0) -> Estimate:
    """Simulate what is not committed yet. Cost: some 20 microseconds a task.

    ConfigError where a step's stage cannot tell its rounds.
    """
    steps = []
    for step in plan.steps:
        if step.committed:
            continue
        if not step.rounds:
            raise ConfigError(
                f"step {step.name}: stage {step.stage} does not tell its rounds one by one, so"
                " nothing can be said about its time. Plan without --machine."
            )
        rounds = [replace(cost, nbytes=cost.nbytes or step.nbytes) for cost in step.rounds]
        steps.append(
            StepEstimate(
                name=step.name,
                rows=step.rows,
                dim=step.dim,
                nbytes=step.nbytes,
                side_by_side=machine.slots(step.nbytes),
                moved=sum(cost.moved for cost in rounds),
                run=simulate(rounds, machine, workers=workers, seed=seed),
            )
        )
    return Estimate(plan.flow, machine.name, workers, machine.memory, tuple(steps))


def print_estimate(it: Estimate, console: Console) -> None:
    """What it comes to, a line a step, and where each step's time would go, a line a round."""
    from rich.text import Text  # noqa: PLC0415 - JSON needs none of it

    from simdist.report.terminal import indented, show  # noqa: PLC0415

    where = f"{it.workers} x {it.machine}"
    shapes = dict.fromkeys(f"{step.rows:,} x {step.dim}" for step in it.steps)
    title = f"  {', '.join(shapes)}  on {where}"
    total = f"  {duration(it.seconds)}{_dollars(it.dollars, ', ')}"
    show(console, Text.assemble((it.flow, "bold"), title), Text(total, "bold"), Text())
    show(console, indented(_steps(it)))
    for step in it.steps:
        show(console, Text(), indented(_rounds(step)))
    for step in it.too_large:
        need = f"{step.name} needs {format_nbytes(step.nbytes)} for its largest task"
        has = f"{it.machine} has {format_nbytes(it.memory)}"
        show(console, Text(f"\n{need}; {has}: it would be refused.", "red"))


def _steps(it: Estimate) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - JSON needs none of it

    from simdist.report.terminal import columns  # noqa: PLC0415

    table = columns()
    table.add_column("step", no_wrap=True)
    headings = ("tasks", "time", "shuffled", "from store", "to store", "requests", "worker holds")
    for heading in (*headings, "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for step in it.steps:
        table.add_row(
            Text(step.name, "bold"),
            amount(sum(part.tasks for part in step.run.rounds)),
            duration(step.run.seconds),
            format_nbytes(step.moved),
            format_nbytes(step.run.fetched),
            format_nbytes(step.run.left),
            amount(step.run.requests),
            format_nbytes(step.peak),
            _dollars(step.run.dollars),
        )
    return table


def _rounds(step: StepEstimate) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - JSON needs none of it

    from simdist.report.terminal import columns  # noqa: PLC0415

    table = columns()
    table.add_column(Text(step.name, "bold"), no_wrap=True, min_width=16)
    for heading in ("tasks", "time", "from store", "to store", "requests"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("spent on", no_wrap=True)
    for part in step.run.rounds:
        table.add_row(
            part.name,
            amount(part.tasks),
            duration(part.seconds),
            format_nbytes(part.fetched),
            format_nbytes(part.left),
            amount(part.requests),
            Text(" · ".join(_shares(part)), "dim"),
        )
    return table


def _shares(part: RoundTime) -> Iterator[str]:
    """`compute 71 % · barrier 20 %`; what holds up the round first where that is the driver."""
    if part.held_up_by == "driver":
        yield f"driver {part.driver / part.seconds:.0%}"
    total = max(part.seconds * part.slots, 1e-12)
    for name, seconds in sorted(part.spent.items(), key=lambda item: -item[1])[:2]:
        if seconds >= 0.1 * total:
            yield f"{name} {seconds / total:.0%}"
    if part.again:
        yield f"{plural(part.again, 'task')} again"


def _dollars(dollars: float, before: str = "") -> str:
    return f"{before}${dollars:,.2f}" if dollars else ""
