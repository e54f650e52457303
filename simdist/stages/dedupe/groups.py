"""Groups as connected components, the first row of each kept; those that are too wide split.

label-0000   components within each shard, named by their first row in keep order
label-0001.. names handed on across shards, until none changes
cap          values of rows with the row that is kept for them; groups with one beyond the cap
decide-...   the greedy answer, which stands for those groups (leaders.py)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from simdist.measures import Prepared, resolve
from simdist.panels import RowPanels
from simdist.runner.plan import Record, Round, Rounds, Task
from simdist.stages.dedupe.exchange import Nodes, numbered, outside_of
from simdist.stages.dedupe.leaders import in_order, shard_rounds
from simdist.stages.dedupe.order import needs_order, sources_of
from simdist.tiles.threshold import Threshold
from simdist.types import Array, Bools, Float32, Float64, Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["compute_cap", "compute_label", "label_rounds", "values_with"]

COMPARED = 4096  # rows at once


def label_rounds(context: Context, done: Rounds) -> Iterator[Round]:
    """Rounds until no node's name changes. Past a `yield`, the round is committed."""
    shards = list(range(len(context.records("gather"))))
    number = 0
    while True:
        step = shard_rounds(context, f"label-{number:04d}", "label", shards)
        yield step
        changed = sum(int(record.facts["changed"]) for record in done[step.name])
        if not changed or (len(shards) == 1 and not number):
            return
        number += 1


def compute_label(context: Context, task: Task) -> Record:
    """label [n]: the first node in keep order that a shard's nodes are known to be linked to, and
    its rank and tie [n]."""
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - half a second
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    nodes, shard = Nodes(context), task.args["shard"]
    first, last = nodes.spans[shard]
    name = in_order(context)
    indptr, others = nodes.load(name, shard, "indptr"), nodes.load(name, shard, "others")
    outside, places = outside_of(others, first, last)
    size = last - first + len(outside)
    whole = np.append(indptr, np.full(len(outside), len(places))).astype(np.int64)
    matrix = csr_matrix((np.ones(len(places), np.int8), places, whole), shape=(size, size))
    _, member = connected_components(matrix, directed=True, connection="weak")
    before = [round_ for round_ in numbered(context, "label") if round_ < task.args["round"]]
    label, rank, tie = _known(context, nodes, shard, outside, before[-1] if before else None)
    order = np.lexsort((tie, rank, member))
    best = order[np.searchsorted(member[order], member[: last - first])]
    # gone rows have no entries: each is a component of its own
    changed = int((label[best] != label[: last - first]).sum())
    return Record(
        task.key,
        {
            "label": context.write_array("label", label[best]),
            "rank": context.write_array("label-rank", rank[best]),
            "tie": context.write_array("label-tie", tie[best]),
        },
        {"shard": shard, "changed": changed},
    )


def _known(
    context: Context, nodes: Nodes, shard: int, outside: Ids, before: str | None
) -> tuple[Ids, Float64, Ids]:
    """Names so far, their ranks and ties, of a shard's nodes and then of those outside."""
    first, last = nodes.spans[shard]
    own = np.concatenate([np.arange(first, last), outside])
    if before is None and not needs_order(context):
        return own, np.zeros(len(own)), own
    records = context.records(before or "rank")

    def whole(role: str) -> Array:
        mine = context.load(records[shard].objects[role])
        return np.concatenate([mine, nodes.look_up(records, role, outside)])

    label: Ids = own if before is None else whole("label")
    return label, whole("rank"), whole("tie")


def compute_cap(context: Context, task: Task) -> Record:
    """value [n] of a shard's nodes with the node that names their group, NaN where nobody knows;
    and the groups of which one is beyond the cap."""
    nodes, shard = Nodes(context), task.args["shard"]
    first, last = nodes.spans[shard]
    label = nodes.load(numbered(context, "label")[-1], shard, "label")
    value = values_with(context, nodes, shard, label)
    wide = np.empty(0, np.int64)
    if context.config.cap is not None:
        cap = Threshold(resolve(context.config.measure), context.config.cap)
        beyond: Bools = ~cap.reached(value) & (label != np.arange(first, last))
        wide = np.unique(label[beyond])
    return Record(
        task.key,
        {
            "value": context.write_array("value", value),
            "wide": context.write_array("wide", wide),
        },
        {"wide": len(wide)},
    )


def values_with(context: Context, nodes: Nodes, shard: int, label: Ids) -> Float32:
    """[n] values of a shard's nodes with other nodes: from their pairs, else from the vectors."""
    first, last = nodes.spans[shard]
    name = in_order(context)
    indptr, others = nodes.load(name, shard, "indptr"), nodes.load(name, shard, "others")
    rows = np.repeat(np.arange(last - first), np.diff(indptr))
    direct = np.flatnonzero(others == label[rows])
    value = np.full(last - first, np.nan, np.float32)
    value[rows[direct]] = nodes.load(name, shard, "values")[direct]
    missing = np.flatnonzero(np.isnan(value) & (label != np.arange(first, last)))
    if "vectors" in context.inputs:
        panels = RowPanels(context.inputs["vectors"], resolve(context.config.measure))
        for start in range(0, len(missing), COMPARED):
            context.check()
            part = missing[start : start + COMPARED]
            value[part] = panels.measure.pairs(
                taken(context, panels, part + first), taken(context, panels, label[part])
            )
    return value


def taken(context: Context, panels: RowPanels, nodes: Ids) -> Prepared:
    """Prepared rows of nodes, in any order."""
    distinct, back = np.unique(sources_of(context, nodes), return_inverse=True)
    return panels.take(distinct).take(back)
