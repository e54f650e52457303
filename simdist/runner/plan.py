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

__all__ = [
    "Commit",
    "Forecast",
    "Job",
    "Record",
    "Round",
    "RoundForecast",
    "Rounds",
    "Stage",
    "Task",
    "Taskless",
    "fingerprint",
    "kind_of",
]


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work. `key` names it within its job and orders it in its round.

    kind: which of the stage's functions computes it.
    args: JSON values only; small. Large inputs are read through the context.
    nbytes: what it holds at most, above the worker's baseline.
    spreads: it runs pieces of its work with `Context.side_by_side`, cut by a rule of sizes alone:
        alone in its round, it is lent the cpus that would lie idle (`Engine.cpus_alone`).
    """

    key: str
    kind: str
    args: Mapping[str, Json]
    nbytes: int
    cpus: int = 1
    spreads: bool = False


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
class RoundForecast:
    """What one round of a stage is expected to cost, all of its tasks together.

    name: the round's. Rounds that differ only in their numbers (`join-0-1`) are of one `kind`.
    nbytes: peak of one task.
    flops: floating point operations in matrix products; ops: integer ones (a multiply-add is two).
    pairs: scored one by one, by a kernel that gathers them.
    read, written: bytes that tasks read of what is theirs (their block, what others left for it),
        and bytes they leave in the store.
    common: bytes of objects that tasks look something up in, which a worker fetches whole the first
        time and keeps; reach: the share of them that one task looks into.
    moved: bytes that tasks look at in other parts of the data than their own: what would cross the
        network even if nothing else did.
    requests: of the store (head, get, put), beside those for common objects, which a worker makes
        once: common_requests.
    rows: handled; a copy of a row counts as a row.
    """

    name: str
    tasks: int
    nbytes: int = 0
    flops: float = 0.0
    ops: float = 0.0
    pairs: float = 0.0
    read: int = 0
    written: int = 0
    moved: int = 0
    common: int = 0
    reach: float = 1.0
    requests: int = 0
    common_requests: int = 0
    rows: int = 0

    @property
    def kind(self) -> str:
        """The name without its numbers: `join` of `join-0-1`."""
        return kind_of(self.name)

    def fetched(self, workers: int, cache: float = float("inf")) -> float:
        """Bytes that leave the store, where each of so many workers can keep `cache` bytes."""
        return self.read + self.times(workers, cache) * self.common

    def asked(self, workers: int, cache: float = float("inf")) -> float:
        """Requests that reach the store, likewise."""
        return self.requests + self.times(workers, cache) * self.common_requests

    def times(self, workers: int, cache: float = float("inf")) -> float:
        """How often what is common is fetched: by a worker once, as far as its tasks look into it
        (each into another part, drawn at random), and by each task where no cache holds that."""
        at_work = min(self.tasks, workers)
        if not at_work:
            return 0.0
        share = 1.0 - float((1.0 - self.reach) ** (self.tasks / at_work))
        if share * self.common <= cache:
            return at_work * share
        return max(self.tasks * self.reach, at_work * share)


def kind_of(name: str) -> str:
    """A round's name without its numbers: `join` of `join-0-1`."""
    return name.rstrip("-0123456789")


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a stage expects to cost, from n, d and its config alone.

    rounds: one by one where the stage can tell, in the order they run; their sums need not be the
    figures of the whole, which are those of the stage's own formula.
    """

    tasks: int
    nbytes: int  # peak of one task
    flops: float
    written: int  # bytes to the store
    rounds: tuple[RoundForecast, ...] = ()


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


class Taskless:
    """Base of stages whose data the driver has written already: `next` commits at once, and no
    round is ever planned."""

    def compute(self, context: Context, task: Task) -> Record:
        raise AssertionError(f"{task.key}: {type(self).__name__} plans no tasks")


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
