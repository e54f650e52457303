"""What a worker really holds, against what it was given: on every engine, above its own baseline.

    python -m tests.bench.memory [--rows 63666 | 1000000] [--dim 384] [--engine local,dask,ray]
                                 [--memory 300MiB] [--workers 2] [--recall 0.95]
    python -m tests.bench.memory --tasks     per kind of task: what it said, what it held

Rows: the packages' embeddings (cosine), or more than those: a synthetic manifold (euclidean).

Each run is a process of its own, watched from outside: every 50 ms /proc tells what each worker
holds, anonymous memory and pages of mapped files apart. A worker's baseline is taken when it has
imported everything and run a job of 600 rows. On the local engine the one process is worker and
driver, and all its threads share `memory`; on Dask and Ray the driver stands in a column of its
own.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

import simdist as sd
from simdist.runner import Context, Record, Stage, Task
from simdist.runner.events import Event, RoundDone, StageDone
from tests.bench.data import EMBEDDINGS

PACKAGES = 63_666
K = 15
EVERY = 0.05  # seconds between looks
M_MMAP_THRESHOLD = -3  # of glibc's mallopt
FIELDS = ("RssAnon", "RssFile", "RssShmem")


def main() -> None:
    """Run and print the tables."""
    arguments = _arguments()
    if arguments.inside.startswith("look-"):
        _look(int(arguments.inside.removeprefix("look-")))
        return
    if arguments.inside:
        _inside(arguments)
        return
    with tempfile.TemporaryDirectory(prefix="simdist-bench-", dir=arguments.folder) as folder:
        path = written(arguments, Path(folder))
        if arguments.tasks:
            _print_tasks(arguments, path, folder)
            return
        print(
            "| engine | workers | memory | peak above baseline MiB, per worker | of it anonymous |"
            " mapped | driver | wall s | CPU s | recall | manifest sha256 |"
        )
        print("|" + "---|" * 11)
        for engine in arguments.engine.split(","):
            _print_run(arguments, engine, path, folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=PACKAGES)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--engine", default="local,dask,ray")
    parser.add_argument("--memory", default="300MiB")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--method", default="approximate")
    parser.add_argument("--folder", default=None, help="where data and stores lie meanwhile")
    parser.add_argument("--store", default=None, help="a store uri instead of a folder")
    parser.add_argument("--tasks", action="store_true")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    arguments, _ = parser.parse_known_args()
    return arguments


def written(arguments: argparse.Namespace, folder: Path) -> str:
    """The file to import; synthetic rows are written piece by piece."""
    if arguments.rows == PACKAGES:
        return str(EMBEDDINGS)
    path = folder / "rows.npy"
    shape = arguments.rows, arguments.dim
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, arguments.rows, 65_536):
        count = min(65_536, arguments.rows - start)
        rows[start : start + count] = sd.datasets.manifold(
            count, arguments.dim, 16, seed=7, start=start
        )
    return str(path)


# -- one run, watched --


def _print_run(arguments: argparse.Namespace, engine: str, path: str, folder: str) -> None:
    seen = watched(arguments, engine, path, folder)
    worker, told = seen.worker, seen.told
    print(
        f"| {engine} | {arguments.workers} | {arguments.memory} | {worker.total >> 20} |"
        f" {worker.anonymous >> 20} | {worker.mapped >> 20} |"
        f" {'same' if seen.driver is None else seen.driver.total >> 20} | {told['wall']:.1f} |"
        f" {told['cpu']:.1f} | {told['recall']:.3f} | {told['sha']} |",
        flush=True,
    )


class Seen(NamedTuple):
    """A run: what it told (wall, cpu, recall, sha), and the peaks of the largest worker and of the
    driver, None where the driver is the worker."""

    told: dict[str, Any]
    worker: Peak
    driver: Peak | None


def watched(arguments: argparse.Namespace, engine: str, path: str, folder: str) -> Seen:
    """One run in a process of its own, as `arguments` have it."""
    store = arguments.store or tempfile.mkdtemp(prefix=f"{engine}-", dir=folder)
    command = [sys.executable, "-m", "tests.bench.memory", "--inside", engine]
    for name in ("rows", "memory", "workers", "recall", "method"):
        command += [f"--{name}", str(getattr(arguments, name))]
    command += ["--store", store, "--folder", path]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert process.stdin is not None
    assert process.stdout is not None
    ready = process.stdout.readline()
    if not ready:
        raise SystemExit(f"the run on {engine} failed before it was warm")
    workers = json.loads(ready)
    watch = Watch(process.pid, workers)
    process.stdin.write("go\n")
    process.stdin.flush()
    line = ""
    for line in process.stdout:
        if line.startswith("{"):
            break
        print(line, end="", file=sys.stderr, flush=True)
    watch.stop()
    if process.wait() or not line.startswith("{"):
        raise SystemExit(f"the run on {engine} failed")
    apart = process.pid not in workers
    return Seen(
        json.loads(line),
        watch.largest(workers),
        watch.largest([process.pid]) if apart else None,
    )


class Peak:
    """Largest bytes above the baseline: together, anonymous, and mapped, each at its own moment."""

    def __init__(self) -> None:
        self.total = self.anonymous = self.mapped = 0


class Watch:
    """Looks at a process and all it started every EVERY seconds, from a thread.

    A worker that appears later (a replacement) has the smallest baseline of its siblings.
    """

    def __init__(self, root: int, workers: list[int]) -> None:
        self._root = psutil.Process(root)
        self._base = {pid: seen for pid in {root, *workers} if (seen := held(pid)) is not None}
        self._least = min((self._base[pid] for pid in workers), key=sum)
        self._workers = set(workers)
        self._peaks: dict[int, Peak] = defaultdict(Peak)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def largest(self, pids: list[int]) -> Peak:
        """The largest of each over some processes, and over workers that came later."""
        late = set(self._peaks) - set(self._base) if set(pids) & self._workers else set()
        found = Peak()
        for pid in {*pids, *late}:
            peak = self._peaks[pid]
            found.total = max(found.total, peak.total)
            found.anonymous = max(found.anonymous, peak.anonymous)
            found.mapped = max(found.mapped, peak.mapped)
        return found

    def _watch(self) -> None:
        looks = 0
        while not self._stop.wait(EVERY):
            if looks % 40 == 0 and self._root.pid not in self._workers:
                self._adopt()
            looks += 1
            for pid, base in list(self._base.items()):
                now = held(pid)
                if now is None:
                    continue
                peak = self._peaks[pid]
                peak.total = max(peak.total, sum(now) - sum(base))
                peak.anonymous = max(peak.anonymous, now[0] - base[0])
                peak.mapped = max(peak.mapped, sum(now[1:]) - sum(base[1:]))

    def _adopt(self) -> None:
        """Workers that were not there at the start."""
        with suppress(psutil.Error):
            for child in self._root.children(recursive=True):
                with suppress(psutil.Error):
                    words = " ".join(child.cmdline())
                    if child.pid not in self._base and (
                        words.startswith("ray::") or "spawn_main" in words
                    ):
                        self._base[child.pid] = self._least


def held(pid: int) -> tuple[int, int, int] | None:
    """Bytes of a process now: anonymous, pages of files, shared memory; None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    if len(found) < len(FIELDS):
        return None  # a zombie
    anonymous, mapped, shared = (int(found[name].split()[0]) << 10 for name in FIELDS)
    return anonymous, mapped, shared


