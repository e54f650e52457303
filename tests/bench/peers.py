"""The k-NN graph of real embeddings: simdist and its peers, in turn (A B A B), medians.

    python -m tests.bench.peers [--rounds 3] [-k 15]

simdist is timed twice: the graph alone from a stored dataset (partition to committed Parquet), its
own recall check included and given apart, and `knn_graph` on the array, import included. Recall is
measured by faiss on 2,000 other rows. Peers run on the array in memory with the same two threads.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import simdist as sd
from simdist.runner.events import Event, RoundDone
from tests.bench.data import EMBEDDINGS, embeddings, exact_ids, recall_of


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-k", type=int, default=15)
    parser.add_argument("--recall", type=float, default=0.95)
    arguments, _ = parser.parse_known_args()
    x, k = embeddings(), arguments.k
    rows = np.random.default_rng(11).choice(len(x), 2000, replace=False)
    truth = exact_ids(x, rows, k)
    contenders = _contenders(x, k, arguments.recall)
    print(f"{EMBEDDINGS.name}: {x.shape[0]} x {x.shape[1]}, k={k}, {arguments.rounds} rounds\n")
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
    recalls = {}
    for contender in contenders.values():
        contender()  # compile, or load what is compiled
    for _ in range(arguments.rounds):
        for name, contender in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            indices, check = contender()
            runs[name].append((time.perf_counter() - wall, time.process_time() - cpu, check))
            recalls[name] = recall_of(indices, rows, truth)
    print("| | wall s | CPU s | of which recall check s | recall |\n|---|---|---|---|---|")
    for name, times in runs.items():
        wall, cpu, check = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {check:.2f} | {recalls[name]:.3f} |")


def _contenders(
    x: np.ndarray, k: int, recall: float
) -> dict[str, Callable[[], tuple[np.ndarray, float]]]:
    import faiss
    import pynndescent

    store = sd.open_store(tempfile.mkdtemp(prefix="simdist-bench-"))
    vectors = sd.import_vectors(str(EMBEDDINGS), vector="embedding", store=store)

    def stored() -> tuple[np.ndarray, float]:
        timer = CheckTimer()
        with tempfile.TemporaryDirectory() as folder:
            graph = sd.knn_graph(
                vectors, k, recall=recall, store=folder, engine="local", listeners=[timer]
            )
            return graph.open().indices, timer.seconds

    def array() -> tuple[np.ndarray, float]:
        timer = CheckTimer()
        return sd.knn_graph(x, k, recall=recall, listeners=[timer]).indices, timer.seconds

    def nndescent(**options: Any) -> Callable[[], tuple[np.ndarray, float]]:
        def run() -> tuple[np.ndarray, float]:
            index = pynndescent.NNDescent(x, metric="dot", **options)
            return index.neighbor_graph[0][:, 1:], 0.0

        return run

    def hnsw() -> tuple[np.ndarray, float]:
        faiss.omp_set_num_threads(2)
        index = faiss.IndexHNSWFlat(x.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = 32
        index.add(x)
        return index.search(x, k + 1)[1][:, 1:], 0.0

    return {
        "simdist, stored dataset to committed graph": stored,
        "simdist, array to array": array,
        "pynndescent, 16 neighbours": nndescent(n_neighbors=k + 1, n_trees=4, n_jobs=2),
        "pynndescent, 30 neighbours": nndescent(n_neighbors=30, n_jobs=2),
        "faiss HNSW16": hnsw,
    }


class CheckTimer:
    """Adds up the seconds of the rounds that measure recall."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundDone) and event.round.startswith(("truth", "check")):
            self.seconds += event.seconds


if __name__ == "__main__":
    main()
