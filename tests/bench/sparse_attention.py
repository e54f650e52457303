"""Sparse attention over real embeddings: keys against an oracle's, time against exact, A B A B.

    python -m tests.bench.sparse_attention [--queries 2000] [--rounds 3] [--rows N]
                                           [--plot docs/sparse-attention.svg] [--data X.parquet]

Keys are values are embeddings, queries are rows held out. At temperatures 0.02, 0.05, 0.1 and
tolerances 1e-1, 1e-2, 1e-3, in turn: `sd.attention` (exact, float32), `sd.sparse_attention` as it
is, and with exact_above=1, which never takes all keys. On `--checked` queries all logits are taken
in float64: the fewest keys that would do, what a plain top-k of as many keys leaves out (one k for
all queries, the mean of those scored, and one for each query), and whether every bound holds.
CPU seconds are the ones to compare on a shared machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import simdist as sd
from tests.bench.data import EMBEDDINGS, embeddings

TEMPERATURES = (0.02, 0.05, 0.1)
TOLERANCES = (1e-1, 1e-2, 1e-3)
CHUNK = 32  # queries whose float64 logits are held at once
HEAD = (
    "| T | tolerance | fewest keys | scored | ratio | top-k of as many leaves out, mean, worst |"
    " sparse only s, CPU s | as it is s, CPU s | took all keys | exact s, CPU s |"
    " exact / as it is, CPU | certified | bounds broken |\n" + "|---" * 13 + "|"
)


@dataclass(frozen=True)
class Line:
    """What one temperature and tolerance came to. seconds: [wall, CPU] of each contender."""

    temperature: float
    tolerance: float
    fewest: float
    scored: float
    topk: tuple[float, float]
    seconds: dict[str, tuple[float, float]]
    fell_back: float
    certified: float
    broken: int

    def __str__(self) -> str:
        wall, cpu = zip(*(self.seconds[name] for name in NAMES), strict=True)
        told = [
            f"{self.temperature:g}",
            f"{self.tolerance:g}",
            f"{self.fewest:,.1f}",
            f"{self.scored:,.1f}",
            f"{self.scored / self.fewest:.2f}",
            f"{self.topk[0]:.2g}, {self.topk[1]:.2g}",
            f"{wall[1]:.2f}, {cpu[1]:.2f}",
            f"{wall[2]:.2f}, {cpu[2]:.2f}",
            f"{self.fell_back:.0%}",
            f"{wall[0]:.2f}, {cpu[0]:.2f}",
            f"{cpu[0] / cpu[2]:.2f}",
            f"{self.certified:.1%}",
            str(self.broken),
        ]
        return f"| {' | '.join(told)} |"


NAMES = ("exact", "sparse only", "as it is")


def main() -> None:
    """Run, print the table line by line, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=EMBEDDINGS)
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--checked", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=None)
    arguments = parser.parse_known_args()[0]
    x = embeddings(arguments.data)[: arguments.rows]
    order = np.random.default_rng(7).permutation(len(x))
    q, k = x[order[: arguments.queries]], x[order[arguments.queries :]]
    checked = min(arguments.checked, len(q))
    print(f"{len(q):,} queries, {len(k):,} keys of {k.shape[1]}, {os.cpu_count()} cores\n\n{HEAD}")
    lines = []
    for temperature in TEMPERATURES:
        truth = Truth.of(q[:checked], k, 1.0 / temperature)
        for tolerance in TOLERANCES:
            lines.append(_measured(q, k, temperature, tolerance, truth, arguments.rounds))
            print(lines[-1], flush=True)
    if arguments.plot is not None:
        _plot(arguments.plot, lines, len(k))


