"""A graph's lists by row number: stage `graph_lists`, and the reader of lists with changes.

    graph shards, rows in cell order ── sort ──> rows ascending ── panels ──> panel p = rows
                                                                              [p R, (p + 1) R)
    changes (rows, neighbors, values) of panel p, oldest first, are laid over it when it is read

Whoever grows a graph looks lists up by row. The committed Parquet has them in cell order, so they
are turned once; a graph that was grown needs only its changes beside them, which it carries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simdist.partitions import block_rows
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.runner.resident import keep_within
from simdist.stages.grow.lineage import GROWN, origin, promise_of
from simdist.store.datasets import Dataset, Shard
from simdist.types import Float32, Ids, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["Change", "GraphLists", "Lists", "list_arrays"]


class GraphLists:
    """Input: graph. Shards of a plain graph's lists {"neighbors", "values"} [R, k], the last one
    shorter, -1 where a row has none; then changes {"rows", "neighbors", "values"}, fact panel."""

    name: ClassVar[str] = "graph_lists"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        graph = job.inputs["graph"]
        k = promise_of(graph).k
        if graph.stage in GROWN:
            return _carried_on(graph, k)
        size = block_rows(graph.rows, 3 * k)
        for step in _story(graph, k, size):
            if step.name not in rounds:
                return step
        panels = range(-(-graph.rows // size))
        shards = tuple(
            Shard(min(size, graph.rows - p * size), r.objects)
            for p, r in zip(panels, rounds["panels"], strict=True)
        )
        return Commit(graph.rows, shards, {"k": k, "panel_rows": size})

    def compute(self, context: Context, task: Task) -> Record:
        return (_sort if task.kind == "sort" else _panel)(context, task)

    def forecast(self, config: Any, rows: int, dim: int) -> Forecast:
        """Cost of turning n rows' lists, k taken for 32."""
        size = block_rows(rows, 96)
        return Forecast(2 * -(-rows // size), size * 32 * 60, 0.0, rows * 32 * 24)


def _carried_on(graph: Dataset, k: int) -> Commit:
    """The lists that the last change was made over, and that change."""
    before = origin(graph, "lists")
    changes = [
        Shard(s.rows, {r: s.objects[r] for r in ("rows", "neighbors", "values")}, s.facts)
        for s in graph.shards
        if s.facts.get("change") == "newest"
    ]
    metrics = {"k": k, "panel_rows": before.metrics["panel_rows"]}
    return Commit(graph.rows, (*before.shards, *changes), metrics)


def _story(graph: Dataset, k: int, size: int) -> Iterator[Round]:
    largest = max(shard.rows for shard in graph.shards)
    nbytes = largest * (48 * k + 64) + (8 << 20)
    yield Round(
        "sort",
        tuple(
            Task(f"sort-{s:06d}", "sort", {"shard": s}, nbytes) for s in range(len(graph.shards))
        ),
    )
    nbytes = min(size, graph.rows) * (36 * k + 32) + (4 << 20)
    yield Round(
        "panels",
        tuple(
            Task(f"panel-{p:06d}", "panel", {"panel": p, "size": size}, nbytes)
            for p in range(-(-graph.rows // size))
        ),
    )


def _sort(context: Context, task: Task) -> Record:
    """A shard's lists, rows ascending."""
    graph = context.inputs["graph"]
    shard = graph.shards[task.args["shard"]]
    rows, neighbors, values = list_arrays(graph, shard.objects["graph"])
    order = np.argsort(rows)
    objects = {
        "rows": context.write_array("list-rows", rows[order]),
        "neighbors": context.write_array("list-neighbors", neighbors[order]),
        "values": context.write_array("list-values", values[order]),
    }
    return Record(task.key, objects, {"span": [int(rows.min()), int(rows.max())]})


def list_arrays(graph: Dataset, ref: ObjectRef) -> tuple[Ids, Ids, Float32]:
    """A graph shard's rows [m], neighbors [m, k] and values [m, k]."""
    table = graph.store.read_table(ref, ["row", "neighbors", "values"]).combine_chunks()
    rows = table["row"].to_numpy()
    flat = [
        table[role].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
        for role in ("neighbors", "values")
    ]
    return rows, flat[0], flat[1]


def _panel(context: Context, task: Task) -> Record:
    """Rows [p R, (p + 1) R), collected from the sorted shards."""
    graph = context.inputs["graph"]
    first = task.args["panel"] * task.args["size"]
    last = min(first + task.args["size"], graph.rows)
    k = promise_of(graph).k
    neighbors = np.full((last - first, k), -1, np.int64)
    values = np.zeros((last - first, k), np.float32)
    for record in context.records("sort"):
        low, high = record.facts["span"]
        if high < first or low >= last:
            continue
        keep_within()
        rows = context.load(record.objects["rows"])
        part = slice(*np.searchsorted(rows, [first, last]))
        neighbors[rows[part] - first] = context.load(record.objects["neighbors"])[part]
        values[rows[part] - first] = context.load(record.objects["values"])[part]
    return Record(
        task.key,
        {
            "neighbors": context.write_array("list-neighbors", neighbors),
            "values": context.write_array("list-values", values),
        },
    )


@dataclass(frozen=True, slots=True)
class Change:
    """New lists of some rows of a panel, rows ascending."""

    rows: Ids
    neighbors: Ids
    values: Float32


@dataclass(frozen=True)
class Lists:
    """Lists by row number: a `graph_lists` dataset, and changes newer than it.

    newer: panel -> changes, oldest first.
    """

    dataset: Dataset
    newer: dict[int, list[Change]] = field(default_factory=dict)

    @property
    def k(self) -> int:
        return int(self.dataset.metrics["k"])

    @property
    def panel_rows(self) -> int:
        return int(self.dataset.metrics["panel_rows"])

    def take(self, rows: Ids) -> tuple[Ids, Float32]:
        """neighbors [m, k] and values [m, k] of `rows`, ascending; -1 where a row has no list."""
        return self._taken(rows, slice(0, self.k))

    def last(self, rows: Ids) -> tuple[Ids, Float32]:
        """The last neighbour [m] of `rows`, ascending, and its value [m]."""
        neighbors, values = self._taken(rows, slice(self.k - 1, self.k))
        return neighbors[:, 0], values[:, 0]

    def _taken(self, rows: Ids, places: slice) -> tuple[Ids, Float32]:
        width = places.stop - places.start
        neighbors = np.full((len(rows), width), -1, np.int64)
        values = np.zeros((len(rows), width), np.float32)
        panels, starts = np.unique(rows // self.panel_rows, return_index=True)
        ends = [*starts[1:], len(rows)]
        for panel, start, stop in zip(panels.tolist(), starts, ends, strict=False):
            keep_within()
            part = slice(start, stop)
            self._lay(panel, rows[part], places, neighbors[part], values[part])
        return neighbors, values

    def _lay(self, panel: int, rows: Ids, places: slice, neighbors: Ids, values: Float32) -> None:
        """Some places of the panel's own lists, and over them what changed, into `neighbors` and
        `values`."""
        base = self._base(panel)
        if base is not None:
            local = rows - panel * self.panel_rows
            there = local < len(base[0])
            neighbors[there] = base[0][:, places][local[there]]
            values[there] = base[1][:, places][local[there]]
        for change in self._changes(panel):
            at = np.minimum(np.searchsorted(change.rows, rows), len(change.rows) - 1)
            there = change.rows[at] == rows
            neighbors[there] = change.neighbors[:, places][at[there]]
            values[there] = change.values[:, places][at[there]]

    def _base(self, panel: int) -> tuple[Ids, Float32] | None:
        shards = self.dataset.shards
        if panel >= len(shards) or "panel" in shards[panel].facts:
            return None
        objects, store = shards[panel].objects, self.dataset.store
        return store.read_array(objects["neighbors"]), store.read_array(objects["values"])

    def _changes(self, panel: int) -> Sequence[Change]:
        store = self.dataset.store
        kept = [
            Change(*(store.read_array(s.objects[r]) for r in ("rows", "neighbors", "values")))
            for s in self.dataset.shards
            if s.facts.get("panel") == panel
        ]
        return [*kept, *self.newer.get(panel, ())]
