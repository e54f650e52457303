"""The tasks of attention: fold a group of keys, merge states, write a block's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from simdist.lists import ids_of_rows
from simdist.panels import rows_between
from simdist.runner.plan import Record, Task
from simdist.stages.attention.config import AttentionConfig, Sizes
from simdist.stages.attention.sides import centre_of, column, sizes_of, values_between
from simdist.tiles.attend import Logits, attend, causal_limits, gaussian, gaussian_shift, key_mask
from simdist.tiles.softmax import SoftmaxState, attended, empty, merged
from simdist.types import Array, Float64

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["COMPUTE", "shift_of"]


def shift_of(config: AttentionConfig, sizes: Sizes) -> int | None:
    """Query row i sees key rows 0..i + shift; None: all."""
    if config.causal is None:
        return None
    return 0 if config.causal == "upper_left" else sizes.keys - sizes.queries


class _Task:
    """What a task of this stage looks at."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.config: AttentionConfig = context.config
        self.inputs = context.inputs
        self.sizes = sizes_of(self.config, self.inputs)

    @property
    def dtype(self) -> Any:
        return np.dtype(self.config.dtype)

    @cached_property
    def centre(self) -> Float64 | None:
        """[d] of the keys' columns, where logits are differences."""
        return None if self.config.bandwidth is None else centre_of(self.inputs["keys"])

    def queries(self, block: int) -> Array:
        sizes = self.sizes
        rows = rows_between(self.inputs["queries"], "vectors", *sizes.block(block))
        if self.centre is None:
            return rows.astype(self.dtype, copy=False)
        # Each head's columns meet those of its keys' head.
        each = np.repeat(
            self.centre.reshape(sizes.kv_heads, -1), sizes.heads // sizes.kv_heads, axis=0
        )
        return (rows - each.ravel()).astype(self.dtype)

    def keys(self, group: int) -> Array:
        rows = rows_between(self.inputs["keys"], "vectors", *self.sizes.group(group))
        if self.centre is None:
            return rows.astype(self.dtype, copy=False)
        return (rows - self.centre).astype(self.dtype)

    def values(self, group: int) -> Array:
        span = self.sizes.group(group)
        rows = values_between(self.inputs["values"], self.config.values, *span, self.dtype)
        return rows.astype(self.dtype, copy=False)

    def logits(self, K: Array, block: int, group: int) -> Logits:
        """Of one head's keys with the queries of a block."""
        config, sizes = self.config, self.sizes
        if config.bandwidth is None:
            scale = sizes.head_dim**-0.5 if config.scale is None else config.scale
            found = Logits(scale)
        else:
            found = gaussian(K, config.bandwidth)
        (begin, end), (first, last) = sizes.block(block), sizes.group(group)
        bias = np.zeros(last - first) if found.key_bias is None else found.key_bias
        if config.bias is not None:
            bias = bias + column(self.inputs["keys"], config.bias, first, last)
        if config.mask is not None:
            seen = column(self.inputs["keys"], config.mask, first, last) != 0.0
            bias = bias + key_mask(seen)
        if config.bias is not None or config.mask is not None:
            found = replace(found, key_bias=bias)
        shift = shift_of(config, sizes)
        if shift is not None:
            limits = causal_limits(begin, end - begin, first, last - first, shift=shift)
            found = replace(found, limits=limits)
        if config.exclude_self:
            found = replace(found, own=np.arange(begin, end) - first)
        return found


def _fold(context: Context, task: Task) -> Record:
    """States of a block's queries over a group's keys, head by head."""
    it, block, group = _Task(context), task.args["block"], task.args["group"]
    sizes = it.sizes
    Q, K, V = it.queries(block), it.keys(group), it.values(group)
    states = []
    for head in range(sizes.heads):
        theirs = head // (sizes.heads // sizes.kv_heads)
        keys = _head(K, theirs, sizes.kv_heads)
        states.append(
            attend(
                _head(Q, head, sizes.heads),
                keys,
                _head(V, theirs, sizes.kv_heads),
                it.logits(keys, block, group),
                check=context.check,
            )
        )
    return Record(task.key, {"state": context.write_array("softmax", _packed(states))})


def _head(rows: Array, head: int, heads: int) -> Array:
    """[n, d / heads] a head's columns."""
    width = rows.shape[1] // heads
    return np.ascontiguousarray(rows[:, head * width : (head + 1) * width])


