"""Sampled rows against all: how many pairs the join will have, before it runs.

Rows are drawn without replacement; a row's number of pairs is known exactly, so their mean times n
(half of it, where each pair has two rows) is an unbiased forecast. Its 95 % interval takes the
spread of the rows' numbers; a few rows with very many pairs may hide from it, so tasks count too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.runner.plan import Record, Round, Task
from simdist.stages.pairs.pairs import Sets
from simdist.stages.pairs.parts import Parts, parts_nbytes
from simdist.tiles.threshold import fold_threshold
from simdist.types import Array, Float32, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["Expected", "compute_sample", "expected", "sample_round", "sampled_rows"]

RUN = 8  # column blocks a task looks at


@dataclass(frozen=True, slots=True)
class Expected:
    """How many pairs to expect: estimate, 95 % interval, and from how many rows."""

    pairs: int
    low: int
    high: int
    rows: int

    def to_json(self) -> Json:
        return {"pairs": self.pairs, "low": self.low, "high": self.high, "rows": self.rows}

    def __str__(self) -> str:
        return (
            f"about {self.pairs:,} pairs (95 % interval {self.low:,} to {self.high:,}, forecast"
            f" from {self.rows} sampled rows)"
        )


def sampled_rows(context: Context, sets: Sets) -> Ids:
    """Ascending rows of x, the same for every task."""
    count = min(context.config.sample, sets.x.rows)
    chosen = context.rng("sample").choice(sets.x.rows, count, replace=False)
    return np.sort(chosen).astype(np.int64)


def sample_round(context: Context, sets: Sets) -> Round:
    """One task per run of column blocks."""
    count = min(context.config.sample, sets.x.rows)
    blocks = sets.other.blocks
    nbytes = sets.nbytes(count, sets.other.span(0)[1]) + parts_nbytes()
    return Round(
        "sample",
        tuple(
            Task(
                f"sample-{first:06d}",
                "sample",
                {"first": first, "last": min(first + RUN, blocks)},
                nbytes,
            )
            for first in range(0, blocks, RUN)
        ),
    )


def compute_sample(context: Context, task: Task) -> Record:
    """How many pairs each sampled row has in some blocks; and, for the recall, which."""
    sets = Sets(context)
    rows = sampled_rows(context, sets)
    keep = context.config.method == "approximate"
    most = np.iinfo(np.int64).max
    parts = Parts(context, bucket_rows=sets.bucket_rows, most=int(most), ordered=True)
    counts = np.zeros(len(rows), np.int64)
    X, limit = sets.x.take(rows), context.config.limit()
    for b in range(task.args["first"], task.args["last"]):
        first = sets.other.span(b)[0]

        def sink(at: Array, columns: Array, values: Float32, first: int = first) -> None:
            own = rows[at]
            other = columns.astype(np.int64) + first
            if not sets.two:
                differ = own != other
                at, own, other, values = at[differ], own[differ], other[differ], values[differ]
            np.add.at(counts, at, 1)
            if keep:
                parts.take(own, other, values)

        fold_threshold(limit, X, sets.other.block(b), sink, near=sets.near, check=context.check)
    record = parts.record(task.key)
    objects = {**record.objects, "counts": context.write_array("counts", counts)}
    return Record(task.key, objects, record.facts)


def expected(context: Context, sets: Sets) -> Expected:
    """The forecast, from the committed sample."""
    records = context.records("sample")
    counts: Ids = np.stack([context.load(r.objects["counts"]) for r in records]).sum(axis=0)
    rows = sets.x.rows
    share = rows if sets.two else rows / 2
    left = 1 - len(counts) / rows  # of the rows: nothing is left to chance where all were looked at
    spread = math.sqrt(float(counts.var(ddof=1)) / len(counts) * left) if len(counts) > 1 else 0.0
    mean = float(counts.mean())
    return Expected(
        pairs=round(mean * share),
        low=round(max(0.0, mean - 1.96 * spread) * share),
        high=round((mean + 1.96 * spread) * share),
        rows=len(counts),
    )
