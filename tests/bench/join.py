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
from pathlib import Path

import numpy as np

import simdist as sd
from tests.bench.data import EMBEDDINGS, embeddings


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
            print(_compared(x, threshold), flush=True)


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


def _compared(x: np.ndarray, threshold: float) -> str:
    """Pairs of the join that the matrix has not, and the other way round; pairs whose float64 value
    is within float32's rounding of the threshold may be either."""
    pairs = sd.similarity_join(x, threshold)
    ours = set(zip(pairs.rows.tolist(), pairs.cols.tolist(), strict=True))
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    surely, perhaps = set(), set()
    for low in range(0, len(x), 2000):
        values = unit[low : low + 2000] @ unit.T
        rows, columns = np.nonzero(values >= threshold - 1e-6)
        later = low + rows < columns
        rows, columns = rows[later], columns[later]
        sure = values[rows, columns] >= threshold + 1e-6
        listed = list(zip((low + rows).tolist(), columns.tolist(), strict=True))
        perhaps.update(listed)
        surely.update(pair for pair, certain in zip(listed, sure, strict=True) if certain)
    return (
        f"dense: {len(surely):,} pairs; missing in the join {len(surely - ours)},"
        f" in the join alone {len(ours - perhaps)}"
    )


if __name__ == "__main__":
    main()
