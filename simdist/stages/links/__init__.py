"""Stages `similarity_graph` and `import_graph`: symmetric weighted graphs, as sharded CSR.

    k-NN lists ── survey ── bucket ── scales ── settle ──┐
                              │ edges and their reverse, │
    edge files ── survey ── bucket     by row range ── settle ──┴──> links dataset
    scipy, edge list, CSR ── canonical, written where it is ────┘    (simdist.operators)

    lists.py        k-NN lists as directed edges, grown graphs among them
    similarity.py   the stage similarity_graph
    fuzzy.py        weights from distances: umap, self_tuning
    edges.py        the stage import_graph, of files
    sources.py      which files, and their batches of edges
    arrays.py       graphs in memory: checked, made canonical, written
    buckets.py      what tasks of the transpose leave for one another
    shards.py       a links dataset as it is written

Both ways to a symmetric graph end in the same merge (simdist.compiled.transpose), and no task sees
more than its own part of the edges.
"""

from simdist.stages.links.arrays import ImportLinks, LinksConfig, canonical, write_links
from simdist.stages.links.edges import EdgesConfig, ImportEdges
from simdist.stages.links.lists import ImportLists, write_lists
from simdist.stages.links.similarity import SimilarityConfig, SimilarityGraphStage
from simdist.stages.links.sources import EdgeColumns, find

__all__ = [
    "EdgeColumns",
    "EdgesConfig",
    "ImportEdges",
    "ImportLinks",
    "ImportLists",
    "LinksConfig",
    "SimilarityConfig",
    "SimilarityGraphStage",
    "canonical",
    "find",
    "write_links",
    "write_lists",
]
