"""Inducing points, the kernel by the bound on a subset, and the settling on held-out rows.

Pure functions on arrays: the stages and the estimator call the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from simdist.grams import Cotangents, Whitening, gradient_block, gram_block
from simdist.measures.kernels import Kernel
from simdist.solvers.cholesky import factored_vjp, solve_lower_t
from simdist.stages.dirichlet.bound import (
    Bound,
    ClassSums,
    Posterior,
    Softness,
    class_bound,
    posterior,
)
from simdist.stages.dirichlet.calibrate import (
    Sharpness,
    classification_report,
    log_loss,
    probabilities,
    sharpness_of,
)
from simdist.types import Array, Float64, Ids, Json

__all__ = ["Rows", "Settled", "class_sums", "fit_kernel", "settle"]

FIT_INDUCING = 256  # points with which the kernel is learned
TRY_INDUCING = 1024  # with which lengthscales are tried: more points bear shorter ones
TRIED = (1.0, 0.7, 0.5, 0.35, 0.25)  # of the lengthscales of the largest bound
MULTIPLES = (0.1, 0.3, 1.0)  # of the rows' spread, where lengthscales are tried first
REACH = float(np.log(1e4))  # how far the logarithm of a parameter may go from its start
SCALES = (1.0, 4.0, 16.0, 64.0, 0.25)  # of the kernel, tried on held-out rows
SOFTNESSES = (0.01, 0.001, 0.1)
FEWEST_HELD = 8  # rows that can choose anything
NO_FACTOR = 1e10

Check: TypeAlias = Callable[[], None]


class Rows(NamedTuple):
    """X: [r, d]. codes: [r] classes from 0 on."""

    X: Array
    codes: Ids


@dataclass(frozen=True, eq=False, slots=True)
class Settled:
    """posterior: of all rows. softness, sharpness: as chosen. held_out: scores of the held-out
    rows, half by half with what the other half chose; None of too few rows."""

    posterior: Posterior
    softness: Softness
    sharpness: Sharpness
    held_out: dict[str, Json] | None


def class_sums(
    whitening: Whitening, rows: Rows, classes: int, *, check: Check | None = None
) -> ClassSums:
    """Sums over some rows, class by class."""
    ones = np.ones(len(rows.codes))
    own = [np.flatnonzero(rows.codes == c) for c in range(classes)]
    return ClassSums.of(
        [gram_block(whitening, rows.X[some], ones[some], check=check) for some in own]
    )


def fit_kernel(
    kernel: Kernel,
    rows: Rows,
    classes: int,
    Z: Array,
    *,
    iterations: int,
    check: Check | None = None,
) -> tuple[Kernel, float, int]:
    """The kernel of the largest bound on a subset, the bound, and how often it was computed.

    Z: [m, d] inducing points, of which the first 256 are used. iterations: of L-BFGS, at most; 0
    takes the kernel as it is. Few points favour long lengthscales: shorter ones are tried with more
    points, by the log loss of a quarter of the subset.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - half a second that planning does not need

    objective = _Objective(kernel, rows, classes, np.asarray(Z[:FIT_INDUCING], np.float64), check)
    if iterations == 0 or not len(kernel.theta):
        return kernel, -objective(kernel.theta)[0], 1
    starts = [kernel.theta, *_starts(kernel, rows.X)]
    theta = min(starts, key=lambda start: objective(start)[0])
    found = minimize(
        objective,
        theta,
        jac=True,
        method="L-BFGS-B",
        bounds=[(float(value) - REACH, float(value) + REACH) for value in theta],
        options={"maxiter": iterations},
    )
    kernel = _shortened(kernel.with_theta(found.x), rows, classes, Z[:TRY_INDUCING], check)
    return kernel, -float(found.fun), objective.evaluations


def _shortened(kernel: Kernel, rows: Rows, classes: int, Z: Array, check: Check | None) -> Kernel:
    """The kernel with the multiple of its lengthscales that predicts a quarter of the rows best."""
    quarter = np.arange(len(rows.codes)) % 4 == 0
    held = Rows(rows.X[quarter], rows.codes[quarter])
    rest = Rows(rows.X[~quarter], rows.codes[~quarter])
    lengths = np.array(["lengthscale" in name for name in kernel.names])
    if len(held.codes) < FEWEST_HELD or classes == 1 or not lengths.any():
        return kernel
    best, least = kernel, np.inf
    for multiple in TRIED:
        tried = kernel.with_theta(kernel.theta + np.log(multiple) * lengths)
        whitening = Whitening.of(tried, Z)
        sums, A = class_sums(whitening, rest, classes, check=check), whitening.columns(held.X)
        loss = min(_loss(sums, A, held.codes, Softness(scale=scale)) for scale in SCALES[:4])
        if loss < least:
            best, least = tried, loss
    return best


