"""Kernel ridge regression by conjugate gradients: P is never made, only products with it.

    (P + alpha I) v = b      P p = L^-1 K_uf (K_fu (L^-T p))      one pass a step, m numbers back
    M = share L^T L + alpha I, share = weight of the rows / centres: P as it would be if all rows
        were the centres, share times each (Rudi, Carratino, Rosasco: Falkon, NIPS 2017)

With M a handful of steps will do where the centres are drawn from the rows. Around the means, where
a constant is fitted: P - w a a^T takes the place of P.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simdist.errors import InputError
from simdist.grams import Whitening, spans
from simdist.solvers.cg import CgState, Precondition, cg_start, cg_step, relative
from simdist.solvers.cholesky import solve_lower, solve_lower_t
from simdist.stages.machines.centers import Chosen
from simdist.stages.machines.config import RidgeConfig
from simdist.stages.machines.machine import Machine, unwhitened
from simdist.stages.machines.ridge import RidgeFit, shares
from simdist.stages.machines.rows import Rows, refuse_no_weight, rows_of
from simdist.types import Float64, Json

__all__ = [
    "Targets",
    "add_targets",
    "best_of",
    "errors_of",
    "falkon_machine",
    "falkon_metrics",
    "fit_falkon",
    "preconditioner",
    "product_block",
    "right_side",
    "solved_with",
    "target_block",
    "whitened_image",
]

BLOCK_NBYTES = 16 << 20


@dataclass(frozen=True, eq=False, slots=True)
class Targets:
    """Sums over rows that do not change from step to step. ky: [m, t] of w k(Z, x) y. k: [m] of
    w k(Z, x). y, yy: [t] of w y, w y^2. w: of weights. n: rows."""

    ky: Float64
    k: Float64
    y: Float64
    yy: Float64
    w: float
    n: int


def target_block(
    whitening: Whitening, rows: Rows, check: Callable[[], None] | None = None
) -> Targets:
    """The sums of some rows. Cost: r m (d + t) 2 flops."""
    X, Y, weights = rows
    w = np.ones(len(Y)) if weights is None else np.asarray(weights, np.float64)
    m, t = whitening.m, Y.shape[1]
    ky, k = np.zeros((m, t)), np.zeros(m)
    for part in _blocks(len(Y), m):
        if check is not None:
            check()
        K = whitening.kernel.matrix(X[part], whitening.Z)
        ky += K.T @ (w[part, None] * Y[part])
        k += w[part] @ K
    return Targets(ky, k, w @ Y, w @ np.square(Y), float(w.sum()), len(Y))


def add_targets(parts: list[Targets]) -> Targets:
    """Sums of all rows, in the order given."""
    first, *rest = parts
    for part in rest:
        first = Targets(
            first.ky + part.ky,
            first.k + part.k,
            first.y + part.y,
            first.yy + part.yy,
            first.w + part.w,
            first.n + part.n,
        )
    refuse_no_weight(first.w)
    return first


def product_block(
    whitening: Whitening, rows: Rows, W: Float64, check: Callable[[], None] | None = None
) -> Float64:
    """sum over some rows of w k(Z, x) (k(x, Z) W): [m, c]. Cost: r m (d + 2 c) 2 flops."""
    X, _, weights = rows
    out = np.zeros(W.shape)
    for part in _blocks(len(X), whitening.m):
        if check is not None:
            check()
        K = whitening.kernel.matrix(X[part], whitening.Z)
        F = K @ W
        if weights is not None:
            F *= weights[part, None]
        out += K.T @ F
    return out


def right_side(whitening: Whitening, sums: Targets, *, intercept: bool) -> tuple[Float64, Float64]:
    """b: [m, t], and the mean of the features [m]; 0 where no constant is fitted."""
    b = solve_lower(whitening.L, np.array(sums.ky, order="F"), overwrite=True)
    if not intercept:
        return b, np.zeros(whitening.m)
    a = solve_lower(whitening.L, np.array(sums.k[:, None], order="F"))[:, 0] / sums.w
    return b - np.outer(a, sums.y), a


def preconditioner(whitening: Whitening, weight: float, alpha: float) -> Float64:
    """Lower Cholesky factor of M, Fortran order. Cost: 4/3 m^3 flops; holds two m x m.

    Raises InputError where alpha is so small that M is singular to rounding.
    """
    from scipy.linalg import blas, lapack  # noqa: PLC0415 - only where something is fitted

    L = whitening.L
    M = blas.dsyrk(weight / whitening.m, L, trans=1, lower=1)
    M[np.diag_indices(len(M))] += alpha
    R, info = lapack.dpotrf(M, lower=1, clean=1, overwrite_a=1)
    if info:
        raise InputError(
            f"alpha={alpha:g} is too small for {whitening.m} centres and conjugate gradients: the"
            " preconditioner is singular to rounding. Raise alpha, or use fewer centres and"
            " solver='direct'."
        )
    return np.asarray(R)


def solved_with(R: Float64) -> Precondition:
    """M^-1 by its Cholesky factor."""

    def apply(r: Float64) -> Float64:
        return solve_lower_t(R, solve_lower(R, np.array(r, order="F"), overwrite=True))

    return apply


def whitened_image(
    whitening: Whitening, product: Float64, p: Float64, alpha: float, a: Float64, w: float
) -> Float64:
    """(P - w a a^T + alpha I) p, from the sums of `product_block` with L^-T p."""
    q = solve_lower(whitening.L, np.array(product, order="F"), overwrite=True)
    return np.asarray(q + alpha * p - w * np.outer(a, a @ p))


def falkon_machine(
    whitening: Whitening, v: Float64, sums: Targets, a: Float64, intercept: bool
) -> Machine:
    """The machine of whitened coefficients v [m, t]."""
    offsets = sums.y / sums.w - a @ v if intercept else np.zeros(v.shape[1])
    return Machine(whitening.kernel, whitening.Z, unwhitened(whitening, v), offsets)


def errors_of(machine: Machine, rows: Rows) -> Float64:
    """[t] sums of squared errors."""
    X, Y, weights = rows
    squares = np.square(machine(X) - Y)
    return np.asarray(squares.sum(axis=0) if weights is None else weights @ squares)


def best_of(squares: Float64, sums: Targets) -> int:
    """Which alpha has the least error, every target measured by its own spread. squares: [a, t]."""
    spread = np.maximum(sums.yy - sums.y**2 / sums.w, 0.0)
    return int(np.argmin((squares / np.where(spread > 0, spread, 1.0)).sum(axis=1)))


def falkon_metrics(
    config: RidgeConfig,
    chosen: dict[str, Json],
    sums: Targets,
    *,
    alpha: float,
    fitted: Float64,
    residual: float,
    steps: int,
) -> dict[str, Json]:
    """What a manifest says of a fit. fitted: [t] squared errors on its rows."""
    spread = np.maximum(sums.yy - sums.y**2 / sums.w, 0.0)
    return {
        **chosen,
        "solver": "cg",
        "alpha": alpha,
        "alphas": list(config.alphas),
        "targets": list(config.targets),
        "trained_rows": sums.n,
        "intercept": config.intercept,
        "fitted_rmse": np.sqrt(fitted / sums.w).tolist(),
        "fitted_r2": shares(fitted, spread),
        "residual": residual,
        "state": "converged" if residual <= config.tolerance else "unconverged",
        "steps": steps,
    }


def fit_falkon(
    rows: Rows, chosen: Chosen, config: RidgeConfig, *, check: Callable[[], None] | None = None
) -> RidgeFit:
    """A fit of arrays: the rounds of the stage, one after another."""
    cuts = spans(len(rows.Y), chosen.whitening.m, rows.X.shape[1])

    def taken(held: bool | None) -> list[Rows]:
        out = []
        for first, last in cuts:
            w = None if rows.weights is None else rows.weights[first:last]
            part = Rows(rows.X[first:last], rows.Y[first:last], w)
            out.append(rows_of(part, first, config, held=held))
        return out

    alphas, squares, w = config.alphas, None, 0.0
    if config.chooses:
        machines, sums, _, _ = _solved(taken(False), chosen, config, alphas, check)
        held = taken(True)
        w = sum(part.weight for part in held)
        refuse_no_weight(w)
        squares = np.array([sum(errors_of(machine, p) for p in held) for machine in machines])
        alphas = (alphas[best_of(squares, sums)],)
    machines, sums, residual, steps = _solved(taken(None), chosen, config, alphas, check)
    fitted = np.sum([errors_of(machines[0], part) for part in taken(None)], axis=0)
    facts = chosen.facts()
    metrics = falkon_metrics(
        config, facts, sums, alpha=alphas[0], fitted=fitted, residual=residual, steps=steps
    )
    errors = None if squares is None else np.sqrt(squares / w)
    if errors is not None:
        metrics |= {"choice": config.choice, "choice_rmse": errors.tolist()}
    return RidgeFit(machines[0], alphas[0], errors, metrics)


def _solved(
    parts: list[Rows],
    chosen: Chosen,
    config: RidgeConfig,
    alphas: tuple[float, ...],
    check: Callable[[], None] | None,
) -> tuple[list[Machine], Targets, float, int]:
    """A machine for each alpha, all columns in one pass a step; sums, largest residual, steps."""
    whitening = chosen.whitening
    sums = add_targets([target_block(whitening, part, check) for part in parts])
    b, a = right_side(whitening, sums, intercept=config.intercept)
    inverses = [solved_with(preconditioner(whitening, sums.w, alpha)) for alpha in alphas]
    states = [cg_start(b, inverse) for inverse in inverses]
    steps, t = 0, b.shape[1]
    while _residual(states) > config.tolerance and steps < config.max_steps:
        W = unwhitened(whitening, np.concatenate([state.p for state in states], axis=1))
        product = np.sum([product_block(whitening, part, W, check) for part in parts], axis=0)
        for j, alpha in enumerate(alphas):
            own = product[:, j * t : (j + 1) * t]
            q = whitened_image(whitening, own, states[j].p, alpha, a, sums.w)
            states[j] = cg_step(states[j], q, inverses[j])
        steps += 1
    machines = [falkon_machine(whitening, state.x, sums, a, config.intercept) for state in states]
    return machines, sums, _residual(states), steps


def _residual(states: list[CgState]) -> float:
    return max(float(relative(state).max(initial=0.0)) for state in states)


def _blocks(n: int, m: int) -> list[slice]:
    step = max(256, BLOCK_NBYTES // (8 * m))
    return [slice(first, min(first + step, n)) for first in range(0, n, step)]
