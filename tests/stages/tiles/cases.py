"""What the tests of dense tiles share: rows, the dense answer, stages that fail, odd measures."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from stages.importing import bring_in, parquet, table

from simdist.measures import Measure, Traits
from simdist.runner import Context, Record, Task
from simdist.stages.tiles import SimilarityTiles
from simdist.store import Dataset, Store
from simdist.types import Array, Float32, Float64


def rows(n: int, d: int = 6, *, seed: int = 0) -> Float32:
    return np.random.default_rng([seed, n, d]).standard_normal((n, d)).astype(np.float32)


def names(n: int) -> list[str]:
    """Ids as they are: of any length and script, some with an index's favourite traps in them."""
    return [f"péage-{i}" if i % 3 else f"包/{i} {'x' * (i % 40)}" for i in range(n)]


def stored(x: Array, folder: Path, store: Store, *, ids: list[str] | None = None) -> Dataset:
    """The rows as a vectors dataset, with names where they are given."""
    columns = {} if ids is None else {"id": ids}
    return bring_in(parquet(folder / "rows.parquet", table(x, **columns)), store=store)


def dense(measure: Measure, X: Array, Y: Array) -> Float64:
    """The definition, entry by entry."""
    x, y = X.astype(np.float64), Y.astype(np.float64)
    return np.array([[measure.pair(a, b) for b in y] for a in x]).reshape(len(x), len(y))


@dataclass(frozen=True, slots=True)
class Lopsided(Measure):
    """How much of y a point x leaves uncovered: not symmetric, and no GEMM."""

    name = "lopsided"
    traits = Traits(kind="distance", symmetric=False, low=0.0)

    def pair(self, x: Array, y: Array) -> float:
        return float(np.maximum(y - x, 0).sum())


@dataclass(frozen=True)
class Failing(SimilarityTiles):
    """Fails at the task `fails_at` as long as the file `armed` is there, or dies there.

    folder: where each task leaves a file when it is computed.
    """

    fails_at: str
    folder: str
    dies: bool = False

    def compute(self, context: Context, task: Task) -> Record:
        folder = Path(self.folder)
        if task.key == self.fails_at and (folder / "armed").exists():
            if self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            raise InjectedError(task.key)
        record = super().compute(context, task)
        with (folder / f"ran-{task.key}").open("a") as file:
            file.write("x")
        return record


class InjectedError(Exception):
    """The failure that a test asked for."""


def computed(folder: Path) -> dict[str, int]:
    """How often each task was computed to its end."""
    return {p.name.removeprefix("ran-"): len(p.read_text()) for p in folder.glob("ran-*")}


@contextmanager
def armed(folder: Path) -> Iterator[None]:
    """While it lasts, `Failing` fails."""
    (folder / "armed").touch()
    try:
        yield
    finally:
        (folder / "armed").unlink()
