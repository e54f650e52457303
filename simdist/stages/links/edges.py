"""Stage `import_graph`: files of edges become a symmetric weighted graph.

    survey   edges of a file, its largest node       task per file
    bucket   edges, checked, by range: forward and   task per run of a file's edges
             turned round
    settle   both directions merged and sorted       task per range

As in an import of vectors, the job is named by its listing and the dataset by its content: the same
edges under other names, or later, are the same dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.links.arrays import (
    TOLERANCE,
    ImportLinks,
    checked_edges,
    refuse_directed,
    refuse_duplicate,
    refuse_options,
)
from simdist.stages.links.buckets import bucket_nbytes, bucketed, forward_and_reverse, settle_nbytes
from simdist.stages.links.shards import Ranges, commit_of, write_shard
from simdist.stages.links.sources import EdgeColumns, EdgeFile, batches, row_count
from simdist.store.objects import Objects
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["EdgesConfig", "ImportEdges"]

RUN_EDGES = 2_000_000  # of a file, in one task
COUNTED = ("self_loops", "zeros")


@dataclass(frozen=True, slots=True)
class EdgesConfig:
    """files: sorted by uri; their order, then that within a file, is the order of edges. nodes:
    None for the largest node and one. objects: what reaches the files; None for local ones."""

    files: tuple[EdgeFile, ...]
    columns: EdgeColumns
    nodes: int | None = None
    symmetrize: str = "refuse"
    duplicates: str = "sum"
    objects: Objects | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        refuse_options(self.symmetrize, self.duplicates)
        if self.nodes is not None and self.nodes < 1:
            raise ConfigError(f"nodes={self.nodes}: expected at least 1")

    def to_json(self) -> dict[str, Json]:
        columns = [self.columns.row, self.columns.neighbor, self.columns.weight]
        files = [file.to_json() for file in self.files]
        return {**self.content(), "nodes": self.nodes, "columns": columns, "files": files}

    @property
    def entries(self) -> int:
        """About how many a graph has of such files, of some 12 bytes an edge."""
        return sum(file.nbytes for file in self.files) // 12 * (1 + (self.symmetrize == "union"))

    def content(self) -> dict[str, Json]:
        """What a committed manifest says."""
        return {"symmetrize": self.symmetrize, "duplicates": self.duplicates}


class ImportEdges:
    """See the module docstring. No inputs."""

    name: ClassVar[str] = ImportLinks.name
    VERSION: ClassVar[int] = ImportLinks.VERSION

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        config: EdgesConfig = job.config
        if "survey" not in rounds:
            return Round("survey", tuple(_survey_tasks(config)))
        ranges, counts = _plan(config, rounds["survey"])
        if "bucket" not in rounds:
            return Round("bucket", tuple(_bucket_tasks(config, counts, ranges)))
        if "settle" not in rounds:
            return Round("settle", tuple(_settle_tasks(context, ranges)))
        _refuse(config, ranges, rounds["settle"])
        return _manifest(config, ranges, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: EdgesConfig, rows: int, dim: int) -> Forecast:
        """Cost of files of edges, of some 12 bytes an edge."""
        edges = sum(file.nbytes for file in config.files) // 12
        ranges = Ranges.of(max(rows, 1), 2 * edges)
        nbytes = settle_nbytes(-(-2 * edges // ranges.count), ranges.size)
        return Forecast(len(config.files) + ranges.count, nbytes, 0.0, 72 * edges)


def _survey_tasks(config: EdgesConfig) -> Iterator[Task]:
    for number in range(len(config.files)):
        yield Task(f"survey-{number:05d}", "survey", {"file": number}, bucket_nbytes(0, 1 << 19))


def _survey(context: Context, task: Task) -> Record:
    """How many edges a file has, and its largest node; only counted where the nodes are given."""
    config: EdgesConfig = context.config
    file = config.files[task.args["file"]]
    said = None if config.nodes is None else row_count(file, config.objects)
    count, largest = said or 0, -1
    for batch in () if said is not None else batches(file, config.objects, config.columns):
        context.check()
        count = batch.first + len(batch.rows)
        largest = max(largest, *(int(ends.max(initial=-1)) for ends in batch[1:3]))
    return Record(task.key, {}, {"edges": count, "largest": largest})


def _plan(config: EdgesConfig, survey: Sequence[Record]) -> tuple[Ranges, list[int]]:
    """How rows are cut, and how many edges each file has."""
    counts = [int(record.facts["edges"]) for record in survey]
    nodes = config.nodes or 1 + max(int(record.facts["largest"]) for record in survey)
    if nodes < 1:
        raise InputError(
            f"{config.files[0].uri} and {len(config.files) - 1} other files hold no edge; for a"
            " graph without edges give nodes="
        )
    ways = 2 if config.symmetrize == "union" else 1
    return Ranges.of(nodes, ways * sum(counts)), counts


def _bucket_tasks(config: EdgesConfig, counts: Sequence[int], ranges: Ranges) -> Iterator[Task]:
    cut: dict[str, Json] = {"nodes": ranges.nodes, "size": ranges.size}
    for number, count in enumerate(counts):
        for run, first in enumerate(range(0, count, RUN_EDGES)):
            edges = min(RUN_EDGES, count - first)
            args = {"file": number, "first": first, "edges": edges, **cut}
            nbytes = bucket_nbytes(edges, edges)
            yield Task(f"bucket-{number:05d}-{run:05d}", "bucket", args, nbytes)


def _bucket(context: Context, task: Task) -> Record:
    """A run's edges, checked, by range."""
    from simdist.compiled.transpose import by_range  # noqa: PLC0415 - numba only on workers

    config: EdgesConfig = context.config
    args, ranges = task.args, Ranges(task.args["nodes"], task.args["size"])
    file = config.files[args["file"]]
    parts, facts = [], dict.fromkeys(COUNTED, 0)
    run = batches(file, config.objects, config.columns, args["first"], args["edges"])
    for batch in run:
        context.check()
        where = f"{file.uri}, edge"
        *part, found = checked_edges(*batch[1:], ranges.nodes, where, batch.first)
        parts.append(part)
        facts = {name: facts[name] + found[name] for name in COUNTED}
    rows, columns, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    entries, starts = by_range(rows, columns[:, None], weights[:, None], ranges.size, ranges.count)
    return Record(task.key, bucketed(context, entries, starts), facts)


