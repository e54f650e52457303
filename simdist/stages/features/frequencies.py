"""Frequencies w such that the mean of cos(w . (x - y)) is a kernel (Rahimi and Recht 2007).

    RBF                 normal / l
    Matern of order v   normal sqrt(2 v / chi2(2 v)) / l: Student's t with 2 v degrees of freedom
    RationalQuadratic   normal sqrt(gamma(alpha) / alpha) / l
    Laplacian           Cauchy in every column / l
    Cosine              2 pi / period, always
    product             the sum of a frequency of each factor
    sum, scale          a frequency of a part, as often as its share of the variance

*Orthogonal.* The normal vectors come in blocks of d that are at right angles, each as long as a
normal vector is: the same mean, less variance (Yu et al. 2016).
"""

from __future__ import annotations

import math

import numpy as np

from simdist.errors import ConfigError
from simdist.measures import kernels
from simdist.measures.kernels.radial import Radial
from simdist.types import Float64, Ids

__all__ = ["drawn", "normals", "total_variance"]

_MIXED = (kernels.RBF, kernels.RationalQuadratic)
_MATERN: dict[type[kernels.Kernel], float] = {
    kernels.Matern12: 0.5,
    kernels.Matern32: 1.5,
    kernels.Matern52: 2.5,
}


def total_variance(kernel: kernels.Kernel) -> float:
    """k(x, x) of a kernel that has frequencies."""
    if isinstance(kernel, kernels.Scale):
        return kernel.variance * total_variance(kernel.kernel)
    if isinstance(kernel, kernels.Constant):
        return kernel.variance
    if isinstance(kernel, kernels.Product):
        return math.prod(total_variance(part) for part in kernel.kernels)
    if isinstance(kernel, kernels.Sum):
        return sum(total_variance(part) for part in kernel.kernels)
    return 1.0


def drawn(
    kernel: kernels.Kernel, count: int, d: int, rng: np.random.Generator, *, orthogonal: bool
) -> Float64:
    """Frequencies of a kernel of d columns -> [count, d].

    Raises ConfigError for a kernel without a spectral density here, naming those that have one.
    """
    if isinstance(kernel, kernels.Scale):
        return drawn(kernel.kernel, count, d, rng, orthogonal=orthogonal)
    if isinstance(kernel, kernels.Constant):
        return np.zeros((count, d))
    if isinstance(kernel, kernels.Product):
        parts = (drawn(part, count, d, rng, orthogonal=orthogonal) for part in kernel.kernels)
        total = np.zeros((count, d))
        for found in parts:
            total += rng.permutation(found)
        return total
    if isinstance(kernel, kernels.Sum):
        picks = _shares(np.array([total_variance(part) for part in kernel.kernels]), count, rng)
        mixed = np.empty((count, d))
        for place, part in enumerate(kernel.kernels):
            own = picks == place
            mixed[own] = drawn(part, int(own.sum()), d, rng, orthogonal=orthogonal)
        return mixed
    return _of_one(kernel, count, d, rng, orthogonal=orthogonal)


def normals(count: int, d: int, rng: np.random.Generator, *, orthogonal: bool) -> Float64:
    """Standard normal vectors [count, d], in blocks of d at right angles where `orthogonal`."""
    if not orthogonal:
        return rng.standard_normal((count, d))
    blocks = []
    for _ in range(-(-count // d)):
        Q, R = np.linalg.qr(rng.standard_normal((d, d)))
        lengths = np.linalg.norm(rng.standard_normal((d, d)), axis=1)
        blocks.append((Q * np.sign(np.diagonal(R))).T * lengths[:, None])  # the signs: Haar
    return np.concatenate(blocks)[:count] if blocks else np.empty((0, d))


def _of_one(
    kernel: kernels.Kernel, count: int, d: int, rng: np.random.Generator, *, orthogonal: bool
) -> Float64:
    if isinstance(kernel, kernels.Cosine):
        columns, scales = _columns(kernel.active, d), np.array(kernel.period)
        unit = np.full((count, len(columns)), 2.0 * math.pi)
    elif isinstance(kernel, kernels.Laplacian):
        columns, scales = _columns(kernel.active, d), np.array(kernel.lengthscale)
        unit = rng.standard_cauchy((count, len(columns)))
    elif isinstance(kernel, Radial) and (type(kernel) in _MATERN or type(kernel) in _MIXED):
        columns, scales = _columns(kernel.active, d), np.array(kernel.lengthscale)
        unit = normals(count, len(columns), rng, orthogonal=orthogonal)
        unit *= np.sqrt(_mixture(kernel, count, rng))[:, None]
    else:
        raise ConfigError(
            f"random features of {kernel} are not known. Known: RBF, Matern12, Matern32, Matern52,"
            " RationalQuadratic, Laplacian, Cosine, Constant, their sums, products and multiples;"
            " and ArcCosine. Nystroem takes any kernel."
        )
    found = np.zeros((count, d))
    found[:, columns] = unit / scales
    return found


def _mixture(kernel: kernels.Kernel, count: int, rng: np.random.Generator) -> Float64:
    """g [count] with k = the mean of exp(-g r^2 / 2)."""
    if type(kernel) in _MATERN:
        freedom = 2.0 * _MATERN[type(kernel)]
        return freedom / rng.chisquare(freedom, count)
    if isinstance(kernel, kernels.RationalQuadratic):
        return rng.gamma(kernel.alpha, 1.0 / kernel.alpha, count)
    return np.ones(count)


def _columns(active: tuple[int, ...] | None, d: int) -> Ids:
    return np.arange(d) if active is None else np.array(active)


def _shares(weights: Float64, count: int, rng: np.random.Generator) -> Ids:
    """[count] places, each as often as its share; who gets the odd ones is drawn."""
    levels = (np.arange(count) + rng.random()) / count
    bounds = np.cumsum(weights) / weights.sum()
    return np.minimum(np.searchsorted(bounds, levels, side="right"), len(weights) - 1)
