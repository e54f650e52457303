"""A Gaussian process for every row, on its own k neighbours alone.

    [ K + s I   .     .  ]        [ L            ]      K: neighbours with themselves, s: noise
    [ k_*      k_** + s  ]  = ... [ v   sqrt(w)  ]      v = L^-1 k_*,  w: variance of y
    [ y'        0    big ]        [ u    .     . ]      u = L^-1 y,    mean = u . v

One Cholesky factor of k + 2 rows has everything in its last two: no solve, no inverse. Kernels of
distances are taken on packed triangles, half of each matrix (`simdist.compiled.packed`); any other
kernel by its own `matrix`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from simdist.errors import InputError
from simdist.measures.kernels import Constant, Kernel, Product, Scale, Sum
from simdist.measures.kernels.radial import Radial
from simdist.solvers.lapack import potrf
from simdist.types import Array, Float64, Ids

__all__ = ["Local", "local_nbytes", "predict_rows"]

BLOCK_NBYTES = 4 << 20  # of matrices made at a time: they stay in the cache
BIG = 1e300  # in the corner below y: above y' K^-1 y, whatever that is
JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)  # of the variance, where K + s I cannot be factored


class Local(NamedTuple):
    """mean: [m]. latent: [m] >= 0 variance of the function, without noise."""

    mean: Float64
    latent: Float64


def predict_rows(
    kernel: Kernel,
    noise: float,
    X: Array,
    neighbors: Ids,
    known: Array,
    targets: Float64,
    *,
    check: Callable[[], None] | None = None,
) -> Local:
    """Mean and latent variance of rows, each from its own neighbours.

    kernel: without White. noise: its variance, > 0. X: [m, d] rows. neighbors: [m, k] positions in
    known [n, d] and targets [n], which have zero mean.
    A row has the same answer in any company. Neighbours that are copies of each other are fine:
    where the noise is too small to tell them apart, jitter is added, at most 1e-4 of the variance.
    Cost: m (k^3 / 3 + k^2 (d + 10)) flops. Raises InputError where a matrix cannot be factored.
    """
    m, k = neighbors.shape
    mean, latent = np.empty(m), np.empty(m)
    step = max(1, BLOCK_NBYTES // (8 * (k + 2) ** 2))
    for first in range(0, m, step):
        if check is not None:
            check()
        rows = slice(first, min(first + step, m))
        near = np.asarray(neighbors[rows])
        points = np.concatenate([known[near], X[rows][:, None]], axis=1).astype(np.float64)
        values = _packed(kernel, points)
        mean[rows], latent[rows] = _solved(values, targets[near], noise)
    return Local(mean, latent)


def local_nbytes(rows: int, k: int, dim: int) -> int:
    """What `predict_rows` holds for so many rows, its results and their lists included."""
    one = 8 * (k + 2) ** 2
    block = max(1, BLOCK_NBYTES // one)
    return block * (4 * one + 24 * k * dim) + rows * (16 * k + 16 * dim + 64)


def _packed(kernel: Kernel, points: Float64) -> Float64:
    """Kernel values within each set of points, packed. points: [b, p, d] -> [b, p (p + 1) / 2]."""
    found = _by_distance(kernel, points)
    if found is not None:
        return found
    lower = np.tril_indices(points.shape[1])
    return np.stack([kernel.matrix(each, each)[lower] for each in points])


def _by_distance(kernel: Kernel, points: Float64) -> Float64 | None:
    """The same of kernels that are made of distances and constants; None of others."""
    from simdist.compiled.packed import packed_squares  # noqa: PLC0415 - numba only on workers

    match kernel:
        case Radial():
            columns = points if kernel.active is None else points[:, :, list(kernel.active)]
            return kernel.profile(packed_squares(columns / np.asarray(kernel.lengthscale)))
        case Scale():
            inside = _by_distance(kernel.kernel, points)
            return None if inside is None else np.multiply(inside, kernel.variance, out=inside)
        case Constant():
            p = points.shape[1]
            return np.full((len(points), p * (p + 1) // 2), kernel.variance)
        case Sum() | Product():
            total: Float64 | None = None
            for part in kernel.kernels:
                one = _by_distance(part, points)
                if one is None:
                    return None
                total = one if total is None else kernel.join(total, one)
            return total
    return None


def _solved(values: Float64, targets: Float64, noise: float) -> tuple[Float64, Float64]:
    """Mean and latent variance. values: packed [b, p (p + 1) / 2], the row itself last; targets:
    [b, p - 1]."""
    from simdist.compiled.packed import spread  # noqa: PLC0415 - numba only on workers

    k = targets.shape[1]
    mean, latent = np.empty(len(values)), np.empty(len(values))
    matrices = spread(values, targets, noise, BIG)
    for i, A in enumerate(matrices):
        # Fortran sees the rows as columns: the lower triangle is its upper one.
        info = potrf(A.T, upper=True)
        L = _jittered(values[i : i + 1], targets[i : i + 1], noise) if info else A
        v = L[k, :k]
        mean[i] = v @ L[k + 1, :k]
        latent[i] = max(float(values[i, -1]) - float(v @ v), 0.0)
    if not (np.isfinite(mean).all() and np.isfinite(latent).all()):
        raise _not_definite(k, float(values[:, -1].max()))  # LAPACKs pass NaN on in silence
    return mean, latent


def _jittered(values: Float64, targets: Float64, noise: float) -> Array:
    """The factor with the least jitter that there is one with."""
    from simdist.compiled.packed import spread  # noqa: PLC0415

    scale = float(values[0, -1])
    for jitter in JITTERS:
        A: Array = spread(values, targets, noise + jitter * scale, BIG)[0]
        if potrf(A.T, upper=True) == 0:
            return A
    raise _not_definite(targets.shape[1], scale)


def _not_definite(k: int, scale: float) -> InputError:
    return InputError(
        f"the kernel matrix of {k} neighbours is not positive definite, not with {JITTERS[-1]:g} of"
        f" its variance ({scale:.3g}) added: its values are not those of a kernel, or are not"
        " finite. Scale the rows to about unit spread."
    )
