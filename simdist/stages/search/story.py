"""The stages: which round follows which, what is refused, and the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from simdist.errors import InputError
from simdist.inverted import TURNS, trained_rows
from simdist.panels import refuse_zero_rows
from simdist.recall import Recall
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.search.config import SearchConfig
from simdist.stages.search.cost import forecast
from simdist.stages.search.passing import (
    compute_filter,
    compute_place,
    filter_round,
    place_round,
)
from simdist.stages.search.scan import (
    compute_probe,
    compute_scan,
    compute_settle,
    probe_round,
    scan_round,
    settle_round,
)
from simdist.stages.search.truth import (
    choose_round,
    compute_choose,
    compute_truth,
    truth_round,
)
from simdist.stages.search.where import read_where
from simdist.stages.search.world import World
from simdist.store.datasets import Shard
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["KnnSearch", "Retrieve", "every_row"]

CODED = 2  # rows compared by codes in the time of one that is compared exactly
SHARE = 1 / 16  # of the rows: what probes look at, by and large


class KnnSearch:
    """Lists of k: see the package's docstring. Inputs: queries, corpus and, for the approximate
    method, the corpus' partition and its index."""

    name: ClassVar[str] = "knn"
    VERSION: ClassVar[int] = 3

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        world = World(context)
        _refuse_unlike(job, world)
        corpus, k = job.inputs["corpus"], job.config.k
        if corpus.rows < k:
            raise InputError(
                f"k={k} neighbours need a corpus of at least as many rows; {corpus.uri} has"
                f" {corpus.rows}. Ask for k <= {corpus.rows}."
            )
        for step in _story(world, rounds, ragged=False):
            if step.name not in rounds:
                return step
        metrics = {**_metrics(world, rounds), "edges": world.queries.rows * k}
        return _commit(world, rounds, metrics)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(
        self, config: SearchConfig, rows: int, dim: int, *, corpus: int | None = None
    ) -> Forecast:
        """Cost of some queries against a corpus of so many rows, by default of as many."""
        return forecast(config, rows, dim, rows if corpus is None else corpus)


class Retrieve:
    """Lists of up to k, of the rows that pass a condition. Inputs as for `KnnSearch`."""

    name: ClassVar[str] = "retrieve"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        world = World(context)
        _refuse_unlike(job, world)
        if world.filtered and "filter" not in rounds:
            read_where(job.config.where).check(job.inputs["corpus"])
        for step in _story(world, rounds, ragged=True):
            if step.name not in rounds:
                return step
        told = rounds["settle"]
        metrics = {
            **_metrics(world, rounds),
            "passing": world.rows,
            "hits": sum(int(record.facts["hits"]) for record in told),
            "shortest": min(int(record.facts["shortest"]) for record in told),
        }
        return _commit(world, rounds, metrics)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(
        self, config: SearchConfig, rows: int, dim: int, *, corpus: int | None = None
    ) -> Forecast:
        """Cost of some queries against a corpus of so many rows, by default of as many; all of them
        pass."""
        return forecast(config, rows, dim, rows if corpus is None else corpus)


def _refuse_unlike(job: Job, world: World) -> None:
    queries, corpus = world.queries, job.inputs["corpus"]
    if int(corpus.metrics["dim"]) != queries.dim:
        raise InputError(
            f"queries have {queries.dim} dimensions, the corpus {corpus.metrics['dim']}"
            f" ({corpus.uri}): they must come from the same embedding."
        )
    for role in ("queries", "corpus"):
        refuse_zero_rows(job.inputs[role], world.measure)


def every_row(
    config: SearchConfig, queries: int, rows: int, cells: int, *, unsorted: int = 0
) -> bool:
    """Whether comparing every query with every row is less work than measuring a sample of them and
    probing: with m queries, s of them sampled, p rows that pass and C cells,

        CODED m p  <=  CODED s p + m (C + p / 16) + C (n + 6 t)

    in comparisons by code. The last is what n rows cost that are not in cells yet, t of which train
    them. So where all queries would be sampled, or few rows pass. Never where probes are given.
    """
    if config.probes is not None:
        return rows == 0
    sample = min(config.sample, queries)
    probing = queries * (cells + SHARE * rows)
    trained = TURNS * trained_rows(unsorted, cells) if unsorted else 0
    return CODED * (queries - sample) * rows <= probing + cells * (unsorted + trained)


def _story(world: World, done: Rounds, *, ragged: bool) -> Iterator[Round]:
    """The rounds in order. Past a `yield`, the round is committed."""
    config = world.config
    if world.filtered:
        yield filter_round(world)
    scans = config.method == "exact"
    if not scans and ragged:
        scans = every_row(config, world.queries.rows, world.rows, world.index.cells)
    if not scans:
        if world.filtered:
            yield place_round(world)
        probes = min(config.probes or 1, world.index.cells)
        if not ragged or config.recall is not None or config.probes is None:
            yield truth_round(world)
            yield choose_round(world)
            probes = int(done["choose"][0].facts["probes"])
        else:
            probes = min(probes, int((world.held > 0).sum()))
        if probes:
            yield probe_round(world, probes)
        scans = not probes
    if scans and world.rows:
        yield scan_round(world)
    yield settle_round(world, "scan" if scans else "probe", ragged=ragged)


def _metrics(world: World, rounds: Rounds) -> dict[str, Json]:
    config = world.config
    metrics: dict[str, Json] = {
        "k": config.k,
        "measure": world.measure.name,
        "method": "approximate" if "probe" in rounds else "exact",
        "corpus": world.corpus.rows,
        "rounds": list(rounds),
    }
    if "probe" not in rounds:
        certain = Recall(1.0, 1.0, 1.0, tie_aware=1.0, p5=1.0, rows=world.queries.rows)
        return {**metrics, "recall": certain.to_json()}
    metrics["cells"] = world.index.cells
    if "choose" in rounds:
        return {**metrics, **rounds["choose"][0].facts}
    return {**metrics, "probes": min(config.probes or 1, world.index.cells), "recall": None}


def _commit(world: World, rounds: Rounds, metrics: Mapping[str, Json]) -> Commit:
    shards = []
    for chunk, record in enumerate(rounds["settle"]):
        first, last = world.queries.span(chunk)
        shards.append(Shard(last - first, record.objects))
    return Commit(rows=world.queries.rows, shards=tuple(shards), metrics=metrics)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "filter": compute_filter,
    "place": compute_place,
    "truth": compute_truth,
    "choose": compute_choose,
    "probe": compute_probe,
    "scan": compute_scan,
    "settle": compute_settle,
}
