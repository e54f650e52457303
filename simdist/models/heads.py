"""Which queries meet which keys in attention over arrays with leading axes, unit by unit.

    q [.., h, n, d]   k [.., g, m, d]   v [.., g, m, dv]   bias, mask ~ [.., h, n, m]
        │                 │                 │
        └── unit = (batch, head i, some rows) meets the keys of head i // (h / g)

Units are what tasks compute: pure functions of the arrays, so every engine gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.tiles.attend import (
    Logits,
    attend,
    attend_nbytes,
    causal_limits,
    key_mask,
    pair_part,
    working_dtype,
)
from simdist.tiles.attend_back import Gradients, attend_back, attend_back_nbytes
from simdist.tiles.shape import cuts
from simdist.tiles.softmax import Attended, attended

if TYPE_CHECKING:
    from simdist.types import Array, Float64

__all__ = [
    "Causal",
    "HeadPlan",
    "Pairs",
    "Results",
    "Unit",
    "join_heads",
    "unit_gradients",
    "unit_output",
]

Causal: TypeAlias = bool | Literal["upper_left", "lower_right"]

UNIT_NBYTES = 1 << 20  # of a unit's output at most: it travels through the scheduler
UNIT_ROWS = 2048
BACK_ROWS = 8192  # fewer, and gradients of keys are added up more often than they are computed


@dataclass(frozen=True, slots=True)
class Pairs:
    """What holds for all units. shift: query i sees keys 0..i + shift; None: all of them.
    group: heads of queries that share one of keys. bias, mask: whether these arrays are there."""

    scale: float
    shift: int | None
    group: int
    bias: bool
    mask: bool


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows first..last of queries of one head. index: (batch .., head)."""

    index: tuple[int, ...]
    first: int
    last: int
    nbytes: int


class Results(NamedTuple):
    """d_output, output: [.., h, n, dv]; logsumexp, d_logsumexp: [.., h, n]."""

    d_output: Array
    output: Array
    logsumexp: Float64
    d_logsumexp: Float64


