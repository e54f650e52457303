"""The engine protocol: where a task runs. An engine knows nothing of arrays, measures or storage.

    submit ──> Ref ──> as_completed ──> get
       ^         │
       └─────────┘  a Ref among a later task's arguments is a dependency

Three engines keep one contract (`simdist.testing.EngineContract`): `local` (threads of this
process), `dask` and `ray` (own cluster or an address).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Protocol

from simdist.engine.memory import format_nbytes
from simdist.engine.waiting import PATIENCE
from simdist.errors import ConfigError, EngineError, PlanTooLarge
from simdist.types import Array

__all__ = ["ArrayHandle", "Engine", "Ref", "Scratch", "no_timely_end", "refuse_nested"]


class ArrayHandle(Protocol):
    """A small picklable name for an array at rest; `load` reads it through the worker's cache."""

    def load(self) -> Array: ...


class Scratch(Protocol):
    """Where `Engine.put` leaves arrays: a store key survives a worker's death."""

    def save(self, array: Array) -> ArrayHandle: ...


@dataclass(frozen=True, slots=True, eq=False)
class Ref:
    """A task's future result. `handle` is the engine's own object (future, ObjectRef, ...)."""

    key: str
    handle: Any

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            f"the Ref of task {self.key} cannot travel inside another argument: pass it as an "
            "argument of its own, so that the engine sees the dependency"
        )


class Engine(ABC):
    """A place to run tasks; a context manager. See the module docstring.

    kind: "local", "dask" or "ray".
    workers: how many workers there are (threads or processes).
    memory: bytes a worker may hold above its baseline after imports (local: the whole process).
    remote: True where tasks run in other processes, so that arguments are pickled and a
        `memory://` store cannot be seen.
    cpus_alone: what a task may use while no other runs, where its work `spreads`.
    started_seconds: what it took to start or to connect, warm-up of the engine's own code included.
    timeout: seconds without any task ending, after which a wait gives up that was told no other.
    """

    kind: ClassVar[str]
    remote: ClassVar[bool]
    workers: int
    memory: int
    started_seconds: float
    timeout: float = PATIENCE.timeout
    cpus_alone: int = 1

    @abstractmethod
    def submit(
        self, fn: Callable[..., Any], *args: Any, key: str, nbytes: int = 0, cpus: int = 1
    ) -> Ref:
        """Run `fn(*args)` on a worker; top-level Refs among `args` arrive as their results.

        key: names the task in errors and dashboards. Two tasks of one name are two tasks: nothing
            is deduplicated or cached by key.
        nbytes, cpus: what the task holds and uses at most; PlanTooLarge where no worker has it.
        Refs nested in containers are refused with a ConfigError.
        """

    @abstractmethod
    def put(self, array: Array) -> Ref:
        """Leave an array where every worker can read it (through the scratch store's cache).

        A task that takes the Ref gets the array read-only.
        """

    @abstractmethod
    def as_completed(self, refs: Iterable[Ref], *, timeout: float | None = None) -> Iterator[Ref]:
        """Refs in the order they end, failed ones included; EngineError past `timeout` seconds
        (by default the engine's) without any of them ending, and soon where the cluster is gone
        or has no workers."""

    @abstractmethod
    def get(self, ref: Ref, *, timeout: float | None = None) -> Any:
        """The task's result; TaskFailed with the original error, or Cancelled.

        Where an upstream task failed, the TaskFailed is that task's, key and all: the root cause.
        EngineError as with `as_completed`.
        """

    @abstractmethod
    def cancel(self, refs: Sequence[Ref]) -> None:
        """Stop what has not started, forget the rest: a running task ends at its own next check.

        `get` of a cancelled Ref raises Cancelled at once.
        """

    @abstractmethod
    def slots(self, *, nbytes: int = 0, cpus: int = 1) -> int:
        """How many such tasks can run at once; PlanTooLarge where not even one can."""

    @abstractmethod
    def warm(self, *modules: str) -> float:
        """Import `modules` on every worker now, so that first tasks do not pay; seconds it took."""

    @abstractmethod
    def close(self) -> None:
        """Release workers; shuts down only a cluster this engine started. Safe to call twice."""

    @property
    def where(self) -> str:
        """For people: the cluster's address."""
        return "threads of this process"

    def _refuse_too_large(self, task: str, *, nbytes: int, cpus: int, most_cpus: int) -> None:
        """PlanTooLarge, with both numbers, where no worker can run the task."""
        if cpus < 1 or nbytes < 0:
            raise ConfigError(f"{task} asks for {cpus} cpus and {nbytes} bytes: at least 1 and 0")
        if nbytes > self.memory:
            raise PlanTooLarge(
                f"{task} needs {format_nbytes(nbytes)}; a {self.kind} worker has "
                f"{format_nbytes(self.memory)}. Make the tasks smaller, or raise engine.memory"
            )
        if cpus > most_cpus:
            raise PlanTooLarge(
                f"{task} needs {cpus} cpus; a {self.kind} worker has {most_cpus}. "
                "Ask for fewer cpus per task, or for larger workers"
            )

    def __repr__(self) -> str:
        return (
            f"<{self.kind} engine: {self.workers} workers, {format_nbytes(self.memory)}, "
            f"{self.where}>"
        )

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def refuse_nested(key: str, args: Iterable[Any]) -> None:
    """ConfigError where a Ref hides inside an argument: the engine would not wait for it."""
    for position, arg in enumerate(args):
        hidden = None if isinstance(arg, Ref) else _find_ref(arg)
        if hidden is not None:
            raise ConfigError(
                f"argument {position} of task {key} holds the Ref of task {hidden.key} inside a "
                f"{type(arg).__name__}: pass each Ref as an argument of its own (fn(*refs))"
            )


def no_timely_end(pending: Sequence[Ref], timeout: float, where: str) -> EngineError:
    """What a wait past its timeout raises."""
    names = ", ".join(ref.key for ref in pending[:3]) + (", ..." if len(pending) > 3 else "")
    return EngineError(
        f"none of {len(pending)} tasks ({names}) ended within {timeout:g} s on {where}. "
        "They may be stuck or waiting for workers: look at the cluster, or raise engine.timeout"
    )


def _find_ref(value: Any) -> Ref | None:
    if isinstance(value, Ref):
        return value
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = (*value.keys(), *value.values())
    elif isinstance(value, (list, tuple, Set)):
        inner = value
    elif is_dataclass(value) and not isinstance(value, type):
        inner = (getattr(value, field.name, None) for field in fields(value))
    for item in inner:
        if isinstance(item, (str, bytes, int, float)):
            continue  # the common leaves, at once
        found = _find_ref(item)
        if found is not None:
            return found
    return None
