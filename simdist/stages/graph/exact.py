"""The exact stage: every pair, once; lists recomputed, certified, and redone where in doubt.

    pairs     block pairs by float32 GEMM, k and some more kept for both sides     task per pair
              (each block against itself first, in a round of its own)
    settle    values by the fixed kernel; which rows are provably exact            task per panel
    redo      rows in doubt (near-ties, duplicates) against every panel            only where any
    finish    lists merged, as Parquet, in dataset order                           task per panel

What `exact` means, and how it is proved, is told in simdist.tiles.exact. The approximate stage ends
with the same rounds where nothing cheaper reaches the recall asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.lists import graph_table, ids_of_rows
from simdist.measures import resolve
from simdist.panels import RowPanels, refuse_zero_rows
from simdist.partitions import block_rows
from simdist.recall import Recall
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.costs import Work
from simdist.stages.graph import cost
from simdist.stages.graph.config import KnnGraphConfig, refuse_too_few_rows
from simdist.stages.graph.pairs import (
    compute_diagonal,
    compute_pair,
    merged,
    pair_nbytes,
    pair_rounds,
)
from simdist.store.datasets import Shard
from simdist.tiles import TopK, TopKState
from simdist.tiles.exact import Reach, certify, fold_exact, rerank, signed
from simdist.tiles.memory import exact_memory

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["EXACT", "ExactKnnGraph", "certain", "exact_nbytes", "exact_rounds", "exact_shards"]

SLACK = 9  # candidates kept beyond k: more make fewer rows doubtful
REDO_ROWS = 4096  # doubtful rows a task takes at once
ROWS_AT_ONCE = 1024


class ExactKnnGraph:
    """See the module docstring."""

    name: ClassVar[str] = "knn_graph"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        source = job.inputs["vectors"]
        refuse_too_few_rows(job.config.k, source.rows, source.uri)
        panels = RowPanels(source, resolve(job.config.measure))
        refuse_zero_rows(source, panels.measure)
        for step in exact_rounds(job.config, panels, rounds):
            if step.name not in rounds:
                return step
        return _manifest(job.config, panels, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return EXACT[task.kind](context, task)

    def forecast(self, config: KnnGraphConfig, rows: int, dim: int) -> Forecast:
        return exact_forecast(config, rows, dim)


def exact_forecast(config: KnnGraphConfig, rows: int, dim: int) -> Forecast:
    """Cost of all pairs, each computed once."""
    panel = min(block_rows(rows, dim), rows)
    blocks = -(-rows // panel)
    width = config.k + SLACK
    return Forecast(
        tasks=blocks * (blocks + 1) // 2 + 2 * blocks,
        nbytes=exact_nbytes(config.k, rows, dim),
        flops=float(rows) * rows * dim,
        written=rows * 12 * (blocks * width + 2 * config.k),
        rounds=cost.exact_rounds(Work(rows, dim, config.k), width=width),
    )


def exact_nbytes(k: int, rows: int, dim: int) -> int:
    """No task of these rounds holds more, whichever rows of n are in doubt."""
    panel = min(block_rows(rows, dim), rows)
    return max(
        pair_nbytes(panel, dim, k + SLACK),
        _settle_nbytes(k, panel, rows, dim),
        _redo_nbytes(k, panel, dim),
        _finish_nbytes(k, panel),
    )


def _settle_nbytes(k: int, panel: int, rows: int, dim: int) -> int:
    width = k + SLACK
    gathered = min(ROWS_AT_ONCE * width, rows)
    return panel * (30 * width + 40 * k + 4 * dim) + gathered * 12 * dim + (4 << 20)


def _redo_nbytes(k: int, panel: int, dim: int) -> int:
    return exact_memory(min(REDO_ROWS, panel), panel, dim, k).nbytes + 4 * dim * panel


def _finish_nbytes(k: int, panel: int) -> int:
    return panel * (64 * k + 64) + (1 << 20)


def exact_rounds(config: KnnGraphConfig, panels: RowPanels, done: Rounds) -> Iterator[Round]:
    """The rounds in order. Past a `yield`, the round is committed: its facts are in `done`."""
    width = config.k + SLACK
    rows = min(panels.panel_rows, panels.rows)
    settle_nbytes = _settle_nbytes(config.k, rows, panels.rows, panels.dim)
    each = range(panels.blocks)
    yield from pair_rounds("pairs", panels, width)
    yield Round(
        "settle",
        tuple(Task(f"settle-{p:06d}", "settle", {"panel": p}, settle_nbytes) for p in each),
    )
    doubtful = [int(record.facts["doubtful"]) for record in done["settle"]]
    redo_nbytes = _redo_nbytes(config.k, rows, panels.dim)
    redo = tuple(
        Task(
            f"redo-{p:06d}-{first:08d}-{q:06d}",
            "redo",
            {"panel": p, "first": first, "columns": q},
            redo_nbytes,
        )
        for p in each
        for first in range(0, doubtful[p], REDO_ROWS)
        for q in each
    )
    if redo:
        yield Round("redo", redo)
    finish_nbytes = _finish_nbytes(config.k, rows)
    yield Round(
        "finish",
        tuple(
            Task(
                f"finish-{p:06d}",
                "exact_finish",
                {"panel": p, "doubtful": doubtful[p]},
                finish_nbytes,
            )
            for p in each
        ),
    )


def exact_shards(panels: RowPanels, done: Rounds) -> tuple[Shard, ...]:
    """The finished graph, panel by panel, in dataset order."""
    shards = []
    for panel, record in enumerate(done["finish"]):
        first, last = panels.span(panel)
        shards.append(Shard(last - first, record.objects))
    return tuple(shards)


def certain(rows: int, target: float | None = None) -> Recall:
    """The recall of a graph for which every pair was looked at."""
    return Recall(1.0, 1.0, 1.0, tie_aware=1.0, p5=1.0, rows=rows, target=target)


def _of(context: Context) -> RowPanels:
    return RowPanels(context.inputs["vectors"], resolve(context.config.measure))


def _settle(context: Context, task: Task) -> Record:
    """Values of a panel's lists, and its rows that are not provably exact."""
    panels = _of(context)
    panel, k = task.args["panel"], context.config.k
    first, last = panels.span(panel)
    lists = merged(context, panels, "pairs", panel, k + SLACK)
    everywhere = Reach(0.0, 0.0)
    for record in context.records("pairs-diagonal"):
        everywhere = everywhere.join(Reach(record.facts["norm"], record.facts["term"]))
    values = np.empty((last - first, k), np.float32)
    ids = np.empty((last - first, k), np.int64)
    sure = np.empty(last - first, np.bool_)
    own = panels.block(panel)
    for start in range(0, last - first, ROWS_AT_ONCE):
        context.check()
        part = slice(start, min(start + ROWS_AT_ONCE, last - first))
        rows = np.arange(first + part.start, first + part.stop)
        listed = lists.ids[part]
        distinct = np.unique(listed[listed >= 0])
        X = own.take(part)
        values[part], ids[part] = rerank(
            panels.measure, X, panels.take(distinct), listed, k, rows=rows, columns=distinct
        )
        near, weakest = panels.near(X), lists.keys[part, -1]
        sure[part] = certify(
            panels.measure, near, everywhere, weakest=weakest, worst=values[part, -1]
        )
    doubtful = np.flatnonzero(~sure)
    return Record(
        task.key,
        {
            "values": context.write_array("exact-values", values),
            "ids": context.write_array("exact-ids", ids),
            "doubtful": context.write_array("doubtful", doubtful),
        },
        {"doubtful": len(doubtful)},
    )


