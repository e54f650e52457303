"""Stages `append` and `delete`: a graph with changes laid over it. Which round follows which.

    delete first: broken, back, start                 lists that name a deleted row
    level 0   append: near, look, look;  delete: look, look
    level 1   near through more cells, look
    level 2   scan: the asked rows against every row, so that what is left to blame are old lists
    level 3   look: every living row among its neighbours' neighbours, twice
    level 4   scan: every row against every row
    each level: settle, then truth and check; the first that keeps the promise is finished

An exact graph starts at level 2 and ends there: what was exact is so again. Where the asked rows
keep the promise and all rows together do not, level 3 is next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from simdist.errors import InputError
from simdist.measures import resolve
from simdist.panels import refuse_zero_rows
from simdist.partitions import block_rows
from simdist.recall import Recall
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.grow.check import (
    SIZES,
    asked_rows,
    compute_check,
    compute_truth,
    truth_nbytes,
)
from simdist.stages.grow.search import (
    compute_look,
    compute_near,
    compute_scan,
    compute_start,
    look_nbytes,
    near_nbytes,
    scan_nbytes,
    start_nbytes,
)
from simdist.stages.grow.settle import (
    compute_back,
    compute_broken,
    compute_finish,
    compute_settle,
    settle_nbytes,
)
from simdist.stages.grow.world import Asked, World
from simdist.store.datasets import Shard
from simdist.types import Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["AppendStage", "DeleteStage"]

PROBES = (4, 10)  # nearest cells a row looks into, at levels 0 and 1
REACH = (2, 4)  # a row is met by those that have its cell among so many nearest
LOOKS = (2, 1)
SETTLED = (
    0.002  # share of neighbours that the last look changed, below which another is not worth it
)
SCAN, POLISH, EVERYTHING = 2, 3, 4


class AppendStage:
    """Inputs: graph; vectors, the grown ones (`append_vectors`); lists (`graph_lists`); segment,
    the new rows' cells. The graph over old and new rows."""

    name: ClassVar[str] = "append"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        refuse_zero_rows(job.inputs["vectors"], resolve(World(context).promise.measure))
        return _next(job, rounds, context, "new")

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: Any, rows: int, dim: int) -> Forecast:
        """Cost of appending to n rows a hundredth as many, k taken for 32."""
        return _forecast(rows, dim)


class DeleteStage:
    """Inputs: graph, its vectors, lists (`graph_lists`). The graph without some rows."""

    name: ClassVar[str] = "delete"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        world = World(context)
        if world.living <= world.k:
            raise InputError(
                f"{len(world.gone)} of {world.rows} rows deleted leave {world.living}, and k ="
                f" {world.k} neighbours need at least {world.k + 1}: delete fewer, or build a graph"
                " with a smaller k"
            )
        return _next(job, rounds, context, "broken")

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: Any, rows: int, dim: int) -> Forecast:
        """Cost of deleting a hundredth of n rows, k taken for 32."""
        return _forecast(rows, dim)


