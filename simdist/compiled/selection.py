"""Selection from a tile of nearness into bounded lists: the loop right behind every GEMM.

    tile row i   |....|....|..^.|....|     one comparison per chunk of columns (SIMD);
                            |              only a chunk that reaches the bar is looked into
    list of i    best ... k-th = the bar

A list is one row of `ids` [n, k] int64 and `keys` [n, k] float32, sorted by (key descending, id
ascending), with distinct ids; -1 and -inf mark an empty slot. Larger keys are nearer. An entry of
-inf is never taken, so a masked pair stays out; NaN is the importer's to refuse.

The *bar* of a list is the key an entry must reach to be worth a look: the k-th key, or the next
float above it when no id on offer could win the tie. With ids that ascend (the usual case), ten
thousand exact duplicates are then passed over at full speed instead of being compared one by one.

Kernels are serial and release the GIL: threads belong to the engine. Integers given to them are
int64, keys float32, arrays C-contiguous and writable (one compiled signature each).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simdist.compiled.kernel import kernel
from simdist.types import Float32, Ids

__all__ = ["merge_lists", "select_both", "select_lists", "select_rows"]

CHUNK = 64  # columns per comparison: four 512-bit registers
LOWEST = np.float32(np.finfo(np.float32).min)  # the bar of a list with empty slots: not -inf
ABOVE = np.float32(np.inf)


@kernel
def select_rows(
    tile: Float32, rows: Ids, columns: Ids, ids: Ids, keys: Float32, exclude_self: bool
) -> None:
    """Offer every entry of `tile` [n, m] to the list of its row, in place.

    rows [n], columns [m]: global ids. ids, keys [n, k]: the lists of `rows`.
    exclude_self: skip entries whose column id is their row id.
    """
    n, m = tile.shape
    lowest = _lowest(columns)
    for i in range(n):
        entries = tile[i]
        bar = _bar(ids[i], keys[i], lowest)
        for start in range(0, m, CHUNK):
            stop = min(start + CHUNK, m)
            if not _any_reaches(entries[start:stop], bar):
                continue
            for j in range(start, stop):
                if entries[j] >= bar and not (exclude_self and columns[j] == rows[i]):
                    _offer(ids[i], keys[i], columns[j], entries[j])
                    bar = _bar(ids[i], keys[i], lowest)


@kernel
def select_both(
    tile: Float32,
    rows: Ids,
    columns: Ids,
    row_ids: Ids,
    row_keys: Float32,
    column_ids: Ids,
    column_keys: Float32,
    exclude_self: bool,
) -> None:
    """Offer every entry of `tile` [n, m] to the list of its row and to the list of its column.

    row_ids, row_keys [n, k]; column_ids, column_keys [m, k]. One pass over the tile: an entry is
    worth a look where it reaches the lower of its two bars.
    """
    n, m = tile.shape
    lowest_column = _lowest(columns)
    lowest_row = _lowest(rows)
    bars = np.empty(m, np.float32)
    for j in range(m):
        bars[j] = _bar(column_ids[j], column_keys[j], lowest_row)
    for i in range(n):
        entries = tile[i]
        bar = _bar(row_ids[i], row_keys[i], lowest_column)
        for start in range(0, m, CHUNK):
            stop = min(start + CHUNK, m)
            if not _any_reaches_either(entries[start:stop], bars[start:stop], bar):
                continue
            for j in range(start, stop):
                key = entries[j]
                if key >= bar or key >= bars[j]:
                    if exclude_self and columns[j] == rows[i]:
                        continue
                    if key >= bar:
                        _offer(row_ids[i], row_keys[i], columns[j], key)
                        bar = _bar(row_ids[i], row_keys[i], lowest_column)
                    if key >= bars[j]:
                        _offer(column_ids[j], column_keys[j], rows[i], key)
                        bars[j] = _bar(column_ids[j], column_keys[j], lowest_row)


@kernel
def select_lists(
    entries: Float32,
    indptr: Ids,
    rows: Ids,
    columns: Ids,
    ids: Ids,
    keys: Float32,
    exclude_self: bool,
) -> None:
    """Offer ragged rows: entries[indptr[i]:indptr[i + 1]] belong to row i, `columns` [nnz] ids."""
    for i in range(len(rows)):
        for e in range(indptr[i], indptr[i + 1]):
            if entries[e] >= max(keys[i, -1], LOWEST):
                if exclude_self and columns[e] == rows[i]:
                    continue
                _offer(ids[i], keys[i], columns[e], entries[e])


@kernel
def merge_lists(ids: Ids, keys: Float32, other_ids: Ids, other_keys: Float32) -> None:
    """Offer the lists of `other` to `ids`, `keys` [n, k], in place; both for the same rows."""
    for i in range(ids.shape[0]):
        for p in range(other_ids.shape[1]):
            # The other list is sorted: the first entry below the bar ends the row.
            if other_ids[i, p] < 0 or other_keys[i, p] < keys[i, -1]:
                break
            _offer(ids[i], keys[i], other_ids[i, p], other_keys[i, p])


@kernel
def _any_reaches(entries: Float32, bar: Any) -> Any:
    """Whether any entry reaches the bar. An "or" of comparisons: LLVM vectorises it as it stands,
    while a float maximum would need fast-math flags that it loses on the way."""
    hit = False
    for j in range(len(entries)):
        hit |= entries[j] >= bar
    return hit


@kernel
def _any_reaches_either(entries: Float32, bars: Float32, bar: Any) -> Any:
    """Whether any entry reaches the lower of its row's bar and its column's."""
    hit = False
    for j in range(len(entries)):
        hit |= entries[j] >= min(bars[j], bar)
    return hit


@kernel
def _lowest(ids: Ids) -> Any:
    lowest = np.int64(np.iinfo(np.int64).max)
    for p in range(len(ids)):
        lowest = min(lowest, ids[p])
    return lowest


@kernel
def _bar(ids: Ids, keys: Float32, lowest: Any) -> Any:
    """The smallest key worth an offer to this list from ids of at least `lowest`."""
    last = len(ids) - 1
    if ids[last] < 0:
        return LOWEST
    if ids[last] < lowest:
        return np.nextafter(keys[last], ABOVE)
    return keys[last]


@kernel
def _offer(ids: Ids, keys: Float32, candidate: Any, key: Any) -> None:
    """Put (candidate, key) in its place; an id already listed keeps its better key."""
    p = len(ids) - 1
    if keys[p] == key and ids[p] < candidate and ids[p] >= 0:
        return
    listed = False
    for q in range(len(ids)):
        listed |= ids[q] == candidate
    if listed:
        p = 0
        while ids[p] != candidate:
            p += 1
        if key <= keys[p]:
            return
    while p > 0 and (keys[p - 1] < key or (keys[p - 1] == key and ids[p - 1] > candidate)):
        keys[p] = keys[p - 1]
        ids[p] = ids[p - 1]
        p -= 1
    keys[p] = key
    ids[p] = candidate
