"""Rows that lie in several memory-mapped blocks, read as one matrix.

Cell order is cut into blocks of the same power-of-two number of rows, each an array of its own (a
file under the worker's cache): row p lies in block p >> shift. Neighbour lists point everywhere,
and whoever follows them at random soon has touched every file. So what is listed is visited block
by block, and between two blocks the pages of those before can be let go: nothing as long as the
data set is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from simdist.compiled.assign import bucket_order
from simdist.compiled.kernel import inlined, kernel
from simdist.types import Array, Ids, Int32

__all__ = ["Blocks", "float32_row", "int8_row", "int32_row", "int64_row", "prefetch"]


AHEAD = 8  # rows between asking for one and copying it


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

    def visits(self, positions: Array) -> Iterator[tuple[int, Ids]]:
        """(block, places in `positions` [m] of the rows that lie in it), each block once,
        ascending; places ascend too."""
        order = np.empty(len(positions), np.int64)
        starts = np.empty(len(self.arrays) + 1, np.int64)
        bucket_order(positions >> self.shift, len(self.arrays), order, starts)
        for block in np.flatnonzero(np.diff(starts)).tolist():
            yield block, order[starts[block] : starts[block + 1]]

    def addresses_of(self, positions: Array) -> Ids:
        """Where each of the rows at `positions` [m] lies in memory, as long as this is kept."""
        nbytes = self.arrays[0][:1].nbytes
        local = (positions & ((1 << self.shift) - 1)).astype(np.int64)
        addresses: Ids = self.addresses[positions >> self.shift] + nbytes * local
        return addresses

    def take(
        self,
        positions: Array,
        *,
        between: Callable[[], None] | None = None,
        out: Array | None = None,
    ) -> Array:
        """Copies of the rows at `positions` [m], in that order; rows are whole 4-byte words.

        between: called before each block is visited. out: where to, C-contiguous.
        """
        first = self.arrays[0]
        if out is None:
            out = np.empty((len(positions), *first.shape[1:]), dtype=first.dtype)
        words = first[:1].nbytes // 4
        where = np.require(positions, np.int64, ["C", "W", "A"])
        for block, chosen in self.visits(where):
            if between is not None:
                between()
            address = int(self.addresses[block]) - (block << self.shift) * 4 * words
            _copy_rows(address, where, chosen, out.view(np.int32).reshape(len(out), words))
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
def float32_row(address: int, length: int) -> Any:
    """The float32 values at an address."""
    return carray(_pointer(address), (length,), np.float32)


@inlined
def int32_row(address: int, length: int) -> Any:
    """The int32 values at an address."""
    return carray(_pointer(address), (length,), np.int32)


@inlined
def int64_row(address: int, length: int) -> Any:
    """The int64 values at an address."""
    return carray(_pointer(address), (length,), np.int64)


@inlined
def int8_row(address: int, length: int) -> Any:
    """The int8 values at an address."""
    return carray(_pointer(address), (length,), np.int8)


@kernel
def _copy_rows(address: int, positions: Ids, chosen: Ids, out: Int32) -> None:
    """out[c] = the words of row positions[c] for every c in chosen. address: where row 0 would be,
    were all blocks in one piece with this one."""
    words = out.shape[1]
    for c in range(len(chosen)):
        if c + AHEAD < len(chosen):  # rows lie far apart: ask for one before it is its turn
            ahead = address + positions[chosen[c + AHEAD]] * 4 * words
            for line in range(0, 4 * words, 64):
                prefetch(ahead + line)
        place = chosen[c]
        row = int32_row(address + positions[place] * 4 * words, words)
        for w in range(words):
            out[place, w] = row[w]
