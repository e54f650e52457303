"""Who waits for a task's end: shared by the engines whose futures live in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue

from simdist.engine.base import Ref, no_timely_end

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
    timeout: float | None,
    where: str,
) -> Iterator[Ref]:
    """Refs as they end; EngineError past `timeout` seconds without any of them ending."""
    pending = {id(ref): ref for ref in refs}
    queue: SimpleQueue[Ref] = SimpleQueue()
    for ref in pending.values():
        completion(ref).watch(queue, ref)
    try:
        while pending:
            try:
                ref = queue.get(timeout=timeout)
            except Empty:
                raise no_timely_end(list(pending.values()), timeout or 0.0, where) from None
            del pending[id(ref)]
            yield ref
    finally:
        for ref in pending.values():
            completion(ref).unwatch(queue)
