"""What a run tells its listeners: the terminal's bar, Prefect's artifacts, JSON lines.

Events are for people; nothing in them enters a record or a manifest, so clocks are welcome here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from simdist.types import Json

__all__ = [
    "Event",
    "Listener",
    "RecordLost",
    "RoundDone",
    "RoundStarted",
    "StageDone",
    "StageStarted",
    "TaskDone",
    "Teller",
]


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage is about to look at what is committed already."""

    stage: str
    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class RoundStarted:
    """A round's tasks are known; `done` of them have records from an earlier run."""

    stage: str
    round: str
    tasks: int
    done: int


@dataclass(frozen=True, slots=True)
class TaskDone:
    """One task has its record; `seconds` of wall clock and `cpu_seconds` of its thread on the
    worker, `done` of `total` in its round."""

    stage: str
    round: str
    key: str
    seconds: float
    done: int
    total: int
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RecordLost:
    """A record from an earlier run names an object that is gone or cut short; it is recomputed."""

    stage: str
    key: str
    object: str


@dataclass(frozen=True, slots=True)
class RoundDone:
    """All tasks of a round have records."""

    stage: str
    round: str
    tasks: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StageDone:
    """The manifest is committed, or stood already (`reused`)."""

    stage: str
    name: str
    fingerprint: str
    rows: int
    seconds: float
    reused: bool
    metrics: Mapping[str, Json] = field(default_factory=dict)


Event: TypeAlias = StageStarted | RoundStarted | TaskDone | RecordLost | RoundDone | StageDone
Listener: TypeAlias = Callable[[Event], None]


class Teller:
    """Sends each event to every listener that has not failed."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = list(listeners)

    def __call__(self, event: Event) -> None:
        for listener in list(self.listeners):
            try:
                listener(event)
            except Exception as error:
                self.listeners.remove(listener)
                warnings.warn(
                    f"a listener failed at {type(event).__name__} and is told no more; the run goes"
                    f" on: {type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
