"""Mapped objects: which are mapped now, and how their pages are given back.

    object ── map_file ──> mmap ── touched ──> pages that count as this process's
                             └─ drop_pages ──> none of them; touched again, they are still in the
                                               machine's page cache: no disk is read

A mapped array costs nothing that the kernel could not take back, but what has been touched counts
as resident until it does, and one touch may bring in a run of pages (2 MiB, where the file system
caches files in large pieces). So who reads more than it may hold lets go in between.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from typing import BinaryIO

__all__ = ["drop_pages", "map_file"]

_DROP: int | None = getattr(mmap, "MADV_DONTNEED", None)  # absent on Windows: nothing is dropped
_guard = threading.Lock()
_mapped: list[weakref.ref[mmap.mmap]] = []
_swept = 64  # mappings listed when those that are gone were last struck off, twice over


def map_file(file: BinaryIO) -> mmap.mmap:
    """A whole file, read-only, for as long as something holds the result; no empty file."""
    global _swept  # noqa: PLW0603 - the process has one address space
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with _guard:
        _mapped.append(weakref.ref(mapping))
        if len(_mapped) > _swept:
            _mapped[:] = [ref for ref in _mapped if ref() is not None]
            _swept = max(64, 2 * len(_mapped))
    return mapping


def drop_pages() -> None:
    """Let go of the pages of every file mapped here. Whoever reads on gets them again."""
    if _DROP is None:
        return
    with _guard:
        mappings = [found for ref in _mapped if (found := ref()) is not None]
    for mapping in mappings:
        mapping.madvise(_DROP)
