"""The approximate stage: which round follows which, and when the recall asked for is reached.

Effort rises in levels until the sampled recall passes; each level starts from the lists so far:

    0  leaves of the nearest cells, then joins                     (KnnParams)
    1  joins over wider links
    2  other leaves, of all cells a row knows, then joins
    3  the same, in leaves four times as large; then sixteen times
    5  the lists scored anew in float32, then walks                (where rows have codes)
    6  all pairs, as the exact stage does: recall 1, whatever the data

Where hardly a neighbour may be missing and rows are few, level 6 comes at once.
What leaves alone find tells how hard the data is. Where that is little, joins have nothing to go
on, and larger leaves follow at once. Levels that would cost as much as all pairs are left out.

Recall is measured after each join (the sampled rows' true neighbours are found once), and a level
ends when it is reached or when the last join changed almost nothing. Before the next level begins,
more rows are sampled where few more would do. The more graphs have been looked at, the surer a look
must be: see simdist.recall.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.measures import resolve
from simdist.panels import RowPanels
from simdist.partitions import Partition, block_rows, has_codes
from simdist.recall import Look
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.costs import Typical, graph_rounds, typical_of
from simdist.stages.graph.check import (
    check_round,
    compute_check,
    compute_truth,
    recall_of,
    truth_round,
)
from simdist.stages.graph.config import KnnGraphConfig, KnnParams, refuse_too_few_rows
from simdist.stages.graph.cost import work_of
from simdist.stages.graph.exact import EXACT, certain, exact_forecast, exact_rounds, exact_shards
from simdist.stages.graph.finish import compute_finish, finish_nbytes
from simdist.stages.graph.forecast import largest_nbytes
from simdist.stages.graph.joins import compute_join, join_nbytes
from simdist.stages.graph.leaves import LeafPass, compute_leaves, leaf_passes, leaf_rounds
from simdist.stages.graph.lists import block_round, compute_edges, compute_links, links_nbytes
from simdist.stages.graph.merges import compute_merge, compute_rescore, merge_nbytes, rescore_nbytes
from simdist.stages.graph.walk import compute_walk, walk_nbytes
from simdist.store.datasets import Dataset, Shard
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.recall import Recall
    from simdist.runner.context import Context

__all__ = ["ApproximateKnnGraph"]

SETTLED = 0.002  # share of neighbours the last join changed below which another is not worth it
MOST_JOINS = 6  # of one level
FIRST, WIDER, OTHER_LEAVES, PRECISE = 0, 1, 2, 5  # levels of effort
HARD_CELL = (
    0.12  # share of a row's neighbours that leaves of one cell find; below, the data is hard
)
HARD = 0.5  # recall of larger leaves below which joins wait for still larger ones
WORTH_WALKING = 1 << 17  # rows: all pairs of fewer cost less than walks and what follows them
WORTH_SAMPLING = 4000  # rows: finding the neighbours of more costs more than the next level's joins
HARDLY_MISSING = 0.001  # of the neighbours: of few rows, all pairs cost less than to get there


class ApproximateKnnGraph:
    """See the package docstring."""

    name: ClassVar[str] = "knn_graph"
    VERSION: ClassVar[int] = 5

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        refuse_too_few_rows(job.config.k, job.inputs["vectors"].rows, job.inputs["vectors"].uri)
        partition = Partition.of(job.inputs["partition"])
        telling = _Story(job.config, job.inputs["vectors"], partition, rounds).rounds()
        while True:
            try:
                step = next(telling)
            except StopIteration as end:
                recall, shards = end.value
                return _manifest(job.config, partition.rows, rounds, shards, recall)
            if step.name not in rounds:
                return step

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def typical(
        self, config: KnnGraphConfig, rows: int, dim: int, seen: Mapping[str, Mapping[str, float]]
    ) -> Typical:
        """What the data of a graph that was built decided; seen: facts by round."""
        return typical_of(work_of(config, rows, dim), seen)

    def forecast(
        self, config: KnnGraphConfig, rows: int, dim: int, *, typical: Typical | None = None
    ) -> Forecast:
        """Cost of level 0 and one check; further levels only where recall asks for them. typical:
        what the data decides, where that is known."""
        if _all_pairs_at_once(config, rows, coded=has_codes(resolve(config.measure))):
            return exact_forecast(config, rows, dim)
        params = config.resolved
        blocks = -(-rows // block_rows(rows, dim))
        copies = 2 * params.fanout * rows
        joined = params.joins * rows * min((2 * params.links) ** 2 / 4, 2048)
        lists = rows * params.keep * 9 * (1 + params.joins)
        return Forecast(
            tasks=blocks * (3 + 2 * params.joins) + 2 + copies * 2 * dim // (32 << 20),
            nbytes=largest_nbytes(config, rows, dim),
            flops=2.0 * dim * (copies * params.leaf_rows / 2 + joined + params.sample * rows),
            written=int(copies * params.leaf_neighbors * 8 + 2.5 * lists + rows * config.k * 12),
            rounds=graph_rounds(work_of(config, rows, dim, typical)),
        )


@dataclass(frozen=True, slots=True)
class _Story:
    """The rounds in order. Past a `yield`, the round is committed and its facts can be read."""

    config: KnnGraphConfig
    vectors: Dataset
    partition: Partition
    done: Rounds

    def rounds(self) -> Generator[Round, None, tuple[Recall, tuple[Shard, ...]]]:
        """Yields every round; returns the recall reached and the finished graph."""
        lists, seen, hard = "", _Seen(), False
        for level in self._levels():
            if hard and level in (WIDER, OTHER_LEAVES):
                continue  # larger leaves first
            if level == PRECISE:
                lists = yield from self._rescored(lists)
            elif level != WIDER:
                lists = yield from self._leaves(level, lists)
            if self._too_early(level, seen):
                hard = yield from self._found_little(level, lists, seen)
                if hard:
                    continue
            lists, recall = yield from self._improved(level, lists, seen)
            if recall.target is None or recall.low >= recall.target:
                return recall, (yield from self._finished(lists))
        panels = RowPanels(self.vectors, self.partition.measure)
        yield from exact_rounds(self.config, panels, self.done)
        return certain(panels.rows, self.config.recall), exact_shards(panels, self.done)

    def _levels(self) -> Iterator[int]:
        """Levels that cost less than all pairs. Without codes, all of them score in float32."""
        if _all_pairs_at_once(self.config, self.partition.rows, coded=self.partition.coded):
            return
        yield FIRST
        yield WIDER
        yield from range(OTHER_LEAVES, OTHER_LEAVES + len(self._passes) - 1)
        if self.partition.coded and self.partition.rows > WORTH_WALKING:
            yield PRECISE

    @property
    def _passes(self) -> tuple[LeafPass, ...]:
        return leaf_passes(self.config.resolved, self.partition.rows, self._known)

    @property
    def _known(self) -> int:
        """How many cells the partition keeps for each row."""
        return int(self.partition.dataset.manifest.metrics["fanout"])

    def _finished(self, lists: str) -> Generator[Round, None, tuple[Shard, ...]]:
        """The lists as Parquet, block by block of cell order."""
        nbytes = finish_nbytes(self.partition, self.config.resolved.keep, self.config.k)
        args: dict[str, Json] = {"lists": lists}
        yield block_round("finish", "finish", self.partition, nbytes, args, consumes=(lists,))
        spans = (self.partition.span(block) for block in range(self.partition.blocks))
        return tuple(
            Shard(last - first, record.objects)
            for record, (first, last) in zip(self.done["finish"], spans, strict=True)
        )

    def _leaves(self, level: int, lists: str) -> Generator[Round, None, str]:
        """Leaves merged into the lists so far; the name of the round that has the new ones."""
        way = self._passes[max(0, level - WIDER)]
        width = self._width(level)
        for wave in leaf_rounds(f"leaves-{level}", self.partition, self.config.resolved, way):
            yield wave
            lists = yield from self._merged(wave.name, lists or None, 0, width)
        return lists

    def _too_early(self, level: int, seen: _Seen) -> bool:
        """Whether to ask first if joins have enough to go on: a target is set, no join was made,
        and there are larger leaves to make."""
        larger = level != WIDER and max(level, OTHER_LEAVES) < len(self._passes)
        least = self.config.resolved.joins
        return bool(self.config.recall and least and seen.graphs == 0 and larger)

    def _found_little(self, level: int, lists: str, seen: _Seen) -> Generator[Round, None, bool]:
        """Whether leaves alone found so little that the data is hard. Nothing ends here: this look
        at the graph takes no share of the surety."""
        sizes = self.config.resolved.sample_sizes(self.partition.rows)
        yield from self._truths(seen, sizes)
        name = f"pilot-{level}"
        look = Look(1, seen.size)
        yield check_round(name, self.partition, self.config, lists, dict(seen.truths), look)
        found = recall_of(self.done[name][0]).estimate
        if level != FIRST:
            return bool(found < HARD)
        return bool(1.0 - (1.0 - found) ** (1.0 / self._passes[0].ranks) < HARD_CELL)

    def _merged(
        self, proposals: str, lists: str | None, joined: int, links: int
    ) -> Generator[Round, None, str]:
        """What a round proposes, merged into lists; links: how many the next join will use."""
        name = f"merge-{proposals}"
        edges = 0 if self.partition.in_place else links
        args = {"proposals": proposals, "lists": lists, "joined": joined, "links": edges}
        nbytes = merge_nbytes(self.partition, self.config.resolved)
        consumes = (proposals,) if lists is None else (proposals, lists)
        yield block_round(name, "merge", self.partition, nbytes, args, consumes=consumes)
        return name

    def _rescored(self, lists: str) -> Generator[Round, None, str]:
        """The same lists, each candidate scored as walks score."""
        width = self._width(PRECISE)
        nbytes = rescore_nbytes(self.partition, self.config.resolved)
        args: dict[str, Json] = {"lists": lists, "links": width}
        yield block_round("rescore", "rescore", self.partition, nbytes, args)
        return "rescore"

    def _width(self, level: int) -> int:
        """How many links each way a join of a level uses."""
        params = self.config.resolved
        return params.links if level == FIRST else params.keep

    def _improved(
        self, level: int, lists: str, seen: _Seen
    ) -> Generator[Round, None, tuple[str, Recall]]:
        """Joins, measured one by one, until the recall is reached or a join changes little."""
        least = self.config.resolved.joins if level == FIRST else 1
        number = 0
        while True:
            if number >= least:
                over = number == MOST_JOINS or self._settled(lists)
                most = self._most_sampled(level) if over else 0
                recall = yield from self._measured(f"{level}-{number}", lists, seen, most)
                if over or recall.target is None or recall.low >= recall.target:
                    return lists, recall
            number += 1
            lists = yield from self._joined(level, number, lists)

    def _joined(self, level: int, number: int, lists: str) -> Generator[Round, None, str]:
        """One join, or walk, over a level's links."""
        params, name, width = self.config.resolved, f"{level}-{number}", self._width(level)
        nbytes = links_nbytes(self.partition, params, width)
        args: dict[str, Json] = {"lists": lists, "links": width}
        in_place = self.partition.in_place
        edges = f"edges-{name}" if in_place else lists
        if in_place:
            yield block_round(edges, "edges", self.partition, nbytes, args)
        yield block_round(
            f"links-{name}",
            "links",
            self.partition,
            nbytes,
            args | {"edges": edges},
            consumes=(edges,) if in_place else (),
        )
        args = {"lists": lists, "links": f"links-{name}", "width": width}
        if level == PRECISE or not self.partition.coded:
            nbytes = walk_nbytes(self.partition, params, width)
            yield block_round(
                f"walk-{name}",
                "walk",
                self.partition,
                nbytes,
                args,
                consumes=(f"links-{name}", lists),
            )
            return f"walk-{name}"
        nbytes = join_nbytes(self.partition, params, width)
        yield block_round(
            f"join-{name}", "join", self.partition, nbytes, args, consumes=(f"links-{name}",)
        )
        return (yield from self._merged(f"join-{name}", lists, width, width))

    def _settled(self, lists: str) -> bool:
        """Whether the round that left these lists changed too little for another like it."""
        changed = np.mean([float(record.facts["fresh"]) for record in self.done[lists]])
        return bool(changed < SETTLED)

    def _most_sampled(self, level: int) -> int:
        """How many rows are worth sampling before the next level: walks and all pairs cost more
        than any."""
        after = [later for later in self._levels() if later > level]
        cheap = bool(after) and after[0] != PRECISE
        return WORTH_SAMPLING if cheap else self.config.resolved.sample_limit

    def _measured(
        self, step: str, lists: str, seen: _Seen, most: int
    ) -> Generator[Round, None, Recall]:
        """Recall of the lists, on the rows sampled so far, and on more where it does not pass and
        up to `most` rows may show that it does.

        While another join would help, that is the work better spent: `most` is 0 then.
        """
        sizes = self.config.resolved.sample_sizes(self.partition.rows)
        seen.graphs += 1
        while True:
            yield from self._truths(seen, sizes)
            check = f"check-{step}-{sizes[seen.size]}"
            look = Look(seen.graphs, seen.size)
            yield check_round(check, self.partition, self.config, lists, dict(seen.truths), look)
            record = self.done[check][0]
            recall, enough = recall_of(record), record.facts["enough"]
            size = len(sizes) - 1 if enough is None else enough
            target = recall.target
            straddles = target is not None and recall.low < target < recall.estimate
            if not straddles or size == seen.size or sizes[size] > most:
                return recall
            seen.size = size

    def _truths(self, seen: _Seen, sizes: Sequence[int]) -> Iterator[Round]:
        """Exact neighbours of the rows sampled by now, round by round of what each size adds."""
        for first, last in zip((0, *sizes), sizes[: seen.size + 1], strict=False):
            name = f"truth-{first}-{last}"
            yield truth_round(name, self.partition, self.config, first, last)
            seen.truths[name] = [first, last]


