"""Kernels of the approximate k-NN graph for measures without codes: tiles of nearness, walks, and
scores of listed pairs; and the order of a finished list.

All kernels are serial and release the GIL; threads belong to the engine.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.blocks import float32_row, prefetch
from simdist.compiled.kernel import fast_kernel, inlined, kernel
from simdist.compiled.lists import EMPTY, packed, tail_of
from simdist.types import Float32, Ids, Int32

__all__ = ["CANDIDATES", "score", "sort_lists", "tile_top", "walk"]

AHEAD = 4  # rows between asking for a vector and using it
CANDIDATES = 2048  # of one row in one walk, at most


@kernel
def tile_top(nearness: Float32, members: Int32, out: Ids) -> None:
    """Best columns of every row of one tile of rows with one another.

    nearness: [m, m]. members: [m] positions, distinct. out: [m, w] each row's best w others as
    candidates, EMPTY where there are fewer that are not infinitely far.
    """
    width = out.shape[1]
    for i in range(len(members)):
        best = out[i]
        best[:] = EMPTY
        for j in range(len(members)):
            if j == i or not nearness[i, j] > -np.inf:
                continue
            candidate = packed(nearness[i, j], tail_of(members[j]))
            if candidate > best[width - 1]:
                place = width - 1
                while place > 0 and best[place - 1] < candidate:
                    best[place] = best[place - 1]
                    place -= 1
                best[place] = candidate


@kernel
def walk(first: int, ids: Int32, mine: Int32, theirs: Int32, indptr: Ids, found: Int32) -> None:
    """Candidates of rows first, first + 1, ... of cell order: who can be reached over two links,
    one of them new, and is not in the row's list yet.

    ids: [m, w] the lists. mine: [m, l] the rows' links, see `link`; theirs: [m, l, l] the links of
    the row that each of them leads to (anything where there is none).
    indptr: [m + 1] out. found: out, candidates of row first + r at found[indptr[r]:indptr[r + 1]],
    each once; at most CANDIDATES of them.
    """
    most = 1 + ids.shape[1] + CANDIDATES
    size = 4 * CANDIDATES
    while size < 2 * most:
        size *= 2
    table = np.full(size, -1, np.int32)
    used = np.empty(most, np.int32)
    total = 0
    indptr[0] = 0
    width = mine.shape[1]
    for r in range(len(ids)):
        count = _mark(table, used, 0, first + r)
        for s in range(ids.shape[1]):
            if ids[r, s] >= 0:
                count = _mark(table, used, count, ids[r, s])
        limit = total + CANDIDATES
        for a in range(width):
            if mine[r, a] == 0 or total == limit:
                break
            for b in range(width):
                if theirs[r, a, b] == 0 or total == limit:
                    break
                if mine[r, a] > 0 and theirs[r, a, b] > 0:
                    continue
                candidate = abs(theirs[r, a, b]) - 1
                after = _mark(table, used, count, candidate)
                if after > count:
                    found[total] = candidate
                    total += 1
                    count = after
        indptr[r + 1] = total
        for c in range(count):
            table[used[c]] = -1


@inlined
def _mark(table: Int32, used: Int32, count: int, candidate: int) -> int:
    """Put a candidate into the table of those seen; count + 1 where it was not there."""
    mask = len(table) - 1
    slot = (candidate * 2654435761 >> 7) & mask
    while table[slot] != -1 and table[slot] != candidate:
        slot = (slot + 1) & mask
    if table[slot] == candidate:
        return count
    table[slot] = candidate
    used[count] = slot
    return count + 1


@fast_kernel
def _dot(a: Float32, b: Float32) -> np.float32:
    total = np.float32(0.0)
    for t in range(len(a)):
        total += a[t] * b[t]
    return total


@fast_kernel
def score(
    chosen: Ids,
    rows: Int32,
    found: Int32,
    row_address: int,
    row_terms: int,
    column_address: int,
    column_terms: int,
    dim: int,
    keys: Float32,
) -> None:
    """Nearness of some candidates to their rows, in GEMM form: dot product and both terms.

    chosen: which places of rows, found and keys, all [e]; keys: out. row_address, column_address:
    where vector 0 would lie in the matrix that the rows are numbered in, and in that of the chosen
    candidates; row_terms, column_terms likewise, 0 where terms are zero.
    """
    nbytes = 4 * dim
    for c in range(len(chosen)):
        e = chosen[c]
        if c + AHEAD < len(chosen):  # the rows lie far apart: ask for one before it is its turn
            ahead = column_address + nbytes * found[chosen[c + AHEAD]]
            for line in range(0, nbytes, 64):
                prefetch(ahead + line)
        x = float32_row(row_address + nbytes * rows[e], dim)
        y = float32_row(column_address + nbytes * found[e], dim)
        key = _dot(x, y)
        if row_terms != 0:
            term = float32_row(column_terms + 4 * found[e], 1)[0]
            key = key + term + float32_row(row_terms + 4 * rows[e], 1)[0]
        keys[e] = key


@kernel
def sort_lists(values: Float32, numbers: Ids, ids: Int32) -> None:
    """Sort every list by (value ascending, number ascending). All [rows, w], changed in place."""
    for r in range(len(ids)):
        for s in range(1, ids.shape[1]):
            value, number, candidate = values[r, s], numbers[r, s], ids[r, s]
            t = s
            while t > 0 and (
                values[r, t - 1] > value
                or (values[r, t - 1] == value and numbers[r, t - 1] > number)
            ):
                values[r, t] = values[r, t - 1]
                numbers[r, t] = numbers[r, t - 1]
                ids[r, t] = ids[r, t - 1]
                t -= 1
            values[r, t] = value
            numbers[r, t] = number
            ids[r, t] = candidate
