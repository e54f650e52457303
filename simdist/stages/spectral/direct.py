"""The whole problem in one task, where the matrix and the blocks are small enough.

The same method as over shards, on blocks in memory, with a filter before each basis. Rows are cut
into pieces, which run side by side where the task is lent the cpus for it. A block finds
the copies of equal eigenvalues, of which ARPACK, one vector at a time, may miss some: of a ring, a
cube, a graph of many components. Of few nodes all eigenpairs are found at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.engine.threads import in_order
from simdist.operators import ShardedCsr, degree_power
from simdist.runner.plan import Record, Task
from simdist.solvers.chebyshev import Term
from simdist.solvers.lobpcg import PRODUCT, Eigenpairs, Step, lobpcg, spans
from simdist.stages.spectral.config import DEGREE
from simdist.stages.spectral.sharded import embedding_objects
from simdist.types import Array, Float64, Ids, Int32, ObjectRef, Run

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["compute_direct"]

DENSE = 512  # nodes up to which all eigenpairs are the quickest
MOVED = -1.0 - 1e-9  # below: not an eigenvalue of S, but what was moved


def compute_direct(context: Context, task: Task) -> Record:
    """All shards' embeddings, and what was found, in one record."""
    config = context.config
    matrix = ShardedCsr.of(context.inputs["links"])
    density, degrees, S = _normalised(matrix, config.alpha)
    known = _Known.of(_labels(context), np.sqrt(degrees))
    with context.side_by_side() as run:
        found = _solved(context, S, known, degrees > 0, run)
        X = np.ascontiguousarray(found.vectors, np.float64)
        residuals = S.residuals(X, found.values[: config.dim], run)
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
    place: Int32
    volumes: Float64

    @classmethod
    def of(cls, labels: Ids, roots: Float64) -> _Known:
        volumes = np.bincount(labels, weights=roots * roots)
        return cls(roots, labels.astype(np.int32), np.where(volumes > 0, volumes, 1.0))

    def leave(self, X: Array, run: Run) -> None:
        """X [n, b] without U U^T X, where it lies."""
        from simdist.compiled.deflate import add_sums, subtract  # noqa: PLC0415

        means = np.zeros((len(self.volumes), X.shape[1]))
        add_sums(self.place, self.roots, X, means)  # in order: they may be many
        means /= self.volumes[:, None]
        rows = spans(len(X))

        def piece(i: int) -> None:
            subtract(self.place, self.roots, means, X, rows[i].start, rows[i].stop, X)

        run(piece, len(rows))


@dataclass(frozen=True, slots=True)
class _Matrix:
    """S in CSR form, for products with blocks of the dtype of its values."""

    indptr: Ids
    indices: Int32
    values: Array

    def step(self, run: Run) -> Step:
        """Steps of a polynomial of S, see `lobpcg`."""
        from simdist.compiled.recurrence import step_rows  # noqa: PLC0415

        def step(term: Term, last: Array, before: Array, out: Array) -> None:
            rows = spans(len(last))

            def piece(i: int) -> None:
                step_rows(
                    self.indptr,
                    self.indices,
                    self.values,
                    last,
                    before,
                    term,
                    rows[i].start,
                    rows[i].stop,
                    out,
                )

            run(piece, len(rows))

        return step

    def astype(self, dtype: type) -> _Matrix:
        return _Matrix(self.indptr, self.indices, self.values.astype(dtype))

    def residuals(self, X: Float64, values: Float64, run: Run) -> Float64:
        """[k] lengths of S X - X theta."""
        image = np.empty_like(X)
        self.step(run)(PRODUCT, X, X, image)
        image -= X * values
        squares: Float64 = np.einsum("ij,ij->j", image, image)
        return np.sqrt(squares)

    def dense(self) -> Float64:
        from scipy.sparse import csr_matrix  # noqa: PLC0415 - not needed to plan

        n = len(self.indptr) - 1
        whole = csr_matrix((self.values, self.indices, self.indptr), shape=(n, n))
        return np.asarray(whole.toarray())


def _normalised(matrix: ShardedCsr, alpha: float) -> tuple[Float64, Float64, _Matrix]:
    """[n] density and degrees, and S in float64."""
    W = matrix.to_scipy()
    degrees = np.concatenate([matrix.degrees(i) for i in range(matrix.shards)])
    density = np.ones(len(degrees))
    if alpha:
        density = degree_power(degrees, alpha)
        thin = degree_power(degrees, -alpha)
        degrees = thin * (W @ thin)
    scale = degree_power(degrees, -0.5) / np.where(density > 0, density, 1.0)
    indices = W.indices.astype(np.int32)
    values = W.data * np.repeat(scale, np.diff(W.indptr))
    values *= scale[indices]
    return density, degrees, _Matrix(W.indptr.astype(np.int64), indices, values)


def _labels(context: Context) -> Ids:
    data = context.inputs["components"]
    parts = (context.load(shard.objects["labels"], store=data.store) for shard in data.shards)
    return np.concatenate(list(parts))


def _solved(context: Context, S: _Matrix, known: _Known, there: Array, run: Run) -> Eigenpairs:
    """The eigenpairs, or what was reached when passes were used up."""
    config = context.config
    n = len(there)
    if n <= DENSE:
        return _all_at_once(S, known, there, config.dim)
    start = context.rng("start").standard_normal((n, config.direct_block)) * there[:, None]
    return lobpcg(
        S.astype(config.dtype).step(run),
        start.astype(config.dtype),
        config.dim,
        run=run,
        tolerance=config.tolerance,
        degree=DEGREE,
        max_passes=config.max_passes,
        deflate=lambda X: known.leave(X, run),
        check=context.check,
    )


def _all_at_once(S: _Matrix, known: _Known, there: Array, dim: int) -> Eigenpairs:
    """From the dense matrix, with what is known, and nodes without edges, moved below all else."""
    freed = np.eye(len(there))
    known.leave(freed, in_order)
    apart = 2 * (np.eye(len(there)) - freed) + 2 * np.diag(~there)
    values, vectors = np.linalg.eigh(S.dense() - apart)
    values, X = values[::-1][: dim + 1], vectors[:, ::-1][:, :dim]
    if len(values) > dim and values[dim] < MOVED:
        values = values[:dim]
    return Eigenpairs(values, X * there[:, None], np.zeros(dim), 1, 1, True)
