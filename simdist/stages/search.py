"""Stage `knn`: the k nearest corpus rows of every query; two sets, exact or over a partition.

Over the corpus' stored partition, a query looks only at the rows of its `probes` nearest cells:

    truth    sampled queries against every block, exactly              task per block
    choose   in which of a query's cells its true neighbours lie       one task
             ──> the fewest probes that reach the recall asked for
    probe    queries of a chunk against the probed cells of a block    task per (chunk, block)
    settle   lists merged, as Parquet                                  task per chunk

The exact method has `scan` (every query chunk against every panel of the corpus) and `settle`.
Either way a task's own answer is exact: values by the fixed kernel, ordered by (value, corpus row),
certified (simdist.tiles.exact). So the recall of any number of probes can be read off the true
neighbours' cells before a single probe is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.lists import graph_table, ids_of_rows
from simdist.measures import Prepared, resolve
from simdist.panels import RowPanels, refuse_zero_rows
from simdist.partitions import SLICE, Partition, block_rows, nearest_cells
from simdist.recall import Recall, summary
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, RoundForecast, Rounds, Task
from simdist.stages.costs import TASK_REQUESTS, moves
from simdist.store.datasets import Shard
from simdist.tiles import TopK, TopKState
from simdist.tiles.exact import fold_exact, nearest, signed
from simdist.tiles.memory import around_nbytes, exact_memory, fold_memory, rerank_memory
from simdist.types import Ids, Int32, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["KnnSearch", "SearchConfig"]

SLACK = 8  # candidates of a panel or cell beyond k: more make fewer rows doubtful


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """k, measure, method, recall, seed: as for the k-NN graph. sample: queries that choose the
    number of probes. probes: cells a query looks into; None chooses for the recall."""

    k: int
    measure: Json
    method: Literal["approximate", "exact"] = "exact"
    recall: float | None = 0.95
    seed: int = 0
    sample: int = 1000
    probes: int | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k={self.k}: expected at least 1 neighbour")
        if self.method not in ("approximate", "exact"):
            raise ConfigError(f"method={self.method!r}: expected 'approximate' or 'exact'")
        if self.recall is not None and not 0.0 < self.recall < 1.0:
            raise ConfigError(f"recall={self.recall}: expected a number between 0 and 1, or none")
        if self.sample < 1 or (self.probes is not None and self.probes < 1):
            raise ConfigError(f"sample={self.sample}, probes={self.probes}: expected at least 1")

    def to_json(self) -> Json:
        exact = {"k": self.k, "measure": self.measure, "method": self.method}
        return exact if self.method == "exact" else asdict(self)


class KnnSearch:
    """See the module docstring. Inputs: queries, corpus and, for the approximate method, the
    corpus' partition."""

    name: ClassVar[str] = "knn"
    VERSION: ClassVar[int] = 2

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        queries = _queries(context)
        _refuse(job, queries)
        story = _exact_story if job.config.method == "exact" else _probe_story
        for step in story(context, queries):
            if step.name not in rounds:
                return step
        return _manifest(job, queries, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: SearchConfig, rows: int, dim: int) -> Forecast:
        """Cost of n queries against a corpus of as many rows."""
        panel = min(block_rows(rows, dim), rows)
        blocks = -(-rows // panel)
        share = 1.0 if config.method == "exact" else 0.1
        return Forecast(
            tasks=blocks * blocks + blocks,
            nbytes=12 * dim * 2 * panel + 60 * panel * (config.k + SLACK) + (16 << 20),
            flops=2.0 * rows * rows * dim * share,
            written=rows * 12 * (blocks * (config.k + SLACK) + config.k),
            rounds=tuple(_cost(config, rows, dim, blocks)),
        )


def _cost(config: SearchConfig, rows: int, dim: int, blocks: int) -> Iterator[RoundForecast]:
    """Every chunk of queries meets every block of the corpus; where cells are probed, a tenth of
    the pairs is scored, and a sample has met all of them before."""
    exact = config.method == "exact"
    row, listed = 4 * dim, 12 * config.k
    if not exact:
        sample = min(config.sample, rows)
        yield RoundForecast(
            "truth",
            blocks,
            flops=2.0 * sample * rows * dim,
            read=(rows + blocks * sample) * row,
            written=blocks * sample * listed,
            requests=blocks * TASK_REQUESTS + moves(2 * blocks, rows * row),
            rows=rows,
        )
        yield RoundForecast(
            "choose",
            1,
            read=blocks * sample * listed + sample * row,
            requests=TASK_REQUESTS + moves(2 * blocks, blocks * sample * listed),
            rows=sample,
        )
    tasks, both, lists = blocks * blocks, 2 * blocks * rows * row, blocks * rows * listed
    yield RoundForecast(
        "scan" if exact else "probe",
        tasks,
        flops=2.0 * rows * rows * dim * (1.0 if exact else 0.1),
        read=both,
        written=lists,
        requests=tasks * TASK_REQUESTS + moves(2 * tasks, both) + moves(2 * tasks, lists),
        rows=blocks * rows,
    )
    yield RoundForecast(
        "settle",
        blocks,
        read=lists,
        written=rows * (listed + 8),
        requests=blocks * TASK_REQUESTS + moves(2 * tasks, lists) + moves(blocks, rows * listed),
        rows=rows,
    )


def _queries(context: Context) -> RowPanels:
    return RowPanels(context.inputs["queries"], resolve(context.config.measure))


def _refuse(job: Job, queries: RowPanels) -> None:
    corpus = job.inputs["corpus"]
    if corpus.rows < job.config.k:
        raise InputError(
            f"k={job.config.k} neighbours need a corpus of at least as many rows; {corpus.uri} has"
            f" {corpus.rows}. Ask for k <= {corpus.rows}."
        )
    if int(corpus.metrics["dim"]) != queries.dim:
        raise InputError(
            f"queries have {queries.dim} dimensions, the corpus {corpus.metrics['dim']}"
            f" ({corpus.uri}): they must come from the same embedding."
        )
    for role in ("queries", "corpus"):
        refuse_zero_rows(job.inputs[role], queries.measure)


def _nbytes(context: Context, queries: int, columns: int, dim: int) -> int:
    """What an exact search of so many queries among so many columns holds at most."""
    k = context.config.k
    top = TopK(k + SLACK, exclude_self=False)
    measure = resolve(context.config.measure)
    listed = rerank_memory(queries, columns, dim, k + SLACK, k).nbytes
    redone = exact_memory(queries, columns, dim, k).nbytes
    folded = fold_memory(measure, top, queries, columns, dim).nbytes
    moved = around_nbytes(measure, queries, columns, dim)
    return int(24 * queries * (k + SLACK) + max(folded, listed, redone) + moved)


def _exact_story(context: Context, queries: RowPanels) -> Iterator[Round]:
    corpus = RowPanels(context.inputs["corpus"], queries.measure)
    nbytes = _nbytes(context, queries.span(0)[1], corpus.span(0)[1], queries.dim)
    yield _grid("scan", queries, corpus.blocks, nbytes)
    yield _settle_round(context, queries)


def _probe_story(context: Context, queries: RowPanels) -> Iterator[Round]:
    partition = Partition.of(context.inputs["partition"])
    sample = min(context.config.sample, queries.rows)
    block = min(partition.block_rows, partition.rows)
    nbytes = _nbytes(context, sample, block, queries.dim) + 8 * queries.dim * sample
    blocks = range(partition.blocks)
    yield Round(
        "truth", tuple(Task(f"truth-{b:06d}", "truth", {"block": b}, nbytes) for b in blocks)
    )
    places = sample * 12 * (len(partition.sizes) + 4 * context.config.k) + 24 * block
    yield Round("choose", (Task("choose", "choose", {}, nbytes + places),))
    probes = int(context.records("choose")[0].facts["probes"])
    chunk = queries.span(0)[1]
    slices = min(chunk, SLICE) * len(partition.sizes) * 4
    nbytes = _nbytes(context, chunk, block, queries.dim) + chunk * 24 * probes + slices
    yield _grid("probe", queries, partition.blocks, nbytes, probes=probes)
    yield _settle_round(context, queries)


def _grid(name: str, queries: RowPanels, blocks: int, nbytes: int, **args: Json) -> Round:
    """One task per query chunk and block of the corpus."""
    return Round(
        name,
        tuple(
            Task(f"{name}-{q:06d}-{b:06d}", name, {"chunk": q, "block": b, **args}, nbytes)
            for q in range(queries.blocks)
            for b in range(blocks)
        ),
    )


def _settle_round(context: Context, queries: RowPanels) -> Round:
    rows = queries.span(0)[1]
    nbytes = rows * (60 * context.config.k + 64) + (16 << 20)
    if context.config.method == "approximate":  # where cells were too small: look everywhere
        partition = Partition.of(context.inputs["partition"])
        nbytes += _nbytes(context, rows, partition.span(0)[1], queries.dim)
    return Round(
        "settle",
        tuple(
            Task(f"settle-{q:06d}", "settle", {"chunk": q}, nbytes) for q in range(queries.blocks)
        ),
    )


def _best(context: Context, X: Prepared, Y: Prepared, columns: Ids) -> TopKState:
    """The k best of some columns for every query, by (value, column), exactly.

    columns: [m] corpus rows of Y. Keys are values, negated for a distance.
    """
    measure, k = resolve(context.config.measure), context.config.k
    rows, top = np.arange(len(X)), TopK(k, exclude_self=False)
    if len(columns) < k:  # too few to fill a list: every pair
        return fold_exact(measure, X, Y, top, rows=rows, columns=columns, check=context.check)
    found = nearest(
        measure,
        X,
        Y,
        k,
        rows=rows,
        columns=columns,
        exclude_self=False,
        slack=SLACK,
        check=context.check,
    )
    return TopKState(found.ids, signed(measure, found.values))


def _write(context: Context, task: Task, state: TopKState) -> Record:
    ids = context.write_array("search-ids", state.ids)
    return Record(task.key, {"ids": ids, "keys": context.write_array("search-keys", state.keys)})


def _merged(context: Context, records: Sequence[Record]) -> TopKState:
    """States of the same queries over all blocks, merged in plan order."""
    states = (
        TopKState(context.load(r.objects["ids"]), context.load(r.objects["keys"])) for r in records
    )
    merged = reduce(TopK(context.config.k, exclude_self=False).merge, states)
    return TopKState(np.array(merged.ids), np.array(merged.keys))  # one state alone is read-only


def _scan(context: Context, task: Task) -> Record:
    """Every row of a corpus panel for every query of a chunk."""
    queries = _queries(context)
    corpus = RowPanels(context.inputs["corpus"], queries.measure)
    columns = np.arange(*corpus.span(task.args["block"]))
    X, Y = queries.block(task.args["chunk"]), corpus.block(task.args["block"])
    return _write(context, task, _best(context, X, Y, columns))


def _truth(context: Context, task: Task) -> Record:
    """Exact neighbours of the sampled queries in one block of the partition."""
    queries, partition = _queries(context), Partition.of(context.inputs["partition"])
    X = queries.take(_sampled(context, queries))
    Y, columns = _block(partition, task.args["block"])
    return _write(context, task, _best(context, X, Y, columns))


def _block(partition: Partition, block: int) -> tuple[Prepared, Ids]:
    """A block's prepared rows and their corpus rows."""
    return partition.block(block), np.array(partition.array(block, "rows"))


def _sampled(context: Context, queries: RowPanels) -> Ids:
    size = min(context.config.sample, queries.rows)
    return np.sort(context.rng("recall").choice(queries.rows, size, replace=False)).astype(np.int64)


def _choose(context: Context, task: Task) -> Record:
    """The fewest probes whose recall passes, read off where the true neighbours lie."""
    config = context.config
    queries, partition = _queries(context), Partition.of(context.inputs["partition"])
    X = queries.take(_sampled(context, queries))
    truth = _merged(context, context.records("truth")).ids
    cells = len(partition.sizes)
    order = nearest_cells(partition, X, cells)
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(cells, dtype=order.dtype)[None, :], axis=1)
    home = np.searchsorted(_cell_ends(partition), _positions(partition, truth), side="right")
    needed = np.take_along_axis(place, home, axis=1) + 1  # probes that reach each neighbour
    probes = min(config.probes or 1, cells)
    if config.probes is None and config.recall is not None:
        high = cells  # recall grows with probes: bisect
        while probes < high:
            middle = (probes + high) // 2
            if _recall_at(needed, middle, config, queries.rows).low >= config.recall:
                high = middle
            else:
                probes = middle + 1
    recall = _recall_at(needed, probes, config, queries.rows)
    return Record(task.key, {}, {"probes": probes, "recall": recall.to_json()})


