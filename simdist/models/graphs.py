"""Results of k-NN stages as arrays, and as other libraries take them.

                      ┌── distances ──> to_scipy      scikit-learn, scipy.sparse.csgraph, scanpy
    KnnGraph          ├──────────────── to_umap       UMAP(precomputed_knn=...)
    indices [n, k] ───┼── edges ──────> to_edge_index PyTorch Geometric, DGL
    values  [n, k]    └──────────────── to_networkx, to_igraph

Other libraries want distances, which grow, where a measure may give similarities, which shrink: see
`KnnGraph.distances`. Each library is imported by the method that speaks of it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.lists import tombstones
from simdist.measures import resolve
from simdist.recall import Recall
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from igraph import Graph
    from networkx import DiGraph
    from scipy.sparse import csr_matrix

    from simdist.types import Array, Float32, Ids, Json

__all__ = ["Edges", "GraphDataset", "KnnGraph", "open_graph"]

Entries = Literal["distance", "value", "connectivity"]
Weights = Literal["distance", "value"]


class Edges(NamedTuple):
    """A graph as a list of edges, row by row, nearest first.

    rows: [n k] int64. neighbors: [n k] int64, one of the row's nearest. values: [n k] float32.
    """

    rows: Ids
    neighbors: Ids
    values: Float32


@dataclass(frozen=True, slots=True)
class KnnGraph:
    """k nearest neighbours of every row.

    indices: [n, k] int64 rows, ordered by (value nearest first, row), distinct, never row i in i.
    values: [n, k] float32 of the measure.
    recall: sampled recall with its 95 % interval; exactly 1 where every pair was looked at.
    measure: what the values are, as a config says it.
    corpus: rows of the set that was searched, where it is another one (`knn`): `indices` are its
        rows then, and a row's own number may be among them. None: the rows among themselves.
    deleted: rows that are gone (`sd.delete`), ascending: they keep their numbers, with -1 for
        neighbours and NaN for values. Such a graph is handed on as `living` gives it.
    """

    indices: Ids
    values: Float32
    recall: Recall | None
    measure: Json
    corpus: int | None = None
    deleted: Ids = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def k(self) -> int:
        return int(self.indices.shape[1])

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"KnnGraph({len(self)} rows, k={self.k}, recall={self.recall})"

    def living(self) -> tuple[KnnGraph, Ids]:
        """The graph of the rows that are not deleted, numbered without gaps, and [m] which row each
        was. A copy."""
        rows = np.setdiff1d(np.arange(len(self)), self.deleted, assume_unique=True)
        indices = np.searchsorted(rows, self.indices[rows])
        none = np.empty(0, np.int64)
        return replace(self, indices=indices, values=self.values[rows], deleted=none), rows

    @property
    def distances(self) -> Float32:
        """[n, k] float32, at least 0 and ascending in each row: what most libraries ask for.

        The values of a distance as they are. A similarity that cannot exceed some value is
        subtracted from it: 1 - cosine, 1 - jaccard. One without a bound (dot) is no distance, and
        an InputError.
        """
        traits = resolve(self.measure).traits
        if traits.kind == "distance":
            if traits.low < 0:
                raise InputError(self._no_distance("may be negative"))
            return self.values
        if not np.isfinite(traits.high):
            raise InputError(self._no_distance("is a similarity without an upper bound"))
        return np.subtract(np.float32(traits.high), self.values)

    def edges(self) -> Edges:
        """Every row with each of its neighbours: n k edges, directed."""
        self._refuse_deleted()
        rows = np.repeat(np.arange(len(self), dtype=np.int64), self.k)
        return Edges(rows, self.indices.ravel(), self.values.ravel())

    def to_scipy(self, entries: Entries = "distance", *, include_self: bool = False) -> csr_matrix:
        """The graph as a scipy CSR matrix, [n, n] or [n, corpus], float32.

        entries: "distance" (see `distances`), "value" (as the measure gives it), or
            "connectivity": 1 for every neighbour.
        include_self: every row first lists itself, at distance 0, as scikit-learn's
            KNeighborsTransformer does in mode="distance": k + 1 entries a row.

        Entries lie in each row nearest first, which scikit-learn asks of a precomputed graph
        (otherwise it sorts, and warns); duplicates are at an explicit 0, which is an edge.
        `sort_indices`, `eliminate_zeros` and many operators of scipy undo the one or the other.

        Raises InputError where there is no such entry; ConfigError without scipy. Cost: one copy,
        12 bytes an edge.
        """
        sparse = _imported("scipy.sparse", "to_scipy", "sklearn")
        indices, data = self.indices, self._entries(entries)
        if include_self:
            if entries == "value":
                raise InputError(
                    "to_scipy cannot include rows themselves with entries='value': a graph does not"
                    " hold a row's value with itself. Use 'distance', where it is 0."
                )
            indices = self._after_itself("to_scipy(include_self=True)")
            own = np.float32(entries == "connectivity")
            data = np.insert(data, 0, own, axis=1)
        indptr = np.arange(0, indices.size + 1, indices.shape[1])
        shape = (len(self), len(self) if self.corpus is None else self.corpus)
        return sparse.csr_matrix((data.ravel(), indices.ravel(), indptr), shape=shape)

    def to_umap(self) -> tuple[Array, Float32, None]:
        """What UMAP takes as `precomputed_knn`: (indices, distances, no search index).

        indices: [n, k + 1] int32, the row itself first. distances: [n, k + 1] float32, 0 first.
        UMAP counts the row itself, so `n_neighbors` may be up to k + 1. It ignores what it is given
        for fewer than 4,096 rows unless force_approximation_algorithm=True, and cannot transform
        new rows without a search index, of which it warns.

        Raises InputError for a measure that has no distance, and for a search in another set.
        """
        indices = self._after_itself("to_umap")
        distances = np.insert(self.distances, 0, np.float32(0.0), axis=1)
        return indices.astype(np.int32), distances, None

    def to_edge_index(
        self, flow: Literal["source_to_target", "target_to_source"] = "source_to_target"
    ) -> Ids:
        """`edge_index` of PyTorch Geometric: [2, n k] int64, sources above targets.

        flow: as PyG's knn_graph says it. By default messages flow from a row's neighbours to the
            row: the neighbours are the sources. Hand it over with `torch.from_numpy(...)`; edge
            weights in the same order are `graph.values.ravel()`.

        Raises ConfigError for another flow; InputError for a search in another set, whose two kinds
        of nodes PyG keeps apart: take `edges`.
        """
        if flow not in ("source_to_target", "target_to_source"):
            raise ConfigError(
                f"to_edge_index flow={flow!r}: expected 'source_to_target' or 'target_to_source'"
            )
        self._refuse_another_set("to_edge_index")
        rows, neighbors, _ = self.edges()
        return np.stack([neighbors, rows] if flow == "source_to_target" else [rows, neighbors])

    def to_networkx(self, entries: Weights = "distance") -> DiGraph:
        """A networkx DiGraph: nodes 0 to n - 1, an edge from each row to each of its neighbours.

        entries: "distance" or "value": the attribute every edge carries, under that name, so that
            an algorithm is told which it gets: `shortest_path(g, weight="distance")`.

        Raises InputError as `to_scipy` does, and for a search in another set; ConfigError without
        networkx. Cost: some 500 bytes an edge: for tens of thousands of rows, not for millions.
        """
        networkx = _imported("networkx", "to_networkx", None)
        self._refuse_another_set("to_networkx")
        weights = self._entries(entries).ravel().tolist()
        rows, neighbors, _ = self.edges()
        graph = networkx.DiGraph()
        graph.add_nodes_from(range(len(self)))
        edges = zip(rows.tolist(), neighbors.tolist(), weights, strict=True)
        graph.add_weighted_edges_from(edges, weight=entries)
        return graph

    def to_igraph(self, entries: Weights = "distance") -> Graph:
        """A directed igraph Graph of n vertices, an edge from each row to each of its neighbours.

        entries: "distance" or "value": the edges' attribute of that name, as in `to_networkx`.
        Raises InputError as `to_networkx` does; ConfigError without igraph.
        """
        igraph = _imported("igraph", "to_igraph", None)
        self._refuse_another_set("to_igraph")
        weights = self._entries(entries).ravel()
        rows, neighbors, _ = self.edges()
        edges = np.stack([rows, neighbors], axis=1)
        return igraph.Graph(
            n=len(self), edges=edges, directed=True, edge_attrs={entries: weights.tolist()}
        )

    def _entries(self, entries: str) -> Float32:
        """[n, k] what an edge carries."""
        self._refuse_deleted()
        if entries == "distance":
            return self.distances
        if entries == "value":
            return self.values
        if entries == "connectivity":
            return np.ones_like(self.values)
        raise ConfigError(
            f"entries={entries!r}: expected 'distance', 'value' or 'connectivity' (of a matrix)"
        )

    def _after_itself(self, asked: str) -> Ids:
        """[n, k + 1] neighbours, each row itself first."""
        self._refuse_deleted()
        self._refuse_another_set(asked)
        return np.insert(self.indices, 0, np.arange(len(self)), axis=1)

    def _refuse_another_set(self, asked: str) -> None:
        if self.corpus is not None:
            raise InputError(
                f"{asked} is for a graph of rows among themselves (knn_graph); these are the"
                f" nearest of {self.corpus} rows of another set. Use edges() or to_scipy()."
            )

    def _refuse_deleted(self) -> None:
        if len(self.deleted):
            raise InputError(
                f"{len(self.deleted)} of {len(self)} rows are deleted and have no edges, which"
                " others cannot be told: hand on `graph.living()[0]`, where the rest is numbered"
                " without gaps"
            )

    def _no_distance(self, why: str) -> str:
        name = resolve(self.measure).name
        return (
            f"{name} {why}, so its values cannot be turned into distances. Take entries='value' or"
            f" 'connectivity', or make the graph under a distance or under cosine."
        )


@dataclass(frozen=True, slots=True)
class GraphDataset(Dataset):
    """A committed k-NN graph: see `Dataset`; `open` reads it into arrays."""

    def open(self) -> KnnGraph:
        """The whole graph in memory, n x k x 12 bytes."""
        return open_graph(self)


def open_graph(dataset: Dataset) -> KnnGraph:
    """A committed k-NN graph as arrays, in row order."""
    k = int(dataset.metrics["k"])
    indices = np.empty((dataset.rows, k), np.int64)
    values = np.empty((dataset.rows, k), np.float32)
    for shard in dataset.manifest.shards:  # what an append or delete changed comes last
        table = dataset.store.read_table(shard.objects["graph"], ["row", "neighbors", "values"])
        rows = table["row"].to_numpy()
        for role, out in (("neighbors", indices), ("values", values)):
            flat = table[role].combine_chunks().flatten()
            out[rows] = flat.to_numpy(zero_copy_only=False).reshape(len(rows), k)
    deleted = tombstones(dataset)
    indices[deleted], values[deleted] = -1, np.nan
    recall, corpus = dataset.metrics.get("recall"), dataset.metrics.get("corpus")
    return KnnGraph(
        indices,
        values,
        recall=None if recall is None else Recall.from_json(recall),
        measure=dataset.manifest.config["measure"],
        corpus=None if corpus is None else int(corpus),
        deleted=deleted,
    )


def _imported(module: str, asked: str, extra: str | None) -> Any:
    """A library that simdist does not need itself; ConfigError naming it where it is absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        wanted = package if extra is None else f"simdist[{extra}]"
        raise ConfigError(
            f"KnnGraph.{asked} needs {package} ({error}): pip install '{wanted}'"
        ) from error
