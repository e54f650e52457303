"""Distributed matrices as operators: a symmetric sparse matrix whose rows are sharded by range.

    links dataset                            block X [n, b], sharded as the rows are
    shard 0   rows [0, r1)     A_0 ·····┐        X_0  one .npy object each, or arrays
    shard 1   rows [r1, r2)    A_1      ├── A_i X = sum over the shards s that i has columns in
    shard 2   rows [r2, n)     A_2 ·····┘        X_2        of A_i[:, s] X_s

`product(i, x_of)` is what a task of a pass computes: it asks `x_of` for the block of one source
shard after the other, only of those that shard i has columns in (its `sources`), and lets go of it
before the next. So a worker holds one block of X and its own rows of the result, whatever n is.

What crosses the network in a pass: each worker fetches every source block that one of its shards
needs, once, and keeps it in its cache; at most n b values a worker. The matrix itself is fetched by
a worker once, not once a pass. `halo` says which rows of a block are needed at all.

Normalised matrices are not stored: D^-1/2 A D^-1/2 is `product` with the columns scaled by
`scale_of`, and its rows scaled by the caller; `degree_power` gives the factors.

A links dataset is what the stages `similarity_graph` and `import_graph` commit. Each shard has

    indptr   [rows + 1] int64       indices  [e] int64, global, ascending within a row
    weights  [e] float32, > 0       degrees  [rows] float64, sums of the rows' weights
    edges    Parquet (row, neighbor, weight), for everybody else

and the facts `entries` and `sources`: pairs (shard, how many of its rows are columns here). There
are no self-loops and no duplicates, and the weight of (i, j) is that of (j, i), bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from simdist.errors import InputError
from simdist.runner.resident import keep_within
from simdist.store.datasets import Dataset
from simdist.types import Array, Float32, Float64, Ids

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["LINKS", "CsrShard", "Halo", "ShardedCsr", "degree_power"]

LINKS = ("similarity_graph", "import_graph")  # stages that commit a links dataset


@dataclass(frozen=True, slots=True)
class CsrShard:
    """Rows [begin, end) of the matrix; arrays are mapped, read-only. Shapes: module docstring."""

    begin: int
    end: int
    indptr: Ids
    indices: Ids
    weights: Float32
    degrees: Float64

    @property
    def rows(self) -> int:
        return self.end - self.begin

    @property
    def entries(self) -> int:
        return len(self.indices)

    def to_scipy(self, nodes: int) -> csr_matrix:
        """The rows as a scipy CSR matrix [rows, nodes], without a copy of the weights."""
        from scipy.sparse import csr_matrix  # noqa: PLC0415 - not needed to plan

        parts = (self.weights, self.indices, self.indptr)
        return csr_matrix(parts, shape=(self.rows, nodes))


@dataclass(frozen=True, slots=True)
class Halo:
    """What a shard needs of a block sharded as the matrix is.

    sources: shards it has columns in, ascending. rows: of each, the local rows it needs, ascending.
    """

    sources: tuple[int, ...]
    rows: tuple[Ids, ...]


@dataclass(frozen=True)
class ShardedCsr:
    """Read access to a links dataset as a matrix; safe for threads. See the module docstring."""

    dataset: Dataset

    @classmethod
    def of(cls, dataset: Dataset) -> ShardedCsr:
        """The matrix of a links dataset; InputError where it is another kind of dataset."""
        if dataset.stage not in LINKS:
            raise InputError(
                f"{dataset.uri} was made by stage {dataset.stage}; expected a graph with symmetric"
                f" weights, as {' or '.join(LINKS)} commits it. Give a k-NN graph to"
                " similarity_graph first."
            )
        return cls(dataset)

    @property
    def nodes(self) -> int:
        """n: the matrix is [n, n]."""
        return self.dataset.rows

    @property
    def entries(self) -> int:
        """Stored entries; each undirected edge is two."""
        return int(self.dataset.metrics["entries"])

    @property
    def shards(self) -> int:
        return len(self.dataset.shards)

    @cached_property
    def bounds(self) -> Ids:
        """[shards + 1] first row of every shard, and n."""
        return np.cumsum([0, *(shard.rows for shard in self.dataset.shards)], dtype=np.int64)

    def span(self, i: int) -> tuple[int, int]:
        """First row of a shard, and the one after its last."""
        return int(self.bounds[i]), int(self.bounds[i + 1])

    def rows(self, i: int) -> int:
        """How many rows a shard has."""
        return self.dataset.shards[i].rows

    def shard_entries(self, i: int) -> int:
        """How many entries a shard has, from its facts."""
        return int(self.dataset.shards[i].facts["entries"])

    def shard_of(self, nodes: Ids) -> Ids:
        """Which shard each of some nodes lies in; any shape."""
        return np.searchsorted(self.bounds, nodes, side="right") - 1

    def array(self, i: int, role: str) -> Array:
        """One array of a shard, mapped: "indptr", "indices", "weights" or "degrees"."""
        return self.dataset.store.read_array(self.dataset.shards[i].objects[role])

    def shard(self, i: int) -> CsrShard:
        """The rows of a shard."""
        begin, end = self.span(i)
        roles = ("indptr", "indices", "weights", "degrees")
        return CsrShard(begin, end, *(self.array(i, role) for role in roles))

    def degrees(self, i: int) -> Float64:
        """[rows] sums of weights of a shard's rows, mapped; 0 where a node is isolated."""
        return self.array(i, "degrees")

    def sources(self, i: int) -> tuple[int, ...]:
        """The shards that shard i has columns in, ascending; from its facts, nothing is read."""
        return tuple(int(source) for source, _ in self.dataset.shards[i].facts["sources"])

    def halo(self, i: int) -> Halo:
        """Which local rows of which shards the products of shard i look at. Reads its indices."""
        from simdist.compiled.csr import columns_within  # noqa: PLC0415 - numba only on workers

        shard = self.shard(i)
        cursors = np.array(shard.indptr[:-1])
        sources, rows = self.sources(i), []
        for source in sources:
            keep_within()
            rows.append(columns_within(shard.indptr, shard.indices, cursors, *self.span(source)))
        return Halo(sources, tuple(rows))

    def product(
        self,
        i: int,
        x_of: Callable[[int], Array],
        *,
        scale_of: Callable[[int], Float64] | None = None,
        check: Callable[[], None] = keep_within,
    ) -> Float64:
        """A_i X, or A_i diag(scale) X: [rows, b] float64.

        x_of: source shard -> its block of X, [rows_s, b] (or [rows_s], giving [rows]) float32 or
            float64; called for `sources(i)` only, in order, one block held at a time.
        scale_of: source shard -> [rows_s] factors of its rows of X, such as their degree powers: a
            second random read an entry, as dear as eight columns of X. Where the same factors
            serve every pass, blocks that are written scaled cost nothing here.
        check: called before each block; `context.check` lets a cancelled run stop.

        Added up in float64 by ascending column, whatever X is: the same numbers for every sharding.
        Cost: 2 b flops an entry; b x 8 bytes of X read from memory an entry decide the time.
        """
        from simdist.compiled.csr import add_product  # noqa: PLC0415 - numba only on workers

        shard = self.shard(i)
        cursors = np.array(shard.indptr[:-1])
        out: Float64 | None = None
        flat = False
        for source in self.sources(i):
            check()
            X = x_of(source)
            flat = X.ndim == 1
            X = _as_block(X, self.rows(source))
            out = np.zeros((shard.rows, X.shape[1])) if out is None else out
            scale = np.empty(0) if scale_of is None else scale_of(source)
            begin = int(self.bounds[source])
            add_product(shard.indptr, shard.indices, shard.weights, cursors, begin, X, scale, out)
        if out is None:  # no entry at all: the width is what the shard's own block says
            own = x_of(i)
            return np.zeros((shard.rows, *own.shape[1:]))
        return out[:, 0] if flat else out

    def product_nbytes(self, i: int, width: int, itemsize: int = 8) -> int:
        """What `product` of shard i holds at most: its arrays, the largest source block [m, width]
        of so many bytes a value, and the result."""
        rows, entries = self.rows(i), self.shard_entries(i)
        block = max((self.rows(s) for s in self.sources(i)), default=rows)
        return 12 * entries + 24 * rows + block * (itemsize * width + 8) + 8 * rows * width

    def pass_nbytes(self, width: int, itemsize: int = 4) -> int:
        """Bytes of X that the tasks of one pass look at in all, where X [n, width] has so many
        bytes a value: whole blocks, each counted once a shard that needs it."""
        blocks = (self.rows(s) for i in range(self.shards) for s in self.sources(i))
        return sum(blocks) * width * itemsize

    def to_scipy(self) -> csr_matrix:
        """The whole matrix, [n, n] float32: 12 bytes an entry, for what fits one task."""
        from scipy.sparse import vstack  # noqa: PLC0415 - not needed to plan

        parts: list[Any] = [self.shard(i).to_scipy(self.nodes) for i in range(self.shards)]
        return parts[0] if len(parts) == 1 else vstack(parts, format="csr")


def degree_power(degrees: Float64, power: float) -> Float64:
    """degrees ** power, and 0 for a node without edges: its row and column are zero anyway."""
    out = np.zeros(len(degrees))
    np.power(degrees, power, out=out, where=degrees > 0)
    return out


def _as_block(X: Array, rows: int) -> Array:
    """[rows, b] of float32 or float64; InputError where it is another shape."""
    if X.ndim not in (1, 2) or len(X) != rows:
        raise InputError(f"a block of X has shape {X.shape}; expected [{rows}, b] or [{rows}]")
    kind = np.float32 if X.dtype == np.float32 else np.float64
    return np.ascontiguousarray(X.reshape(rows, -1), dtype=kind)
