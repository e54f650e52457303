"""Eigenvectors of similarity graphs: simdist and SciPy's eigsh (ARPACK), in turn, A B A B.

    python -m tests.bench.spectral passes                      products with the matrix, two graphs
    python -m tests.bench.spectral single [--rounds 3]         one task against eigsh, whole calls
    python -m tests.bench.spectral sharded [--rows 62500,250000,1000000] [--plot X.svg]
                                                               shards, two workers, against eigsh
    python -m tests.bench.spectral agree [--graphs cora,MNIST] [--engines local,ray] [--dims 16]
                                                               four graphs against ARPACK
    python -m tests.bench.spectral graph --rows N --kept DIR   a graph that `sharded --kept` takes

`single` and `sharded` embed the union of 15-neighbour lists in 32 dimensions to residual 1e-3 and
count everything between the graph in memory (`single`) or in a store (`sharded`) and the committed
vectors; eigsh gets the normalised matrix ready-made. `sharded` runs on a memory budget (500 MiB for
each of two workers), prints passes, barriers, bytes and seconds a pass, and the memory it held, and
plots seconds a pass against rows. CPU seconds are the ones to compare on a shared machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import eigsh

import simdist as sd
from simdist.engine.threads import limited
from simdist.runner.events import Event, RoundDone
from tests.bench.data import EMBEDDINGS, embeddings
from tests.bench.million import Peak

SHARED = Path(__file__).parents[3] / "shared" / "data"
DIM, TOLERANCE, K = 32, 1e-3, 15


def main() -> None:
    """Run what is named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "what", nargs="?", choices=["passes", "agree", "single", "sharded", "graph"]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default="1000000")
    parser.add_argument("--memory", default="1000MiB", help="of both workers; each on a cluster")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--solver", default="chebyshev")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--engines", default="local,dask,ray")
    parser.add_argument("--dims", default="16,32,64")
    parser.add_argument("--graphs", default="cora,MNIST,facebook,packages")
    parser.add_argument("--kept", type=Path, help="where graphs stay for the next run")
    parser.add_argument("--plot", type=Path)
    arguments, _ = parser.parse_known_args()
    if arguments.what in (None, "passes"):
        _passes()
    if arguments.what in (None, "agree"):
        dims = [int(word) for word in arguments.dims.split(",")]
        _agree(dims, arguments.engines.split(","), arguments.graphs.split(","))
    if arguments.what in (None, "single"):
        _single(arguments.rounds)
    if arguments.what in (None, "sharded", "graph"):
        _all_sizes(arguments)


def _passes() -> None:
    """The top 16 of S to residual 1e-3 with blocks of 24 columns."""
    print("| graph | nodes | entries | solver | passes, two seeds |\n|---|---|---|---|---|")
    for name, load in (("MNIST-10k, 10 neighbours", _digits), ("musae-facebook", _facebook)):
        graph = load()
        for solver in ("lobpcg", "chebyshev"):
            counts = []
            for seed in (0, 1):
                with tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder:
                    z = sd.spectral_embedding(
                        graph, 16, solver=solver, guards=8, seed=seed, scratch=folder
                    )
                counts.append(z.passes)
            nodes, entries = graph.shape[0], graph.nnz
            print(f"| {name} | {nodes:,} | {entries:,} | {solver} | {counts[0]}, {counts[1]} |")


def _digits() -> sp.csr_matrix:
    with np.load(SHARED / "mnist-10k.npz") as file:
        x = file[next(name for name in file.files if file[name].ndim > 1)]
    x = x.reshape(len(x), -1).astype(np.float32)
    graph = sd.knn_graph(x, 10, measure="euclidean", method="exact")
    return sd.similarity_graph(graph, weights="binary").to_scipy()


def _facebook() -> sp.csr_matrix:
    graph = sd.import_graph(SHARED / "musae-facebook.npz", symmetrize="union")
    return graph.open().to_scipy() if isinstance(graph, sd.Dataset) else graph.to_scipy()


def _citations() -> sp.csr_matrix:
    graph = sd.import_graph(SHARED / "cora.npz", symmetrize="union")
    return graph.open().to_scipy() if isinstance(graph, sd.Dataset) else graph.to_scipy()


