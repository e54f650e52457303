"""Stage `knn`: the k nearest corpus rows of every query; two sets, exact or over a partition.

Over the corpus' stored partition, a query looks only at the rows of its `probes` nearest cells:

    truth    sampled queries against every block, exactly              task per block
    choose   in which of a query's cells its true neighbours lie       one task
             ──> the fewest probes that reach the recall asked for
    probe    queries of a chunk against the probed cells of a block    task per (chunk, block)
    settle   lists merged, values by the fixed kernel, Parquet         task per chunk

Within the probed cells the search is complete, so the recall of any number of probes can be read
off the true neighbours' cells before a single probe is made. The exact method folds every query
chunk against every panel of the corpus and settles with a certificate (simdist.tiles.exact).
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
from simdist.partitions import Partition, block_rows, nearest_cells
from simdist.recall import Recall, summary
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.store.datasets import Shard
from simdist.tiles import TopK, TopKState, fold
from simdist.tiles.exact import Nearest, certify, fold_exact, reach, rerank, signed
from simdist.types import Ids, Int32, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["KnnSearch", "SearchConfig"]

SLACK = 9  # candidates kept beyond k: float32 keys may have the wrong order
ROWS_AT_ONCE = 1024


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
    VERSION: ClassVar[int] = 1

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
            nbytes=_nbytes(panel, panel, dim, config.k),
            flops=2.0 * rows * rows * dim * share,
            written=rows * 12 * (blocks * (config.k + SLACK) + config.k),
        )


def _queries(context: Context) -> RowPanels:
    return RowPanels(context.inputs["queries"], resolve(context.config.measure))


def _corpus(context: Context) -> RowPanels | Partition:
    """The corpus in panels: dataset order for the exact method, else cell order."""
    if context.config.method == "exact":
        return RowPanels(context.inputs["corpus"], resolve(context.config.measure))
    return Partition.of(context.inputs["partition"])


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


def _nbytes(queries: int, columns: int, dim: int, k: int) -> int:
    return 12 * dim * (queries + columns) + 60 * queries * (k + SLACK) + (16 << 20)


def _exact_story(context: Context, queries: RowPanels) -> Iterator[Round]:
    corpus = _corpus(context)
    nbytes = _nbytes(queries.panel_rows, corpus.span(0)[1], queries.dim, context.config.k)
    yield _grid("scan", queries, corpus, nbytes)
    settle = _settle_nbytes(queries, context.config.k) + 8 * queries.dim * corpus.span(0)[1]
    yield _each("settle", "settle_exact", queries, settle)


def _probe_story(context: Context, queries: RowPanels) -> Iterator[Round]:
    config = context.config
    partition = Partition.of(context.inputs["partition"])
    sample = min(config.sample, queries.rows)
    nbytes = _nbytes(sample, 0, queries.dim, config.k) + 8 * queries.dim * sample
    yield Round(
        "truth",
        tuple(
            Task(f"truth-{b:06d}", "truth", {"block": b}, nbytes) for b in range(partition.blocks)
        ),
    )
    yield Round("choose", (Task("choose", "choose", {}, 2 * nbytes),))
    probes = int(context.records("choose")[0].facts["probes"])
    cells = len(partition.sizes)
    nbytes = _nbytes(queries.panel_rows, partition.block_rows, queries.dim, config.k)
    nbytes += queries.panel_rows * cells * 4
    yield _grid("probe", queries, partition, nbytes, probes=probes)
    yield _each("settle", "settle", queries, _settle_nbytes(queries, config.k))


def _settle_nbytes(queries: RowPanels, k: int) -> int:
    gathered = ROWS_AT_ONCE * (k + SLACK) * 8 * queries.dim
    return queries.panel_rows * (60 * (k + SLACK) + 12 * queries.dim) + gathered + (16 << 20)


def _grid(
    name: str,
    queries: RowPanels,
    corpus: RowPanels | Partition,
    nbytes: int,
    **args: Json,
) -> Round:
    """One task per query chunk and corpus panel."""
    return Round(
        name,
        tuple(
            Task(f"{name}-{q:06d}-{b:06d}", name, {"chunk": q, "block": b, **args}, nbytes)
            for q in range(queries.blocks)
            for b in range(corpus.blocks)
        ),
    )


def _each(name: str, kind: str, queries: RowPanels, nbytes: int) -> Round:
    return Round(
        name,
        tuple(Task(f"{name}-{q:06d}", kind, {"chunk": q}, nbytes) for q in range(queries.blocks)),
    )


def _scan(context: Context, task: Task) -> Record:
    """Every row of a corpus panel for every query of a chunk."""
    queries, corpus = _queries(context), _corpus(context)
    state = fold(
        queries.measure,
        queries.block(task.args["chunk"]),
        corpus.block(task.args["block"]),
        _topk(context),
        rows=np.arange(*queries.span(task.args["chunk"])),
        columns=np.arange(*corpus.span(task.args["block"])),
        check=context.check,
    )
    return Record(task.key, _write_state(context, state))


def _topk(context: Context) -> TopK:
    return TopK(context.config.k + SLACK, exclude_self=False)


def _write_state(context: Context, state: TopKState) -> dict[str, ObjectRef]:
    return {
        "ids": context.write_array("search-ids", state.ids),
        "keys": context.write_array("search-keys", state.keys),
    }


def _merged(context: Context, records: Sequence[Record]) -> TopKState:
    """States of one chunk over all panels, merged in plan order."""
    states = (
        TopKState(context.load(r.objects["ids"]), context.load(r.objects["keys"])) for r in records
    )
    merged = reduce(_topk(context).merge, states)
    return TopKState(np.array(merged.ids), np.array(merged.keys))  # one state alone is read-only


def _chunk_records(context: Context, round_name: str, chunk: int) -> list[Record]:
    prefix = f"{round_name}-{chunk:06d}-"
    return [r for r in context.records(round_name) if r.task.startswith(prefix)]


def _truth(context: Context, task: Task) -> Record:
    """Exact neighbours of the sampled queries in one block of the partition."""
    queries, partition = _queries(context), Partition.of(context.inputs["partition"])
    rows = _sampled(context, queries)
    state = fold(
        queries.measure,
        queries.take(rows),
        partition.block(task.args["block"]),
        _topk(context),
        rows=rows,
        columns=np.arange(*partition.span(task.args["block"])),
        check=context.check,
    )
    return Record(task.key, _write_state(context, state))


def _sampled(context: Context, queries: RowPanels) -> Ids:
    size = min(context.config.sample, queries.rows)
    return np.sort(context.rng("recall").choice(queries.rows, size, replace=False)).astype(np.int64)


def _choose(context: Context, task: Task) -> Record:
    """The fewest probes whose recall passes, read off where the true neighbours lie."""
    config = context.config
    queries, partition = _queries(context), Partition.of(context.inputs["partition"])
    rows = _sampled(context, queries)
    lists = _merged(context, context.records("truth"))
    X = queries.take(rows)
    truth = _reranked(partition, X, lists.ids, config.k)
    cells = len(partition.sizes)
    order = nearest_cells(partition, X, cells)
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(cells, dtype=order.dtype)[None, :], axis=1)
    home = np.searchsorted(_cell_ends(partition), truth.ids, side="right")
    needed = np.take_along_axis(place, home.astype(np.int64), axis=1) + 1  # probes to reach each
    probes = config.probes or (1 if config.recall is None else cells)
    recall = _recall_at(needed, min(probes, cells), config, queries.rows)
    if config.probes is None and config.recall is not None:
        low, high = 1, cells  # recall grows with probes: bisect
        while low < high:
            middle = (low + high) // 2
            if _recall_at(needed, middle, config, queries.rows).low >= config.recall:
                high = middle
            else:
                low = middle + 1
        probes, recall = low, _recall_at(needed, low, config, queries.rows)
    return Record(task.key, {}, {"probes": min(probes, cells), "recall": recall.to_json()})


def _recall_at(needed: Int32, probes: int, config: SearchConfig, population: int) -> Recall:
    """Recall of so many probes. needed: [m, k] probes that reach each true neighbour."""
    shares = (needed <= probes).mean(axis=1)
    return summary(shares, shares, config.k, population=population, target=config.recall)


def _cell_ends(partition: Partition) -> Ids:
    """[C] position after the last row of every cell in cell order."""
    return np.cumsum(np.asarray(partition.sizes)[:, 0])


def _probe(context: Context, task: Task) -> Record:
    """Queries of a chunk against the cells they probe, as far as these lie in one block."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415 - numba only on workers

    queries, partition = _queries(context), Partition.of(context.inputs["partition"])
    rows = np.arange(*queries.span(task.args["chunk"]))
    X = queries.block(task.args["chunk"])
    near = nearest_cells(partition, X, task.args["probes"], check=context.check)
    order = np.empty(near.size, np.int64)
    starts = np.empty(len(partition.sizes) + 1, np.int64)
    bucket_order(near.ravel(), len(partition.sizes), order, starts)
    ends = _cell_ends(partition)
    first, last = partition.span(task.args["block"])
    block = partition.block(task.args["block"])
    top = _topk(context)
    state = top.init(rows)
    for cell in range(int(np.searchsorted(ends, first, side="right")), len(ends)):
        low, high = max(int(ends[cell - 1]) if cell else 0, first), min(int(ends[cell]), last)
        if low >= last:
            break
        who = order[starts[cell] : starts[cell + 1]] // near.shape[1]
        if low == high or not len(who):
            continue
        found = fold(
            queries.measure,
            X.take(who),
            block.take(slice(low - first, high - first)),
            top,
            rows=rows[who],
            columns=np.arange(low, high),
            start=TopKState(state.ids[who], state.keys[who]),
            check=context.check,
        )
        state.ids[who], state.keys[who] = found
    return Record(task.key, _write_state(context, state))


