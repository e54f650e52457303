"""Who waits for a task's end: shared by the engines whose futures live in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue

from simdist.engine.base import Ref, no_timely_end
from simdist.engine.waiting import Deadline

__all__ = ["Completion", "in_order_of_end"]


class Completion:
    """One task's end, told once to every queue that watches. Thread-safe."""

    __slots__ = ("_lock", "_watchers", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._watchers: list[tuple[SimpleQueue[Ref], Ref]] = []

    def end(self) -> None:
        with self._lock:
            self.ended = True
            watchers, self._watchers = self._watchers, []
        for queue, ref in watchers:
            queue.put(ref)

    def watch(self, queue: SimpleQueue[Ref], ref: Ref) -> None:
        with self._lock:
            if not self.ended:
                self._watchers.append((queue, ref))
                return
        queue.put(ref)

    def unwatch(self, queue: SimpleQueue[Ref]) -> None:
        with self._lock:
            self._watchers = [pair for pair in self._watchers if pair[0] is not queue]


def in_order_of_end(
    refs: Iterable[Ref],
    completion: Callable[[Ref], Completion],
    *,
    timeout: float,
    where: str,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Ref]:
    """Refs as they end; EngineError past `timeout` seconds without any of them ending.

    check: called now and then while waiting; what it raises ends the wait.
    """
    pending = {id(ref): ref for ref in refs}
    queue: SimpleQueue[Ref] = SimpleQueue()
    for ref in pending.values():
        completion(ref).watch(queue, ref)
    try:
        while pending:
            ref = _next(queue, pending, timeout=timeout, where=where, check=check)
            del pending[id(ref)]
            yield ref
    finally:
        for ref in pending.values():
            completion(ref).unwatch(queue)


def _next(
    queue: SimpleQueue[Ref],
    pending: Mapping[int, Ref],
    *,
    timeout: float,
    where: str,
    check: Callable[[], None],
) -> Ref:
    deadline = Deadline(timeout)
    while True:
        try:
            return queue.get(timeout=deadline.piece())
        except Empty:
            pass
        check()
        if deadline.passed:
            raise no_timely_end(list(pending.values()), timeout, where)
