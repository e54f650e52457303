"""What a flow would do and need: every stage's forecast, and what is committed already.

    links ──> for each: the shape of its input ──> forecast(config, n, d) ──> PlannedStep
                          from a manifest, from the metadata of the files to import, or as told

A step whose cost depends on what is in a graph, or on edges that nobody has counted, says so
instead of numbers.

Reads manifests, listings and file footers; runs nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Any

from simdist.config import links
from simdist.engine.memory import format_nbytes, parse_nbytes
from simdist.models.chain import Link, job_of
from simdist.models.shapes import Shape, after, expected, shape_of
from simdist.operators import LINKS
from simdist.report.words import amount, count, plural
from simdist.report.words import work as work_told
from simdist.runner import Job, RoundForecast, committed
from simdist.runner.plan import Forecast
from simdist.runner.plan import fingerprint as fingerprint_of
from simdist.stages.grow import AppendVectors
from simdist.stages.links import EdgesConfig
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
# Roles, of which the first there is gives the rows.
MAIN = ("vectors", "features", "embedding", "links", "graph", "queries", "partition")
SECOND = ("columns", "keys", "corpus")  # of sets that the first one is compared with
UNSEEN = Forecast(tasks=0, nbytes=0, flops=0.0, written=0)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A link of the flow before it runs.

    fingerprint: None while it depends on content that is not imported yet.
    recorded: tasks that an interrupted run has finished. nbytes: peak of one task.
    rows, dim: 0 where nobody knows, or there are none. entries: of the graph it works on, about.
    foreseen: whether tasks, bytes and work are: of a graph they may depend on what is in it.
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
    entries: int | None = None
    foreseen: bool = True

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
    """What is known of a link: the shape it works on, that of its dataset, and the dataset itself
    once committed."""

    of: Shape
    made: Shape
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
        known[link.name] = it = _known(link, known, store, rows, dim)
        stage: Any = link.stage
        cost: Forecast | None
        if isinstance(link.config, ImportConfig):
            cost = import_forecast(link.config, it.of.rows, it.of.dim)
        else:
            # A stage that compares two sets needs the size of the second one too.
            others = {role: known[name].made.rows for role, name in link.inputs.items()}
            asked = signature(stage.forecast).parameters if hasattr(stage, "forecast") else {}
            second = {role: others[role] for role in SECOND if role in others and role in asked}
            cost = expected(stage, link.config, it.of, **second)
        foreseen = cost is not None
        cost = cost or UNSEEN
        recorded = 0
        if it.dataset is None and it.fingerprint is not None:
            recorded = len(store.list_records(it.fingerprint))
        yield PlannedStep(
            name=link.name,
            stage=stage.name,
            rows=it.of.rows,
            dim=it.of.dim,
            fingerprint=it.fingerprint if it.dataset is None else it.dataset.fingerprint,
            committed=it.dataset is not None,
            recorded=recorded,
            tasks=cost.tasks,
            nbytes=cost.nbytes,
            flops=cost.flops,
            written=cost.written,
            rounds=cost.rounds,
            entries=it.made.entries if link.stage.name in LINKS else it.of.entries,
            foreseen=foreseen,
        )


def _known(
    link: Link, known: Mapping[str, _Known], store: Store, rows: int | None, dim: int | None
) -> _Known:
    dataset = None
    if not (rows or dim):  # of another shape than the data's nothing is known or committed
        dataset = _committed(link, known, store)
    if not link.inputs:
        told = _imported(link.config, dataset, rows, dim)
        return _Known(told, told, None if dataset is None else dataset.fingerprint, dataset)
    of = known[next(link.inputs[role] for role in MAIN if role in link.inputs)].made
    if isinstance(link.stage, AppendVectors) and not rows:
        of = replace(of, rows=of.rows + known[link.inputs["graph"]].made.rows)
    made = after(link.stage, link.config, of)
    if dataset is not None and "entries" in dataset.metrics:
        made = replace(made, entries=int(dataset.metrics["entries"]))
    if rows or dim:
        return _Known(of, made)
    inputs = {role: known[name].fingerprint for role, name in link.inputs.items()}
    found = {role: fingerprint for role, fingerprint in inputs.items() if fingerprint is not None}
    planned = None
    if len(found) == len(inputs):
        planned = fingerprint_of(link.stage, link.config, found)
    return _Known(of, made, planned, dataset)


def _imported(config: Any, dataset: Dataset | None, rows: int | None, dim: int | None) -> Shape:
    """Of vectors or edges as they lie there, or as told: a graph of more nodes has more entries."""
    shape = None if dataset is None else shape_of(dataset)
    if shape is not None:
        return shape
    if isinstance(config, EdgesConfig):
        nodes, entries = config.nodes or 0, config.entries
        return Shape(rows or nodes, 0, entries * rows // nodes if rows and nodes else entries)
    if rows and dim:
        return Shape(rows, dim)
    seen = describe(config)
    return Shape(rows or seen.rows, dim or seen.dim)


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
        holds = Text(format_nbytes(step.nbytes), "red" if step in plan.too_large else "")
        seen = (f"{step.tasks:,}", holds, work_told(step.flops), format_nbytes(step.written))
        table.add_row(
            Text(step.name, "bold"),
            _shape(step),
            *(seen if step.foreseen else ("",) * len(seen)),
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


def _shape(step: PlannedStep) -> str:
    """`12,000 x 128`; of a graph of one's own its nodes, if anybody knows."""
    if step.dim:
        return f"{count(step.rows)} x {step.dim}"
    return count(step.rows) if step.rows else "?"


def _state(step: PlannedStep) -> str:
    if step.committed:
        return "committed already"
    said = []
    if step.recorded:
        said.append(f"{plural(step.recorded, 'task')} done, to be resumed")
    if not step.foreseen:
        said.append("depends on the graph")
    elif step.entries is not None:
        said.append(f"about {amount(step.entries)} entries")
    return ", ".join(said)
