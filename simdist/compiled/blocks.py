"""Rows that lie in several memory-mapped blocks, read as one matrix.

Cell order is cut into blocks of the same power-of-two number of rows, each an array of its own (a
file under the worker's cache). A kernel that follows neighbour lists hops between blocks at random,
so it takes the blocks' base addresses and finds row p at block p >> shift, offset p & mask. Nothing
is copied, nothing as long as the data set is held: the pages come and go with the page cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from simdist.compiled.kernel import inlined
from simdist.types import Array, Ids

__all__ = ["Blocks", "row_address"]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Equal blocks of one matrix. Keeps the arrays alive while their addresses are in use.

    arrays: each [block_rows, ...] (the last may be shorter), C-contiguous, one dtype.
    shift: log2(block_rows).
    """

    arrays: tuple[Array, ...]
    addresses: Ids
    shift: int

    @classmethod
    def of(cls, arrays: Sequence[Array], block_rows: int) -> Blocks:
        """Blocks over the given arrays; `block_rows` is a power of two."""
        shift = block_rows.bit_length() - 1
        if block_rows != 1 << shift or any(len(a) != block_rows for a in arrays[:-1]):
            raise ValueError(
                f"blocks of {[len(a) for a in arrays]} rows; all but the last need {block_rows}"
            )
        addresses = np.array([a.ctypes.data for a in arrays], dtype=np.int64)
        return cls(tuple(arrays), addresses, shift)

    def take(self, positions: Array) -> Array:
        """Copies of the rows at `positions` [m], in that order."""
        first = self.arrays[0]
        out = np.empty((len(positions), *first.shape[1:]), dtype=first.dtype)
        block = positions >> self.shift
        order = np.argsort(block, kind="stable")
        cuts = np.searchsorted(block[order], np.arange(len(self.arrays) + 1))
        for b, array in enumerate(self.arrays):
            chosen = order[cuts[b] : cuts[b + 1]]
            if len(chosen):
                out[chosen] = array[positions[chosen] - (b << self.shift)]
        return out


def _typed_intrinsic(build: Callable[..., Any]) -> Callable[[int], Any]:
    """numba's intrinsic, typed as kernels call it."""
    called: Callable[[int], Any] = intrinsic(build)
    return called


@_typed_intrinsic
def _pointer(_context: Any, address: Any) -> Any:
    """An int64 address as a void pointer."""

    def codegen(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(address), codegen


@_typed_intrinsic
def prefetch(_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address; a hint, never a fault."""

    def codegen(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, i32, i32, i32])
        fn = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        pointer = builder.inttoptr(args[0], cgutils.voidptr_t)
        builder.call(fn, [pointer, i32(0), i32(3), i32(1)])  # read, keep in all levels, data
        return _target.get_dummy_value()

    return types.void(address), codegen


@inlined
def row_address(addresses: Ids, shift: int, row_nbytes: int, position: int) -> int:
    """Address of row `position` of a matrix cut into blocks."""
    block = position >> shift
    address: int = addresses[block] + (position - (block << shift)) * row_nbytes
    return address


@inlined
def float32_row(address: int, length: int) -> Any:
    """The float32 values at an address."""
    return carray(_pointer(address), (length,), np.float32)


@inlined
def int32_row(address: int, length: int) -> Any:
    """The int32 values at an address."""
    return carray(_pointer(address), (length,), np.int32)
