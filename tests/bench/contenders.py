"""Who takes part, and with which settings: a function per library, arrays in, ids out.

    Contender("pynndescent", {"n_neighbors": 20, "n_trees": 4})
    build(contender, x, measure, k, threads)  ->  Built: ids [n, >= k], seconds of its recall check

A library is given what is quickest for it: unit rows go to inner product, threads are set the way
it wants them, and only the graph is asked for (no search index is prepared). Whether a row counts
itself among its neighbours is left to the library; the judge drops it, untimed.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import simdist as sd
from simdist.runner.events import Event, RoundDone, RoundStarted

__all__ = ["Built", "Contender", "build", "builds", "chosen", "missing"]


@dataclass(frozen=True, slots=True)
class Contender:
    """A library and its settings. family: a key of FAMILIES."""

    family: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As tables and `--only` have it: `pynndescent n_neighbors=20 n_trees=4`."""
        words = [f"{name}={_short(value)}" for name, value in self.options.items()]
        return " ".join([self.family, *words])


@dataclass(frozen=True, slots=True)
class Built:
    """ids [n, >= k], nearest first, possibly each row itself; seconds and CPU seconds in which
    recall was measured (within the whole); what the library says of its own recall; its rounds."""

    ids: np.ndarray
    check: float = 0.0
    check_cpu: float = 0.0
    reported: dict[str, Any] | None = None
    rounds: tuple[str, ...] = ()


def build(contender: Contender, x: np.ndarray, measure: str, k: int, threads: int) -> Built:
    """The graph."""
    return FAMILIES[contender.family].build(x, measure, k, threads, **contender.options)


# -- simdist --


def _simdist(x: np.ndarray, measure: str, k: int, threads: int, **options: Any) -> Built:
    timer = CheckTimer()
    with sd.open_engine("local", workers=threads, memory="4GiB") as engine:
        graph = sd.knn_graph(
            x, k, measure=measure, engine=engine, listeners=[timer], **_arguments(options)
        )
    recall = None if graph.recall is None else graph.recall.to_json()
    return Built(graph.indices, timer.seconds, timer.cpu_seconds, recall, tuple(timer.rounds))


class Stored:
    """simdist on a dataset imported beforehand, untimed: from its partition to a committed graph.

    Called as a contender is; `x` must be the rows that were imported last.
    """

    def __init__(self) -> None:
        self._rows: np.ndarray | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._vectors: Any = None

    def ready(self, x: np.ndarray) -> None:
        """Import the rows."""
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = tempfile.TemporaryDirectory(prefix="simdist-bench-")
        path = f"{self._folder.name}/rows.npy"
        np.save(path, x)
        store = sd.open_store(f"{self._folder.name}/store")
        self._vectors = sd.import_vectors(path, store=store, engine="local")
        self._rows = x

    def __call__(self, x: np.ndarray, measure: str, k: int, threads: int, **options: Any) -> Built:
        if x is not self._rows:
            self.ready(x)
        timer = CheckTimer()
        with (
            tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder,
            sd.open_engine("local", workers=threads, memory="4GiB") as engine,
        ):
            graph = sd.knn_graph(
                self._vectors,
                k,
                measure=measure,
                engine=engine,
                store=folder,
                listeners=[timer],
                **_arguments(options),
            )
            ids = graph.open().indices
        rounds = tuple(timer.rounds)
        return Built(ids, timer.seconds, timer.cpu_seconds, graph.metrics.get("recall"), rounds)


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Options of `sd.knn_graph`: those it does not know by name are knobs of KnnParams."""
    own = {name: options[name] for name in ("recall", "method", "seed") if name in options}
    knobs = {name: value for name, value in options.items() if name not in own}
    if not knobs:
        return own
    return {"recall": None} | own | {"params": sd.KnnParams(**knobs)}


class CheckTimer:
    """Listens to a run: the seconds and CPU seconds of rounds that measure recall, and all
    rounds by name."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self.rounds: list[str] = []
        self._began = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundStarted):
            self._began = time.process_time()
        if isinstance(event, RoundDone):
            self.rounds.append(event.round)
            if event.round.startswith(("truth", "check")):
                self.seconds += event.seconds
                self.cpu_seconds += time.process_time() - self._began


