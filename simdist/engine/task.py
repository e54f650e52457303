"""What happens around `fn(*args)`, the same on every engine.

    args ──> put arrays loaded ──> threads limited ──> fn ──> value
                                                        │
                                      transient error: again, up to `retries` times
                                      any other error: Failure(key, cause, trace), as a value

Errors are values here, not exceptions: schedulers differ in how they wrap, log, retry and pass on
exceptions, and a value is handed to the tasks downstream like any other, so that they can name the
task that failed first. Retries happen in place for the same reason (Dask's `retries=` would repeat
a ValueError too); the death of a worker is the scheduler's to repair.
"""

from __future__ import annotations

import importlib
import json
import pickle
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simdist.engine import flags, threads, versions
from simdist.engine.base import ArrayHandle, Ref
from simdist.errors import (
    Cancelled,
    ConfigError,
    ConflictError,
    EngineError,
    IntegrityError,
    ObjectMissing,
    SimdistError,
    StoreError,
    TaskFailed,
)

__all__ = [
    "Failure",
    "Stored",
    "Upstream",
    "Work",
    "attempt",
    "cancelled",
    "encode",
    "import_all",
    "pack",
    "run_packed",
    "transient",
    "unpack",
]

BACKOFF_SECONDS = (
    0.1  # before the first retry; doubles. The store's client has waited longer before
)


@dataclass(frozen=True, slots=True)
class Stored:
    """Stands for an argument that was `put`: the worker loads it."""

    handle: ArrayHandle


@dataclass(frozen=True, slots=True)
class Upstream:
    """Stands for an argument that another task computes: the index among those that arrive."""

    index: int


@dataclass(frozen=True, slots=True)
class Failure:
    """The end of a task that raised. `cause` is None where the error itself cannot be pickled."""

    key: str
    cause: BaseException | None
    trace: str

    @classmethod
    def of(cls, key: str, error: BaseException) -> Failure:
        # The first frame is the one below: of no use to who wrote `fn`.
        inner = error.__traceback__.tb_next if error.__traceback__ else None
        return cls(key, error, "".join(traceback.format_exception(type(error), error, inner)))

    @classmethod
    def deadly(cls, key: str, *, times: int) -> Failure:
        """The end of a task that takes its workers along."""
        cause = EngineError(
            f"its worker died {times} times while running it, most likely for want of memory: make "
            "its tasks smaller, or give workers more"
        )
        return cls(key, cause, f"EngineError: {cause}")

    def error(self) -> TaskFailed | Cancelled:
        """What `Engine.get` raises: TaskFailed from its cause, or Cancelled where the task was."""
        if isinstance(self.cause, Cancelled):
            return Cancelled(f"task {self.key} {self.cause}")
        failed = TaskFailed(self.key, self.cause, self.trace)
        failed.__cause__ = self.cause
        if self.cause is None or self.cause.__traceback__ is None:  # it came from another process
            failed.add_note(self.trace)
        return failed


@dataclass(frozen=True, slots=True)
class Work:
    """A task on its way to another process; `flag` stops it before it starts (`flags.py`)."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    key: str
    cpus: int
    retries: int
    flag: str | None


class Payload(bytes):
    """A task in bytes. It may carry a store's keys, and schedulers log the arguments of a task that
    they cannot run: it shows its size only."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<task payload, {len(self)} bytes>"

    __str__ = __repr__


def cancelled(key: str) -> Failure:
    """The end of a task that was cancelled before it ended."""
    return Failure(key, Cancelled("was cancelled"), "")


def transient(error: BaseException) -> bool:
    """Whether trying again can help: network-like errors, never an ordinary ValueError.

    An error class decides for itself with an attribute `transient = True` (or False). Otherwise:
    ConnectionError and TimeoutError, and a StoreError that does not say that the object is missing,
    damaged or contested.
    """
    marked = getattr(error, "transient", None)
    if isinstance(marked, bool):
        return marked
    if isinstance(error, StoreError):
        return not isinstance(error, (ObjectMissing, IntegrityError, ConflictError))
    return isinstance(error, (ConnectionError, TimeoutError))


