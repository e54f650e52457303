"""Which row comes first, and every row's neighbours in that order.

    keep="first"    by row number: nothing to compute
    keep="column"   by a column that was imported with the vectors; of copies, the best one's
    keep="medoid"   by how much each row has around it, most first
    against         rows that are near the other data set are gone before anything is decided

The *medoid* is the row with the most neighbours; one that is as near as can be counts twice as much
as one on the threshold, and a copy counts as a neighbour as near as can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.measures import resolve
from simdist.runner.plan import Record, Round, Task
from simdist.stages.dedupe.exchange import Nodes, shard_nbytes
from simdist.types import Float32, Float64, Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = [
    "best_rows",
    "compute_order",
    "compute_rank",
    "needs_order",
    "order_round",
    "rank_round",
    "sources_of",
]


def needs_order(context: Context) -> bool:
    """Whether keep order is any other than that of the rows."""
    return context.config.keep != "first" or "contaminated" in context.inputs


def rank_round(context: Context) -> Round:
    """One task per shard of nodes."""
    return _round(context, "rank")


def order_round(context: Context) -> Round:
    """One task per shard of nodes."""
    return _round(context, "order")


def _round(context: Context, kind: str) -> Round:
    tasks = []
    for shard, record in enumerate(context.records("gather")):
        rows = int(record.facts["last"]) - int(record.facts["first"])
        nbytes = shard_nbytes(rows, int(record.facts["entries"]))
        tasks.append(Task(f"{kind}-{shard:06d}", kind, {"shard": shard}, nbytes))
    return Round(kind, tuple(tasks))


def compute_rank(context: Context, task: Task) -> Record:
    """rank [n] float64 of a shard's nodes, smaller first, and tie [n], which is smaller first where
    ranks are equal: the row that is kept. Infinity for those that are gone."""
    nodes, shard = Nodes(context), task.args["shard"]
    first, last = nodes.spans[shard]
    objects = {}
    tie = np.arange(first, last)
    if context.config.keep == "column":
        rank, tie = best_rows(context, first, last)
    elif context.config.keep == "medoid":
        rank = _medoid_rank(context, nodes, shard)
    else:
        rank = np.zeros(last - first)
    if "contaminated" in context.inputs:
        gone = contaminated_by(context, first, last)
        rank = np.where(gone >= 0, np.inf, rank)
        objects["gone"] = context.write_array("gone", gone)
    objects["rank"] = context.write_array("rank", rank)
    objects["tie"] = context.write_array("tie", tie)
    return Record(task.key, objects)


def _medoid_rank(context: Context, nodes: Nodes, shard: int) -> Float64:
    first, last = nodes.spans[shard]
    indptr = nodes.load("gather", shard, "indptr")
    others = nodes.load("gather", shard, "others")
    counts = np.ones(len(others))
    own = np.zeros(last - first)
    if "distinct" in context.inputs:
        distinct, back = np.unique(others, return_inverse=True)
        counts = (1.0 + _copy_counts(context, distinct))[back]
        own = _copy_counts(context, np.arange(first, last))
    weights = counts * _closeness(context, nodes.load("gather", shard, "values"))
    rows = np.repeat(np.arange(last - first), np.diff(indptr))
    return -(np.bincount(rows, weights, minlength=last - first) + own)


def _closeness(context: Context, values: Float32) -> Float64:
    """1/2 on the threshold, 1 where a pair could not be nearer; 1 where there is no nearest."""
    traits = resolve(context.config.measure).traits
    best = traits.high if traits.kind == "similarity" else traits.low
    width = best - float(np.float32(context.config.threshold))
    if not np.isfinite(width) or width == 0.0:
        return np.ones(len(values))
    near: Float64 = 1.0 - 0.5 * (best - values.astype(np.float64)) / width
    return near


def _copy_counts(context: Context, numbers: Ids) -> Float64:
    """[m] how many copies distinct rows have beside the one that stands for them."""
    sources = sources_of(context, numbers)
    found = np.zeros(len(numbers))
    for copies in _copies(context):
        of = np.sort(copies[1])
        found += np.searchsorted(of, sources, "right") - np.searchsorted(of, sources)
    return found


def sources_of(context: Context, numbers: Ids) -> Ids:
    """The first dataset row of nodes; nodes themselves where nothing was collapsed."""
    if "distinct" not in context.inputs:
        return numbers
    distinct = context.inputs["distinct"]
    out = np.empty(len(numbers), np.int64)
    first = 0
    for shard in distinct.shards:
        here = (numbers >= first) & (numbers < first + shard.rows)
        if here.any():
            out[here] = distinct.store.read_array(shard.objects["sources"])[numbers[here] - first]
        first += shard.rows
    return out


def _copies(context: Context) -> list[Ids]:
    """[2, k] each: copies, and what they are copies of."""
    distinct = context.inputs["distinct"]
    roles = sorted(role for role in distinct.manifest.objects if role.startswith("copies-"))
    return [distinct.store.read_array(distinct.manifest.objects[role]) for role in roles]


def best_rows(context: Context, first: int, last: int) -> tuple[Float64, Ids]:
    """The best value of the column among a node's copies, signed so that smaller is better, and
    the row that has it, the first where several have."""
    sources = sources_of(context, np.arange(first, last))
    rows, nodes = sources, np.arange(last - first)
    if "distinct" in context.inputs:
        for copies in _copies(context):
            at = np.searchsorted(sources, copies[1])
            mine = (at < len(sources)) & (sources[np.minimum(at, len(sources) - 1)] == copies[1])
            nodes = np.concatenate([nodes, at[mine]])
            rows = np.concatenate([rows, copies[0, mine]])
    ranks = _column(context, rows)
    order = np.lexsort((rows, ranks, nodes))
    best = order[np.searchsorted(nodes[order], np.arange(last - first))]
    return ranks[best], rows[best]


def _column(context: Context, rows: Ids) -> Float64:
    """Values of the rank column at dataset rows [m], in any order; negated where larger is kept."""
    config = context.config
    if "ranks" in context.inputs:
        return _ranks(context, rows)
    from pyarrow import types  # noqa: PLC0415 - 0.3 s that planning does not need

    source = context.inputs["vectors"]
    out = np.empty(len(rows))
    first = 0
    for shard in source.shards:
        here = (rows >= first) & (rows < first + shard.rows)
        if here.any():
            column = source.store.read_table(shard.objects["rows"], [config.column])[config.column]
            if not (types.is_integer(column.type) or types.is_floating(column.type)):
                raise InputError(
                    f"column {config.column!r} of {source.uri} holds {column.type};"
                    " deduplicate(keep=) needs numbers, of which the lowest is kept"
                )
            if column.null_count:
                raise InputError(
                    f"column {config.column!r} of {source.uri} has {column.null_count} empty values"
                    f" in rows {first} to {first + shard.rows - 1}; deduplicate(keep=) needs a"
                    " number for every row: fill them before the import"
                )
            out[here] = column.to_numpy().astype(np.float64)[rows[here] - first]
        first += shard.rows
    if np.isnan(out).any():
        row = int(rows[np.flatnonzero(np.isnan(out))[0]])
        raise InputError(
            f"column {config.column!r} of {source.uri} is NaN in row {row}; deduplicate(keep=)"
            " needs a number for every row"
        )
    return -out if config.descending else out


def _ranks(context: Context, rows: Ids) -> Float64:
    """Ranks that were given beside the rows, in two whole numbers each."""
    ranks = context.inputs["ranks"]
    out = np.empty(len(rows))
    first = 0
    for shard in ranks.shards:
        here = (rows >= first) & (rows < first + shard.rows)
        if here.any():
            high, low = ranks.store.read_array(shard.objects["vectors"])[rows[here] - first].T
            out[here] = high.astype(np.float64) * (1 << 20) + low
        first += shard.rows
    return out


def contaminated_by(context: Context, first: int, last: int) -> Ids:
    """[n] a row of the other data set that is near each node, the first of them; -1: none."""
    pairs = context.inputs["contaminated"]
    out = np.full(last - first, -1, np.int64)
    for shard in reversed(pairs.shards):
        if not shard.rows:
            continue
        low, high = shard.facts["rows"]
        if low >= last or high < first:
            continue
        table = pairs.store.read_table(shard.objects["pairs"], ["row", "neighbor"])
        rows = table["row"].to_numpy()
        here = slice(*(int(at) for at in np.searchsorted(rows, [first, last])))
        found, at = np.unique(rows[here], return_index=True)
        out[found - first] = table["neighbor"].to_numpy()[here][at]
    return out


def compute_order(context: Context, task: Task) -> Record:
    """A shard's entries without those that are gone, each node's in keep order; and how many of
    them come before the node itself."""
    nodes, shard = Nodes(context), task.args["shard"]
    first, last = nodes.spans[shard]
    indptr, others = nodes.load("gather", shard, "indptr"), nodes.load("gather", shard, "others")
    values = nodes.load("gather", shard, "values")
    rank = nodes.load("rank", shard, "rank")
    distinct, back = np.unique(others, return_inverse=True)
    known = context.records("rank")
    ranks = nodes.look_up(known, "rank", distinct)[back]
    ties = nodes.look_up(known, "tie", distinct)[back]
    rows = np.repeat(np.arange(last - first), np.diff(indptr))
    there = np.flatnonzero(np.isfinite(ranks) & np.isfinite(rank[rows]))
    order = there[np.lexsort((ties[there], ranks[there], rows[there]))]
    rows, others, values = rows[order], others[order], values[order]
    own, own_tie = rank[rows], nodes.load("rank", shard, "tie")[rows]
    before = (ranks[order] < own) | ((ranks[order] == own) & (ties[order] < own_tie))
    return Record(
        task.key,
        {
            "indptr": context.write_array("indptr", _indptr(rows, last - first)),
            "others": context.write_array("others", others),
            "values": context.write_array("values", values),
            "earlier": context.write_array(
                "earlier", np.bincount(rows[before], minlength=last - first).astype(np.int64)
            ),
        },
    )


def _indptr(rows: Ids, count: int) -> Ids:
    return np.searchsorted(rows, np.arange(count + 1)).astype(np.int64)
