"""Densities, modes and denoising on real data, beside scikit-learn where it can follow.

    python -m tests.bench.density                              all parts, 2 workers
    python -m tests.bench.density --only denoise --picture docs/denoised-digits.png
    python -m tests.bench.density --only shift --rows 8000 --bandwidth 0.9

denoise    MNIST-10k digits that are held out, with noise, pulled back by the others; a picture
shift      mean-shift of the package embeddings, flat kernel: wall and CPU seconds, memory
same       labels of mean-shift and scikit-learn's, rows that the latter still manages
outliers   planted among the package embeddings: how many of the highest scores they are
speed      kernel_density and scikit-learn's in turn, same threads
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import simdist as sd
from tests.bench.data import embeddings

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist-10k.npz"
PARTS = ("denoise", "shift", "same", "outliers", "speed")
SHOWN, HELD = 10, 1000  # digits in the picture, and held out in all
NOISE = (0.3, 0.6, 1.0)
PLANTED = 100


def main() -> None:
    """Run the parts named, and print a table of each."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--only", default=",".join(PARTS))
    asked.add_argument("--rows", type=int)
    asked.add_argument("--bandwidth", type=float, default=0.9)
    asked.add_argument("--workers", type=int, default=2)
    asked.add_argument("--picture", type=Path)
    asked.add_argument("--noise", type=float, action="append")
    given = asked.parse_args()
    with sd.open_engine("local", workers=given.workers) as engine:
        for part in given.only.split(","):
            print(f"\n### {part}\n", flush=True)
            RUN[part](given, engine)


@contextmanager
def _clock() -> Iterator[dict[str, float]]:
    """Wall and CPU seconds of what is within."""
    took: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield took
    took["wall"], took["cpu"] = time.perf_counter() - wall, time.process_time() - cpu


def _denoise(given: argparse.Namespace, engine: Any) -> None:
    """How far noisy digits are from the truth before and after; whose digit the nearest row is."""
    found = np.load(MNIST)
    images = found["images"].reshape(len(found["images"]), -1).astype(np.float32) / 255
    digits = found["labels"]
    order = np.random.default_rng(0).permutation(len(images))
    held, rest = order[:HELD], order[HELD:]
    data, clean = images[rest], images[held]
    print("| noise | steps | distance to the clean digit, before | after | same digit | s |")
    print("|" + "---|" * 6)
    for sigma in given.noise or NOISE:
        noise = np.random.default_rng(1).standard_normal(clean.shape, dtype=np.float32)
        noisy = clean + np.float32(sigma) * noise
        shown = [clean, noisy]
        for steps in (1, 4, 16):
            with _clock() as took:
                points = sd.denoise(noisy, data, sigma, steps, engine=engine).points
            shown.append(points)
            before, after = (np.linalg.norm(p - clean, axis=1) for p in (noisy, points))
            nearest = sd.knn(points, data, 1, measure="euclidean", engine=engine).indices[:, 0]
            right = np.mean(digits[rest[nearest]] == digits[held])
            print(
                f"| {sigma} | {steps} | {np.median(before):.2f} | {np.median(after):.2f} |"
                f" {right:.1%} | {took['wall']:.1f} |",
                flush=True,
            )
        if given.picture is not None and sigma == NOISE[1]:
            _draw(shown, given.picture)