def _recall_at(needed: Int32, probes: int, config: SearchConfig, population: int) -> Recall:
    """Recall of so many probes. needed: [m, k] probes that reach each true neighbour."""
    shares = (needed <= probes).mean(axis=1)
    return summary(shares, shares, config.k, population=population, target=config.recall)


def _cell_ends(partition: Partition) -> Ids:
    """[C] position after the last row of every cell in cell order."""
    return np.cumsum(np.asarray(partition.sizes)[:, 0])


def _positions(partition: Partition, rows: Ids) -> Ids:
    """Positions in cell order of some corpus rows, any shape; one block's rows at a time."""
    found = np.full(rows.shape, -1, np.int64)
    for block in range(partition.blocks):
        numbers = partition.array(block, "rows")
        order = np.argsort(numbers)
        at = np.minimum(np.searchsorted(numbers, rows, sorter=order), len(numbers) - 1)
        here = numbers[order[at]] == rows
        found[here] = partition.span(block)[0] + order[at][here]
    return found


def _probe(context: Context, task: Task) -> Record:
    """Queries of a chunk against the cells they probe, as far as these lie in one block."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415 - numba only on workers

    queries, partition = _queries(context), Partition.of(context.inputs["partition"])
    X = queries.block(task.args["chunk"])
    near = nearest_cells(partition, X, task.args["probes"], check=context.check)
    order = np.empty(near.size, np.int64)
    starts = np.empty(len(partition.sizes) + 1, np.int64)
    bucket_order(near.ravel(), len(partition.sizes), order, starts)
    ends = _cell_ends(partition)
    first, last = partition.span(task.args["block"])
    block, columns = _block(partition, task.args["block"])
    top = TopK(context.config.k, exclude_self=False)
    state = top.init(np.arange(len(X)))
    for cell in range(int(np.searchsorted(ends, first, side="right")), len(ends)):
        low, high = max(int(ends[cell - 1]) if cell else 0, first), min(int(ends[cell]), last)
        if low >= last:
            break
        who = order[starts[cell] : starts[cell + 1]] // near.shape[1]
        if low == high or not len(who):
            continue
        part = slice(low - first, high - first)
        found = _best(context, X.take(who), block.take(part), columns[part])
        state.ids[who], state.keys[who] = top.merge(
            TopKState(state.ids[who], state.keys[who]), found
        )
    return _write(context, task, state)


def _settle(context: Context, task: Task) -> Record:
    """A chunk's lists over all blocks, as Parquet."""
    queries, chunk = _queries(context), task.args["chunk"]
    name = "scan" if context.config.method == "exact" else "probe"
    prefix = f"{name}-{chunk:06d}-"
    lists = _merged(context, [r for r in context.records(name) if r.task.startswith(prefix)])
    short = np.flatnonzero(lists.ids[:, -1] < 0)
    if len(short):  # the probed cells hold fewer than k rows: look everywhere
        lists.ids[short], lists.keys[short] = _everywhere(context, queries.block(chunk).take(short))
    rows = np.arange(*queries.span(chunk))
    ids = ids_of_rows(context.inputs["queries"], rows)
    table = graph_table(rows, ids, lists.ids, signed(queries.measure, lists.keys))
    return Record(task.key, {"graph": context.write_table("graph", table)})


