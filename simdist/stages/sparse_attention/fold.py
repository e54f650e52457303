"""A block of queries against panels of keys: scan, score, or all of them; and what is certain then.

panels ──scan──> Histogram ──choose──> score ──certain enough?──> Certified
                                         ^            │ no
                                         └──extend────┘        or exact: simdist.tiles.attend
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from simdist.stages.sparse_attention.bounds import ROWS, levels_of
from simdist.stages.sparse_attention.choice import (
    MASKED,
    WINDOW,
    Choice,
    Histogram,
    choose,
    dropped,
    merge_histograms,
)
from simdist.stages.sparse_attention.config import SparseConfig
from simdist.stages.sparse_attention.queries import Panel, Queries, fits_single
from simdist.tiles.attend import Logits, attend
from simdist.tiles.shape import Tile
from simdist.tiles.softmax import SoftmaxState, attended
from simdist.types import Array, Bools, Float64, Ids, Int32

__all__ = [
    "PILOT",
    "Certified",
    "Scored",
    "certify",
    "dtype_of_exact",
    "exact",
    "exact_rounding",
    "hopeless",
    "least_keys",
    "logits_of",
    "refine",
    "scan",
    "score",
]

PILOT = 2048  # keys that tell whether a scan of all is worth its while
PILOT_SHARE = 1.5  # times `exact_above` of the pilot: then it is not
CAST = 4096  # keys
TILE = Tile(256, 512)  # of exact products: a float32 sum has at most so many terms


def scan(
    queries: Queries,
    panels: Iterable[Panel],
    *,
    keep: list[Array] | None = None,
    check: Callable[[], None] | None = None,
) -> Histogram:
    """Keys by level, over all panels. keep: takes the levels, [n, m] of each panel."""
    from simdist.compiled.logits import count_levels  # noqa: PLC0415 - numba only on workers

    found: Histogram | None = None
    for panel in panels:
        if check is not None:
            check()
        tops = np.empty(len(queries), np.int32)
        counts = np.empty((len(queries), WINDOW + 1), np.int64)
        for part, levels in _levels(queries, panel, keep):
            count_levels(levels, tops[part], counts[part])
        here = Histogram(tops, counts)
        found = here if found is None else merge_histograms([found, here])
    assert found is not None  # there is at least one panel
    return found


def _levels(
    queries: Queries, panel: Panel, keep: list[Array] | None
) -> Iterable[tuple[slice, Array]]:
    """Levels of a few queries at a time; of all of them where they are kept."""
    if keep is not None:
        keep.append(_masked(queries, panel))
        yield slice(None), keep[-1]
        return
    for first in range(0, len(queries), ROWS):
        some = slice(first, first + ROWS)
        few = queries.take(np.arange(len(queries))[some])
        yield some, _masked(few, panel)


def _masked(queries: Queries, panel: Panel) -> Array:
    """Levels, a query's own key below all that may be chosen."""
    levels = levels_of(queries.aim, queries.coded, panel.coded, queries.facts.most)
    if queries.own is not None:
        at = queries.own - panel.first
        rows = np.flatnonzero((at >= 0) & (at < len(panel.keys)))
        levels[rows, at[rows]] = MASKED
    return levels


def refine(
    queries: Queries, panels: Iterable[Panel], counted: Histogram, floors: Int32, kept: list[Array]
) -> None:
    """Levels at or above a floor, and their counts, from the finest codes; in place."""
    from simdist.compiled import logits as of  # noqa: PLC0415 - numba only on workers

    aim = queries.aim
    for levels, panel in zip(kept, panels, strict=True):
        of.refine(
            levels,
            floors,
            counted.tops,
            counted.counts,
            queries.coded,
            panel.coded,
            aim.base,
            aim.per_level,
        )


def hopeless(queries: Queries, pilot: Panel, config: SparseConfig) -> Bools:
    """[n] queries that need so many of a few evenly spaced keys that a scan of all would end in
    taking all of them."""
    if config.budget is not None and config.budget < queries.facts.rows:
        return np.zeros(len(queries), bool)
    counted = scan(replace(queries, own=None), [pilot])
    everywhere = SparseConfig(config.scale, config.tolerance, exact_above=1.0)
    chosen = choose(counted, queries.aim, everywhere, queries.tolerance(config.tolerance))
    place = np.clip(counted.tops - chosen.floors, 0, WINDOW)
    taken = np.cumsum(counted.counts, axis=1)[np.arange(len(place)), place]
    share = np.where(chosen.exact, len(pilot.keys), taken) / len(pilot.keys)
    return np.asarray(share > PILOT_SHARE * config.exact_above)


class Scored(NamedTuple):
    """What the keys scored so far add up to, and how many they were, [n]."""

    state: SoftmaxState
    keys: Ids

    def plus(self, other: Scored) -> Scored:
        """Other keys of the same queries, their weights relative to the same peaks."""
        a, b = self.state, other.state
        state = SoftmaxState(a.peak, a.total + b.total, a.weighted + b.weighted)
        return Scored(state, self.keys + other.keys)