def attempt(
    fn: Callable[..., Any], args: Sequence[Any], *, key: str, cpus: int, retries: int
) -> Any:
    """`fn(*args)` with threads limited to `cpus`: its value, or a Failure; never raises."""
    for arg in args:
        if isinstance(arg, Failure):
            return arg  # the root cause travels down unchanged
    tries = 0
    while True:
        try:
            with threads.limited(cpus):
                return fn(*(a.handle.load() if isinstance(a, Stored) else a for a in args))
        except BaseException as error:  # SystemExit in a task must not take the worker along
            if tries == retries or not transient(error):
                return Failure.of(key, error)
        time.sleep(BACKOFF_SECONDS * 2**tries)
        tries += 1


def pack(value: Any, *, key: str, dumps: Callable[[Any], bytes]) -> bytes:
    """A task's end as bytes. What cannot be pickled becomes a Failure that says so."""
    if isinstance(value, Failure):
        cause = None if value.cause is None else _dumps_error(value.cause, dumps)
        return b"F" + dumps((value.key, cause, value.trace))
    try:
        return b"V" + dumps(value)
    except Exception as error:
        return pack(Failure.of(key, error), key=key, dumps=dumps)


def unpack(data: bytes) -> Any:
    """The value or Failure that `pack` made bytes of."""
    view = memoryview(data)
    if data[:1] == b"V":
        return pickle.loads(view[1:])
    key, cause, trace = pickle.loads(view[1:])
    return Failure(key, None if cause is None else _loads_error(cause), trace)


def encode(work: Work, *, dumps: Callable[[Any], bytes]) -> tuple[bytes, list[Any]]:
    """(payload for `run_packed`, handles of the tasks it needs).

    Pickled here rather than by the scheduler, so that what cannot be pickled is a ConfigError
    where it was written.
    """
    upstream: list[Any] = []
    args: list[Any] = []
    for arg in work.args:
        if not isinstance(arg, Ref):
            args.append(arg)
        elif isinstance(arg.handle, Stored):
            args.append(arg.handle)
        else:
            args.append(Upstream(len(upstream)))
            upstream.append(arg.handle)
    try:
        pickled = dumps(replace(work, args=tuple(args)))
    except SimdistError:
        raise
    except Exception as error:
        raise ConfigError(
            f"task {work.key} cannot be sent to another process: {error}. Its function and "
            "arguments must pickle: pass names, numbers and small values, and open files and "
            "clients inside the task"
        ) from error
    head = {"key": work.key, "versions": versions.here()}
    return Payload(json.dumps(head).encode() + b"\n" + pickled), upstream


def run_packed(
    payload: bytes, upstream: Sequence[bytes], *, dumps: Callable[[Any], bytes]
) -> bytes:
    """`attempt` in another process. upstream: the packed ends of the tasks it needs.

    Every task says which versions wrote it, in words that all versions read: a worker may have
    joined since the engine connected.
    """
    end = payload.index(b"\n")
    head = json.loads(payload[:end])
    outcome: Any
    if head["versions"] != versions.here():
        outcome = Failure.of(head["key"], versions.joined_late(head["versions"]))
    else:
        outcome = _carry_out(pickle.loads(memoryview(payload)[end + 1 :]), upstream)
    return pack(outcome, key=head["key"], dumps=dumps)


def _carry_out(work: Work, upstream: Sequence[bytes]) -> Any:
    if flags.is_raised(work.flag):
        return cancelled(work.key)
    with flags.starts(work.flag) as started:
        if started > work.retries + 1:
            return Failure.deadly(work.key, times=started - 1)
        args = [unpack(upstream[a.index]) if isinstance(a, Upstream) else a for a in work.args]
        return attempt(work.fn, args, key=work.key, cpus=work.cpus, retries=work.retries)


def import_all(modules: Iterable[str]) -> float:
    """Import each, in order; the seconds it took."""
    began = time.perf_counter()
    for module in modules:
        importlib.import_module(module)
    return time.perf_counter() - began


def _dumps_error(error: BaseException, dumps: Callable[[Any], bytes]) -> bytes | None:
    """None where the error does not survive the round trip: many define `__init__` with arguments
    that `args` does not repeat, and fail only when loaded."""
    try:
        data = dumps(error)
        pickle.loads(data)
    except Exception:  # whatever its own code raises: the trace still tells the story
        return None
    return data


def _loads_error(data: bytes) -> BaseException | None:
    try:
        error = pickle.loads(data)
    except Exception:  # its class exists on the worker only; the trace still tells the story
        return None
    return error if isinstance(error, BaseException) else None
