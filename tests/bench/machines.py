"""Kernel machines on real data: ridge regression of the UCI sets, and MNIST beside sklearn's SVC.

    python -m tests.bench.machines [--data kin40k,bike,elevators,mnist] [--seeds 3]
                                   [--centers 1024,4096] [--widths learned] [--rows N] [--exact]

UCI: 4/9 of the rows train, 3/9 test, drawn by the seed; inputs and target standardised by the rows
trained on. Lengthscales come either from a SparseGP of 256 inducing points on 6,000 of the rows
(`learned`, one per column; its seconds are shown), or are one number, the best of six by leaving
rows out of 3,000 (`shared`). alpha is chosen from 13 by leaving
rows out. RMSE is in standard deviations of the target. `--exact` puts scikit-learn's KernelRidge
beside it, with the same kernel and alpha, on rows few enough for it.

MNIST: 8,000 images train, 2,000 test. C and gamma of SVC are those of its best accuracy on 1,600 of
the training rows after a fit to the other 6,400; KernelSVM is tuned likewise, over C, with SVC's
gamma; DirichletGP learns its own kernel. Then all in turn, A B A B; wall and CPU seconds of fit,
and of predicting the test rows.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

import simdist as sd
from tests.bench.ledger import machine
from tests.bench.splits import GRID, UCI, Split, Took, mnist, timed, uci

ALPHAS = np.logspace(-6, 3, 13)
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # of an RBF as wide as the rows lie apart
SAMPLE = 3000


def main() -> None:
    options = _arguments()
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, {here['gib']} GiB")
    sets = [name for name in options.data.split(",") if name in UCI]
    if sets:
        _ridge(sets, options)
    if "mnist" in options.data.split(","):
        _svm(options)


def _ridge(sets: list[str], options: argparse.Namespace) -> None:
    centers = [int(word) for word in options.centers.split(",")]
    print(f"\nKernelRidge, {options.seeds} seeds, lengthscales {options.widths}\n")
    print("| set | rows | kernel found s | centres | kept | alpha | RMSE | fit s | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in sets:
        splits = [uci(name, seed, options.rows) for seed in range(options.seeds)]
        kernels = [timed(lambda one=one: _kernel(one, options.widths)) for one in splits]
        for m in centers:
            runs = [
                _ridge_run(split, kernel, m)
                for split, (kernel, _) in zip(splits, kernels, strict=True)
            ]
            found = statistics.mean(took.wall for _, took in kernels)
            errors = [error for error, _, _ in runs]
            fits = [fit for _, fit, _ in runs]
            took = [run[2] for run in runs]
            print(
                f"| {name} | {len(splits[0].y)} | {found:.1f} | {m} |"
                f" {fits[0].metrics_['centers']} |"
                f" {statistics.median(fit.alpha_ for fit in fits):.1e} |"
                f" {statistics.mean(errors):.4f} ({min(errors):.4f} to {max(errors):.4f}) |"
                f" {statistics.mean(t.wall for t in took):.1f} |"
                f" {statistics.mean(t.cpu for t in took):.1f} |",
                flush=True,
            )
        if options.exact:
            _exact(name, splits[0], kernels[0][0], fits[0].alpha_)


def _ridge_run(split: Split, kernel: Any, m: int) -> tuple[float, sd.KernelRidge, Took]:
    fit, took = timed(
        lambda: sd.KernelRidge(kernel, alphas=ALPHAS, centers=m).fit(split.x, split.y)
    )
    return _rmse(fit.predict(split.x_new), split.y_new), fit, took


def _exact(name: str, split: Split, kernel: Any, alpha: float) -> None:
    from sklearn.kernel_ridge import KernelRidge

    rows = min(len(split.y), 8000)
    x, y = split.x[:rows], split.y[:rows]
    exact, exact_took = timed(
        lambda: KernelRidge(alpha=alpha, kernel="precomputed").fit(kernel.matrix(x, x), y)
    )
    ours, took = timed(lambda: sd.KernelRidge(kernel, alpha=alpha).fit(x, y))
    errors = (
        _rmse(exact.predict(kernel.matrix(split.x_new, x)), split.y_new),
        _rmse(ours.predict(split.x_new), split.y_new),
    )
    print(
        f"\n{name}, {rows} rows, alpha {alpha:.1e}: scikit-learn exact {errors[0]:.4f} in"
        f" {exact_took.wall:.1f} s; 1,024 centres {errors[1]:.4f} in {took.wall:.1f} s\n"
    )


def _kernel(split: Split, widths: str) -> Any:
    """The kernel that rows trained on prefer."""
    sample = np.random.default_rng(0).permutation(len(split.y))
    if widths == "learned":
        rows = sample[:6000]
        gp = sd.SparseGP(sd.kernels.RBF(ard=True), inducing=256).fit(split.x[rows], split.y[rows])
        return gp.kernel_
    rows = sample[:SAMPLE]
    x, y = split.x[rows], split.y[rows]
    scale = float(np.sqrt(0.5 * x.shape[1] * x.var()))
    fits = [
        sd.KernelRidge(sd.kernels.RBF(scale * width), alphas=ALPHAS).fit(x, y) for width in WIDTHS
    ]
    return min(fits, key=lambda fit: fit.errors_.min()).kernel_


def _svm(options: argparse.Namespace) -> None:
    from sklearn.svm import SVC

    x, y, x_new, y_new = mnist(options.rows)
    cut = 4 * len(y) // 5

    def tuned(of: Callable[..., Any], grid: list[dict[str, Any]]) -> dict[str, Any]:
        scores = [of(**one).fit(x[:cut], y[:cut]).score(x[cut:], y[cut:]) for one in grid]
        return grid[int(np.argmax(scores))]

    exact = tuned(SVC, [{"C": c, "gamma": g} for c in GRID["C"] for g in GRID["gamma"]])
    kernel = sd.kernels.RBF(float(np.sqrt(0.5 / exact["gamma"])))
    best = tuned(sd.KernelSVM, [{"C": c, "kernel": kernel, "tol": 1e-3} for c in GRID["C"]])
    contenders: dict[str, Callable[[], Any]] = {f"SVC {exact}": lambda: SVC(**exact)}
    for m in (int(word) for word in options.svm_centers.split(",")):
        contenders[f"KernelSVM C={best['C']:g}, {m} centres"] = lambda m=m: sd.KernelSVM(
            **best, centers=m
        )
    for m in (int(word) for word in options.gp_inducing.split(",") if word):
        contenders[f"DirichletGP, {m} points"] = lambda m=m: sd.DirichletGP(inducing=m)
    runs: dict[str, list[tuple[float, Took, Took]]] = {name: [] for name in contenders}
    for _ in range(options.repeats):
        for name, contender in contenders.items():
            fit, took = timed(lambda contender=contender: contender().fit(x, y))
            said, told = timed(lambda fit=fit: fit.predict(x_new))
            runs[name].append((float(np.mean(said == y_new)), took, told))
    print(f"\nMNIST, {len(y)} rows trained on, {len(y_new)} predicted\n")
    print("| | accuracy | fit s | fit CPU s | predict s |\n|---|---|---|---|---|")
    for name, found in runs.items():
        print(
            f"| {name} | {found[0][0]:.4f} |"
            f" {statistics.median(took.wall for _, took, _ in found):.1f} |"
            f" {statistics.median(took.cpu for _, took, _ in found):.1f} |"
            f" {statistics.median(told.wall for _, _, told in found):.1f} |"
        )


def _rmse(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(found - truth))))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=",".join([*UCI, "mnist"]))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--centers", default="1024,4096")
    parser.add_argument("--svm-centers", default="1000,2000")
    parser.add_argument("--gp-inducing", default="2048,3072", help="of DirichletGP; '': none")
    parser.add_argument("--widths", choices=("learned", "shared"), default="learned")
    parser.add_argument("--rows", type=int, help="of each set, drawn by the seed; all by default")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--exact", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
