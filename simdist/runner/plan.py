"""The nouns of a run: job, task, record, round, commit, and the stage that deals in them.

    stage.next(job, rounds) ──> Round(name, tasks) ──> compute(context, task) ──> Record ┐
          ^                                                                             │
          └───────────────── rounds[name] = records in plan order <─────────────────────┘
    stage.next(job, rounds) ──> Commit(shards, metrics) ──> manifest

A stage is pure: `next` looks at the config, the inputs and the committed rounds and says what comes
next; `compute` does one task. Neither knows the engine, the worker count or the clock, so the same
job gives the same tasks, records and manifest everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from simdist.errors import IntegrityError
from simdist.store.datasets import Dataset, Shard
from simdist.types import Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["Commit", "Forecast", "Job", "Record", "Round", "Rounds", "Stage", "Task", "fingerprint"]


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work. `key` names it within its job and orders it in its round.

    kind: which of the stage's functions computes it.
    args: JSON values only; small. Large inputs are read through the context.
    nbytes: what it holds at most, above the worker's baseline.
    """

    key: str
    kind: str
    args: Mapping[str, Json]
    nbytes: int
    cpus: int = 1


@dataclass(frozen=True, slots=True)
class Record:
    """What a task left behind: its objects by role, and small facts. Deterministic: no clock."""

    task: str
    objects: Mapping[str, ObjectRef] = field(default_factory=dict)
    facts: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        return {
            "task": self.task,
            "objects": {role: ref.to_json() for role, ref in self.objects.items()},
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Record:
        """The record that `to_json` gave; IntegrityError where it is none."""
        try:
            objects = {role: ObjectRef.from_json(ref) for role, ref in value["objects"].items()}
            return cls(task=value["task"], objects=objects, facts=value["facts"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise IntegrityError(
                f"a record in the store is none that simdist writes ({type(error).__name__}:"
                f" {error}). Abandon its job (`simdist gc --abandon`), and do not trust the store."
            ) from None


@dataclass(frozen=True, slots=True)
class Round:
    """Tasks that may run side by side; the next round starts when all have records."""

    name: str
    tasks: tuple[Task, ...]


Rounds: TypeAlias = Mapping[str, Sequence[Record]]


@dataclass(frozen=True, slots=True)
class Commit:
    """The end of a job: what its manifest says. `metrics` are part of the committed bytes.

    fingerprint, config: only where the identity follows from the result (import: content, not
        names); they replace the job's own in the manifest.
    """

    rows: int
    shards: tuple[Shard, ...]
    metrics: Mapping[str, Json] = field(default_factory=dict)
    objects: Mapping[str, ObjectRef] = field(default_factory=dict)
    fingerprint: str | None = None
    config: Json = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a stage expects to cost, from n, d and its config alone."""

    tasks: int
    nbytes: int  # peak of one task
    flops: float
    written: int  # bytes to the store


@dataclass(frozen=True, slots=True)
class Job:
    """One stage, its config and its input datasets by role."""

    stage: Stage
    config: Any
    inputs: Mapping[str, Dataset]

    @property
    def fingerprint(self) -> str:
        return fingerprint(
            self.stage, self.config, {r: d.fingerprint for r, d in self.inputs.items()}
        )


class Stage(Protocol):
    """What a user can ask for. Implementations are stateless and picklable by reference."""

    name: ClassVar[str]
    VERSION: ClassVar[int]

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """What to do after the committed rounds. `context` reads objects; it writes nothing."""

    def compute(self, context: Context, task: Task) -> Record:
        """Do one task on a worker."""


def fingerprint(stage: Stage, config: Any, inputs: Mapping[str, str]) -> str:
    """sha256 (hex, 32 digits) of stage, version, config and input fingerprints: never the engine,
    the workers, the memory or the clock. `config` is a frozen dataclass with `to_json`."""
    identity = {
        "stage": stage.name,
        "version": stage.VERSION,
        "config": config.to_json(),
        "inputs": dict(inputs),
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
