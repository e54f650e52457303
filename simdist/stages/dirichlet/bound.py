"""The collapsed bound of Dirichlet classification, from sums over the rows of each class.

    t_1, s_1 = log(1 + eps) - s_1 / 2, log(1 + 1 / (1 + eps))     of a row's own class
    t_0, s_0 = log(eps) - s_0 / 2,     log(1 + 1 / eps)           of all others
    B_c = I + P / s_0 + (1 / s_1 - 1 / s_0) P_c                   P = sum of all P_c
    b_c = (t_1 - mu) / s_1 A1_c + (t_0 - mu) / s_0 (A1 - A1_c)
    F   = sum_c of  -1/2 sum log(2 pi s) - 1/2 log |B_c| - 1/2 sum (t - mu)^2 / s
                    + 1/2 b_c^T B_c^-1 b_c - 1/2 sum (k(x, x) - a^T a) / s

mu_c is the mean of class c's targets. A kernel times `scale` has P, A1^2 and k(x, x) times it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simdist.grams import GramStatistics
from simdist.solvers.cholesky import solve_factored, solve_lower
from simdist.solvers.lapack import potrf, potri
from simdist.types import Float64

__all__ = ["Bound", "ClassSums", "Posterior", "Softness", "class_bound", "posterior"]


@dataclass(frozen=True, slots=True)
class Softness:
    """eps: how soft labels are. scale: of the kernel."""

    eps: float = 0.01
    scale: float = 1.0

    @property
    def noise(self) -> tuple[float, float]:
        """s_1 of the own class, s_0 of others."""
        return float(np.log1p(1.0 / (1.0 + self.eps))), float(np.log1p(1.0 / self.eps))

    @property
    def targets(self) -> tuple[float, float]:
        """t_1 of the own class, t_0 of others."""
        s1, s0 = self.noise
        return float(np.log1p(self.eps)) - s1 / 2, float(np.log(self.eps)) - s0 / 2


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Sums over the rows of each class. P: [c, m, m] of a a^T. A1: [c, m] of a. kk: [c] of k(x, x).
    n: [c] rows. `+` adds those of other rows."""

    P: Float64
    A1: Float64
    kk: Float64
    n: Float64

    @classmethod
    def of(cls, parts: list[GramStatistics]) -> ClassSums:
        """One for each class."""
        return cls(
            np.stack([part.P for part in parts]),
            np.stack([part.A1 for part in parts]),
            np.array([part.kk for part in parts]),
            np.array([float(part.n) for part in parts]),
        )

    def __add__(self, other: ClassSums) -> ClassSums:
        return ClassSums(self.P + other.P, self.A1 + other.A1, self.kk + other.kk, self.n + other.n)

    @cached_property
    def whole(self) -> Float64:
        """P of all classes [m, m]."""
        total: Float64 = self.P.sum(axis=0)
        return total

    @property
    def trace_gap(self) -> float:
        """sum of k(x, x) - a^T a: what the inducing points leave unexplained; at least 0."""
        return float(np.maximum(self.gaps, 0.0).sum())

    @property
    def gaps(self) -> Float64:
        """[c] the same class by class."""
        found: Float64 = self.kk - np.trace(self.P, axis1=1, axis2=2)
        return found

    def means(self, softness: Softness) -> Float64:
        """[c] mu."""
        t1, t0 = softness.targets
        total = self.n.sum()
        found: Float64 = t0 + (t1 - t0) * self.n / total
        return found


@dataclass(frozen=True, eq=False, slots=True)
class Bound:
    """value: F, nats. Its gradient by the sums of each class: P [c, m, m], A1 [c, m], kk [c]."""

    value: float
    P: Float64
    A1: Float64
    kk: Float64


