"""The stage `deduplicate`: which round follows which, what is refused, and the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from simdist.errors import ConfigError, InputError
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.dedupe.config import DedupeConfig
from simdist.stages.dedupe.exchange import (
    SHARD_ENTRIES,
    SHARD_NODES,
    compute_gather,
    compute_spread,
    gather_round,
    shard_nbytes,
    spread_round,
)
from simdist.stages.dedupe.finish import (
    compute_finish,
    compute_list,
    compute_settle,
    compute_sizes,
    finish_round,
    list_round,
    settle_round,
    sizes_round,
)
from simdist.stages.dedupe.groups import compute_cap, compute_label, label_rounds
from simdist.stages.dedupe.leaders import compute_decide, decide_rounds, shard_rounds
from simdist.stages.dedupe.order import (
    compute_order,
    compute_rank,
    needs_order,
    order_round,
    rank_round,
)
from simdist.store.datasets import Shard
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["Deduplicate"]


class Deduplicate:
    """See the package's docstring. Inputs: pairs (of a join, or a links dataset); with vectors:
    `vectors`, and `distinct`, whose rows are the nodes; `contaminated`: pairs with other rows."""

    name: ClassVar[str] = "deduplicate"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        _refuse_column(job)
        for step in _story(context, rounds):
            if step.name not in rounds:
                return step
        return _manifest(context, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: DedupeConfig, rows: int, dim: int) -> Forecast:
        """Cost of n rows; of their pairs, as many as a shard of nodes may have."""
        nodes = min(rows, SHARD_NODES)
        return Forecast(
            tasks=6 * -(-rows // SHARD_NODES),
            nbytes=shard_nbytes(nodes, min(SHARD_ENTRIES, 16 * nodes)),
            flops=0.0,
            written=rows * 60,
        )


def _refuse_column(job: Job) -> None:
    """ConfigError where no column of that name came with the vectors."""
    wanted = job.config.column
    if wanted is None:
        return
    source = job.inputs["vectors"]
    columns = [*(source.manifest.config or {}).get("keep", ()), "id"]
    if wanted not in columns:
        raise ConfigError(
            f"keep={wanted!r}: {source.uri} has no such column; it has {', '.join(columns)}."
            " Expected 'first', 'medoid', or a column that came with the vectors:"
            " import_vectors(..., keep=[...])"
        )


def _story(context: Context, done: Rounds) -> Iterator[Round]:
    """The rounds in order. Past a `yield`, the round is committed: its facts are in `done`."""
    config = context.config
    yield spread_round(context)
    yield gather_round(context)
    if needs_order(context):
        yield rank_round(context)
        yield order_round(context)
    wide = False
    if config.semantics == "components":
        yield from label_rounds(context, done)
        shards = list(range(len(done["gather"])))
        yield shard_rounds(context, "cap", "cap", shards)
        wide = any(record.facts["wide"] for record in done["cap"])
    if config.semantics == "leader" or wide:
        yield from decide_rounds(context, done)
    yield settle_round(context)
    yield finish_round(context)
    yield sizes_round(context)
    yield list_round(context)


def _manifest(context: Context, rounds: Rounds) -> Commit:
    config, finished = context.config, rounds["finish"]
    rows = sum(int(r.facts["last"]) - int(r.facts["first"]) for r in finished)
    kept = sum(int(r.facts["kept"]) for r in finished)
    groups = rounds["list"][0].facts["groups"]
    contaminated = sum(int(r.facts["contaminated"]) for r in finished)
    _refuse_wipe_out(context, rows, kept, contaminated, groups)
    shards = tuple(
        Shard(
            int(r.facts["last"]) - int(r.facts["first"]),
            {role: r.objects[role] for role in ("rows", "group", "kept")},
            {"kept": r.facts["kept"]},
        )
        for r in finished
    )
    metrics: dict[str, Json] = {
        "nodes": rows,
        "kept": kept,
        "removed": rows - kept,
        "groups": sum(int(r.facts["groups"]) for r in rounds["sizes"]),
        "largest": groups,
        "keep": config.keep,
        "semantics": config.semantics,
        "threshold": float(config.threshold),
        "rounds": list(rounds),
    }
    if "distinct" in context.inputs:
        metrics["copies"] = int(context.inputs["distinct"].metrics["copies"])
    if "contaminated" in context.inputs:
        metrics["contaminated"] = contaminated
    if "cap" in rounds:
        metrics["split"] = _split(context, rounds)
    return Commit(rows=rows, shards=shards, metrics=metrics)


def _split(context: Context, rounds: Rounds) -> int:
    """Groups that were too wide: each is named by as many shards as it reaches into."""
    wide: set[int] = set()
    for record in rounds["cap"]:
        if record.facts["wide"]:
            wide.update(context.load(record.objects["wide"]).tolist())
    return len(wide)


def _refuse_wipe_out(
    context: Context, rows: int, kept: int, contaminated: int, groups: Json
) -> None:
    """InputError where more rows would go than anybody can want, with the largest group."""
    most = context.config.max_removed
    if rows - kept <= most * rows:
        return
    shown = ""
    if contaminated:
        shown = f" {contaminated:,} of them are near a row of the other data set."
    if groups:
        largest = groups[0]
        names = largest.get("ids") or [largest["kept"], *largest["rows"]]
        others = ", ".join(str(name) for name in names[1:6])
        shown += (
            f" The largest group has {largest['size']:,} rows; kept for it: {names[0]}, instead of:"
            f" {others}, ..."
        )
    raise InputError(
        f"deduplicate at threshold {context.config.threshold:g} would remove {rows - kept:,} of"
        f" {rows:,} rows; max_removed is {most:g}.{shown} Take a stricter threshold, or"
        " semantics='leader' where chains run through everything; or raise max_removed."
    )


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "spread": compute_spread,
    "gather": compute_gather,
    "rank": compute_rank,
    "order": compute_order,
    "label": compute_label,
    "cap": compute_cap,
    "decide": compute_decide,
    "settle": compute_settle,
    "finish": compute_finish,
    "sizes": compute_sizes,
    "list": compute_list,
}
