"""Exact k-NN of one set against itself: simdist's symmetric fold and faiss, A B A B.

    python -m tests.bench.exact [--data X.parquet] [--rows N] [-k 15] [--threads 2] [--repeats 2]

Both get the same unit vectors in float32 and the same number of threads, one after the other in one
process. faiss computes every pair twice; simdist once, for both sides, then recomputes the lists
with the fixed kernel and proves them exact row by row. CPU seconds are the ones to compare on a
machine that is shared. The last lines say how the two answers agree.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a GEMM per task, tasks side by side

import faiss
import numpy as np
import pyarrow.parquet as pq

from simdist.measures import Cosine
from simdist.measures.base import Prepared
from simdist.tiles import Tile, TopK, TopKState, fold, fold_pair
from simdist.tiles.exact import Nearest, certify, fold_exact, reach, rerank
from tests.bench.data import EMBEDDINGS

MEASURE = Cosine()


def main() -> None:
    arguments = _arguments()
    x = MEASURE.prepare(_load(arguments.data, arguments.column, arguments.rows))
    n, d = x.vectors.shape
    k, threads = arguments.k, arguments.threads
    faiss.omp_set_num_threads(threads)
    tile = Tile(*arguments.tile)
    _fold(x.take(slice(0, 300)), k=k, block=100, tile=tile, threads=1)  # compile, or load compiled

    contenders: dict[str, Callable[[], Any]] = {
        "simdist": lambda: _simdist(x, k=k, block=arguments.block, tile=tile, threads=threads),
        "faiss": lambda: faiss.knn(x.vectors, x.vectors, k + 1, metric=faiss.METRIC_INNER_PRODUCT),
    }
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    results = {}
    print(f"n={n} d={d} k={k} threads={threads} block={arguments.block} tile={tile}")
    for _ in range(arguments.repeats):
        for name, contender in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            results[name] = contender()
            runs[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            print(f"  {name:8} wall {runs[name][-1][0]:7.2f} s   cpu {runs[name][-1][1]:7.2f} s")
    print("\n| | wall s | CPU s | useful GFLOP/s (2 n n d / wall) |\n|---|---|---|---|")
    medians = {}
    for name, pairs in runs.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        medians[name] = wall, cpu
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {2 * n * n * d / wall / 1e9:.0f} |")
    ratio = [b / a for a, b in zip(medians["simdist"], medians["faiss"], strict=True)]
    print(f"\nfaiss / simdist: {ratio[0]:.2f} in wall, {ratio[1]:.2f} in CPU seconds")
    _compare(x, results["simdist"], *results["faiss"], k=k)


def _simdist(x: Prepared, *, k: int, block: int, tile: Tile, threads: int) -> Nearest:
    started = time.perf_counter(), time.process_time()

    def said(what: str) -> None:
        nonlocal started
        now = time.perf_counter(), time.process_time()
        print(f"    {what:28} wall {now[0] - started[0]:6.2f}   cpu {now[1] - started[1]:6.2f}")
        started = now

    ids = np.arange(len(x))
    lists = _fold(x, k=k + 8, block=block, tile=tile, threads=threads)
    said("fold")

    def finish(cut: slice) -> Nearest:
        part = x.take(cut)
        values, found = rerank(MEASURE, part, x, lists.ids[cut], k, rows=ids[cut])
        sure = certify(MEASURE, part, far, weakest=lists.keys[cut, -1], worst=values[:, -1])
        rest = np.flatnonzero(~sure)
        redone = fold_exact(
            MEASURE,
            part.take(rest),
            x,
            TopK(k),
            rows=ids[cut][rest],
            columns=ids,
            worst=values[rest, -1],
        )
        values[rest], found[rest] = redone.keys, redone.ids
        unsure.append(len(rest))
        return Nearest(values, found)

    far, unsure = reach(x), []
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(finish, _blocks(len(x), block)))
    said(f"finish ({sum(unsure)} rows redone)")
    return Nearest(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def _fold(x: Prepared, *, k: int, block: int, tile: Tile, threads: int) -> TopKState:
    """Block pairs as tasks, merged in plan order, as a cluster does it: first each block with
    itself, then the pairs, which start from those lists and so offer far fewer entries."""
    ids, topk = np.arange(len(x)), TopK(k)
    blocks = _blocks(len(x), block)

    def alone(block: slice) -> TopKState:
        return fold(MEASURE, x.take(block), None, topk, rows=ids[block], tile=tile)

    def together(pair: tuple[int, int]) -> tuple[TopKState, TopKState]:
        a, b = (blocks[side] for side in pair)
        start = first[pair[0]], first[pair[1]]
        return fold_pair(
            MEASURE,
            x.take(a),
            x.take(b),
            topk,
            rows_a=ids[a],
            rows_b=ids[b],
            start=start,
            tile=tile,
        )

    plan = list(combinations(range(len(blocks)), 2))
    with ThreadPoolExecutor(threads) as pool:
        first = list(pool.map(alone, blocks))
        states = list(first)
        for pair, sides in zip(plan, pool.map(together, plan), strict=True):
            for number, side in zip(pair, sides, strict=True):
                states[number] = topk.merge(states[number], side)
    return TopKState(*(np.concatenate(field) for field in zip(*states, strict=True)))


def _blocks(n: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, n)) for start in range(0, n, block)]


def _compare(x: Prepared, found: Nearest, scores: Any, faiss_ids: Any, *, k: int) -> None:
    """faiss keeps the row itself and tears ties; so compare values, not ids."""
    own = faiss_ids == np.arange(len(x))[:, None]
    own[~own.any(axis=1), -1] = True  # more than k exact duplicates: drop any one
    theirs = scores[~own].reshape(len(x), k)
    off = np.abs(theirs - found.values).max(axis=1)
    same = (np.sort(faiss_ids[~own].reshape(len(x), k)) == np.sort(found.ids)).all(axis=1)
    print(
        f"largest difference of a k-th value: {off.max():.1e}; rows with the same ids: "
        f"{same.mean():.4%} (the others differ in ties within float32 rounding)"
    )
    if off.max() > 1e-5:
        raise SystemExit("the answers disagree")


def _load(path: str, column: str, rows: int | None) -> Any:
    vectors = pq.read_table(path, columns=[column])[column].combine_chunks()
    return np.asarray(vectors.flatten()).reshape(len(vectors), -1)[:rows]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(EMBEDDINGS), help="a Parquet file")
    parser.add_argument("--column", default="embedding")
    parser.add_argument("--rows", type=int)
    parser.add_argument("-k", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--block", type=int, default=8192)
    parser.add_argument("--tile", type=int, nargs=2, default=(1024, 1024))
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_known_args()[0]


if __name__ == "__main__":
    main()
