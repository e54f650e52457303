"""Is this object store fit? Checks that ask the store itself, and believe only what comes back.

    examine(store) ──> writes under doctor/{uuid}/ ──> findings, one a check ──> deletes all of it

    promises   what runs rely on: conditional puts (also raced), visibility, ranges, listings,
               deletion, large objects, keys
    signed     s3:// only: does it look at signatures and checksums?
    disk       file:// only: races of processes, kind of file system, room, fsync
    pace       clock, failed requests, latency, throughput: how well, not whether
    room       where a check writes, and how it is all removed

Checks go through the same `Objects` that runs use, only less patient: a run waits for a store that
restarts. Nothing outside doctor/{uuid}/ is written or read.
"""

from simdist.store.doctor.examine import examine

__all__ = ["examine"]
