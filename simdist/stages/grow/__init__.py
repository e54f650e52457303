"""Growing a k-NN graph: rows appended, rows deleted, without building it again.

    vectors ─┐                     ┌─ graph_lists   its lists by row number, once
    new rows ┴─ append_vectors ──┐ │
    graph ───── segment ─────────┴─┴─ append ──> graph: its shards as they are, and changes
             the new rows' cells        │        laid over them (new rows, lists that gained)
                                        │
    graph ── rows to delete ──────── delete ──> graph: tombstones, and lists that were repaired
    grown graph ─────────────────── compact ──> plain graph, over one partition of all rows

    lineage.py   what a graph was built on and what it promised, from its manifest
    world.py     what a task looks at: vectors and lists by row, who is gone, who is asked for
    search.py    lists of the rows asked for: through cells, among neighbours, among all
    settle.py    lists of k that changed          check.py   recall on two samples
    story.py     which round follows which, and when the promise is kept

A row keeps its number for ever. What is costly is proportional to the rows asked for (those new, or
those that lost a neighbour); reading lists, ids and the rows that recall is checked against is
linear in all rows, with small factors.
"""

from simdist.stages.grow.compact import CompactStage
from simdist.stages.grow.config import CompactConfig, GrowConfig, PlainConfig
from simdist.stages.grow.lineage import (
    GROWN,
    partition_of,
    promise_of,
    segments_of,
    vectors_of,
)
from simdist.stages.grow.lists import GraphLists
from simdist.stages.grow.segment import SegmentStage
from simdist.stages.grow.story import AppendStage, DeleteStage
from simdist.stages.grow.vectors import AppendVectors

__all__ = [
    "GROWN",
    "AppendStage",
    "AppendVectors",
    "CompactConfig",
    "CompactStage",
    "DeleteStage",
    "GraphLists",
    "GrowConfig",
    "PlainConfig",
    "SegmentStage",
    "partition_of",
    "promise_of",
    "segments_of",
    "vectors_of",
]
