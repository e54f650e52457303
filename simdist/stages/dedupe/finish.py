"""From nodes back to all rows: who stays, what stands for whom; groups counted, the largest shown.

settle    leader and value of every node, groups that are too wide by their leaders    per shard
finish    every row: kept or not, the row kept for it, value; as Parquet               per range
sizes     rows that each kept row stands for                                           per range
list      rows of the largest groups                                                   one task
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from simdist.lists import ids_of_rows
from simdist.measures import resolve
from simdist.panels import RowPanels
from simdist.runner.plan import Record, Round, Task
from simdist.stages.dedupe.exchange import Nodes, latest, numbered
from simdist.stages.dedupe.leaders import shard_rounds
from simdist.stages.dedupe.order import sources_of
from simdist.types import Array, Float32, Ids, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = [
    "compute_finish",
    "compute_list",
    "compute_settle",
    "compute_sizes",
    "finish_round",
    "list_round",
    "settle_round",
    "sizes_round",
]

SHOWN = 20  # groups, the largest
LISTED = 10  # rows of each
ROW_NBYTES = 200  # of a row on its way to Parquet, its id among it


def settle_round(context: Context) -> Round:
    """One task per shard of nodes."""
    return shard_rounds(context, "settle", "settle", list(range(len(context.records("gather")))))


def compute_settle(context: Context, task: Task) -> Record:
    """leader [n] of a shard's nodes, -1 for those near the other data set, and value [n]."""
    nodes, shard = Nodes(context), task.args["shard"]
    decided = numbered(context, "decide")
    leader: Ids
    if decided:
        objects = latest(context, decided, len(nodes.spans))[shard].objects
        leader, value = context.load(objects["leader"]), context.load(objects["value"])
    if context.config.semantics == "components":
        label = nodes.load(numbered(context, "label")[-1], shard, "label")
        within = nodes.load("cap", shard, "value")
        if decided:
            wide = [context.load(r.objects["wide"]) for r in context.records("cap")]
            split = np.isin(label, np.concatenate(wide))
            leader = np.where(split, leader, label)
            value = np.where(split, value, within)
        else:
            leader, value = label, within
    if "contaminated" in context.inputs:
        leader = np.where(nodes.load("rank", shard, "gone") >= 0, -1, leader)
    return Record(
        task.key,
        {
            "leader": context.write_array("leader", leader),
            "value": context.write_array("value", value),
        },
    )


def finish_round(context: Context) -> Round:
    """Ranges of rows: the shards of the vectors, or those of the nodes where there are none."""
    spans = _ranges(context)
    return Round(
        "finish",
        tuple(
            Task(
                f"finish-{place:06d}",
                "finish",
                {"range": place, "first": first, "last": last},
                ROW_NBYTES * (last - first) + _compared_nbytes(context) + (16 << 20),
            )
            for place, (first, last) in enumerate(spans)
        ),
    )


def _ranges(context: Context) -> list[tuple[int, int]]:
    if "vectors" not in context.inputs:
        return list(Nodes(context).spans)
    ends = np.cumsum([0, *(shard.rows for shard in context.inputs["vectors"].shards)]).tolist()
    return list(pairwise(ends))


def _compared_nbytes(context: Context) -> int:
    if "distinct" not in context.inputs:
        return 0
    return 64 * 4096 * int(context.inputs["vectors"].metrics["dim"])


def compute_finish(context: Context, task: Task) -> Record:
    """Rows first..last: what stands for each, its value; groups counted by the row that is kept."""
    nodes = Nodes(context)
    rows = np.arange(task.args["first"], task.args["last"])
    numbers = rows
    if "distinct" in context.inputs:
        distinct = context.inputs["distinct"]
        role = f"numbers-{task.args['range']:06d}"
        numbers = distinct.store.read_array(distinct.manifest.objects[role])
    settled = context.records("settle")
    unique, back = np.unique(numbers, return_inverse=True)
    leader = nodes.look_up(settled, "leader", unique)
    value = nodes.look_up(settled, "value", unique)[back]
    there = leader >= 0
    kept_rows = np.full(len(unique), -1, np.int64)
    kept_rows[there] = _kept_rows(context, nodes, leader[there])
    group = kept_rows[back]
    copies = (leader == unique)[back] & (group != rows)
    value[copies] = _own_values(context, rows[copies])
    value[(group == rows) | (group < 0)] = np.nan
    kept, counts = np.unique(group[group >= 0], return_counts=True)
    objects = {
        "rows": context.write_table("rows", _table(context, rows, group, value)),
        "group": context.write_array("group", group),
        "kept": context.write_array("kept", rows[group == rows]),
        "leaders": context.write_array("group-leaders", kept),
        "counts": context.write_array("group-counts", counts.astype(np.int64)),
    }
    facts = {
        "kept": int((group == rows).sum()),
        "contaminated": int((group < 0).sum()),
        "first": task.args["first"],
        "last": task.args["last"],
    }
    if "contaminated" in context.inputs:
        gone = nodes.look_up(context.records("rank"), "gone", unique)[back]
        objects["rows"] = context.write_table("rows", _table(context, rows, group, value, gone))
    return Record(task.key, objects, facts)


