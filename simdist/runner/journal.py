"""What a run took, round by round: an object beside the dataset, for people and for planning.

    TaskResult x n ──> RoundRun ──> runs/{fingerprint}/{run}.json ──> show, and rates of a machine
    stage.forecast ──> RoundForecast ──┘

Records and manifests know no clock, so that the same job gives the same bytes everywhere. Seconds
are kept here, where nothing else refers to; `gc` leaves them, and losing one loses no result.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

from simdist.errors import StoreError
from simdist.runner.plan import Job, Record, RoundForecast, kind_of
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.store.datasets import Dataset
    from simdist.store.store import Store

__all__ = ["RoundRun", "Run", "keep", "last_run"]


class Timed(Protocol):
    """What a task took on its worker."""

    @property
    def seconds(self) -> float: ...
    @property
    def cpu_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class RoundRun:
    """A round as it went. tasks: of the round; ran: those that had no record before this run.

    seconds: from its first task submitted to its last record. task_seconds, cpu_seconds: of the
    tasks that ran, summed; longest: of one. spread: standard deviation of the logarithm of their
    seconds: 0.1 where tasks differ by about a tenth.
    written: bytes of the objects in the records of all tasks. objects: how many those are.
    facts: numbers that tasks recorded, summed.
    """

    name: str
    tasks: int
    ran: int
    seconds: float
    task_seconds: float
    cpu_seconds: float
    longest: float
    spread: float
    written: int
    objects: int
    facts: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, records: Sequence[Record], took: Sequence[Timed], seconds: float
    ) -> RoundRun:
        """records: of all tasks; took: of those that ran; seconds: of the round."""
        refs = [ref for record in records for ref in record.objects.values()]
        each = [result.seconds for result in took]
        logs = [math.log(max(value, 1e-6)) for value in each]
        return cls(
            name=name,
            tasks=len(records),
            ran=len(took),
            seconds=round(seconds, 6),
            task_seconds=round(sum(each), 6),
            cpu_seconds=round(sum(result.cpu_seconds for result in took), 6),
            longest=round(max(each, default=0.0), 6),
            spread=round(statistics.pstdev(logs), 4) if logs else 0.0,
            written=sum(ref.nbytes for ref in refs),
            objects=len(refs),
            facts=_sums(records),
        )

    @property
    def kind(self) -> str:
        """The name without its numbers: `join` of `join-0-1`."""
        return kind_of(self.name)


@dataclass(frozen=True, slots=True)
class Run:
    """How a job came to its dataset, the last time anything was left to do, and what its stage had
    forecast."""

    stage: str
    rows: int
    engine: str
    workers: int
    seconds: float
    rounds: tuple[RoundRun, ...]
    forecast: tuple[RoundForecast, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Run:
        """The run that `to_json` gave; KeyError or TypeError where it is none."""
        known = {name: value[name] for name in ("stage", "rows", "engine", "workers", "seconds")}
        return cls(
            **known,
            rounds=tuple(RoundRun(**item) for item in value["rounds"]),
            forecast=tuple(RoundForecast(**item) for item in value["forecast"]),
        )

    def paired(self) -> Iterator[tuple[RoundRun, RoundForecast | None]]:
        """Each round with its forecast: the one of its name, else the last of its kind."""
        by_name = {cost.name: cost for cost in self.forecast}
        by_kind = {cost.kind: cost for cost in self.forecast}
        for step in self.rounds:
            yield step, by_name.get(step.name) or by_kind.get(step.kind)


def keep(
    job: Job,
    dataset: Dataset,
    rounds: Iterable[RoundRun],
    *,
    run_id: str,
    engine: Engine,
    seconds: float,
) -> None:
    """Leave the journal of a run whose dataset is committed. That it cannot be kept is a warning:
    the dataset stands."""
    run = Run(
        stage=dataset.stage,
        rows=dataset.rows,
        engine=engine.kind,
        workers=engine.workers,
        seconds=round(seconds, 6),
        rounds=tuple(rounds),
        forecast=_forecast(job, dataset),
    )
    try:
        dataset.store.write_run(dataset.fingerprint, run_id, run.to_json())
    except StoreError as error:
        warnings.warn(
            f"{dataset.uri} is committed, but how long it took is not kept: {error}",
            RuntimeWarning,
            stacklevel=2,
        )


def last_run(store: Store, fingerprint: str) -> Run | None:
    """The journal of the latest run that committed a dataset, or None where none was kept."""
    value = store.last_run(fingerprint)
    return None if value is None else Run.from_json(value)


def _forecast(job: Job, dataset: Dataset) -> tuple[RoundForecast, ...]:
    """What the stage says of its rounds, where it says anything and their shape is known."""
    forecast = getattr(job.stage, "forecast", None)
    shapes = [data.metrics for data in (dataset, *job.inputs.values()) if "dim" in data.metrics]
    if forecast is None or not shapes or getattr(job.stage, "on_edges", False):
        return ()  # on edges: how many there are is asked for as well, and no round is told
    rounds: tuple[RoundForecast, ...]
    rounds = forecast(job.config, dataset.rows, int(shapes[0]["dim"])).rounds
    return rounds


def _sums(records: Sequence[Record]) -> dict[str, float]:
    """Facts that are numbers, and no truth values, summed over the records."""
    sums: dict[str, float] = {}
    for record in records:
        for name, value in record.facts.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                sums[name] = sums.get(name, 0) + value
    return sums
