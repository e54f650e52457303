"""The bound and its gradient of rows in memory: what the passes do, without a store.

The whitened blocks of the first pass are kept for the second, so an evaluation costs
4 n m^2 flops, in place of the 5 of tasks that read their rows twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from simdist.engine.threads import Run, cpus_here, in_order, limited, side_by_side
from simdist.errors import InputError
from simdist.grams import (
    GramStatistics,
    KernelGradients,
    Pulled,
    Whitening,
    gradient_block,
    gram_block,
    inducing_gradient,
    tree_sum,
)
from simdist.stages.gp.bound import collapsed_bound
from simdist.stages.gp.space import Space, Trial
from simdist.stages.gp.table import Part
from simdist.types import Float64

__all__ = ["all_cores", "evaluated", "part_spans", "summed"]

KEPT_NBYTES = 1 << 30  # of whitened blocks that are kept for the gradient
THREADED = 2048  # inducing points from which BLAS alone keeps all cores busy
PARTS, PART_ROWS = 16, 1024  # rows side by side: as many parts, none shorter


@contextmanager
def all_cores(m: int) -> Iterator[Run]:
    """Runs on all cores of this process: blocks in threads with one core each; with very many
    inducing points, whose sums are large, one block after the other, in which BLAS has all
    cores."""
    if m >= THREADED:
        with limited(cpus_here()):
            yield in_order
        return
    with side_by_side(cpus_here()) as run:
        yield run


def part_spans(n: int, m: int) -> list[tuple[int, int]]:
    """How n rows in memory are cut: a rule of n and m alone, so results do not depend on cores."""
    size = n if m >= THREADED else max(PART_ROWS, -(-n // PARTS))
    return [(first, min(first + size, n)) for first in range(0, n, size)]


def evaluated(
    parts: Sequence[Part], space: Space, u: Float64, *, jitter: float, run: Run = in_order
) -> tuple[float, Float64]:
    """-F / (n t) and its gradient at u, of all rows; parts: their targets standardised.

    Where a factor fails, infinity: the optimiser went too far, and steps back.
    """
    trial = space.trial(u, parts[0].Y.shape[1])
    try:
        whitening = Whitening.of(trial.kernel, trial.Z, jitter=jitter)
        n, m = sum(len(part.Y) for part in parts), len(trial.Z)
        kept: list[list[Float64]] | None = None
        if 8 * n * m <= KEPT_NBYTES:
            kept = [[] for _ in parts]
        statistics = tree_sum(run(_gram(whitening, parts, kept), len(parts)))
        bound = collapsed_bound(statistics, trial.noise)
    except (InputError, FloatingPointError):
        return np.inf, np.full(len(u), np.nan)

    pulled = Pulled.of(whitening, bound.cotangents)

    def gradient(i: int) -> KernelGradients:
        X, Y, weights = parts[i]
        return gradient_block(
            *(whitening, X, Y, pulled),
            weights=weights,
            kept=None if kept is None else kept[i],
            inputs=space.moved,
        )

    total = tree_sum(run(gradient, len(parts)))
    total += inducing_gradient(whitening, statistics, bound.cotangents, inputs=space.moved)
    return space.slope(trial, bound, total, statistics.n)


def summed(
    parts: Sequence[Part], trial: Trial, *, jitter: float, run: Run = in_order
) -> tuple[Whitening, GramStatistics]:
    """The statistics of all rows at a trial."""
    whitening = Whitening.of(trial.kernel, trial.Z, jitter=jitter)
    return whitening, tree_sum(run(_gram(whitening, parts, None), len(parts)))


def _gram(
    whitening: Whitening, parts: Sequence[Part], kept: list[list[Float64]] | None
) -> Callable[[int], GramStatistics]:
    def gram(i: int) -> GramStatistics:
        X, Y, weights = parts[i]
        mine = None if kept is None else kept[i]
        return gram_block(whitening, X, Y, weights=weights, kept=mine)

    return gram
