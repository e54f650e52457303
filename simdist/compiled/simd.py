"""Tiles of int8 rows: many dot products at once, in the CPU's own vector instructions.

    16 rows ── pack ──> a *group*: their bytes interleaved by fours, 16 lanes side by side
    8 rows  ── strip ──> dot products with the rows of several groups, 8 x 16 at a time

Sums are int32 and exact, so every CPU gives the same numbers. Where AVX-512 has VNNI, four products
and their sum are one lane of one instruction: about five times what a float32 GEMM does on the same
core. Elsewhere LLVM vectorises plain loops. Rows are given by address (they lie where they lie) and
hold a multiple of CHUNK bytes, zeros at their end; -128 does not occur, so that |dot| < 2^31 for
d < 130,000.

The instruction multiplies unsigned by signed bytes: packed rows are shifted by 128, and what that
adds is taken off by starting from `offset` = -128 x the sum of the other row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from simdist.compiled.blocks import int8_row, int32_row, int64_row
from simdist.compiled.kernel import inlined, kernel
from simdist.types import Array

__all__ = [
    "CHUNK",
    "GROUP",
    "STRIP",
    "VNNI",
    "aligned",
    "at_least",
    "better",
    "count_at_least",
    "keys_of",
    "lane_maxima",
    "lowest_bit",
    "offset_of",
    "pack",
    "panel_nbytes",
    "strip",
    "turn",
]

CHUNK = 64  # bytes of a row at once: its length is a multiple
GROUP = 16  # rows side by side in a packed group
STRIP = 8  # rows against them

_I8, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_WORDS, _BYTES = ir.VectorType(_I32, 16), ir.VectorType(_I8, 64)
_FLOATS = ir.VectorType(_F32, 16)


def _has_vnni() -> bool:
    """Whether numba compiles for a CPU with AVX-512 VNNI: as its environment variables say, else
    for this one."""
    chosen = config.CPU_FEATURES
    features = get_host_cpu_features() if chosen is None else chosen
    return "+avx512vnni" in features.split(",")


VNNI = _has_vnni()


def aligned(length: int, dtype: Any) -> Array:
    """An uninitialised array that starts at a cache line."""
    nbytes = length * np.dtype(dtype).itemsize
    room = np.empty(nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + nbytes].view(dtype)


def panel_nbytes(rows: int, nbytes: int) -> int:
    """Bytes of packed rows; nbytes: of one row."""
    return -(-rows // GROUP) * GROUP * nbytes


def _typed(build: Callable[..., Any]) -> Callable[..., Any]:
    called: Callable[..., Any] = intrinsic(build)
    return called


def _load(builder: Any, address: Any, kind: Any) -> Any:
    loaded = builder.load(builder.inttoptr(address, kind.as_pointer()))
    loaded.align = 1
    return loaded


def _store(builder: Any, value: Any, address: Any) -> None:
    stored = builder.store(value, builder.inttoptr(address, value.type.as_pointer()))
    stored.align = 1


def _everywhere(builder: Any, value: Any, kind: Any) -> Any:
    """The value in all 16 lanes."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_WORDS, [0] * 16))


def _dot_of_bytes(builder: Any, total: Any, packed: Any, other: Any) -> Any:
    """total + dot products of four unsigned by four signed bytes, lane by lane."""
    operand = _BYTES if llvm.llvm_version_info >= (22,) else _WORDS  # as LLVM came to declare it
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(_WORDS, [_WORDS, operand, operand]),
        "llvm.x86.avx512.vpdpbusd.512",
    )
    packed, other = builder.bitcast(packed, operand), builder.bitcast(other, operand)
    return builder.call(function, [total, packed, other])


