"""The one way a kernel is compiled: nogil, serial, cached on disk, its Python type kept.

What is on disk is used as long as no file of this folder has changed: a kernel contains the kernels
it calls, and numba by itself looks only at the file a kernel stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np

from simdist.types import Array

__all__ = ["fast_kernel", "fixed", "inlined", "kernel", "stamp", "summing_kernel"]

Loop = TypeVar("Loop", bound=Callable[..., Any])

# Sums run in vector lanes, fused; NaN and infinity keep their meaning.
SUMS = {"reassoc", "contract", "nsz"}


def kernel(loop: Loop) -> Loop:
    """Compiled at its first call, with IEEE arithmetic in the order written."""
    compiled: Loop = numba.njit(nogil=True, cache=True)(loop)
    return _kept(compiled)


def summing_kernel(loop: Loop) -> Loop:
    """Compiled at its first call; sums run in vector lanes."""
    compiled: Loop = numba.njit(nogil=True, cache=True, fastmath=SUMS)(loop)
    return _kept(compiled)


def fast_kernel(loop: Loop) -> Loop:
    """As `summing_kernel`, for inputs that have no NaN, so that maxima run in vector lanes too."""
    compiled: Loop = numba.njit(nogil=True, cache=True, fastmath=SUMS | {"nnan"})(loop)
    return _kept(compiled)


def inlined(loop: Loop) -> Loop:
    """Part of the kernels that call it."""
    compiled: Loop = numba.njit(nogil=True, cache=True, inline="always")(loop)
    return _kept(compiled)


def fixed(array: Array, dtype: type | None = None) -> Array:
    """A read-only view, as kernels are compiled for that only read; a copy where it is of another
    type or not contiguous. To numba, an array that may be written is another type."""
    view = np.require(array, dtype, ["C", "A"]).view()
    view.flags.writeable = False
    return view


@lru_cache(maxsize=1)
def stamp(folder: Path = Path(__file__).parent) -> tuple[tuple[str, float, int], ...]:
    """What changes when a source file of the folder does: names, times, sizes."""
    found = ((path.name, path.stat()) for path in sorted(folder.glob("*.py")))
    return tuple((name, stat.st_mtime, stat.st_size) for name, stat in found)


def _kept(compiled: Loop) -> Loop:
    """The kernel, its cache bound to the whole folder. Where numba is told not to compile, or has
    no place for a cache, there is none."""
    file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if file is not None:
        file._source_stamp = stamp()
    return compiled