def settle(
    whitening: Whitening,
    sums: ClassSums,
    held: Rows,
    *,
    check: Check | None = None,
) -> Settled:
    """Choose softness, scale and sharpness on held-out rows, then add these to the sums.

    sums: of all other rows. held: may be empty.
    """
    classes = len(sums.n)
    everything = sums + class_sums(whitening, held, classes, check=check)
    if len(held.codes) < FEWEST_HELD or classes == 1:
        softness = Softness()
        return Settled(posterior(everything, softness), softness, Sharpness(), None)
    A = whitening.columns(held.X)
    softness = _softness_of(sums, A, held.codes, check)
    diagonal = whitening.kernel.diagonal(held.X)
    mean, variance = posterior(sums, softness).latent(A, diagonal)
    p = np.empty_like(mean)
    halves = (slice(0, None, 2), slice(1, None, 2))
    for half, other in (halves, halves[::-1]):
        chosen = sharpness_of(mean[other], variance[other], held.codes[other])
        p[half] = probabilities(mean[half], variance[half], chosen)
    return Settled(
        posterior(everything, softness),
        softness,
        sharpness_of(mean, variance, held.codes),
        classification_report(p, held.codes),
    )


def _softness_of(sums: ClassSums, A: Float64, codes: Ids, check: Check | None) -> Softness:
    """The scale first, at the usual eps, then eps: each by log loss at its best temperature."""
    best, least = Softness(), np.inf
    for scale in SCALES:
        found = _loss(sums, A, codes, tried := Softness(SOFTNESSES[0], scale), check)
        if found < least:
            best, least = tried, found
    scale = best.scale
    for eps in SOFTNESSES[1:]:
        found = _loss(sums, A, codes, tried := Softness(eps, scale), check)
        if found < least:
            best, least = tried, found
    return best


def _loss(
    sums: ClassSums, A: Float64, codes: Ids, softness: Softness, check: Check | None = None
) -> float:
    """Log loss of rows by their latent means at the best temperature. A: [m, r]."""
    if check is not None:
        check()
    found = posterior(sums, softness, factors=False)
    mean = A.T @ found.alpha + found.mu
    nothing = np.zeros_like(mean)
    best = sharpness_of(mean, nothing, codes, kappas=(0.0,))
    return log_loss(probabilities(mean, nothing, best), codes)


class _Objective:
    """-F of a subset by the kernel's theta, and its gradient."""

    def __init__(
        self, kernel: Kernel, rows: Rows, classes: int, Z: Float64, check: Check | None
    ) -> None:
        self.kernel, self.Z, self.check = kernel, Z, check
        self.parts = [rows.X[rows.codes == c] for c in range(classes)]
        self.size = len(rows.codes) * classes
        self.evaluations = 0

    def __call__(self, theta: Float64) -> tuple[float, Float64]:
        self.evaluations += 1
        if self.check is not None:
            self.check()
        whitening = Whitening.of(self.kernel.with_theta(theta), self.Z)
        kept: list[list[Float64]] = [[] for _ in self.parts]
        sums = ClassSums.of(
            [
                gram_block(whitening, X, np.ones(len(X)), kept=blocks)
                for X, blocks in zip(self.parts, kept, strict=True)
            ]
        )
        bound = class_bound(sums, Softness())
        slope = _gradient(whitening, self.parts, kept, sums, bound)
        if not (np.isfinite(bound.value) and np.isfinite(slope).all()):
            return NO_FACTOR * self.size, np.zeros(len(theta))
        return -bound.value, -slope


def _gradient(
    whitening: Whitening,
    parts: Sequence[Array],
    kept: Iterable[list[Float64]],
    sums: ClassSums,
    bound: Bound,
) -> Float64:
    """dF/dtheta [p]: through the rows of each class, and once through K_uu."""
    total = np.zeros(len(whitening.kernel.theta))
    m = whitening.m
    outer = np.zeros((m, m))
    for c, (X, blocks) in enumerate(zip(parts, kept, strict=True)):
        cotangents = Cotangents(bound.P[c], bound.A1[c][:, None], float(bound.kk[c]))
        outer += 2.0 * bound.P[c] @ sums.P[c] + np.outer(bound.A1[c], sums.A1[c])
        if len(X):
            ones = np.ones(len(X))
            total += gradient_block(whitening, X, ones, cotangents, kept=blocks).theta
    L_bar = -solve_lower_t(whitening.L, np.asfortranarray(outer), overwrite=True)
    K_bar = factored_vjp(whitening.L, L_bar)
    total += whitening.kernel.vjp(whitening.Z, whitening.Z, K_bar, inputs=False).theta
    jitter = np.full(m, whitening.jitter * float(np.trace(K_bar)) / m)
    total += whitening.kernel.vjp_diagonal(whitening.Z, jitter, inputs=False).theta
    return total


def _starts(kernel: Kernel, X: Array) -> list[Float64]:
    """theta with every lengthscale at some multiples of how far rows lie from their mean."""
    rows = np.asarray(X, np.float64)
    spread = float(np.sqrt(rows.var(axis=0).sum())) or 1.0
    starts = []
    for multiple in MULTIPLES:
        start = kernel.theta
        for place, name in enumerate(kernel.names):
            if "lengthscale" in name:
                start[place] = np.log(multiple * spread)
        starts.append(start)
    return starts
