"""The locally optimal block method for the largest eigenpairs of a symmetric matrix.

    V  = [X  P  W]        X: Ritz vectors, P: the last directions, W: new ones, from residuals
    A V                   of these only A W is a product, the others follow from earlier ones
    G = V^T V, H = V^T A V            `moments`: sums over rows, float64
    C, C_p = next_step(G, H)          the small dense problem
    X, A X, P, A P = V C, A V C, ...  `combined`: row by row

X may have more columns than W: the further ones are Ritz vectors that cost no product and make the
space larger, so that fewer passes are needed (`spare_of`).

W are residuals A X - X theta, or these through a polynomial of A (`Filter` of some degree): p(A) X
- X p(theta), which costs `degree` passes and saves as many bases. Both lie in the Krylov space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from simdist.errors import ConfigError
from simdist.solvers.chebyshev import Filter
from simdist.solvers.rayleigh import rayleigh_ritz
from simdist.types import Array, Float64

__all__ = [
    "LOW",
    "Eigenpairs",
    "Moments",
    "NextStep",
    "combined",
    "lobpcg",
    "moments",
    "next_step",
    "spare_of",
]

ROWS = 4096  # of a panel that is taken to float64 at once
LOW = -1.0  # lower bound of the spectrum of a normalised adjacency matrix


@dataclass(frozen=True, slots=True)
class Moments:
    """Inner products of a basis, over some rows or all: they add up.

    gram: [m, m] V^T V. image: [m, m] V^T A V.
    """

    gram: Float64
    image: Float64

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.image + other.image)


@dataclass(frozen=True, slots=True)
class NextStep:
    """What follows from the moments of a basis [X P W] of m columns.

    values: [q] Ritz values, largest first. vectors: [m, q] coefficients of the next X.
    directions: [m, p] of the next P, which have length 1; 0 in the rows of X.
    """

    values: Float64
    vectors: Float64
    directions: Float64


@dataclass(frozen=True, slots=True)
class Eigenpairs:
    """Largest eigenpairs of A. vectors: [n, k] orthonormal. values: [k + 1], largest first, the
    last one an estimate; [k] where there is no further one.

    residuals: [k] lengths of A v - value v. passes: products with a block. rounds: bases made.
    """

    values: Float64
    vectors: Array
    residuals: Float64
    passes: int
    rounds: int
    converged: bool


def moments(V: Sequence[Array], AV: Sequence[Array]) -> Moments:
    """Inner products of the columns of V (blocks side by side, [rows, ...] each) and of A V.

    Added up in float64, whatever the blocks are. Cost: 3 rows m^2 multiply-adds.
    """
    width = sum(block.shape[1] for block in V)
    gram, image = np.zeros((width, width)), np.zeros((width, width))
    for first in range(0, len(V[0]), ROWS):
        v, av = (_panel(blocks, first) for blocks in (V, AV))
        gram += v.T @ v
        image += v.T @ av
    return Moments(gram, image)


def spare_of(degree: int) -> int:
    """Further Ritz vectors beside X, in blocks: they save a tenth of the passes of the plain
    method, hardly any behind a filter."""
    return 1 if degree == 1 else 0


def next_step(found: Moments, *, block: int, known: int, spare: int) -> NextStep:
    """The next X and P. block: columns of P, at most. known: columns of X in the basis.

    X keeps (1 + spare) blocks, or as many columns as the basis has rank.
    """
    keep = (1 + spare) * block
    ritz = rayleigh_ritz(found.gram, found.image, keep, orthonormal=known)
    if not known:
        return NextStep(ritz.values, ritz.coefficients, np.zeros((len(found.gram), 0)))
    directions = ritz.coefficients[:, :block].copy()
    directions[:known] = 0
    squares = np.einsum("ij,ij->j", directions, found.gram @ directions)
    there = squares > 0
    return NextStep(ritz.values, ritz.coefficients, directions[:, there] / np.sqrt(squares[there]))


def combined(V: Sequence[Array], coefficients: Float64, dtype: type = np.float64) -> Array:
    """V @ coefficients, computed in float64: [rows, columns of coefficients]."""
    out: Array = np.empty((len(V[0]), coefficients.shape[1]), dtype)
    for first in range(0, len(out), ROWS):
        out[first : first + ROWS] = _panel(V, first) @ coefficients
    return out


def lobpcg(
    product: Callable[[Array], Array],
    start: Array,
    dim: int,
    *,
    tolerance: float = 1e-3,
    degree: int = 1,
    max_passes: int = 1000,
    deflate: Callable[[Array], Array] = lambda block: block,
    check: Callable[[], None] = lambda: None,
) -> Eigenpairs:
    """The `dim` largest eigenpairs of a symmetric A with spectrum in [-1, 1], in memory.

    product: [n, b] -> A times it, a new array. start: [n, b] with b > dim, best b = 1.5 dim; its
        dtype, float32 or float64, is that of all blocks.
    tolerance: stops when the residuals of the first `dim` are at most this, or after max_passes:
        look at `converged`.
    degree: of the filter that residuals go through; 1 is the plain method, fewest passes; 8 makes
        8 passes a basis, some more in all, and a tenth of the work on bases.
    deflate: takes known eigenvectors out of a block [n, b]. check: called before each basis.

    Raises ConfigError where the block is narrower than `dim`.
    Cost, a basis of m = 3 b columns (4 b where degree=1): 4 n m^2 multiply-adds, and the products.
    Source: Knyazev, SIAM J. Sci. Comput. 23 (2001); Duersch et al. 2018 for the basis.
    """
    block, dtype = start.shape[1], start.dtype.type
    if block < dim:
        raise ConfigError(f"a block of {block} columns cannot hold dim={dim} eigenvectors")
    V: list[Array] = [deflate(start)]
    AV = [product(V[0])]
    passes, rounds, known = 1, 0, 0
    while True:
        check()
        step = next_step(moments(V, AV), block=block, known=known, spare=spare_of(degree))
        X, AX = combined(V, step.vectors, dtype), combined(AV, step.vectors, dtype)
        P, AP = combined(V, step.directions, dtype), combined(AV, step.directions, dtype)
        rounds, known = rounds + 1, X.shape[1]
        active = min(block, known)
        values = step.values
        R = AX[:, :active] - X[:, :active] * values[:active].astype(dtype)
        residuals = np.linalg.norm(R[:, :dim].astype(np.float64), axis=0)
        converged = bool(residuals.max() <= tolerance) and active >= dim
        if converged or passes + degree > max_passes:
            return Eigenpairs(values[: dim + 1], X[:, :dim], residuals, passes, rounds, converged)
        if degree > 1:
            R = _filtered(product, X[:, :active], AX[:, :active], values[:active], degree)
        W = deflate(R)
        V, AV = [X, P, W], [AX, AP, product(W)]
        passes += degree


def _filtered(
    product: Callable[[Array], Array], X: Array, AX: Array, values: Float64, degree: int
) -> Array:
    """p(A) X - X p(theta): the residuals through a filter; degree - 1 products."""
    dtype = X.dtype.type
    damped = Filter(LOW, float(values[-1]), float(values[0]), degree)
    before, last, room = X, X, np.empty_like(X)
    for j, term in enumerate(damped.terms()):
        # In place: blocks are larger than any cache, and a new one is paid for page by page.
        new = np.array(AX) if j == 0 else product(last)
        new *= dtype(term.product)
        new += np.multiply(last, dtype(term.last), out=room)
        new += np.multiply(before, dtype(term.before), out=room)
        before, last = last, new
    return np.asarray(last - X * damped.at(values).astype(dtype))


def _panel(blocks: Sequence[Array], first: int) -> Float64:
    """Some rows of blocks side by side, in float64."""
    parts = [block[first : first + ROWS] for block in blocks]
    return np.concatenate(parts, axis=1, dtype=np.float64)
