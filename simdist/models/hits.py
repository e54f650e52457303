"""What a retrieval found: lists of any length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simdist.errors import ConfigError
from simdist.recall import Recall
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from simdist.types import Float32, Ids, Json

__all__ = ["Hits", "HitsDataset", "Listed", "open_hits"]


class Listed(NamedTuple):
    """One query's hits. indices: [l] int64 rows of the corpus; values: [l] float32."""

    indices: Ids
    values: Float32


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest corpus rows of every query, at most k, as lists one after the other.

    indptr: [m + 1] int64: query i has hits indptr[i]:indptr[i + 1]; `hits[i]` gives them.
    indices: [e] int64 rows of the corpus, ordered in each list by (value nearest first, row).
    values: [e] float32 of the measure.
    recall: measured on sampled queries, with its 95 % interval; exactly 1 where every row that may
        be found was compared; None where nobody asked.
    k, measure: as asked. corpus: rows of the corpus. passing: rows of it that may be found.
    probes: cells that each query looked into; None where all rows were compared.
    """

    indptr: Ids
    indices: Ids
    values: Float32
    recall: Recall | None
    k: int
    measure: Json
    corpus: int
    passing: int
    probes: int | None

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, query: int) -> Listed:
        if not -len(self) <= query < len(self):
            raise IndexError(f"query {query} of {len(self)}")
        part = slice(self.indptr[query % len(self)], self.indptr[query % len(self) + 1])
        return Listed(self.indices[part], self.values[part])

    def __repr__(self) -> str:
        return (
            f"Hits({len(self)} queries, {len(self.indices)} hits, k={self.k}, recall={self.recall})"
        )

    @property
    def lengths(self) -> Ids:
        """[m] how many hits each query has."""
        return np.diff(self.indptr)

    def to_scipy(self) -> csr_matrix:
        """[m, corpus] float32 CSR of the values, nearest first in each row. ConfigError without
        scipy."""
        try:
            from scipy.sparse import csr_matrix  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError(
                f"Hits.to_scipy needs scipy ({error}): pip install 'simdist[sklearn]'"
            ) from error
        shape = (len(self), self.corpus)
        return csr_matrix((self.values, self.indices, self.indptr), shape=shape)


@dataclass(frozen=True, slots=True)
class HitsDataset(Dataset):
    """Committed hits: see `Dataset`; `open` reads them into arrays."""

    def open(self) -> Hits:
        """All hits in memory, 12 bytes each."""
        return open_hits(self)


def open_hits(dataset: Dataset) -> Hits:
    """Committed hits as arrays, in the order of the queries."""
    lengths: list[Ids] = [np.zeros(1, np.int64)]
    indices: list[Ids] = []
    values: list[Float32] = []
    for shard in dataset.shards:
        table = dataset.store.read_table(shard.objects["hits"], ["neighbors", "values"])
        for chunk in table["neighbors"].chunks:
            lengths.append(np.diff(chunk.offsets.to_numpy()).astype(np.int64))
            indices.append(chunk.flatten().to_numpy())
        values.extend(chunk.flatten().to_numpy() for chunk in table["values"].chunks)
    metrics = dataset.metrics
    recall, probes = metrics.get("recall"), metrics.get("probes")
    return Hits(
        np.cumsum(np.concatenate(lengths)),
        np.concatenate(indices),
        np.concatenate(values),
        recall=None if recall is None else Recall.from_json(recall),
        k=int(metrics["k"]),
        measure=dataset.manifest.config["measure"],
        corpus=int(metrics["corpus"]),
        passing=int(metrics["passing"]),
        probes=None if probes is None else int(probes),
    )
