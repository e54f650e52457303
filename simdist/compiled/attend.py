"""The pass between the two matrix products of attention: a tile of logits becomes weights.

    tile [n, m] logits ── key bias, limits ──> peak of each row ──> exp(logit - peak) ──> sums
                                                    │
                        totals and weighted sums so far, times exp(old peak - new peak)

One pass over each row while it lies in the L1 cache. Rows are padded to whole vectors, and what is
beyond a row's limit gets weight 0. float32 or float64; peaks and totals are float64.
"""

from __future__ import annotations

import math

import numpy as np

from simdist.compiled.exponentials import LANES, NBYTES, add, exp_of, gaps_of, peak_of
from simdist.compiled.kernel import fixed, inlined, kernel, summing_kernel
from simdist.types import Array, Float32, Float64, Ids

__all__ = ["LANES", "gaps", "rescale", "weigh"]


def weigh(
    tile: Array,
    first: int,
    columns: int,
    bias: Array | None,
    limits: Ids,
    own: Ids,
    peak: Float64,
    total: Float64,
    decay: Float64,
) -> None:
    """Logits become weights, in place; peaks and totals take them in.

    tile: [n, m] float32 or float64, m a multiple of LANES, rows contiguous (out as well).
    first, columns: keys first..first + columns are in the tile; beyond them is padding.
    bias: [m] of its type, added to each row (what it adds to the padding is not looked at);
        limits: [n] row i sees the keys before limits[i]; own: [n] the key that is left out.
    peak, total: [n] so far (out as well); decay: [n] out, what weighted sums so far are to be
        multiplied with.
    """
    address = 0 if bias is None else bias.ctypes.data
    run = _weigh_single if tile.dtype == np.float32 else _weigh_double
    given = (fixed(limits), fixed(own))
    run(tile, first, columns, address, *given, peak, total, decay)


def gaps(
    tile: Array,
    first: int,
    columns: int,
    bias: Array | None,
    limits: Ids,
    own: Ids,
    shift: Array,
    gap: Array,
    less: Array,
) -> None:
    """Backward: logits become weights p = exp(logit - shift), `gap` becomes p (gap - less).

    tile, gap: [n, m] as for `weigh`. shift, less: [n] of their type. A row with shift inf has no
    weights.
    """
    address = 0 if bias is None else bias.ctypes.data
    run = _gaps_single if tile.dtype == np.float32 else _gaps_double
    given = (fixed(limits), fixed(own), fixed(shift))
    run(tile, first, columns, address, *given, gap, fixed(less))


def rescale(weighted: Float64, decay: Float64, product: Array) -> None:
    """weighted [n, dv] = decay weighted + product, row by row, in place."""
    run = _rescale_single if product.dtype == np.float32 else _rescale_double
    run(weighted, fixed(decay), fixed(product))


@inlined
def _seen(tile: Array, i: int, columns: int, bias: int, limit: int, own: int) -> int:
    """Row i made ready: bias added, what it does not see -inf, 0 beyond its last vector. Returns
    its vectors. limit, own: columns of the tile."""
    limit = max(0, min(limit, columns))
    padded = -(-limit // LANES) * LANES
    vectors = padded * tile.itemsize // NBYTES
    if bias != 0 and vectors > 0:
        add(tile, tile.ctypes.data + i * tile.strides[0], bias, vectors)
    for j in range(limit, padded):
        tile[i, j] = -math.inf
    if 0 <= own < limit:
        tile[i, own] = -math.inf
    for j in range(padded, tile.shape[1]):
        tile[i, j] = 0.0
    return vectors


@inlined
def _weigh(
    tile: Array,
    first: int,
    columns: int,
    bias: int,
    limits: Ids,
    own: Ids,
    peak: Float64,
    total: Float64,
    decay: Float64,
) -> None:
    for i in range(len(tile)):
        row = tile.ctypes.data + i * tile.strides[0]
        decay[i] = 1.0
        vectors = _seen(tile, i, columns, bias, limits[i] - first, own[i] - first)
        if vectors == 0:
            continue
        largest = max(peak[i], np.float64(peak_of(tile, row, vectors)))
        if largest > peak[i]:
            decay[i] = math.exp(peak[i] - largest)
            peak[i] = largest
        # Where nothing was seen yet, -inf minus any number is -inf: weight 0.
        shift = largest if largest > -math.inf else 0.0
        added = exp_of(row, tile.dtype.type(shift), vectors)
        total[i] = total[i] * decay[i] + np.float64(added)


@inlined
def _gaps(
    tile: Array,
    first: int,
    columns: int,
    bias: int,
    limits: Ids,
    own: Ids,
    shift: Array,
    gap: Array,
    less: Array,
) -> None:
    for i in range(len(tile)):
        row = tile.ctypes.data + i * tile.strides[0]
        beside = gap.ctypes.data + i * gap.strides[0]
        vectors = _seen(tile, i, columns, bias, limits[i] - first, own[i] - first)
        for j in range(
            columns, gap.shape[1]
        ):  # what lay there may be no number, and 0 x NaN is not 0
            gap[i, j] = 0.0
        for j in range(vectors * NBYTES // tile.itemsize, columns):
            gap[i, j] = 0.0
        if vectors > 0:
            gaps_of(row, shift[i], beside, less[i], vectors)


@inlined
def _rescale(weighted: Float64, decay: Float64, product: Array) -> None:
    for i in range(len(weighted)):
        factor = decay[i]
        for j in range(weighted.shape[1]):
            weighted[i, j] = weighted[i, j] * factor + np.float64(product[i, j])


@kernel
def _weigh_single(
    tile: Float32,
    first: int,
    columns: int,
    bias: int,
    limits: Ids,
    own: Ids,
    peak: Float64,
    total: Float64,
    decay: Float64,
) -> None:
    _weigh(tile, first, columns, bias, limits, own, peak, total, decay)


@kernel
def _gaps_single(
    tile: Float32,
    first: int,
    columns: int,
    bias: int,
    limits: Ids,
    own: Ids,
    shift: Float32,
    gap: Float32,
    less: Float32,
) -> None:
    _gaps(tile, first, columns, bias, limits, own, shift, gap, less)


@summing_kernel
def _rescale_single(weighted: Float64, decay: Float64, product: Float32) -> None:
    _rescale(weighted, decay, product)


@kernel
def _weigh_double(
    tile: Float64,
    first: int,
    columns: int,
    bias: int,
    limits: Ids,
    own: Ids,
    peak: Float64,
    total: Float64,
    decay: Float64,
) -> None:
    _weigh(tile, first, columns, bias, limits, own, peak, total, decay)


@kernel
def _gaps_double(
    tile: Float64,
    first: int,
    columns: int,
    bias: int,
    limits: Ids,
    own: Ids,
    shift: Float64,
    gap: Float64,
    less: Float64,
) -> None:
    _gaps(tile, first, columns, bias, limits, own, shift, gap, less)


@summing_kernel
def _rescale_double(weighted: Float64, decay: Float64, product: Float64) -> None:
    _rescale(weighted, decay, product)
