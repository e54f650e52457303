"""exp over rows of a tile, 64 bytes of it at a time, in the CPU's own vector instructions.

    add       s_j + b_j
    peak_of   the largest s_j
    exp_of    p_j = exp(s_j - shift), and their sum
    gaps_of   p_j = exp(s_j - shift), and p_j (g_j - less)

each in float32 and in float64, on rows given by address and padded to whole vectors. exp(x) is
2^n exp(r) with n = round(x log2 e) and |r| <= log(2)/2 (Cody and Waite 1980): a polynomial in r,
and n added to the exponent's bits. As seen it is within 0.9 units of the last place where the CPU
fuses multiplication and addition, 1.2 where not. An x below -86.5 (float64: -707) gives 0, and so
does -inf. Arguments are not NaN, and at most a little above 0.

Vectors have 16 or 8 lanes on any CPU, so sums run in one order; multiplications and additions are
fused where the CPU does that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["LANES", "NBYTES", "add", "exp_of", "gaps_of", "peak_of"]

LANES = 16  # a padded row has a multiple of so many numbers: whole vectors of either type
NBYTES = 64  # of a vector
_I32, _I64 = ir.IntType(32), ir.IntType(64)


@dataclass(frozen=True)
class _Kind:
    """A float type: its vector, and the numbers of its exp.

    magic: 1.5 x 2^fraction bits: adding it rounds to an integer, which lies in the lowest bits.
    log2: log(2) as a short high part, exact times n, and the rest. least: below it exp gives 0.
    terms: of the polynomial in r, the highest power first.
    """

    scalar: Any
    word: Any
    lanes: int
    numba: Any
    magic: float
    fraction: int
    log2: tuple[float, float]
    least: float
    terms: tuple[float, ...]

    @property
    def vector(self) -> Any:
        return ir.VectorType(self.scalar, self.lanes)

    @property
    def words(self) -> Any:
        return ir.VectorType(self.word, self.lanes)

    def everywhere(self, value: float) -> Any:
        return ir.Constant(self.vector, [value] * self.lanes)


# Minimax on |r| <= log(2)/2 for float32 (the coefficients of Cephes' expf); Taylor's for float64.
_SINGLE = _Kind(
    scalar=ir.FloatType(),
    word=_I32,
    lanes=16,
    numba=types.float32,
    magic=1.5 * 2.0**23,
    fraction=23,
    log2=(0.693359375, -2.12194440e-4),
    least=-86.5,
    terms=(
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
        1.0,
        1.0,
    ),
)
_DOUBLE = _Kind(
    scalar=ir.DoubleType(),
    word=_I64,
    lanes=8,
    numba=types.float64,
    magic=1.5 * 2.0**52,
    fraction=52,
    log2=(6.93145751953125e-1, 1.42860682030941723212e-6),
    least=-707.0,
    terms=tuple(1.0 / math.factorial(k) for k in range(13, -1, -1)),
)


@dataclass(frozen=True)
class _Lanes:
    """Operations on vectors of one kind, as instructions at the builder's place."""

    builder: Any
    kind: _Kind

    def load(self, address: Any) -> Any:
        pointer = self.builder.inttoptr(address, self.kind.vector.as_pointer())
        loaded = self.builder.load(pointer)
        loaded.align = 4
        return loaded

    def store(self, value: Any, address: Any) -> None:
        stored = self.builder.store(
            value, self.builder.inttoptr(address, self.kind.vector.as_pointer())
        )
        stored.align = 4

    def spread(self, value: Any) -> Any:
        """The value in all lanes."""
        undefined = ir.Constant(self.kind.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, _I32(0))
        zeros = ir.Constant(ir.VectorType(_I32, self.kind.lanes), [0] * self.kind.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c."""
        kind, vector = self.kind, self.kind.vector
        name = f"llvm.fmuladd.v{kind.lanes}{kind.scalar.intrinsic_name}"
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(vector, [vector] * 3), name
        )
        return self.builder.call(function, [a, b, c])

    def larger(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def exp(self, x: Any) -> Any:
        b, kind = self.builder, self.kind
        every = kind.everywhere
        seen = b.fcmp_ordered(">=", x, every(kind.least))
        x = b.select(seen, x, every(kind.least))
        shifted = self.fused(x, every(math.log2(math.e)), every(kind.magic))
        n = b.fsub(shifted, every(kind.magic))
        r = self.fused(n, every(-kind.log2[0]), x)
        r = self.fused(n, every(-kind.log2[1]), r)
        value = every(kind.terms[0])
        for term in kind.terms[1:]:
            value = self.fused(value, r, every(term))
        bits = ir.Constant(kind.words, [kind.fraction] * kind.lanes)
        exponent = b.shl(b.bitcast(shifted, kind.words), bits)
        value = b.bitcast(b.add(b.bitcast(value, kind.words), exponent), kind.vector)
        return b.select(seen, value, every(0.0))

    def folded(self, vector: Any, operation: Callable[[Any, Any], Any]) -> Any:
        """All lanes as one number: halves first."""
        lanes = self.kind.lanes
        while lanes > 1:
            lanes //= 2
            half = [(lane + lanes) % self.kind.lanes for lane in range(self.kind.lanes)]
            mask = ir.Constant(ir.VectorType(_I32, self.kind.lanes), half)
            vector = operation(vector, self.builder.shuffle_vector(vector, vector, mask))
        return self.builder.extract_element(vector, _I32(0))


Step = Callable[[_Lanes, Any, Any], Any]


def _each(lanes: _Lanes, vectors: Any, begin: Any, step: Step) -> Any:
    """A loop over vectors (at least 1): what `step(lanes, offset, so far)` leaves in the end."""
    builder = lanes.builder
    before = builder.block
    loop, done = builder.append_basic_block("each"), builder.append_basic_block("all")
    builder.branch(loop)
    builder.position_at_end(loop)
    place, so_far = builder.phi(_I64), builder.phi(lanes.kind.vector)
    place.add_incoming(_I64(0), before)
    so_far.add_incoming(begin, before)
    found = step(lanes, builder.mul(place, _I64(NBYTES)), so_far)
    following = builder.add(place, _I64(1))
    place.add_incoming(following, loop)
    so_far.add_incoming(found, loop)
    builder.cbranch(builder.icmp_signed("<", following, vectors), loop, done)
    builder.position_at_end(done)
    return found


def _kind_of(dtype: Any) -> _Kind:
    return _SINGLE if dtype == types.float32 else _DOUBLE


def _typed(build: Callable[..., Any]) -> Callable[..., Any]:
    called: Callable[..., Any] = intrinsic(build)
    return called


@_typed
def add(_typing: Any, tile: Any, row: Any, bias: Any, vectors: Any) -> Any:
    """The row becomes row + bias. row, bias: addresses; tile: says their type."""
    kind = _kind_of(tile.dtype)

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _, row, bias, vectors = args

        def step(lanes: _Lanes, offset: Any, unused: Any) -> Any:
            here = builder.add(row, offset)
            more = lanes.load(builder.add(bias, offset))
            lanes.store(builder.fadd(lanes.load(here), more), here)
            return unused

        _each(_Lanes(builder, kind), vectors, kind.everywhere(0.0), step)
        return context.get_dummy_value()

    return types.void(tile, types.int64, types.int64, types.int64), codegen


@_typed
def peak_of(_typing: Any, tile: Any, row: Any, vectors: Any) -> Any:
    """The largest number of the row at an address; tile: says its type."""
    kind = _kind_of(tile.dtype)

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _, row, vectors = args
        lanes = _Lanes(builder, kind)

        def step(lanes: _Lanes, offset: Any, most: Any) -> Any:
            return lanes.larger(lanes.load(builder.add(row, offset)), most)

        most = _each(lanes, vectors, kind.everywhere(-math.inf), step)
        return lanes.folded(most, lanes.larger)

    return kind.numba(tile, types.int64, types.int64), codegen


@_typed
def exp_of(_typing: Any, row: Any, shift: Any, vectors: Any) -> Any:
    """The row at an address becomes exp(row - shift), of shift's type. Returns its sum."""
    kind = _kind_of(shift)

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        row, shift, vectors = args
        lanes = _Lanes(builder, kind)
        shift = lanes.spread(shift)

        def step(lanes: _Lanes, offset: Any, total: Any) -> Any:
            here = builder.add(row, offset)
            value = lanes.exp(builder.fsub(lanes.load(here), shift))
            lanes.store(value, here)
            return builder.fadd(total, value)

        return lanes.folded(_each(lanes, vectors, kind.everywhere(0.0), step), builder.fadd)

    return kind.numba(types.int64, kind.numba, types.int64), codegen


@_typed
def gaps_of(_typing: Any, row: Any, shift: Any, gap: Any, less: Any, vectors: Any) -> Any:
    """The row becomes p = exp(row - shift), and gap p (gap - less). row, gap: addresses."""
    kind = _kind_of(shift)

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        row, shift, gap, less, vectors = args
        lanes = _Lanes(builder, kind)
        shift, less = lanes.spread(shift), lanes.spread(less)

        def step(lanes: _Lanes, offset: Any, unused: Any) -> Any:
            here, there = builder.add(row, offset), builder.add(gap, offset)
            value = lanes.exp(builder.fsub(lanes.load(here), shift))
            lanes.store(value, here)
            lanes.store(builder.fmul(value, builder.fsub(lanes.load(there), less)), there)
            return unused

        _each(lanes, vectors, kind.everywhere(0.0), step)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(i64, kind.numba, i64, kind.numba, i64), codegen
