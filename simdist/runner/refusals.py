"""What is refused before a task runs, with both numbers and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from simdist.engine.base import Engine
from simdist.engine.memory import format_nbytes
from simdist.errors import ConfigError, PlanTooLarge
from simdist.runner.plan import Round, Task
from simdist.store.store import Store

__all__ = ["refuse_too_large", "refuse_twice", "refuse_unreachable"]


def refuse_unreachable(stores: Iterable[Store], engine: Engine) -> None:
    """ConfigError where tasks of the engine cannot see one of the stores."""
    for store in stores:
        if engine.remote and not store.shared:
            raise ConfigError(
                f"store {store.uri} lives in this process, but the {engine.kind} engine runs tasks"
                " in other processes. Use a file:// store all workers can reach, or s3://."
            )


def refuse_twice(step: Round, keys: set[str], stage: str) -> None:
    """ConfigError where a task's key is not its own: it would be given another task's record.
    Adds the round's keys, and the one of its index, to `keys`."""
    for key in (f"round-{step.name}", *(task.key for task in step.tasks)):
        if key in keys:
            raise ConfigError(
                f"stage {stage} names two tasks {key!r}, the second in round {step.name!r}: a key"
                " names one task of the whole job. Begin it with the round's name."
            )
        keys.add(key)


def refuse_too_large(tasks: Sequence[Task], stage: str, engine: Engine) -> None:
    """PlanTooLarge before the first task of a round where a later one cannot run."""
    largest = max(tasks, key=lambda task: task.nbytes)
    if largest.nbytes > engine.memory:
        raise PlanTooLarge(
            f"{stage} task {largest.key} needs {format_nbytes(largest.nbytes)}; a worker of the"
            f" {engine.kind} engine has {format_nbytes(engine.memory)}. Raise engine.memory to at"
            f" least {math.ceil(largest.nbytes / 2**20)}MiB."
        )
    engine.slots(cpus=max(task.cpus for task in tasks))  # refuses what no worker has
