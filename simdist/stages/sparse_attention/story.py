"""Which round follows which, what each task holds, and the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from simdist.errors import ConfigError, InputError
from simdist.partitions import block_rows
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, RoundForecast, Rounds, Task
from simdist.stages.costs import TASK_REQUESTS, moves
from simdist.stages.sparse_attention.bounds import KeyFacts
from simdist.stages.sparse_attention.choice import WINDOW
from simdist.stages.sparse_attention.config import SparseConfig
from simdist.stages.sparse_attention.fold import PILOT
from simdist.stages.sparse_attention.sources import QUERY_ROWS, Sources, sub_rows
from simdist.stages.sparse_attention.tasks import COMPUTE, certificate_columns, sampled
from simdist.store.datasets import Shard
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["SparseAttentionStage"]

BASE_NBYTES = 16 << 20  # of a task, whatever it reads: buffers of tiles, Parquet
LEAST_ENTRIES = 1 << 22  # logits of sampled queries that a task sorts at once


class SparseAttentionStage:
    """See the package. Inputs: queries, keys, and values unless they are columns of the keys."""

    name: ClassVar[str] = "sparse_attention"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        sources = Sources.of(context)
        _refuse(sources)
        for step in _story(context, sources):
            if step.name not in rounds:
                return step
        return _manifest(context, sources, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(
        self, config: SparseConfig, rows: int, dim: int, keys: int | None = None
    ) -> Forecast:
        """Cost of n queries against as many keys (or `keys`), values as wide as they are. How many
        keys will be needed the data decides: none is counted."""
        m = rows if keys is None else keys
        rounds = tuple(_cost(config, rows, m, dim))
        return Forecast(
            tasks=sum(step.tasks for step in rounds),
            nbytes=max(step.nbytes for step in rounds),
            flops=sum(step.flops for step in rounds),
            written=sum(step.written for step in rounds),
            rounds=rounds,
        )


def _refuse(sources: Sources) -> None:
    queries, keys, values = sources.queries, sources.keys, sources.values
    if int(queries.metrics["dim"]) != sources.dim:
        raise InputError(
            f"queries have {queries.metrics['dim']} dimensions, the keys {sources.dim}"
            f" ({keys.uri}): they must come from the same embedding."
        )
    columns = sources.config.columns
    if (values is None) != bool(columns):
        raise ConfigError(
            "values are either a dataset of vectors or columns kept beside the keys; got"
            f" {'neither' if values is None else 'both'}"
        )
    if values is not None and values.rows != keys.rows:
        raise InputError(
            f"{keys.rows} keys ({keys.uri}) and {values.rows} values ({values.uri}): every key"
            " needs a value"
        )
    if sources.config.exclude_self and queries.rows != keys.rows:
        raise ConfigError(
            f"exclude_self: query i does not see key i; got {queries.rows} queries and {keys.rows}"
            " keys"
        )
    taken = sorted(set(columns) & set(certificate_columns()))
    if taken:
        raise ConfigError(
            f"columns {taken} would stand in the output twice: the certificate has columns of these"
            " names. Rename them before the import."
        )


def _story(context: Context, sources: Sources) -> Iterator[Round]:
    blocks, rows = sources.blocks, (sources.queries.rows, sources.keys.rows)
    pilot = _Sizes(*rows, sources.dim, sources.dim).pilot
    yield Round("pilot", (Task("pilot", "pilot", {}, pilot),))
    if any(kind == "text" for _, kind in context.records("pilot")[0].facts["kinds"]):
        shards = sources.keys.shards
        largest = max(shard.rows for shard in shards)
        yield _each("classes", "shard", len(shards), BASE_NBYTES + 128 * largest)
    sizes = _Sizes(*rows, sources.dim, sources.width(context))
    yield _each("codes", "panel", sources.panels, sizes.codes)
    if len(sources.spans) == 1:
        yield _each("attend", "block", blocks, sizes.attend)
    else:
        spans = len(sources.spans)
        merge = sizes.merge(spans)
        yield _grid("scan", blocks, spans, sizes.span)
        yield _each("choose", "block", blocks, merge)
        yield _grid("score", blocks, spans, sizes.span)
        yield _each("again", "block", blocks, merge)
        yield _grid("rescore", blocks, spans, sizes.span)
        yield _each("settle", "block", blocks, merge)
    sample = sampled(context, sources)
    each = LEAST_ENTRIES // sources.keys.rows
    if each and len(sample):
        yield Round(
            "least",
            tuple(
                Task(
                    f"least-{first:06d}",
                    "least",
                    {"rows": sample[first : first + each].tolist()},
                    sizes.least,
                )
                for first in range(0, len(sample), each)
            ),
        )


def _each(name: str, what: str, count: int, nbytes: int) -> Round:
    tasks = (Task(f"{name}-{i:06d}", name, {what: i}, nbytes) for i in range(count))
    return Round(name, tuple(tasks))


def _grid(name: str, blocks: int, spans: int, nbytes: int) -> Round:
    return Round(
        name,
        tuple(
            Task(f"{name}-{b:06d}-{s:06d}", name, {"block": b, "span": s}, nbytes)
            for b in range(blocks)
            for s in range(spans)
        ),
    )


class _Sizes:
    """Bytes that tasks hold at most, for n queries, m keys of d dimensions and values of dv."""

    def __init__(self, n: int, m: int, d: int, dv: int) -> None:
        self.n, self.m, self.d, self.dv = min(n, QUERY_ROWS), m, d, dv
        self.panel_rows = min(block_rows(m, d), m)
        width = -(-d // 64) * 64
        self.panel = self.panel_rows * (2 * width + 36 + 12 * (d + dv))  # exact ones in float64
        self.block = self.n * (16 * d + 2 * width + 24 * dv + 64)

    @property
    def pilot(self) -> int:
        return BASE_NBYTES + 4 * self.panel_rows * self.d + 8 * PILOT * self.d

    @property
    def codes(self) -> int:
        return BASE_NBYTES + 2 * self.panel + 8 * self.panel_rows * self.dv

    @property
    def attend(self) -> int:
        """Codes, keys and values of all panels are mapped; levels of a few queries are kept."""
        panels = -(-self.m // self.panel_rows)
        rows = sub_rows(self.m)
        choosing = 64 * rows * (WINDOW + 1)
        return BASE_NBYTES + panels * self.panel + self.block + 2 * rows * self.m + choosing

    @property
    def span(self) -> int:
        counts = 40 * self.n * (WINDOW + 1)
        return BASE_NBYTES + 2 * self.panel + self.block + 512 * self.panel_rows + counts

    def merge(self, spans: int) -> int:
        counts = (64 + 8 * spans) * self.n * (WINDOW + 1)
        return BASE_NBYTES + self.block + counts + 3 * 8 * self.n * self.dv

    @property
    def least(self) -> int:
        entries = max(LEAST_ENTRIES, self.m)
        return BASE_NBYTES + 40 * entries + 16 * self.panel_rows * self.d + self.block


def _cost(config: SparseConfig, n: int, m: int, d: int) -> Iterator[RoundForecast]:
    sizes = _Sizes(n, m, d, d)
    panels, blocks = -(-m // sizes.panel_rows), -(-n // QUERY_ROWS)
    spans = -(-panels // max(config.span // sizes.panel_rows, 1))
    keys, codes, pairs = 4 * m * d, m * (2 * d + 36), 2.0 * n * m * d
    queries, out = 4 * n * d, n * (4 * d + 56)
    yield RoundForecast("pilot", 1, sizes.pilot, read=keys, requests=TASK_REQUESTS)
    yield RoundForecast(
        "codes",
        panels,
        sizes.codes,
        read=2 * keys,
        written=codes,
        requests=panels * TASK_REQUESTS + moves(3 * panels, codes),
        rows=m,
    )
    if spans == 1:
        yield RoundForecast(
            "attend",
            blocks,
            sizes.attend,
            ops=pairs,
            read=queries,
            written=out,
            common=codes + 2 * keys,
            requests=blocks * (TASK_REQUESTS + 2),
            common_requests=moves(5 * panels, codes + 2 * keys),
            rows=n,
        )
    else:
        tasks = blocks * spans
        for name, written in (("scan", 4 * (WINDOW + 1)), ("score", 8 * d), ("rescore", 8 * d)):
            yield RoundForecast(
                name,
                tasks,
                sizes.span,
                ops=3.0 * pairs,
                read=blocks * codes + spans * queries,
                written=spans * n * written,
                requests=tasks * (TASK_REQUESTS + 4),
                rows=n,
            )
        for name in ("choose", "again", "settle"):
            yield RoundForecast(
                name,
                blocks,
                sizes.merge(spans),
                read=spans * n * 4 * (WINDOW + 1),
                written=out if name == "settle" else 40 * n,
                requests=blocks * (TASK_REQUESTS + 2 * spans),
                rows=n,
            )
    each = LEAST_ENTRIES // m
    if each and config.sample:
        rows = min(config.sample, n)
        yield RoundForecast(
            "least",
            -(-rows // each),
            sizes.least,
            flops=2.0 * rows * m * d,
            read=-(-rows // each) * keys,
            requests=-(-rows // each) * TASK_REQUESTS,
            rows=rows,
        )


def _manifest(context: Context, sources: Sources, rounds: Rounds) -> Commit:
    made = rounds["attend" if "attend" in rounds else "settle"]
    shards = []
    for block, record in enumerate(made):
        first, last = sources.block(block)
        shards.append(Shard(last - first, record.objects, record.facts))
    found = KeyFacts.from_json(rounds["codes"][0].facts)
    for record in rounds["codes"][1:]:
        found = found.merge(KeyFacts.from_json(record.facts))
    total = {
        name: sum(int(record.facts[name]) for record in made)
        for name in ("certified", "fell_back", "keys")
    }
    metrics: dict[str, Json] = {
        "corpus": sources.keys.rows,
        "width": sources.width(context),
        "columns": [name for column in sources.columns(context) for name in column.outputs],
        "tolerance": sources.config.tolerance,
        "certified": total["certified"],
        "missed": sources.queries.rows - total["certified"],
        "fell_back": total["fell_back"],
        "keys_per_query": total["keys"] / sources.queries.rows,
        "most_keys": max(int(record.facts["most_keys"]) for record in made),
        "tau": max(float(record.facts["tau"]) for record in made),
        "longest_value": found.widest,
        "rounds": list(rounds),
    }
    if sources.config.columns:
        metrics["lows"], metrics["highs"] = found.lows.tolist(), found.highs.tolist()
    if "least" in rounds:
        least = [count for record in rounds["least"] for count in record.facts["least"]]
        metrics["sampled"] = sampled(context, sources).tolist()
        metrics["least"] = least
        taken = sum(sum(record.facts["keys"]) for record in rounds["least"])
        metrics["ratio"] = taken / sum(least) if sum(least) else None
    return Commit(rows=sources.queries.rows, shards=tuple(shards), metrics=metrics)
