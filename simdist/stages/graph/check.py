"""Recall measured: exact neighbours of rows drawn by seed, against the lists so far.

`truth` streams every block past the sampled rows (one task per block) and keeps a few more than k
of the best by float32 GEMM; `check` recomputes those and the graph's own candidates with the same
fixed kernel, takes the k best of each by (value, row) and compares.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from simdist.partitions import Partition
from simdist.recall import Recall, hits, summary, tie_hits
from simdist.runner.plan import Record, Round, Task
from simdist.stages.graph.finish import rerank
from simdist.stages.graph.lists import block_round
from simdist.tiles import TopK, TopKState, fold
from simdist.types import Ids, Int32

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.stages.graph.config import KnnGraphConfig

__all__ = ["check_round", "compute_check", "compute_truth", "recall_of", "truth_round"]

SLACK = 16  # exact candidates beyond k: what float32 rounding can put in the wrong order


def truth_round(
    name: str, partition: Partition, config: KnnGraphConfig, first: int, last: int
) -> Round:
    """Exact candidates of sampled rows first..last of the draw."""
    rows = last - first
    nbytes = rows * (2 * 4 * partition.dim + 40 * (config.k + SLACK)) + (8 << 20)
    return block_round(name, "truth", partition, nbytes, {"first": first, "last": last})


def check_round(
    name: str,
    partition: Partition,
    config: KnnGraphConfig,
    lists: str,
    truths: dict[str, list[int]],
) -> Round:
    """Recall of a round's lists. truths: name of a truth round -> [first, last] of the draw."""
    rows = max(last for _, last in truths.values())
    keep = config.resolved.keep
    width = max(config.k + SLACK, keep)
    nbytes = rows * (60 * width + 8 * partition.dim) + 1024 * width * 8 * partition.dim
    return Round(name, (Task(name, "check", {"lists": lists, "truths": truths}, nbytes),))


def compute_truth(context: Context, task: Task) -> Record:
    """Best columns of one block for each sampled row."""
    partition = Partition.of(context.inputs["partition"])
    config = context.config
    rows = _drawn(context, partition)[task.args["first"] : task.args["last"]]
    first, last = partition.span(task.args["block"])
    state = fold(
        partition.measure,
        partition.take(rows),
        partition.block(task.args["block"]),
        TopK(config.k + SLACK),
        rows=rows,
        columns=np.arange(first, last),
        check=context.check,
    )
    return Record(
        task.key,
        {
            "ids": context.write_array("truth-ids", state.ids),
            "keys": context.write_array("truth-keys", state.keys),
        },
    )


def compute_check(context: Context, task: Task) -> Record:
    """Recall of the graph as it stands; the fact `recall` is a Recall as JSON."""
    partition = Partition.of(context.inputs["partition"])
    config = context.config
    drawn = _drawn(context, partition)
    top = TopK(config.k + SLACK)
    shares, ties = [], []
    for name, (first, last) in task.args["truths"].items():
        states = (
            TopKState(context.load(r.objects["ids"]), context.load(r.objects["keys"]))
            for r in context.records(name)
        )
        truth = reduce(top.merge, states).ids.astype(np.int32)
        rows = drawn[first:last]
        lists = _lists_of(context, partition, task.args["lists"], rows)
        for start in range(0, len(rows), 1024):
            context.check()
            part = slice(start, start + 1024)
            _, exact, exact_values = rerank(partition, rows[part], truth[part], config.k)
            _, found, found_values = rerank(partition, rows[part], lists[part], config.k)
            shares.append(hits(found, exact))
            larger = partition.measure.traits.kind == "similarity"
            ties.append(tie_hits(found_values, exact_values, larger_is_nearer=larger))
    recall = summary(
        np.concatenate(shares),
        np.concatenate(ties),
        config.k,
        population=partition.rows,
        target=config.recall,
    )
    return Record(task.key, {}, {"recall": recall.to_json()})


def recall_of(record: Record) -> Recall:
    """What a check found."""
    return Recall.from_json(record.facts["recall"])


def _drawn(context: Context, partition: Partition) -> Ids:
    """Sampled positions, in the order they were drawn: any prefix is a uniform sample."""
    size = min(context.config.resolved.sample_limit, partition.rows)
    drawn = context.rng("recall").choice(partition.rows, size, replace=False)
    return np.asarray(drawn, dtype=np.int64)


def _lists_of(context: Context, partition: Partition, round_name: str, rows: Ids) -> Int32:
    """The lists of some rows, from whichever blocks they lie in."""
    out = np.empty((len(rows), context.config.resolved.keep), np.int32)
    block = rows // partition.block_rows
    for b, record in enumerate(context.records(round_name)):
        here = block == b
        if here.any():
            local = rows[here] - b * partition.block_rows
            out[here] = context.load(record.objects["ids"])[local]
    return out
