"""What the tasks of this process hold, kept within the memory their engine was given.

    within(memory, nbytes)      while a task runs: so much is promised to it
    keep_within()               at its every check: are there too many pages of mapped files?

What a task holds at once is planned: it states its bytes, the arrays it must have mapped together
among them, and is refused where they do not fit. Pages that it has no more use for are not: reading
an array leaves them behind, and they count until they are dropped. What the running tasks do not
claim is theirs; past it all are dropped, and those still needed come back from the page cache
without a disk being read.

What is freed goes back to the system soon: glibc would keep up to 64 MiB at the end of each
thread's heap, and Arrow's allocator has a cache of its own.

Without /proc (not Linux), or where no budget is known, nothing is done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from simdist.engine.heap import KEPT_NBYTES, give_back, settle
from simdist.store.pages import drop_pages

__all__ = ["keep_within", "within"]

LEAST_NBYTES = 8 << 20  # of pages: fewer are not worth dropping
SPARE = 16  # a part of the budget, one in so many, is left for what nobody counts


class _Budget:
    """What the tasks that run in this process may hold together. Changed with its lock held."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.memory = 0
        self.claimed = 0
        self.running = 0
        self.run_id = ""
        self.base = (0, 0)  # anonymous bytes and pages of files when the run's first task began


_budget = _Budget()  # a process has one memory


@contextmanager
def within(memory: int, nbytes: int, *, run_id: str) -> Iterator[None]:
    """While a task runs. memory: of all tasks in this process, 0 where unknown; nbytes: the task's
    own. What the process held when a run's first task began there does not count."""
    with _budget.lock:
        if _budget.running == 0:
            settle()
            if _budget.run_id != run_id:
                drop_pages()
                give_back()
                _budget.run_id, _budget.base = run_id, _held() or (0, 0)
        _budget.memory = memory
        _budget.running += 1
        _budget.claimed += nbytes
    try:
        yield
    finally:
        with _budget.lock:
            _budget.running -= 1
            _budget.claimed -= nbytes
        if _idle_nbytes() > KEPT_NBYTES:
            give_back()
        keep_within()


def keep_within() -> None:
    """Drop the pages of mapped files where they are more than the running tasks leave room for.
    Costs some microseconds."""
    held = _held() if _budget.memory else None
    if held is None:
        return
    anonymous, mapped = (now - before for now, before in zip(held, _budget.base, strict=True))
    memory = _budget.memory - _budget.memory // SPARE
    if mapped > max(memory - max(_budget.claimed, anonymous), LEAST_NBYTES):
        drop_pages()


def _idle_nbytes() -> int:
    """Anonymous bytes above what the running tasks claim, all where nobody can say."""
    held = _held()
    return KEPT_NBYTES + 1 if held is None else held[0] - _budget.base[0] - _budget.claimed


def _held() -> tuple[int, int] | None:
    """Anonymous bytes of this process, and bytes of files among its pages."""
    try:
        with open("/proc/self/statm", "rb") as file:
            _, resident, mapped, *_ = map(int, file.read().split())
    except OSError:
        return None
    return (resident - mapped) * _page(), mapped * _page()


@cache
def _page() -> int:
    return os.sysconf("SC_PAGE_SIZE")
