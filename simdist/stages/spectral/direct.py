"""The whole problem in one task, where the matrix and the blocks are small enough.

The same method as over shards, on blocks in memory, with a filter before each basis. A block finds
the copies of equal eigenvalues, of which ARPACK, one vector at a time, may miss some: of a ring, a
cube, a graph of many components. Of few nodes all eigenpairs are found at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.operators import ShardedCsr, degree_power
from simdist.runner.plan import Record, Task
from simdist.solvers.lobpcg import Eigenpairs, lobpcg
from simdist.stages.spectral.config import DEGREE
from simdist.stages.spectral.sharded import embedding_objects
from simdist.types import Array, Float64, Ids, ObjectRef

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from simdist.runner.context import Context

__all__ = ["compute_direct"]

DENSE = 512  # nodes up to which all eigenpairs are the quickest
ROWS = 4096  # of a block at a time, in float64
MOVED = -1.0 - 1e-9  # below: not an eigenvalue of S, but what was moved


def compute_direct(context: Context, task: Task) -> Record:
    """All shards' embeddings, and what was found, in one record."""
    config = context.config
    matrix = ShardedCsr.of(context.inputs["links"])
    density, degrees, S = _normalised(matrix, config.alpha)
    known = _Known.of(_labels(context), np.sqrt(degrees))
    found = _solved(context, S, known, degrees > 0)
    X = found.vectors.astype(np.float64)
    residuals = np.linalg.norm(S @ X - X * found.values[: config.dim], axis=0)
    final = X
    if config.laplacian == "random_walk":
        final *= degree_power(degrees, -0.5)[:, None]
    largest = final[np.argmax(np.abs(final), axis=0), np.arange(config.dim)]
    final *= config.factors(largest, found.values[: config.dim], float(degrees.sum()))
    objects: dict[str, ObjectRef] = {}
    for i in range(matrix.shards):
        begin, end = matrix.span(i)
        made = embedding_objects(context, final[begin:end], degrees[begin:end], begin)
        made["density"] = context.write_array("density", density[begin:end])
        objects |= {f"{role}-{i}": ref for role, ref in made.items()}
    facts = {
        "values": [float(value) for value in found.values],
        "residuals": [float(value) for value in residuals],
        "passes": found.passes + 1,
        "bases": found.rounds,
        "isolated": int(np.sum(degrees == 0)),
    }
    return Record(task.key, objects, facts)


@dataclass(frozen=True, slots=True)
class _Known:
    """U [n, c], orthonormal: the roots of degrees, a column for each component with edges."""

    roots: Float64
    place: Ids
    volumes: Float64

    @classmethod
    def of(cls, labels: Ids, roots: Float64) -> _Known:
        volumes = np.bincount(labels, weights=roots * roots)
        return cls(roots, labels, np.where(volumes > 0, volumes, 1.0))

    def part_of(self, X: Array) -> Float64:
        """U U^T X, of [n] or [n, b]."""
        columns = X.reshape(len(X), -1)
        if len(self.volumes) == 1:
            along = np.zeros(columns.shape[1])
            for first in range(0, len(columns), ROWS):
                some = slice(first, first + ROWS)
                along += self.roots[some] @ columns[some].astype(np.float64, copy=False)
            roots = self.roots.astype(columns.dtype, copy=False)
            return np.outer(roots, (along / self.volumes).astype(columns.dtype)).reshape(X.shape)
        out = np.empty_like(columns)
        for j in range(columns.shape[1]):
            sums = np.bincount(self.place, self.roots * columns[:, j], len(self.volumes))
            out[:, j] = self.roots * (sums / self.volumes)[self.place]
        return out.reshape(X.shape)


def _normalised(matrix: ShardedCsr, alpha: float) -> tuple[Float64, Float64, csr_matrix]:
    """[n] density and degrees, and S in float64."""
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - only where a task computes

    W = matrix.to_scipy()
    degrees = np.concatenate([matrix.degrees(i) for i in range(matrix.shards)])
    density = np.ones(len(degrees))
    if alpha:
        density = degree_power(degrees, alpha)
        thin = degree_power(degrees, -alpha)
        degrees = thin * (W @ thin)
    scale = degree_power(degrees, -0.5) / np.where(density > 0, density, 1.0)
    small = W.nnz < np.iinfo(np.int32).max
    indices = W.indices.astype(np.int32) if small else W.indices
    indptr = W.indptr.astype(indices.dtype)
    data = W.data * np.repeat(scale, np.diff(indptr))
    data *= scale[indices]
    return density, degrees, csr_matrix((data, indices, indptr), shape=W.shape)


def _labels(context: Context) -> Ids:
    data = context.inputs["components"]
    parts = (context.load(shard.objects["labels"], store=data.store) for shard in data.shards)
    return np.concatenate(list(parts))


def _solved(context: Context, S: csr_matrix, known: _Known, there: Array) -> Eigenpairs:
    """The eigenpairs, or what was reached when passes were used up."""
    config = context.config
    n = S.shape[0]
    if n <= DENSE:
        return _all_at_once(S, known, there, config.dim)
    start = context.rng("start").standard_normal((n, config.direct_block)) * there[:, None]
    single = S.astype(config.dtype)
    return lobpcg(
        lambda X: single @ X,
        start.astype(config.dtype),
        config.dim,
        tolerance=config.tolerance,
        degree=DEGREE,
        max_passes=config.max_passes,
        deflate=lambda X: (X - known.part_of(X)).astype(config.dtype),
        check=context.check,
    )


def _all_at_once(S: csr_matrix, known: _Known, there: Array, dim: int) -> Eigenpairs:
    """From the dense matrix, with what is known, and nodes without edges, moved below all else."""
    apart = 2 * known.part_of(np.eye(len(there))) + 2 * np.diag(~there)
    values, vectors = np.linalg.eigh(S.toarray() - apart)
    values, X = values[::-1][: dim + 1], vectors[:, ::-1][:, :dim]
    if len(values) > dim and values[dim] < MOVED:
        values = values[:dim]
    return Eigenpairs(values, X * there[:, None], np.zeros(dim), 1, 1, True)
