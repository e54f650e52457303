"""Kernel ridge regression on the features of centres, from the sums of one pass over the rows.

P, b, A1, ... ──> around the means, where a constant is fitted ──> v(alpha) for every alpha
                                                                        │
rows once more: errors of each row left out, or of rows held out <──────┘   only where alphas
                                                                            are to be chosen
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from simdist.grams import GramStatistics, Whitening, gram_block, spans, tree_sum
from simdist.solvers.ridge import RidgePath, ridge_coefficients, ridge_path
from simdist.stages.machines.centers import Chosen
from simdist.stages.machines.config import RidgeConfig
from simdist.stages.machines.machine import Machine, unwhitened
from simdist.stages.machines.rows import Rows, refuse_no_weight, rows_of
from simdist.types import Array, Float64, Json

__all__ = [
    "Around",
    "RidgeFit",
    "around",
    "best_alpha",
    "fit_ridge",
    "judge_block",
    "judged",
    "path_of",
    "ridge_machine",
    "ridge_metrics",
    "shares",
]

KEPT_NBYTES = 256 << 20  # of features that a fit of arrays keeps, rather than make them twice
BLOCK_NBYTES = 16 << 20


@dataclass(frozen=True, eq=False, slots=True)
class Around:
    """The sums of a pass around the means, where a constant is fitted; else about 0.

    P: [m, m], b: [m, t], yy: [t]. a: [m] and y: [t] the means (0 where none). w: sum of weights.
    """

    P: Float64
    b: Float64
    yy: Float64
    a: Float64
    y: Float64
    w: float


@dataclass(frozen=True, eq=False, slots=True)
class RidgeFit:
    """machine: what predicts. alpha: taken. errors: [a, t] root mean squares of the choice, one row
    for each alpha, or None where there was nothing to choose. metrics: what a manifest says."""

    machine: Machine
    alpha: float
    errors: Float64 | None
    metrics: dict[str, Json]


def around(sums: GramStatistics, *, intercept: bool) -> Around:
    """The sums around the means: see `Around`."""
    if not intercept or sums.w <= 0:
        m, t = sums.b.shape
        return Around(sums.P, sums.b, sums.yy, np.zeros(m), np.zeros(t), sums.w)
    a, y = sums.A1 / sums.w, sums.y1 / sums.w
    P = sums.P - np.outer(sums.A1, a)
    yy = np.maximum(sums.yy - sums.w * y * y, 0.0)
    return Around(P, sums.b - np.outer(sums.A1, y), yy, a, y, sums.w)


def path_of(sums: GramStatistics, config: RidgeConfig) -> tuple[Around, RidgePath]:
    """Every alpha's solution at once."""
    found = around(sums, intercept=config.intercept)
    return found, ridge_path(found.P, found.b)


def judged(
    A: Float64,
    Y: Float64,
    weights: Array | None,
    about: Around,
    path: RidgePath,
    config: RidgeConfig,
) -> Float64:
    """[a, t] sums of squared errors of some rows under every alpha. A: [m, r]. Y: [r, t].

    Rows held out are predicted as any row is; others each by a fit to all but it.
    """
    r = len(Y)
    w = np.ones(r) if weights is None else np.asarray(weights, np.float64)
    own = w if config.choice == "leave_one_out" else np.zeros(r)
    before = own / about.w if config.intercept else np.zeros(r)
    left = path.left_out(
        A.T - about.a, Y - about.y, np.array(config.alphas), weights=own, before=before
    )
    return np.asarray(np.einsum("art,r->at", np.square(left), w))


def best_alpha(squares: Float64, about: Around, config: RidgeConfig) -> int:
    """Which alpha has the least error, every target measured by its own spread."""
    spread = np.where(about.yy > 0, about.yy, 1.0)
    return int(np.argmin((squares / spread).sum(axis=1)))


def ridge_machine(
    whitening: Whitening, sums: GramStatistics, alpha: float, *, intercept: bool
) -> tuple[Machine, Float64]:
    """The machine of one alpha, and [t] its sums of squared errors on the rows of the sums."""
    about = around(sums, intercept=intercept)
    v = ridge_coefficients(about.P, about.b, alpha)
    offsets = about.y - about.a @ v
    machine = Machine(whitening.kernel, whitening.Z, unwhitened(whitening, v), offsets)
    fitted = np.einsum("mt,mt->t", v, about.P @ v - 2.0 * about.b) + about.yy
    return machine, np.maximum(fitted, 0.0)


