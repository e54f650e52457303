"""Stage `similarity_graph`: directed k-NN lists become a symmetric weighted graph.

    survey   sum of all distances                    task per run of lists; umap, self_tuning
    bucket   edges by the range of their row, and    task per run of lists
             again, turned round, by that of their
             neighbour: one object a task
    scales   s of every row                          task per range; self_tuning
    settle   both directions merged and sorted:      task per range
             CSR, degrees, Parquet

No task sees more than one run of lists or one range of rows. See `simdist.compiled.transpose` for
the merge, `simdist.stages.links.fuzzy` for the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.partitions import block_rows
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
from simdist.stages.links.buckets import bucket_nbytes, bucketed, forward_and_reverse, settle_nbytes
from simdist.stages.links.fuzzy import local_scales, memberships
from simdist.stages.links.lists import (
    distances_of,
    edge_lists,
    measure_of,
    refuse_other,
    slices,
)
from simdist.stages.links.shards import Ranges, commit_of, write_shard
from simdist.types import Float32, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.store.datasets import Dataset

__all__ = ["SYMMETRIZE", "WEIGHTS", "SimilarityConfig", "SimilarityGraphStage"]

Symmetrize = Literal["union", "mutual"]
Weights = Literal["value", "binary", "self_tuning", "umap"]

SYMMETRIZE = ("union", "mutual")
WEIGHTS = ("value", "binary", "self_tuning", "umap")
RUN_ENTRIES = 2_000_000  # list entries that one task turns
BASE_NBYTES = 16 << 20
ENTRY_NBYTES = 16  # of an entry in a bucket, either way round
SETTLED_NBYTES = 21  # of an entry of the graph: its arrays, and Parquet
SCALE_NEIGHBOR = 7  # Zelnik-Manor & Perona


@dataclass(frozen=True, slots=True)
class SimilarityConfig:
    """symmetrize, weights: as `similarity_graph` documents. scale_neighbor: which neighbour's
    distance is the scale of a row (self_tuning), at most k."""

    symmetrize: Symmetrize = "union"
    weights: Weights = "value"
    scale_neighbor: int = SCALE_NEIGHBOR

    def __post_init__(self) -> None:
        if self.symmetrize not in SYMMETRIZE:
            raise ConfigError(
                f"symmetrize={self.symmetrize!r}: expected one of {', '.join(SYMMETRIZE)}"
            )
        if self.weights not in WEIGHTS:
            raise ConfigError(f"weights={self.weights!r}: expected one of {', '.join(WEIGHTS)}")
        if self.scale_neighbor < 1:
            raise ConfigError(f"scale_neighbor={self.scale_neighbor}: expected at least 1")

    def to_json(self) -> Json:
        said = asdict(self)
        if self.weights != "self_tuning":
            del said["scale_neighbor"]
        return said


class SimilarityGraphStage:
    """See the module docstring. Input: graph, of k-NN lists."""

    name: ClassVar[str] = "similarity_graph"
    VERSION: ClassVar[int] = 1
    on_edges: ClassVar[bool] = True  # how `forecast` wants to be asked

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        graph = job.inputs["graph"]
        refuse_other(graph)
        _refuse_measure(graph, job.config)
        ranges = _ranges(graph, job.config)
        for step in _story(context, graph, ranges):
            if step.name not in rounds:
                return step
        return _manifest(job, ranges, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: SimilarityConfig, rows: int, dim: int, *, entries: int) -> Forecast:
        """Cost of so many entries of lists, in shards as blocks of their vectors are."""
        ways = 2 if config.symmetrize == "union" else 1
        ranges = Ranges.of(rows, ways * entries)
        runs = -(-entries // RUN_ENTRIES)
        read = -(-entries * min(block_rows(rows, max(dim, 1)), rows) // rows)
        nbytes = max(
            bucket_nbytes(min(read, RUN_ENTRIES), read),
            settle_nbytes(-(-2 * entries // ranges.count), ranges.size),
        )
        steps = tuple(_costs(config, rows, entries, runs=runs, ranges=ranges.count))
        return Forecast(runs + ranges.count, nbytes, 0.0, 72 * entries, steps)


def _costs(
    config: SimilarityConfig, rows: int, entries: int, *, runs: int, ranges: int
) -> Iterator[RoundForecast]:
    """Its rounds, where a run of lists has edges in all ranges."""
    lists, left = 12 * entries, 2 * ENTRY_NBYTES * entries
    asked = runs * TASK_REQUESTS + moves(2 * runs, lists)
    if config.weights in ("self_tuning", "umap"):
        yield RoundForecast(
            "survey", runs, read=lists, written=16 * rows, requests=asked, rows=entries
        )
    yield RoundForecast(
        "bucket",
        runs,
        read=lists,
        written=left,
        requests=asked + moves(2 * runs, left),
        rows=entries,
    )
    if config.weights == "self_tuning":
        requests = ranges * TASK_REQUESTS + moves(ranges * (runs + 1), 16 * rows)
        yield RoundForecast(
            "scales", ranges, read=16 * rows, written=8 * rows, requests=requests, rows=rows
        )
    written = 2 * SETTLED_NBYTES * entries
    yield RoundForecast(
        "settle",
        ranges,
        read=left,
        written=written,
        moved=left,
        requests=ranges * TASK_REQUESTS + moves(ranges * runs, left) + moves(5 * ranges, written),
        rows=2 * entries,
    )


def _refuse_measure(graph: Dataset, config: SimilarityConfig) -> None:
    measure = measure_of(graph)
    if config.weights == "value" and measure.traits.kind == "distance":
        raise InputError(
            f"{graph.uri} holds values of {measure.name}, a distance: the farther, the larger,"
            " which is no weight of a similarity graph. Take weights='self_tuning' or 'umap', which"
            " turn distances into weights, or 'binary'."
        )
    if config.weights in ("self_tuning", "umap"):
        distances_of(measure, np.zeros(1, np.float32))


def _ranges(graph: Dataset, config: SimilarityConfig) -> Ranges:
    """By the most entries there can be: every edge both ways, or only those that are mutual."""
    ways = 2 if config.symmetrize == "union" else 1
    return Ranges.of(graph.rows, ways * graph.rows * int(graph.metrics["k"]))


def _story(context: Context, graph: Dataset, ranges: Ranges) -> Iterator[Round]:
    config: SimilarityConfig = context.config
    k = int(graph.metrics["k"])
    largest = max(shard.rows for shard in graph.shards) * k
    if config.weights in ("self_tuning", "umap"):
        yield Round("survey", tuple(_runs(graph, "survey", bucket_nbytes(0, largest))))
    nbytes = bucket_nbytes(min(RUN_ENTRIES + k, largest), largest)
    yield Round("bucket", tuple(_runs(graph, "bucket", nbytes, size=ranges.size)))
    whole = {"nodes": ranges.nodes, "size": ranges.size}
    if config.weights == "self_tuning":
        yield Round(
            "scales",
            tuple(
                Task(f"scales-{i:06d}", "scales", {"range": i, **whole}, 24 * ranges.size + 2**22)
                for i in range(ranges.count)
            ),
        )
    counts = _counts(context, ranges)
    yield Round(
        "settle",
        tuple(
            Task(
                f"settle-{i:06d}",
                "settle",
                {"range": i, **whole},
                settle_nbytes(int(counts[i]), ranges.size),
            )
            for i in range(ranges.count)
        ),
    )


def _runs(graph: Dataset, kind: str, nbytes: int, **args: Json) -> Iterator[Task]:
    """A task per run of lists; a shard with many is several runs, each of which reads it."""
    k = int(graph.metrics["k"])
    size = max(1, RUN_ENTRIES // k)
    for s, shard in enumerate(graph.shards):
        for first in range(0, max(shard.rows, 1), size):
            key = f"{kind}-{s:06d}-{first // size:04d}"
            yield Task(key, kind, {"shard": s, "first": first, "rows": size, **args}, nbytes)


def _counts(context: Context, ranges: Ranges) -> Ids:
    """[ranges] entries that each range is to merge, both directions."""
    total = np.zeros(ranges.count, np.int64)
    for record in context.records("bucket"):
        starts = context.load(record.objects["starts"])
        total += starts[2::2] - starts[:-1:2]
    return total


def _lists(context: Context, task: Task) -> tuple[Ids, Ids, Float32]:
    """The task's own run of lists."""
    run = slice(task.args["first"], task.args["first"] + task.args["rows"])
    rows, neighbors, values = edge_lists(context.inputs["graph"], task.args["shard"])
    return rows[run], neighbors[run], values[run]


