"""The collapsed bound of sparse Gaussian process regression, from the sums of a Gram pass.

    B = I + P / s        s: the noise variance of an output
    F = -n/2 log(2 pi s) + 1/2 sum log w - 1/2 log |B| - y^T y / 2s + b^T B^-1 b / 2s^2 - gap / 2s

gap = sum k(x, x) - tr P. Several outputs share the kernel, the inducing points and so P; each has
its own noise, and F is the sum. Rows with weights have noise s / w_i.
Source: Titsias, Variational learning of inducing variables in sparse Gaussian processes, 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simdist.grams import Cotangents, GramStatistics
from simdist.solvers.cholesky import solve_factored
from simdist.solvers.lapack import potrf, potri
from simdist.types import Float64

__all__ = ["Bound", "Posterior", "collapsed_bound", "posterior"]


@dataclass(frozen=True, eq=False, slots=True)
class Bound:
    """value: F, nats, of all outputs together. cotangents: its gradient by the statistics.
    noise: [t] its gradient by the noise variances."""

    value: float
    cotangents: Cotangents
    noise: Float64


@dataclass(frozen=True, eq=False, slots=True)
class Posterior:
    """What predicts, in whitened coordinates a = L^-1 k(Z, x): mean a^T alpha, and latent variance
    k(x, x) - a^T a + |L_B^-1 a|^2.

    alpha: [m, t] B^-1 b / s. factors: [t, m, m] lower Cholesky factors L_B.
    """

    alpha: Float64
    factors: Float64


def collapsed_bound(statistics: GramStatistics, noise: Float64) -> Bound:
    """F and its gradient. noise: [t] > 0. Cost: some 1.2 m^3 flops an output."""
    m, t = statistics.b.shape
    gap = statistics.trace_gap
    value, slopes = 0.0, np.empty(t)
    P_bar, b_bar = np.zeros((m, m)), np.empty((m, t))
    for j, s in enumerate(noise):
        L_B = _factor(statistics.P, float(s))
        b = statistics.b[:, j]
        alpha = solve_factored(L_B, b) / s
        half = float(np.log(np.diagonal(L_B)).sum())
        potri(L_B)
        inverse = np.tril(L_B) + np.tril(L_B, -1).T
        fit = float(b @ alpha)
        value += (
            -0.5 * statistics.n * np.log(2.0 * np.pi * s)
            + 0.5 * statistics.logw
            - half
            - 0.5 * (float(statistics.yy[j]) - fit + gap) / s
        )
        effective = m - float(np.trace(inverse))  # tr(B^-1 P) / s: parameters that are used
        slopes[j] = (
            0.5 * (effective - statistics.n - float(alpha @ alpha)) / s
            + 0.5 * (float(statistics.yy[j]) - fit + gap) / s**2
        )
        P_bar += (np.eye(m) - inverse - np.outer(alpha, alpha)) * (0.5 / s)
        b_bar[:, j] = alpha / s
    kk = -0.5 * float(np.sum(1.0 / noise))
    return Bound(float(value), Cotangents(P_bar, b_bar, kk), slopes)


def posterior(statistics: GramStatistics, noise: Float64) -> Posterior:
    """What predicts, of all rows' statistics. noise: [t]."""
    m, t = statistics.b.shape
    alpha, factors = np.empty((m, t)), np.empty((t, m, m))
    for j, s in enumerate(noise):
        L_B = factors[j] = _factor(statistics.P, float(s))
        alpha[:, j] = solve_factored(L_B, statistics.b[:, j]) / s
    return Posterior(alpha, factors)


def _factor(P: Float64, s: float) -> Float64:
    """Lower Cholesky factor of I + P / s, which has no eigenvalue below 1 - rounding."""
    B = np.array(P, order="F")
    B /= s
    B[np.diag_indices(len(B))] += 1.0
    if potrf(B, clean=True):
        raise FloatingPointError(
            f"I + P / {s:g} is not positive definite: P has an eigenvalue below -{s:g}"
        )
    return B
