"""Sparse Gaussian processes: simdist, and GPyTorch or GPflow in processes of their own, in turn.

    python -m tests.bench.gp bound --peer-python PYTHON        the same bound at fixed values
    python -m tests.bench.gp turn --peer-python PYTHON         kin40k, m=512: A B A B, wall and CPU
    python -m tests.bench.gp table [--inducing 256,512,1024]   three data sets, m, seeds
    python -m tests.bench.gp carried [--inducing 512,2048,4096]  what fewer points learned goes on
    python -m tests.bench.gp scale [--rows 2000000]            seconds a pass, memory, on a budget
    python -m tests.bench.gp agree [--engines local,dask,ray]  one bound on every engine

PYTHON is one that has GPyTorch (and GPflow): neither is needed to run simdist, and neither gets in
its process. Data: 4/9 train, 3/9 test by a seed's permutation, columns and target standardised by
the training rows. All CPU seconds are of the whole process, its threads among them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import simdist as sd
from simdist.datasets.synthetic import manifold
from simdist.grams import Whitening, gram_block
from simdist.runner.events import Event, RoundDone
from simdist.stages.gp.bound import collapsed_bound
from tests.bench.million import Peak

SHARED = Path(__file__).parents[3] / "shared" / "data"
PEER = Path(__file__).with_name("gp_peer.py")
NAMES = ("kin40k", "bike", "elevators")


class Split(NamedTuple):
    """Standardised rows to learn from and to test on."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="?", default="table", choices=list(WHAT))
    parser.add_argument("--peer-python", default=None)
    parser.add_argument("--peers", default="gpytorch,gpflow")
    parser.add_argument("--data", default=",".join(NAMES))
    parser.add_argument("--inducing", default="256,512,1024,2048,4096")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--evaluations", type=int, default=128)
    parser.add_argument("--carried", type=int, default=12, help="evaluations of what is carried")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--train", type=int, default=0, help="training rows, all by default")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--memory", default="500MiB")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--engines", default="local,dask,ray")
    arguments, _ = parser.parse_known_args()
    WHAT[arguments.what](arguments)