def _survey(context: Context, task: Task) -> Record:
    """Sum of a run's distances, and how many rows it has."""
    rows, _, values = _lists(context, task)
    measure = measure_of(context.inputs["graph"])
    parts = (distances_of(measure, values[part]).sum(dtype=np.float64) for part in slices(rows))
    return Record(task.key, {}, {"sum": float(sum(parts)), "rows": len(rows)})


def _mean_distance(context: Context) -> float:
    """Of all rows, each counted among its own neighbours."""
    facts = [record.facts for record in context.records("survey")]
    rows, total = (sum(fact[name] for fact in facts) for name in ("rows", "sum"))
    k = int(context.inputs["graph"].metrics["k"])
    return float(total) / max(int(rows) * (k + 1), 1)


def _bucket(context: Context, task: Task) -> Record:
    """A run's edges with their directed weights, by range. What is no weight is left out."""
    from simdist.compiled.transpose import by_range  # noqa: PLC0415 - numba only on workers

    config: SimilarityConfig = context.config
    graph = context.inputs["graph"]
    rows, neighbors, values = _lists(context, task)
    context.check()
    selves = int((neighbors == rows[:, None]).sum())
    facts: dict[str, Json] = {"rows": len(rows), "selves": selves, "dropped": 0}
    objects = {}
    if config.weights == "value":
        drop = values <= 0
        facts["dropped"] = int(drop.sum())
        neighbors, weights = np.where(drop, -1, neighbors), values
    elif config.weights == "binary":
        weights = np.ones_like(values)
    else:
        weights = distances_of(measure_of(graph), values)
        mean = _mean_distance(context)
        if config.weights == "umap":
            parts = [memberships(weights[part], mean) for part in slices(rows)]
            weights = np.concatenate([weights[:0], *parts])
        else:
            neighbor = min(config.scale_neighbor, weights.shape[1])
            parts = [local_scales(weights[part], neighbor, mean) for part in slices(rows)]
            order = np.argsort(rows, kind="stable")
            scales = np.concatenate([np.empty(0, np.float32), *parts])[order]
            objects["scale_rows"] = context.write_array("links-rows", rows[order])
            objects["scales"] = context.write_array("links-scales", scales)
    size = task.args["size"]
    entries, starts = by_range(rows, neighbors, weights, size, -(-graph.rows // size))
    return Record(task.key, {**objects, **bucketed(context, entries, starts)}, facts)


def _scales(context: Context, task: Task) -> Record:
    """[rows] float32 scales of a range, 1 where a row has no list."""
    ranges = Ranges(task.args["nodes"], task.args["size"])
    first, last = ranges.span(task.args["range"])
    out = np.ones(last - first, np.float32)
    for record in context.records("bucket"):
        rows = context.load(record.objects["scale_rows"])
        part = slice(*np.searchsorted(rows, [first, last]))
        out[rows[part] - first] = context.load(record.objects["scales"])[part]
        context.check()
    return Record(task.key, {"scales": context.write_array("links-scales", out)})


def _settle(context: Context, task: Task) -> Record:
    """A range's rows: both directions of every edge merged."""
    from simdist.compiled.transpose import merge  # noqa: PLC0415 - numba only on workers

    config: SimilarityConfig = context.config
    ranges = Ranges(task.args["nodes"], task.args["size"])
    i = task.args["range"]
    first, last = ranges.span(i)
    forward, reverse = forward_and_reverse(context, i)
    mutual = config.symmetrize == "mutual"
    join = _join(config)
    merged = merge(forward, reverse, last - first, join=join, mutual=mutual)
    weights = merged.weights
    if config.weights == "binary":
        weights = np.ones_like(weights)
    elif config.weights == "self_tuning":
        _scale(context, ranges, i, merged.indptr, merged.indices, weights)
    context.check()
    objects, facts = write_shard(
        context.store, ranges, i, merged.indptr, np.ascontiguousarray(merged.indices), weights
    )
    return Record(task.key, objects, facts)


def _join(config: SimilarityConfig) -> str:
    mutual = config.symmetrize == "mutual"
    if config.weights == "umap":
        return "both" if mutual else "either"
    if config.weights == "self_tuning":
        return "smaller"  # distances: two that differ are made one, the nearer
    return "smaller" if mutual else "larger"


def _scale(
    context: Context, ranges: Ranges, i: int, indptr: Ids, indices: Ids, weights: Float32
) -> None:
    """Distances become weights, one range of columns after the other."""
    from simdist.compiled.transpose import scaled_kernel  # noqa: PLC0415 - numba only on workers

    records = context.records("scales")
    own = context.load(records[i].objects["scales"])
    cursors = indptr[:-1].copy()
    for s, record in enumerate(records):
        context.check()
        scales = context.load(record.objects["scales"])
        scaled_kernel(indptr, indices, cursors, ranges.span(s)[0], own, scales, weights)


def _manifest(job: Job, ranges: Ranges, rounds: Rounds) -> Commit:
    config: SimilarityConfig = job.config
    graph = job.inputs["graph"]
    settled, turned = rounds["settle"], rounds["bucket"]
    metrics = {
        "weights": config.weights,
        "symmetrize": config.symmetrize,
        "k": int(graph.metrics["k"]),
        "measure": measure_of(graph).name,
        "dropped": sum(int(record.facts["dropped"]) for record in turned),
        "self_loops": sum(int(record.facts["selves"]) for record in turned),
        "rounds": list(rounds),
    }
    return commit_of(ranges, [(r.objects, r.facts) for r in settled], metrics)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "survey": _survey,
    "bucket": _bucket,
    "scales": _scales,
    "settle": _settle,
}
