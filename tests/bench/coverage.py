"""Does the reported interval of recall keep its word? Graphs of many seeds, against the truth.

    python -m tests.bench.coverage [--seeds 20] [--targets 0.90,0.95,0.99] [--rows 20000] [--out F]

For each set of real rows the exact graph is made once. Then the approximate one is built for every
seed and target, and its true recall, over all rows and by id, is held against what it reported:
whether the interval covers it, whether its lower end lies below it (what `recall=` promises), how
far the estimate is off on average. With --out, every run is appended to a file of JSON lines as it
ends; runs that the file already has are not made again, so remove it when the code has changed.

A few dozen runs cannot tell 93 % from 97 %: tests/stages/graph/test_promise.py tells the builder's
rule to hundreds of samples of graphs whose every row is known.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import simdist as sd
from simdist.recall import hits
from tests.bench.data import EMBEDDINGS, embeddings

K = 15
MNIST = EMBEDDINGS.with_name("mnist-10k.npz")


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--targets", default="0.90,0.95,0.99")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--data", default="packages,mnist,shipped")
    parser.add_argument("--out", type=Path)
    arguments, _ = parser.parse_known_args()
    targets = [float(target) for target in arguments.targets.split(",")]
    runs = _standing(arguments.out)
    for name in arguments.data.split(","):
        if (found := _data(name, arguments.rows)) is None:
            print(f"{name}: not on this machine")
            continue
        wanted = [(target, seed) for seed in range(arguments.seeds) for target in targets]
        missing = [key for key in wanted if (name, *key) not in runs]
        for run in _runs(name, *found, missing):
            runs[name, run["target"], run["seed"]] = run
            if arguments.out is not None:
                with arguments.out.open("a") as lines:
                    lines.write(json.dumps(run) + "\n")
    _table([run for run in runs.values() if run["target"] in targets])


def _standing(out: Path | None) -> dict[tuple[str, float, int], dict[str, Any]]:
    """Runs that an earlier, interrupted call left in the file."""
    if out is None or not out.exists():
        return {}
    runs = [json.loads(line) for line in out.read_text().splitlines()]
    return {(run["data"], run["target"], run["seed"]): run for run in runs}


def _data(name: str, rows: int) -> tuple[np.ndarray, str] | None:
    """Real rows and their measure; None where the file is not here."""
    if name == "packages":
        x = embeddings()
        chosen = np.random.default_rng(5).choice(len(x), min(rows, len(x)), replace=False)
        return x[np.sort(chosen)], "cosine"
    if name == "mnist":
        if not MNIST.exists():
            return None
        return np.load(MNIST)["images"].astype(np.float32), "euclidean"
    if name == "shipped":
        return embeddings(Path(sd.datasets.path("debian-packages"))), "cosine"
    raise SystemExit(f"--data {name}: expected some of packages,mnist,shipped")


def _runs(
    name: str, x: np.ndarray, measure: str, wanted: list[tuple[float, int]]
) -> Iterator[dict[str, Any]]:
    if not wanted:
        return
    with (
        tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder,
        sd.open_engine("local", workers=2) as engine,
    ):
        np.save(f"{folder}/x.npy", x)
        store = sd.open_store(f"{folder}/store")
        vectors = sd.import_vectors(f"{folder}/x.npy", store=store, engine=engine)
        options: dict[str, Any] = {"measure": measure, "engine": engine}
        truth = sd.knn_graph(vectors, K, method="exact", **options).open().indices
        for target, seed in wanted:
            with tempfile.TemporaryDirectory(prefix="simdist-bench-") as place:
                wall, cpu = time.perf_counter(), time.process_time()
                graph = sd.knn_graph(vectors, K, recall=target, seed=seed, store=place, **options)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                true = float(hits(graph.open().indices, truth).mean())
            rounds = graph.metrics["rounds"]
            yield {
                "data": name,
                "target": target,
                "seed": seed,
                "truth": true,
                **{key: graph.metrics["recall"].get(key) for key in ("estimate", "low", "high")},
                "sampled": graph.metrics["recall"]["rows"],
                "joins": sum(step.startswith("join-") for step in rounds),
                "looks": sum(step.startswith("check-") for step in rounds),
                "all_pairs": "pairs" in rounds,
                "wall": round(wall, 2),
                "cpu": round(cpu, 2),
            }


def _table(runs: list[dict[str, Any]]) -> None:
    print(
        "| rows | target | runs | covered | low <= truth | low >= target | truth"
        " | estimate - truth | width | sampled | looks | joins | all pairs | CPU s |\n|"
        + "---|"
        * 14
    )
    keys = sorted({(run["data"], run["target"]) for run in runs})
    for data, target in keys:
        _line(f"{data} | {target}", [r for r in runs if (r["data"], r["target"]) == (data, target)])
    for target in sorted({target for _, target in keys}):
        _line(f"all | {target}", [run for run in runs if run["target"] == target])
    _line("all | all", runs)


def _line(name: str, runs: list[dict[str, Any]]) -> None:
    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    covered = sum(run["low"] <= run["truth"] <= run["high"] for run in runs)
    kept = sum(run["low"] <= run["truth"] for run in runs)
    reached = sum(run["low"] >= run["target"] for run in runs)
    bias = mean([run["estimate"] - run["truth"] for run in runs])
    print(
        f"| {name} | {len(runs)} | {covered} | {kept} | {reached}"
        f" | {mean([run['truth'] for run in runs]):.4f} | {bias:+.5f}"
        f" | {mean([run['high'] - run['low'] for run in runs]):.4f}"
        f" | {mean([run['sampled'] for run in runs]):.0f}"
        f" | {mean([run['looks'] for run in runs]):.1f}"
        f" | {mean([run['joins'] for run in runs]):.1f} | {sum(run['all_pairs'] for run in runs)}"
        f" | {mean([run['cpu'] for run in runs]):.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
