"""What a finished run did, as a value: for the terminal, for Prefect's artifacts, for tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from simdist.errors import InputError
from simdist.report.groups import Cluster, DuplicateGroup, clusters, duplicate_groups
from simdist.report.neighbors import Neighborhood, neighborhoods
from simdist.report.sentences import sentence, subject
from simdist.runner.events import Event, RoundDone, StageDone, StageStarted
from simdist.store.datasets import Dataset
from simdist.types import Json

__all__ = ["StepSummary", "Summary", "Timings", "summarize"]

Shown = TypeVar("Shown")


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

    @property
    def converged(self) -> bool:
        """False where a solver ended before its result was as good as it was asked to be."""
        return self.metrics.get("state") != "unconverged"

    @property
    def told(self) -> str:
        """How good or large the result is, in a sentence; empty where there is none for it."""
        return sentence(self.stage, self.metrics)


@dataclass(frozen=True, slots=True)
class Summary:
    """A flow that has run: its steps in order, and what to show of the last graph, clusters and
    deduplication it made."""

    flow: str
    store: str
    steps: tuple[StepSummary, ...]
    neighbors: tuple[Neighborhood, ...] = ()
    notes: tuple[str, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    duplicates: tuple[DuplicateGroup, ...] = ()

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

    @property
    def unconverged(self) -> tuple[str, ...]:
        """Steps whose results are not final, by name."""
        return tuple(step.name for step in self.steps if not step.converged)

    @property
    def sentences(self) -> tuple[tuple[str, str], ...]:
        """(what it is about, in a word; what is said), a step each; of recall that of the last
        graph. Where several steps are about the same, each is named."""
        said = [
            step for step in self.steps if step.told and (step.edges is None or step is self.graph)
        ]
        words = [subject(step.stage) for step in said]
        return tuple(
            (word, step.told if words.count(word) == 1 else f"{step.name}: {step.told}")
            for word, step in zip(words, said, strict=True)
        )

    def to_json(self) -> dict[str, Json]:
        steps = [{**asdict(step), "edges": step.edges, "told": step.told} for step in self.steps]
        return {
            "flow": self.flow,
            "store": self.store,
            "reused": self.reused,
            "seconds": self.seconds,
            "steps": steps,
            "neighbors": [near.to_json() for near in self.neighbors],
            "clusters": [cluster.to_json() for cluster in self.clusters],
            "duplicates": [group.to_json() for group in self.duplicates],
            "unconverged": list(self.unconverged),
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
    return Summary(
        flow,
        store,
        steps,
        near,
        notes,
        _last(clusters, datasets),
        _last(duplicate_groups, datasets),
    )


def _last(
    shown: Callable[[Dataset], tuple[Shown, ...]], datasets: Mapping[str, Dataset]
) -> tuple[Shown, ...]:
    """Of the last dataset that has any."""
    every = (shown(dataset) for dataset in reversed(list(datasets.values())))
    return next(filter(None, every), ())


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
