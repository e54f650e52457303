"""The real embeddings the benchmarks share, and an exact answer to measure them against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

__all__ = ["EMBEDDINGS", "embeddings", "exact_ids", "recall_of"]

_SHARED = Path(__file__).parents[3] / "shared" / "data" / "debian-packages-384.parquet"
_SHIPPED = Path(__file__).parents[2] / "simdist" / "datasets" / "data" / "debian-packages.parquet"

EMBEDDINGS = _SHARED if _SHARED.exists() else _SHIPPED  # the 12k that ship, where nothing else is


def embeddings(path: Path = EMBEDDINGS) -> np.ndarray:
    """[n, d] float32 unit rows."""
    column = pq.read_table(path, columns=["embedding"])["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    x = flat.reshape(len(column), -1).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def exact_ids(x: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """[m, k] nearest others of some rows by inner product, by faiss."""
    import faiss

    _, found = faiss.knn(x[rows], x, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
    others = [[j for j in ids if j != row][:k] for row, ids in zip(rows, found, strict=True)]
    return np.array(others)


def recall_of(indices: np.ndarray, rows: np.ndarray, truth: np.ndarray) -> float:
    """Share of true neighbours found, by id."""
    k = truth.shape[1]
    hits = [len(set(indices[r, :k]) & set(t)) for r, t in zip(rows, truth, strict=True)]
    return float(np.mean(hits)) / k