def _forecast(rows: int, dim: int) -> Forecast:
    panel = min(block_rows(rows, dim), rows)
    few, probed = rows / 100, min(rows, 24 * rows**0.5)
    return Forecast(
        tasks=4 * -(-rows // panel) + 32,
        nbytes=20 * dim * panel + (192 << 20),
        flops=2.0 * dim * (few * probed + 2 * SIZES[0] * rows),
        written=int(few * 32 * 600),
    )


def _next(job: Job, rounds: Rounds, context: Context, of: Asked) -> Round | Commit:
    """The first round of the story that is not committed yet; else the manifest."""
    telling = _Story(World(context), of, rounds).rounds()
    while True:
        try:
            step = next(telling)
        except StopIteration as end:
            return _manifest(job, rounds, World(context), of, end.value)
        if step.name not in rounds:
            return step


@dataclass(frozen=True, slots=True)
class _End:
    """How it ended. settled: the round whose lists stand. level: of effort, the last."""

    settled: str
    level: int
    recall: Recall | None
    recall_asked: Recall | None


@dataclass(slots=True)
class _Seen:
    """What was looked at so far. graphs: how many. size: the samples', of SIZES. truths: rounds
    that found sampled rows' neighbours -> [first, last] of the draws."""

    graphs: int = 0
    size: int = 0
    truths: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Story:
    """The rounds in order. Past a `yield`, the round is committed and its facts can be read."""

    world: World
    of: Asked
    done: Rounds

    def rounds(self) -> Generator[Round, None, _End]:
        world, of, exact = self.world, self.of, self.world.promise.method == "exact"
        lists, settled, seen = "", "", _Seen()
        if of == "broken":
            yield self._each_panel("broken", "broken", {})
        if of == "broken" and not exact:
            yield self._each_panel("back", "back", {})
            lists = "start-0"
            args: dict[str, Json] = {"of": of, "settled": "", "back": "back"}
            yield self._each_chunk(lists, "start", args, start_nbytes)
        level = SCAN if exact else 0
        while True:
            asked: Asked = of if level <= SCAN else "all"
            lists, offers = yield from self._searched(asked, level, lists, settled)
            args = {"of": asked, "settled": settled, "lists": lists, "offers": offers}
            settled = f"settle-{level}"
            yield self._each_panel(settled, "settle", args)
            if exact or level == EVERYTHING:
                counts = world.living, asked_rows(world, of)
                certain = [
                    _certain(rows, world.promise.recall) if rows else None for rows in counts
                ]
                end = _End(settled, level, *certain)
                break
            short = sum(int(record.facts["short"]) for record in self.done[lists])
            end = yield from self._measured(level, settled, seen)
            passed = [_kept(recall) for recall in (end.recall, end.recall_asked)]
            if all(passed) and not short:
                break
            blameless = passed[1] and not short
            level = max(level + 1, POLISH if blameless else 0)
        yield self._finish(end.settled)
        return end

    def _searched(
        self, of: Asked, level: int, lists: str, settled: str
    ) -> Generator[Round, None, tuple[str, list[str]]]:
        """The asked rows' lists at a level; the round that has them, and those that offer."""
        args: dict[str, Json] = {"of": of, "settled": settled}
        if level in (SCAN, EVERYTHING):
            yield self._each_chunk(f"scan-{level}", "scan", args, scan_nbytes)
            return f"scan-{level}", [f"scan-{level}"]
        offers: list[str] = []
        if level == POLISH:
            lists, looks = f"start-{level}", LOOKS[0]
            yield self._each_chunk(lists, "start", {**args, "back": ""}, start_nbytes)
        else:
            looks = LOOKS[level]
            if of == "new" or level:
                probing = {"probes": PROBES[level], "reach": REACH[level], "before": lists}
                name = f"near-{level}"
                yield self._each_chunk(name, "near", {**args, **probing}, near_nbytes)
                lists = name
                offers.append(name)
        seen = ""
        for number in range(1, looks + 1):
            name = f"look-{level}-{number}"
            looking = {**args, "before": lists, "seen": seen}
            yield self._each_chunk(name, "look", looking, look_nbytes)
            seen, lists = lists, name
            offers.append(name)
            if self._fresh(name) < SETTLED:
                break
        return lists, offers

    def _fresh(self, name: str) -> float:
        """The share of neighbours that a look changed."""
        facts = [record.facts for record in self.done[name]]
        rows = sum(int(fact["rows"]) for fact in facts)
        return sum(float(fact["fresh"]) * int(fact["rows"]) for fact in facts) / max(rows, 1)

    def _each_chunk(
        self, name: str, kind: str, args: Mapping[str, Json], nbytes: Callable[[World, int], int]
    ) -> Round:
        """A task each chunk of asked rows."""
        tasks = []
        for chunk, (low, high) in enumerate(self.world.spans(args["of"])):
            rows = high - low
            if args["of"] == "broken":
                rows = len(self.world.asked("broken", chunk))
            own = {**args, "chunk": chunk}
            tasks.append(Task(f"{name}-{chunk:06d}", kind, own, nbytes(self.world, rows)))
        return Round(name, tuple(tasks))

    def _each_panel(self, name: str, kind: str, args: Mapping[str, Json]) -> Round:
        """A task each panel of lists."""
        nbytes = settle_nbytes(self.world)
        panels = range(self.world.list_panels)
        return Round(
            name,
            tuple(Task(f"{name}-{p:06d}", kind, {**args, "panel": p}, nbytes) for p in panels),
        )

    def _finish(self, settled: str) -> Round:
        """The changed lists as Parquet, those panels that have any."""
        nbytes = settle_nbytes(self.world)
        args = {"settled": settled}
        return Round(
            "finish",
            tuple(
                Task(f"finish-{p:06d}", "finish", {**args, "panel": p}, nbytes)
                for p, record in enumerate(self.done[settled])
                if record.objects
            ),
        )

    def _measured(self, level: int, settled: str, seen: _Seen) -> Generator[Round, None, _End]:
        """Recall of the lists on both samples; on larger ones where these may show that it does."""
        seen.graphs += 1
        while True:
            yield from self._truths(seen)
            name = f"check-{level}-{SIZES[seen.size]}"
            args = {
                "of": self.of,
                "settled": settled,
                "truths": dict(seen.truths),
                "look": [seen.graphs, seen.size],
            }
            nbytes = (16 << 20) + 200 * 2 * SIZES[seen.size] * self.world.k
            nbytes += 24 * self.world.k * min(self.world.lists.panel_rows, self.world.rows)
            yield Round(name, (Task(name, "check", args, nbytes),))
            facts = self.done[name][0].facts
            recall, asked = (
                None if facts[role] is None else Recall.from_json(facts[role])
                for role in ("recall", "recall_asked")
            )
            if facts["enough"] is None or facts["enough"] <= seen.size:
                return _End(settled, level, recall, asked)
            seen.size = int(facts["enough"])

    def _truths(self, seen: _Seen) -> Iterator[Round]:
        """Exact neighbours of the rows sampled by now, round by round of what each size adds."""
        for first, last in zip((0, *SIZES), SIZES[: seen.size + 1], strict=False):
            name = f"truth-{first}-{last}"
            args = {"of": self.of, "first": first, "last": last}
            nbytes = truth_nbytes(self.world, 2 * (last - first))
            yield Round(
                name,
                tuple(
                    Task(f"{name}-{p:06d}", "truth", {**args, "panel": p}, nbytes)
                    for p in range(self.world.panels.blocks)
                ),
            )
            seen.truths[name] = [first, last]


def _kept(recall: Recall | None) -> bool:
    """Whether the promise is kept, where there are rows and a promise."""
    return recall is None or recall.target is None or recall.low >= recall.target


def _certain(rows: int, target: float | None) -> Recall:
    """The recall of lists that every pair was looked at for."""
    return Recall(1.0, 1.0, 1.0, tie_aware=1.0, p5=1.0, rows=rows, target=target)


def _manifest(job: Job, rounds: Rounds, world: World, of: Asked, end: _End) -> Commit:
    """The graph's shards as they are, and behind them what changed."""
    promise, graph = world.promise, world.graph
    before = [
        Shard(shard.rows, shard.objects, {**shard.facts, "change": "older"})
        if "change" in shard.facts
        else shard
        for shard in graph.shards
    ]
    changes = [
        Shard(
            int(record.facts["rows"]),
            record.objects,
            {"change": "newest", "panel": record.facts["panel"]},
        )
        for record in rounds["finish"]
    ]
    asked = asked_rows(world, of)
    role = "new" if of == "new" else "repaired"
    metrics: dict[str, Json] = {
        "k": promise.k,
        "measure": world.measure.name,
        "method": promise.method,
        "edges": world.living * promise.k,
        "recall": None if end.recall is None else end.recall.to_json(),
        f"recall_{role}": None if end.recall_asked is None else end.recall_asked.to_json(),
        "deleted": len(world.gone),
        f"rows_{role}": asked,
        "lists_changed": sum(int(record.facts["changed"]) for record in rounds[end.settled]),
        "level": end.level,
        "rounds": list(rounds),
        "pairs_scored": sum(
            int(record.facts.get("scored", 0)) for records in rounds.values() for record in records
        ),
    }
    objects: dict[str, ObjectRef] = {}
    if len(world.gone):
        objects["tombstones"] = world.context.write_array("tombstones", world.gone)
    config = {**promise.to_json(), **job.config.to_json()}
    return Commit(world.rows, (*before, *changes), metrics, objects, config=config)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "broken": compute_broken,
    "back": compute_back,
    "near": compute_near,
    "look": compute_look,
    "scan": compute_scan,
    "start": compute_start,
    "settle": compute_settle,
    "truth": compute_truth,
    "check": compute_check,
    "finish": compute_finish,
}