def _packages() -> sp.csr_matrix:
    x = embeddings(EMBEDDINGS)
    return sd.similarity_graph(sd.knn_graph(x, K, measure="cosine")).to_scipy()


def _agree(dims: list[int], engines: list[str], graphs: list[str]) -> None:
    """Eigenvalues and the spaces of eigenvectors, at residual 1e-6, against ARPACK's at 1e-10 (all
    eigenpairs at once where the graph is small: ARPACK may miss copies of equal eigenvalues)."""
    print("| graph | dim | engine, solver | eigenvalues off by | sine of angle | eigengap |")
    print("|---|---|---|---|---|---|")
    loads = {
        "cora": _citations,
        "MNIST-10k, 10 neighbours": _digits,
        "musae-facebook": _facebook,
        "packages, 15 neighbours": _packages,
    }
    with ExitStack() as open_ones:
        opened = {
            name: open_ones.enter_context(sd.open_engine(name, workers=2)) for name in engines
        }
        for name, load in loads.items():
            if not any(word in name for word in graphs):
                continue
            W = load()
            values, vectors = _reference(W, max(dims))
            for dim, engine, solver in product(dims, engines, ("direct", "chebyshev")):
                z = sd.spectral_embedding(
                    W, dim, tolerance=1e-6, solver=solver, engine=opened[engine]
                )
                off = np.abs(1 - z.eigenvalues - values[:dim]).max()
                U, X = vectors[:, :dim], z.vectors.astype(np.float64)
                angle = np.linalg.norm(X - U @ (U.T @ X), 2)
                print(
                    f"| {name} | {dim} | {engine}, {solver} | {off:.1e} | {angle:.1e} |"
                    f" {values[dim - 1] - values[dim]:.1e} |",
                    flush=True,
                )


