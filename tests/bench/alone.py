"""One library in a process of its own, watched from outside.

    with Alone(data, family, threads=2) as process:
        run = process.run(contender)        # again and again: compiled once

The process holds two cpus, the rows, the library, and has run every setting on a few thousand rows
before anything is timed. A run's memory is its peak above that: the kernel's high-water mark, set
back before each run, and how much of it was anonymous (not pages of files, which the kernel takes
back when it needs room), looked at every 20 ms. How busy others kept the machine is told too.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.bench.contenders import Built, Contender, build
from tests.bench.datasets import DataSet, Truth, distances
from tests.bench.memory import held

__all__ = ["Alone", "Failed", "Run"]

EVERY = 0.02  # seconds between looks
SMALL = 20_000  # rows of the warm-up: enough that all code which the data needs is loaded
TIES = 1e-6  # relative: a neighbour as near as the true k-th within this is one


@dataclass(frozen=True, slots=True)
class Run:
    """What one build took, and how good it is.

    wall, cpu: seconds; check, check_cpu: of them, those in which it measured its own recall.
    others: CPU seconds that the rest of the machine used meanwhile.
    peak, anonymous: bytes above imports, input and warm-up.
    recall, ties: share of true neighbours found, by id, and counting what is as near as the k-th.
    holes: places of sampled rows without a neighbour. reported: what it says of its own recall.
    """

    wall: float
    cpu: float
    check: float
    check_cpu: float
    others: float
    peak: int
    anonymous: int
    recall: float
    ties: float
    holes: int
    reported: dict[str, Any] | None
    rounds: list[str]


class Failed(Exception):
    """The process ended, or ran out of time."""


class Alone:
    """A process that holds one data set and one library. A context manager."""

    def __init__(
        self, data: DataSet, settings: Sequence[Contender], *, threads: int, timeout: float = 3600
    ) -> None:
        """settings: what is to be run later, all of it warmed up now."""
        environment = os.environ | {
            name: str(threads)
            for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        }
        self._timeout = timeout
        with _on_cpus(threads):  # a process starts on the cpus of the thread that starts it
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.bench.alone"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        told = {
            "path": str(data.path),
            "truth": str(data.truth),
            "measure": data.measure,
            "k": data.k,
            "threads": threads,
            "settings": [asdict(contender) for contender in settings],
        }
        self._baseline = sum(self._ask(told)["held"])

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, contender: Contender) -> Run:
        """Build once. Failed when the process died or took longer than the timeout."""
        began = self._ask({"ready": contender.label})["held"]
        watch = Watch(self._process.pid, anonymous=began[0])
        busy = _busy_seconds()
        told = self._ask(asdict(contender))
        others = max(0.0, _busy_seconds() - busy - told["cpu_until_now"])
        anonymous = watch.stop()
        peak = told.pop("high") - self._baseline
        told.pop("cpu_until_now")
        return Run(**told, others=others, peak=max(peak, 0), anonymous=anonymous)

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Timer(self._timeout, self._process.kill)
        late.start()
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line.startswith("{"):
                    return dict(json.loads(line))
        except BrokenPipeError:
            pass
        finally:
            late.cancel()
        code = self._process.wait()
        raise Failed(f"the process ended with code {code} (timeout {self._timeout:.0f} s)")


@contextmanager
def _on_cpus(count: int) -> Iterator[None]:
    """This thread on the first so many of its cpus."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_of_them)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


class Watch:
    """The largest anonymous memory of a process above what it was, from a thread."""

    def __init__(self, pid: int, *, anonymous: int) -> None:
        self._pid, self._base, self._most = pid, anonymous, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._most

    def _look(self) -> None:
        while not self._stop.wait(EVERY):
            if (now := held(self._pid)) is not None:
                self._most = max(self._most, now[0] - self._base)


def _busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


# -- in the process that is watched --


def main() -> None:
    """Answer questions, a line of JSON each, until there are no more."""
    told = json.loads(sys.stdin.readline())
    threads, measure, k = told["threads"], told["measure"], told["k"]
    x = np.load(told["path"])
    for options in told["settings"]:
        build(Contender(**options), x[:SMALL].copy(), measure, k, threads)
    first = Contender(**told["settings"][0])
    if first.family == "simdist-stored":
        from tests.bench.contenders import FAMILIES

        FAMILIES[first.family].build.ready(x)  # type: ignore[attr-defined]
    _answer(held=_settled())
    for line in sys.stdin:
        question = json.loads(line)
        if "ready" in question:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
            _answer(held=_settled())
            continue
        everything = time.process_time()
        wall, cpu = time.perf_counter(), time.process_time()
        built = build(Contender(**question), x, measure, k, threads)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        high = _high_water()
        verdict = _judged(built, x, measure, Truth(**np.load(told["truth"])))
        _answer(
            wall=wall,
            cpu=cpu,
            high=high,
            check=built.check,
            check_cpu=built.check_cpu,
            reported=built.reported,
            rounds=list(built.rounds),
            **verdict,
            cpu_until_now=time.process_time() - everything,
        )
        del built


def _judged(built: Built, x: np.ndarray, measure: str, truth: Truth) -> dict[str, Any]:
    """Recall of the sampled rows, by id and with ties."""
    k = truth.ids.shape[1]
    by_id, as_near, holes = 0, 0, 0
    for row, ids, kth in zip(truth.rows, truth.ids, truth.kth, strict=True):
        found = np.asarray(built.ids[row])
        found = found[(found >= 0) & (found < len(x)) & (found != row)][:k]
        found = np.unique(found)  # a neighbour counts once
        holes += k - len(found)
        by_id += len(np.intersect1d(found, ids))
        as_near += int((distances(x, row, found, measure) <= kth * (1 + TIES) + 1e-7).sum())
    entries = truth.ids.size
    return {"recall": by_id / entries, "ties": as_near / entries, "holes": holes}


def _settled() -> tuple[int, int, int]:
    """What this process holds when it gives back what it can."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    now = held(os.getpid())
    assert now is not None
    return now


def _high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    mark = next(line for line in lines if line.startswith("VmHWM"))
    return int(mark.split()[1]) << 10


def _answer(**value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
