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
import statistics
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from typing import Any, NamedTuple

import simdist as sd
from simdist.stages.dirichlet.calibrate import classification_report
from simdist.stages.neighbor_gp.scores import report
from tests.bench.ledger import machine
from tests.bench.splits import GRID, UCI, Split, Took, mnist, timed, uci

KERNELS = {
    "rbf": sd.kernels.RBF(ard=True),
    "matern32": sd.kernels.Matern32(ard=True),
    "matern52": sd.kernels.Matern52(ard=True),
}


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
    share = Fraction(options.train)
    for name, kernel, k in product(sets, kernels, neighbors):
        splits = [uci(name, seed, options.rows, share) for seed in range(options.seeds)]
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
    _, fit = timed(lambda: gp.fit(split.x, split.y))
    found, predict = timed(lambda: gp.predict_distribution(split.x_new))
    scores = report(split.y_new, found.mean, found.variance)
    return Run(scores, float(gp.held_out_["rmse"]), fit, predict)


def _classification(options: argparse.Namespace) -> None:
    split = mnist(options.rows)
    print(f"\nMNIST, {len(split.y)} rows train, {len(split.y_new)} test\n")
    print("| classifier | accuracy | log loss | ECE | fit s | CPU s | predict s |")
    print("|" + "---|" * 7)
    for m in _numbers(options.inducing):
        gp = sd.DirichletGP(inducing=m)
        _, fit = timed(lambda gp=gp: gp.fit(split.x, split.y))
        p, predict = timed(lambda gp=gp: gp.predict_proba(split.x_new))
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
        for c, g in product(GRID["C"], GRID["gamma"])
    ]
    _, c, gamma = max(tried)
    best = SVC(C=c, gamma=gamma)
    _, fit = timed(lambda: best.fit(split.x, split.y))
    score, predict = timed(lambda: best.score(split.x_new, split.y_new))
    print(
        f"| SVC(C={c:g}, gamma={gamma:g}) | {score:.4f} | | | {fit.wall:.1f} | {fit.cpu:.1f} |"
        f" {predict.wall:.1f} |",
        flush=True,
    )


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
