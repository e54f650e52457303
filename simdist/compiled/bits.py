"""How many bits are set in a row, in another and in both: what measures of 0/1 rows are made of.

Rows are float32, as every prepared row is: columns of 0 and 1, or *bytes*, whole numbers from 0 to
255 of eight bits each. That costs a join four times the bytes and spares it rows of another kind.

    both_block    [n, m] of all pairs of bytes: packed into 64-bit words once, then and + popcount
    bits_listed   three [p]: set in the one, in the other, in both; of listed pairs of 0/1 rows
    bytes_listed  the same of listed pairs of bytes
    byte_counts   [n] bits set in each row of bytes

All counts are whole numbers as float32. Callers check what comes in: the kernels do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from simdist.compiled.kernel import fixed, inlined, kernel, summing_kernel
from simdist.types import Array, Float32, Ids

__all__ = ["bits_listed", "both_block", "byte_counts", "bytes_listed"]

# Columns of a tile whose words stay in the first-level cache (bytes) while rows stream by.
_CACHE_NBYTES = 16_384


def both_block(A: Float32, B: Float32) -> Float32:
    """Bits set in both, of all pairs. A: [n, d], B: [m, d] bytes -> [n, m] whole numbers."""
    out = np.empty((len(A), len(B)), np.float32)
    left = _words(A)
    right = left if B is A else _words(B)
    tile = max(1, _CACHE_NBYTES // (8 * left.shape[1]))
    _both_block(fixed(left), fixed(right), tile, out)
    return out


def bits_listed(A: Float32, rows: Ids, B: Float32, columns: Ids) -> tuple[Float32, ...]:
    """Bits set in the one, the other and both of listed pairs. A: [n, d], B: [m, d] 0/1 rows."""
    return _listed(_bits_listed, A, rows, B, columns)


def bytes_listed(A: Float32, rows: Ids, B: Float32, columns: Ids) -> tuple[Float32, ...]:
    """Bits set in the one, the other and both of listed pairs. A: [n, d], B: [m, d] bytes."""
    return _listed(_bytes_listed, A, rows, B, columns)


def byte_counts(A: Float32) -> Float32:
    """Bits set in each row. A: [n, d] bytes -> [n]."""
    found: Float32 = np.bitwise_count(A.astype(np.uint8)).sum(axis=1, dtype=np.float32)
    return found


def _listed(
    loop: Callable[..., None], A: Float32, rows: Ids, B: Float32, columns: Ids
) -> tuple[Float32, ...]:
    out = np.empty((3, len(rows)), np.float32)
    loop(fixed(A), fixed(rows), fixed(B), fixed(columns), out)
    return tuple(out)


def _words(A: Float32) -> Array:
    """[n, w] uint64, the last word of a row filled up with zeros."""
    n, d = A.shape
    packed = np.zeros((n, 8 * max(1, -(-d // 8))), np.uint8)
    packed[:, :d] = A
    return packed.view(np.uint64)


@kernel
def _both_block(A: Array, B: Array, tile: int, out: Float32) -> None:
    # The sum over bytes by one product: the pattern that LLVM turns into a popcount instruction.
    m1, m2 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
    m4, ones = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
    one, two, four, last = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)
    for start in range(0, len(B), tile):
        stop = min(start + tile, len(B))
        for i in range(len(A)):
            for j in range(start, stop):
                total = np.uint64(0)
                for w in range(A.shape[1]):
                    v = A[i, w] & B[j, w]
                    v = v - ((v >> one) & m1)
                    v = (v & m2) + ((v >> two) & m2)
                    v = (v + (v >> four)) & m4
                    total += (v * ones) >> last
                out[i, j] = np.float32(total)


@summing_kernel
def _bits_listed(A: Float32, rows: Ids, B: Float32, columns: Ids, out: Float32) -> None:
    for q in range(len(rows)):
        a = A[rows[q]]
        b = B[columns[q]]
        one, other, both = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for k in range(len(a)):
            one += a[k]
            other += b[k]
            both += a[k] * b[k]
        out[0, q], out[1, q], out[2, q] = one, other, both


@kernel
def _bytes_listed(A: Float32, rows: Ids, B: Float32, columns: Ids, out: Float32) -> None:
    for q in range(len(rows)):
        a = A[rows[q]]
        b = B[columns[q]]
        one, other, both = np.int32(0), np.int32(0), np.int32(0)
        for k in range(len(a)):
            left, right = np.int32(a[k]), np.int32(b[k])
            one = np.int32(one + _popcount8(left))
            other = np.int32(other + _popcount8(right))
            both = np.int32(both + _popcount8(left & right))
        out[0, q], out[1, q], out[2, q] = np.float32(one), np.float32(other), np.float32(both)


@inlined
def _popcount8(byte: Any) -> Any:
    """Bits set in a byte held in 32 bits: without a table, so that it runs in vector lanes."""
    byte = np.int32(byte - ((byte >> np.int32(1)) & np.int32(0x55)))
    byte = np.int32((byte & np.int32(0x33)) + ((byte >> np.int32(2)) & np.int32(0x33)))
    return np.int32((byte + (byte >> np.int32(4))) & np.int32(0x0F))
