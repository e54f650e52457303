"""What tasks of a distributed transpose leave for one another: edges, bucket by bucket.

    task 0   entries [e, 2]   | range 0: forward, reverse | range 1: forward, reverse | ...
             starts  [2 R + 1]
    task 1   ...                        a range's task maps each object and takes its two slices

One object a task, not one a bucket: there are as many objects as tasks. A worker on another machine
than the store fetches such an object whole, into its cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simdist.types import Ids, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["bucket_nbytes", "bucketed", "forward_and_reverse", "settle_nbytes"]

BASE_NBYTES = 24 << 20  # decoding, compression, the store's buffers


def bucketed(context: Context, entries: Ids, starts: Ids) -> dict[str, ObjectRef]:
    """Leave a task's edges for the ranges."""
    return {
        "entries": context.write_array("links-entries", entries),
        "starts": context.write_array("links-starts", starts),
    }


def forward_and_reverse(context: Context, i: int) -> tuple[list[Ids], list[Ids]]:
    """What all tasks of the round `bucket` left for a range, mapped: edges from its rows, and edges
    to them, turned round."""
    forward, reverse = [], []
    for record in context.records("bucket"):
        context.check()
        starts = context.load(record.objects["starts"])
        entries = context.load(record.objects["entries"])
        forward.append(entries[starts[2 * i] : starts[2 * i + 1]])
        reverse.append(entries[starts[2 * i + 1] : starts[2 * i + 2]])
    return forward, reverse


def bucket_nbytes(entries: int, read: int) -> int:
    """What a task holds that reads lists of `read` entries and turns `entries` of them."""
    return 24 * read + 56 * entries + BASE_NBYTES


def settle_nbytes(entries: int, rows: int) -> int:
    """What merging so many entries, both directions, into so many rows holds: what is mapped,
    keys and weights, the Parquet table and its bytes."""
    return 72 * entries + 48 * rows + BASE_NBYTES
