"""The space in which a kernel's neighbours are near: columns over lengthscales.

RBF, Matern, ...    sum_c ((x_c - y_c) / l_c)^2: the kernel falls with it
variance * k, k + White, k + Constant     as k
k1 + k2             squares weighted by the variance of each part
k1 * k2             squares added up
Linear, Periodic, ...   say nothing of who is near: alone they are refused
"""

from __future__ import annotations

import numpy as np

from simdist.errors import ConfigError
from simdist.measures.kernels import Kernel, Product, Scale, Sum
from simdist.measures.kernels.radial import Radial
from simdist.types import Float64

__all__ = ["inverse_lengthscales"]


def inverse_lengthscales(kernel: Kernel, d: int) -> Float64:
    """[d] what columns are multiplied with before distances are taken; 0 for one that no part with
    a distance reads. d: columns of the rows.

    Raises ConfigError where no part of the kernel falls with the distance of its rows.
    """
    squares = _squares(kernel, d)
    if squares is None:
        raise ConfigError(
            f"NeighborGP predicts from the rows nearest to each row, and {kernel} says of none that"
            " it is nearer: it does not fall with a distance. Add or multiply a kernel that does"
            " (RBF, Matern, RationalQuadratic), or take SparseGP, which has no neighbours."
        )
    return np.sqrt(squares)


def _squares(kernel: Kernel, d: int) -> Float64 | None:
    """[d] weights of the squared gaps; None where the kernel has no distance."""
    if isinstance(kernel, Radial):
        weights = np.zeros(d)
        columns = slice(None) if kernel.active is None else list(kernel.active)
        weights[columns] = 1.0 / np.square(np.asarray(kernel.lengthscale, np.float64))
        return weights
    if isinstance(kernel, Scale):
        return _squares(kernel.kernel, d)
    if isinstance(kernel, Sum | Product):
        parts = [(_variance(part), _squares(part, d)) for part in kernel.kernels]
        known = [(variance, squares) for variance, squares in parts if squares is not None]
        if not known:
            return None
        total = sum(variance for variance, _ in known)
        found = np.zeros(d)
        for variance, squares in known:
            found += squares if isinstance(kernel, Product) else variance / total * squares
        return found
    return None


def _variance(kernel: Kernel) -> float:
    """How much of a sum a part is: the factors before it."""
    return kernel.variance * _variance(kernel.kernel) if isinstance(kernel, Scale) else 1.0
