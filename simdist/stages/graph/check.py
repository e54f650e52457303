"""Recall measured: exact neighbours of rows drawn by seed, against the lists so far.

`truth` streams every block past the sampled rows (one task per block) and keeps the k best of the
block by (value, row), certified as simdist.tiles.exact tells: near-ties and duplicates, which
float32 GEMM keys cannot order, are evaluated by the measure's fixed kernel. `check` merges those,
takes the k best of the graph's own candidates by the same kernel and order, and compares.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from simdist.partitions import Partition
from simdist.recall import Look, Recall, enough, hits, summary, tie_hits
from simdist.runner.plan import Record, Round, Task
from simdist.stages.graph.finish import ROWS_AT_ONCE, rerank
from simdist.stages.graph.forecast import SLACK, check_nbytes, truth_nbytes
from simdist.stages.graph.lists import block_round
from simdist.tiles import TopK, TopKState
from simdist.tiles.exact import fold_exact, nearest, signed
from simdist.tiles.screened import STRIDE, nearest_of_pieces, worth_screening
from simdist.types import Ids, Int32

if TYPE_CHECKING:
    from simdist.measures import Measure, Prepared
    from simdist.runner.context import Context
    from simdist.stages.graph.config import KnnGraphConfig

__all__ = ["check_round", "compute_check", "compute_truth", "recall_of", "truth_round"]


def truth_round(
    name: str, partition: Partition, config: KnnGraphConfig, first: int, last: int
) -> Round:
    """Exact neighbours of sampled rows first..last of the draw."""
    nbytes = truth_nbytes(partition, config, last - first)
    return block_round(name, "truth", partition, nbytes, {"first": first, "last": last})


def check_round(
    name: str,
    partition: Partition,
    config: KnnGraphConfig,
    lists: str,
    truths: dict[str, list[int]],
    look: Look,
) -> Round:
    """Recall of a round's lists. truths: name of a truth round -> [first, last] of the draw."""
    rows = max(last for _, last in truths.values())
    nbytes = check_nbytes(partition, config, rows)
    args = {"lists": lists, "truths": truths, "look": [look.graph, look.size]}
    return Round(name, (Task(name, "check", args, nbytes),))


def compute_truth(context: Context, task: Task) -> Record:
    """The k best columns of one block for each sampled row, by (value, dataset row), exactly.

    ids are dataset rows; keys are values, negated for a distance.
    """
    partition = Partition.of(context.inputs["partition"])
    measure = partition.measure
    drawn = _drawn(context, partition)[task.args["first"] : task.args["last"]]
    X, rows = partition.take(drawn), partition.numbers.take(drawn)
    block = task.args["block"]
    state = None
    if partition.in_place:
        state = _found_in_pieces(context, partition, block, X, rows)
    if state is None:
        Y, columns = partition.block(block), partition.array(block, "rows")
        state = _found(context, measure, X, Y, rows, columns)
    return Record(
        task.key,
        {
            "ids": context.write_array("truth-ids", state.ids),
            "keys": context.write_array("truth-keys", state.keys),
        },
    )


def _found(
    context: Context, measure: Measure, X: Prepared, Y: Prepared, rows: Ids, columns: Ids
) -> TopKState:
    """The k best of some columns for each row; keys as `compute_truth` leaves them."""
    k = context.config.k
    if len(columns) <= k:  # too few to fill a list: every pair
        return fold_exact(measure, X, Y, TopK(k), rows=rows, columns=columns, check=context.check)
    found = nearest(measure, X, Y, k, rows=rows, columns=columns, slack=SLACK, check=context.check)
    return TopKState(found.ids, signed(measure, found.values))


def _found_in_pieces(
    context: Context, partition: Partition, block: int, X: Prepared, rows: Ids
) -> TopKState | None:
    """The same, of a block that is not held whole; None where it is quicker whole."""
    measure, k = partition.measure, context.config.k
    first, last = partition.span(block)
    if not worth_screening(measure, len(X), last - first, partition.dim, k):
        return None
    some = np.arange(first, last, STRIDE)
    found = nearest_of_pieces(
        measure,
        X,
        k,
        rows=rows,
        some=(partition.take(some), partition.numbers.take(some)),
        pieces=partition.pieces(block),
        check=context.check,
    )
    return None if found is None else TopKState(found.ids, signed(measure, found.values))


def compute_check(context: Context, task: Task) -> Record:
    """Recall of the graph as it stands; the fact `recall` is a Recall as JSON, `enough` the size of
    the sample (which of `sample_sizes`) that would make it pass, null where none would."""
    partition = Partition.of(context.inputs["partition"])
    config = context.config
    drawn = _drawn(context, partition)
    larger = partition.measure.traits.kind == "similarity"
    shares, ties = [], []
    for name, (first, last) in task.args["truths"].items():
        states = (
            TopKState(context.load(r.objects["ids"]), context.load(r.objects["keys"]))
            for r in context.records(name)
        )
        truth = reduce(TopK(config.k).merge, states)
        values = signed(partition.measure, truth.keys)
        rows = drawn[first:last]
        lists = _lists_of(context, partition, task.args["lists"], rows)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            context.check()
            part = slice(start, start + ROWS_AT_ONCE)
            _, found, found_values = rerank(partition, rows[part], lists[part], config.k)
            shares.append(hits(found, truth.ids[part]))
            ties.append(tie_hits(found_values, values[part], larger_is_nearer=larger))
    per_row, look = np.concatenate(shares), Look(*task.args["look"])
    recall = summary(
        per_row,
        np.concatenate(ties),
        config.k,
        population=partition.rows,
        target=config.recall,
        look=None if config.recall is None else look,
    )
    facts = {"recall": recall.to_json(), "enough": None}
    if config.recall is not None:
        facts["enough"] = enough(
            per_row,
            config.k,
            population=partition.rows,
            target=config.recall,
            look=look,
            sizes=config.resolved.sample_sizes(partition.rows),
        )
    return Record(task.key, {}, facts)


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
    from simdist.compiled.lists import ids_of  # noqa: PLC0415 - numba only on workers

    out = np.empty((len(rows), context.config.resolved.keep), np.int32)
    block = rows // partition.block_rows
    for b, record in enumerate(context.records(round_name)):
        here = block == b
        if here.any():
            local = rows[here] - b * partition.block_rows
            out[here] = ids_of(context.load(record.objects["lists"])[local])
    return out
