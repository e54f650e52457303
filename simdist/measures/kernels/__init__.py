"""Kernels: measures that are covariances, in float64, with the gradients of their parameters.

    RBF(ard=True)   Matern32(1.5)   Linear()   White(0.1)     leaf.py: one formula each
          │              │             │           │
          └──── 2.0 * k1 + k2 * k3 + ... ──────────┘          combine.py: Scale, Sum, Product
                         │
    theta [p] ──► Kernel ├─► matrix(X, Y), diagonal(X), rowwise(X, Y)        float64
                         ├─► matrix_and_vjp(X, Y) ─► pullback(C) ─► d theta, dX, dY
                         └─► block, pairs, diag, nearness                    float32: a Measure

    base.py        Kernel, KernelGradient: what every kernel answers
    leaf.py        Leaf: parameters, active columns, printing
    distance.py    kernels of a distance; radial.py: of the Euclidean one
    squares.py     r^2 of all pairs, and the way back, by matrix products
    stationary.py  RBF, Matern12, Matern32, Matern52, RationalQuadratic
    laplacian.py   Laplacian
    inner.py       Linear, Polynomial, ArcCosine
    waves.py       Periodic, Cosine
    noise.py       Constant, White
    combine.py     Sum, Product, Scale
    parse.py       a name, a mapping or a formula -> Kernel

Nothing of the rows' size times both sides is ever made: gradients are matrix products. May import
what `simdist.measures` may.
"""

from collections.abc import Mapping

from simdist.measures.kernels.base import Kernel, KernelGradient, Pullback
from simdist.measures.kernels.combine import Product, Scale, Sum
from simdist.measures.kernels.inner import ArcCosine, Linear, Polynomial
from simdist.measures.kernels.laplacian import Laplacian
from simdist.measures.kernels.noise import Constant, White
from simdist.measures.kernels.parse import resolve
from simdist.measures.kernels.stationary import (
    RBF,
    Matern12,
    Matern32,
    Matern52,
    RationalQuadratic,
)
from simdist.measures.kernels.waves import Cosine, Periodic

__all__ = [
    "RBF",
    "SHIPPED",
    "ArcCosine",
    "Constant",
    "Cosine",
    "Kernel",
    "KernelGradient",
    "Laplacian",
    "Linear",
    "Matern12",
    "Matern32",
    "Matern52",
    "Periodic",
    "Polynomial",
    "Product",
    "Pullback",
    "RationalQuadratic",
    "Scale",
    "Sum",
    "White",
    "resolve",
]

SHIPPED: Mapping[str, type[Kernel]] = {
    cls.name: cls
    for cls in (
        ArcCosine,
        Constant,
        Cosine,
        Laplacian,
        Linear,
        Matern12,
        Matern32,
        Matern52,
        Periodic,
        Polynomial,
        Product,
        RationalQuadratic,
        RBF,
        Scale,
        Sum,
        White,
    )
}
