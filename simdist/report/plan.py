"""What a flow would do and need: every stage's forecast, and what is committed already.

    links ──> for each: rows and d of its input ──> forecast(config, n, d) ──> PlannedStep
                          from a manifest, from the metadata of the files to import, or as told

Reads manifests, listings and file footers; runs nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from simdist.config import links
from simdist.engine.memory import format_nbytes, parse_nbytes
from simdist.models.chain import Link, job_of
from simdist.report.words import amount, count, plural
from simdist.report.words import work as work_told
from simdist.runner import Job, RoundForecast, committed
from simdist.runner.plan import Forecast
from simdist.runner.plan import fingerprint as fingerprint_of
from simdist.stages.grow import AppendVectors
from simdist.stages.vectors import ImportConfig, describe
from simdist.stages.vectors import forecast as import_forecast
from simdist.store.datasets import Dataset
from simdist.types import Json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from simdist.config import FlowConfig
    from simdist.store.store import Store

__all__ = ["PlannedFlow", "PlannedStep", "plan_flow", "print_plan", "rounds_table"]

WORKER_MEMORY = "2GiB"  # what `open_engine` gives a worker where the config does not say


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A link of the flow before it runs.

    fingerprint: None while it depends on content that is not imported yet.
    recorded: tasks that an interrupted run has finished. nbytes: peak of one task.
    """

    name: str
    stage: str
    rows: int
    dim: int
    fingerprint: str | None
    committed: bool
    recorded: int
    tasks: int
    nbytes: int
    flops: float
    written: int
    rounds: tuple[RoundForecast, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PlannedFlow:
    """All links in order, and what a worker has."""

    flow: str
    store: str
    engine: str
    memory: int
    steps: tuple[PlannedStep, ...]

    @property
    def too_large(self) -> tuple[PlannedStep, ...]:
        """Steps whose largest task a worker cannot hold."""
        return tuple(s for s in self.steps if not s.committed and s.nbytes > self.memory)

    def to_json(self) -> dict[str, Json]:
        return {**asdict(self), "too_large": [step.name for step in self.too_large]}


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a link's dataset: its shape, and the dataset itself once committed."""

    rows: int
    dim: int
    fingerprint: str | None = None
    dataset: Dataset | None = None


def plan_flow(flow: FlowConfig, *, rows: int | None = None, dim: int | None = None) -> PlannedFlow:
    """Forecast a flow. Raises what importing would: a path that matches nothing, no such column.

    rows, dim: forecast for inputs of that shape instead of their own; what is committed for the
    present ones does not count then.
    """
    store = flow.store.open()
    return PlannedFlow(
        flow=flow.name,
        store=store.uri,
        engine=flow.engine.address or flow.engine.kind or "local",
        memory=flow.engine.memory or parse_nbytes(WORKER_MEMORY),
        steps=tuple(_steps(links(flow, store=store), store, rows, dim)),
    )


def _steps(
    chain: tuple[Link, ...], store: Store, rows: int | None, dim: int | None
) -> Iterator[PlannedStep]:
    known: dict[str, _Known] = {}
    for link in chain:
        it = _Known(rows, dim) if rows and dim else _known(link, known, store)
        if rows or dim:  # another shape than the data's: nothing of it is known or committed
            it = _Known(rows or it.rows, dim or it.dim)
        known[link.name] = it
        stage: Any = link.stage
        if isinstance(link.config, ImportConfig):
            cost: Forecast = import_forecast(link.config, it.rows, it.dim)
        else:
            # A stage that compares two sets needs the size of the second one too.
            others = {role: known[name].rows for role, name in link.inputs.items()}
            second = {"columns": others["columns"]} if "columns" in others else {}
            cost = stage.forecast(link.config, it.rows, it.dim, **second)
        recorded = 0
        if it.dataset is None and it.fingerprint is not None:
            recorded = len(store.list_records(it.fingerprint))
        yield PlannedStep(
            name=link.name,
            stage=stage.name,
            rows=it.rows,
            dim=it.dim,
            fingerprint=it.fingerprint if it.dataset is None else it.dataset.fingerprint,
            committed=it.dataset is not None,
            recorded=recorded,
            tasks=cost.tasks,
            nbytes=cost.nbytes,
            flops=cost.flops,
            written=cost.written,
            rounds=cost.rounds,
        )


def _known(link: Link, known: Mapping[str, _Known], store: Store) -> _Known:
    dataset = _committed(link, known, store)
    if isinstance(link.config, ImportConfig):
        if dataset is not None:
            dim = int(dataset.metrics["dim"])
            return _Known(dataset.rows, dim, dataset.fingerprint, dataset)
        seen = describe(link.config)
        return _Known(seen.rows, seen.dim, None, None)
    source = known[link.inputs.get("vectors") or link.inputs["graph"]]
    rows = source.rows
    if isinstance(link.stage, AppendVectors):
        rows += known[link.inputs["graph"]].rows
    inputs = {role: known[name].fingerprint for role, name in link.inputs.items()}
    found = {role: fingerprint for role, fingerprint in inputs.items() if fingerprint is not None}
    planned = None
    if len(found) == len(inputs):
        planned = fingerprint_of(link.stage, link.config, found)
    return _Known(rows, source.dim, planned, dataset)


def _committed(link: Link, known: Mapping[str, _Known], store: Store) -> Dataset | None:
    datasets = {name: it.dataset for name, it in known.items() if it.dataset is not None}
    if not set(link.inputs.values()) <= set(datasets):
        return None
    job: Job = job_of(link, datasets)
    return committed(job, store)


def print_plan(plan: PlannedFlow, console: Console) -> None:
    """A line a step, and what a worker cannot hold."""
    from rich.text import Text  # noqa: PLC0415 - JSON needs none of it

    from simdist.report.terminal import columns, indented, show  # noqa: PLC0415

    memory = format_nbytes(plan.memory)
    title = Text.assemble((plan.flow, "bold"), f"  engine {plan.engine}, {memory} a worker")
    table = columns()
    table.add_column("step", no_wrap=True)
    for heading in ("rows x d", "tasks", "a task holds", "work", "writes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for step in plan.steps:
        table.add_row(
            Text(step.name, "bold"),
            f"{count(step.rows)} x {step.dim}",
            f"{step.tasks:,}",
            Text(format_nbytes(step.nbytes), "red" if step in plan.too_large else ""),
            work_told(step.flops),
            format_nbytes(step.written),
            Text(_state(step), "dim"),
        )
    show(console, title, Text(plan.store, "dim"), Text(), indented(table))
    for step in plan.steps:
        if step.rounds and not step.committed:
            show(console, Text(), indented(rounds_table(step.name, step.rounds)))
    for step in plan.too_large:
        need = f"{step.name} needs {format_nbytes(step.nbytes)} for its largest task"
        show(console, Text(f"\n{need}; a worker has {memory}. Raise engine.memory.", "red"))


def rounds_table(name: str, rounds: Sequence[RoundForecast]) -> RenderableType:
    """A line a round: what it computes, and what it moves."""
    from rich.text import Text  # noqa: PLC0415 - JSON needs none of it

    from simdist.report.terminal import columns  # noqa: PLC0415

    table = columns()
    table.add_column(Text(name, "bold"), no_wrap=True, min_width=16)
    for heading in ("tasks", "rows", "work", "pairs", "reads", "moved", "writes", "requests"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in rounds:
        products = (work_told(cost.flops), work_told(cost.ops, "OP"))
        table.add_row(
            cost.name,
            f"{cost.tasks:,}",
            amount(cost.rows),
            " ".join(filter(None, products)),
            amount(cost.pairs) if cost.pairs else "",
            _size(cost.read + cost.common),
            _size(cost.moved),
            _size(cost.written),
            amount(cost.asked(1)),
        )
    return table


def _size(nbytes: float) -> str:
    return format_nbytes(nbytes) if nbytes else ""


def _state(step: PlannedStep) -> str:
    if step.committed:
        return "committed already"
    if step.recorded:
        return f"{plural(step.recorded, 'task')} done, to be resumed"
    return ""