def score(
    queries: Queries,
    panels: Iterable[Panel],
    choice: Choice,
    *,
    kept: list[Array] | None = None,
    check: Callable[[], None] | None = None,
) -> Scored:
    """The chosen keys one by one, those of each panel in order.

    kept: levels as `scan` kept them. Weights are relative to the choice's shift.
    """
    from simdist.compiled import logits as of  # noqa: PLC0415 - numba only on workers

    n, dv = len(queries), len(queries.facts.lows)
    state = SoftmaxState(choice.shift, np.zeros(n), np.zeros((n, dv)))
    scored = Scored(state, np.zeros(n, np.int64))
    if not choice.active.any():
        return scored
    # Arrays of one kind, wherever they come from: the kernel is compiled once.
    floors, stops, left, shifts = map(
        np.array, (choice.floors, choice.stops, choice.left, choice.shift)
    )
    precise: Array = np.array(queries.rows, queries.sums)
    for number, panel in enumerate(panels):
        if check is not None:
            check()
        found = _levels(queries, panel, None) if kept is None else [(slice(None), kept[number])]
        for part, levels in found:
            of.score(
                levels,
                floors[part],
                stops[part],
                left[part],
                precise[part],
                panel.keys,
                panel.values,
                queries.scale,
                shifts[part],
                state.total[part],
                state.weighted[part],
                scored.keys[part],
            )
    return scored


def exact(
    queries: Queries,
    panels: Iterable[Panel],
    tolerance: float,
    *,
    check: Callable[[], None] | None = None,
) -> tuple[SoftmaxState | None, Float64]:
    """All keys. -> the state (None of no panels), and [n] what rounding may have moved, as tau.

    float32 products where what they round is certain to be small beside the tolerance.
    """
    dtype = dtype_of_exact(queries, tolerance)
    state = None
    rows: Array = queries.rows.astype(dtype, copy=False)
    for panel in panels:
        # Where keys have to be cast, a few at a time: a few queries should not pay for a copy.
        step = len(panel.keys) if panel.keys.dtype == dtype else CAST
        for first in range(0, len(panel.keys), max(1, step)):
            some = slice(first, first + step)
            keys: Array = panel.keys[some].astype(dtype, copy=False)
            values: Array = panel.values[some].astype(dtype, copy=False)
            own = None if queries.own is None else queries.own - panel.first - first
            logits = Logits(scale=queries.scale, own=own)
            state = attend(rows, keys, values, logits, start=state, tile=TILE, check=check)
    return state, exact_rounding(queries, dtype)


def dtype_of_exact(queries: Queries, tolerance: float) -> type:
    """float64 where the queries are, or where float32 might round away more than the tolerance."""
    wide = float(exact_rounding(queries, np.float32).max(initial=0.0)) > tolerance
    wide |= queries.rows.dtype == np.float64 or not fits_single(queries.facts)
    return np.float64 if wide else np.float32


def exact_rounding(queries: Queries, dtype: type) -> Float64:
    """[n] of tau: products, their scale, peaks, exponentials, and sums within and over tiles."""
    unit = 2.0**-24 if dtype == np.float32 else 2.0**-53
    logit = queries.scale * queries.lengths * queries.facts.longest
    off = (queries.rows.shape[1] + 8) * unit * logit + 8 * unit
    sums = 2 * TILE.columns * unit + 4 * queries.facts.rows * 2.0**-53
    return np.asarray(0.5 * np.expm1(2.0 * off) + sums + 2.0**-24)


@dataclass(frozen=True)
class Certified:
    """See `simdist.sparse_attention`: output [n, dv], logsumexp [n, 2], the others [n]."""

    output: Array
    logsumexp: Float64
    tau: Float64
    error: Float64
    keys: Ids
    certified: Bools
    fell_back: Bools


def certify(
    queries: Queries, choice: Choice, scored: Scored, rounding: Float64, config: SparseConfig
) -> Certified:
    """What is certain. scored: or all keys, where the choice is exact. rounding: [n] of tau."""
    state = scored.state
    tails = np.where(choice.exact, 0.0, choice.tails)
    Z = np.where(choice.exact, 1.0, state.total)
    share = dropped(tails, Z)
    tau = np.minimum(share + rounding, 1.0)
    found = attended(state, np.float32 if queries.single else np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", found.output, found.output, dtype=np.float64))
    widest = queries.facts.widest
    with np.errstate(divide="ignore"):
        wholes = choice.shift + np.log(np.where(choice.exact, 1.0, state.total + tails))
    lows = found.logsumexp
    highs = np.where(choice.exact, lows, wholes)
    return Certified(
        output=found.output,
        logsumexp=np.stack([lows - 2.0 * rounding, highs + 2.0 * rounding], axis=1),
        tau=tau,
        error=np.minimum(share * (lengths + widest) + 2.0 * rounding * widest, 2 * tau * widest),
        keys=np.where(choice.exact, queries.facts.rows - (queries.own is not None), scored.keys),
        certified=np.asarray(tau <= config.tolerance),
        fell_back=choice.exact,
    )


def logits_of(queries: Queries, keys: Array, first: int = 0) -> Float64:
    """[n, m] in float64; -inf at a query's own key. first: the number of the first key."""
    product: Float64 = queries.rows.astype(np.float64) @ keys.astype(np.float64).T
    product *= queries.scale
    if queries.own is not None:
        at = queries.own - first
        rows = np.flatnonzero((at >= 0) & (at < len(keys)))
        product[rows, at[rows]] = -np.inf
    return product


def least_keys(logits: Float64, tolerance: float) -> Ids:
    """[n] the fewest keys without which no more than the tolerance of the softmax is left out."""
    if not logits.shape[1]:
        return np.zeros(len(logits), np.int64)
    ascending = np.sort(logits, axis=1)
    most = ascending[:, -1:]
    weights = np.exp(ascending - np.where(np.isfinite(most), most, 0.0))
    below = np.cumsum(weights, axis=1)
    return np.asarray(np.sum(below > tolerance * below[:, -1:], axis=1))