# -- in the process that is watched --


def _inside(arguments: argparse.Namespace) -> None:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    engine_kind = arguments.inside
    with sd.open_engine(engine_kind, workers=arguments.workers, memory=arguments.memory) as engine:
        print(json.dumps(_warm(engine, arguments.workers)), flush=True)
        sys.stdin.readline()
        wall, cpu = time.perf_counter(), _cpu_seconds()
        graph = _job(arguments, engine)
        wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
        told = {
            "wall": wall,
            "cpu": cpu,
            "recall": graph.metrics["recall"]["estimate"],
            "sha": hashlib.sha256(graph.manifest.to_bytes()).hexdigest()[:12],
        }
        print(json.dumps(told), flush=True)


def _job(arguments: argparse.Namespace, engine: sd.Engine) -> Any:
    """Import and graph; the graph's dataset."""
    store = sd.open_store(arguments.store)
    packages = arguments.rows == PACKAGES
    columns = {"id": "package", "vector": "embedding"} if packages else {}
    vectors = sd.import_vectors(
        arguments.folder, store=store, engine=engine, listeners=[_tell], **columns
    )
    return sd.knn_graph(
        vectors,
        K,
        measure="cosine" if packages else "euclidean",
        recall=arguments.recall,
        method=arguments.method,
        engine=engine,
        listeners=[_tell],
    )