def _packed(states: Sequence[SoftmaxState]) -> Float64:
    """[n, heads (dv + 2)]: peak, total and weighted sums of each head side by side."""
    parts = [part for s in states for part in (s.peak[:, None], s.total[:, None], s.weighted)]
    return np.concatenate(parts, axis=1)


def _unpacked(packed: Float64, heads: int) -> list[SoftmaxState]:
    width = packed.shape[1] // heads
    parts = [packed[:, head * width : (head + 1) * width] for head in range(heads)]
    return [SoftmaxState(part[:, 0], part[:, 1], part[:, 2:]) for part in parts]


def _merge(context: Context, task: Task) -> Record:
    """Some states of a block as one."""
    it = _Task(context)
    packed = _together(it, _records(context, task), task.args["block"])
    return Record(task.key, {"state": context.write_array("softmax", _packed(packed))})


def _records(context: Context, task: Task) -> list[Record]:
    """The records of an earlier round that a task merges, in plan order."""
    prefix = f"{task.args['of']}-{task.args['block']:06d}-"
    found = [r for r in context.records(task.args["of"]) if r.task.startswith(prefix)]
    return found[task.args["first"] : task.args["last"]]


def _together(it: _Task, records: Sequence[Record], block: int) -> list[SoftmaxState]:
    """States merged in pairs, neighbours first, in plan order: a state of each level is held."""
    sizes = it.sizes
    begin, end = sizes.block(block)
    levels: list[tuple[int, list[SoftmaxState]]] = []
    for record in records:
        it.context.check()
        new = 0, _unpacked(it.context.load(record.objects["state"]), sizes.heads)
        while levels and levels[-1][0] == new[0]:
            new = new[0] + 1, _pairwise(levels.pop()[1], new[1])
        levels.append(new)
    if not levels:  # keys that none of these queries sees
        return [empty(end - begin, sizes.head_values) for _ in range(sizes.heads)]
    _, found = levels.pop()
    while levels:
        found = _pairwise(levels.pop()[1], found)
    return found


def _pairwise(a: Sequence[SoftmaxState], b: Sequence[SoftmaxState]) -> list[SoftmaxState]:
    return [merged(left, right) for left, right in zip(a, b, strict=True)]


def _finish(context: Context, task: Task) -> Record:
    """A block's output and logsumexp, as Parquet and as vectors."""
    it, block = _Task(context), task.args["block"]
    begin, end = it.sizes.block(block)
    states = _together(it, _records(context, task), block)
    found = [attended(state, it.dtype) for state in states]
    output = np.concatenate([head.output for head in found], axis=1)
    sums = np.stack([head.logsumexp for head in found], axis=1)
    if it.config.bandwidth is not None:
        sums += _shifts(it, block)
    rows = np.arange(begin, end)
    queries = it.inputs["queries"]
    known = "rows" in queries.shards[0].objects
    table = _table(rows, ids_of_rows(queries, rows) if known else None, output, sums)
    vectors = output.astype(np.float32, copy=False)
    zero = np.flatnonzero(~vectors.any(axis=1))
    objects = {
        "attention": context.write_table("attention", table),
        "vectors": context.write_array("vectors", vectors),
        "rows": context.write_table("rows", table.select(["row", "id"])),
    }
    facts = {
        "zero": begin + int(zero[0]) if len(zero) else None,
        "unseeing": int(np.isneginf(sums).all(axis=1).sum()),
    }
    return Record(task.key, objects, facts)


def _shifts(it: _Task, block: int) -> Float64:
    """[n, heads] what logsumexps lack of gaussian logits."""
    Q, heads = it.queries(block), it.sizes.heads
    assert it.config.bandwidth is not None  # asked for gaussian logits only
    h = it.config.bandwidth
    return np.stack([gaussian_shift(_head(Q, i, heads), h) for i in range(heads)], axis=1)


def _table(rows: Array, ids: Any, output: Array, sums: Float64) -> pa.Table:
    """row int64, id, output fixed_size_list<float>, logsumexp double (a list where heads are)."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    def lists(matrix: Array) -> pa.Array:
        flat = pa.array(np.ascontiguousarray(matrix).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])

    return pa.table(
        {
            "row": pa.array(rows),
            "id": pa.array(rows) if ids is None else ids,
            "output": lists(output),
            "logsumexp": lists(sums) if sums.shape[1] > 1 else pa.array(sums[:, 0]),
        }
    )


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "fold": _fold,
    "merge": _merge,
    "finish": _finish,
}
