"""The one place that sets threads: BLAS, OpenMP and numba follow a task's `cpus`.

Two kinds of limits exist and both matter. OpenBLAS with its own pool and MKL keep one number for
the whole process: it is lowered to the smallest `cpus` of the tasks running now and given back when
the last of them ends. OpenMP (faiss) keeps one number per thread: each task sets it for itself.
Processes that an engine starts get the same numbers from their environment as well, for libraries
that a task is the first to load.

A task that is lent further cpus (`Task.spreads`) does not hand them to BLAS, whose sums depend on
how many threads it has: it cuts its work by a rule of its own and runs the pieces `side_by_side`,
each with one thread.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil

__all__ = ["Run", "cpus_here", "environment", "in_order", "limited", "side_by_side"]

T = TypeVar("T")

_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def environment(cpus: int) -> dict[str, str]:
    """Environment variables for a new process whose tasks use `cpus` each."""
    return dict.fromkeys(_VARIABLES, str(cpus))


def cpus_here() -> int:
    """Cpus this process may use: its affinity, and its container's quota where there is one."""
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = psutil.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    try:
        limit, period = quota.read_text().split()
        cpus = min(cpus, max(1, int(limit) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 here, or "max": no quota
    return cpus


@contextmanager
def limited(cpus: int) -> Iterator[None]:
    """While this lasts, native code called from this thread uses at most `cpus` threads.

    Costs about 50 microseconds; some milliseconds where modules were imported since the last one.
    """
    libraries = _process.enter(cpus)
    mine = [(lib, lib.get_num_threads()) for lib in libraries if _per_thread(lib)]
    numba_before = _set_numba(cpus)
    for lib, before in mine:
        if before != cpus:
            lib.set_num_threads(cpus)
    try:
        yield
    finally:
        for lib, before in mine:
            if before != cpus:
                lib.set_num_threads(before)
        if numba_before is not None:
            _set_numba(numba_before)
        _process.leave(cpus)


class Run(Protocol):
    """[function(0), ..., function(count - 1)], side by side where there is room."""

    def __call__(self, function: Callable[[int], T], count: int) -> list[T]: ...


def in_order(function: Callable[[int], T], count: int) -> list[T]:
    """One after the other, in the calling thread."""
    return [function(i) for i in range(count)]


@contextmanager
def side_by_side(cpus: int) -> Iterator[Run]:
    """Runs on `cpus` threads, in each of which native code has one.

    What is computed does not depend on `cpus` where pieces are cut by a rule of sizes alone and
    their results are put together in order. The first error of a piece is raised once all that
    began have ended. Costs some 20 microseconds a piece.
    """
    if cpus == 1:
        with limited(1):
            yield in_order
        return
    with limited(1), ThreadPoolExecutor(cpus, "simdist-piece", _single) as pool:

        def run(function: Callable[[int], T], count: int) -> list[T]:
            pieces = [pool.submit(function, i) for i in range(count)]
            try:
                return [piece.result() for piece in pieces]
            finally:
                for piece in pieces:
                    piece.cancel()

        yield run


def _single() -> None:
    """One thread each for native code whose limits are per thread, in a thread of a pool."""
    for lib in _process.libraries:
        if _per_thread(lib):
            lib.set_num_threads(1)
    _set_numba(1)


class _ProcessWide:
    """Limits that all threads share, and how many tasks hold them down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[int] = []  # cpus of each task running now
        self._before: dict[str, tuple[Any, int]] = {}  # path -> (library, threads it had)
        self.libraries: list[Any] = []
        self._modules = -1

    def enter(self, cpus: int) -> list[Any]:
        with self._lock:
            self._scan()
            self._running.append(cpus)
            self._apply()
            return self.libraries

    def leave(self, cpus: int) -> None:
        with self._lock:
            self._running.remove(cpus)
            self._apply()

    def _scan(self) -> None:
        # A library arrives with a module that loads it; scanning costs milliseconds, counting not.
        if len(sys.modules) == self._modules:
            return
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415  (30 ms, paid by workers)

        self.libraries = ThreadpoolController().lib_controllers
        self._modules = len(sys.modules)

    def _apply(self) -> None:
        if not self._running:
            for lib, threads in self._before.values():
                _set(lib, threads)
            self._before.clear()
            return
        limit = min(self._running)
        for lib in self.libraries:
            if _per_thread(lib):
                continue
            now = lib.get_num_threads()
            self._before.setdefault(lib.filepath, (lib, now))
            if now != limit:
                _set(lib, limit)


def _set(lib: Any, threads: int) -> None:
    """Set a library's one number, whichever thread asks.

    From 3.8 on, threadpoolctl lets only the thread that set OpenBLAS first set it again, and
    ignores others in silence. Tasks agree under a lock of their own, so they take that right, and
    leave it free for whoever comes next.
    """
    release = getattr(lib, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)
    lib.set_num_threads(threads)
    if release is not None:
        release(force=True)


_process = _ProcessWide()  # a process has one set of native libraries, so one object speaks for it


def _per_thread(lib: Any) -> bool:
    return lib.user_api == "openmp" or getattr(lib, "threading_layer", "") == "openmp"


def _set_numba(threads: int) -> int | None:
    """Numba's mask is per thread. Before its pool is launched there is nothing to limit, and asking
    would launch it (and make a later fork unsafe): then None."""
    numba = sys.modules.get("numba")
    if numba is None or not hasattr(numba, "threading_layer"):
        return None
    try:
        numba.threading_layer()
    except ValueError:
        return None
    before = int(numba.get_num_threads())
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    return before
