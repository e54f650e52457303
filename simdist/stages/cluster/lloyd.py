"""Lloyd's k-means as sums over runs of rows. Pure: arrays in, arrays out, no store.

    race ──> candidates ──> weights ──> plus_plus ──> centers ──> tally of every run ──> moved
    k-means||: rows drawn by               seeds of        ^      counts, sums, inertia,   │
    their distance, run by run             one restart     └────── farthest rows <─────────┘

Everything that is summed over rows is summed in float64, a run at a time, and the runs are added in
the order they lie in: the same rows cut the same way give the same bits.

Source: Lloyd 1982; Arthur and Vassilvitskii, k-means++ (SODA 2007); Bahmani et al., Scalable
k-means++ (VLDB 2012), with an exponential race (Efraimidis and Spirakis 2006) for its draws, which
needs no sum over all rows beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from simdist.types import Float64, Ids

__all__ = [
    "Draw",
    "Moved",
    "Solved",
    "Tally",
    "drawn",
    "kept",
    "moved",
    "nearest_center",
    "plus_plus",
    "race",
    "settled",
    "solve",
    "tally",
]

SLICE = 8192  # rows compared with all centers at once
ROUNDING = 1e-13  # of a squared distance, relative to the squares it is the difference of
HALVINGS = (4, 8, 16)  # steps after which the worse half of the restarts is given up
FARTHEST = 16  # rows of a run that stand ready to become the center of an empty cluster


def nearest_center(X: Float64, centers: Float64) -> tuple[Ids, Float64]:
    """Nearest center of every row, ties to the lower one, and the squared distance.

    X: [m, d] float64. centers: [k, d] float64. Returns [m] int64 and [m] float64, at least 0.
    Cost: 2 m k d flops, m k in slices.
    """
    labels, distances = np.empty(len(X), np.int64), np.empty(len(X), np.float64)
    for part, squares in _squares(X, centers):
        best = squares.argmin(axis=1)
        labels[part] = best
        distances[part] = squares[np.arange(len(best)), best]
    return labels, distances


def _squares(X: Float64, points: Float64) -> Iterator[tuple[slice, Float64]]:
    """(rows, their squared distances to all points [s, p]), a slice of rows after the other.

    By a product, around the middle of the points, so that data far from the origin lose nothing;
    what is left of a difference by rounding is 0, as of equal rows.
    """
    middle = points.mean(axis=0)
    around = points - middle
    terms = np.einsum("pd,pd->p", around, around)
    for first in range(0, len(X), SLICE):
        rows = X[first : first + SLICE] - middle
        own = np.einsum("md,md->m", rows, rows)[:, None]
        squares = rows @ around.T
        squares *= -2.0
        squares += terms
        squares += own
        squares[squares <= ROUNDING * (own + terms)] = 0.0
        yield slice(first, first + SLICE), squares


@dataclass(frozen=True, slots=True)
class Tally:
    """What a run of rows says of k centers.

    counts: [k] rows, or their weights. sums: [k, d] of those rows. inertia: sum of squared
    distances to the nearest center. far: [e] the largest of these distances, descending, one row a
    place; points: [e, d] those rows.
    """

    counts: Float64
    sums: Float64
    inertia: float
    far: Float64
    points: Float64


def tally(X: Float64, centers: Float64, weights: Float64 | None = None) -> Tally:
    """Counts and sums of the rows nearest each center. weights: [m], 1 for every row by default."""
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - not needed to plan

    labels, distances = nearest_center(X, centers)
    mass = np.ones(len(X)) if weights is None else weights
    k = len(centers)
    members = csr_matrix((mass, labels, np.arange(len(X) + 1)), shape=(len(X), k))
    sums = np.asarray(members.T @ X)  # row after row, as they lie
    order = np.arange(len(X))
    if len(order) > 8 * FARTHEST:
        order = np.sort(np.argpartition(-distances, 8 * FARTHEST)[: 8 * FARTHEST])
    order = order[np.argsort(-distances[order], kind="stable")]
    _, first = np.unique(X[order], axis=0, return_index=True)
    order = order[np.sort(first)[:FARTHEST]]  # equal rows cannot be centers of two clusters
    counts: Float64 = np.bincount(labels, weights=mass, minlength=k).astype(np.float64)
    inertia = float(np.sum(mass * distances))
    return Tally(counts, sums, inertia, distances[order], X[order])


@dataclass(frozen=True, slots=True)
class Moved:
    """Centers after a step. shift: sum of squared distances they moved. inertia: of the centers
    before. empty: clusters that were given the farthest rows, since no row was nearest to them."""

    centers: Float64
    shift: float
    inertia: float
    empty: int


def moved(tallies: Iterable[Tally], centers: Float64) -> Moved:
    """Centers at the means of what is nearest to them; runs added in the order given.

    An empty cluster takes the farthest row of all runs, the next one the row after it, as
    scikit-learn repairs them; where fewer rows stand apart than clusters are empty, the rest stay
    where they are.
    """
    counts, sums, inertia = np.zeros(len(centers)), np.zeros_like(centers), 0.0
    far, points = np.empty(0), np.empty((0, centers.shape[1]))
    for run in tallies:
        counts += run.counts
        sums += run.sums
        inertia += run.inertia
        far, points = np.append(far, run.far), np.concatenate([points, run.points])
    found = centers.copy()
    full = counts > 0
    found[full] = sums[full] / counts[full, None]
    empty = np.flatnonzero(~full)
    order = np.argsort(-far, kind="stable")
    _, first = np.unique(points[order], axis=0, return_index=True)
    order = order[np.sort(first)]
    order = order[far[order] > 0][: len(empty)]
    found[empty[: len(order)]] = points[order]
    shift = float(np.sum((found - centers) ** 2))
    return Moved(found, shift, inertia, len(empty))


def settled(step: Moved, rows: int, tolerance: float) -> bool:
    """Whether the centers moved, squared and all together, by no more than a share `tolerance` of
    the mean squared distance to them; and none of them is a cluster's without rows."""
    return not step.empty and step.shift <= tolerance * step.inertia / max(rows, 1)


