"""Hyper-parameters of an exact Gaussian process on small subsets, by maximum likelihood.

    F = sum over subsets of  -1/2 y^T K^-1 y - 1/2 log |K| - n/2 log(2 pi),     K = k(X, X) + s I

Subsets count as independent: the likelihood of a block-diagonal K, a sum of terms of O(b^3) for b
rows each. Lengthscales are first tried at the kernel's own and at some multiples of the spread of
the columns, so that rows in any unit are fine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from simdist.measures.kernels import Kernel
from simdist.solvers.cholesky import solve_factored
from simdist.solvers.lapack import potrf, potri
from simdist.types import Array, Float64

__all__ = ["Fitted", "Subset", "fit_marginal", "marginal_likelihood"]

LEAST_NOISE, MOST_NOISE = 1e-6, 10.0  # of targets of unit variance
REACH = np.log(1e4)  # how far the logarithm of any other parameter may go from its start
WARM_ROWS, WARM_ITERATIONS = 500, 60  # on the first rows of the first subset, before all of them
MULTIPLES = (0.3, 1.0, 3.0)  # of the spread of a column times sqrt(d)
NO_FACTOR = 1e10  # what a row costs at parameters without a Cholesky factor: away from there

Check: TypeAlias = Callable[[], None]


class Subset(NamedTuple):
    """X: [b, d] rows. y: [b] targets of zero mean and unit variance."""

    X: Array
    y: Float64


@dataclass(frozen=True, slots=True)
class Fitted:
    """kernel and noise variance at the maximum. likelihood: F, nats, of all rows. evaluations: of F
    on all subsets."""

    kernel: Kernel
    noise: float
    likelihood: float
    evaluations: int


def fit_marginal(
    kernel: Kernel,
    noise: float,
    subsets: Sequence[Subset],
    *,
    iterations: int,
    check: Check | None = None,
) -> Fitted:
    """The kernel and noise of most likelihood, by L-BFGS.

    kernel: without White, for the rows' columns; where to start. noise: its variance to start with.
    iterations: at most; 0 takes both as they are. Noise stays within 1e-6 and 10 of the targets'
    variance.
    Cost: about 1.5 b^3 flops and one kernel matrix for each subset and evaluation.
    """
    noise = float(np.clip(noise, LEAST_NOISE, MOST_NOISE))
    theta = np.append(kernel.theta, np.log(noise))
    objective = _Objective(kernel, subsets, check)
    if iterations == 0:
        likelihood = sum(marginal_likelihood(kernel, noise, subset)[0] for subset in subsets)
        return Fitted(kernel, noise, likelihood, len(subsets))
    if len(theta) > 1:
        first = Subset(subsets[0].X[:WARM_ROWS], subsets[0].y[:WARM_ROWS])
        warm = _Objective(kernel, [first], check)
        starts = [theta, *_starts(kernel, theta, subsets[0].X)]
        theta = min(starts, key=lambda start: warm(start)[0])
        theta = _minimised(warm, theta, min(WARM_ITERATIONS, 2 * iterations))
    theta = _minimised(objective, theta, iterations)
    value, _ = objective(theta)
    kernel = kernel.with_theta(theta[:-1])
    return Fitted(kernel, float(np.exp(theta[-1])), -value, objective.evaluations)


def marginal_likelihood(kernel: Kernel, noise: float, subset: Subset) -> tuple[float, Float64]:
    """F of one subset and its gradient by (kernel.theta, log noise) [p + 1].

    -inf, and a gradient of zeros, where K has no Cholesky factor.
    """
    X, y = np.asarray(subset.X, np.float64), subset.y
    K, pullback = kernel.matrix_and_vjp(X, X)
    L = np.array(K.T, order="F")
    L[np.diag_indices(len(y))] += noise
    if potrf(L):
        return -np.inf, np.zeros(len(kernel.theta) + 1)
    alpha = solve_factored(L, y)
    value = -0.5 * float(y @ alpha) - float(np.log(np.diagonal(L)).sum())
    potri(L)
    C = np.tril(L, -1)
    C = -0.5 * (C + C.T + np.diag(np.diagonal(L)))
    C += 0.5 * np.outer(alpha, alpha)
    slope = np.append(pullback(C, inputs=False).theta, noise * float(np.trace(C)))
    return value - 0.5 * len(y) * float(np.log(2.0 * np.pi)), slope


class _Objective:
    """-F of all subsets, and its gradient, as a minimiser asks for them."""

    def __init__(self, kernel: Kernel, subsets: Sequence[Subset], check: Check | None) -> None:
        self.kernel, self.subsets, self.check = kernel, subsets, check
        self.evaluations = 0

    def __call__(self, theta: Float64) -> tuple[float, Float64]:
        kernel, noise = self.kernel.with_theta(theta[:-1]), float(np.exp(theta[-1]))
        self.evaluations += 1
        value, slope = 0.0, np.zeros(len(theta))
        for subset in self.subsets:
            if self.check is not None:
                self.check()
            found, gradient = marginal_likelihood(kernel, noise, subset)
            if not (np.isfinite(found) and np.isfinite(gradient).all()):
                return NO_FACTOR * sum(len(s.y) for s in self.subsets), np.zeros(len(theta))
            value, slope = value - found, slope - gradient
        return value, slope


def _minimised(objective: _Objective, theta: Float64, iterations: int) -> Float64:
    from scipy.optimize import minimize  # noqa: PLC0415 - half a second that planning does not need

    reach = [(float(value - REACH), float(value + REACH)) for value in theta[:-1]]
    noise = (float(np.log(LEAST_NOISE)), float(np.log(MOST_NOISE)))
    found = minimize(
        objective,
        theta,
        jac=True,
        method="L-BFGS-B",
        bounds=[*reach, noise],
        options={"maxiter": iterations},
    )
    best: Float64 = found.x
    return best


def _starts(kernel: Kernel, theta: Float64, X: Array) -> list[Float64]:
    """theta with every lengthscale at some multiples of its columns' spread."""
    spread = np.asarray(X, np.float64).std(axis=0)
    spread[spread == 0] = 1.0
    names, d = kernel.names, X.shape[1]
    starts = []
    for multiple in MULTIPLES:
        start = theta.copy()
        for place, name in enumerate(names):
            if "lengthscale" in name:
                column = re.search(r"\[(\d+)\]", name)
                scale = spread[int(column[1])] if column else float(np.sqrt(np.mean(spread**2)))
                start[place] = np.log(multiple * np.sqrt(d) * scale)
        starts.append(start)
    return starts
