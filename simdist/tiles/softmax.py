"""Softmax-weighted sums: attention, kernel regression, mean-shift, contrastive losses.

    output_i    = sum_j exp(scale K_ij - L_i) v_j
    logsumexp_i = L_i = log sum_j exp(scale K_ij)

folded online (Milakov and Gimelshein 2018; Dao et al. 2022): the state keeps the running maximum,
so that nothing overflows, and is rescaled when a larger one comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from simdist.errors import ConfigError
from simdist.tiles.ids import as_ids, locate
from simdist.tiles.reducers import Reducer
from simdist.types import Array, Float32, Float64, Ids

__all__ = ["Attended", "Softmax", "SoftmaxState", "attended", "empty", "merged"]


class SoftmaxState(NamedTuple):
    """peak: [n] largest scaled score so far (-inf: none). total: [n] sum of exp(score - peak).
    weighted: [n, dv] sum of exp(score - peak) v_j. All float64."""

    peak: Float64
    total: Float64
    weighted: Float64


class Attended(NamedTuple):
    """output: [n, dv] float32, or float64 where it was computed in that (0 where a row has no
    columns). logsumexp: [n] float64, natural log (-inf where a row has no columns)."""

    output: Array
    logsumexp: Float64


@dataclass(frozen=True, eq=False)
class Softmax(Reducer[SoftmaxState]):
    """Per row, the softmax over columns of scale times the value, and the sum of `values` under it.

    scale: multiplies the measure's value.
    values: [m, dv] float, what is summed.
    ids: [m] global column ids of `values`; by default 0..m-1.

    A tile entry of -inf is a masked pair. A pair folded twice counts twice.
    """

    scale: float
    values: Array
    ids: Ids | None = None

    def __post_init__(self) -> None:
        if not np.isfinite(self.scale) or np.ndim(self.values) != 2:
            raise ConfigError(
                f"Softmax: scale={self.scale}, values of shape {np.shape(self.values)}; "
                "give a finite scale and values [columns, dv]"
            )
        object.__setattr__(self, "ids", as_ids(self.ids, len(self.values), "Softmax.ids"))

    def init(self, rows: Ids) -> SoftmaxState:
        return empty(len(rows), self.values.shape[1])

    def update(self, state: SoftmaxState, tile: Float32, rows: Ids, columns: Ids) -> SoftmaxState:
        scores = np.multiply(tile, np.float32(self.scale), dtype=np.float32)
        peak = np.maximum(state.peak, scores.max(axis=1, initial=-np.inf))
        scores -= _floor(peak)[:, None].astype(np.float32)
        # The float32 shift is part of the weights: keep exactly that one as the peak.
        peak = np.where(np.isfinite(peak), peak.astype(np.float32), peak)
        weights = np.exp(scores, out=scores)
        decay = np.exp(state.peak - _floor(peak))
        return SoftmaxState(
            peak,
            state.total * decay + weights.sum(axis=1, dtype=np.float64),
            state.weighted * decay[:, None] + weights @ self._values(columns),
        )

    def update_lists(
        self, state: SoftmaxState, entries: Float32, indptr: Ids, rows: Ids, columns: Ids
    ) -> SoftmaxState:
        scores = np.asarray(entries, np.float64) * self.scale
        filled = np.flatnonzero(np.diff(indptr))
        starts = indptr[:-1][filled]
        peak = state.peak.copy()
        if len(filled):
            peak[filled] = np.maximum(peak[filled], np.maximum.reduceat(scores, starts))
        weights = np.exp(scores - np.repeat(_floor(peak), np.diff(indptr)))
        decay = np.exp(state.peak - _floor(peak))
        total, weighted = state.total * decay, state.weighted * decay[:, None]
        if len(filled):
            total[filled] += np.add.reduceat(weights, starts)
            terms = weights[:, None] * self._values(columns)
            weighted[filled] += np.add.reduceat(terms, starts, axis=0)
        return SoftmaxState(peak, total, weighted)

    def merge(self, a: SoftmaxState, b: SoftmaxState) -> SoftmaxState:
        return merged(a, b)

    def finalize(self, state: SoftmaxState) -> Attended:
        return attended(state, np.float32)

    def nbytes(self, rows: int, columns: int) -> int:
        return 8 * rows * (2 + int(self.values.shape[1]))

    def scratch_nbytes(self, rows: int, columns: int) -> int:
        # scaled scores (they become the weights), gathered values, and the new weighted sums twice
        dv = int(self.values.shape[1])
        return 4 * rows * columns + 4 * columns * dv + 16 * rows * (dv + 4)

    def _values(self, columns: Ids) -> Array:
        assert self.ids is not None  # set in __post_init__
        return np.asarray(self.values[locate(self.ids, columns, "Softmax.values")], np.float32)


def empty(rows: int, dv: int) -> SoftmaxState:
    """The state of rows that have seen no column: the unit of `merged`."""
    return SoftmaxState(np.full(rows, -np.inf), np.zeros(rows), np.zeros((rows, dv)))


def merged(a: SoftmaxState, b: SoftmaxState) -> SoftmaxState:
    """Two states of the same rows over disjoint sets of columns, together."""
    peak = np.maximum(a.peak, b.peak)
    left, right = np.exp(a.peak - _floor(peak)), np.exp(b.peak - _floor(peak))
    return SoftmaxState(
        peak,
        a.total * left + b.total * right,
        a.weighted * left[:, None] + b.weighted * right[:, None],
    )


def attended(state: SoftmaxState, dtype: Any) -> Attended:
    """What a state says in the end. dtype: of the output."""
    some = state.total > 0
    total = np.where(some, state.total, 1.0)
    logsumexp = np.where(some, state.peak + np.log(total), -np.inf)
    return Attended((state.weighted / total[:, None]).astype(dtype), logsumexp)


def _floor(peak: Float64) -> Float64:
    """The shift for a peak: itself, or 0 where nothing came yet (-inf minus -inf is NaN)."""
    return np.where(np.isfinite(peak), peak, 0.0)
