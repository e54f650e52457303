"""A small stage whose tasks say that they ran, and fail as often as they are told to.

    numbers  n tasks, each writes one array
    sums     n tasks, each adds its own and the next one's

What tasks do on the side (`Script.folder`, `fail`, ...) is no part of their job's identity.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from simdist.engine import Engine
from simdist.errors import Cancelled, InputError
from simdist.runner import Commit, Context, Event, Job, Record, Round, Rounds, Task
from simdist.store import Dataset, Shard, Store, open_store
from simdist.types import Json

DEADLINE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Script:
    """folder: where tasks leave a file each time they run. fail: task -> (how often, with what).
    nbytes: task -> bytes it asks for."""

    folder: str
    tasks: int = 4
    seed: int = 0
    fail: dict[str, tuple[int, str]] = field(default_factory=dict)
    nbytes: dict[str, int] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return {"tasks": self.tasks, "seed": self.seed}

    def ran(self) -> Counter[str]:
        """How often each task ran."""
        return Counter(path.name.split("~")[0] for path in Path(self.folder).glob("*~*"))

    def failing(self, task: str, *, times: int = 1, error: str = "foreign") -> Script:
        return replace(self, fail={task: (times, error)})


class Sums:
    """See the module docstring."""

    name: ClassVar[str] = "sums"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        for name in ("numbers", "sums"):
            if name not in rounds:
                return Round(name, tuple(self.tasks(job.config, name)))
        records = rounds["sums"]
        return Commit(
            rows=len(records),
            shards=tuple(Shard(1, record.objects) for record in records),
            metrics={"sums": [record.facts["sum"] for record in records]},
        )

    def tasks(self, config: Script, name: str) -> list[Task]:
        keys = [f"{name}-{i:03d}" for i in range(config.tasks)]
        return [
            Task(key, name, {"i": i}, config.nbytes.get(key, 1 << 10)) for i, key in enumerate(keys)
        ]

    def compute(self, context: Context, task: Task) -> Record:
        script: Script = context.config
        before = script.ran()[task.key]
        (Path(script.folder) / f"{task.key}~{uuid.uuid4().hex}").touch()
        times, error = script.fail.get(task.key, (0, ""))
        if before < times:
            until_begun(script)
            fail(error)
        if task.key in script.waiting:
            wait(context, task)
        if task.kind == "numbers":
            drawn = context.rng("numbers", task.args["i"]).integers(100, size=8)
            return Record(task.key, {"array": context.write_array("numbers", drawn)})
        numbers = context.records("numbers")
        pair = [numbers[(task.args["i"] + step) % len(numbers)] for step in (0, 1)]
        total = np.sum([context.load(record.objects["array"]) for record in pair], axis=0)
        ref = context.write_array("sums", total)
        return Record(task.key, {"array": ref}, {"sum": int(total.sum())})


class RepeatsRound(Sums):
    """Asks for its first round for ever."""

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        return Round("numbers", tuple(self.tasks(job.config, "numbers")))


class RepeatsTask(Sums):
    """Names a task of its second round like one of its first."""

    def tasks(self, config: Script, name: str) -> list[Task]:
        return [replace(task, key=task.key.split("-")[1]) for task in super().tasks(config, name)]


class NamedByContent(Sums):
    """Its dataset's fingerprint follows from what was computed."""

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        step = super().next(job, rounds, context)
        if isinstance(step, Round):
            return step
        digest = step.shards[0].objects["array"].sha256[:32]
        return replace(step, fingerprint=digest, config={"what": "sums"})


class Drifts(Sums):
    """Gives other bytes each time it computes: what no stage should do."""

    def compute(self, context: Context, task: Task) -> Record:
        super().compute(context, task)
        noise = np.frombuffer(uuid.uuid4().bytes, np.uint8)
        return Record(task.key, {"array": context.write_array("noise", noise)}, {"sum": 0})


class Spreads(Sums):
    """A task says on how many threads pieces of its work ran at once."""

    def tasks(self, config: Script, name: str) -> list[Task]:
        return [replace(task, spreads=True) for task in super().tasks(config, name)]

    def compute(self, context: Context, task: Task) -> Record:
        with context.side_by_side() as each:
            ran = each(lambda _: (time.sleep(0.01), threading.get_ident())[1], 20)
        return replace(super().compute(context, task), facts={"sum": len(set(ran))})


def until_begun(script: Script) -> None:
    """What is to wait has begun: a task cancelled before that would leave no trace."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not set(script.waiting) <= set(script.ran()) and time.monotonic() < deadline:
        time.sleep(0.01)


def fail(error: str) -> None:
    match error:
        case "input":
            raise InputError("row 7 is all zeros")
        case "foreign":
            raise ZeroDivisionError("nothing to divide by")
        case "interrupt":
            raise KeyboardInterrupt


def wait(context: Context, task: Task) -> None:
    """Until the file `go` is there, checking for cancellation; leaves `stopped` when cancelled."""
    folder = Path(context.config.folder)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (folder / "go").exists():
        try:
            context.check()
        except Cancelled:
            (folder / "stopped").touch()
            raise
        if time.monotonic() > deadline:
            raise TimeoutError(f"{task.key} waited for {folder / 'go'}")
        time.sleep(0.01)


def job_of(script: Script, stage: Sums | None = None) -> Job:
    return Job(stage or Sums(), script, {})


def settle(engine: Engine) -> None:
    """Wait for what a failed run has left running on the local engine: a task that takes every cpu
    begins when no other runs."""
    last = engine.submit(int, key="settled", cpus=engine.workers)
    engine.get(last, timeout=DEADLINE_SECONDS)


def manifest_bytes(dataset: Dataset) -> bytes:
    """As the store holds them."""
    return dataset.store.objects.get(f"manifests/{dataset.fingerprint}.json")


def fresh_store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def keys(store: Store, prefix: str) -> list[str]:
    return sorted(info.key for info in store.objects.list(prefix))


def lines(events: Sequence[Event]) -> list[str]:
    """Events as short lines, without clocks and fingerprints."""
    told = []
    for event in events:
        parts = [getattr(event, name, None) for name in ("round", "key", "done", "reused")]
        told.append(" ".join([type(event).__name__, *(str(p) for p in parts if p is not None)]))
    return told
