"""Stage `distinct_rows`: one row of each kind, as a vectors dataset of its own.

    hash     of every prepared row                                 task per shard
    same     rows whose hashes are equal, compared in full          task per range of hashes
    write    the first row of each kind; every row's number there   task per shard

Equal hashes are a suspicion; rows are copies where they are equal. A copy that a collision hides
stays, which costs work and no correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.measures import resolve
from simdist.panels import RowPanels, refuse_zero_rows
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.dedupe.config import DistinctConfig
from simdist.store.datasets import Shard
from simdist.types import Array, Bools, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["DistinctRows"]

BUCKET_ROWS = 1 << 21
COMPARED = 4096  # rows at once


class DistinctRows:
    """See the module docstring. Input: vectors.

    The dataset: shards of `vectors` [m, d] as they were imported and `sources` [m] int64, the first
    row of each kind; and as a whole `numbers-{s}` [n] int64, for each shard s of the input the
    distinct row that stands for each of its rows, and `copies-{b}` [2, k] int64: rows that are
    copies, ascending, and what they are copies of.
    """

    name: ClassVar[str] = "distinct_rows"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        source = job.inputs["vectors"]
        refuse_zero_rows(source, resolve(job.config.measure))
        for step in _story(context, rounds):
            if step.name not in rounds:
                return step
        metrics = {key: source.metrics[key] for key in ("dim", "dtype") if key in source.metrics}
        shards, numbers = [], {}
        for s, record in enumerate(rounds["write"]):
            objects = dict(record.objects)
            numbers[f"numbers-{s:06d}"] = objects.pop("numbers")
            if record.facts["rows"]:
                shards.append(Shard(int(record.facts["rows"]), objects))
        copies = {f"copies-{b:06d}": r.objects["copies"] for b, r in enumerate(rounds["same"])}
        rows = sum(shard.rows for shard in shards)
        counted: dict[str, Json] = {"nodes": source.rows, "copies": source.rows - rows}
        return Commit(
            rows=rows,
            shards=tuple(shards),
            metrics={**metrics, **counted},
            objects=numbers | copies,
        )

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: DistinctConfig, rows: int, dim: int) -> Forecast:
        """Cost of n rows of d dimensions."""
        shard = min(rows, (64 << 20) // (4 * dim) + 1)
        return Forecast(
            tasks=2 * -(-rows // shard) + 1,
            nbytes=_same_nbytes(rows, dim),
            flops=0.0,
            written=rows * (4 * dim + 40),
        )


def _same_nbytes(rows: int, dim: int) -> int:
    return 100 * min(rows, BUCKET_ROWS) + 32 * COMPARED * dim + (8 << 20)


def _story(context: Context, done: Rounds) -> Iterator[Round]:
    source = context.inputs["vectors"]
    dim = int(source.metrics["dim"])
    shards = range(len(source.shards))
    held = [shard.rows * (16 * dim + 64) + (8 << 20) for shard in source.shards]
    yield Round("hash", tuple(Task(f"hash-{s:06d}", "hash", {"shard": s}, held[s]) for s in shards))
    buckets = -(-source.rows // BUCKET_ROWS)
    yield Round(
        "same",
        tuple(
            Task(
                f"same-{b:06d}",
                "same",
                {"bucket": b, "buckets": buckets},
                _same_nbytes(source.rows, dim),
            )
            for b in range(buckets)
        ),
    )
    yield Round(
        "write", tuple(Task(f"write-{s:06d}", "write", {"shard": s}, held[s]) for s in shards)
    )


def _panels(context: Context) -> RowPanels:
    return RowPanels(context.inputs["vectors"], resolve(context.config.measure))


def _hash(context: Context, task: Task) -> Record:
    """Hashes of a shard's rows, ascending, and the rows' numbers."""
    from simdist.compiled.greedy import hash_rows  # noqa: PLC0415 - numba only on workers

    panels = _panels(context)
    first, last = (int(row) for row in panels.offsets[task.args["shard"] :][:2])
    hashes = np.empty(last - first, np.uint64)
    for start in range(first, last, COMPARED):
        context.check()
        stop = min(start + COMPARED, last)
        hashes[start - first : stop - first] = hash_rows(
            panels.take(np.arange(start, stop)).vectors
        )
    order = np.argsort(hashes, kind="stable")
    return Record(
        task.key,
        {
            "hashes": context.write_array("hashes", hashes[order]),
            "rows": context.write_array("hashed", order + first),
        },
    )


def _same(context: Context, task: Task) -> Record:
    """Copies among the rows whose hashes lie in one range."""
    bucket, buckets = task.args["bucket"], task.args["buckets"]
    ends = [-(-(b << 64) // buckets) for b in (bucket, bucket + 1)]
    hashes, rows = [], []
    for record in context.records("hash"):
        run = context.load(record.objects["hashes"])
        low = int(np.searchsorted(run, np.uint64(ends[0])))
        high = len(run) if ends[1] >> 64 else int(np.searchsorted(run, np.uint64(ends[1])))
        hashes.append(run[low:high])
        rows.append(context.load(record.objects["rows"])[low:high])
    copies = _copies(context, np.concatenate(hashes), np.concatenate(rows))
    return Record(task.key, {"copies": context.write_array("copies", copies)})


def _copies(context: Context, hashes: Array, rows: Ids) -> Ids:
    """[2, k] rows that equal an earlier one with their hash, and the first of these; ascending."""
    panels = _panels(context)
    order = np.lexsort((rows, hashes))
    hashes, rows = hashes[order], rows[order]
    new = np.append(True, hashes[1:] != hashes[:-1])
    firsts = rows[np.flatnonzero(new)][np.cumsum(new) - 1] if len(rows) else rows
    again = np.flatnonzero(~new) if len(rows) else np.empty(0, np.int64)
    suspects, of = rows[again], firsts[again]
    ascending = np.argsort(suspects)
    suspects, of = suspects[ascending], of[ascending]
    equal = np.zeros(len(suspects), np.bool_)
    for start in range(0, len(suspects), COMPARED):
        context.check()
        part = slice(start, start + COMPARED)
        distinct, back = np.unique(of[part], return_inverse=True)
        mine, theirs = panels.take(suspects[part]).vectors, panels.take(distinct).vectors
        equal[part] = (mine == theirs[back]).all(axis=1)
    return np.stack([suspects[equal], of[equal]])


def _write(context: Context, task: Task) -> Record:
    """A shard's first rows of their kind; the number of what stands for each of its rows."""
    panels, s = _panels(context), task.args["shard"]
    shard = context.inputs["vectors"].shards[s]
    first, last = (int(row) for row in panels.offsets[s:][:2])
    copies = [context.load(record.objects["copies"]) for record in context.records("same")]
    rows = np.arange(first, last)
    stands = rows.copy()
    for found in copies:
        low, high = np.searchsorted(found[0], [first, last])
        stands[found[0, low:high] - first] = found[1, low:high]
    before = np.zeros(len(rows), np.int64)  # copies before the row that stands for each
    for found in copies:
        before += np.searchsorted(found[0], stands)
    own: Bools = stands == rows
    vectors = context.inputs["vectors"].store.read_array(shard.objects["vectors"])
    objects = {"numbers": context.write_array("numbers", stands - before)}
    if own.any():
        whole = vectors if own.all() else vectors[own]
        objects["vectors"] = context.write_array("vectors", whole)
        objects["sources"] = context.write_array("sources", rows[own])
    return Record(task.key, objects, {"rows": int(own.sum())})


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "hash": _hash,
    "same": _same,
    "write": _write,
}
