"""Real rows to learn from and rows to predict, the same for every model that is measured on them.

UCI: `share` of the rows train and two fifths of what is left lie between them and the test rows, so
that of 4/9 there are 3/9 to test; drawn by the seed, standardised by the rows trained on. MNIST:
four fifths of the images train.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tests.bench.datasets import MNIST

__all__ = ["GRID", "UCI", "Split", "Took", "mnist", "timed", "uci"]

UCI = ("kin40k", "bike", "elevators")
GRID = {"C": (3.0, 10.0, 30.0), "gamma": (0.015, 0.02, 0.03)}  # of an SVC on MNIST


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


def uci(name: str, seed: int, rows: int | None = None, share: Fraction = Fraction(4, 9)) -> Split:
    """rows: drawn by the seed, all by default. share: of them that train."""
    with gzip.open(MNIST.with_name(f"uci-{name}.csv.gz"), "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    table = table[np.random.default_rng(seed).permutation(len(table))[:rows]]
    train = int(len(table) * share)
    test = int(len(table) * (share + (1 - share) * 2 / 5))
    x, y = table[:, :-1], table[:, -1]
    middle, spread = x[:train].mean(axis=0), x[:train].std(axis=0)
    x = (x - middle) / np.where(spread > 0, spread, 1.0)
    y = (y - y[:train].mean()) / y[:train].std()
    return Split(x[:train], y[:train], x[test:], y[test:])


def mnist(rows: int | None = None) -> Split:
    """Images as float32 from 0 to 1, and digits. rows: of all images, in a random order."""
    data = np.load(MNIST)
    order = np.random.default_rng(0).permutation(len(data["labels"]))[:rows]
    x = data["images"].reshape(len(data["labels"]), -1)[order] / np.float32(255)
    y, cut = data["labels"][order].astype(np.int64), len(order) * 4 // 5
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


def timed(work: Callable[[], Any]) -> tuple[Any, Took]:
    """What it returns, and what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, Took(time.perf_counter() - wall, time.process_time() - cpu)
