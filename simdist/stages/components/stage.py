"""The rounds of `connected_components`: union-find by shard, and the trees joined across shards.

A shard's own edges give each of its nodes a local root. Edges to other shards then only matter as
pairs of local roots, of which a forest remembers what is needed: fewer pairs than there are nodes
in it, however many edges there were. Forests are merged, FAN at a time, until one is left: it names
the nodes whose root lies elsewhere, at most one entry a node of 16 bytes, and is the largest thing
that any task holds. The root of a component is its smallest node, whatever the shards are.

Components are numbered by their first node, as scipy numbers them. A shard owns the components
whose first node it has: their numbers are consecutive, and their sizes lie in its object `sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.operators import ShardedCsr
from simdist.runner.plan import (
    Commit,
    Forecast,
    Job,
    Record,
    Round,
    RoundForecast,
    Rounds,
    Task,
)
from simdist.stages.costs import TASK_REQUESTS, moves
from simdist.store.datasets import Shard
from simdist.types import Ids, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["LARGEST", "ComponentsConfig", "ConnectedComponents"]

FAN = 8  # forests merged by one task
LARGEST = 100  # components whose size the manifest tells
BASE_NBYTES = 8 << 20
SHARD_ENTRIES = 3_000_000  # of the graph, as a forecast takes it


@dataclass(frozen=True, slots=True)
class ComponentsConfig:
    """Nothing to choose: the answer is exact."""

    def to_json(self) -> dict[str, Json]:
        return {}


class ConnectedComponents:
    """See the package docstring. Input: links. Shards as the graph's, with

    labels      [rows] int64     the component of each node
    sizes       [c] int64        nodes of the components whose first node the shard has
    components  Parquet          (row, component)
    """

    name: ClassVar[str] = "connected_components"
    VERSION: ClassVar[int] = 1
    on_edges: ClassVar[bool] = True  # how `forecast` wants to be asked

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        graph = ShardedCsr.of(job.inputs["links"])
        for step in _story(graph, context):
            if step.name not in rounds:
                return step
        return _manifest(graph, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: ComponentsConfig, rows: int, dim: int, *, entries: int) -> Forecast:
        """Cost of n nodes with so many entries together, in shards of about SHARD_ENTRIES. The last
        forest is taken at its worst, a pair a node: rows in no order, few edges within shards."""
        shards = max(1, -(-entries // SHARD_ENTRIES))
        nbytes = max((8 * entries + 96 * rows) // shards, 96 * rows) + BASE_NBYTES
        steps = tuple(_costs(rows, entries, shards))
        tasks = 1 if shards == 1 else 5 * shards + 1
        return Forecast(tasks, nbytes, 0.0, 64 * rows, steps)


def _costs(rows: int, entries: int, shards: int) -> Iterator[RoundForecast]:
    """Its rounds; forests between shards at their worst, a pair a node."""
    indices, labels = 8 * entries, 24 * rows

    def each(name: str, *, tasks: int, read: int, written: int, handled: int) -> RoundForecast:
        requests = tasks * TASK_REQUESTS + moves(2 * tasks, read) + moves(tasks, written)
        return RoundForecast(
            name, tasks, read=read, written=written, requests=requests, rows=handled
        )

    if shards == 1:
        yield each("alone", tasks=1, read=indices, written=labels, handled=entries)
        return
    forest = 16 * rows
    yield each("forest", tasks=shards, read=indices, written=8 * rows, handled=entries)
    yield each("cross", tasks=shards - 1, read=indices, written=forest, handled=entries)
    parts, level = shards - 1, 0
    while parts > 1:
        parts = -(-parts // FAN)
        yield each(f"merge-{level}", tasks=parts, read=forest, written=forest, handled=rows)
        level += 1
    for name in ("roots", "labels", "sizes"):
        yield each(name, tasks=shards, read=forest, written=labels // 3, handled=rows)


def _story(graph: ShardedCsr, context: Context) -> Iterator[Round]:
    if graph.shards == 1:
        yield Round("alone", (Task("alone", "alone", {}, _nbytes(graph, 0)),))
        return
    shards = range(graph.shards)
    yield _each("forest", graph, shards)
    late = [i for i in shards if any(source < i for source in graph.sources(i))]
    yield _each("cross", graph, late)
    name, level = "cross", 0
    while len(records := context.records(name)) > 1:
        yield _merges(level, name, records)
        name, level = f"merge-{level}", level + 1
    yield _each("roots", graph, shards, forest=name)
    yield _each("labels", graph, shards)
    yield _each("sizes", graph, shards)


def _each(name: str, graph: ShardedCsr, shards: Sequence[int], **args: Json) -> Round:
    """A task per shard."""
    tasks = (Task(f"{name}-{i:06d}", name, {"shard": i, **args}, _nbytes(graph, i)) for i in shards)
    return Round(name, tuple(tasks))


def _nbytes(graph: ShardedCsr, i: int) -> int:
    """A shard's indices, and some arrays of its rows and of those of one other."""
    rows = max(graph.rows(s) for s in range(graph.shards))
    return 8 * graph.shard_entries(i) + 96 * rows + BASE_NBYTES


