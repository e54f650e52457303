"""NeighborGP on the UCI sets, and DirichletGP on MNIST beside scikit-learn's SVC.

    python -m tests.bench.neighbor_gp [--data kin40k,bike,elevators,mnist] [--seeds 3]
                                      [--neighbors 64,200,400] [--kernel matern52] [--subset 1500]
                                      [--train 4/9] [--rows N] [--inducing 1024,2048,3072]

UCI: by default 4/9 of the rows train and 3/9 test, drawn by the seed; inputs and target
standardised by the rows trained on. RMSE is in standard deviations of the target. Beside RMSE,
NLPD and coverage on the test rows stands what the model says of itself (`told`): RMSE of training
rows left out of their own prediction.

MNIST: 8,000 images train, 2,000 test. C and gamma of SVC are those of its best accuracy on 1,600 of
the training rows after a fit to the other 6,400 (9 fits, their seconds are not counted).
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from typing import Any, NamedTuple

import numpy as np

import simdist as sd
from simdist.stages.dirichlet.calibrate import classification_report
from simdist.stages.neighbor_gp.scores import report
from tests.bench.datasets import MNIST
from tests.bench.ledger import machine

UCI = ("kin40k", "bike", "elevators")
KERNELS = {
    "rbf": sd.kernels.RBF(ard=True),
    "matern32": sd.kernels.Matern32(ard=True),
    "matern52": sd.kernels.Matern52(ard=True),
}
C, GAMMA = (3.0, 10.0, 30.0), (0.015, 0.02, 0.03)


class Split(NamedTuple):
    """Rows trained on and rows to predict."""

    x: np.ndarray
    y: np.ndarray
    x_new: np.ndarray
    y_new: np.ndarray


class Took(NamedTuple):
    """Wall and CPU seconds."""

    wall: float
    cpu: float


class Run(NamedTuple):
    """One fit and its predictions."""

    scores: dict[str, Any]
    told: float
    fit: Took
    predict: Took


def main() -> None:
    options = _arguments()
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, {here['gib']} GiB")
    named = options.data.split(",")
    sets = [name for name in named if name in UCI]
    if sets:
        _regression(sets, options)
    if "mnist" in named:
        _classification(options)


def _regression(sets: Sequence[str], options: argparse.Namespace) -> None:
    print(f"\nNeighborGP, {options.seeds} seeds, {options.train} of the rows train\n")
    print(
        "| set | rows | kernel | k | RMSE | told | NLPD | 50 % | 90 % | 95 % | mean z2 | fit s |"
        " predict s | CPU s |"
    )
    print("|" + "---|" * 14)
    kernels, neighbors = options.kernel.split(","), _numbers(options.neighbors)
    for name, kernel, k in product(sets, kernels, neighbors):
        splits = [_uci(name, seed, options) for seed in range(options.seeds)]
        runs = [_neighbor_run(split, kernel, k, options) for split in splits]

        def mean(of: Callable[[Run], float], runs: list[Run] = runs) -> float:
            return statistics.mean(of(run) for run in runs)

        errors = [run.scores["rmse"] for run in runs]
        shares = [mean(lambda r, s=s: r.scores["coverage"][s]) for s in ("50%", "90%", "95%")]
        print(
            f"| {name} | {len(splits[0].y)} | {kernel} | {k} |"
            f" {mean(lambda r: r.scores['rmse']):.4f} ({min(errors):.4f} to {max(errors):.4f}) |"
            f" {mean(lambda r: r.told):.4f} | {mean(lambda r: r.scores['nlpd']):.3f} |"
            f" {' | '.join(f'{share:.3f}' for share in shares)} |"
            f" {mean(lambda r: r.scores['mean_z2']):.2f} | {mean(lambda r: r.fit.wall):.1f} |"
            f" {mean(lambda r: r.predict.wall):.1f} |"
            f" {mean(lambda r: r.fit.cpu + r.predict.cpu):.1f} |",
            flush=True,
        )


def _neighbor_run(split: Split, kernel: str, k: int, options: argparse.Namespace) -> Run:
    gp = sd.NeighborGP(KERNELS[kernel], neighbors=k, subset=options.subset)
    _, fit = _timed(lambda: gp.fit(split.x, split.y))
    found, predict = _timed(lambda: gp.predict_distribution(split.x_new))
    scores = report(split.y_new, found.mean, found.variance)
    return Run(scores, float(gp.held_out_["rmse"]), fit, predict)


def _classification(options: argparse.Namespace) -> None:
    split = _mnist(options)
    print(f"\nMNIST, {len(split.y)} rows train, {len(split.y_new)} test\n")
    print("| classifier | accuracy | log loss | ECE | fit s | CPU s | predict s |")
    print("|" + "---|" * 7)
    for m in _numbers(options.inducing):
        gp = sd.DirichletGP(inducing=m)
        _, fit = _timed(lambda gp=gp: gp.fit(split.x, split.y))
        p, predict = _timed(lambda gp=gp: gp.predict_proba(split.x_new))
        told = classification_report(p, split.y_new)
        print(
            f"| DirichletGP, {m} points | {told['accuracy']:.4f} | {told['log_loss']:.4f} |"
            f" {told['ece']:.4f} | {fit.wall:.1f} | {fit.cpu:.1f} | {predict.wall:.1f} |",
            flush=True,
        )
    if options.svc:
        _svc(split)


def _svc(split: Split) -> None:
    from sklearn.svm import SVC

    cut = len(split.y) * 4 // 5
    tried = [
        (
            SVC(C=c, gamma=g).fit(split.x[:cut], split.y[:cut]).score(split.x[cut:], split.y[cut:]),
            c,
            g,
        )
        for c, g in product(C, GAMMA)
    ]
    _, c, gamma = max(tried)
    best = SVC(C=c, gamma=gamma)
    _, fit = _timed(lambda: best.fit(split.x, split.y))
    score, predict = _timed(lambda: best.score(split.x_new, split.y_new))
    print(
        f"| SVC(C={c:g}, gamma={gamma:g}) | {score:.4f} | | | {fit.wall:.1f} | {fit.cpu:.1f} |"
        f" {predict.wall:.1f} |",
        flush=True,
    )


def _uci(name: str, seed: int, options: argparse.Namespace) -> Split:
    path = MNIST.with_name(f"uci-{name}.csv.gz")
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    table = table[np.random.default_rng(seed).permutation(len(table))[: options.rows]]
    share = Fraction(options.train)
    train = int(len(table) * share)
    test = int(len(table) * (share + (1 - share) * 2 / 5))  # 2/9 lie between, where 4/9 train
    x, y = table[:, :-1], table[:, -1]
    middle, spread = x[:train].mean(axis=0), x[:train].std(axis=0)
    x = (x - middle) / np.where(spread > 0, spread, 1.0)
    y = (y - y[:train].mean()) / y[:train].std()
    return Split(x[:train], y[:train], x[test:], y[test:])


def _mnist(options: argparse.Namespace) -> Split:
    data = np.load(MNIST)
    order = np.random.default_rng(0).permutation(len(data["labels"]))[: options.rows]
    x = data["images"].reshape(len(data["labels"]), -1)[order] / np.float32(255)
    y, cut = data["labels"][order].astype(np.int64), len(order) * 4 // 5
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


def _timed(work: Callable[[], Any]) -> tuple[Any, Took]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, Took(time.perf_counter() - wall, time.process_time() - cpu)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _arguments() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--data", default="kin40k,bike,elevators,mnist")
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--neighbors", default="64,200,400")
    asked.add_argument("--kernel", default="matern52")
    asked.add_argument("--subset", type=int, default=1500)
    asked.add_argument("--train", default="4/9")
    asked.add_argument("--rows", type=int)
    asked.add_argument("--inducing", default="1024,2048,3072")
    asked.add_argument("--no-svc", dest="svc", action="store_false")
    return asked.parse_args()


if __name__ == "__main__":
    main()
