"""The one way a kernel is compiled: nogil, serial, cached on disk, its Python type kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["fast_kernel", "inlined", "kernel", "summing_kernel"]

Loop = TypeVar("Loop", bound=Callable[..., Any])

# Sums run in vector lanes, fused; NaN and infinity keep their meaning.
SUMS = {"reassoc", "contract", "nsz"}


def kernel(loop: Loop) -> Loop:
    """Compiled at its first call, with IEEE arithmetic in the order written."""
    compiled: Loop = numba.njit(nogil=True, cache=True)(loop)
    return compiled


def summing_kernel(loop: Loop) -> Loop:
    """Compiled at its first call; sums run in vector lanes."""
    compiled: Loop = numba.njit(nogil=True, cache=True, fastmath=SUMS)(loop)
    return compiled


def fast_kernel(loop: Loop) -> Loop:
    """As `summing_kernel`, for inputs that have no NaN, so that maxima run in vector lanes too."""
    compiled: Loop = numba.njit(nogil=True, cache=True, fastmath=SUMS | {"nnan"})(loop)
    return compiled


def inlined(loop: Loop) -> Loop:
    """Part of the kernels that call it."""
    compiled: Loop = numba.njit(nogil=True, cache=True, inline="always")(loop)
    return compiled
