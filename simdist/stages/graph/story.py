"""The approximate stage: which round follows which, and when the recall asked for is reached.

Effort rises in levels until the sampled recall passes; each level starts from the lists so far:

    0  leaves of the nearest cells, then joins           (KnnParams)
    1  joins over wider links
    2  other leaves, of all cells a row knows, then joins
    3  all pairs, as the exact stage does: recall 1, whatever the data

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
from simdist.partitions import Partition, block_rows
from simdist.recall import Look
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.graph.check import (
    check_round,
    compute_check,
    compute_truth,
    recall_of,
    truth_round,
)
from simdist.stages.graph.config import KnnGraphConfig, refuse_too_few_rows
from simdist.stages.graph.exact import EXACT, certain, exact_rounds, exact_shards
from simdist.stages.graph.finish import compute_finish, finish_nbytes
from simdist.stages.graph.forecast import largest_nbytes
from simdist.stages.graph.leaves import compute_leaves, leaf_round
from simdist.stages.graph.lists import (
    block_round,
    compute_join,
    compute_links,
    compute_merge,
    join_nbytes,
    links_nbytes,
    merge_nbytes,
)
from simdist.store.datasets import Dataset, Shard

if TYPE_CHECKING:
    from simdist.recall import Recall
    from simdist.runner.context import Context

__all__ = ["ApproximateKnnGraph"]

SETTLED = 0.002  # share of neighbours the last join changed below which another is not worth it
MOST_JOINS = 6  # of one level
LAST_LEVEL = 2  # before all pairs
WORTH_SAMPLING = 4000  # rows: finding the neighbours of more costs more than the next level's joins


class ApproximateKnnGraph:
    """See the package docstring."""

    name: ClassVar[str] = "knn_graph"
    VERSION: ClassVar[int] = 2

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

    def forecast(self, config: KnnGraphConfig, rows: int, dim: int) -> Forecast:
        """Cost of level 0 and one check; further levels only where recall asks for them."""
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
        lists, seen = "", _Seen()
        for level in range(LAST_LEVEL + 1):
            if level != 1:
                lists = yield from self._leaves(level, lists)
            lists, recall = yield from self._improved(level, lists, seen)
            if recall.target is None or recall.low >= recall.target:
                return recall, (yield from self._finished(lists))
        panels = RowPanels(self.vectors, self.partition.measure)
        yield from exact_rounds(self.config, panels, self.done)
        return certain(panels.rows, self.config.recall), exact_shards(panels, self.done)

    def _finished(self, lists: str) -> Generator[Round, None, tuple[Shard, ...]]:
        """The lists as Parquet, block by block of cell order."""
        nbytes = finish_nbytes(self.partition, self.config.resolved.keep, self.config.k)
        yield block_round("finish", "finish", self.partition, nbytes, {"lists": lists})
        spans = (self.partition.span(block) for block in range(self.partition.blocks))
        return tuple(
            Shard(last - first, record.objects)
            for record, (first, last) in zip(self.done["finish"], spans, strict=True)
        )

    def _leaves(self, level: int, lists: str) -> Generator[Round, None, str]:
        """Leaves merged into the lists so far; the name of the round that has the new ones."""
        params = self.config.resolved
        known = int(self.partition.dataset.manifest.metrics["fanout"])
        ranks = min(params.fanout, known) if level == 0 else known
        yield leaf_round(f"leaves-{level}", self.partition, params, ranks, level)
        args = {"leaves": f"leaves-{level}", "lists": lists or None}
        nbytes = merge_nbytes(self.partition, params, ranks)
        yield block_round(f"merge-{level}", "merge", self.partition, nbytes, args)
        return f"merge-{level}"

    def _improved(
        self, level: int, lists: str, seen: _Seen
    ) -> Generator[Round, None, tuple[str, Recall]]:
        """Joins, measured one by one, until the recall is reached or a join changes little."""
        params = self.config.resolved
        least, width = (params.joins, params.links) if level == 0 else (1, params.keep)
        number = 0
        while True:
            if number >= least:
                over = number == MOST_JOINS or self._settled(lists)
                most = self._most_sampled(level) if over else 0
                recall = yield from self._measured(f"{level}-{number}", lists, seen, most)
                if over or recall.target is None or recall.low >= recall.target:
                    return lists, recall
            number += 1
            lists = yield from self._joined(f"{level}-{number}", lists, width)

    def _joined(self, name: str, lists: str, width: int) -> Generator[Round, None, str]:
        """One join over links of so many each way."""
        params = self.config.resolved
        nbytes = links_nbytes(self.partition, params, width)
        args = {"lists": lists, "links": width}
        yield block_round(f"links-{name}", "links", self.partition, nbytes, args)
        nbytes = join_nbytes(self.partition, params, width)
        args = {"lists": lists, "links": f"links-{name}", "width": width}
        yield block_round(f"join-{name}", "join", self.partition, nbytes, args)
        return f"join-{name}"

    def _settled(self, lists: str) -> bool:
        """Whether the round that left these lists changed too little for another like it."""
        changed = np.mean([float(record.facts["fresh"]) for record in self.done[lists]])
        return bool(changed < SETTLED)

    def _most_sampled(self, level: int) -> int:
        """How many rows are worth sampling before the next level: all pairs cost more than any."""
        return self.config.resolved.sample_limit if level == LAST_LEVEL else WORTH_SAMPLING

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
    "links": compute_links,
    "join": compute_join,
    "truth": compute_truth,
    "check": compute_check,
    "finish": compute_finish,
    **EXACT,
}