def _strip_against(groups: int) -> Callable[..., Any]:
    """STRIP rows against so many groups, sums held in registers."""

    def strip_of(
        _typing: Any,
        rows: Any,
        offsets: Any,
        panel: Any,
        group_nbytes: Any,
        steps: Any,
        out: Any,
        out_nbytes: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            rows, offsets, panel, group_nbytes, steps, out, out_nbytes = args
            addresses, starts = [], []
            for r in range(STRIP):
                addresses.append(_load(builder, builder.add(rows, _I64(8 * r)), _I64))
                offset = _load(builder, builder.add(offsets, _I64(4 * r)), _I32)
                starts.append(_everywhere(builder, offset, _WORDS))
            panels = [panel]
            for _ in range(1, groups):
                panels.append(builder.add(panels[-1], group_nbytes))
            before = builder.block
            loop, done = builder.append_basic_block("sum"), builder.append_basic_block("summed")
            builder.branch(loop)
            builder.position_at_end(loop)
            step = builder.phi(_I64)
            step.add_incoming(_I64(0), before)
            sums = [[builder.phi(_WORDS) for _ in range(groups)] for _ in range(STRIP)]
            for r in range(STRIP):
                for total in sums[r]:
                    total.add_incoming(starts[r], before)
            here = builder.mul(step, _I64(CHUNK))
            packed = [_load(builder, builder.add(p, here), _WORDS) for p in panels]
            four = builder.mul(step, _I64(4))
            added = []
            for r in range(STRIP):
                word = _load(builder, builder.add(addresses[r], four), _I32)
                other = _everywhere(builder, word, _WORDS)
                added.append(
                    [_dot_of_bytes(builder, sums[r][g], packed[g], other) for g in range(groups)]
                )
            following = builder.add(step, _I64(1))
            step.add_incoming(following, loop)
            for r in range(STRIP):
                for g in range(groups):
                    sums[r][g].add_incoming(added[r][g], loop)
            builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
            builder.position_at_end(done)
            for r in range(STRIP):
                line = builder.add(out, builder.mul(out_nbytes, _I64(r)))
                for g in range(groups):
                    _store(builder, added[r][g], builder.add(line, _I64(64 * g)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return _typed(strip_of)


@_typed
def _pack_group(_typing: Any, rows: Any, chunks: Any, out: Any) -> Any:
    """16 rows by address -> a group: words transposed chunk by chunk, bytes shifted by 128."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        rows, chunks, out = args
        addresses = [_load(builder, builder.add(rows, _I64(8 * r)), _I64) for r in range(GROUP)]
        before = builder.block
        loop, done = builder.append_basic_block("pack"), builder.append_basic_block("packed")
        builder.branch(loop)
        builder.position_at_end(loop)
        chunk = builder.phi(_I64)
        chunk.add_incoming(_I64(0), before)
        here = builder.mul(chunk, _I64(CHUNK))
        shift = ir.Constant(_WORDS, [-0x7F7F7F80] * 16)  # 0x80 in every byte: x + 128 as unsigned
        lines = [
            builder.xor(_load(builder, builder.add(a, here), _WORDS), shift) for a in addresses
        ]
        for span in (1, 2, 4, 8):  # swap ever larger corners: a transposition in four passes
            lines = _swapped(builder, lines, span)
        place = builder.add(out, builder.mul(chunk, _I64(16 * CHUNK)))
        for i, line in enumerate(lines):
            _store(builder, line, builder.add(place, _I64(CHUNK * i)))
        following = builder.add(chunk, _I64(1))
        chunk.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, chunks), loop, done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@_typed
def turn(_typing: Any, source: Any, target: Any, line_nbytes: Any) -> Any:
    """A 16 x 16 block of int32, transposed. source, target: addresses of the first lines."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        source, target, line_nbytes = args
        steps = [builder.mul(line_nbytes, _I64(i)) for i in range(GROUP)]
        lines = [_load(builder, builder.add(source, step), _WORDS) for step in steps]
        for span in (1, 2, 4, 8):
            lines = _swapped(builder, lines, span)
        for line, step in zip(lines, steps, strict=True):
            _store(builder, line, builder.add(target, step))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def _swapped(builder: Any, lines: list[Any], span: int) -> list[Any]:
    """Lines i and i + span exchange their off-diagonal corners of `span` lanes."""
    upper = [c if not c & span else 16 + (c ^ span) for c in range(16)]
    lower = [c | span if not c & span else 16 + c for c in range(16)]
    out = list(lines)
    for i in range(16):
        if not i & span:
            pair = lines[i], lines[i | span]
            out[i] = builder.shuffle_vector(*pair, ir.Constant(_WORDS, upper))
            out[i | span] = builder.shuffle_vector(*pair, ir.Constant(_WORDS, lower))
    return out


def _keys(builder: Any, args: Any) -> Any:
    """16 keys, in one order of operations wherever they are computed: a pair has one key."""
    dots, scale, scales, bias, biases, keys = args
    scale, bias = (_everywhere(builder, x, _FLOATS) for x in (scale, bias))
    both = builder.fmul(scale, _load(builder, scales, _FLOATS))
    dot = builder.sitofp(_load(builder, dots, _WORDS), _FLOATS)
    terms = builder.fadd(bias, _load(builder, biases, _FLOATS))
    key = builder.fadd(builder.fmul(both, dot), terms)
    _store(builder, key, keys)
    return key


@_typed
def keys_of(
    _typing: Any, dots: Any, scale: Any, scales: Any, bias: Any, biases: Any, keys: Any
) -> Any:
    """Keys of a row with 16 columns: `scale x scales x dots + (bias + biases)`.

    dots, scales, biases: addresses of 16 int32, float32, float32 of the columns; scale, bias: the
    row's. keys: address of 16 float32, out.
    """

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _keys(builder, args)
        return context.get_dummy_value()

    f32, i64 = types.float32, types.int64
    return types.void(i64, f32, i64, f32, i64, i64), codegen


@_typed
def better(
    _typing: Any,
    dots: Any,
    scale: Any,
    scales: Any,
    bias: Any,
    biases: Any,
    keys: Any,
    floor: Any,
    floors: Any,
) -> Any:
    """`keys_of`, and which columns are as near to the row as its floor or as their own.

    floor: the row's; floors: address of 16 float32. Returns an int64 with one bit per column.
    """

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        key = _keys(builder, args[:6])
        nearer = builder.or_(
            builder.fcmp_ordered(">=", key, _everywhere(builder, args[6], _FLOATS)),
            builder.fcmp_ordered(">=", key, _load(builder, args[7], _FLOATS)),
        )
        return builder.zext(builder.bitcast(nearer, ir.IntType(16)), _I64)

    f32, i64 = types.float32, types.int64
    return i64(i64, f32, i64, f32, i64, i64, f32, i64), codegen


@_typed
def lane_maxima(_typing: Any, values: Any, pairs: Any, out: Any) -> Any:
    """Maxima of 32 interleaved columns of 32 x pairs float32, at an address; no NaN."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        values, pairs, out = args
        before = builder.block
        loop, done = builder.append_basic_block("most"), builder.append_basic_block("found")
        least = ir.Constant(_FLOATS, [float("-inf")] * 16)
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(_I64)
        step.add_incoming(_I64(0), before)
        most = [builder.phi(_FLOATS) for _ in range(2)]
        for so_far in most:
            so_far.add_incoming(least, before)
        here = builder.add(values, builder.mul(step, _I64(128)))
        larger = []
        for half in range(2):
            value = _load(builder, builder.add(here, _I64(64 * half)), _FLOATS)
            above = builder.fcmp_ordered(">", value, most[half])
            larger.append(builder.select(above, value, most[half]))
            most[half].add_incoming(larger[half], loop)
        following = builder.add(step, _I64(1))
        step.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, pairs), loop, done)
        builder.position_at_end(done)
        for half in range(2):
            _store(builder, larger[half], builder.add(out, _I64(64 * half)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@_typed
def count_at_least(_typing: Any, values: Any, floor: Any) -> Any:
    """How many of 16 float32 at an address are at least the floor."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        values, floor = _load(builder, args[0], _FLOATS), _everywhere(builder, args[1], _FLOATS)
        large = builder.fcmp_ordered(">=", values, floor)
        return builder.zext(builder.ctpop(builder.bitcast(large, ir.IntType(16))), _I64)

    return types.int64(types.int64, types.float32), codegen


@_typed
def at_least(_typing: Any, values: Any, floor: Any) -> Any:
    """Which of 16 float32 at an address are at least the floor, one bit each."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        values, floor = _load(builder, args[0], _FLOATS), _everywhere(builder, args[1], _FLOATS)
        large = builder.fcmp_ordered(">=", values, floor)
        return builder.zext(builder.bitcast(large, ir.IntType(16)), _I64)

    return types.int64(types.int64, types.float32), codegen


@_typed
def lowest_bit(_typing: Any, bits: Any) -> Any:
    """The place of the lowest 1 of a number other than 0."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.int64), codegen


@inlined
def offset_of(address: int, nbytes: int) -> np.int32:
    """What a row's dot products with packed rows start from where VNNI is; it is stored with rows,
    and another CPU may read them."""
    row = int8_row(address, nbytes)
    total = np.int32(0)
    for t in range(nbytes):
        total += np.int32(row[t])
    return np.int32(-128 * total)


if VNNI:
    _strip_3, _strip_2, _strip_1 = _strip_against(3), _strip_against(2), _strip_against(1)

    @kernel
    def pack(rows: int, groups: int, nbytes: int, panel: int) -> None:
        """Pack groups of 16 rows. rows: address of their addresses, int64; nbytes: of a row;
        panel: address of room for groups x 16 x nbytes."""
        for g in range(groups):
            _pack_group(rows + 128 * g, nbytes // CHUNK, panel + 16 * nbytes * g)

    @kernel
    def strip(
        rows: int,
        offsets: int,
        panel: int,
        groups: int,
        nbytes: int,
        out: int,
        out_nbytes: int,
    ) -> None:
        """Dot products of 8 rows with packed groups.

        rows, offsets: addresses of 8 addresses, int64, and of what sums start from, int32. panel:
        of the first group. out: of [8, 16 x groups] int32, lines out_nbytes apart.
        """
        size = 16 * nbytes
        steps = nbytes // 4
        g = 0
        while g + 3 <= groups:
            _strip_3(rows, offsets, panel + size * g, size, steps, out + 64 * g, out_nbytes)
            g += 3
        if g + 2 == groups:
            _strip_2(rows, offsets, panel + size * g, size, steps, out + 64 * g, out_nbytes)
        elif g + 1 == groups:
            _strip_1(rows, offsets, panel + size * g, size, steps, out + 64 * g, out_nbytes)

else:

    @kernel
    def pack(rows: int, groups: int, nbytes: int, panel: int) -> None:
        """Copy groups of 16 rows side by side: see the module docstring."""
        addresses = int64_row(rows, 16 * groups)
        for c in range(16 * groups):
            source = int32_row(addresses[c], nbytes // 4)
            target = int32_row(panel + nbytes * c, nbytes // 4)
            for t in range(nbytes // 4):
                target[t] = source[t]

    @kernel
    def strip(
        rows: int,
        offsets: int,
        panel: int,
        groups: int,
        nbytes: int,
        out: int,
        out_nbytes: int,
    ) -> None:
        """Dot products of 8 rows with groups as `pack` left them."""
        addresses = int64_row(rows, STRIP)
        for c in range(GROUP * groups):
            y = int8_row(panel + nbytes * c, nbytes)
            for r in range(STRIP):
                x = int8_row(addresses[r], nbytes)
                total = np.int32(0)
                for t in range(nbytes):  # cast back at once, or LLVM sums in int64
                    total = np.int32(total + np.int32(np.int32(x[t]) * np.int32(y[t])))
                int32_row(out + out_nbytes * r, GROUP * groups)[c] = total
