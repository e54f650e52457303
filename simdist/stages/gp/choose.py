"""Where a fit begins: lengthscales by the columns' spread, and inducing points from a sample."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from simdist.errors import InputError
from simdist.measures.kernels import Kernel
from simdist.solvers.cholesky import pivoted
from simdist.stages.gp.config import Select
from simdist.types import Float64, Ids

__all__ = ["chosen", "scaled_kernel"]

LLOYD = 10  # iterations of k-means: more would not help what the gradient moves next
_LENGTH = re.compile(
    r"(?:rbf|matern12|matern32|matern52|rational_quadratic|laplacian)\.lengthscale(?:\[(\d+)\])?$"
)


def scaled_kernel(kernel: Kernel, spread: Float64) -> Kernel:
    """The kernel with its lengthscales, as they are, in units of the columns' spread [d], times
    sqrt(d) / 2 where there are more than 4 columns: rows lie that much further apart."""
    theta = kernel.theta
    wide = max(1.0, 0.5 * np.sqrt(len(spread)))
    mean = float(np.exp(np.log(spread).mean()))
    for place, name in enumerate(kernel.names):
        found = _LENGTH.search(name)
        if found:
            own = mean if found[1] is None else float(spread[int(found[1])])
            theta[place] += np.log(wide * own)
    return kernel.with_theta(theta)


def chosen(
    kernel: Kernel,
    X: Float64,
    m: int,
    *,
    select: Select,
    spread: Float64,
    seed: int,
    check: Callable[[], None] | None = None,
) -> Float64:
    """m inducing points (or fewer, where the sample has no more to say) from rows X [s, d].

    "greedy": rows by conditional variance under the kernel. "kmeans": centres, of rows in units of
    their spread.
    """
    if not len(X):
        raise InputError("no rows to choose inducing points from")
    m = min(m, len(X))
    if select == "greedy":
        found = pivoted(
            kernel.diagonal(X), lambda i: kernel.matrix(X, X[i : i + 1])[:, 0], m, check=check
        )
        return np.array(X[found.rows if len(found.rows) else [0]])
    middle = X.mean(axis=0)
    return np.asarray(_centres((X - middle) / spread, m, seed) * spread + middle)


def _centres(X: Float64, m: int, seed: int) -> Float64:
    """Lloyd's k-means from rows drawn at random. X: [s, d]. An empty centre stays where it is."""
    rng = np.random.default_rng([seed, len(X), m])
    centres = X[np.sort(rng.choice(len(X), m, replace=False))].copy()
    for _ in range(LLOYD):
        nearest = _nearest(X, centres)
        counts = np.bincount(nearest, minlength=m)
        sums = np.stack(
            [np.bincount(nearest, X[:, j], minlength=m) for j in range(X.shape[1])], axis=1
        )
        full = counts > 0
        centres[full] = sums[full] / counts[full, None]
    return centres


def _nearest(X: Float64, centres: Float64, step: int = 2048) -> Ids:
    parts = []
    squares = 0.5 * np.einsum("ij,ij->i", centres, centres)
    for first in range(0, len(X), step):
        parts.append(np.argmax(X[first : first + step] @ centres.T - squares, axis=1))
    return np.concatenate(parts)
