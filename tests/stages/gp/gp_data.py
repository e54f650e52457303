"""Stored rows with targets, and the bound by dense arithmetic."""

from __future__ import annotations

import secrets
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simdist.engine import Engine, open_engine
from simdist.measures.kernels import Kernel
from simdist.models.vectors import import_vectors
from simdist.store import Dataset, open_store


def regression(n: int = 900, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """X [n, d] float32 and y [n]: smooth, with noise of 0.1."""
    rng = np.random.default_rng(7)
    X = rng.standard_normal((n, d)).astype(np.float32)
    return X, 2.0 + np.sin(2 * X[:, 0]) + X[:, 1] + 0.1 * rng.standard_normal(n)


def stored(X: np.ndarray, folder: Path | str | None = None, **columns: object) -> Dataset:
    """X and columns as an imported dataset, in memory or under a folder."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
    ids = [f"row-{i}" for i in range(len(X))]
    path = Path(mkdtemp()) / "rows.parquet"
    pq.write_table(pa.table({"id": ids, "x": vectors, **columns}), path)
    store = open_store(f"memory://{secrets.token_hex(6)}" if folder is None else str(folder))
    with open_engine("local", workers=1) as engine:
        return import_vectors(
            str(path), vector="x", id="id", keep=list(columns), store=store, engine=engine
        )


def dense_bound(
    kernel: Kernel, Z: np.ndarray, X: np.ndarray, y: np.ndarray, noise: np.ndarray, jitter: float
) -> float:
    """Titsias' bound by n x n matrices. noise: [n] variances; jitter: relative to K_uu."""
    K_uu = kernel.matrix(Z, Z.copy())
    K_uu += jitter * np.mean(np.diag(K_uu)) * np.eye(len(Z))
    K_uf = kernel.matrix(Z, X)
    Q = K_uf.T @ np.linalg.solve(K_uu, K_uf)
    S = Q + np.diag(noise)
    fit = -0.5 * (len(y) * np.log(2 * np.pi) + np.linalg.slogdet(S)[1] + y @ np.linalg.solve(S, y))
    return float(fit - 0.5 * np.sum((kernel.diagonal(X) - np.diag(Q)) / noise))


def worked(stage, config, inputs, engine: Engine | None = None, store=None):
    """A job carried out with one local worker, or on an engine."""
    from simdist.runner import Job, run

    place = store or inputs["vectors"].store
    job = Job(stage, config, inputs)
    if engine is not None:
        return run(job, store=place, engine=engine)
    with open_engine("local", workers=1) as opened:
        return run(job, store=place, engine=opened)