def _settle(context: Context, task: Task) -> Record:
    """A chunk's lists over the partition: values, corpus rows, Parquet."""
    queries, partition = _queries(context), Partition.of(context.inputs["partition"])
    chunk, k = task.args["chunk"], context.config.k
    lists = _merged(context, _chunk_records(context, "probe", chunk))
    short = np.flatnonzero((lists.ids >= 0).sum(axis=1) < k)
    X = queries.block(chunk)
    if len(short):  # the probed cells hold fewer than k rows: look everywhere
        first = queries.span(chunk)[0]
        state = TopKState(lists.ids[short], lists.keys[short])
        for block in range(partition.blocks):
            state = fold(
                queries.measure,
                X.take(short),
                partition.block(block),
                _topk(context),
                rows=short + first,
                columns=np.arange(*partition.span(block)),
                start=state,
                check=context.check,
            )
        lists.ids[short], lists.keys[short] = state
    found = _reranked(partition, X, lists.ids, k, check=context.check)
    return _finished(context, task, found)


def _reranked(
    partition: Partition,
    X: Prepared,
    positions: Ids,
    k: int,
    *,
    check: Callable[[], None] | None = None,
) -> Nearest:
    """The k best of each list by (value, corpus row); ids are positions. positions: [m, w]."""
    width = positions.shape[1]
    parts = []
    for start in range(0, len(X), ROWS_AT_ONCE):
        if check is not None:
            check()
        part = slice(start, start + ROWS_AT_ONCE)
        listed = positions[part]
        distinct = np.unique(listed[listed >= 0])
        parts.append(
            rerank(
                partition.measure,
                X.take(part),
                partition.take(distinct),
                listed,
                min(k, width),
                rows=np.arange(len(listed)),
                columns=distinct,
            )
        )
    return Nearest(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _settle_exact(context: Context, task: Task) -> Record:
    """A chunk's lists over all corpus panels: values, a certificate, doubtful rows redone."""
    queries, corpus = _queries(context), _corpus(context)
    assert isinstance(corpus, RowPanels)
    measure, k = queries.measure, context.config.k
    lists = _merged(context, _chunk_records(context, "scan", task.args["chunk"]))
    X = queries.block(task.args["chunk"])
    rows = np.arange(*queries.span(task.args["chunk"]))
    parts = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        context.check()
        part = slice(start, start + ROWS_AT_ONCE)
        listed = lists.ids[part]
        distinct = np.unique(listed[listed >= 0])
        parts.append(
            rerank(
                measure,
                X.take(part),
                corpus.take(distinct),
                listed,
                k,
                rows=rows[part],
                columns=distinct,
            )
        )
    found = Nearest(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    far = reduce(lambda a, b: a.join(b), (reach(corpus.block(b)) for b in range(corpus.blocks)))
    sure = certify(measure, X, far, weakest=lists.keys[:, -1], worst=found.values[:, -1])
    redo = np.flatnonzero(~sure)
    top = TopK(k, exclude_self=False)
    state = top.init(rows[redo])
    for block in range(corpus.blocks if len(redo) else 0):
        more = fold_exact(
            measure,
            X.take(redo),
            corpus.block(block),
            top,
            rows=rows[redo],
            columns=np.arange(*corpus.span(block)),
            worst=found.values[redo, -1],
            check=context.check,
        )
        state = top.merge(state, more)
    found.values[redo], found.ids[redo] = signed(measure, state.keys), state.ids
    return _finished(context, task, found)


def _finished(context: Context, task: Task, found: Nearest) -> Record:
    """The chunk's table; positions become corpus rows, ties by row."""
    queries, corpus = _queries(context), _corpus(context)
    rows = np.arange(*queries.span(task.args["chunk"]))
    values, ids = found
    if isinstance(corpus, Partition):
        numbers = corpus.numbers.take(ids.ravel()).reshape(ids.shape)
        order = np.lexsort((numbers, -signed(queries.measure, values)), axis=-1)
        ids = np.take_along_axis(numbers, order, axis=1)
        values = np.take_along_axis(values, order, axis=1)
    table = graph_table(rows, ids_of_rows(context.inputs["queries"], rows), ids, values)
    return Record(task.key, {"graph": context.write_table("graph", table)})


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
    "settle_exact": _settle_exact,
    "truth": _truth,
    "choose": _choose,
    "probe": _probe,
    "settle": _settle,
}
