"""Results of k-NN stages as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.recall import Recall
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.types import Float32, Ids

__all__ = ["GraphDataset", "KnnGraph", "open_graph"]


@dataclass(frozen=True, slots=True)
class KnnGraph:
    """k nearest neighbours of every row.

    indices: [n, k] int64 rows, ordered by (value nearest first, row), distinct, never row i in i.
    values: [n, k] float32 of the measure.
    recall: sampled recall with its 95 % interval; exactly 1 where every pair was looked at.
    """

    indices: Ids
    values: Float32
    recall: Recall | None

    @property
    def k(self) -> int:
        return int(self.indices.shape[1])

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"KnnGraph({len(self)} rows, k={self.k}, recall={self.recall})"


@dataclass(frozen=True, slots=True)
class GraphDataset(Dataset):
    """A committed k-NN graph: see `Dataset`; `open` reads it into arrays."""

    @classmethod
    def of(cls, dataset: Dataset) -> GraphDataset:
        """The dataset as a graph."""
        return cls(dataset.store, dataset.manifest)

    def open(self) -> KnnGraph:
        """The whole graph in memory, n x k x 12 bytes."""
        return open_graph(self)


def open_graph(dataset: Dataset) -> KnnGraph:
    """A committed k-NN graph as arrays, in row order."""
    k = int(dataset.metrics["k"])
    indices = np.empty((dataset.rows, k), np.int64)
    values = np.empty((dataset.rows, k), np.float32)
    for shard in dataset.manifest.shards:
        table = dataset.store.read_table(shard.objects["graph"], ["row", "neighbors", "values"])
        rows = table["row"].to_numpy()
        for role, out in (("neighbors", indices), ("values", values)):
            flat = table[role].combine_chunks().flatten()
            out[rows] = flat.to_numpy(zero_copy_only=False).reshape(len(rows), k)
    recall = dataset.metrics.get("recall")
    return KnnGraph(indices, values, None if recall is None else Recall.from_json(recall))
