"""Stage `similarity_join`: all pairs of rows as near as a threshold, exact or over a partition.

    vectors ──> sample ──> forecast ──within max_pairs──> pairs ────────────────> finish
     [against]    │            └─ else refused, with the number    parts in the     │
                  │                                                store            v
                  └──> choose: fewest cells that reach the recall ──> cells ──> row, neighbor, value
                       (approximate, over the partition)

    config.py   what is asked for
    sample.py   sampled rows against all: how many pairs there will be
    pairs.py    block pairs, each looked at once
    cells.py    the approximate way: rows that share a cell; how many cells, and pair recall
    parts.py    pairs on their way: a buffer that is written as a part whenever it is full
    finish.py   parts, row range by row range, as sorted Parquet shards
    story.py    which round follows which

No task holds the pairs: a part is written when a buffer is full, records list the parts, and shards
are cut from them by counts. What reaches the threshold is decided in simdist.tiles.threshold.
"""

from simdist.stages.pairs.config import JoinConfig
from simdist.stages.pairs.story import SimilarityJoin

__all__ = ["JoinConfig", "SimilarityJoin"]
