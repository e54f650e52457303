"""What the largest task of a k-NN graph holds, known from n, d and the config before any runs.

Every kind of task states its bytes by a function of its own, where it is computed; here they are
asked for data that is not partitioned yet. What depends on the data (how large cells are, which
level of effort it takes, how many rows are in doubt) is taken at its worst, so that a budget that
holds this holds the job to its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simdist.measures import resolve
from simdist.partitions import FANOUT, block_rows, has_codes
from simdist.stages.graph.exact import exact_nbytes
from simdist.stages.graph.finish import finish_nbytes, rerank_nbytes
from simdist.stages.graph.joins import join_nbytes
from simdist.stages.graph.leaves import cell_cap, leaf_goal, leaf_nbytes, leaf_passes
from simdist.stages.graph.lists import links_nbytes
from simdist.stages.graph.merges import merge_nbytes, rescore_nbytes
from simdist.stages.graph.walk import walk_nbytes
from simdist.tiles import TopK
from simdist.tiles.memory import exact_memory, fold_memory, rerank_memory

if TYPE_CHECKING:
    from simdist.measures.base import Measure
    from simdist.partitions import Blocked
    from simdist.stages.graph.config import KnnGraphConfig

__all__ = ["SLACK", "check_nbytes", "largest_nbytes", "truth_nbytes"]

SLACK = 8  # candidates of a block beyond k: more make fewer rows doubtful


@dataclass(frozen=True, slots=True)
class _Planned:
    """A partition before there is one."""

    rows: int
    dim: int
    measure: Measure

    @property
    def block_rows(self) -> int:
        return block_rows(self.rows, self.dim)


def largest_nbytes(config: KnnGraphConfig, rows: int, dim: int) -> int:
    """No task of the approximate stage holds more, on whatever n rows of d dimensions."""
    params = config.resolved
    planned = _Planned(rows, dim, resolve(config.measure))
    known = max(FANOUT, params.fanout)
    coded = has_codes(planned.measure)
    caps = {
        way.leaf_rows: min(cell_cap(dim, way.leaf_rows, coded=coded), rows)
        for way in leaf_passes(params, rows, known)
    }
    goal = leaf_goal(2 * rows * known, dim, coded=coded)
    sizes = params.sample_sizes(rows)
    sampled = max(b - a for a, b in zip((0, *sizes), sizes, strict=False))
    widths = (params.links, params.keep)
    return max(
        *(
            leaf_nbytes(dim, params, leaf, held=cap, rows=max(cap, goal), coded=coded)
            for leaf, cap in caps.items()
        ),
        merge_nbytes(planned, params),
        *(links_nbytes(planned, params, width) for width in widths),
        *(join_nbytes(planned, params, width) for width in widths if coded),
        *(walk_nbytes(planned, params, width) for width in widths if not coded),
        rescore_nbytes(planned, params),
        walk_nbytes(planned, params, params.keep),
        truth_nbytes(planned, config, sampled),
        check_nbytes(planned, config, sizes[-1]),
        finish_nbytes(planned, params.keep, config.k),
        exact_nbytes(config.k, rows, dim),
    )


def truth_nbytes(partition: Blocked, config: KnnGraphConfig, rows: int) -> int:
    """What finding the neighbours of some sampled rows in one block holds at most."""
    dim, k = partition.dim, config.k
    columns = min(partition.block_rows, partition.rows)
    top = TopK(k + SLACK)
    listed = rerank_memory(rows, columns, dim, k + SLACK, k).nbytes
    redone = exact_memory(rows, columns, dim, k).nbytes
    folded = fold_memory(partition.measure, top, rows, columns, dim).nbytes
    copied = 4 * max(rows, columns) * dim  # counted by each, but the rows come prepared
    return 12 * rows * (k + SLACK) + max(folded, listed, redone) - copied


def check_nbytes(partition: Blocked, config: KnnGraphConfig, rows: int) -> int:
    """What measuring recall on so many sampled rows holds at most."""
    keep = config.resolved.keep
    return rows * (24 * config.k + 4 * keep) + rerank_nbytes(partition, keep)