@dataclass(frozen=True, eq=False)
class HeadPlan:
    """Checked arrays with axes of heads, and their units.

    arrays: q, k, v and, where they are given, bias and mask. lead: (batch .., heads).
    split: whether heads lay side by side in the last axis. bare: no array had an axis of heads.
    """

    arrays: tuple[Array, ...]
    pairs: Pairs
    lead: tuple[int, ...]
    split: bool
    bare: bool

    @classmethod
    def of(
        cls,
        q: Array,
        k: Array,
        v: Array,
        bias: Array | None,
        mask: Array | None,
        *,
        causal: Causal = False,
        scale: float | None = None,
        heads: int | None = None,
        kv_heads: int | None = None,
        dtype: str | None = None,
    ) -> HeadPlan:
        """InputError or ConfigError, naming the array, where something does not fit."""
        arrays = {name: _floats(name, array) for name, array in (("q", q), ("k", k), ("v", v))}
        if dtype is not None:
            if dtype not in ("float32", "float64"):
                raise ConfigError(f"dtype={dtype!r}: expected 'float32' or 'float64'")
            arrays = {name: array.astype(dtype, copy=False) for name, array in arrays.items()}
        if heads is not None:
            each = {"q": heads, "k": kv_heads or heads, "v": kv_heads or heads}
            arrays = {name: _split(name, array, each[name]) for name, array in arrays.items()}
        elif kv_heads is not None:
            raise ConfigError(f"kv_heads={kv_heads} without heads: give both, or axes of heads")
        q, k, v = arrays.values()
        _refuse_shapes(q, k, v)
        h, g = _heads(q), max(_heads(k), _heads(v))
        h = g if h == 1 else h  # one set of queries for every head of keys
        if h % g:
            raise InputError(
                f"q has {h} heads, k and v {g}: expected as many, or a multiple (grouped queries)"
            )
        lead = (*_batch(q, k, v), h)
        n, m = q.shape[-2], k.shape[-2]
        asked = (("bias", bias), ("mask", mask))
        more = [_pairwise(name, x, (*lead, n, m)) for name, x in asked if x is not None]
        pairs = Pairs(
            scale=1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale),
            shift=_shift(causal, n, m),
            group=h // g,
            bias=bias is not None,
            mask=mask is not None,
        )
        bare = heads is None and max(q.ndim, k.ndim, v.ndim) == 2
        return cls((q, k, v, *more), pairs, lead, heads is not None, bare)

    @property
    def dtype(self) -> Any:
        return working_dtype(*self.arrays[:3])

    def units(self, most_rows: int | None = None) -> list[Unit]:
        """In plan order. most_rows: of a unit; by default what keeps its output small."""
        q, v = self.arrays[0], self.arrays[2]
        (n, d), (m, dv) = q.shape[-2:], v.shape[-2:]
        size = self.dtype.itemsize
        # Rows that lie apart, or are of another type, are copied head by head.
        moved = [
            a.dtype != self.dtype or a.strides[-2:] != (size * a.shape[-1], size)
            for a in self.arrays[:3]
        ]
        fit = max(1, UNIT_NBYTES // (size * (dv + 2)))
        rows = max(256, 1 << (min(fit, UNIT_ROWS).bit_length() - 1))
        found = []
        for index in np.ndindex(*self.lead):
            for cut in cuts(0, n, most_rows or rows):
                part = cut.stop - cut.start
                copies = size * (part * d + m * ((d if moved[1] else 0) + (dv if moved[2] else 0)))
                if most_rows is None:
                    nbytes = attend_nbytes(part, m, d, dv, size) + size * part * dv
                else:
                    nbytes = attend_back_nbytes(part, m, d, dv, size)
                found.append(Unit(index, cut.start, cut.stop, nbytes + copies))
        return found

    def back_units(self) -> list[Unit]:
        return self.units(BACK_ROWS)

    def empty(self) -> tuple[Array, Float64]:
        """Room for output and logsumexp, with axes of heads."""
        n, dv = self.arrays[0].shape[-2], self.arrays[2].shape[-1]
        return np.empty((*self.lead, n, dv), self.dtype), np.empty((*self.lead, n))

    def given(self, output: Array) -> Array:
        """Output with axes of heads, as arrays are laid out otherwise."""
        if self.split:
            return join_heads(output)
        return output[0] if self.bare else output

    def given_rows(self, sums: Array) -> Array:
        """The same for one number a row."""
        return sums[0] if self.bare else sums

    def results(self, d_output: Array, output: Array, sums: Array, d_sums: Array | None) -> Results:
        """What attention gave, and cotangents, with axes of heads; InputError where they do not
        fit."""
        out, rows = self.empty()
        outputs = []
        for name, array in (("d_output", d_output), ("output", output)):
            apart = _floats(name, array)
            if self.split:
                apart = _split(name, apart, self.lead[-1])
            outputs.append(_shaped(name, apart[None] if self.bare else apart, out.shape))
        of_rows = []
        for name, given in (("logsumexp", sums), ("d_logsumexp", d_sums)):
            if given is None:
                of_rows.append(np.zeros(rows.shape))
                continue
            apart = np.asarray(given, np.float64)
            of_rows.append(_shaped(name, apart[None] if self.bare else apart, rows.shape))
        return Results(*outputs, *of_rows)

    def add(self, sums: Sequence[Float64], unit: Unit, part: Gradients) -> None:
        """Add what a unit gives to the gradients of q, k, v and, where there is one, bias."""
        *batch, head = unit.index
        theirs = (*batch, head // self.pairs.group)
        rows = slice(unit.first, unit.last)
        place_of(sums[0], unit.index)[rows] += part.queries
        place_of(sums[1], theirs)[...] += part.keys
        place_of(sums[2], theirs)[...] += part.values
        if not self.pairs.bias:
            return
        place = place_of(sums[3], unit.index)
        if part.bias is not None:
            place[rows] += part.bias
        elif place.shape[1] == 1:
            place += part.key_bias.sum()
        else:
            place += part.key_bias


def unit_output(pairs: Pairs, unit: Unit, *arrays: Array) -> tuple[Array, Float64]:
    """Output [rows, dv] and logsumexp [rows] of a unit. arrays: those of the plan."""
    Q, K, V, logits = _parts(pairs, unit, arrays)
    found = attended(attend(Q, K, V, logits), working_dtype(Q, K, V))
    return found.output, found.logsumexp


def unit_gradients(pairs: Pairs, unit: Unit, results: Results, *arrays: Array) -> Gradients:
    """What a unit adds to the gradients."""
    Q, K, V, logits = _parts(pairs, unit, arrays)
    rows = slice(unit.first, unit.last)
    d_output, output, sums, d_sums = (array[unit.index][rows] for array in results)
    return attend_back(Q, K, V, d_output, Attended(output, sums), logits, d_logsumexp=d_sums)


def place_of(array: Array, index: tuple[int, ...]) -> Array:
    """The matrix that lies at an index of leading axes, where these broadcast. A view."""
    lead = array.shape[:-2]
    given = index[len(index) - len(lead) :]
    found: Array = array[tuple(0 if size == 1 else i for size, i in zip(lead, given, strict=True))]
    return found


def join_heads(array: Array) -> Array:
    """[.., h, n, d] -> [.., n, h d]."""
    moved = np.moveaxis(array, -3, -2)
    return np.ascontiguousarray(moved).reshape(*moved.shape[:-2], -1)


def _parts(pairs: Pairs, unit: Unit, arrays: Sequence[Array]) -> tuple[Array, Array, Array, Logits]:
    """A unit's queries, keys, values and logits."""
    q, k, v, *more = arrays
    *batch, head = unit.index
    theirs = (*batch, head // pairs.group)
    rows = slice(unit.first, unit.last)
    Q, K, V = place_of(q, unit.index)[rows], place_of(k, theirs), place_of(v, theirs)
    logits = Logits(pairs.scale)
    if pairs.shift is not None:
        limits = causal_limits(unit.first, len(Q), 0, len(K), shift=pairs.shift)
        logits = replace(logits, limits=limits)
    if pairs.bias:
        logits = _biased(logits, place_of(more[0], unit.index), rows, len(K))
    if pairs.mask:
        logits = _masked(logits, place_of(more[-1], unit.index), rows, len(K))
    return Q, K, V, logits


def _biased(logits: Logits, bias: Array, rows: slice, keys: int) -> Logits:
    if len(bias) == 1:
        return replace(logits, key_bias=np.broadcast_to(bias[0], (keys,)))
    return replace(logits, bias=pair_part(bias, rows, slice(None)))


def _masked(logits: Logits, mask: Array, rows: slice, keys: int) -> Logits:
    if len(mask) > 1:
        return replace(logits, mask=pair_part(mask, rows, slice(None)))
    unseen = key_mask(np.broadcast_to(mask[0], (keys,)))
    bias = logits.key_bias
    return replace(logits, key_bias=unseen if bias is None else bias + unseen)


def _floats(name: str, array: Array) -> Array:
    """A finite array of floats, [.., rows, columns]; InputError naming the first entry that is
    not."""
    array = np.asarray(array)
    if array.dtype not in (np.float16, np.float32, np.float64) or array.ndim < 2:
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape}: expected float16, float32 or float64"
            " of shape [.., rows, columns]"
        )
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum(dtype=np.float32 if array.dtype == np.float16 else None)):
            return array
    broken = np.argwhere(~np.isfinite(array))
    if len(broken):
        *lead, row, column = (int(i) for i in broken[0])
        where = f"head {tuple(lead)}, " if lead else ""
        raise InputError(
            f"{name} is {array[tuple(broken[0])]} at {where}row {row}, column {column}: every entry"
            " must be finite. Mask a key with mask=, or leave the row out."
        )
    return array


