"""Tasks on threads of this process: the embedded default. Nothing is pickled, nothing is started.

    waiting (upstream runs) ──> ready, first come first served ──> running ──> ended
                                 starts when a thread is free, and the cpus and the bytes
                                 of all running tasks stay within workers and memory

Native code (BLAS, faiss, numba kernels with nogil) runs side by side; pure Python takes turns.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

from simdist.engine.base import Engine, Ref, Scratch, refuse_nested
from simdist.engine.completion import Completion, in_order_of_end
from simdist.engine.heap import settle
from simdist.engine.task import Failure, Stored, attempt, cancelled, import_all
from simdist.engine.threads import cpus_here
from simdist.engine.waiting import PATIENCE, Patience
from simdist.errors import EngineError
from simdist.types import Array

__all__ = ["LOCAL_MEMORY", "LocalEngine"]

LOCAL_MEMORY = 2 << 30  # where nobody says
CLOSE_SECONDS = 30.0  # how long `close` waits for running tasks: they end at their next check


class LocalEngine(Engine):
    """Threads of this process. `memory` is shared by all of them.

    workers: threads; by default the cpus this process may use.
    retries: further attempts after a transient error.
    scratch: where `put` leaves arrays; by default they stay in memory, not copied.
    patience: how long to wait for any task to end.
    """

    kind: ClassVar[str] = "local"
    remote: ClassVar[bool] = False

    def __init__(
        self,
        *,
        workers: int | None = None,
        memory: int = LOCAL_MEMORY,
        scratch: Scratch | None = None,
        retries: int = 2,
        patience: Patience = PATIENCE,
    ) -> None:
        self.workers = self.cpus_alone = workers or cpus_here()
        self.timeout = patience.timeout
        self.memory = memory
        self.started_seconds = 0.0
        self._scratch = scratch
        self._retries = retries
        self._state = threading.Condition()
        self._ready: deque[_Task] = deque()
        self._unfinished: set[_Task] = set()
        self._cpus_used = 0
        self._nbytes_used = 0
        self._puts = 0
        self._closed = False
        settle()
        self._threads = [
            threading.Thread(target=self._work, name=f"simdist-{number}", daemon=True)
            for number in range(self.workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, fn: Callable[..., Any], *args: Any, key: str, nbytes: int = 0, cpus: int = 1
    ) -> Ref:
        refuse_nested(key, args)
        self._refuse_too_large(f"task {key}", nbytes=nbytes, cpus=cpus, most_cpus=self.workers)
        task = _Task(key, fn, args, nbytes, cpus)
        with self._state:
            if self._closed:
                raise EngineError(f"task {key}: the local engine is closed")
            self._unfinished.add(task)
            for upstream in {id(a): a.handle for a in args if isinstance(a, Ref)}.values():
                if isinstance(upstream, _Task) and not upstream.completion.ended:
                    upstream.downstream.append(task)
                    task.waits_for += 1
            if task.waits_for == 0:
                self._ready.append(task)
                self._state.notify_all()
        return Ref(key, task)

    def put(self, array: Array) -> Ref:
        self._puts += 1
        if self._scratch is not None:
            return Ref(f"put-{self._puts}", Stored(self._scratch.save(array)))
        view = array.view()
        view.flags.writeable = False
        return Ref(f"put-{self._puts}", Stored(_InMemory(view)))

    def as_completed(self, refs: Iterable[Ref], *, timeout: float | None = None) -> Iterator[Ref]:
        return in_order_of_end(
            refs,
            _completion,
            timeout=self.timeout if timeout is None else timeout,
            where="the local engine",
        )

    def get(self, ref: Ref, *, timeout: float | None = None) -> Any:
        if isinstance(ref.handle, Stored):
            return ref.handle.handle.load()
        for _ in self.as_completed([ref], timeout=timeout):
            pass
        outcome = ref.handle.outcome
        if isinstance(outcome, Failure):
            raise outcome.error()
        return outcome

    def cancel(self, refs: Sequence[Ref]) -> None:
        with self._state:
            for ref in refs:
                if isinstance(ref.handle, _Task) and not ref.handle.completion.ended:
                    self._end(ref.handle, cancelled(ref.key))

    def slots(self, *, nbytes: int = 0, cpus: int = 1) -> int:
        self._refuse_too_large("such a task", nbytes=nbytes, cpus=cpus, most_cpus=self.workers)
        by_memory = self.memory // nbytes if nbytes else self.workers
        return min(self.workers // cpus, by_memory)

    def warm(self, *modules: str) -> float:
        return import_all(modules)

    def close(self) -> None:
        with self._state:
            self._closed = True
            for task in list(self._unfinished):
                self._end(task, cancelled(task.key))
            self._state.notify_all()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (task := self._next()) is not None:
            args = [_value(arg) for arg in task.args]
            outcome = attempt(task.fn, args, key=task.key, cpus=task.cpus, retries=self._retries)
            del args
            with self._state:
                self._cpus_used -= task.cpus
                self._nbytes_used -= task.nbytes
                self._end(task, outcome)
                self._state.notify_all()
            del task, outcome  # an idle thread must not keep the last result alive

    def _next(self) -> _Task | None:
        """Wait for the first ready task to fit; None when closed."""
        with self._state:
            while True:
                while self._ready and self._ready[0].completion.ended:
                    self._ready.popleft()  # cancelled while it waited
                # Strictly in order: a large task must not starve behind small ones.
                if self._ready and self._fits(self._ready[0]):
                    task = self._ready.popleft()
                    self._cpus_used += task.cpus
                    self._nbytes_used += task.nbytes
                    return task
                if self._closed:
                    return None
                self._state.wait()

    def _fits(self, task: _Task) -> bool:
        return (
            self._cpus_used + task.cpus <= self.workers
            and self._nbytes_used + task.nbytes <= self.memory
        )

    def _end(self, task: _Task, outcome: Any) -> None:
        """With the lock held: the task is over, and what waited only for it is ready.

        A cancelled task that was running ends here a second time: the first word stands.
        """
        if task.completion.ended:
            return
        task.outcome = outcome
        task.fn, task.args = _nothing, ()  # a finished task holds its result only
        self._unfinished.discard(task)
        task.completion.end()
        for waiting in task.downstream:
            waiting.waits_for -= 1
            if waiting.waits_for == 0 and not waiting.completion.ended:
                self._ready.append(waiting)
        task.downstream.clear()
        self._state.notify_all()


class _Task:
    """One task's state; changed only with the engine's lock held."""

    __slots__ = (
        "args",
        "completion",
        "cpus",
        "downstream",
        "fn",
        "key",
        "nbytes",
        "outcome",
        "waits_for",
    )

    def __init__(
        self, key: str, fn: Callable[..., Any], args: tuple[Any, ...], nbytes: int, cpus: int
    ) -> None:
        self.key = key
        self.fn = fn
        self.args = args
        self.nbytes = nbytes
        self.cpus = cpus
        self.waits_for = 0
        self.downstream: list[_Task] = []
        self.completion = Completion()
        self.outcome: Any = None


class _InMemory:
    """An array put without a scratch store: every thread sees it where it is."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def load(self) -> Array:
        return self._array


def _value(arg: Any) -> Any:
    """A Ref's outcome (a Failure goes in as it is: `attempt` passes it on), else the argument."""
    if not isinstance(arg, Ref):
        return arg
    return arg.handle if isinstance(arg.handle, Stored) else arg.handle.outcome


def _completion(ref: Ref) -> Completion:
    return ref.handle.completion if isinstance(ref.handle, _Task) else _ALREADY


def _nothing() -> None:
    """What a finished task would run: nothing."""


_ALREADY = Completion()  # of arrays that were put
_ALREADY.end()
