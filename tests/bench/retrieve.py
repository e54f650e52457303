"""A batch of queries against a corpus: simdist, faiss IVF and faiss HNSW at equal recall, in turn.

    python -m tests.bench.retrieve [--data packages,easy,hard] [--rows N] [--queries 10000] [-k 10]
                                   [--recall 0.95] [--threads 2] [--repeats 5] [--where]

Every contender has its index built beforehand (told in CPU seconds) and its dial set to the
smallest value whose recall, over all queries against exact lists, is the one asked for: probes of
simdist and IVF, efSearch of HNSW. Then they search in turn, A B A B, with the same queries and
threads. The corpus is what is left when the queries are drawn from the rows. CPU seconds are the
ones to compare on a machine that is shared. `measured` is simdist choosing its probes itself, the
recall of its sample included. --where adds masks that let 50 %, 1 % and 0.01 % of the corpus pass.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a GEMM per task, tasks side by side

import faiss
import numpy as np

import simdist as sd
from simdist.engine import Engine
from simdist.models.array_index import ArrayIndex
from simdist.models.hits import Hits
from tests.bench.datasets import MAKERS

PROBES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 384, 512)
EFFORTS = (10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256, 512)
SELECTIVITIES = (0.5, 0.01, 0.0001)


@dataclass(frozen=True, slots=True)
class Contender:
    """A search with a dial. search: dial -> ids [m, k]. built: CPU seconds of its index."""

    name: str
    dials: Sequence[int]
    search: Callable[[int], np.ndarray]
    built: float


def main() -> None:
    arguments = _arguments()
    faiss.omp_set_num_threads(arguments.threads)
    with sd.open_engine("local", workers=arguments.threads, memory="8GiB") as engine:
        for name in arguments.data.split(","):
            made = MAKERS[name](arguments.rows)
            rows = made.rows
            if made.measure == "cosine":
                rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            drawn = np.random.default_rng(0).permutation(len(rows))
            queries = np.ascontiguousarray(rows[drawn[: arguments.queries]])
            corpus = np.ascontiguousarray(rows[np.sort(drawn[arguments.queries :])])
            _compare(name, queries, corpus, made.measure, arguments, engine)


def _compare(
    name: str,
    queries: np.ndarray,
    corpus: np.ndarray,
    measure: str,
    arguments: argparse.Namespace,
    engine: Engine,
) -> None:
    k, repeats = arguments.k, arguments.repeats
    print(f"\n{name}: {len(queries):,} queries, {corpus.shape}, {measure}, k={k}", flush=True)
    sd.retrieve(queries[:2000], corpus[:4000], k, measure=measure, engine=engine)  # compile
    sd.retrieve(queries[:2000], corpus[:4000], k, measure=measure, engine=engine, probes=4)
    exact = sd.retrieve(queries, corpus, k, measure=measure, method="exact", engine=engine)
    truth = exact.indices.reshape(-1, k)
    started = time.process_time()
    index = sd.index(corpus, measure=measure, engine=engine)
    built = time.process_time() - started

    def asked(probes: int) -> Hits:
        return sd.retrieve(
            queries, corpus, k, index=index, probes=probes, recall=None, engine=engine
        )

    def measured() -> Hits:
        return sd.retrieve(queries, corpus, k, index=index, recall=arguments.recall, engine=engine)

    contenders = [Contender("simdist", PROBES, lambda p: asked(p).indices.reshape(-1, k), built)]
    contenders += _faiss(queries, corpus, measure, k)
    searches: dict[str, Callable[[], object]] = {}
    dials: dict[str, tuple[int, float, float]] = {}
    for contender in contenders:
        dial, recall = _dialled(contender, truth, arguments.recall)
        dials[contender.name] = dial, recall, contender.built
        searches[contender.name] = _fixed(contender.search, dial)
    own = measured()
    found = _recall(own.indices.reshape(-1, k), truth)
    dials["simdist, measured"] = own.probes or 0, found, built
    searches["simdist, measured"] = measured
    _table(searches, dials, len(queries), repeats)
    if arguments.where:
        _filtered(queries, corpus, index, arguments, engine)


def _faiss(queries: np.ndarray, corpus: np.ndarray, measure: str, k: int) -> list[Contender]:
    """IVF with about 2 and 8 sqrt(n) lists, and HNSW with 32 links, of whole float32 rows."""
    metric = faiss.METRIC_L2 if measure == "euclidean" else faiss.METRIC_INNER_PRODUCT
    found = [_ivf(queries, corpus, metric, k, per_root) for per_root in (2, 8)]
    started = time.process_time()
    graph = faiss.IndexHNSWFlat(corpus.shape[1], 32, metric)
    graph.hnsw.efConstruction = 100
    graph.add(corpus)

    def walked(effort: int) -> np.ndarray:
        graph.hnsw.efSearch = effort
        return graph.search(queries, k)[1]

    return [*found, Contender("faiss HNSW32", EFFORTS, walked, time.process_time() - started)]


def _ivf(queries: np.ndarray, corpus: np.ndarray, metric: int, k: int, per_root: int) -> Contender:
    lists = 1 << round(np.log2(per_root * np.sqrt(len(corpus))))
    started = time.process_time()
    index = faiss.index_factory(corpus.shape[1], f"IVF{lists},Flat", metric)
    index.cp.min_points_per_centroid = 1  # no warning: all rows there are are given
    index.train(corpus)
    index.add(corpus)

    def probed(probes: int) -> np.ndarray:
        index.nprobe = probes
        return index.search(queries, k)[1]

    return Contender(f"faiss IVF{lists}", PROBES, probed, time.process_time() - started)


def _dialled(contender: Contender, truth: np.ndarray, wanted: float) -> tuple[int, float]:
    """The smallest dial whose recall is the one wanted, and its recall; else the largest."""
    recall = 0.0
    for dial in contender.dials:
        recall = _recall(contender.search(dial), truth)
        if recall >= wanted:
            return dial, recall
    return contender.dials[-1], recall


def _fixed(search: Callable[[int], np.ndarray], dial: int) -> Callable[[], object]:
    return lambda: search(dial)


def _recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found[:, :, None] == truth[:, None, :]).any(axis=1).mean())


def _table(
    searches: dict[str, Callable[[], object]],
    dials: dict[str, tuple[int, float, float]],
    queries: int,
    repeats: int,
) -> None:
    walls: dict[str, list[float]] = {name: [] for name in searches}
    cpus: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(repeats):
        for name, search in searches.items():
            wall, cpu = time.perf_counter(), time.process_time()
            search()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    base = {name: statistics.median(times) for name, times in walls.items()}
    spent = {name: statistics.median(times) for name, times in cpus.items()}
    print("| | dial | recall | wall s | queries / s | CPU s | wall, of simdist | CPU, of simdist |"
          " index, CPU s |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for name in searches:
        dial, recall, built = dials[name]
        print(
            f"| {name} | {dial} | {recall:.4f} | {base[name]:.3f} | {queries / base[name]:,.0f} |"
            f" {spent[name]:.2f} | {base[name] / base['simdist']:.2f} |"
            f" {spent[name] / spent['simdist']:.2f} | {built:.1f} |",
            flush=True,
        )


def _filtered(
    queries: np.ndarray,
    corpus: np.ndarray,
    index: ArrayIndex,
    arguments: argparse.Namespace,
    engine: Engine,
) -> None:
    """Searches under masks, against exact lists of what passes."""
    measure, k = index.measure, arguments.k
    share = np.random.default_rng(1).random(len(corpus))
    print("\n| passing | rows | probes | recall | wall s | CPU s | hits of a query |")
    print("|---|---|---|---|---|---|---|")
    for selectivity in SELECTIVITIES:
        mask = share < selectivity
        truth = sd.retrieve(
            queries, corpus, k, measure=measure, where=mask, method="exact", engine=engine
        )
        wall, cpu = time.perf_counter(), time.process_time()
        hits = sd.retrieve(
            queries, corpus, k, index=index, where=mask, recall=arguments.recall, engine=engine
        )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert mask[hits.indices].all()
        assert np.array_equal(hits.lengths, truth.lengths)
        width = max(int(hits.lengths.max()), 1)
        recall = _recall(hits.indices.reshape(-1, width), truth.indices.reshape(-1, width))
        print(
            f"| {selectivity:.2%} | {mask.sum():,} | {hits.probes or 'every row'} | {recall:.4f} |"
            f" {wall:.3f} | {cpu:.2f} | {hits.lengths.min()} |",
            flush=True,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="packages", help=f"of {', '.join(MAKERS)}")
    parser.add_argument("--rows", type=int, help="rows of the data set, queries among them")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--where", action="store_true", help="and under masks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
