"""Is this engine fit? Tasks look around where they run, and what they saw is compared.

examine(engine) ──> tasks that hold their place until every worker has had one ──> Readings
                ──> versions, threads, memory against what was declared, time of a task
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from simdist.engine import threads
from simdist.engine.base import Engine
from simdist.engine.memory import format_nbytes
from simdist.engine.ops import Call, map_window
from simdist.types import Finding

__all__ = ["Reading", "everywhere", "examine", "judge", "take_reading"]

PACKAGES = ("simdist", "numpy", "pyarrow", "numba", "obstore")  # what results and shards depend on
TASK_SECONDS = 120.0  # without any task ending, before the engine is called stuck
HOLD_SECONDS = 0.2  # a task holds its place, so that its siblings reach other workers
TOURS = 4  # of tasks, until no new worker shows up
SAMPLES = 20
SLOW_TASK_SECONDS = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a task saw where it ran.

    blas_threads: the most threads that any native library may use inside a task of one cpu.
    memory: bytes that the machine, or its container, has. rss: bytes of the worker process.
    """

    host: str
    pid: int
    versions: Mapping[str, str]
    cpus: int
    blas_threads: int
    memory: int
    rss: int


def examine(engine: Engine) -> Iterator[Finding]:
    """Findings about an engine that is open, one by one. Raises EngineError where it is stuck."""
    began = time.perf_counter()
    readings = everywhere(engine, take_reading, (), name="doctor-look", who=_who)
    took = time.perf_counter() - began
    hosts = {reading.host for reading in readings}
    found = (
        f"{_plural(len(readings), 'process')} on {_plural(len(hosts), 'machine')} answered in"
        f" {took:.1f} s; {_plural(engine.workers, 'task')} can run at once"
    )
    yield Finding("workers", "ok", found)
    yield from judge(readings, here=take_reading(), places=engine.workers, memory=engine.memory,
                     shared_memory=not engine.remote)  # fmt: skip
    yield _pace(engine)


def everywhere(
    engine: Engine,
    fn: Callable[..., T],
    args: tuple[Any, ...],
    *,
    name: str,
    who: Callable[[T], object],
) -> list[T]:
    """`fn(*args, number)` on as many workers as can be reached; one answer for each `who`.

    An engine chooses the worker of a task, so tasks are sent in tours, twice as many as there are
    places, until a tour meets nobody new. `fn` should hold its place for a moment (`hold`).
    """
    answers: dict[object, T] = {}
    for tour in range(TOURS):
        before = len(answers)
        numbers = range(tour * 2 * engine.workers, (tour + 1) * 2 * engine.workers)
        calls = (Call(f"{name}-{number}", fn, (*args, number)) for number in numbers)
        for _, answer in map_window(engine, calls, timeout=TASK_SECONDS):
            answers.setdefault(who(answer), answer)
        if len(answers) in (before, engine.workers):
            break
    return list(answers.values())


def take_reading(number: int = 0) -> Reading:
    """Look around; runs as a task. number: makes the tasks of a tour different."""
    from threadpoolctl import threadpool_info  # noqa: PLC0415 - 30 ms that only this task pays

    time.sleep(HOLD_SECONDS)
    return Reading(
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=_versions(),
        cpus=threads.cpus_here(),
        blas_threads=max((int(pool["num_threads"]) for pool in threadpool_info()), default=1),
        memory=_memory_here(),
        rss=psutil.Process().memory_info().rss,
    )


def judge(
    readings: Sequence[Reading], *, here: Reading, places: int, memory: int, shared_memory: bool
) -> Iterator[Finding]:
    """What the readings mean. here: this process. places: tasks at once, on all machines together.

    memory: bytes declared for a worker; shared_memory: all tasks share them (the local engine).
    """
    yield _told_versions(readings, here)
    yield _told_threads(readings, places)
    yield _told_memory(readings, places, memory, shared_memory)


def _told_versions(readings: Sequence[Reading], here: Reading) -> Finding:
    differing = [
        f"{package} is {reading.versions.get(package)} on {reading.host} and {version} here"
        for package, version in here.versions.items()
        for reading in readings
        if reading.versions.get(package) != version
    ]
    if differing:
        found = "; ".join(list(dict.fromkeys(differing))[:3])
        advice = "The same job may write other bytes there: install the same versions everywhere."
        return Finding("versions", "warning", found, advice)
    told = ", ".join(f"{package} {version}" for package, version in here.versions.items())
    return Finding("versions", "ok", f"{told}; the same everywhere")


def _told_threads(readings: Sequence[Reading], places: int) -> Finding:
    most = max(reading.blas_threads for reading in readings)
    cpus = sum({reading.host: reading.cpus for reading in readings}.values())
    found = f"{_plural(places, 'task')} at once on {_plural(cpus, 'cpu')}"
    if most > 1:
        found += f"; inside a task of one cpu, native code may use {most} threads"
        advice = "Tasks would take turns badly. Set OMP_NUM_THREADS=1 where workers start."
        return Finding("threads", "warning", found, advice)
    if places > cpus:
        advice = "Tasks will share cpus, and each takes longer. Start fewer workers."
        return Finding("threads", "warning", found, advice)
    return Finding("threads", "ok", f"{found}, native code limited to one thread each")


def _told_memory(
    readings: Sequence[Reading], places: int, memory: int, shared_memory: bool
) -> Finding:
    """Declared memory against the machine that has least of it for each of its processes."""
    by_host: dict[str, list[Reading]] = {}
    for reading in readings:
        by_host.setdefault(reading.host, []).append(reading)
    each = -(-places // len(by_host))  # places of a machine, where they are spread evenly
    told = []
    short = False
    for host, processes in by_host.items():
        declared = memory if shared_memory else memory * each
        held = declared + sum(process.rss for process in processes)
        has = min(process.memory for process in processes)
        short |= held > has
        told.append((held / has, host, declared, held - declared, has))
    _, host, declared, rss, has = max(told)
    found = (
        f"{format_nbytes(declared)} declared for tasks and {format_nbytes(rss)} held by processes,"
        f" of {format_nbytes(has)} that {host} has"
    )
    if short:
        advice = "Workers may be killed in mid-task. Lower engine.memory, or start fewer workers."
        return Finding("memory", "warning", found, advice)
    return Finding("memory", "ok", found)


def _pace(engine: Engine) -> Finding:
    spans = []
    for number in range(SAMPLES):
        began = time.perf_counter()
        engine.get(engine.submit(_nothing, key=f"doctor-nothing-{number}"), timeout=TASK_SECONDS)
        spans.append(time.perf_counter() - began)
    seconds = statistics.median(spans)
    found = f"a task that does nothing takes {seconds * 1000:.1f} ms, there and back"
    if seconds > SLOW_TASK_SECONDS:
        advice = "Runs of many small tasks will wait for the scheduler: is it busy, or far away?"
        return Finding("pace", "warning", found, advice)
    return Finding("pace", "ok", found)


def _nothing() -> None:
    return None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _memory_here() -> int:
    """Bytes of this machine, or of the container that this process lives in."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


def _who(reading: Reading) -> object:
    return reading.host, reading.pid


def _plural(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"