def _merges(level: int, before: str, records: Sequence[Record]) -> Round:
    """Tasks that merge the forests of a round, FAN each."""
    tasks = []
    for number, first in enumerate(range(0, len(records), FAN)):
        pairs = sum(int(record.facts["pairs"]) for record in records[first : first + FAN])
        args = {"before": before, "first": first, "count": FAN}
        nbytes = 96 * pairs + BASE_NBYTES
        tasks.append(Task(f"merge-{level:02d}-{number:06d}", "merge", args, nbytes))
    return Round(f"merge-{level}", tuple(tasks))


def _graph(context: Context) -> ShardedCsr:
    return ShardedCsr.of(context.inputs["links"])


def _alone(context: Context, task: Task) -> Record:
    """A graph of one shard, from end to end."""
    from simdist.compiled.forest import local_roots  # noqa: PLC0415 - numba only on workers

    shard = _graph(context).shard(0)
    roots = local_roots(shard.indptr, shard.indices, 0)
    _, labels = np.unique(roots, return_inverse=True)
    return _described(context, task, 0, labels.astype(np.int64), np.bincount(labels))


def _forest(context: Context, task: Task) -> Record:
    """Local roots of a shard's rows, counted from its first."""
    from simdist.compiled.forest import local_roots  # noqa: PLC0415 - numba only on workers

    shard = _graph(context).shard(task.args["shard"])
    roots = local_roots(shard.indptr, shard.indices, shard.begin)
    return Record(task.key, {"roots": context.write_array("forest", roots)})


def _cross(context: Context, task: Task) -> Record:
    """What a shard's edges to earlier shards join, as a forest of global numbers."""
    from simdist.compiled.forest import join_across  # noqa: PLC0415 - numba only on workers

    graph, i = _graph(context), task.args["shard"]
    shard, forests = graph.shard(i), context.records("forest")
    own = context.load(forests[i].objects["roots"])
    cursors = np.array(shard.indptr[:-1])
    pairs: list[tuple[Ids, Ids]] = []
    for source in (source for source in graph.sources(i) if source < i):
        context.check()
        first = graph.span(source)[0]
        other = context.load(forests[source].objects["roots"])
        found = join_across(shard.indptr, shard.indices, cursors, first, other, own)
        nodes = (p + np.where(p < len(other), first, shard.begin - len(other)) for p in found)
        pairs.append((next(nodes), next(nodes)))
    return _reduced(context, task, pairs)


def _merge(context: Context, task: Task) -> Record:
    """A few forests as one."""
    first, count = task.args["first"], task.args["count"]
    records = context.records(task.args["before"])[first : first + count]
    pairs = [tuple(context.load(r.objects[role]) for role in ("nodes", "roots")) for r in records]
    return _reduced(context, task, pairs)


def _reduced(context: Context, task: Task, pairs: Sequence[Sequence[Ids]]) -> Record:
    """Pairs of connected nodes as a forest: nodes ascending, and the root of each."""
    from simdist.compiled.forest import joined_pairs  # noqa: PLC0415 - numba only on workers

    context.check()
    left, right = (np.concatenate(sides) for sides in zip(*pairs, strict=True))
    nodes, roots = joined_pairs(left, right)
    objects = {
        "nodes": context.write_array("forest-nodes", nodes),
        "roots": context.write_array("forest-roots", roots),
    }
    return Record(task.key, objects, {"pairs": len(nodes)})


