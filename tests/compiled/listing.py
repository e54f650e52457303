"""What the tests of graph kernels share: lists and codes as plain Python keeps them."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

from simdist.compiled.blocks import Blocks
from simdist.compiled.codes import FACTS, code_nbytes, encode
from simdist.compiled.lists import EMPTY, ids_of
from simdist.types import Array, Float32, Ids, Int32

SCALE, BIAS, OFFSET = range(FACTS)


def candidate(key: float, identifier: int, *, new: bool = True) -> int:
    """One candidate, bit by bit as the module docstring of simdist.compiled.lists has it."""
    (bits,) = struct.unpack("<i", struct.pack("<f", key + 0.0))
    ordered = bits if bits >= 0 else -(bits & 0x7FFFFFFF) - 1
    return (ordered << 32) | ((0x7FFFFFFF - identifier) << 1) | new


def best(candidates: Iterable[int], keep: int) -> list[int]:
    """The `keep` largest distinct candidates; one that is both known and new is known."""
    known: dict[int, int] = {}
    for each in candidates:
        if each >> 32 > EMPTY >> 32:
            known[each | 1] = min(known.get(each | 1, each), each)
    ordered = sorted(known.values(), reverse=True)[:keep]
    return ordered + [EMPTY] * (keep - len(ordered))


def filled(held: Array) -> list[int]:
    """What a list holds, without its empty places."""
    return [int(each) for each in held if each != EMPTY]


def listed(lists: Ids) -> list[list[int]]:
    """Ids of every list, in order."""
    return [ids_of(np.array(filled(row), np.int64)).tolist() for row in lists]


def blocked(array: Array, block_rows: int) -> Blocks:
    """The rows of an array in blocks, each memory of its own."""
    cuts = range(0, len(array), block_rows)
    return Blocks.of([array[cut : cut + block_rows].copy() for cut in cuts], block_rows)


def vectors(rng: np.random.Generator, rows: int, dim: int, *, kinds: int = 0) -> Float32:
    """Rows of very different lengths; copies of `kinds` rows where that is not 0."""
    count = kinds or rows
    x = rng.standard_normal((count, dim)) * np.exp(rng.standard_normal((count, 1)))
    x = x.astype(np.float32)
    return x[rng.integers(0, kinds, rows)] if kinds else x


def coded(x: Float32) -> tuple[Array, Float32]:
    """Codes and facts of rows around their mean."""
    codes = np.full((len(x), code_nbytes(x.shape[1])), 99, np.int8)
    facts = np.full((len(x), FACTS), np.nan, np.float32)
    encode(x, x.mean(axis=0, dtype=np.float64), codes, facts)
    return codes, facts


def keys_between(codes: Array, facts: Float32, fact: int = BIAS) -> Float32:
    """[n, n] keys of all pairs, in float32 and in the order that kernels keep."""
    dots = (codes.astype(np.int64) @ codes.astype(np.int64).T).astype(np.float32)
    scale, bias = facts[:, SCALE], facts[:, fact]
    with np.errstate(all="ignore"):
        keys: Float32 = (scale[:, None] * scale) * dots + (bias[:, None] + bias)
    return keys


def edges(lists: Ids, width: int) -> tuple[Int32, Ids]:
    """Who lists whom among their best `width`, as `link` takes it: sources, starts."""
    near = [
        (identifier, slot, -(row + 1) if lists[row, slot] & 1 else row + 1)
        for row, ids in enumerate(listed(lists))
        for slot, identifier in enumerate(ids[:width])
    ]
    near.sort(key=lambda edge: (edge[0], edge[1], abs(edge[2])))
    sources = np.array([mark for _, _, mark in near], np.int32)
    starts = np.searchsorted([target for target, _, _ in near], np.arange(len(lists) + 1))
    return sources, starts.astype(np.int64)
