"""What this process's allocator keeps of what was freed, and how many heaps it has.

Threads that hand large arrays to one another do best with one heap: what one of them frees the next
one uses, instead of asking the system for pages that have to be cleared first, and no heap is left
full of holes by a thread that has ended.

Of glibc alone; elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

__all__ = ["KEPT_NBYTES", "give_back", "settle"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's mallopt
KEPT_NBYTES = 32 << 20  # free, at the end of a heap and in the process
MAPPED_NBYTES = 16 << 20  # an array this large is memory of its own, returned when it is freed
ARENAS = "MALLOC_ARENA_MAX"  # glibc's own variable: whoever set it has decided


@cache
def settle() -> None:
    """Once per process, before it starts threads: heaps there are stay. Both thresholds have to be
    set: either alone ends glibc's own adjusting, and leaves the other at 128 KiB."""
    libc = _libc()
    if libc is None:
        return
    libc.mallopt(M_MMAP_THRESHOLD, MAPPED_NBYTES)
    libc.mallopt(M_TRIM_THRESHOLD, KEPT_NBYTES)
    if ARENAS not in os.environ:
        libc.mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Return what is free to the system."""
    if _libc() is not None:
        _libc().malloc_trim(0)
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()


@cache
def _libc() -> Any:
    """glibc, where that is what this process allocates from; else None."""
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
    except (OSError, TypeError):  # Windows has no such handle
        return None