def ridge_metrics(
    config: RidgeConfig,
    chosen: dict[str, Json],
    sums: GramStatistics,
    *,
    alpha: float,
    fitted: Float64,
    squares: Float64 | None,
    judged_weight: float,
) -> dict[str, Json]:
    """What a manifest says of a fit. fitted: [t] squared errors on the rows. squares: [a, t] of the
    choice, over rows of weight `judged_weight`."""
    spread = np.maximum(sums.yy - sums.y1**2 / sums.w, 0.0)
    metrics: dict[str, Json] = {
        **chosen,
        "solver": "direct",
        "alpha": alpha,
        "alphas": list(config.alphas),
        "targets": list(config.targets),
        "trained_rows": sums.n,
        "intercept": config.intercept,
        "fitted_rmse": np.sqrt(fitted / sums.w).tolist(),
        "fitted_r2": shares(fitted, spread),
        "trace_gap": sums.trace_gap / sums.kk if sums.kk > 0 else 0.0,
        "passes": 1 if squares is None else 2,
    }
    if squares is not None:
        metrics["choice"] = config.choice
        metrics["choice_rmse"] = np.sqrt(squares / judged_weight).tolist()
    return metrics


def fit_ridge(
    rows: Rows,
    chosen: Chosen,
    config: RidgeConfig,
    *,
    check: Callable[[], None] | None = None,
) -> RidgeFit:
    """A fit of arrays: the rounds of the stage, one after another."""
    whitening, n = chosen.whitening, len(rows.Y)
    cuts = spans(n, whitening.m, rows.X.shape[1])
    out = config.chooses and config.choice == "held_out"
    blocks: list[list[Float64]] | None = None  # kept where they are looked at twice, and few
    if config.chooses and not out and rows.weights is None:
        blocks = [[] for _ in cuts] if 8 * n * whitening.m <= KEPT_NBYTES else None

    def span(first: int, last: int, *, held: bool) -> Rows:
        weights = None if rows.weights is None else rows.weights[first:last]
        part = Rows(rows.X[first:last], rows.Y[first:last], weights)
        return rows_of(part, first, config, held=held)

    def sums_over(*, held: bool) -> GramStatistics:
        parts = []
        for place, cut in enumerate(cuts):
            X, Y, weights = span(*cut, held=held)
            kept = None if blocks is None else blocks[place]
            parts.append(gram_block(whitening, X, Y, weights=weights, kept=kept, check=check))
        return tree_sum(parts)

    sums = sums_over(held=False)
    refuse_no_weight(sums.w)
    alpha, squares, judged_weight = config.alphas[0], None, sums.w
    if config.chooses:
        about, path = path_of(sums, config)
        squares = np.zeros((len(config.alphas), rows.Y.shape[1]))
        for place, cut in enumerate(cuts):
            kept = None if blocks is None else blocks[place]
            part = span(*cut, held=out)
            squares += judge_block(whitening, part, about, path, config, blocks=kept, check=check)
        alpha = config.alphas[best_alpha(squares, about, config)]
        if out:
            rest = sums_over(held=True)
            judged_weight, sums = rest.w, sums + rest
    machine, fitted = ridge_machine(whitening, sums, alpha, intercept=config.intercept)
    facts = chosen.facts()
    metrics = ridge_metrics(
        config,
        facts,
        sums,
        alpha=alpha,
        fitted=fitted,
        squares=squares,
        judged_weight=judged_weight,
    )
    errors = None if squares is None else np.sqrt(squares / judged_weight)
    return RidgeFit(machine, alpha, errors, metrics)


def judge_block(
    whitening: Whitening,
    rows: Rows,
    about: Around,
    path: RidgePath,
    config: RidgeConfig,
    *,
    blocks: Sequence[Float64] | None = None,
    check: Callable[[], None] | None = None,
) -> Float64:
    """`judged` of some rows, in blocks. blocks: their features as the pass left them."""
    X, Y, weights = rows
    total = np.zeros((len(config.alphas), Y.shape[1]))
    step = max(256, BLOCK_NBYTES // (8 * whitening.m))
    sizes = [step] * -(-len(Y) // step) if blocks is None else [A.shape[1] for A in blocks]
    first = 0
    for place, size in enumerate(sizes):
        if check is not None:
            check()
        part = slice(first, first + size)
        A = whitening.columns(X[part]) if blocks is None else blocks[place]
        w = None if weights is None else weights[part]
        total += judged(A, Y[part], w, about, path, config)
        first += size
    return total


def shares(errors: Float64, spread: Float64) -> list[Json]:
    """R^2 of every target; None of one that is constant."""
    return [
        1.0 - float(e) / float(s) if s > 0 else None for e, s in zip(errors, spread, strict=True)
    ]
