"""k-NN lists as directed edges, whatever they were committed as.

knn_graph, compact           Parquet, rows in cell order
append, delete               the same, with changes laid over it and rows that are gone
knn_lists                    arrays of a KnnGraph in memory, rows in order
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.lists import standing_table, tombstones
from simdist.measures import Measure, resolve
from simdist.runner.plan import Commit, Job, Round, Rounds, Taskless
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Bools, Float32, Ids, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.store.store import Store

__all__ = [
    "ImportLists",
    "ListsConfig",
    "distances_of",
    "edge_lists",
    "measure_of",
    "refuse_other",
    "write_lists",
]

KNN_GRAPHS = ("knn_graph", "append", "delete", "compact", "knn_lists")
LIST_ENTRIES = 2_000_000  # of a shard of lists
SLICE = 16_384  # rows of a list that are worked on at once
WRITERS = 2  # shards hashed and written side by side


def refuse_other(graph: Dataset) -> None:
    """InputError where the dataset is no k-NN graph of rows among themselves."""
    if graph.stage not in KNN_GRAPHS:
        raise InputError(
            f"{graph.uri} was made by stage {graph.stage}; a similarity graph is made of a k-NN"
            " graph of rows among themselves (knn_graph, append, delete, compact). Edges of your"
            " own are for import_graph."
        )


def measure_of(graph: Dataset) -> Measure:
    """What the graph's values are."""
    return resolve(graph.manifest.config["measure"])


def distances_of(measure: Measure, values: Float32) -> Float32:
    """Values as distances, at least 0: as they are, or what a bounded similarity lacks of its bound
    (1 - cosine). InputError where the measure has none: see `KnnGraph.distances`."""
    traits = measure.traits
    if traits.kind == "distance" and traits.low >= 0:
        return values
    if traits.kind == "distance" or not np.isfinite(traits.high):
        why = "may be negative" if traits.kind == "distance" else "has no upper bound"
        raise InputError(
            f"{measure.name} {why}, so it gives no distances to turn into self_tuning or umap"
            " weights. Take weights='binary', or 'value' for a similarity; or make the k-NN graph"
            " under a distance or under cosine."
        )
    lacking: Float32 = np.maximum(np.float32(traits.high) - values, np.float32(0.0))
    return lacking


def edge_lists(graph: Dataset, shard: int) -> tuple[Ids, Ids, Float32]:
    """(rows [m], neighbors [m, k], values [m, k]) of the lists of a shard that stand."""
    objects, k = graph.shards[shard].objects, int(graph.metrics["k"])
    if "graph" in objects:
        table = standing_table(graph, shard, ["row", "neighbors", "values"]).combine_chunks()
        flat = [
            table[role].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            for role in ("neighbors", "values")
        ]
        return table["row"].to_numpy(), flat[0].reshape(-1, k), flat[1].reshape(-1, k)
    first = sum(s.rows for s in graph.shards[:shard])
    rows = np.arange(first, first + graph.shards[shard].rows)
    stands = ~np.isin(rows, tombstones(graph))
    neighbors, values = (graph.store.read_array(objects[r]) for r in ("neighbors", "values"))
    return rows[stands], neighbors[stands], values[stands]


def slices(rows: Ids) -> Iterator[slice]:
    """Runs of rows that fit the worker whatever k is."""
    for first in range(0, len(rows), SLICE):
        yield slice(first, first + SLICE)


@dataclass(frozen=True, slots=True)
class ListsConfig:
    """Lists of a k-NN graph as they lie in the store, and what their values are."""

    rows: int
    k: int
    measure: Json
    shard_rows: int
    neighbors: tuple[ObjectRef, ...]
    values: tuple[ObjectRef, ...]
    tombstones: ObjectRef

    def to_json(self) -> dict[str, Json]:
        refs = (*self.neighbors, *self.values, self.tombstones)
        return {**self.content(), "rows": self.rows, "lists": [ref.sha256 for ref in refs]}

    def content(self) -> dict[str, Json]:
        return {"k": self.k, "measure": self.measure}


def write_lists(
    neighbors: Ids, values: Float32, deleted: Ids, measure: Json, store: Store
) -> ListsConfig:
    """Write lists [n, k] as shards. deleted: rows that have none.

    Raises InputError naming the first row with a neighbour that does not exist, or is listed twice,
    or a value that is not finite.
    """
    size = max(1, LIST_ENTRIES // neighbors.shape[1])
    refuse_bad_lists(neighbors, values, deleted)

    def write(first: int) -> tuple[ObjectRef, ObjectRef]:
        part = slice(first, first + size)
        return (
            store.write_array("lists-neighbors", neighbors[part]),
            store.write_array("lists-values", values[part]),
        )

    with ThreadPoolExecutor(WRITERS, thread_name_prefix="simdist-lists") as pool:
        written = list(pool.map(write, range(0, len(neighbors), size)))
    gone = store.write_array("tombstones", np.asarray(deleted, np.int64))
    rows, k = neighbors.shape
    lists, kept = zip(*written, strict=True)
    return ListsConfig(rows, k, measure, size, lists, kept, gone)


def refuse_bad_lists(neighbors: Array, values: Array, deleted: Ids) -> None:
    """InputError naming the first living row whose list cannot be read as edges."""
    bad: Bools = np.any((neighbors < 0) | (neighbors >= len(neighbors)), axis=1)
    bad |= ~np.isfinite(values).all(axis=1)
    bad |= (np.diff(np.sort(neighbors, axis=1), axis=1) == 0).any(axis=1)
    bad[deleted] = False
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"row {row} of the k-NN graph lists {neighbors[row].tolist()} with values"
            f" {values[row].tolist()}; expected distinct rows from 0 to {len(neighbors) - 1} and"
            " finite values"
        )


class ImportLists(Taskless):
    """Commits lists that lie in the store already; has no tasks."""

    name: ClassVar[str] = "knn_lists"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: object) -> Round | Commit:
        config: ListsConfig = job.config
        shards = tuple(
            Shard(
                min(config.shard_rows, config.rows - i * config.shard_rows),
                {"neighbors": pair[0], "values": pair[1]},
            )
            for i, pair in enumerate(zip(config.neighbors, config.values, strict=True))
        )
        return Commit(
            config.rows,
            shards,
            {"k": config.k},
            objects={"tombstones": config.tombstones},
            config=config.content(),
        )
