"""Weights from distances: fuzzy simplicial sets (UMAP) and self-tuned Gaussians.

    umap          mu_j = exp(-max(0, d_j - rho) / sigma), with sum_j mu_j = log2(k + 1)
    self_tuning   w_ij = exp(-d_ij^2 / (s_i s_j)), s the distance to the 7th neighbour

`k` counts neighbours without the row itself, which UMAP counts too: its n_neighbors is k + 1, and
the numbers are those of its `fuzzy_simplicial_set(n_neighbors=k + 1, local_connectivity=1)`.

Where neighbours are copies of the row, distances are zero and so would sigma and s be; both are at
least FLOOR of the row's mean distance, and where that is zero too, of the mean of all distances.

Sources: McInnes, Healy & Melville, arXiv 1802.03426, section 3.1; Zelnik-Manor & Perona, NIPS 2004.
"""

from __future__ import annotations

import numpy as np

from simdist.types import Float32, Float64

__all__ = ["FLOOR", "local_scales", "memberships"]

FLOOR = 1e-3  # UMAP's MIN_K_DIST_SCALE
STEPS = 64  # of the bisection
CLOSE = 1e-5  # of the sum to log2(k + 1)
LEAST = np.finfo(np.float32).tiny


def memberships(distances: Float32, mean: float) -> Float32:
    """[m, k] directed memberships in (0, 1] of a row's neighbours.

    distances: [m, k], at least 0. mean: of all distances of the data set, rows themselves counted
    with 0. What is too small for float32 becomes its smallest normal number.
    """
    d = distances.astype(np.float64)
    rho = np.where(d > 0, d, np.inf).min(axis=1)
    rho[~np.isfinite(rho)] = 0.0
    beyond = np.maximum(d - rho[:, None], 0.0)
    sigma = np.maximum(_sigmas(beyond), FLOOR * _spread(d, rho, mean))
    sigma[sigma == 0] = 1.0  # all rows are copies of one another: every membership is 1
    found: Float32 = np.maximum(np.exp(-beyond / sigma[:, None]), LEAST).astype(np.float32)
    return found


def local_scales(distances: Float32, neighbor: int, mean: float) -> Float32:
    """[m] distance of every row to its `neighbor`-th neighbour, floored; > 0.

    distances: [m, k], ascending. mean: as for `memberships`.
    """
    d = distances.astype(np.float64)
    scales = np.maximum(d[:, neighbor - 1], FLOOR * _spread(d, d.max(axis=1), mean))
    scales[scales == 0] = 1.0
    floored: Float32 = np.maximum(scales, LEAST).astype(np.float32)
    return floored


def _spread(d: Float64, largest: Float64, mean: float) -> Float64:
    """[m] what floors are taken of: the row's mean distance, itself counted; the mean of all where
    the row has none."""
    return np.where(largest > 0, d.sum(axis=1) / (d.shape[1] + 1), mean)


def _sigmas(beyond: Float64) -> Float64:
    """[m] sigma such that exp(-beyond / sigma) adds up to log2(k + 1), by bisection."""
    target = np.log2(beyond.shape[1] + 1)
    low, high = np.zeros(len(beyond)), np.full(len(beyond), np.inf)
    middle = np.ones(len(beyond))
    left = np.arange(len(beyond))
    for _ in range(STEPS):
        total = np.exp(-beyond[left] / middle[left, None]).sum(axis=1)
        far = np.abs(total - target) >= CLOSE
        left, total = left[far], total[far]
        if not len(left):
            break
        over, here = total > target, middle[left]
        high[left] = np.where(over, here, high[left])
        low[left] = np.where(over, low[left], here)
        open_ended = np.isinf(high[left])
        halves = (low[left] + np.where(open_ended, 0.0, high[left])) / 2
        middle[left] = np.where(open_ended, 2 * here, halves)
    return middle