def _settle_tasks(context: Context, ranges: Ranges) -> Iterator[Task]:
    counts = np.zeros(ranges.count, np.int64)
    for record in context.records("bucket"):
        starts = context.load(record.objects["starts"])
        counts += starts[2::2] - starts[:-1:2]
    for i in range(ranges.count):
        args = {"range": i, "nodes": ranges.nodes, "size": ranges.size}
        nbytes = settle_nbytes(int(counts[i]), ranges.size)
        yield Task(f"settle-{i:06d}", "settle", args, nbytes)


def _settle(context: Context, task: Task) -> Record:
    """A range's rows; what would be refused is told in the facts."""
    from simdist.compiled.transpose import merge  # noqa: PLC0415 - numba only on workers

    config: EdgesConfig = context.config
    ranges, i = Ranges(task.args["nodes"], task.args["size"]), task.args["range"]
    first, last = ranges.span(i)
    mutual = config.symmetrize == "mutual"
    merged = merge(
        *forward_and_reverse(context, i),
        last - first,
        join="smaller" if mutual else "larger",
        mutual=mutual,
        tolerance=TOLERANCE,
    )
    context.check()
    parts = (merged.indptr, np.ascontiguousarray(merged.indices), merged.weights)
    objects, facts = write_shard(context.store, ranges, i, *parts)
    facts |= {"directed": merged.directed, "repeated": merged.repeated}
    if merged.directed:
        row, column, *weights = merged.first
        there = [None if np.isnan(weight) else weight for weight in weights]
        facts["first"] = [row + first, column, *there]
    if merged.repeated:
        facts["again"] = [merged.again[0] + first, merged.again[1]]
    return Record(task.key, objects, facts)


def _refuse(config: EdgesConfig, ranges: Ranges, settled: Sequence[Record]) -> None:
    """InputError naming the first edge, by row and column, that was not to be there."""
    what = f"the graph of {config.files[0].uri}"
    facts = [record.facts for record in settled]
    repeated = [fact for fact in facts if fact["repeated"]]
    if repeated and config.duplicates == "refuse":
        i, j = repeated[0]["again"]
        refuse_duplicate(what, i, j, sum(fact["repeated"] for fact in repeated))
    directed = [fact for fact in facts if fact["directed"]]
    if directed and config.symmetrize == "refuse":
        i, j, forward, reverse = directed[0]["first"]
        count = sum(fact["directed"] for fact in directed)
        refuse_directed(what, (i, j), (forward, reverse), count)


def _manifest(config: EdgesConfig, ranges: Ranges, rounds: Rounds) -> Commit:
    """The shards, named by their content."""
    written = [(record.objects, record.facts) for record in rounds["settle"]]
    counted = {name: sum(r.facts[name] for r in rounds["bucket"]) for name in COUNTED}
    metrics: dict[str, Json] = {
        "weights": "given" if config.columns.weight is not None else "binary",
        **counted,
        "duplicates": sum(int(facts["repeated"]) for _, facts in written),
    }
    identity = {
        "stage": ImportEdges.name,
        "version": ImportEdges.VERSION,
        "config": config.content(),
        "nodes": ranges.nodes,
        "metrics": metrics,
        "links": [[objects[role].sha256 for role in sorted(objects)] for objects, _ in written],
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    fingerprint = hashlib.sha256(canonical.encode()).hexdigest()[:32]
    return commit_of(ranges, written, metrics, fingerprint=fingerprint, config=config.content())


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "survey": _survey,
    "bucket": _bucket,
    "settle": _settle,
}
