"""Ids that appear twice, found exactly without all ids in one place.

    runs of sorted hashes   [....|....|....|....]  [....|....|....|....]   one per about 1e6 rows
                               |                      |
    bucket 0 of 4 ─────────────┴──────────────────────┘   a slice of each run, found by bisection

A bucket is a range of hashes; equal ids have equal hashes and meet in one bucket. Equal hashes are
only a suspicion: the ids themselves are compared before anything is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simdist.types import Array, Json

__all__ = ["Duplicate", "bucket_count", "bucket_nbytes", "first_duplicate", "gather"]

BUCKET_ROWS = 1 << 21  # 32 MiB of hashes and rows, about 100 MiB while they are sorted


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The earliest row whose id an earlier row has, and how many rows of the bucket repeat one."""

    first: int
    second: int
    id: Json
    repeats: int


def bucket_count(rows: int) -> int:
    """A power of two, so that a bucket is named by the top bits of a hash."""
    return 1 << max(0, -(-rows // BUCKET_ROWS) - 1).bit_length()


def bucket_nbytes(rows: int) -> int:
    """What checking one bucket holds: hashes, rows, their order and sorted copies."""
    return 64 * -(-rows // bucket_count(rows)) + (8 << 20)


def gather(
    runs: Iterable[Array], bucket: int, buckets: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Hashes of one bucket and their rows, from runs [2, m] sorted by hash."""
    shift = 64 - (buckets.bit_length() - 1)
    hashes, rows = [], []
    for run in runs:
        start = np.searchsorted(run[0], np.uint64(bucket << shift)) if bucket else 0
        last = bucket == buckets - 1
        stop = run.shape[1] if last else np.searchsorted(run[0], np.uint64((bucket + 1) << shift))
        hashes.append(run[0, start:stop])
        rows.append(run[1, start:stop].view(np.int64))
    return np.concatenate(hashes), np.concatenate(rows)


def first_duplicate(
    hashes: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64], id_of: Callable[[int], Json]
) -> Duplicate | None:
    """The duplicate with the earliest second row among rows whose hashes are equal, or None.

    id_of: the id of a row; asked only where hashes are equal.
    """
    order = np.lexsort((rows, hashes))
    hashes, rows = hashes[order], rows[order]
    again = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
    for place in again[np.argsort(rows[again], kind="stable")]:
        same = int(np.searchsorted(hashes, hashes[place]))
        wanted = id_of(int(rows[place]))
        for earlier in range(same, int(place)):
            if id_of(int(rows[earlier])) == wanted:
                return Duplicate(int(rows[earlier]), int(rows[place]), wanted, len(again))
    return None
