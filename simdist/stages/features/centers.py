"""Which rows stand for all, and how wide a kernel is where nobody says.

    random     rows drawn at random: no cost, and as good as any where rows are spread evenly
    kmeans++   each in proportion to its squared distance from those before, as the kernel sees it
               (Arthur and Vassilvitskii 2007): m columns of the kernel
    pivots     each in proportion to the variance that those before leave it: randomly pivoted
               Cholesky (Chen, Epperly, Tropp and Webber 2022): m^2 flops a row
    greedy     the one with most variance left: Cholesky with pivots; outliers come first

All but `random` choose from a sample.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simdist.errors import ConfigError
from simdist.measures import kernels
from simdist.solvers.cholesky import pivoted
from simdist.stages.features.config import Centers
from simdist.types import Array, Float64, Ids, Json

__all__ = ["chosen", "kernel_for", "sample_rows", "sampled"]

SAMPLE = (
    20_000  # rows from which centres are chosen, or four times the centres where those are more
)
RESOLVED = 1e-10  # of the largest variance: a row with less left is one of the others', rounded


def sample_rows(n: int, components: int, centers: Centers) -> int:
    """How many of n rows are looked at."""
    wanted = components if centers == "random" else max(SAMPLE, 4 * components)
    return min(n, max(wanted, 1000))  # a thousand at least, for the width


def sampled(n: int, size: int, rng: np.random.Generator) -> Ids:
    """Ascending rows of n, drawn at random."""
    if size >= n:
        return np.arange(n)
    return np.sort(rng.choice(n, size, replace=False)).astype(np.int64)


def kernel_for(spec: Json | kernels.Kernel, X: Array) -> kernels.Kernel:
    """The kernel asked for, for rows of as many columns. X: [s, d].

    None is an RBF whose lengthscale is the root of d / 2 times the variance of the entries, which
    is scikit-learn's gamma "scale". Raises ConfigError for a kernel with white noise.
    """
    if spec is None:
        spread = float(np.var(X, dtype=np.float64))
        return kernels.RBF(float(np.sqrt(0.5 * X.shape[1] * spread)) if spread > 0 else 1.0)
    kernel = kernels.resolve(spec).for_dim(X.shape[1])
    if kernel.noiseless() != kernel:
        raise ConfigError(
            f"kernel {kernel} has white noise, which no features of a row have. Leave White out; a"
            " penalty on what is fitted to the features says the same."
        )
    return kernel


def chosen(
    kernel: kernels.Kernel,
    X: Array,
    m: int,
    centers: Centers,
    rng: np.random.Generator,
    check: Callable[[], None] = lambda: None,
) -> Float64:
    """m centres among rows X [s, d], or fewer where no more can be told apart -> [r, d]."""
    X = np.ascontiguousarray(X, np.float64)
    m = min(m, len(X))
    if centers == "random":
        rows: Ids = np.sort(rng.choice(len(X), m, replace=False))
        return X[rows]
    if centers == "greedy":
        found = pivoted(kernel.diagonal(X), lambda i: _column(kernel, X, i), m, check=check)
        rows = found.rows
    elif centers == "pivots":
        rows = _random_pivots(kernel, X, m, rng, check)
    else:
        rows = _spread(kernel, X, m, rng, check)
    return X[rows] if len(rows) else X[:1]


def _column(kernel: kernels.Kernel, X: Float64, i: int) -> Float64:
    return kernel.matrix(X, X[i : i + 1])[:, 0]


def _spread(
    kernel: kernels.Kernel,
    X: Float64,
    m: int,
    rng: np.random.Generator,
    check: Callable[[], None],
) -> Ids:
    """k-means++ in feature space, where |f(x) - f(z)|^2 = k(x, x) + k(z, z) - 2 k(x, z)."""
    own = kernel.diagonal(X)
    rows = [int(rng.integers(len(X)))]
    nearest = np.full(len(X), np.inf)
    for _ in range(m):
        check()
        i = rows[-1]
        gaps = own + own[i] - 2.0 * _column(kernel, X, i)
        np.minimum(nearest, np.maximum(gaps, 0.0), out=nearest)
        nearest[i] = 0.0
        found = _drawn(nearest, own.max(), rng)
        if found is None or len(rows) == m:
            break
        rows.append(found)
    return np.array(rows, np.int64)


def _random_pivots(
    kernel: kernels.Kernel,
    X: Float64,
    m: int,
    rng: np.random.Generator,
    check: Callable[[], None],
) -> Ids:
    left = kernel.diagonal(X)
    largest = left.max(initial=0.0)
    factors = np.empty((m, len(X)))
    rows = np.empty(m, np.int64)
    for k in range(m):
        check()
        i = _drawn(left, largest, rng)
        if i is None:
            return rows[:k]
        factor = _column(kernel, X, i) - factors[:k, i] @ factors[:k]
        factor /= np.sqrt(left[i])
        factors[k], rows[k] = factor, i
        left -= np.square(factor)
        left[i] = 0.0
    return rows


def _drawn(weights: Float64, largest: float, rng: np.random.Generator) -> int | None:
    """A place in proportion to its weight; None where no weight is left but rounding."""
    weights = np.where(weights > RESOLVED * largest, weights, 0.0)
    sums = np.cumsum(weights)
    if not sums[-1] > 0:
        return None
    place = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
    return min(place, int(np.flatnonzero(weights)[-1]))
