"""Every error simdist raises on purpose, and the exit code the command line gives for it.

An error says what went wrong, where, what was expected, what was found, and what to do next. The
whole story is in the message, so that every error survives pickling between processes.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "ConfigError",
    "ConflictError",
    "EngineError",
    "InputError",
    "IntegrityError",
    "ObjectMissing",
    "PlanTooLarge",
    "SimdistError",
    "StoreError",
    "TaskFailed",
]


class SimdistError(Exception):
    """Root of all errors raised on purpose; `exit_code` is what the command line returns for it."""

    exit_code = 3


class ConfigError(SimdistError):
    """A setting, argument or name is wrong; nothing has run."""

    exit_code = 2


class InputError(SimdistError):
    """The data cannot be used as asked: NaN, a NULL vector, duplicate ids, too few rows."""

    exit_code = 2


class PlanTooLarge(ConfigError):
    """A task needs more memory or cpus than a worker has, or a result is larger than its limit;
    raised before the task runs."""


class StoreError(SimdistError):
    """The object store could not be read or written; names the object and the attempt."""


class ObjectMissing(StoreError):
    """An object that should exist does not."""


class IntegrityError(StoreError):
    """An object's bytes are not the ones its manifest or record vouches for."""

    exit_code = 5


class ConflictError(StoreError):
    """Another run committed something else under the same name or fingerprint."""

    exit_code = 4


class EngineError(SimdistError):
    """The engine (local, Dask, Ray) could not do its work."""


class Cancelled(EngineError):
    """The task, or the run it belongs to, was cancelled."""


class TaskFailed(EngineError):
    """A task raised: `key` names it, `cause` is the original error, `trace` its traceback as text.

    `cause` is None where the original error could not be pickled; `trace` always tells the story.
    """

    def __init__(self, key: str, cause: BaseException | None, trace: str) -> None:
        last = trace.strip().splitlines()[-1] if trace.strip() else repr(cause)
        super().__init__(f"task {key} failed: {last}")
        self.key = key
        self.cause = cause
        self.trace = trace

    def __reduce__(self) -> tuple[type[TaskFailed], tuple[str, BaseException | None, str]]:
        return type(self), (self.key, self.cause, self.trace)