def _tell(event: Event) -> None:
    if isinstance(event, RoundDone):
        print(f"  {event.round:16} {event.tasks:5} tasks {event.seconds:8.1f} s", flush=True)
    if isinstance(event, StageDone):
        print(f"{event.stage}: {event.seconds:.1f} s", flush=True)


def _warm(engine: sd.Engine, workers: int) -> list[int]:
    """Every worker imports what tasks import, and runs a small job; their pids."""
    if not engine.remote:
        return [warm_here(0.0)]
    pids: set[int] = set()
    while len(pids) < workers:
        refs = [engine.submit(warm_here, 2.0, key=f"warm-{i}") for i in range(workers)]
        pids |= {engine.get(ref) for ref in refs}
    return sorted(pids)


def warm_here(least: float) -> int:
    """Load code, compiled kernels included; takes at least so many seconds; this process's pid."""
    began = time.monotonic()
    x = np.random.default_rng(0).standard_normal((600, 16), dtype=np.float32)
    for measure in ("cosine", "euclidean"):
        for method in ("approximate", "exact"):
            sd.knn_graph(x, 5, measure=measure, method=method, engine="local")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    time.sleep(max(0.0, least - (time.monotonic() - began)))
    return os.getpid()


def _cpu_seconds() -> float:
    """CPU seconds so far of this process and everything it started that still lives."""
    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


# -- what each task said, and held --


def _print_tasks(arguments: argparse.Namespace, path: str, folder: str) -> None:
    """One task at a time in this process, so that what it holds is the task's; the looks are
    another process's, which needs no lock of this one's interpreter."""
    marks: list[tuple[Task, float, float]] = []
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)  # what is freed goes back at once
    arguments.store, arguments.folder = f"{folder}/store", path
    warm_here(0.0)
    for stage in _stages():
        _mark(stage, marks)
    command = [sys.executable, "-m", "tests.bench.memory", "--inside", f"look-{os.getpid()}"]
    with (
        sd.open_engine("local", workers=1, memory="64GiB") as engine,
        tempfile.TemporaryFile("w+") as file,
    ):
        looks = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, text=True)
        _job(arguments, engine)
        looks.communicate("stop\n")
        file.seek(0)
        seen = np.loadtxt(file)
    found: dict[str, list[tuple[float, float, Task]]] = defaultdict(list)
    for task, began, ended in marks:
        first, last = np.searchsorted(seen[:, 0], [began, ended])
        here = seen[max(first - 1, 0) : last + 1, 1:]  # from the last look before it began
        anonymous, mapped = here.max(axis=0) - here[0]
        found[task.kind].append((anonymous, mapped, task))
    print("| task | tasks | said MiB | held, anonymous | mapped | said / held | tightest |")
    print("|" + "---|" * 7)
    for kind, tasks in found.items():
        anonymous, mapped, task = max(tasks, key=lambda one: one[0] / max(one[2].nbytes, 1))
        print(
            f"| {kind} | {len(tasks)} | {task.nbytes / 2**20:.0f} | {anonymous / 2**20:.0f} |"
            f" {mapped / 2**20:.0f} | {task.nbytes / max(anonymous, 1):.1f} | {task.key} |"
        )


def _look(pid: int) -> None:
    """Write (seconds, anonymous, mapped) of a process every 2 ms until told to stop."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
    while not ended.wait(0.002):
        now = held(pid)
        if now is not None:
            print(time.monotonic(), now[0], now[1])


def _stages() -> list[type[Stage]]:
    from simdist.stages.graph import ApproximateKnnGraph, ExactKnnGraph
    from simdist.stages.partition import PartitionStage
    from simdist.stages.vectors import ImportVectors

    return [ImportVectors, PartitionStage, ApproximateKnnGraph, ExactKnnGraph]


def _mark(stage: type[Stage], marks: list[tuple[Task, float, float]]) -> None:
    compute = stage.compute

    def marked(self: Stage, context: Context, task: Task) -> Record:
        ctypes.CDLL(None).malloc_trim(0)
        time.sleep(0.005)
        began = time.monotonic()
        try:
            return compute(self, context, task)
        finally:
            marks.append((task, began, time.monotonic()))

    stage.compute = marked  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
