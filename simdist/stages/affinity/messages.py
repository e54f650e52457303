"""Messages of affinity propagation on a run of rows of a sparse similarity. Pure.

    r(i, k) = s(i, k) - max over k' != k of (a(i, k') + s(i, k'))          along a row
    a(i, k) = min(0, r(k, k) + sum over i' not in {i, k} of max(0, r(i', k)))   along a column
    a(k, k) = sum over i' != k of max(0, r(i', k))

Non-edges have s = -inf: no message. With c_k the column's sum and t_k = r(k, k) + c_k it is
a(i, k) = min(0, t_k - max(0, r(i, k))): one number a column is all that a row needs of the others.

Source: Frey and Dueck, Clustering by passing messages between data points (Science 315, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simdist.types import Bools, Float64, Ids

__all__ = [
    "Edges",
    "Messages",
    "available",
    "column_sums",
    "nothing_said",
    "parted",
    "responsible",
    "settle",
]


@dataclass(frozen=True, slots=True)
class Edges:
    """A run of rows: indptr [rows + 1]; similarity [e] float64; columns [h], distinct, ascending;
    place [e]: which of the columns an entry has. preference: s(k, k)."""

    indptr: Ids
    similarity: Float64
    columns: Ids
    place: Ids
    preference: float

    @property
    def rows(self) -> int:
        return len(self.indptr) - 1


@dataclass(frozen=True, slots=True)
class Messages:
    """r, a: [e] float64 along the edges. own_r, own_a: [rows], of rows to themselves."""

    r: Float64
    a: Float64
    own_r: Float64
    own_a: Float64


def parted(rows: Ids, columns: Ids, seed: int) -> Float64:
    """[e] numbers in [0, 1), as if drawn at random, that follow from each row and column alone: the
    same however the rows are sharded. The finaliser of splitmix64 (Steele et al., OOPSLA 2014)."""
    z = np.full(len(rows), seed, np.uint64)
    for part in (rows, columns):
        z = (z ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def nothing_said(edges: Edges) -> Messages:
    """All messages 0."""
    entries = len(edges.similarity)
    return Messages(*(np.zeros(size) for size in (entries, entries, edges.rows, edges.rows)))


def responsible(edges: Edges, said: Messages, damping: float) -> Messages:
    """New responsibilities, damped. A row without edges is responsible to itself alone."""
    linked = np.flatnonzero(np.diff(edges.indptr))
    starts = edges.indptr[linked]
    counts = np.diff(edges.indptr)[linked]
    value = said.a + edges.similarity
    own = (said.own_a + edges.preference)[linked]
    best, at = _best(value, starts, counts)
    value[at] = -np.inf
    second = _best(value, starts, counts)[0]
    mine = own >= best  # the row itself is best: everyone else is held against it
    high = np.where(mine, own, best)
    next_high = np.where(mine, best, np.maximum(second, own))
    r = edges.similarity - np.repeat(high, counts)
    others = ~mine
    r[at[others]] = edges.similarity[at[others]] - next_high[others]
    own_r = np.ones(edges.rows)
    own_r[linked] = edges.preference - best
    return Messages(
        damping * said.r + (1.0 - damping) * r,
        said.a,
        damping * said.own_r + (1.0 - damping) * own_r,
        said.own_a,
    )


def _best(value: Float64, starts: Ids, counts: Ids) -> tuple[Float64, Ids]:
    """The largest value of each row that has any, and where it stands first."""
    if not len(starts):
        return np.empty(0), np.empty(0, np.int64)
    best = np.maximum.reduceat(value, starts)
    places = np.where(value == np.repeat(best, counts), np.arange(len(value)), len(value))
    return best, np.minimum.reduceat(places, starts)


def column_sums(edges: Edges, said: Messages) -> Float64:
    """[h] sum of max(0, r(i, k)) over the run's rows, for each of its columns."""
    sums = np.zeros(len(edges.columns))
    if len(edges.place):
        sums += np.bincount(
            edges.place, weights=np.maximum(said.r, 0.0), minlength=len(edges.columns)
        )
    return sums


def settle(said: Messages, sums: Float64, damping: float) -> tuple[Float64, Float64, Bools]:
    """What the owner of a run of columns makes of their sums [rows]: a(k, k) damped, t_k, and which
    are exemplars now."""
    own_a = damping * said.own_a + (1.0 - damping) * sums
    return own_a, said.own_r + sums, said.own_r + own_a > 0


def available(edges: Edges, said: Messages, asked: Float64, damping: float) -> Float64:
    """[e] new availabilities, damped. asked: [h] t_k of each column."""
    a = np.minimum(asked[edges.place] - np.maximum(said.r, 0.0), 0.0)
    return damping * said.a + (1.0 - damping) * a