def _split(name: str, array: Array, heads: int) -> Array:
    """[.., n, heads d] -> [.., heads, n, d], a view."""
    if heads < 1 or array.shape[-1] % heads:
        raise ConfigError(
            f"{name} has {array.shape[-1]} columns, which {heads} heads do not divide"
        )
    apart = array.reshape(*array.shape[:-1], heads, array.shape[-1] // heads)
    return np.moveaxis(apart, -2, -3)


def _shaped(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}, with axes of heads; expected {shape}")
    return array


def _refuse_shapes(q: Array, k: Array, v: Array) -> None:
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise InputError(
            f"q {q.shape}, k {k.shape}, v {v.shape}: expected as many columns of q as of k, and as"
            " many rows of k as of v"
        )
    if _heads(k) != _heads(v) and 1 not in (_heads(k), _heads(v)):
        raise InputError(
            f"k has {_heads(k)} heads, v {_heads(v)}: expected as many, or one of either"
        )


def _heads(array: Array) -> int:
    return int(array.shape[-3]) if array.ndim > 2 else 1


def _batch(*arrays: Array) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*(array.shape[:-3] for array in arrays))
    except ValueError as error:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise InputError(
            f"leading axes of q, k and v do not broadcast: {shapes}, before heads, rows, columns"
        ) from error


def _pairwise(name: str, given: Array, shape: tuple[int, ...]) -> Array:
    """A bias or a mask with an axis of rows, checked to broadcast."""
    given = np.asarray(given)
    wanted = given.dtype == np.bool_ if name == "mask" else given.dtype.kind == "f"
    try:
        fits = np.broadcast_shapes(given.shape, shape) == shape
    except ValueError:
        fits = False
    if not wanted or not fits:
        kind = "bool" if name == "mask" else "float"
        raise InputError(
            f"{name} is {given.dtype} of shape {given.shape}: expected {kind} that broadcasts to"
            f" {shape}, [.., heads, queries, keys]"
        )
    return given.reshape((1,) * (2 - given.ndim) + given.shape) if given.ndim < 2 else given


def _shift(causal: Causal, n: int, m: int) -> int | None:
    if causal is False:
        return None
    if causal is True or causal == "upper_left":
        return 0
    if causal == "lower_right":
        return m - n
    raise ConfigError(f"causal={causal!r}: expected True, False, 'upper_left' or 'lower_right'")