@dataclass(frozen=True, eq=False, slots=True)
class Posterior:
    """What predicts. mean of class c: mu_c + a^T alpha_c; variance: scale (k(x, x) - a^T a) + scale
    |L_c^-1 a|^2. alpha: [m, c], the root of scale in it. mu: [c]. factors: [c, m, m] lower L_c of
    B_c; empty where only means are wanted."""

    alpha: Float64
    mu: Float64
    factors: Float64
    scale: float

    def latent(self, A: Float64, diagonal: Float64) -> tuple[Float64, Float64]:
        """Means and variances of rows. A: [m, r], diagonal: [r] of k(x, x) -> both [r, c]."""
        mean = A.T @ self.alpha + self.mu
        rest = self.scale * np.maximum(diagonal - np.einsum("ij,ij->j", A, A), 0.0)
        variance = np.repeat(rest[:, None], len(self.mu), axis=1)
        for c, L in enumerate(self.factors):
            own = solve_lower(L, A)
            variance[:, c] += self.scale * np.einsum("ij,ij->j", own, own)
        return mean, variance


def class_bound(sums: ClassSums, softness: Softness) -> Bound:
    """F and its gradient. Cost: some 1.5 m^3 flops a class."""
    classes, m = sums.A1.shape
    (s1, s0), (t1, t0), root = softness.noise, softness.targets, softness.scale**0.5
    mu, total, all_gaps = sums.means(softness), float(sums.n.sum()), float(sums.gaps.sum())
    value, inner = 0.0, np.empty((classes, m, m))
    A1_bar = np.zeros((classes, m))
    for c in range(classes):
        L = _factor(sums, c, softness)
        b = _right_side(sums, c, softness, mu[c])
        alpha = solve_factored(L, b)
        half = float(np.log(np.diagonal(L)).sum())
        potri(L)
        inverse = np.tril(L) + np.tril(L, -1).T
        inner[c] = 0.5 * softness.scale * (np.eye(m) - inverse - np.outer(alpha, alpha))
        others = total - sums.n[c]
        value += (
            -0.5 * sums.n[c] * (np.log(2 * np.pi * s1) + (t1 - mu[c]) ** 2 / s1)
            - 0.5 * others * (np.log(2 * np.pi * s0) + (t0 - mu[c]) ** 2 / s0)
            - half
            + 0.5 * float(b @ alpha)
            - 0.5 * softness.scale * (sums.gaps[c] / s1 + (all_gaps - sums.gaps[c]) / s0)
        )
        A1_bar += root * (t0 - mu[c]) / s0 * alpha
        A1_bar[c] += root * ((t1 - mu[c]) / s1 - (t0 - mu[c]) / s0) * alpha
    P_bar = inner.sum(axis=0) / s0 + (1 / s1 - 1 / s0) * inner
    kk_bar = np.full(classes, -0.5 * softness.scale * (1 / s1 + (classes - 1) / s0))
    return Bound(float(value), P_bar, A1_bar, kk_bar)


def posterior(sums: ClassSums, softness: Softness, *, factors: bool = True) -> Posterior:
    """What predicts, of all rows' sums. factors: whether variances are wanted too."""
    classes, m = sums.A1.shape
    mu, alpha = sums.means(softness), np.empty((m, classes))
    kept = np.empty((classes if factors else 0, m, m))
    for c in range(classes):
        L = _factor(sums, c, softness)
        b = _right_side(sums, c, softness, mu[c])
        alpha[:, c] = softness.scale**0.5 * solve_factored(L, b)
        if factors:
            kept[c] = L
    return Posterior(alpha, mu, kept, softness.scale)


def _factor(sums: ClassSums, c: int, softness: Softness) -> Float64:
    """Lower Cholesky factor of B_c, which has no eigenvalue below 1 - rounding."""
    s1, s0 = softness.noise
    B = np.array(sums.whole, order="F")
    B *= softness.scale / s0
    B += softness.scale * (1 / s1 - 1 / s0) * sums.P[c]
    B[np.diag_indices(len(B))] += 1.0
    if potrf(B, clean=True):
        raise FloatingPointError(f"B of class {c} is not positive definite at {softness}")
    return B


def _right_side(sums: ClassSums, c: int, softness: Softness, mu: float) -> Float64:
    (s1, s0), (t1, t0) = softness.noise, softness.targets
    others = sums.A1.sum(axis=0) - sums.A1[c]
    made: Float64 = softness.scale**0.5 * ((t1 - mu) / s1 * sums.A1[c] + (t0 - mu) / s0 * others)
    return made