def _draw(shown: list[np.ndarray], path: Path) -> None:
    """A small grey picture: a row of digits for each stage."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = ("clean", f"noise {NOISE[1]}", "1 step", "4 steps", "16 steps")
    figure, axes = pyplot.subplots(len(shown), 1, figsize=(6.4, 0.72 * len(shown)), dpi=110)
    for axis, rows, name in zip(axes, shown, names, strict=True):
        strip = np.concatenate([row.reshape(28, 28) for row in rows[:SHOWN]], axis=1)
        axis.imshow(np.clip(strip, 0, 1), cmap="gray_r", interpolation="nearest")
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set_visible(False)
    figure.subplots_adjust(left=0.13, right=0.995, top=0.99, bottom=0.01, hspace=0.08)
    figure.savefig(path)
    print(f"\n{path}: {path.stat().st_size / 1024:.0f} KiB")


def _shift(given: argparse.Namespace, engine: Any) -> None:
    x = embeddings()[: given.rows]
    print("| rows | bandwidth | modes | largest | seeds by wave | wall s | CPU s | peak MiB |")
    print("|" + "---|" * 8)
    with _clock() as took:
        made = sd.mean_shift(x, given.bandwidth, seeds="cover", engine=engine)
    near = np.linalg.norm(x - made.modes[made.labels], axis=1) <= given.bandwidth
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {len(x)} | {given.bandwidth} | {len(made)} | {made.sizes.max()} |"
        f" {', '.join(map(str, made.seeds))} | {took['wall']:.0f} | {took['cpu']:.0f} | {peak:.0f}"
        f" |\n\nWithin a bandwidth of its mode: {near.mean():.1%} of the rows"
    )


def _same(given: argparse.Namespace, engine: Any) -> None:
    from sklearn.cluster import MeanShift
    from sklearn.datasets import load_digits, load_iris
    from sklearn.metrics import adjusted_rand_score

    sets: dict[str, tuple[np.ndarray, float]] = {
        "iris": (load_iris().data, 0.8),
        "digits, 600": (load_digits().data[:600], 24.0),
        "packages, 1,000": (embeddings()[:1000].astype(np.float64), given.bandwidth),
    }
    print("| data | modes | scikit-learn's | adjusted Rand index | s | scikit-learn's s |")
    print("|" + "---|" * 6)
    for name, (x, bandwidth) in sets.items():
        with _clock() as ours:
            made = sd.mean_shift(x, bandwidth, seeds="all", engine=engine)
        with _clock() as theirs:
            other = MeanShift(bandwidth=bandwidth).fit(x)
        same = adjusted_rand_score(made.labels, other.labels_)
        print(
            f"| {name} | {len(made)} | {len(other.cluster_centers_)} | {same:.6f} |"
            f" {ours['wall']:.2f} | {theirs['wall']:.2f} |",
            flush=True,
        )


def _outliers(given: argparse.Namespace, engine: Any) -> None:
    """Planted rows take each coordinate from another row: every feature as it should be, and none
    of what ties them together."""
    x = embeddings()[: given.rows]
    rng = np.random.default_rng(2)
    planted = np.sort(rng.choice(len(x), PLANTED, replace=False))
    columns = np.arange(x.shape[1])
    mixed = x[rng.integers(0, len(x), (PLANTED, x.shape[1])), columns]
    x = x.copy()
    x[planted] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    print(
        f"| rows | method | rule | bandwidth | of the {PLANTED} highest scores planted |"
        " ROC area | wall s |"
    )
    print("|" + "---|" * 7)
    for method in ("density", "relative"):
        for rule in ("scott", "knn", "likelihood"):
            with _clock() as took:
                made = sd.outlier_scores(x, rule, method=method, engine=engine)
            top = np.isin(made.top(PLANTED), planted).mean()
            rank = np.argsort(np.argsort(made.scores))[planted]
            area = (rank.mean() - (PLANTED - 1) / 2) / (len(x) - PLANTED)
            print(
                f"| {len(x)} | {method} | {rule} | {made.bandwidth.value:.3f} | {top:.0%} |"
                f" {area:.4f} | {took['wall']:.1f} |",
                flush=True,
            )


def _speed(given: argparse.Namespace, engine: Any) -> None:
    from sklearn.neighbors import KernelDensity

    rows = given.rows or 20_000
    print("| rows = points | dimensions | s | scikit-learn's s | largest difference |")
    print("|" + "---|" * 5)
    for dim in (2, 8, 64):
        rng = np.random.default_rng(3)
        x = rng.standard_normal((rows, dim))
        ours, theirs, apart = [], [], 0.0
        tree = KernelDensity(bandwidth=0.5).fit(x)
        for _ in range(3):
            with _clock() as took:
                found = sd.kernel_density(x, x, 0.5, engine=engine).log_density
            ours.append(took["wall"])
            with _clock() as took:
                other = tree.score_samples(x)
            theirs.append(took["wall"])
            apart = float(np.abs(found - other).max())
        a, b = statistics.median(ours), statistics.median(theirs)
        print(f"| {rows} | {dim} | {a:.2f} | {b:.2f} | {apart:.1e} |", flush=True)


RUN: dict[str, Callable[[argparse.Namespace, Any], None]] = {
    "denoise": _denoise,
    "shift": _shift,
    "same": _same,
    "outliers": _outliers,
    "speed": _speed,
}


if __name__ == "__main__":
    main()
