"""Kernels that give rows to cells: the nearest leaders of a row, and a stable counting sort."""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import kernel
from simdist.types import Array, Float32, Ids, Int32

__all__ = ["bucket_order", "nearest_columns"]


def nearest_columns(nearness: Float32, terms: Float32, out: Int32) -> None:
    """The columns of largest nearness + terms in every row, nearest first, ties to the lower one.

    nearness: [n, m]. terms: [m], may be read-only. out: [n, f], -1 where m < f.
    """
    _nearest_columns(nearness, _one_type(terms, np.float32), out)


def bucket_order(buckets: Array, count: int, order: Ids, starts: Ids) -> None:
    """Stable order of entries by bucket; negative buckets are left out.

    buckets: [e] integers below `count`. order: [e] out, the first starts[count] places filled.
    starts: [count + 1] out, bucket b holds order[starts[b]:starts[b + 1]].
    """
    _bucket_order(_one_type(buckets, np.int32), count, order, starts)


def _one_type(array: Array, dtype: type) -> Array:
    """As the kernels are compiled for; to numba, a read-only array is another type."""
    return np.require(array, dtype, ["C", "W", "A"])


@kernel
def _nearest_columns(nearness: Float32, terms: Float32, out: Int32) -> None:
    width = out.shape[1]
    best = np.empty(width, np.float32)
    for i in range(nearness.shape[0]):
        best[:] = -np.inf
        out[i, :] = -1
        for j in range(nearness.shape[1]):
            key = nearness[i, j] + terms[j]
            if key > best[width - 1] or out[i, width - 1] < 0:
                slot = width - 1
                while slot > 0 and (out[i, slot - 1] < 0 or best[slot - 1] < key):
                    best[slot] = best[slot - 1]
                    out[i, slot] = out[i, slot - 1]
                    slot -= 1
                best[slot] = key
                out[i, slot] = j


@kernel
def _bucket_order(buckets: Int32, count: int, order: Ids, starts: Ids) -> None:
    starts[:] = 0
    for e in range(len(buckets)):
        if buckets[e] >= 0:
            starts[buckets[e] + 1] += 1
    for b in range(count):
        starts[b + 1] += starts[b]
    place = starts[:count].copy()
    for e in range(len(buckets)):
        b = buckets[e]
        if b >= 0:
            order[place[b]] = e
            place[b] += 1
