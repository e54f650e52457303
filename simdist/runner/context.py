"""What a running task may touch: its store, its config, its inputs, and earlier rounds' records."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from simdist.engine.threads import Run, side_by_side
from simdist.errors import Cancelled, ObjectMissing
from simdist.runner.plan import Record, Stage
from simdist.runner.resident import keep_within
from simdist.types import Array, Json, ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.store.datasets import Dataset
    from simdist.store.store import Store

__all__ = ["Context", "JobSpec"]

SECONDS_BETWEEN_CANCEL_CHECKS = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job as it travels to a worker: small, because manifests and records are read there.

    inputs: role -> (store, fingerprint). rounds: name -> the object listing that round's records.
    memory: bytes the tasks of one process may hold together; 0 where nobody says. It decides what
        is let go in between, never what is computed. cpus: of this task, those it is lent among
        them; likewise.
    """

    stage: Stage
    config: Any
    store: Store
    fingerprint: str
    run_id: str
    inputs: Mapping[str, tuple[Store, str]]
    rounds: Mapping[str, ObjectRef] = field(default_factory=dict)
    memory: int = 0
    cpus: int = 1


class Context:
    """A task's view of the world; the driver's `Stage.next` is given one too."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.config = spec.config
        self.store = spec.store
        self.fingerprint = spec.fingerprint
        self._seconds: list[float] = []

    @property
    def inputs(self) -> Mapping[str, Dataset]:
        """Input datasets by role."""
        return {role: _dataset(*place) for role, place in self.spec.inputs.items()}

    def records(self, round_name: str) -> tuple[Record, ...]:
        """Records of an earlier round, in plan order."""
        return _round(self.store, self.spec.rounds[round_name])

    def load(self, ref: ObjectRef, *, store: Store | None = None) -> Array:
        """An array at rest, read-only, through the worker's cache, checked against its sha256."""
        return (store or self.store).read_array(ref)

    def table(self, ref: ObjectRef, columns: list[str] | None = None) -> pa.Table:
        """A Parquet object as a table."""
        return self.store.read_table(ref, columns)

    def write_array(self, kind: str, array: Array) -> ObjectRef:
        """Leave an array in the store under a name that follows from its bytes."""
        return self.store.write_array(kind, array)

    def write_table(self, kind: str, table: pa.Table) -> ObjectRef:
        """Leave a table in the store as Parquet under a name that follows from its bytes."""
        return self.store.write_table(kind, table)

    def write_json(self, kind: str, value: Json) -> ObjectRef:
        """Leave a JSON value in the store under a name that follows from its bytes."""
        return self.store.write_json(kind, value)

    def rng(self, *key: int | str) -> np.random.Generator:
        """Randomness by key: the same on any engine, in any order."""
        words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
        return np.random.default_rng([self.config.seed, *words])

    @contextmanager
    def side_by_side(self) -> Iterator[Run]:
        """Runs pieces of this task's work on the cpus it has: see `Task.spreads`. Native code uses
        one thread in each, and here as long as this lasts."""
        with side_by_side(self.spec.cpus) as run:
            yield lambda function, count: run(_timed(function, self._seconds), count)

    @property
    def seconds_of_pieces(self) -> float:
        """Cpu seconds that `side_by_side` spent in threads other than the task's own."""
        return sum(self._seconds)

    def check(self) -> None:
        """To be called between tiles: lets go of pages of mapped files where they are too many.

        Raises Cancelled where this run's driver has cancelled it; asks the store once a second.
        """
        keep_within()
        run_id = self.spec.run_id
        now = time.monotonic()
        if now >= _ask_next.get(run_id, -np.inf):
            _ask_next[run_id] = now + SECONDS_BETWEEN_CANCEL_CHECKS
            if self.store.cancelled(run_id):
                _ask_next[run_id] = np.inf
        if _ask_next[run_id] == np.inf:  # all tasks of this process, not only the one that asked
            raise Cancelled(f"run {run_id} was cancelled by its driver")


def _timed(function: Callable[[int], T], seconds: list[float]) -> Callable[[int], T]:
    """The same, and leaves its cpu seconds where another thread than this one calls it."""
    home = threading.get_ident()

    def timed(i: int) -> T:
        began = time.thread_time()
        try:
            return function(i)
        finally:
            if threading.get_ident() != home:
                seconds.append(time.thread_time() - began)

    return timed


_ask_next: dict[str, float] = {}  # when this process asks again, by run; never once it is cancelled


@lru_cache(maxsize=64)
def _dataset(store: Store, fingerprint: str) -> Dataset:
    from simdist.store.datasets import Dataset  # noqa: PLC0415 - keeps the driver's import light

    manifest = store.manifest(fingerprint)
    if manifest is None:
        raise ObjectMissing(
            f"input dataset {fingerprint} has no manifest in {store.uri}; was it removed while"
            " this run was under way? Run the flow again to rebuild it."
        )
    return Dataset(store, manifest)


@lru_cache(maxsize=64)
def _round(store: Store, ref: ObjectRef) -> tuple[Record, ...]:
    return tuple(Record.from_json(value) for value in store.read_json(ref))