def split(name: str, seed: int, train: int = 0) -> Split:
    """4/9 and 3/9 of a UCI set, drawn by a seed."""
    with gzip.open(SHARED / f"uci-{name}.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    order = np.random.default_rng(seed).permutation(len(table))
    first, last = order[: len(table) * 4 // 9], order[len(table) * 6 // 9 :]
    first = first[:train] if train else first
    mean, spread = table[first].mean(axis=0), table[first].std(axis=0)
    table = (table - mean) / np.where(spread > 0, spread, 1.0)
    return Split(table[first, :-1], table[first, -1], table[last, :-1], table[last, -1])


def ours(data: Split, inducing: int, evaluations: int, seed: int = 0) -> dict[str, float]:
    """One fit and its scores."""
    return scored(sd.SparseGP(inducing=inducing, evaluations=evaluations, random_state=seed), data)


def scored(gp: sd.SparseGP, data: Split) -> dict[str, float]:
    """The scores of an estimator, which is fitted."""
    started, cpu = time.perf_counter(), time.process_time()
    gp.fit(data.X, data.y)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    found = gp.predict_distribution(data.X_test)
    error = data.y_test - found.mean
    z2 = error**2 / found.variance
    return {
        "bound": gp.report_["bound"],
        "seconds": seconds,
        "cpu": cpu,
        "rmse": float(np.sqrt(np.mean(error**2))),
        "nlpd": float(np.mean(0.5 * np.log(2 * np.pi * found.variance) + 0.5 * z2)),
        "coverage_95": float(np.mean(z2 <= 1.959963984540054**2)),
        "mean_z2": float(np.mean(z2)),
        "evaluations": gp.report_["evaluations"],
        "calibration": gp.report_["calibration"][0],
    }


def peer(
    python: str, which: str, data: Split, steps: int, *, Z: np.ndarray, **start: Any
) -> dict[str, float]:
    """One run of a peer in its own process."""
    with tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder:
        path = Path(folder) / "rows.npz"
        np.savez(path, **data._asdict(), Z=Z, **start)
        command = [python, str(PEER), which, str(path), json.dumps({"steps": steps})]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"failed": 1.0, "why": done.stderr.strip().splitlines()[-1:]}  # type: ignore[dict-item]
    told: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def _bound(arguments: argparse.Namespace) -> None:
    """The bound of peers and of simdist at one and the same point."""
    print("| data | rows | m | which | bound | simdist's, relative |\n|---|---|---|---|---|---|")
    m = int(arguments.inducing.split(",")[0])
    for name in arguments.data.split(","):
        data = split(name, 0, arguments.train)
        Z = data.X[np.random.default_rng(0).choice(len(data.X), m, replace=False)]
        d = data.X.shape[1]
        values = {"lengthscale": np.full(d, 0.6 * np.sqrt(d)), "variance": 0.8, "noise": 0.07}
        kernel = 0.8 * sd.kernels.RBF(tuple(values["lengthscale"]))
        for which in arguments.peers.split(","):
            told = peer(arguments.peer_python, which, data, 0, Z=Z, **values)
            if "failed" in told:
                print(f"| {name} | {len(data.X):,} | {m} | {which} | {told['why']} | |")
                continue
            jitter = told.get("jitter", 0.0) / 0.8 or 1e-14
            whitening = Whitening.of(kernel, Z, jitter=jitter)
            own = collapsed_bound(gram_block(whitening, data.X, data.y), np.array([0.07])).value
            apart = abs(own - told["bound"]) / abs(told["bound"])
            print(
                f"| {name} | {len(data.X):,} | {m} | {which} | {told['bound']:.6f} | {apart:.1e} |"
            )


def _turn(arguments: argparse.Namespace) -> None:
    """simdist and the peers in turn, the same rows and number of inducing points."""
    m = 512 if "," in arguments.inducing else int(arguments.inducing)
    runs: dict[str, list[dict[str, float]]] = {}
    name = arguments.data.split(",")[0]
    data = split(name, 0, arguments.train)
    for _ in range(arguments.rounds):
        runs.setdefault("simdist", []).append(ours(data, m, arguments.evaluations))
        for which in arguments.peers.split(",") if arguments.peer_python else ():
            told = peer(arguments.peer_python, which, data, arguments.steps, Z=data.X[:m])
            if "failed" in told:
                print(which, told["why"])
            else:
                runs.setdefault(which, []).append(told)
    print(f"{name}, {len(data.X):,} rows, m={m}, {os.cpu_count()} cores\n")
    print("| which | wall s | CPU s | RMSE | NLPD | 95 % coverage | mean z^2 | bound / n |")
    print("|---|---|---|---|---|---|---|---|")
    for which, told in runs.items():
        middle = {k: statistics.median(run[k] for run in told) for k in told[0]}
        print(
            f"| {which} | {middle['seconds']:.1f} | {middle['cpu']:.1f} | {middle['rmse']:.4f} |"
            f" {middle['nlpd']:.4f} | {middle['coverage_95']:.3f} | {middle['mean_z2']:.2f} |"
            f" {middle['bound'] / len(data.X):.4f} |"
        )


def _table(arguments: argparse.Namespace) -> None:
    """RMSE, NLPD and seconds over data, inducing points and seeds."""
    print("| data | train | m | RMSE | NLPD | 95 % coverage | wall s | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.data.split(","):
        for m in (int(value) for value in arguments.inducing.split(",")):
            told = []
            for seed in range(arguments.seeds):
                data = split(name, seed, arguments.train)
                told.append(ours(data, m, arguments.evaluations, seed))
            rows = f"| {name} | {len(data.X):,} | {m} |"
            print(f"{rows} {_spread(told, 'rmse')} | {_spread(told, 'nlpd')} |"
                  f" {_spread(told, 'coverage_95')} | {_median(told, 'seconds'):.1f} |"
                  f" {_median(told, 'cpu'):.1f} |", flush=True)  # fmt: skip


def _carried(arguments: argparse.Namespace) -> None:
    """A whole fit with the fewest points, whose kernel and noise go on to more points: those stay
    where they are, and hyper-parameters have a few evaluations."""
    data = split(arguments.data.split(",")[0], 0, arguments.train)
    counts = [int(value) for value in arguments.inducing.split(",")]
    print("| m | evaluations | RMSE | NLPD | 95 % coverage | mean z^2 | wall s | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    gp = sd.SparseGP(inducing=counts[0], evaluations=arguments.evaluations)
    for place, m in enumerate(counts):
        if place:
            gp = sd.SparseGP(
                *(gp.kernel_,),
                inducing=m,
                start="kernel",
                noise=gp.report_["noise_share"][0],
                optimize_inducing=False,
                reselections=0,
                mini_rows=0,
                evaluations=max(1, arguments.carried * counts[1] // m),
            )
        told = scored(gp, data)
        print(f"| {m} | {told['evaluations']} | {told['rmse']:.4f} | {told['nlpd']:.4f} |"
              f" {told['coverage_95']:.3f} | {told['mean_z2']:.2f} | {told['seconds']:.1f} |"
              f" {told['cpu']:.1f} |", flush=True)  # fmt: skip


def _spread(told: Sequence[dict[str, float]], name: str) -> str:
    values = [run[name] for run in told]
    return f"{np.mean(values):.4f} +- {np.std(values):.4f}"


def _median(told: Sequence[dict[str, float]], name: str) -> float:
    return float(statistics.median(run[name] for run in told))


class _Passes:
    """Seconds of every round by its kind."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundDone):
            kind = event.round.rstrip("-0123456789")
            self.seconds.setdefault(kind, []).append(event.seconds)


def _scale(arguments: argparse.Namespace) -> None:
    """Two passes and a gradient over an eighth to all of the rows, on a budget."""
    m = 512 if "," in arguments.inducing else int(arguments.inducing)
    print(f"m={m}, {arguments.memory} a worker, {arguments.engine}\n")
    print("| rows | pass s | gradient s | peak MiB | of it anonymous | store MiB | bound / n |")
    print("|---|---|---|---|---|---|---|")
    for share in (8, 4, 2, 1):
        with tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder:
            n = arguments.rows // share
            vectors = _smooth(n, folder)
            told = _Passes()
            settings = {"kind": arguments.engine, "memory": arguments.memory, "workers": 2}
            gp = sd.SparseGP(inducing=m, evaluations=1, mini_rows=0, held_out=0.0, calibrate=False)
            with sd.open_engine(settings) as engine, Peak() as peak:
                gp.fit(vectors, "y", engine=engine, listeners=[told])
            files = [path for path in Path(folder, "store").rglob("*") if path.is_file()]
            stored = sum(path.stat().st_size for path in files)
        seconds = {kind: statistics.median(values) for kind, values in told.seconds.items()}
        mib = f"{peak.resident / 2**20:.0f} | {peak.anonymous / 2**20:.0f} | {stored / 2**20:.0f}"
        times = f"{seconds['pass']:.2f} | {seconds['slope']:.2f}"
        print(f"| {n:,} | {times} | {mib} | {gp.report_['bound_per_row']:.4f} |", flush=True)


def _smooth(n: int, folder: str) -> sd.Dataset:
    """n x 8 rows of a manifold and a smooth target with noise, imported from Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    step = 250_000
    (Path(folder) / "rows").mkdir()
    for first in range(0, n, step):
        count = min(step, n - first)
        X = manifold(count, 8, 4, start=first)
        rng = np.random.default_rng([1, first])
        y = np.sin(X[:, 0]) * X[:, 1] + np.cos(X[:, 2] + X[:, 3])
        y = y + 0.1 * rng.standard_normal(count)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 8)
        table = pa.table({"x": lists, "y": pa.array(y.astype(np.float64))})
        pq.write_table(table, Path(folder) / "rows" / f"{first:09d}.parquet")
    return sd.import_vectors(
        f"{folder}/rows/*.parquet", vector="x", keep=["y"], store=f"{folder}/store"
    )


def _agree(arguments: argparse.Namespace) -> None:
    """The bound of one short fit on every engine."""
    print("| engine | bound | apart from the first, relative |\n|---|---|---|")
    first = None
    for kind in arguments.engines.split(","):
        with tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder:
            vectors = _smooth(min(arguments.rows, 50_000), folder)
            gp = sd.SparseGP(inducing=256, evaluations=5, mini_rows=0)
            with sd.open_engine({"kind": kind, "workers": 2, "memory": "1GiB"}) as engine:
                gp.fit(vectors, "y", engine=engine)
        bound = gp.report_["bound"]
        first = bound if first is None else first
        print(f"| {kind} | {bound!r} | {abs(bound - first) / abs(first):.1e} |", flush=True)


WHAT = {
    "bound": _bound,
    "turn": _turn,
    "table": _table,
    "carried": _carried,
    "scale": _scale,
    "agree": _agree,
}

if __name__ == "__main__":
    main()