@dataclass(frozen=True)
class Truth:
    """Of some queries, in float64. left: [n, m] what is left out without the top 1, 2, ... keys.
    outputs: [n, dv]."""

    left: np.ndarray
    outputs: np.ndarray

    @classmethod
    def of(cls, q: np.ndarray, k: np.ndarray, scale: float) -> Truth:
        wide = k.astype(np.float64)
        left, outputs = np.empty((len(q), len(k)), np.float32), np.empty((len(q), k.shape[1]))
        for first in range(0, len(q), CHUNK):
            some = slice(first, first + CHUNK)
            logits = scale * (q[some].astype(np.float64) @ wide.T)
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            outputs[some] = weights @ wide
            ascending = np.sort(weights, axis=1)
            left[some, :-1] = np.cumsum(ascending, axis=1)[:, -2::-1]
            left[some, -1] = 0.0
        return cls(left, outputs)

    def fewest(self, tolerance: float) -> np.ndarray:
        return 1 + (self.left > tolerance).sum(axis=1)

    def without_all_but(self, keys: np.ndarray) -> np.ndarray:
        """[n] what the best so many keys of each query leave out."""
        return self.left[np.arange(len(self.left)), np.minimum(keys, self.left.shape[1]) - 1]


def _measured(
    q: np.ndarray, k: np.ndarray, temperature: float, tolerance: float, truth: Truth, rounds: int
) -> Line:
    scale = 1.0 / temperature
    options: dict[str, Any] = {"scale": scale, "tolerance": tolerance, "sample": 0}
    contenders: dict[str, Callable[[np.ndarray], Any]] = {
        "exact": lambda some: sd.attention(some, k, k, scale=scale),
        "sparse only": lambda some: sd.sparse_attention(some, k, k, exact_above=1.0, **options),
        "as it is": lambda some: sd.sparse_attention(some, k, k, **options),
    }
    for contender in contenders.values():
        contender(q[:4])  # compiled before anything is timed
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for name in NAMES:
            wall, cpu = time.perf_counter(), time.process_time()
            found[name] = contenders[name](q)
            took[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    only, auto = found["sparse only"], found["as it is"]
    some = len(truth.left)
    each = int(np.ceil(only.keys[:some].mean()))
    left = truth.without_all_but(np.full(some, each))
    return Line(
        temperature=temperature,
        tolerance=tolerance,
        fewest=float(truth.fewest(tolerance).mean()),
        scored=float(only.keys[:some].mean()),
        topk=(float(left.mean()), float(left.max())),
        seconds={
            name: (
                statistics.median(wall for wall, _ in times),
                statistics.median(cpu for _, cpu in times),
            )
            for name, times in took.items()
        },
        fell_back=float(auto.fell_back.mean()),
        certified=float(min(only.certified.mean(), auto.certified.mean())),
        broken=_broken(only, truth) + _broken(auto, truth),
    )


def _broken(found: Any, truth: Truth) -> int:
    """Queries for which a bound does not hold: of the output, or of what is left out."""
    some = len(truth.left)
    error = np.linalg.norm(found.output[:some].astype(np.float64) - truth.outputs, axis=1)
    least = truth.without_all_but(found.keys[:some])  # no choice of as many keys leaves out less
    wrong = (error > found.error[:some]) | (least > found.tau[:some] + 1e-6)
    return int(wrong.sum())


def _plot(path: Path, lines: list[Line], keys: int) -> None:
    """Keys against the fewest, and CPU time against exact, a line a temperature."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    for temperature, colour in zip(TEMPERATURES, ("#c1272d", "#e69f00", "#0072b2"), strict=True):
        own = [line for line in lines if line.temperature == temperature]
        at = [line.tolerance for line in own]
        label = f"T = {temperature:g}"
        left.plot(at, [line.fewest for line in own], color=colour, linestyle=":", marker="x")
        left.plot(at, [line.scored for line in own], color=colour, marker="o", label=label)
        for name, style in (("sparse only", "--"), ("as it is", "-")):
            shares = [line.seconds[name][1] / line.seconds["exact"][1] for line in own]
            told = label if style == "-" else None
            right.plot(at, shares, color=colour, linestyle=style, marker="o", label=told)
    left.axhline(keys, color="#888888", linewidth=0.8)
    left.set_title("keys a query (dotted: the fewest)")
    left.set_ylabel("keys")
    right.axhline(1.0, color="#888888", linewidth=0.8)
    right.set_title("CPU over exact (dashed: never all keys)")
    right.set_ylabel("share of exact")
    for panel in (left, right):
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("tolerance: softmax mass left out")
        panel.grid(alpha=0.3, which="both")
        panel.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
