"""Kernels of the approximate k-NN graph: leaf selection, list merging, links, refinement.

A *list* is a row's best candidates so far: ids (positions in cell order) and keys (nearness, larger
is nearer), sorted by (key descending, id ascending), distinct ids, never the row itself, -1 and
-inf where empty. Inserting is commutative: whatever the order, the list ends as the best distinct
ids, each with its largest key.

All kernels are serial and release the GIL; threads belong to the engine.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.blocks import float32_row, prefetch
from simdist.compiled.kernel import fast_kernel, inlined, kernel
from simdist.types import Array, Float32, Ids, Int32

__all__ = [
    "CANDIDATES",
    "fill_short",
    "insert_entries",
    "insert_found",
    "leaf_top",
    "link",
    "mark_fresh",
    "score",
    "sort_lists",
    "walk",
]

AHEAD = 4  # rows between asking for a vector and using it
CANDIDATES = 2048  # of one row in one join, at most
LANES = 32  # interleaved columns of a leaf whose maxima bound what is worth keeping
CHUNK = 16  # columns compared at once before any of them is looked at; divides LANES


@inlined
def _insert(ids: Int32, keys: Float32, candidate: int, key: float) -> bool:
    """Put a candidate into one sorted list; True where it went in as a new id. One that is
    infinitely far (or NaN) stays out: its key is that of an empty place."""
    width = len(ids)
    if not key > -np.inf:
        return False
    if key < keys[width - 1] or (key == keys[width - 1] and candidate >= ids[width - 1]):
        return False
    slot = width - 1
    for place in range(width):
        if ids[place] == candidate:
            if key <= keys[place]:
                return False
            slot = place
            break
    known = ids[slot] == candidate
    while slot > 0 and (
        keys[slot - 1] < key or (keys[slot - 1] == key and ids[slot - 1] > candidate)
    ):
        ids[slot] = ids[slot - 1]
        keys[slot] = keys[slot - 1]
        slot -= 1
    ids[slot] = candidate
    keys[slot] = key
    return not known


@fast_kernel
def leaf_top(
    nearness: Float32, terms: Float32, members: Int32, out_ids: Int32, out_keys: Float32
) -> None:
    """Best columns of every row of one leaf.

    nearness: [m, m] dot products of the leaf's rows. terms: [m] additive terms (zeros for cosine).
    members: [m] positions, distinct. out_ids, out_keys: [m, w] filled with each row's best w
    others, keys including both terms; -1 and -inf where the leaf has fewer.

    A first pass takes the maximum of each of LANES interleaved columns: the w-th largest of them is
    no larger than the w-th best key, so the second pass looks closely at little more than w keys.
    """
    size = len(members)
    width = out_ids.shape[1]
    padded = (size + LANES - 1) // LANES * LANES
    keys = np.full(padded, -np.inf, np.float32)
    lanes = np.empty(LANES, np.float32)
    best = np.empty(width, np.float32)
    where = np.empty(width, np.int32)
    for i in range(size):
        row = nearness[i]
        for j in range(size):
            keys[j] = row[j] + terms[j]
        keys[i] = -np.inf
        floor = np.float32(-np.inf)
        if size > 2 * LANES and width <= LANES - LANES // 4:
            lanes[:] = -np.inf
            for start in range(0, padded, LANES):
                for lane in range(LANES):
                    lanes[lane] = max(lanes[lane], keys[start + lane])
            best[:] = -np.inf
            for lane in range(LANES):
                if lanes[lane] > best[width - 1]:
                    slot = width - 1
                    while slot > 0 and best[slot - 1] < lanes[lane]:
                        best[slot] = best[slot - 1]
                        slot -= 1
                    best[slot] = lanes[lane]
            floor = best[width - 1]
        best[:] = -np.inf
        where[:] = -1
        for start in range(0, padded, CHUNK):
            worth = False
            for j in range(start, start + CHUNK):  # an or of comparisons runs in vector lanes
                worth |= keys[j] >= floor
            if not worth:
                continue
            for j in range(start, start + CHUNK):
                if keys[j] >= floor and keys[j] > best[width - 1]:
                    slot = width - 1
                    while slot > 0 and best[slot - 1] < keys[j]:
                        best[slot] = best[slot - 1]
                        where[slot] = where[slot - 1]
                        slot -= 1
                    best[slot] = keys[j]
                    where[slot] = j
                    floor = max(floor, best[width - 1])
        for slot in range(width):
            out_ids[i, slot] = members[where[slot]] if where[slot] >= 0 else -1
            out_keys[i, slot] = best[slot] + terms[i] if where[slot] >= 0 else -np.inf


@kernel
def insert_entries(
    rows: Int32, entry_ids: Int32, entry_keys: Float32, ids: Int32, keys: Float32
) -> None:
    """Insert entries into lists.

    rows: [e] which list. entry_ids, entry_keys: [e, w], -1 for none.
    ids, keys: [n, width] lists, changed in place.
    """
    for e in range(len(rows)):
        i = rows[e]
        for slot in range(entry_ids.shape[1]):
            if entry_ids[e, slot] >= 0:
                _insert(ids[i], keys[i], entry_ids[e, slot], entry_keys[e, slot])


@kernel
def link(
    ids: Int32,
    fresh: Array,
    sources: Int32,
    starts: Ids,
    source_fresh: Array,
    width: int,
    links: Int32,
) -> None:
    """Links of every row: its best `width` neighbours and up to `width` rows that list it.

    ids, fresh: [rows, w] the lists and which entries are new since the last join.
    sources, source_fresh: [e] rows listing row r, at starts[r]:starts[r + 1], nearest first.
    links: [rows, 2 width] out: position + 1, negative where the link is new, 0 for none. A row that
    is both neighbour and source is kept once.
    """
    for i in range(len(ids)):
        count = 0
        for slot in range(min(width, ids.shape[1])):
            if ids[i, slot] >= 0:
                mark = ids[i, slot] + 1
                links[i, count] = -mark if fresh[i, slot] else mark
                count += 1
        forward = count
        for e in range(starts[i], starts[i + 1]):
            if count == forward + width:
                break
            mark = sources[e] + 1
            seen = False
            for slot in range(forward):
                if abs(links[i, slot]) == mark:
                    seen = True
                    break
            if not seen:
                links[i, count] = -mark if source_fresh[e] else mark
                count += 1
        links[i, count:] = 0


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
def insert_found(indptr: Ids, found: Int32, found_keys: Float32, ids: Int32, keys: Float32) -> None:
    """Insert every row's candidates into its list. ids, keys: [rows, w], changed in place."""
    for r in range(len(indptr) - 1):
        for e in range(indptr[r], indptr[r + 1]):
            _insert(ids[r], keys[r], found[e], found_keys[e])


