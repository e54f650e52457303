"""The Rayleigh-Ritz step on a basis that is known only by its inner products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simdist.errors import InputError
from simdist.types import Float64

__all__ = ["Ritz", "rayleigh_ritz"]

FLOOR = 1e-11  # of a scaled Gram's largest eigenvalue: below, a direction is rounding
NEW = 1e-8  # of a column's square: what is left of it beside X; less is rounding of float32 blocks


@dataclass(frozen=True, slots=True)
class Ritz:
    """Ritz pairs of a basis V [n, m]: the vectors are V @ coefficients, orthonormal.

    values: [r], largest first. coefficients: [m, r].
    """

    values: Float64
    coefficients: Float64


def rayleigh_ritz(gram: Float64, image: Float64, keep: int, *, orthonormal: int = 0) -> Ritz:
    """The `keep` largest Ritz pairs of a symmetric A on the columns of V, or as many as V's rank.

    gram: [m, m] V^T V. image: [m, m] V^T A V; its symmetric part is used.
    orthonormal: so many leading columns are orthonormal already, nearly: the others are first
        freed of them, so that what is small beside them is not lost in their rounding.

    The basis is made orthonormal by the eigenvectors of its Gram, scaled to a unit diagonal, and
    what lies below `FLOOR` is left out: a Cholesky factor would fail, or divide by rounding, where
    columns nearly depend on one another, as they do when a solver converges.

    Raises InputError where a number is not finite. Cost: m^3. Source: Knyazev 2001; basis by
    eigen-truncation as in Duersch et al., SIAM J. Sci. Comput. 40 (2018).
    """
    if not (np.isfinite(gram).all() and np.isfinite(image).all()):
        raise InputError("the product of the matrix is not finite: it holds NaN or infinity")
    free = np.eye(len(gram))
    q = orthonormal
    if q:
        free[:q, q:] = -np.linalg.solve(gram[:q, :q], gram[:q, q:])
    whole = np.diag(gram)
    gram = free.T @ gram @ free
    squares = np.maximum(np.diag(gram), 0.0)
    scale = np.divide(1.0, np.sqrt(squares), out=np.zeros(len(gram)), where=squares > NEW * whole)
    weights, vectors = np.linalg.eigh(scale[:, None] * gram * scale)
    there = weights > FLOOR * weights[-1]
    basis = free @ (scale[:, None] * (vectors[:, there] / np.sqrt(weights[there])))
    small = basis.T @ image @ basis
    values, inner = np.linalg.eigh((small + small.T) / 2)
    best = np.argsort(-values, kind="stable")[:keep]
    return Ritz(values[best], basis @ inner[:, best])