def _redo(context: Context, task: Task) -> Record:
    """Some doubtful rows of a panel against another panel, every pair that can matter evaluated."""
    panels = _of(context)
    settled = context.records("settle")[task.args["panel"]].objects
    first, _ = panels.span(task.args["panel"])
    chosen = slice(task.args["first"], task.args["first"] + REDO_ROWS)
    local = np.array(context.load(settled["doubtful"])[chosen])
    state = fold_exact(
        panels.measure,
        panels.take(local + first),
        panels.block(task.args["columns"]),
        TopK(context.config.k),
        rows=local + first,
        columns=np.arange(*panels.span(task.args["columns"])),
        worst=context.load(settled["values"])[local, -1],
        check=context.check,
    )
    return Record(
        task.key,
        {
            "ids": context.write_array("redo-ids", state.ids),
            "keys": context.write_array("redo-keys", state.keys),
        },
    )


def _finish(context: Context, task: Task) -> Record:
    """One panel of the graph, doubtful rows replaced."""
    panels = _of(context)
    panel = task.args["panel"]
    settled = context.records("settle")[panel].objects
    values, ids = (np.array(context.load(settled[role])) for role in ("values", "ids"))
    if task.args["doubtful"]:
        doubtful = context.load(settled["doubtful"])
        redone = _redone(context, panel, len(doubtful))
        values[doubtful], ids[doubtful] = signed(panels.measure, redone.keys), redone.ids
    rows = np.arange(*panels.span(panel))
    table = graph_table(rows, ids_of_rows(context.inputs["vectors"], rows), ids, values)
    return Record(task.key, {"graph": context.write_table("graph", table)})


def _redone(context: Context, panel: int, rows: int) -> TopKState:
    """Merged lists of a panel's doubtful rows, columns in plan order."""
    top = TopK(context.config.k)
    state = top.init(np.arange(rows))
    for record in context.records("redo"):
        _, p, first, _ = record.task.split("-")
        if int(p) != panel:
            continue
        chosen = slice(int(first), min(int(first) + REDO_ROWS, rows))
        part = top.merge(
            TopKState(state.ids[chosen], state.keys[chosen]),
            TopKState(context.load(record.objects["ids"]), context.load(record.objects["keys"])),
        )
        state.ids[chosen], state.keys[chosen] = part
    return state


def _manifest(config: KnnGraphConfig, panels: RowPanels, rounds: Rounds) -> Commit:
    return Commit(
        rows=panels.rows,
        shards=exact_shards(panels, rounds),
        metrics={
            "k": config.k,
            "measure": panels.measure.name,
            "method": config.method,
            "edges": panels.rows * config.k,
            "recall": certain(panels.rows).to_json(),
            "rounds": list(rounds),
            "pairs_scored": panels.rows * (panels.rows - 1) // 2,
            "redone": sum(int(record.facts["doubtful"]) for record in rounds["settle"]),
        },
    )


EXACT: Mapping[str, Callable[[Context, Task], Record]] = {
    "diagonal": lambda context, task: compute_diagonal(context, _of(context), task),
    "pair": lambda context, task: compute_pair(context, _of(context), task),
    "settle": _settle,
    "redo": _redo,
    "exact_finish": _finish,
}
