"""One job on every engine: the same bytes, and what each engine costs.

    python -m tests.bench.engines [--rounds 2] [--workers 2]

Engines take turns, one alive at a time: started, warmed by one whole job, then timed on another
(into a fresh store). The seconds of the start are given apart.
CPU seconds are those of this process and of all its workers.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time

import psutil

import simdist as sd
from tests.bench.data import EMBEDDINGS


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    arguments, _ = parser.parse_known_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    runs: dict[str, list[tuple[float, float, float]]] = {}
    digests: dict[str, set[str]] = {}
    for _ in range(arguments.rounds):
        for kind in ("local", "dask", "ray"):
            start = time.perf_counter()
            with sd.open_engine(kind, workers=arguments.workers, memory="2GiB") as engine:
                start = time.perf_counter() - start
                _job(engine)  # imports and compiled kernels, loaded once per worker
                wall, cpu = time.perf_counter(), _cpu_seconds()
                digests.setdefault(kind, set()).add(_job(engine))
                wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
            runs.setdefault(kind, []).append((start, wall, cpu))
    print(f"{EMBEDDINGS.name}, {arguments.workers} workers, {arguments.rounds} rounds\n")
    print("| engine | start s | wall s | CPU s | manifest sha256 |\n|---|---|---|---|---|")
    for kind, times in runs.items():
        start, wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        shas = ", ".join(sorted(digest[:12] for digest in digests[kind]))
        print(f"| {kind} | {start:.1f} | {wall:.2f} | {cpu:.2f} | {shas} |")


def _job(engine: sd.Engine) -> str:
    """Import, partition and graph into a fresh store; sha256 of the graph's manifest."""
    with tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder:
        store = sd.open_store(folder)
        vectors = sd.import_vectors(
            str(EMBEDDINGS), id="package", vector="embedding", store=store, engine=engine
        )
        graph = sd.knn_graph(vectors, 15, recall=0.95, engine=engine)
        return hashlib.sha256(graph.manifest.to_bytes()).hexdigest()


def _cpu_seconds() -> float:
    """CPU seconds so far of this process and everything it started that still lives."""
    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.Error:  # it has just ended
            continue
    return total


if __name__ == "__main__":
    main()