def _kept_rows(context: Context, nodes: Nodes, leaders: Ids) -> Ids:
    """The row that is kept of nodes that are: of copies the best."""
    if context.config.keep == "column":
        unique, back = np.unique(leaders, return_inverse=True)
        best: Ids = nodes.look_up(context.records("rank"), "tie", unique)[back]
        return best
    return sources_of(context, leaders)


def _own_values(context: Context, rows: Ids) -> Float32:
    """Values of rows with their copies."""
    if not len(rows):
        return np.empty(0, np.float32)
    panels = RowPanels(context.inputs["vectors"], resolve(context.config.measure))
    parts = []
    for start in range(0, len(rows), 4096):
        taken = panels.take(rows[start : start + 4096])
        parts.append(panels.measure.pairs(taken, taken))
    return np.concatenate(parts)


def _table(
    context: Context, rows: Ids, group: Ids, value: Float32, gone: Ids | None = None
) -> pa.Table:
    """row int64, id, kept bool, group int64 (null: removed for the other data set), value float32
    (null: of kept rows, and where nobody compared); near int64: the row of the other data set."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    columns: dict[str, Array | pa.Array] = {"row": pa.array(rows)}
    if "vectors" in context.inputs:
        columns["id"] = ids_of_rows(context.inputs["vectors"], rows)
    columns["kept"] = pa.array(group == rows)
    columns["group"] = pa.array(group, mask=group < 0)
    columns["value"] = pa.array(value, mask=np.isnan(value))
    if gone is not None:
        columns["near"] = pa.array(gone, mask=gone < 0)
    return pa.table(columns)


def sizes_round(context: Context) -> Round:
    """Ranges of rows again: of what each finish task counted, a slice."""
    spans = _ranges(context)
    return Round(
        "sizes",
        tuple(
            Task(
                f"sizes-{place:06d}",
                "sizes",
                {"first": first, "last": last},
                64 * (last - first) + (8 << 20),
            )
            for place, (first, last) in enumerate(spans)
        ),
    )


def compute_sizes(context: Context, task: Task) -> Record:
    """How many rows the kept ones of a range stand for; the largest groups."""
    first, last = task.args["first"], task.args["last"]
    sizes = np.zeros(last - first, np.int64)
    for record in context.records("finish"):
        leaders = context.load(record.objects["leaders"])
        low, high = (int(at) for at in np.searchsorted(leaders, [first, last]))
        sizes[leaders[low:high] - first] += context.load(record.objects["counts"])[low:high]
    largest = np.argsort(-sizes, kind="stable")[:SHOWN]
    shown = [[int(at + first), int(sizes[at])] for at in largest if sizes[at] > 1]
    return Record(task.key, {}, {"groups": int((sizes > 1).sum()), "largest": shown})


def largest_groups(records: Sequence[Record]) -> list[tuple[int, int]]:
    """(kept row, size) of the largest groups, largest first, the first row where they are equal."""
    every = [(int(row), int(size)) for record in records for row, size in record.facts["largest"]]
    return sorted(every, key=lambda found: (-found[1], found[0]))[:SHOWN]


def list_round(context: Context) -> Round:
    """One task."""
    most = max(last - first for first, last in _ranges(context))
    return Round("list", (Task("list", "list", {}, 64 * most + (8 << 20)),))


def compute_list(context: Context, task: Task) -> Record:
    """Rows of the largest groups, the first few of each; ids where the vectors have them."""
    wanted = largest_groups(context.records("sizes"))
    rows: dict[int, list[int]] = {kept: [] for kept, _ in wanted}
    for record in context.records("finish"):
        group = context.load(record.objects["group"])
        found = np.flatnonzero(np.isin(group, list(rows)))
        for at in found.tolist():
            listed = rows[int(group[at])]
            row = at + int(record.facts["first"])
            if len(listed) < LISTED and row != int(group[at]):
                listed.append(row)
    groups: list[Json] = []
    for kept, size in wanted:
        entry: dict[str, Json] = {"kept": kept, "size": size, "rows": rows[kept]}
        if "vectors" in context.inputs:
            numbers = np.array([kept, *rows[kept]], np.int64)
            entry["ids"] = ids_of_rows(context.inputs["vectors"], numbers).to_pylist()
        groups.append(entry)
    return Record(task.key, {}, {"groups": groups})