def _roots(context: Context, task: Task) -> Record:
    """The first node of the component of each of a shard's rows; which of them are its own."""
    graph, i = _graph(context), task.args["shard"]
    begin, end = graph.span(i)
    local = context.load(context.records("forest")[i].objects["roots"])
    first = np.arange(begin, end)
    for record in context.records(task.args["forest"]):  # one, or none where no edge crosses
        nodes = context.load(record.objects["nodes"])
        part = slice(*np.searchsorted(nodes, [begin, end]))
        first[nodes[part] - begin] = context.load(record.objects["roots"])[part]
    roots = first[local]
    owned = np.flatnonzero(roots == np.arange(begin, end)) + begin
    objects = {
        "roots": context.write_array("component-roots", roots),
        "owned": context.write_array("component-owned", owned),
    }
    return Record(task.key, objects, {"components": len(owned)})


def _numbers(context: Context) -> Ids:
    """[shards + 1] the number of the first component that each shard owns, and of all."""
    counts = [int(record.facts["components"]) for record in context.records("roots")]
    return np.cumsum([0, *counts], dtype=np.int64)


def _labels(context: Context, task: Task) -> Record:
    """Components of a shard's rows by number, and how many of its rows each has."""
    graph, i = _graph(context), task.args["shard"]
    records, numbers = context.records("roots"), _numbers(context)
    roots = context.load(records[i].objects["roots"])
    distinct, places, counts = np.unique(roots, return_inverse=True, return_counts=True)
    owners = graph.shard_of(distinct)
    named = np.empty(len(distinct), np.int64)
    for owner in np.unique(owners).tolist():
        context.check()
        here = owners == owner
        owned = context.load(records[owner].objects["owned"])
        named[here] = numbers[owner] + np.searchsorted(owned, distinct[here])
    objects = {
        "labels": context.write_array("labels", named[places]),
        "named": context.write_array("component-named", named),
        "counts": context.write_array("component-counts", counts),
    }
    return Record(task.key, objects)


def _sizes(context: Context, task: Task) -> Record:
    """Sizes of the components that a shard owns, added up over all shards."""
    i = task.args["shard"]
    first, last = _numbers(context)[i : i + 2].tolist()
    sizes = np.zeros(last - first, np.int64)
    records = context.records("labels")
    for record in records:
        context.check()
        named = context.load(record.objects["named"])
        part = slice(*np.searchsorted(named, [first, last]))
        sizes[named[part] - first] += context.load(record.objects["counts"])[part]
    labels = context.load(records[i].objects["labels"])
    return _described(context, task, i, labels, sizes, first)


def _described(
    context: Context, task: Task, i: int, labels: Ids, sizes: Ids, first: int = 0
) -> Record:
    """A shard of the result. first: the number of the first component it owns."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    rows = np.arange(*_graph(context).span(i))
    order = np.argsort(-sizes, kind="stable")[:LARGEST]
    objects: dict[str, ObjectRef] = {
        "labels": context.write_array("labels", labels),
        "sizes": context.write_array("component-sizes", sizes.astype(np.int64)),
        "components": context.write_table(
            "components", pa.table({"row": rows, "component": labels})
        ),
    }
    facts = {
        "components": len(sizes),
        "singletons": int((sizes == 1).sum()),
        "largest": [[int(first + c), int(sizes[c])] for c in order],
    }
    return Record(task.key, objects, facts)


def _manifest(graph: ShardedCsr, rounds: Rounds) -> Commit:
    records = rounds["alone" if graph.shards == 1 else "sizes"]
    shards = tuple(
        Shard(graph.rows(i), record.objects, {"components": record.facts["components"]})
        for i, record in enumerate(records)
    )
    largest = [pair for record in records for pair in record.facts["largest"]]
    largest.sort(key=lambda pair: (-pair[1], pair[0]))
    metrics: dict[str, Json] = {
        "nodes": graph.nodes,
        "components": sum(int(record.facts["components"]) for record in records),
        "singletons": sum(int(record.facts["singletons"]) for record in records),
        "largest": largest[:LARGEST],
        "rounds": list(rounds),
    }
    return Commit(graph.nodes, shards, metrics)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "alone": _alone,
    "forest": _forest,
    "cross": _cross,
    "merge": _merge,
    "roots": _roots,
    "labels": _labels,
    "sizes": _sizes,
}