def _everywhere(context: Context, X: Prepared) -> TopKState:
    """The exact lists of a few queries over the whole partition."""
    partition = Partition.of(context.inputs["partition"])
    top = TopK(context.config.k, exclude_self=False)
    blocks = (_block(partition, b) for b in range(partition.blocks))
    return reduce(top.merge, (_best(context, X, Y, columns) for Y, columns in blocks))


def _manifest(job: Job, queries: RowPanels, rounds: Rounds) -> Commit:
    shards = []
    for chunk, record in enumerate(rounds["settle"]):
        first, last = queries.span(chunk)
        shards.append(Shard(last - first, record.objects))
    metrics: dict[str, Json] = {
        "k": job.config.k,
        "measure": queries.measure.name,
        "method": job.config.method,
        "edges": queries.rows * job.config.k,
        "corpus": job.inputs["corpus"].rows,
        "rounds": list(rounds),
    }
    if job.config.method == "exact":
        certain = Recall(1.0, 1.0, 1.0, tie_aware=1.0, p5=1.0, rows=queries.rows)
        metrics |= {"recall": certain.to_json()}
    else:
        metrics |= dict(rounds["choose"][0].facts)
    return Commit(rows=queries.rows, shards=tuple(shards), metrics=metrics)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "scan": _scan,
    "truth": _truth,
    "choose": _choose,
    "probe": _probe,
    "settle": _settle,
}
