"""Rows that are told apart or let go of: hashes of whole rows, and the greedy choice of leaders.

`decide` is the sequential rule, row by row in keep order: a row none of whose earlier neighbours is
kept is kept; another goes, to the first of them that is. What lies in another shard may not be
decided yet; a row that waits for it waits, and is decided in a later round. Earlier rows never
wait for later ones, so one pass in keep order is all that a shard can know, and over all rounds the
answer is that of one pass over everything (a maximal independent set, lexicographically first:
Blelloch, Fineman and Shun, SPAA 2012).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simdist.compiled.kernel import fixed, kernel
from simdist.types import Array, Float32, Ids, Int32

__all__ = ["GONE", "KEPT", "WAITING", "decide", "hash_rows"]

WAITING, KEPT, GONE = range(3)

_M = np.uint64(0xC6A4A7935BD1E995)
_SEED = np.uint64(0x9E3779B97F4A7C15)


def hash_rows(vectors: Float32) -> npt.NDArray[np.uint64]:
    """[n] 64-bit hashes of rows [n, d]; equal rows have equal hashes, 0 and -0 being equal."""
    plain = np.ascontiguousarray(vectors, np.float32) + np.float32(0.0)
    out = np.empty(len(plain), np.uint64)
    _hash_rows(plain.view(np.uint32), out)
    return out


@kernel
def _hash_rows(words: Array, out: Array) -> None:
    for i in range(len(words)):
        h = _SEED ^ (np.uint64(words.shape[1]) * _M)
        for t in range(words.shape[1]):
            k = np.uint64(words[i, t]) * _M
            k = (k ^ (k >> np.uint64(47))) * _M
            h = (h ^ k) * _M
        h = (h ^ (h >> np.uint64(47))) * _M
        out[i] = h ^ (h >> np.uint64(47))


def decide(order: Ids, indptr: Ids, earlier: Ids, near: Int32, state: Array, choice: Ids) -> int:
    """Decide what can be decided; how many rows still wait.

    order: [n] rows of the shard in keep order. near[indptr[i]:indptr[i] + earlier[i]]: row i's
    earlier neighbours in keep order, places in `state`. state: [n + outside] WAITING, KEPT or GONE,
    of the shard's rows changed in place. choice: [n] out, where in `near` the kept row stands to
    which a row goes; left alone for others.
    """
    order, indptr, earlier, near = (fixed(a) for a in (order, indptr, earlier, near))
    return int(_decide(order, indptr, earlier, near, state, choice))


@kernel
def _decide(order: Ids, indptr: Ids, earlier: Ids, near: Int32, state: Array, choice: Ids) -> int:
    waiting = 0
    for row in order:
        if state[row] != WAITING:
            continue
        found = KEPT
        for at in range(indptr[row], indptr[row] + earlier[row]):
            other = state[near[at]]
            if other == KEPT:
                found = GONE
                choice[row] = at
                break
            if other == WAITING:
                found = WAITING
                break
        state[row] = found
        waiting += found == WAITING
    return waiting
