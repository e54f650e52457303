"""A Cholesky factor that leaves out what it cannot resolve: pivots instead of jitter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simdist.errors import InputError
from simdist.types import Float64, Ids

__all__ = ["RESOLVED", "Pivoted", "pivoted_cholesky"]

RESOLVED = 1e-12  # of the largest variance: a point with less left is one of the others', rounded


@dataclass(frozen=True, slots=True)
class Pivoted:
    """K[kept, kept] = factor @ factor.T for the points that are kept.

    kept: [r] points in the order they were taken, most variance left first. factor: [r, r] lower
    triangular. left: the largest variance that any point has beside them, of the largest of all.
    """

    kept: Ids
    factor: Float64
    left: float


def pivoted_cholesky(
    K: Float64, *, tolerance: float = RESOLVED, overwrite: bool = False
) -> Pivoted:
    """The Cholesky factor of a psd K, points left out once the others explain them.

    K: [m, m], psd up to rounding; one triangle is read. tolerance: variance left, of the largest,
    at which it ends. overwrite: K may be used as room; holds two further m x m at most.

    Copies, near copies and more points than the kernel can tell apart cost nothing but their place;
    the factor's smallest pivot is the root of `tolerance`, so that solving with it loses half of
    the digits at most, without a jitter that would change the kernel.

    Raises InputError where K is not finite, or has no positive diagonal. Cost: m r^2 flops.
    Source: LAPACK's dpstrf; Higham, Accuracy and Stability of Numerical Algorithms, 10.3.
    """
    from scipy.linalg import lapack  # noqa: PLC0415 - only where something is fitted

    diagonal = np.diag(K).copy()
    largest = float(diagonal.max(initial=0.0))
    if not np.isfinite(K).all():
        raise InputError(
            f"the kernel matrix of {len(K)} centres is not finite: lengthscales, variances or rows"
            " are too large or too small for float64"
        )
    if largest <= 0.0:
        raise InputError(
            f"the kernel is 0 at all {len(K)} centres, so it can tell no two rows apart. Other"
            " centres, or a kernel that is positive where rows are 0 (a constant added), will do."
        )
    # Scaled, so that variances of 1e-300 or 1e300 are factored as 1 is. A symmetric matrix in C
    # order is itself in Fortran order: LAPACK needs no copy.
    scaled = np.divide(K, largest, out=K if overwrite else None)
    factor, pivots, rank, _ = lapack.dpstrf(scaled.T, tol=tolerance, lower=1, overwrite_a=1)
    rank = int(rank)
    kept = pivots.astype(np.int64) - 1
    below = factor[rank:, :rank]
    rest = diagonal[kept[rank:]] / largest - np.einsum("ij,ij->i", below, below)
    found = np.tril(factor[:rank, :rank])
    found *= np.sqrt(largest)
    return Pivoted(kept[:rank], found, max(float(rest.max(initial=0.0)), 0.0))
