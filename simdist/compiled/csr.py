"""Kernels over rows of a sparse matrix in CSR form, some of its columns at a time.

A shard of a matrix has the rows [begin, end) and columns everywhere, ascending in each row. What it
is multiplied with lies in blocks of consecutive rows. Blocks are taken in order, and a cursor per
row remembers how far it has come, so that no block has to be held beside another and no row is
searched:

    row 0    2 3 | 7     | 12 13          cursors after the first block point at 7, 6, 9
    row 1    1   | 6 7   |
    row 2        | 9     | 11             block  [0, 5)    [5, 10)    [10, 15)

A row is added up in the order of its columns whatever the blocks are: the same sum, bit for bit.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.blocks import prefetch
from simdist.compiled.kernel import fixed, inlined, kernel, summing_kernel
from simdist.types import Array, Bools, Float32, Float64, Ids

__all__ = ["add_product", "columns_within"]

AHEAD = 16  # entries between asking for a row of X and using it
LINE = 64  # bytes that come from memory at once


def add_product(
    indptr: Ids,
    indices: Ids,
    weights: Float32,
    cursors: Ids,
    first: int,
    X: Array,
    scale: Float64,
    out: Float64,
) -> None:
    """out += A[:, first : first + m] diag(scale) X, of the columns in one block, in float64.

    indptr [rows + 1], indices [e], weights [e]: the shard. cursors: [rows], moved past the block.
    X: [m, b] float32 or float64, C-contiguous. scale: [m], or empty for ones. out: [rows, b].
    """
    add = _add_single if X.dtype == np.float32 else _add_double
    parts = (fixed(indptr), fixed(indices), fixed(weights))
    add(*parts, cursors, first, first + len(X), fixed(X), fixed(scale), out)


def columns_within(indptr: Ids, indices: Ids, cursors: Ids, first: int, last: int) -> Ids:
    """Which columns of [first, last) the shard has, ascending, counted from `first`; cursors as in
    `add_product`."""
    seen = np.zeros(last - first, np.bool_)
    _mark_columns(fixed(indptr), fixed(indices), cursors, first, last, seen)
    return np.flatnonzero(seen)


@inlined
def _add(
    indptr: Ids,
    indices: Ids,
    weights: Float32,
    cursors: Ids,
    first: int,
    last: int,
    X: Array,
    scale: Float64,
    out: Float64,
) -> None:
    width, nbytes, scaled = X.shape[1], X.strides[0], len(scale) > 0
    start, scales = X.ctypes.data - first * nbytes, scale.ctypes.data - first * 8
    if width == 1:  # nothing to fetch ahead that the processor does not
        for r in range(len(indptr) - 1):
            e, total = cursors[r], out[r, 0]
            while e < indptr[r + 1] and indices[e] < last:
                column = indices[e] - first
                factor = np.float64(weights[e]) * (scale[column] if scaled else 1.0)
                total += factor * X[column, 0]
                e += 1
            cursors[r], out[r, 0] = e, total
        return
    # A second walk runs ahead: what a row has in this block may be one entry of many.
    rows, asked, used = len(indptr) - 1, 0, 0
    ahead, later = 0, cursors[0] if len(cursors) else 0
    for r in range(rows):
        e, end = cursors[r], indptr[r + 1]
        sums = out[r]
        while e < end and indices[e] < last:
            while asked < used + AHEAD and ahead < rows:
                if later < indptr[ahead + 1] and indices[later] < last:
                    column = indices[later]
                    for place in range(0, nbytes, LINE):
                        prefetch(start + column * nbytes + place)
                    if scaled:
                        prefetch(scales + 8 * column)
                    asked, later = asked + 1, later + 1
                else:
                    ahead += 1
                    later = cursors[ahead] if ahead < rows else later
            used += 1
            column = indices[e] - first
            factor = np.float64(weights[e]) * (scale[column] if scaled else 1.0)
            row = X[column]
            for j in range(width):
                sums[j] += factor * row[j]
            e += 1
        cursors[r] = e


@summing_kernel
def _add_single(
    indptr: Ids,
    indices: Ids,
    weights: Float32,
    cursors: Ids,
    first: int,
    last: int,
    X: Float32,
    scale: Float64,
    out: Float64,
) -> None:
    _add(indptr, indices, weights, cursors, first, last, X, scale, out)


@summing_kernel
def _add_double(
    indptr: Ids,
    indices: Ids,
    weights: Float32,
    cursors: Ids,
    first: int,
    last: int,
    X: Float64,
    scale: Float64,
    out: Float64,
) -> None:
    _add(indptr, indices, weights, cursors, first, last, X, scale, out)


@kernel
def _mark_columns(
    indptr: Ids, indices: Ids, cursors: Ids, first: int, last: int, seen: Bools
) -> None:
    for r in range(len(indptr) - 1):
        e = cursors[r]
        while e < indptr[r + 1] and indices[e] < last:
            seen[indices[e] - first] = True
            e += 1
        cursors[r] = e
