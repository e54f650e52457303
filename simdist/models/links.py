"""Similarity graphs: made of k-NN graphs, imported, and handed to the stages that use them.

KnnGraph, k-NN dataset ── similarity_graph ──┐
scipy, edges, files ───── import_graph ──────┼──> SimilarityGraph (arrays) or a links dataset
                                             │            │ links_of
                                             └────────────┴──> every stage on graphs
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from simdist.errors import InputError
from simdist.models.chain import Link, run_link
from simdist.models.graphs import KnnGraph
from simdist.models.places import borrowed, in_scratch, refuse_unseen, store_of
from simdist.operators import LINKS, ShardedCsr
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Float32, Float64, Ids, Json

__all__ = [
    "Duplicates",
    "Graph",
    "Linked",
    "LinksDataset",
    "SimilarityGraph",
    "Symmetry",
    "link_of",
    "linked",
    "links_of",
    "open_links",
]

Symmetry = Literal["refuse", "union", "mutual"]
Duplicates = Literal["sum", "refuse"]

Graph: TypeAlias = "SimilarityGraph | Dataset | Any"  # or a scipy sparse matrix


@dataclass(frozen=True, slots=True)
class SimilarityGraph:
    """A symmetric weighted graph as CSR arrays: no self-loops, no duplicates, weights > 0.

    indptr: [n + 1] int64. indices: [e] int64, ascending in each row. weights: [e] float32, that of
    (i, j) equal to that of (j, i) bit for bit.
    """

    indptr: Ids
    indices: Ids
    weights: Float32

    @property
    def nodes(self) -> int:
        """n, isolated nodes among them."""
        return len(self.indptr) - 1

    @property
    def entries(self) -> int:
        """Stored entries: two for each edge."""
        return len(self.indices)

    @property
    def degrees(self) -> Float64:
        """[n] sums of weights, float64; 0 where a node is isolated."""
        row_of = np.repeat(np.arange(self.nodes), np.diff(self.indptr))
        sums = np.bincount(row_of, weights=self.weights, minlength=self.nodes)
        return sums.astype(np.float64, copy=False)  # of no entries at all they are integers

    def to_scipy(self) -> csr_matrix:
        """The graph as a scipy CSR matrix [n, n] float32, sharing these arrays where it can."""
        from scipy.sparse import csr_matrix  # noqa: PLC0415 - not needed to make a graph

        parts = (self.weights, self.indices, self.indptr)
        return csr_matrix(parts, shape=(self.nodes, self.nodes))

    def __len__(self) -> int:
        return self.nodes

    def __repr__(self) -> str:
        return f"SimilarityGraph({self.nodes} nodes, {self.entries // 2} edges)"


@dataclass(frozen=True, slots=True)
class LinksDataset(Dataset):
    """A committed similarity graph: see `Dataset`; `open` reads it into arrays."""

    def open(self) -> SimilarityGraph:
        """The whole graph in memory, 12 bytes an entry."""
        return open_links(self)


def open_links(dataset: Dataset) -> SimilarityGraph:
    """A committed similarity graph as arrays."""
    matrix = ShardedCsr.of(dataset)
    indptr = np.zeros(matrix.nodes + 1, np.int64)
    indices = np.empty(matrix.entries, np.int64)
    weights = np.empty(matrix.entries, np.float32)
    done = 0
    for i in range(matrix.shards):
        shard = matrix.shard(i)
        part = slice(done, done + shard.entries)
        indptr[shard.begin + 1 : shard.end + 1] = shard.indptr[1:] + done
        indices[part], weights[part] = shard.indices, shard.weights
        done += shard.entries
    return SimilarityGraph(indptr, indices, weights)


def links_of(
    graph: Graph, store: Store, *, engine: Engine, listeners: Sequence[Listener] = ()
) -> Dataset:
    """Any similarity graph as a links dataset: what stages on graphs take.

    graph: a SimilarityGraph or a symmetric scipy sparse matrix, written into `store`; or a dataset
    that similarity_graph or import_graph committed, as it is.
    Raises InputError for a k-NN graph (directed: `similarity_graph` first), for a matrix that is
    not symmetric, has a negative weight or NaN, and for anything else.
    """
    if isinstance(graph, Dataset):
        return ShardedCsr.of(graph).dataset
    link = link_of(graph, store)
    return run_link(link, {}, store=store, engine=engine, listeners=listeners)


def link_of(
    graph: Any, store: Store, *, symmetrize: Symmetry = "refuse", duplicates: Duplicates = "sum"
) -> Link:
    """The step that commits a graph in memory, whose shards are written here; no dataset."""
    from simdist.stages.links import ImportLinks, canonical, write_links  # noqa: PLC0415

    said: dict[str, Json] = {"symmetrize": symmetrize, "duplicates": duplicates}
    metrics: dict[str, Json] = {"weights": "given"}
    if isinstance(graph, SimilarityGraph):
        parts = (graph.indptr, graph.indices, graph.weights)
    else:
        _refuse_no_graph(graph)
        edges = graph.tocoo()
        made = canonical(
            *(edges.row, edges.col, edges.data, graph.shape[0]),
            symmetrize=symmetrize,
            duplicates=duplicates,
        )
        parts = made[:3]
        metrics |= made.facts
    config = write_links(*parts, store, config=said, metrics=metrics)
    return Link("links", ImportLinks(), config, {})


def _refuse_no_graph(graph: Any) -> None:
    """InputError for what is no square matrix of real numbers in scipy's sparse formats."""
    if isinstance(graph, KnnGraph):
        raise InputError(
            "a k-NN graph is directed, its lists are no edges both ways: make it symmetric with"
            " similarity_graph(knn, symmetrize='union' or 'mutual') first"
        )
    if not hasattr(graph, "tocoo") or not hasattr(graph, "shape"):
        raise InputError(
            f"expected a SimilarityGraph, a scipy sparse matrix, or a dataset that"
            f" {' or '.join(LINKS)} committed; got {type(graph).__name__}"
        )
    if len(graph.shape) != 2 or graph.shape[0] != graph.shape[1] or not graph.shape[0]:
        raise InputError(f"the matrix has shape {graph.shape}; expected [n, n] with n at least 1")
    if graph.dtype.kind not in "biuf":
        raise InputError(f"the matrix holds {graph.dtype}; expected real numbers")


class Linked(NamedTuple):
    """A graph as a stage takes it, where its results go, and who computes them."""

    links: Dataset
    store: Store
    engine: Engine


@contextmanager
def linked(
    graph: Graph,
    *,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Iterator[Linked]:
    """A graph ready for stages, for the length of a call: a stored one where it lies (results go to
    `store`, by default beside it), one in memory through a scratch store (results are read there
    before it goes)."""
    if isinstance(graph, Dataset):
        place = graph.store if store is None else store_of(store)
        with borrowed(engine, place) as opened:
            yield Linked(links_of(graph, place, engine=opened), place, opened)
        return
    with in_scratch(scratch, engine) as (place, opened):
        refuse_unseen(opened, place)
        links = links_of(graph, place, engine=opened, listeners=listeners)
        yield Linked(links, place, opened)