@dataclass(frozen=True, slots=True)
class Draw:
    """Rows that a run offers as candidates: keys [e] ascending, points [e, d]. The lowest keys of
    all runs are the ones drawn."""

    keys: Float64
    points: Float64


def race(X: Float64, distances: Float64, count: int, rng: np.random.Generator) -> Draw:
    """The first `count` of a run's rows in a race where a row's speed is its squared distance.

    distances: [m] to the nearest candidate so far; 1 for all in the first draw. A row that is a
    candidate already, at distance 0, never arrives. rng: of this run and this draw alone.
    """
    with np.errstate(divide="ignore"):
        keys = rng.exponential(size=len(X)) / distances
    order = np.argsort(keys, kind="stable")[:count]
    order = order[np.isfinite(keys[order])]
    return Draw(keys[order], X[order])


def drawn(draws: Iterable[Draw], count: int) -> Float64:
    """[c, d] the candidates of one draw: the `count` lowest keys of all runs, lowest first."""
    runs = list(draws)
    keys = np.concatenate([run.keys for run in runs])
    points = np.concatenate([run.points for run in runs])
    return points[np.argsort(keys, kind="stable")[:count]]


def plus_plus(X: Float64, weights: Float64, k: int, rng: np.random.Generator) -> Float64:
    """[k, d] seeds by greedy k-means++: each is the best of a few rows drawn by weight times
    squared distance to the seeds so far, the one that lowers the inertia most.

    X: [m, d] distinct or not. Where fewer than k rows are distinct, seeds repeat.
    """
    trials = 2 + int(np.log(k))
    around = X - X.mean(axis=0)
    own = np.einsum("md,md->m", around, around)
    places = np.empty(k, np.int64)
    places[0] = _pick(weights, 1, rng)[0]
    distances = _squared(around, own, places[:1])[0]
    for step in range(1, k):
        chance = weights * distances
        if not chance.any():  # every row is a seed already
            places[step:] = places[0]
            break
        offers = _pick(chance, trials, rng)
        left = np.minimum(distances, _squared(around, own, offers))
        best = int(np.argmin(left @ weights))
        places[step], distances = offers[best], left[best]
    return X[places]


def _pick(chance: Float64, count: int, rng: np.random.Generator) -> Ids:
    ends = np.cumsum(chance)
    places: Ids = np.searchsorted(ends, rng.random(count) * ends[-1], side="right")
    return places.clip(0, len(ends) - 1)


def _squared(around: Float64, own: Float64, places: Ids) -> Float64:
    """[p, m] squared distances of all rows to some of them. own: [m] squared lengths."""
    squares = (-2.0 * around[places]) @ around.T
    sizes = own + own[places, None]
    squares += sizes
    sizes *= ROUNDING
    squares[squares <= sizes] = 0.0
    return squares


def kept(inertia: Sequence[float], steps: int) -> list[int]:
    """Which restarts go on after so many steps: the better half after HALVINGS steps, ascending.

    Most of what a start is worth shows after a few steps; the last one alone goes to its end.
    """
    if steps not in HALVINGS:
        return list(range(len(inertia)))
    best = np.argsort(inertia, kind="stable")[: max(len(inertia) // 2, 1)]
    if steps == HALVINGS[-1]:
        best = best[:1]
    return sorted(int(place) for place in best)


@dataclass(frozen=True, slots=True)
class Solved:
    """The best restart's centers, and how it went. inertia: of its centers before the last step."""

    centers: Float64
    inertia: float
    iterations: int
    converged: bool


def solve(
    X: Float64,
    starts: Sequence[Float64],
    *,
    iterations: int,
    tolerance: float,
    check: Callable[[], None],
) -> Solved:
    """Lloyd from several starts, all rows in one place; see `kept` for which of them go on.

    starts: [k, d] each. tolerance: see `settled`. check: called in each step.
    """
    runs = [Solved(start, float("inf"), 0, False) for start in starts]
    for step in range(1, iterations + 1):
        for place, run in enumerate(runs):
            if run.converged:
                continue
            check()
            now = moved([tally(X, run.centers)], run.centers)
            runs[place] = Solved(now.centers, now.inertia, step, settled(now, len(X), tolerance))
        runs = [runs[place] for place in kept([run.inertia for run in runs], step)]
        if all(run.converged for run in runs):
            break
    return min(runs, key=lambda run: run.inertia)
