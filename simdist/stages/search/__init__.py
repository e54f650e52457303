"""Stages `knn` and `retrieve`, the nearest corpus rows of queries; `index`, what they look into.

    corpus ──> partition ──> index ──────────┐   (both committed once, used by every search;
                                             │    the partition by k-NN graphs too)
    where ──> filter ──> place ──────────────┤
                                             v
    queries ──> truth ──> choose ──> probe ──> settle ──> row, id, neighbors, values
                            │ no number of probes is enough, or looking at every
                            v row is less work than measuring
                           scan ─────────────^

    config.py     what is asked for
    where.py      conditions on kept columns: read, canonical, asked of Arrow
    index.py      cells of the corpus by k-means in codes; reading them
    world.py      what a task sees
    passing.py    which rows pass a condition, by shard, block and cell
    truth.py      recall on sampled queries, and how many probes it takes
    scan.py       probes, scans, and lists as Parquet
    memory.py     bytes
    cost.py       forecasts
    story.py      the stages: which round follows which

What an exact search commits is exact: values by the fixed kernel, ordered by (value, corpus row),
certified (simdist.tiles.exact). Over cells, int8 codes choose candidates, whose values are by the
same kernel in the same order; what cells and codes miss is the recall that is measured.
"""

from simdist.stages.search.config import IndexConfig, SearchConfig
from simdist.stages.search.index import IndexStage, StoredIndex
from simdist.stages.search.story import KnnSearch, Retrieve, every_row
from simdist.stages.search.truth import NEVER, among, fewest_probes
from simdist.stages.search.where import Where, read_where

__all__ = [
    "NEVER",
    "IndexConfig",
    "IndexStage",
    "KnnSearch",
    "Retrieve",
    "SearchConfig",
    "StoredIndex",
    "Where",
    "among",
    "every_row",
    "fewest_probes",
    "read_where",
]
