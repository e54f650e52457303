"""The same bytes under any budget and worker count, and faiss on the recall they report.

    python -m tests.bench.budgets

Prints seconds, peak memory above the start (resident, and of that anonymous) and the manifest's
sha256 for each budget and worker count; then recall of the graph on 10,000 rows, as faiss finds it.
"""

from __future__ import annotations

import hashlib
import tempfile
import time

import numpy as np

import simdist as sd
from tests.bench.data import EMBEDDINGS, embeddings, exact_ids, recall_of
from tests.bench.million import Peak

K = 15


def main() -> None:
    """Run and print the table."""
    print("| memory | workers | wall s | resident MiB | anonymous MiB | manifest sha256 |")
    print("|---|---|---|---|---|---|")
    for memory in ("300MiB", "4GiB"):
        for workers in (1, 2):
            graph = _run(memory, workers)
    x = embeddings()
    rows = np.random.default_rng(99).choice(len(x), min(10_000, len(x)), replace=False)
    true = recall_of(graph.indices, rows, exact_ids(x, rows, K))
    print(f"\nreported {graph.recall}; faiss on {len(rows)} rows: {true:.4f}")


def _run(memory: str, workers: int) -> sd.KnnGraph:
    with (
        tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder,
        sd.open_engine("local", workers=workers, memory=memory) as engine,
    ):
        store = sd.open_store(folder)
        with Peak() as peak:
            wall = time.perf_counter()
            vectors = sd.import_vectors(
                str(EMBEDDINGS), id="package", vector="embedding", store=store, engine=engine
            )
            graph = sd.knn_graph(vectors, K, recall=0.95, engine=engine)
            wall = time.perf_counter() - wall
        sha = hashlib.sha256(graph.manifest.to_bytes()).hexdigest()[:12]
        print(
            f"| {memory} | {workers} | {wall:.2f} | {peak.resident >> 20} | {peak.anonymous >> 20}"
            f" | {sha} |",
            flush=True,
        )
        return graph.open()


if __name__ == "__main__":
    main()