@kernel
def mark_fresh(before: Int32, before_fresh: Array, joined: int, ids: Int32, fresh: Array) -> None:
    """fresh[r, s] = 1 where ids[r, s] has not been joined yet: it is not in before[r], or was there
    unjoined, beyond the first `joined` places. All [rows, w]."""
    for r in range(len(ids)):
        for s in range(ids.shape[1]):
            fresh[r, s] = 1 if ids[r, s] >= 0 else 0
            if ids[r, s] < 0:
                continue
            for t in range(before.shape[1]):
                if before[r, t] == ids[r, s]:
                    fresh[r, s] = before_fresh[r, t] if t >= joined else 0
                    break


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


@kernel
def fill_short(first: int, rows: int, ids: Int32, keys: Float32, least: int) -> int:
    """Give every list at least `least` ids: from the places beside its row in cell order, nearest
    place first, around the end. Their keys are -inf: anything found later goes before them.

    first: position of the block's first row; rows: rows of the whole set, more than `least`.
    Returns how many lists were short.
    """
    short = 0
    for r in range(len(ids)):
        count = 0
        while count < ids.shape[1] and ids[r, count] >= 0:
            count += 1
        if count >= least:
            continue
        short += 1
        step = 1
        while count < least:
            for sign in (1, -1):
                candidate = (first + r + sign * step) % rows
                known = candidate == first + r or count == least
                for s in range(count):
                    known = known or ids[r, s] == candidate
                if not known:
                    ids[r, count] = candidate
                    count += 1
            step += 1
    return short
