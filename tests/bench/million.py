"""1,000,000 x 128 synthetic rows of intrinsic dimension 16 on the local engine.

    python -m tests.bench.million [--rows 1000000] [--memory 2GiB] [--recall 0.95]

Prints seconds per round, CPU seconds, peak memory and recall. Peak memory is given twice: all
resident pages, and those that are not file pages of mapped shards (which the kernel takes back when
it needs room).
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

import simdist as sd
from simdist.runner.events import Event, RoundDone, StageDone


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--intrinsic", type=int, default=16)
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("-k", type=int, default=15)
    arguments, _ = parser.parse_known_args()
    with TemporaryDirectory(prefix="simdist-bench-") as folder:
        path = Path(folder) / "rows.npy"
        started = time.perf_counter()
        np.save(
            path,
            sd.datasets.manifold(arguments.rows, arguments.dim, arguments.intrinsic, seed=7),
        )
        print(f"generated in {time.perf_counter() - started:.1f} s", flush=True)
        store = sd.open_store(Path(folder) / "store")
        with sd.open_engine("local", workers=2, memory=arguments.memory) as engine, Peak() as peak:
            wall, cpu = time.perf_counter(), time.process_time()
            vectors = sd.import_vectors(str(path), store=store, engine=engine, listeners=[_tell])
            graph = sd.knn_graph(
                vectors,
                arguments.k,
                measure="euclidean",
                recall=arguments.recall,
                engine=engine,
                listeners=[_tell],
            )
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"\nwall {wall:.1f} s, CPU {cpu:.1f} s, recall {graph.metrics['recall']}")
        print(f"peak resident above baseline {peak.resident / 2**20:.0f} MiB,")
        print(f"of which anonymous {peak.anonymous / 2**20:.0f} MiB (memory: {arguments.memory})")


def _tell(event: Event) -> None:
    if isinstance(event, RoundDone):
        print(f"  {event.round:16} {event.tasks:5} tasks {event.seconds:7.2f} s", flush=True)
    if isinstance(event, StageDone):
        print(f"{event.stage}: {event.seconds:.1f} s", flush=True)


class Peak:
    """Largest memory of this process above what it held at the start, sampled every 20 ms."""

    def __enter__(self) -> Peak:
        self.resident = self.anonymous = 0
        self._stop = threading.Event()
        self._process = psutil.Process()
        self._base = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            resident, anonymous = self._now()
            self.resident = max(self.resident, resident - self._base[0])
            self.anonymous = max(self.anonymous, anonymous - self._base[1])

    def _now(self) -> tuple[int, int]:
        info = self._process.memory_info()
        return info.rss, info.rss - info.shared


if __name__ == "__main__":
    main()
