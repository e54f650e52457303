"""What a finished run did, as a value: for the terminal, for Prefect's artifacts, for tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from simdist.errors import InputError
from simdist.report.neighbors import Neighborhood, neighborhoods
from simdist.runner.events import Event, RoundDone, StageDone, StageStarted
from simdist.store.datasets import Dataset
from simdist.types import Json

__all__ = ["StepSummary", "Summary", "Timings", "summarize"]


@dataclass(frozen=True, slots=True)
class StepSummary:
    """One committed step. `seconds` and `rounds` say what this run spent on it."""

    name: str
    stage: str
    rows: int
    fingerprint: str
    uri: str
    seconds: float
    reused: bool
    rounds: tuple[tuple[str, float], ...] = ()
    metrics: Mapping[str, Json] = field(default_factory=dict)
    named: str = ""  # how the store calls it: "debian-packages.graph@1"

    @property
    def edges(self) -> int | None:
        """Rows times k, for a k-NN graph."""
        return self.rows * int(self.metrics["k"]) if self.stage == "knn_graph" else None


@dataclass(frozen=True, slots=True)
class Summary:
    """A flow that has run: its steps in order, and whose neighbours to show."""

    flow: str
    store: str
    steps: tuple[StepSummary, ...]
    neighbors: tuple[Neighborhood, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def reused(self) -> bool:
        """Nothing was left to do."""
        return all(step.reused for step in self.steps)

    @property
    def graph(self) -> StepSummary | None:
        """The last k-NN graph of the flow."""
        return next((step for step in reversed(self.steps) if step.edges is not None), None)

    def to_json(self) -> dict[str, Json]:
        steps = [{**asdict(step), "edges": step.edges} for step in self.steps]
        return {
            "flow": self.flow,
            "store": self.store,
            "reused": self.reused,
            "seconds": self.seconds,
            "steps": steps,
            "neighbors": [near.to_json() for near in self.neighbors],
            "notes": list(self.notes),
        }


class Timings:
    """A listener that keeps, by link name, how each stage ended and what its rounds took."""

    def __init__(self) -> None:
        self.done: dict[str, StageDone] = {}
        self.rounds: dict[str, list[tuple[str, float]]] = {}
        self.name = ""

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted():
                self.name = event.name
                self.rounds[event.name] = []
            case RoundDone():
                self.rounds[self.name].append((event.round, event.seconds))
            case StageDone():
                self.done[event.name] = event


def summarize(
    flow: str,
    datasets: Mapping[str, Dataset],
    timings: Timings,
    *,
    names: Mapping[str, str],
    examples: Sequence[str | int] = (),
) -> Summary:
    """Put a run together. datasets, names: by link name; names are what the store calls them."""
    steps = tuple(
        _step(name, dataset, timings, names.get(name, "")) for name, dataset in datasets.items()
    )
    graphs = [dataset for dataset in datasets.values() if dataset.stage == "knn_graph"]
    near: tuple[Neighborhood, ...] = ()
    notes: tuple[str, ...] = ()
    if graphs:
        try:
            near = neighborhoods(graphs[-1], ids=examples)
        except InputError as error:  # the run is done and good; an example is only an example
            notes = (str(error),)
            near = neighborhoods(graphs[-1])
    store = next(iter(datasets.values())).store.uri
    return Summary(flow, store, steps, near, notes)


def _step(name: str, dataset: Dataset, timings: Timings, named: str) -> StepSummary:
    done: Any = timings.done.get(name)
    return StepSummary(
        name=name,
        stage=dataset.stage,
        rows=dataset.rows,
        fingerprint=dataset.fingerprint,
        uri=dataset.uri,
        seconds=done.seconds if done else 0.0,
        reused=done.reused if done else True,
        rounds=tuple(timings.rounds.get(name, ())),
        metrics=dict(dataset.metrics),
        named=named,
    )
