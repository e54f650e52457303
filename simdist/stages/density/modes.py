"""Which ends of climbs are one mode, and where to start climbs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from simdist.stages.density.climb import inside_tile
from simdist.stages.density.sides import Width
from simdist.tiles.gaussian import ScaledRows, scaled
from simdist.tiles.shape import cuts
from simdist.types import Array, Bools, Float64, Ids

__all__ = ["bins_of", "joined_bins", "merged_modes"]

Check: TypeAlias = Callable[[], None]

BLOCK = 256


def merged_modes(
    points: Float64, weights: Float64, before: Float64, width: Width, check: Check
) -> tuple[Float64, Float64]:
    """The ends that stand for a mode, of largest weight first: an end within a bandwidth of one
    that stands does not stand itself.

    points: [e, d], weights: [e]. before: [m, d] modes that stand already. Of equal weights the
    larger coordinates come first, as in scikit-learn. Returns what is new: [k, d] and [k].
    """
    order = np.lexsort((*points.T[::-1], weights))[::-1]
    points, weights = points[order], weights[order]
    new = np.ones(len(points), np.bool_)
    new[1:] = (points[1:] != points[:-1]).any(axis=1)
    points, weights = points[new], weights[new]
    rows = scaled(points, width.center, width.widths, "float64")
    kept = np.empty(0, np.int64)
    for block in cuts(0, len(points), BLOCK):
        check()
        ends, here = points[block], rows.take(block)
        alone = ~_near_any(ends, here, before, width)
        alone &= ~_near_any(ends, here, points[kept], width)
        near = inside_tile(ends, here, ends, here, width)
        for i in np.flatnonzero(alone):
            if alone[i]:
                alone[i + 1 :] &= ~near[i, i + 1 :]
        kept = np.concatenate([kept, block.start + np.flatnonzero(alone)])
    return points[kept], weights[kept]


def _near_any(ends: Float64, rows: ScaledRows, others: Float64, width: Width) -> Bools:
    """[n] whether one of the others is within a bandwidth."""
    found = np.zeros(len(ends), np.bool_)
    for part in cuts(0, len(others), 8 * BLOCK):
        some = scaled(others[part], width.center, width.widths, "float64")
        found |= inside_tile(ends, rows, others[part], some, width).any(axis=1)
    return found


def bins_of(rows: Array, widths: Float64) -> tuple[Float64, Ids]:
    """Corners of a grid of bandwidths that rows round to, in units of it, and how many rows do."""
    return _counted(np.round(rows.astype(np.float64) / widths), np.ones(len(rows), np.int64))


def joined_bins(bins: Float64, counts: Ids) -> tuple[Float64, Ids]:
    """Each corner once. bins: [b, d], counts: [b]."""
    return _counted(bins, counts)


def _counted(bins: Float64, counts: Ids) -> tuple[Float64, Ids]:
    unique, place = np.unique(bins + 0.0, axis=0, return_inverse=True)  # -0.0 is 0.0
    sums = np.bincount(place.ravel(), weights=counts, minlength=len(unique))
    return unique, sums.astype(np.int64)
