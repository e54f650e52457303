"""One job on every engine, with one worker and with two: the same bytes, and what each costs.

    python -m tests.bench.engines [--rounds 2] [--workers 1,2] [--engines local,dask,ray]
                                  [--rows 1000000]

Rows: the packages' embeddings (cosine), or as many as asked for of the synthetic easy set
(euclidean). Engines take turns, one alive at a time: started, its workers warmed by a job of 3,000
rows, then timed on import, partition and graph into a fresh store. The seconds of the start are
given apart. CPU seconds are those of this process and of all its workers.

The second table tells where the rest goes: rounds by kind, the seconds that passed in them, how
much of the workers' time tasks filled, what tasks took in all, and what passed outside of rounds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

import simdist as sd
from simdist.runner.events import Event, RoundDone, TaskDone
from tests.bench.data import EMBEDDINGS
from tests.bench.datasets import FOLDER, opened

WIDE = "2GiB"


def main() -> None:
    """Run in turn and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--engines", default="local,dask,ray")
    parser.add_argument("--rows", type=int, help="of the easy set, instead of the packages")
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments, _ = parser.parse_known_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    job = Job(str(EMBEDDINGS), "cosine", arguments.recall, "embedding")
    if arguments.rows:
        data = opened("easy", k=15, rows=arguments.rows, folder=arguments.folder)
        job = Job(str(data.path), data.measure, arguments.recall, None)
    runs: dict[tuple[str, int], list[Timed]] = {}
    for _ in range(arguments.rounds):
        for workers in map(int, arguments.workers.split(",")):
            for kind in arguments.engines.split(","):
                runs.setdefault((kind, workers), []).append(job.timed(kind, workers))
    print(f"\n{job.path}, recall {job.recall} asked for, {arguments.rounds} rounds\n")
    _tell(runs)
    _tell_rounds(runs)


@dataclass(slots=True)
class Timed:
    """One run. kinds: for every kind of round, seconds that passed, seconds and CPU seconds that
    its tasks took."""

    start: float = 0.0
    wall: float = 0.0
    cpu: float = 0.0
    sha: str = ""
    kinds: dict[str, np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(3)))

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundDone):
            self.kinds[_kind(event.stage, event.round)][0] += event.seconds
        if isinstance(event, TaskDone):
            self.kinds[_kind(event.stage, event.round)][1:] += event.seconds, event.cpu_seconds


@dataclass(frozen=True, slots=True)
class Job:
    """Import, partition and graph of a file."""

    path: str
    measure: str
    recall: float
    column: str | None

    def timed(self, kind: str, workers: int) -> Timed:
        """Into a fresh store, on an engine of its own that is started and warm."""
        found = Timed(start=time.perf_counter())
        with sd.open_engine(kind, workers=workers, memory=WIDE) as engine:
            found.start = time.perf_counter() - found.start
            self._warm(engine)
            with tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder:
                store = sd.open_store(folder)
                wall, cpu = time.perf_counter(), _cpu_seconds()
                graph = self._run(store, engine, found)
                found.wall, found.cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
                found.sha = hashlib.sha256(graph.manifest.to_bytes()).hexdigest()
        return found

    def _run(self, store: sd.Store, engine: sd.Engine, listener: Timed) -> sd.Dataset:
        columns = {} if self.column is None else {"vector": self.column, "id": "package"}
        vectors = sd.import_vectors(
            self.path, store=store, engine=engine, listeners=[listener], **columns
        )
        return sd.knn_graph(
            vectors,
            15,
            measure=self.measure,
            recall=self.recall,
            engine=engine,
            listeners=[listener],
        )

    def _warm(self, engine: sd.Engine) -> None:
        """Imports and compiled kernels, loaded once per worker: jobs of several tasks a round."""
        rng = np.random.default_rng(0)
        for seed in range(2):
            x = rng.standard_normal((3000, 32), dtype=np.float32)
            sd.knn_graph(x, 15, measure=self.measure, engine=engine, seed=seed)


def _kind(stage: str, name: str) -> str:
    """leaves-3 and leaves-4 are of one kind."""
    return f"{stage}: {re.sub(r'-[0-9].*', '', name)}"


def _tell(runs: dict[tuple[str, int], list[Timed]]) -> None:
    def wall(key: tuple[str, int]) -> float:
        return statistics.median(one.wall for one in runs[key])

    fewest = min(workers for _, workers in runs)
    print(
        "| engine | workers | start s | wall s | CPU s | speed-up | of local's wall |"
        " manifest sha256 |\n|" + "---|" * 8
    )
    for (kind, workers), own in runs.items():
        start, cpu = (statistics.median(getattr(o, name) for o in own) for name in ("start", "cpu"))
        shas = ", ".join(sorted({one.sha[:12] for one in own}))
        local = ("local", workers)
        beside = f"{wall((kind, workers)) / wall(local):.2f}" if local in runs else "-"
        print(
            f"| {kind} | {workers} | {start:.1f} | {wall((kind, workers)):.2f} | {cpu:.2f} |"
            f" {wall((kind, fewest)) / wall((kind, workers)):.2f} | {beside} | {shas} |"
        )


def _tell_rounds(runs: dict[tuple[str, int], list[Timed]]) -> None:
    """Of each engine's last run: seconds by kind of round, and how full the workers were."""
    last = {key: own[-1] for key, own in runs.items()}
    names = [f"{kind} x {workers}" for kind, workers in last]
    kinds = dict.fromkeys(kind for one in last.values() for kind in one.kinds)
    print(f"\n| seconds of rounds (of the workers' time in tasks) | {' | '.join(names)} |")
    print("|" + "---|" * (len(names) + 1))
    for kind in kinds:
        cells = []
        for (_, workers), one in last.items():
            passed, tasks, _ = one.kinds[kind]
            cells.append(f"{passed:.2f} ({tasks / max(passed * workers, 1e-9):.0%})")
        print(f"| {kind} | {' | '.join(cells)} |")
    for what, of in (
        ("outside of rounds", lambda one: one.wall - sum(v[0] for v in one.kinds.values())),
        ("tasks took, in all", lambda one: sum(v[1] for v in one.kinds.values())),
        ("CPU seconds of tasks", lambda one: sum(v[2] for v in one.kinds.values())),
        ("CPU seconds outside tasks", lambda one: one.cpu - sum(v[2] for v in one.kinds.values())),
    ):
        print(f"| {what} | {' | '.join(f'{of(one):.2f}' for one in last.values())} |")


def _cpu_seconds() -> float:
    """CPU seconds so far of this process and everything it started that still lives."""
    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with suppress(psutil.Error):  # it has just ended
            times = process.cpu_times()
            total += times.user + times.system
    return total


if __name__ == "__main__":
    main()
