"""Which keys are scored in full precision, and what is certain of the softmax without the others.

    levels ── count ──> Histogram ──> choose: floors        keys at or above them are scored
                            │                    │
                            └──> tails ──────────┴──> certify: tau

A key at level l has a logit of at most ceiling + (l + EDGE) width, so what is left out below a
floor weighs no more than the counts of the levels there say: the *tail* T. With Z the weight of the
keys that were scored, the share left out is

    tau = T' / (Z + T') <= T / (Z + T)                T' <= T what the others really weigh
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simdist.stages.sparse_attention.bounds import Aim
from simdist.stages.sparse_attention.config import SparseConfig
from simdist.types import Array, Bools, Float64, Ids, Int32

__all__ = [
    "MASKED",
    "WINDOW",
    "Choice",
    "Histogram",
    "choose",
    "dropped",
    "extend",
    "merge_histograms",
    "worth_refining",
]

WINDOW = 1024  # levels below the highest that are counted apart: weights down to e^-32
MASKED = -32768  # a level below all that a floor can be: of a key that is not to be seen
REFINED = 0.0625  # of the keys at most: a level from both codes costs ten times one from a tile
DEEPER = 0.1  # of the tolerance: what is below and stays coarse adds no more to the tail
SPARE = 0.97  # of the tolerance, when what the keys weigh is still an estimate


@dataclass(frozen=True)
class Histogram:
    """Keys by level. tops: [n] int32 the highest. counts: [n, WINDOW + 1] at the top, one below,
    ...; the last column counts all that are lower."""

    tops: Int32
    counts: Ids

    @property
    def keys(self) -> Ids:
        """[n] keys counted."""
        return np.asarray(self.counts.sum(axis=1))


def merge_histograms(parts: Sequence[Histogram]) -> Histogram:
    """Of the same queries over other keys: levels agree, tops may differ."""
    tops = np.max([part.tops for part in parts], axis=0)
    counts = np.zeros_like(parts[0].counts)
    rows = np.arange(len(tops))[:, None]
    for part in parts:
        places = np.minimum(np.arange(WINDOW + 1) + (tops - part.tops)[:, None], WINDOW)
        np.add.at(counts, (rows, places), part.counts)
    return Histogram(tops, counts)


def worth_refining(counted: Histogram, aim: Aim, tolerance: float) -> Int32:
    """[n] floors above which levels are worth finding anew from the finest codes; past the top
    where they are not: bounds are close already, or too many keys matter."""
    bounds = _Bounds.of(counted, aim)
    odds = _odds(tolerance) * np.cumsum(bounds.weights, axis=1)
    odds *= np.exp(-aim.slack - 0.5 * aim.width)[:, None]
    few = REFINED * counted.keys
    enough = _first(bounds.tails <= odds)
    deep = _first(bounds.tails <= DEEPER * odds)
    most = np.maximum(np.sum(bounds.taken <= few[:, None], axis=1) - 1, 0)
    rows = np.arange(len(enough))
    wanted = (aim.slack > aim.width) & (bounds.taken[rows, enough] <= few) & (enough < WINDOW)
    places = np.minimum(np.minimum(deep, most), WINDOW - 1)
    return np.where(wanted, counted.tops - places, counted.tops + 1).astype(np.int32)


@dataclass(frozen=True)
class Choice:
    """floors: [n] int32, keys from there up to stops (not included) are scored: stops are past the
    top at first, the last floors when more is wanted. left: [n] how many at the floor itself are
    allowed. tails: [n] what all unscored keys weigh at most, in weights relative to `shift`.
    exact: [n] where all keys are taken instead. short: [n] where the budget did not suffice.
    """

    floors: Int32
    stops: Int32
    left: Ids
    tails: Float64
    shift: Float64
    exact: Bools
    short: Bools

    @property
    def active(self) -> Bools:
        """[n] whether any key is to be scored."""
        return np.asarray(self.floors < self.stops)


def choose(counted: Histogram, aim: Aim, config: SparseConfig, tolerance: float) -> Choice:
    """The highest floors under which the tail is certain to be small enough, as far as the weights
    of the keys above can be told from their bounds. tolerance: rounding taken off."""
    bounds = _Bounds.of(counted, aim)
    likely = np.cumsum(bounds.weights, axis=1) * np.exp(-aim.slack - 0.5 * aim.width)[:, None]
    enough = bounds.tails <= SPARE * _odds(tolerance) * likely
    stops = np.asarray(counted.tops + 1, np.int32)
    return _chosen(counted, aim, config, bounds, _first(enough), stops)


def extend(
    before: Choice, counted: Histogram, aim: Aim, config: SparseConfig, tolerance: float, Z: Float64
) -> Choice:
    """Floors that meet the tolerance for certain, where those before did not.

    Z: [n] what the keys scored so far weigh. Inactive where nothing more is to be done.
    """
    bounds = _Bounds.of(counted, aim)
    tau = before.tails / np.where(Z + before.tails > 0, Z + before.tails, 1.0)
    done = (tau <= tolerance) | before.exact | before.short
    sure = (1.0 - 2.0**-40) * _odds(tolerance)
    place = _first(bounds.tails <= sure * Z[:, None])
    place = np.where(done, 0, place)
    after = _chosen(counted, aim, config, bounds, place, before.floors)
    return Choice(
        np.where(done, before.floors, after.floors).astype(np.int32),
        before.floors,
        after.left,
        np.where(done, before.tails, after.tails),
        after.shift,
        np.where(done, before.exact, after.exact),
        np.where(done, before.short, after.short),
    )


def dropped(tails: Float64, Z: Float64) -> Float64:
    """[n] the share of the softmax left out at most: T / (Z + T); 1 where nothing is known."""
    whole = Z + tails
    return np.where(whole > 0, tails / np.where(whole > 0, whole, 1.0), 1.0)


@dataclass(frozen=True)
class _Bounds:
    """weights: [n, WINDOW + 1] what the keys at each level weigh at most, relative to e^shift.
    tails: [n, WINDOW + 1] what is below each level. taken: keys from the top to each level."""

    weights: Float64
    tails: Float64
    taken: Ids

    @classmethod
    def of(cls, counted: Histogram, aim: Aim) -> _Bounds:
        below = np.arange(WINDOW + 1, dtype=np.float64)
        widths, which = np.unique(aim.width, return_inverse=True)  # nearly always one
        # Sums of 1,025 terms and an exp: 2^-40 is far above what float64 rounds in them.
        table = np.exp(-below * widths[:, None]) * (1.0 + 2.0**-40)
        weights = counted.counts * (table if len(widths) == 1 else table[which])
        tails = np.zeros_like(weights)
        np.cumsum(weights[:, :0:-1], axis=1, out=tails[:, -2::-1])
        tails *= 1.0 + 2.0**-40
        return cls(weights, tails, np.cumsum(counted.counts, axis=1))


def _odds(tolerance: float) -> float:
    return tolerance / (1.0 - tolerance)


def _first(enough: Bools) -> Array:
    """The first place of each row where it is; the last one always is."""
    enough[:, -1] = True
    return np.asarray(np.argmax(enough, axis=1))


def _chosen(
    counted: Histogram,
    aim: Aim,
    config: SparseConfig,
    bounds: _Bounds,
    place: Array,
    stops: Int32,
) -> Choice:
    """Down to so many levels below the top, or as far as the budget goes; or all keys."""
    from simdist.compiled.logits import EDGE, LOWEST  # noqa: PLC0415 - numba only on workers

    rows, keys = np.arange(len(place)), counted.keys
    budget = keys if config.budget is None else np.minimum(keys, config.budget)
    wanted = bounds.taken[rows, place]
    # The last column has all levels that are lower: nothing is left to choose there.
    many = (wanted > config.exact_above * keys) | (place == WINDOW) | ~aim.usable
    many |= counted.tops == MASKED
    exact = many & (budget >= keys)
    short = (wanted > budget) & ~exact
    # What is so far below the top is not told apart, and would not be worth the budget.
    within = np.minimum(np.argmax(bounds.taken >= budget[:, None], axis=1), WINDOW - 1)
    place = np.where(short, within, place)
    before = np.where(place > 0, bounds.taken[rows, place - 1], 0)
    here = counted.counts[rows, place]
    left = np.where(short, np.minimum(budget - before, here), here)
    each = bounds.weights[rows, place] / np.maximum(here, 1)
    tails = bounds.tails[rows, place] + (here - left) * each * (1.0 + 2.0**-40)
    unknown = short & ~aim.usable  # no bound holds: nothing that is scored would say anything
    tails = np.where(unknown, 1e300, tails)
    floors = np.where(place == WINDOW, -LOWEST, counted.tops - place)
    return Choice(
        floors=np.where(exact | unknown, stops, floors).astype(np.int32),
        stops=stops,
        left=left,
        tails=tails,
        shift=aim.ceiling + (counted.tops + EDGE) * aim.width,
        exact=exact,
        short=short,
    )
