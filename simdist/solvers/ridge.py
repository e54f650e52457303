"""Ridge regression from its sufficient statistics: one value of the penalty, or a whole path.

    minimise |y - A^T v|^2 + alpha |v|^2        P = A A^T [m, m], b = A y [m, t]
    v(alpha) = (P + alpha I)^-1 b = U (b' / (D + alpha)),   P = U D U^T, b' = U^T b

One eigendecomposition gives v for every alpha, and, with the rows rotated once, the residuals that
each row would have if it had been left out: e / (1 - h), h = sum over j of (U^T a)_j^2 / (D_j +
alpha) (Allen 1974).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simdist.errors import InputError
from simdist.types import Float64

__all__ = ["RidgePath", "ridge_coefficients", "ridge_path"]

NULL = 1e-14  # of the largest eigenvalue: a direction in which the rows say nothing


@dataclass(frozen=True, slots=True)
class RidgePath:
    """P and b in the basis of P's eigenvectors.

    values: [m] ascending, at least 0. vectors: [m, m], a column each. rotated: [m, t] U^T b.
    """

    values: Float64
    vectors: Float64
    rotated: Float64

    def inverse(self, alpha: float) -> Float64:
        """[m] 1 / (D + alpha), 0 in directions that neither the rows nor alpha say anything of."""
        sums = self.values + alpha
        there = sums > NULL * max(float(self.values[-1]), alpha)
        return np.divide(1.0, sums, out=np.zeros_like(sums), where=there)

    def coefficients(self, alpha: float) -> Float64:
        """v(alpha): [m, t]."""
        return np.asarray(self.vectors @ (self.inverse(alpha)[:, None] * self.rotated))

    def left_out(
        self, A: Float64, y: Float64, alphas: Float64, *, weights: Float64, before: Float64
    ) -> Float64:
        """Residuals of rows, each predicted by a fit to all the others.

        A: [r, m] rows of features, centred where an intercept was fitted. y: [r, t], likewise.
        weights: [r] that the rows had in P and b. before: [r] leverage that rows have whatever the
        features are: their weight over all weights, where an intercept was fitted, else 0.
        Returns [a, r, t] for the alphas [a]. Cost: 2 r m (m + a (t + 1)) flops.
        """
        T = A @ self.vectors
        squares = np.square(T)
        out = np.empty((len(alphas), *y.shape))
        for place, alpha in enumerate(alphas):
            inverse = self.inverse(float(alpha))
            errors = y - T @ (inverse[:, None] * self.rotated)
            leverage = weights * (squares @ inverse) + before
            # A row that alone says something of a direction has leverage 1: left out, it is
            # predicted by what the others say, so its residual cannot be told from these sums.
            out[place] = errors / np.maximum(1.0 - leverage, 1e-12)[:, None]
        return out


def ridge_path(P: Float64, b: Float64) -> RidgePath:
    """P: [m, m] psd, b: [m, t]. Raises InputError where they are not finite. Cost: 9 m^3."""
    _refuse_infinite(P, b)
    values, vectors = np.linalg.eigh((P + P.T) / 2)
    return RidgePath(np.maximum(values, 0.0), vectors, vectors.T @ b)


def ridge_coefficients(P: Float64, b: Float64, alpha: float) -> Float64:
    """(P + alpha I)^-1 b: [m, t], by one Cholesky factor; by eigenvectors where P + alpha I is
    singular to rounding, as it may be for alpha = 0. Errors as `ridge_path`. Cost: m^3 / 3."""
    from scipy.linalg import cho_factor, cho_solve  # noqa: PLC0415 - only where something is fitted

    _refuse_infinite(P, b)
    damped = (P + P.T) / 2
    damped.flat[:: len(P) + 1] += alpha
    try:
        factor = cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return ridge_path(P, b).coefficients(alpha)
    smallest, largest = np.diag(factor[0]).min(), np.diag(factor[0]).max()
    if smallest**2 <= NULL * largest**2:
        return ridge_path(P, b).coefficients(alpha)
    return np.asarray(cho_solve(factor, b, check_finite=False))


def _refuse_infinite(P: Float64, b: Float64) -> None:
    if not (np.isfinite(P).all() and np.isfinite(b).all()):
        raise InputError(
            "the sums over rows are not finite: the target or the kernel is too large for float64."
            " Scale the target, or look at the rows."
        )
