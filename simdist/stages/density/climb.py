"""Mean-shift on rows in memory: every point moves to the mean of the rows near it, and again.

    flat       m(x) = mean of the rows with |x - x_j| <= h           weight: how many these are
    gaussian   m(x) = sum_j softmax_j(-|x - x_j|^2 / 2 h^2) x_j      weight: log of the sum

A point has arrived when a move is no longer than a share of h. Which rows a flat kernel takes in is
exact whatever the products are taken in: those within their error of h are told from differences.
Sources: Fukunaga and Hostetler (1975); Comaniciu and Meer (2002); the order of moves and weights is
scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from simdist.stages.density.sides import Width
from simdist.tiles.gaussian import (
    COLUMNS,
    PAIRS,
    ROWS,
    ScaledRows,
    error_bound,
    fold_gaussian,
    scaled,
    scores_of,
)
from simdist.tiles.shape import cuts
from simdist.tiles.softmax import attended, empty
from simdist.types import Array, Bools, Float64, Ids

__all__ = ["Climbed", "Kernel", "Keys", "climb", "inside_tile", "nearest"]

Kernel: TypeAlias = Literal["flat", "gaussian"]
Check: TypeAlias = Callable[[], None]

LEAST = 1e-12  # of doubt about |x - y|^2, where rows lie at their center
SPARSE = 64  # a tile with fewer than one in so many rows taken in is summed as a sparse matrix


@dataclass(frozen=True, eq=False)
class Keys:
    """A run of the data's rows. raw: as stored; rows: in units of the bandwidth."""

    raw: Array
    rows: ScaledRows


class Climbed(NamedTuple):
    """points: [s, d] float64 where they are. weights: [s] at their last place but one (flat), or of
    it (gaussian); -inf or 0 where nothing is near. moving: [s] whether they have not arrived.
    caught: [s] whether they stopped for a mode that was known."""

    points: Float64
    weights: Float64
    moving: Bools
    caught: Bools


def climb(
    points: Float64,
    keys: Callable[[], Iterable[Keys]],
    width: Width,
    *,
    kernel: Kernel,
    dtype: str,
    tolerance: float,
    turns: int,
    last: bool,
    known: ScaledRows | None = None,
    reach: float = 1.0,
    check: Check,
) -> Climbed:
    """So many turns, or fewer where all arrive. points: [s, d] float64, not written to.

    keys: all rows of the data, run by run, in the same order each time. tolerance: in bandwidths.
    last: whether whoever still moves after these turns is said to have arrived.
    known: modes for which a point stops as soon as it is within `reach` bandwidths of one.
    """
    at = points.copy()
    weights, moving = np.zeros(len(at)), np.ones(len(at), np.bool_)
    caught = np.zeros(len(at), np.bool_)
    for turn in range(turns):
        who = np.flatnonzero(moving)
        if not len(who):
            break
        means, weights[who] = _means(at[who], keys(), width, kernel, dtype, check)
        moves = np.linalg.norm((means - at[who]) / width.widths, axis=1)
        at[who] = means
        moving[who] = moves > tolerance
        if known is not None:
            _, apart = nearest(scaled(means, width.center, width.widths, dtype), known, check)
            caught[who] = apart <= reach**2
            moving[who] &= ~caught[who]
        if last and turn == turns - 1:
            moving[:] = False
    return Climbed(at, weights, moving, caught)


def _means(
    points: Float64,
    keys: Iterable[Keys],
    width: Width,
    kernel: Kernel,
    dtype: str,
    check: Check,
) -> tuple[Float64, Float64]:
    """(the mean of what is near each point, itself where nothing is; the weight of that)."""
    X = scaled(points, width.center, width.widths, dtype)
    if kernel == "gaussian":
        state = empty(len(points), points.shape[1])
        for run in keys:
            state = fold_gaussian(X, run.rows, run.rows.rows, state, check=check)
        found = attended(state, np.float64)
        return found.output * width.widths + width.center, found.logsumexp
    counts, sums = np.zeros(len(points)), np.zeros(points.shape)
    for run in keys:
        for i in cuts(0, len(points), ROWS):
            for j in cuts(0, len(run.raw), COLUMNS):
                check()
                Y = run.rows.take(j)
                inside = inside_tile(points[i], X.take(i), run.raw[j], Y, width)
                counts[i] += inside.sum(axis=1)
                sums[i] += _sums(inside, Y.rows)
    some = counts > 0
    means = sums / np.where(some, counts, 1.0)[:, None] * width.widths + width.center
    return np.where(some[:, None], means, points), counts


def inside_tile(points: Array, X: ScaledRows, raw: Array, Y: ScaledRows, width: Width) -> Bools:
    """[n, m] whether rows lie within one bandwidth of points, on its rim included; exact.

    points, raw: [n, d], [m, d] as they are; X, Y: the same in units of the bandwidth.
    """
    scores = scores_of(X, Y)
    inside: Bools = scores >= -0.5
    own, others = error_bound(X, Y)
    # Centring and scaling round once more than the products do, by no more than these allow.
    scores += 0.5
    np.abs(scores, out=scores)
    i, j = np.nonzero(scores <= own.max(initial=0.0) + others.max(initial=0.0) + LEAST)
    doubtful = scores[i, j] <= own[i] + others[j] + LEAST
    i, j = i[doubtful], j[doubtful]
    for part in cuts(0, len(i), PAIRS):
        p, q = i[part], j[part]
        gap = points[p].astype(np.float64) - raw[q]
        inside[p, q] = _within(gap, width.widths)
    return inside


def _within(gap: Float64, widths: Float64) -> Bools:
    """[p] whether differences [p, d] are no longer than the bandwidth."""
    if bool((widths == widths[0]).all()):
        inside: Bools = np.einsum("pd,pd->p", gap, gap) <= widths[0] * widths[0]
        return inside
    gap = gap / widths
    near: Bools = np.einsum("pd,pd->p", gap, gap) <= 1.0
    return near


def _sums(inside: Bools, rows: Array) -> Array:
    """[n, d] sums of the rows taken in."""
    taken = int(inside.sum())
    if taken * SPARSE > inside.size:
        sums: Array = inside.astype(rows.dtype) @ rows
        return sums
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - only where a task computes

    i, j = np.nonzero(inside)
    indptr = np.searchsorted(i, np.arange(len(inside) + 1))
    sparse = csr_matrix((np.ones(taken, rows.dtype), j, indptr), shape=inside.shape)
    return np.asarray(sparse @ rows)


def nearest(points: ScaledRows, modes: ScaledRows, check: Check) -> tuple[Ids, Float64]:
    """(the nearest mode of each point, the lower of two as near; squared distance in
    bandwidths)."""
    best = np.full(len(points.rows), -np.inf)
    who = np.zeros(len(points.rows), np.int64)
    for i in cuts(0, len(points.rows), ROWS):
        for j in cuts(0, len(modes.rows), COLUMNS):
            check()
            scores = scores_of(points.take(i), modes.take(j))
            found = scores.argmax(axis=1)
            score = scores[np.arange(len(scores)), found].astype(np.float64)
            better = score > best[i]
            who[i][better] = found[better] + j.start
            best[i][better] = score[better]
    return who, -2.0 * best