def _all_pairs_at_once(config: KnnGraphConfig, rows: int, *, coded: bool) -> bool:
    """Whether levels would most likely end with all pairs, which cost little more than they: hardly
    a neighbour may be missing, rows are few, and no knob was pinned."""
    missing = 1.0 if config.recall is None else 1.0 - config.recall
    hardly = missing <= HARDLY_MISSING * (1 + 1e-9)
    return coded and hardly and rows <= WORTH_WALKING and config.params == KnnParams()


@dataclass(slots=True)
class _Seen:
    """What was looked at so far; it grows as the story is told, anew each time it is told.

    graphs: how many. size: the sample's, by its place among `sample_sizes`. truths: rounds that
    found the neighbours of sampled rows -> [first, last] of the draw.
    """

    graphs: int = 0
    size: int = 0
    truths: dict[str, list[int]] = field(default_factory=dict)


def _manifest(
    config: KnnGraphConfig,
    rows: int,
    rounds: Rounds,
    shards: tuple[Shard, ...],
    recall: Recall,
) -> Commit:
    every_pair = rows * (rows - 1) // 2 if "pairs" in rounds else 0
    return Commit(
        rows=rows,
        shards=shards,
        metrics={
            "k": config.k,
            "measure": resolve(config.measure).name,
            "method": config.method,
            "edges": rows * config.k,
            "recall": recall.to_json(),
            "rounds": list(rounds),
            "pairs_scored": every_pair + _total(rounds, "scored") + _total(rounds, "tile_entries"),
            "filled": _total(rounds, "filled"),
        },
    )


def _total(rounds: Mapping[str, Sequence[Record]], fact: str) -> int:
    return sum(int(r.facts.get(fact, 0)) for records in rounds.values() for r in records)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "leaves": compute_leaves,
    "merge": compute_merge,
    "edges": compute_edges,
    "links": compute_links,
    "join": compute_join,
    "walk": compute_walk,
    "rescore": compute_rescore,
    "truth": compute_truth,
    "check": compute_check,
    "finish": compute_finish,
    **EXACT,
}
