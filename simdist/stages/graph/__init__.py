"""Stage `knn_graph`: every row's k nearest others, exact or to the recall asked for.

    vectors ──> partition ──> leaves ──> merge ──> (links ──> join ──> merge) x R ──> check
                                 ^                     ^                                │
                                 │     wider links,    └──────── recall too low ────────┤
                                 └──── larger leaves, all pairs <───────────────────────┤
    row, id, neighbors, values  <── finish <── recall reached ──────────────────────────┘

    config.py       what is asked for, and every knob (KnnParams)
    story.py        the approximate stage: which round follows which
    leaves.py       overlapping cells split into leaves, a dense tile each
    lists.py        candidate lists by block, and links
    merges.py       what leaves and joins propose, entered into lists
    joins.py        who shares a neighbour, compared in small tiles of codes
    walk.py         the same pair by pair, for measures without codes
    check.py        exact neighbours of sampled rows; recall and what to do about it
    pairs.py        all pairs, block pair by block pair: what `exact` does, and the last resort
    finish.py       lists recomputed by one fixed kernel, ordered by (value, row), as Parquet
    exact.py        the exact stage, in dataset order, with a certificate

Lists live in positions of cell order (see simdist.partitions); only `finish` speaks of rows.
"""

from simdist.stages.graph.config import KnnGraphConfig, KnnParams
from simdist.stages.graph.exact import ExactKnnGraph
from simdist.stages.graph.story import ApproximateKnnGraph

__all__ = ["ApproximateKnnGraph", "ExactKnnGraph", "KnnGraphConfig", "KnnParams"]
