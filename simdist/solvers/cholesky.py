"""Cholesky factors of kernel matrices: with jitter that is told, pivoted, and backwards.

    K + jitter I = L L^T            jitter relative to the mean of K's diagonal
    pivots                          rows in order of what the rows before leave unexplained
    K_bar from L_bar                the gradient through the factor (Murray 2016)

All float64. The factors are Fortran-ordered, as BLAS wants them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simdist.errors import InputError
from simdist.solvers.lapack import potrf, potrs, trmm, trsm
from simdist.types import Float64, Ids

__all__ = [
    "JITTER",
    "MOST_JITTER",
    "Factor",
    "Pivots",
    "factored",
    "factored_vjp",
    "pivoted",
    "solve_factored",
    "solve_lower",
    "solve_lower_t",
]

JITTER = 1e-8  # of the mean diagonal: above rounding of any kernel matrix of 10^4 rows
MOST_JITTER = 1e-4


@dataclass(frozen=True, slots=True)
class Factor:
    """L [m, m] lower, Fortran order, of K + added I. jitter: added, in units of K's mean diagonal;
    more than was asked for where K could not be factored with that."""

    L: Float64
    jitter: float
    added: float


def factored(K: Float64, *, jitter: float = JITTER, most: float = MOST_JITTER) -> Factor:
    """K: [m, m] symmetric, psd up to rounding -> its factor; jitter is raised tenfold until one
    is found.

    Raises InputError where K is not finite, or is no kernel matrix: not even with `most`.
    """
    diagonal = np.diagonal(K)
    scale = float(diagonal.mean())
    if not np.isfinite(scale) or not np.isfinite(K).all():
        raise InputError(
            f"a kernel matrix of {len(K)} rows is not finite: hyper-parameters or rows are too"
            " large. Scale the rows to about unit spread."
        )
    tried = jitter
    while True:
        added = tried * (scale if scale > 0 else 1.0)
        shifted = np.array(K, order="F")
        shifted[np.diag_indices(len(K))] += added
        if potrf(shifted, clean=True) == 0:
            return Factor(shifted, tried, added)
        if tried >= most:
            raise InputError(
                f"a kernel matrix of {len(K)} rows is not positive definite, even with"
                f" {tried:g} of its mean diagonal ({scale:.3g}) added to it. Use fewer inducing"
                " points, or rows that differ more."
            )
        tried = min(most, 10.0 * max(tried, 1e-14))


def solve_lower(L: Float64, B: Float64, *, overwrite: bool = False) -> Float64:
    """L^-1 B. B: [m, n]; Fortran order and `overwrite` spare a copy."""
    return _solved(L, B, overwrite, turned=False)


def solve_lower_t(L: Float64, B: Float64, *, overwrite: bool = False) -> Float64:
    """L^-T B, as `solve_lower`."""
    return _solved(L, B, overwrite, turned=True)


def solve_factored(L: Float64, b: Float64) -> Float64:
    """[m] A^-1 b, of A = L L^T. L: [m, m] in Fortran order; b: [m]."""
    found = np.array(b[:, None], order="F")
    potrs(L, found)
    return found[:, 0]


def factored_vjp(L: Float64, L_bar: Float64) -> Float64:
    """The gradient by a symmetric K of what has the gradient L_bar [m, m] by L = chol(K).

    Returns K_bar [m, m], symmetric: df = sum(K_bar dK) for symmetric dK.
    Source: Murray, Differentiation of the Cholesky decomposition, 2016, eq. 10.
    """
    inner = np.asfortranarray(np.tril(L_bar))
    trmm(L, inner, turned=True)  # L^T L_bar
    inner = np.tril(inner)
    inner[np.diag_indices(len(L))] *= 0.5
    half = solve_lower_t(L, np.asfortranarray(inner))
    whole = solve_lower_t(L, np.asfortranarray(half.T))  # (L^-T Phi L^-1)^T
    made: Float64 = 0.5 * (whole + whole.T)
    return made


def _solved(L: Float64, B: Float64, overwrite: bool, *, turned: bool) -> Float64:
    room = B if overwrite and B.flags.f_contiguous else np.array(B, order="F")
    trsm(np.asfortranarray(L), room, turned=turned)
    return room


@dataclass(frozen=True, slots=True)
class Pivots:
    """rows: [k] chosen, in order; left: [k] what each had unexplained when it was chosen.
    rest: sum of what all rows have unexplained after the last."""

    rows: Ids
    left: Float64
    rest: float


def pivoted(
    diagonal: Float64,
    column: Callable[[int], Float64],
    most: int,
    *,
    tolerance: float = 1e-10,
    check: Callable[[], None] | None = None,
) -> Pivots:
    """Rows chosen greedily by conditional variance: those of a Cholesky with diagonal pivots.

    diagonal: [n] of K. column: i -> K[:, i] [n]. most: rows wanted; fewer are chosen where no row
    has more than `tolerance` of the largest diagonal unexplained (duplicates, low rank).
    Cost: n most^2 flops, 8 n most bytes. Ties by the lower row.
    Source: Fine and Scheinberg 2001; as inducing points: Burt, Rasmussen, van der Wilk 2020.
    """
    left = np.array(diagonal, np.float64)
    most = min(most, len(left))
    least = tolerance * float(left.max(initial=0.0))
    F = np.empty((most, len(left)))
    rows, values = np.empty(most, np.int64), np.empty(most)
    for k in range(most):
        i = int(np.argmax(left))
        if not left[i] > least:
            return Pivots(rows[:k], values[:k], float(np.maximum(left, 0.0).sum()))
        if check is not None:
            check()
        rows[k], values[k] = i, left[i]
        f = np.asarray(column(i), np.float64) - F[:k, i] @ F[:k]
        f /= np.sqrt(left[i])
        F[k] = f
        left -= f * f
        left[i] = 0.0
    return Pivots(rows, values, float(np.maximum(left, 0.0).sum()))