# -- peers --


def _pynndescent(x: np.ndarray, measure: str, k: int, threads: int, **options: Any) -> Built:
    import pynndescent

    metric = "dot" if measure == "cosine" else measure  # unit rows: the same kernel, less to do
    index = pynndescent.NNDescent(x, metric=metric, n_jobs=threads, **options)
    return Built(index.neighbor_graph[0])


def _faiss_ivf(
    x: np.ndarray, measure: str, k: int, threads: int, *, nlist: int, nprobe: int
) -> Built:
    import faiss

    faiss.omp_set_num_threads(threads)
    d = x.shape[1]
    inner = measure == "cosine"
    metric = faiss.METRIC_INNER_PRODUCT if inner else faiss.METRIC_L2
    quantizer = faiss.IndexFlatIP(d) if inner else faiss.IndexFlatL2(d)
    lists = min(nlist, len(x) // 40)
    index = faiss.IndexIVFFlat(quantizer, d, lists, metric)
    index.cp.niter = 10  # of 25; more buys no recall here
    index.train(x)  # samples 256 rows a list itself
    index.add(x)
    index.nprobe = nprobe
    return Built(index.search(x, k + 1)[1])


def _faiss_hnsw(
    x: np.ndarray, measure: str, k: int, threads: int, *, M: int, construct: int, search: int
) -> Built:
    import faiss

    faiss.omp_set_num_threads(threads)
    metric = faiss.METRIC_INNER_PRODUCT if measure == "cosine" else faiss.METRIC_L2
    index = faiss.IndexHNSWFlat(x.shape[1], M, metric)
    index.hnsw.efConstruction = construct
    index.hnsw.efSearch = search
    index.add(x)
    return Built(index.search(x, k + 1)[1])


def _faiss_nndescent(
    x: np.ndarray, measure: str, k: int, threads: int, *, K: int, L: int, **settings: int
) -> Built:
    import faiss

    faiss.omp_set_num_threads(threads)
    metric = faiss.METRIC_INNER_PRODUCT if measure == "cosine" else faiss.METRIC_L2
    index = faiss.IndexNNDescentFlat(x.shape[1], K, metric)
    index.nndescent.L = L
    for name, value in settings.items():  # S, R, iter
        setattr(index.nndescent, name, value)
    index.add(x)
    graph = faiss.vector_to_array(index.nndescent.final_graph).reshape(len(x), -1)
    return Built(graph)


def _hnswlib(
    x: np.ndarray, measure: str, k: int, threads: int, *, M: int, construct: int, search: int
) -> Built:
    import hnswlib

    index = hnswlib.Index(space="ip" if measure == "cosine" else "l2", dim=x.shape[1])
    index.init_index(max_elements=len(x), M=M, ef_construction=construct)
    index.set_num_threads(threads)
    index.add_items(x)
    index.set_ef(search)
    return Built(index.knn_query(x, k + 1)[0].astype(np.int64))


def _usearch(
    x: np.ndarray,
    measure: str,
    k: int,
    threads: int,
    *,
    dtype: str,
    M: int,
    construct: int,
    search: int,
) -> Built:
    from usearch.index import Index

    index = Index(
        ndim=x.shape[1],
        metric="cos" if measure == "cosine" else "l2sq",
        dtype=dtype,
        connectivity=M,
        expansion_add=construct,
        expansion_search=search,
    )
    index.add(np.arange(len(x)), x, threads=threads)
    return Built(index.search(x, k + 1, threads=threads).keys.astype(np.int64))


@dataclass(frozen=True, slots=True)
class Family:
    """A library's way to a graph, and the packages that it needs."""

    build: Callable[..., Built]
    needs: str


FAMILIES = {
    "simdist": Family(_simdist, "simdist"),
    "simdist-stored": Family(Stored(), "simdist"),
    "simdist-pinned": Family(_simdist, "simdist"),  # knobs of KnnParams, no recall asked for
    "pynndescent": Family(_pynndescent, "pynndescent"),
    "faiss-ivf": Family(_faiss_ivf, "faiss-cpu"),
    "faiss-hnsw": Family(_faiss_hnsw, "faiss-cpu"),
    "faiss-nndescent": Family(_faiss_nndescent, "faiss-cpu"),
    "hnswlib": Family(_hnswlib, "hnswlib"),
    "usearch": Family(_usearch, "usearch"),
}


def missing(family: str) -> bool:
    """Whether its package is not installed."""
    try:
        version(FAMILIES[family].needs)
    except PackageNotFoundError:
        return True
    return False


def builds(family: str) -> str:
    """Which build of the library this is: its version."""
    return f"{FAMILIES[family].needs} {version(FAMILIES[family].needs)}"


# -- settings --

DIAL = (0.80, 0.85, 0.90, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
LARGE = {"easy", "hard", "leaderboard"}  # a run takes up to minutes: fewer settings unless in full


def chosen(data: str, *, full: bool) -> list[Contender]:
    """Who is measured on a set. full: the whole frontier, or the settings around 0.95 and 0.99."""
    dial = DIAL if full else (0.85, 0.90, 0.95, 0.97, 0.99)
    found = [Contender("simdist", {"recall": recall}) for recall in dial]
    found += [Contender("simdist-stored", {"recall": recall}) for recall in (0.95, 0.99)]
    found += [Contender("pynndescent", options) for options in _descents(data, full)]
    found += _others(data, full)
    return [one for one in found if not missing(one.family)]


def _descents(data: str, full: bool) -> list[dict[str, int]]:
    """pynndescent's settings from quick to thorough, found by trial on the packages: leaves larger
    than its default (five times the neighbours) and four trees give most for the least; candidates
    held below the neighbours save little and lose more. 16 is the fewest for k = 15."""
    quick = [
        {"n_neighbors": 16, "n_trees": 4, "n_iters": 3},
        {"n_neighbors": 16, "n_trees": 4},
        {"n_neighbors": 20, "n_trees": 4, "leaf_size": 200},
        {"n_neighbors": 30, "n_trees": 4},
        {"n_neighbors": 40, "n_trees": 4},
    ]
    thorough = [
        {"n_neighbors": 16, "n_trees": 4, "n_iters": 4},
        {"n_neighbors": 16, "n_trees": 2},
        {"n_neighbors": 16},
        {"n_neighbors": 16, "n_trees": 8, "leaf_size": 200},
        {"n_neighbors": 20, "n_trees": 4},
        {"n_neighbors": 25, "n_trees": 4},
        {"n_neighbors": 30, "n_trees": 4, "max_candidates": 20},
        {"n_neighbors": 30, "n_trees": 6, "leaf_size": 256, "max_candidates": 24},
    ]
    wide = [{"n_neighbors": 60, "n_trees": 4}]  # where 40 do not reach 0.99
    return quick + (thorough if full else []) + (wide if full or data == "hard" else [])


def _others(data: str, full: bool) -> list[Contender]:
    some = data in LARGE and not full
    lists = 1024 if data in LARGE else 256
    probes = (16, 64) if some else (16, 32, 64)
    pools = (40,) if some else (40, 70)
    widths = ((40, 32), (100, 128)) if some else ((40, 32), (60, 64), (100, 128))
    found = [Contender("faiss-ivf", {"nlist": lists, "nprobe": nprobe}) for nprobe in probes]
    found += [Contender("faiss-nndescent", {"K": 20, "L": pool}) for pool in pools]
    for construct, search in widths:
        graph = {"M": 16, "construct": construct, "search": search}
        found.append(Contender("faiss-hnsw", graph))
        found.append(Contender("hnswlib", graph))
        found.append(Contender("usearch", {"dtype": "bf16", **graph}))
    return found


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
