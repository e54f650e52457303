"""The same seed gives the same graph: on any engine, with any number of workers or threads.

    python -m tests.bench.same [--rows 63666] [--recall 0.95] [--seeds 0]
        [--engines local:1,local:2,local:3,dask:1,dask:2,dask:3,ray:2]

Every run imports and builds into a fresh store. What is compared is the sha256 of the committed
manifest, which names every shard by its sha256. Dask workers have a thread each; the local engine's
workers are threads.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from pathlib import Path

import simdist as sd
from tests.bench.datasets import FOLDER, opened

ENGINES = "local:1,local:2,local:3,dask:1,dask:2,dask:3,ray:2"


def main() -> None:
    """Run and print the table; exit code 1 where two graphs of a seed differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments, _ = parser.parse_known_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    data = opened("packages", k=15, rows=arguments.rows, folder=arguments.folder)
    print(f"\n{data.n:,} x {data.d}, recall {arguments.recall} asked for\n")
    print("| engine | workers | seed | wall s | recall | manifest sha256 |\n|" + "---|" * 6)
    shas: dict[int, set[str]] = {}
    for seed in map(int, arguments.seeds.split(",")):
        for word in arguments.engines.split(","):
            kind, workers = word.split(":")
            with (
                tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder,
                sd.open_engine(kind, workers=int(workers), memory="2GiB") as engine,
            ):
                store = sd.open_store(folder)
                began = time.perf_counter()
                vectors = sd.import_vectors(str(data.path), store=store, engine=engine)
                graph = sd.knn_graph(
                    vectors, data.k, recall=arguments.recall, seed=seed, engine=engine
                )
                wall = time.perf_counter() - began
            sha = hashlib.sha256(graph.manifest.to_bytes()).hexdigest()
            shas.setdefault(seed, set()).add(sha)
            recall = graph.metrics["recall"]["estimate"]
            print(
                f"| {kind} | {workers} | {seed} | {wall:.1f} | {recall:.4f} | {sha[:12]} |",
                flush=True,
            )
    if any(len(found) > 1 for found in shas.values()):
        raise SystemExit("the same seed gave different graphs")
    print("\none graph per seed")


if __name__ == "__main__":
    main()
