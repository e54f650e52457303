"""What tasks of a search hold at most, from shapes alone."""

from __future__ import annotations

from simdist.inverted import SLACK, width_of
from simdist.measures import Measure
from simdist.partitions import SLICE
from simdist.tiles import TopK
from simdist.tiles.memory import around_nbytes, exact_memory, fold_memory, rerank_memory

__all__ = ["GROUP_NBYTES", "exact_nbytes", "probe_nbytes", "route_nbytes", "settle_nbytes"]


GROUP_NBYTES = 256 << 20  # of vectors in the blocks that one task probes: they stay mapped


def exact_nbytes(measure: Measure, k: int, queries: int, columns: int, dim: int) -> int:
    """Of an exact search of so many queries among so many columns."""
    top = TopK(k + SLACK, exclude_self=False)
    listed = rerank_memory(queries, columns, dim, k + SLACK, k).nbytes
    redone = exact_memory(queries, columns, dim, k).nbytes
    folded = fold_memory(measure, top, queries, columns, dim).nbytes
    moved = around_nbytes(measure, queries, columns, dim)
    return int(24 * queries * (k + SLACK) + max(folded, listed, redone) + moved)


def route_nbytes(queries: int, dim: int, cells: int, probes: int) -> int:
    """Of finding the cells that queries probe, in slices; of each, centres and codes."""
    coded = queries * (13 * dim + 64) + cells * (dim + 64)
    return coded + SLICE * (8 * probes + 80) + queries * 24 * probes + (2 << 20)


def probe_nbytes(
    measure: Measure, k: int, queries: int, rows: tuple[int, int], cells: int, dim: int
) -> int:
    """Of looking into cells, beside the routes. rows: mapped, and of a block."""
    mapped, block = rows
    lists = queries * width_of(k) * 64
    vectors = 5 * dim * mapped + 16 * mapped + 16 * cells
    if measure.traits.gemm:
        return int(lists + vectors + 48 * queries * width_of(k))
    return int(vectors + exact_nbytes(measure, k, queries, block, dim))


def settle_nbytes(k: int, queries: int) -> int:
    """Of merging lists and writing them."""
    return queries * (80 * k + 64) + (16 << 20)
