"""64-bit hashes of ids: spread evenly, so that a range of hashes is a fair bucket.

Integers go through a bijection (equal hashes are equal ids); strings through MurmurHash64A (Austin
Appleby, 2008), where equal hashes are nearly always equal ids and the caller confirms.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simdist.compiled.kernel import kernel

__all__ = ["hash_integers", "hash_strings"]

_M = np.uint64(0xC6A4A7935BD1E995)
_SEED = np.uint64(0x9E3779B97F4A7C15)
_47 = np.uint64(47)
_8 = np.uint64(8)


@kernel
def hash_integers(ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64, a bijection of 64-bit words. ids: [n] uint64 -> [n] uint64."""
    out = np.empty(len(ids), np.uint64)
    for i in range(len(ids)):
        h = ids[i] + _SEED
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out[i] = h ^ (h >> np.uint64(31))
    return out


@kernel
def hash_strings(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32]
) -> npt.NDArray[np.uint64]:
    """MurmurHash64A of each string. data: bytes of all; offsets: [n + 1] int32 -> [n] uint64."""
    out = np.empty(len(offsets) - 1, np.uint64)
    for i in range(len(offsets) - 1):
        start, stop = offsets[i], offsets[i + 1]
        h = _SEED ^ (np.uint64(stop - start) * _M)
        whole = start + (stop - start) // 8 * 8
        for at in range(start, whole, 8):
            k = np.uint64(0)
            for byte in range(7, -1, -1):
                k = (k << _8) | np.uint64(data[at + byte])
            k = k * _M
            k = (k ^ (k >> _47)) * _M
            h = (h ^ k) * _M
        if whole < stop:
            k = np.uint64(0)
            for at in range(stop - 1, whole - 1, -1):
                k = (k << _8) | np.uint64(data[at])
            h = (h ^ k) * _M
        h = (h ^ (h >> _47)) * _M
        out[i] = h ^ (h >> _47)
    return out
