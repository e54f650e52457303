"""All pairs above a cosine: simdist's join, faiss' range search, and the dense answer.

    python -m tests.bench.join [--data X.parquet] [--rows N] [--thresholds 0.8,0.9,0.95]
                               [--rounds 2] [--no-peer] [--dense]

simdist gets the array and counts everything: import into a store, sample, join, Parquet. faiss'
`IndexFlatIP.range_search` finds each pair twice and each row itself. --dense compares the pairs
with those of the whole matrix in float64, a slab of rows at a time. CPU seconds are the ones to
compare on a shared machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import simdist as sd
from tests.bench.data import EMBEDDINGS, embeddings

MARGIN = 1e-6  # of a cosine: what float32 may round away


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=EMBEDDINGS)
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--thresholds", default="0.8,0.9,0.95")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--dense", action="store_true")
    arguments, _ = parser.parse_known_args()
    x = embeddings(arguments.data)[: arguments.rows]
    print(f"n={x.shape[0]:,} d={x.shape[1]}, cosine\n")
    sd.similarity_join(x[:3000], 0.9)  # imports, compiled kernels
    print("| cosine >= | | pairs | wall s | CPU s |\n|---|---|---|---|---|")
    for threshold in (float(word) for word in arguments.thresholds.split(",")):
        runs: dict[str, list[tuple[int, float, float]]] = {}
        for _ in range(arguments.rounds):
            runs.setdefault("simdist", []).append(_timed(_ours, x, threshold))
            if not arguments.no_peer:
                runs.setdefault("faiss range_search", []).append(_timed(_faiss, x, threshold))
        for name, found in runs.items():
            pairs, wall, cpu = (statistics.median(column) for column in zip(*found, strict=True))
            print(f"| {threshold:g} | {name} | {pairs:,.0f} | {wall:.1f} | {cpu:.1f} |", flush=True)
    if arguments.dense:
        for line in _compared(x, [float(word) for word in arguments.thresholds.split(",")]):
            print(line, flush=True)


def _timed(join: object, x: np.ndarray, threshold: float) -> tuple[int, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    pairs = join(x, threshold)  # type: ignore[operator]
    return pairs, time.perf_counter() - wall, time.process_time() - cpu


def _ours(x: np.ndarray, threshold: float) -> int:
    return len(sd.similarity_join(x, threshold))


def _faiss(x: np.ndarray, threshold: float) -> int:
    import faiss

    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    limits, _, _ = index.range_search(x, threshold)
    return int((limits[-1] - len(x)) // 2)


def _compared(x: np.ndarray, thresholds: list[float]) -> Iterator[str]:
    """Pairs of each join that the matrix has not, and the other way round; pairs whose float64
    value is within float32's rounding of the threshold may be either."""
    codes, values = _dense(x, min(thresholds) - MARGIN)
    for threshold in thresholds:
        pairs = sd.similarity_join(x, threshold)
        ours = pairs.rows.astype(np.int64) * len(x) + pairs.cols
        surely = codes[values >= threshold + MARGIN]
        perhaps = codes[values >= threshold - MARGIN]
        yield (
            f"dense, cosine >= {threshold:g}: {len(surely):,} pairs, and"
            f" {len(perhaps) - len(surely)} within {MARGIN:g} of the threshold; the join has"
            f" {len(ours):,}, of the dense ones {np.setdiff1d(surely, ours).size} are missing,"
            f" {np.setdiff1d(ours, perhaps).size} are in the join alone"
        )


def _dense(x: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs i < j as i n + j, and their cosines in float64, of at least `least`."""
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    codes, values = [], []
    for low in range(0, len(x), 2000):
        slab = unit[low : low + 2000] @ unit[low:].T
        rows, columns = np.nonzero(slab >= least)
        later = rows < columns
        rows, columns = rows[later], columns[later]
        codes.append((low + rows) * len(x) + low + columns)
        values.append(slab[rows, columns])
    return np.concatenate(codes), np.concatenate(values)


if __name__ == "__main__":
    main()