def _reference(W: sp.csr_matrix, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """[dim + 1] largest eigenvalues of S beside the known ones, and the vectors of all but one."""
    S = _normalised(W)
    n = S.shape[0]
    pieces = sp.csgraph.connected_components(W, return_labels=False)
    alone = int(np.sum(np.asarray(W.sum(axis=1)).ravel() == 0))
    known = pieces - alone
    if n < 5000:
        values, vectors = np.linalg.eigh(S.toarray())
    else:
        values, vectors = eigsh(S, k=known + dim + 1, which="LA", tol=1e-10, ncv=3 * (known + dim))
    order = np.argsort(-values)[known : known + dim + 1]
    return values[order], vectors[:, order[:-1]]


def _single(rounds: int) -> None:
    x = embeddings(EMBEDDINGS)
    graph = sd.similarity_graph(sd.knn_graph(x, K, measure="cosine"))
    S = _normalised(graph.to_scipy())
    sd.spectral_embedding(graph, DIM)  # imports, compiled kernels
    print(f"\n{S.shape[0]:,} nodes, {S.nnz:,} entries, dim {DIM}, residual {TOLERANCE:g}\n")
    contenders: dict[str, Callable[[], Any]] = {
        "simdist": lambda: sd.spectral_embedding(graph, DIM, tolerance=TOLERANCE),
        "eigsh": lambda: eigsh(S, k=DIM + 1, which="LA", tol=TOLERANCE),
    }
    _in_turn(contenders, rounds)


def _all_sizes(arguments: argparse.Namespace) -> None:
    passes: dict[str, dict[int, float]] = {}
    for rows in (int(word) for word in arguments.rows.split(",")):
        with _stored(rows, arguments.kept) as graph:
            print(f"\n{graph.rows:,} nodes, {graph.metrics['entries']:,} entries", flush=True)
            if arguments.what == "graph":
                continue
            for label, seconds in _sharded(graph, arguments).items():
                passes.setdefault(label, {})[rows] = seconds
            if not arguments.no_peer:
                _peer(graph)
    if arguments.plot and passes:
        from tests.bench.plots import plot_growth

        plot_growth(arguments.plot, passes, seconds="seconds a pass, 48 columns")


@contextmanager
def _stored(rows: int, kept: Path | None) -> Iterator[sd.Dataset]:
    """The union of 15-neighbour lists of so many rows on a manifold of 8 dimensions, in a store."""
    with tempfile.TemporaryDirectory(prefix="simdist-bench-") as passing:
        folder = (kept or Path(passing)) / str(rows)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "rows.npy"
        np.save(path, sd.datasets.manifold(rows, 32, 8, seed=7))
        store = sd.open_store(folder / "store")
        with sd.open_engine("local", workers=2, memory="3GiB") as engine:
            vectors = sd.import_vectors(str(path), store=store, engine=engine)
            lists = sd.knn_graph(vectors, K, measure="euclidean", engine=engine)
            graph = sd.similarity_graph(lists, weights="self_tuning", engine=engine)
        yield graph


def _sharded(graph: sd.Dataset, arguments: argparse.Namespace) -> dict[str, float]:
    """Prints what it took; seconds a pass."""
    clock = _Rounds()
    with (
        sd.open_engine(arguments.engine, workers=2, memory=arguments.memory) as engine,
        Peak() as peak,
    ):
        wall, cpu = time.perf_counter(), time.process_time()
        z = sd.spectral_embedding(
            graph,
            DIM,
            tolerance=TOLERANCE,
            solver=arguments.solver,
            seed=arguments.seed,
            engine=engine,
            listeners=[clock],
        )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    told, passes = z.metrics, z.metrics["passes"]
    products = clock.of("product", "filter", "measure") / passes
    print(f"simdist: wall {wall:.1f} s, CPU {cpu:.1f} s, {told['solver']}, {told['state']}")
    print(f"  largest residual {max(told['residuals']):.2g}")
    print(
        f"  {passes} passes, {told['barriers']} barriers,"
        f" {told['bytes_per_pass'] / 2**20:.0f} MiB and {products:.2f} s a pass in products,"
        f" {wall / passes:.2f} s all in all"
    )
    print(
        f"  held above the start by this process: {peak.resident / 2**20:.0f} MiB,"
        f" {peak.anonymous / 2**20:.0f} MiB of them no pages of files"
    )
    print("  seconds by kind of round:", clock.told(), flush=True)
    return {"products": products, "everything": wall / passes}


def _peer(graph: sd.Dataset) -> None:
    S = _normalised(_matrix(graph))
    for threads in (1, 2):
        with limited(threads):
            wall, cpu = time.perf_counter(), time.process_time()
            eigsh(S, k=DIM + 1, which="LA", tol=TOLERANCE)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"eigsh, {threads} BLAS threads: wall {wall:.1f} s, CPU {cpu:.1f} s", flush=True)


class _Rounds:
    """Seconds of rounds by what they are called, numbers left out."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundDone):
            kind = event.round.rstrip("0123456789-")
            self._seconds[kind] = self._seconds.get(kind, 0.0) + event.seconds

    def of(self, *kinds: str) -> float:
        return sum(self._seconds.get(kind, 0.0) for kind in kinds)

    def told(self) -> str:
        return ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in self._seconds.items())


def _matrix(graph: sd.Dataset) -> sp.csr_matrix:
    from simdist.operators import ShardedCsr

    sharded = ShardedCsr.of(graph)
    parts = [sharded.shard(i) for i in range(sharded.shards)]
    return sp.vstack(
        [
            sp.csr_matrix(
                (part.weights, part.indices, part.indptr),
                shape=(part.end - part.begin, sharded.nodes),
            )
            for part in parts
        ],
        format="csr",
    )


def _normalised(W: sp.csr_matrix) -> sp.csr_matrix:
    """D^-1/2 W D^-1/2 in float64."""
    W = W.astype(np.float64)
    degrees = np.asarray(W.sum(axis=1)).ravel()
    scale = sp.diags(1.0 / np.sqrt(np.where(degrees > 0, degrees, 1.0)))
    return (scale @ W @ scale).tocsr()


def _in_turn(contenders: dict[str, Callable[[], Any]], rounds: int) -> None:
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            contender()
            runs[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    print("| | wall s | CPU s |\n|---|---|---|")
    for name, pairs in runs.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |", flush=True)


if __name__ == "__main__":
    main()
