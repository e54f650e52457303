"""What tests of stages on graphs share: a links dataset cut as a test wants, and small graphs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from stages.importing import fresh_store

from simdist.engine import Engine, open_engine
from simdist.runner import Job, Stage, run
from simdist.store import Dataset, Manifest, Shard, Store
from simdist.types import Array


def links_dataset(
    A: sp.csr_matrix, *, cuts: Sequence[int] = (), store: Store | None = None
) -> Dataset:
    """A symmetric matrix committed as `similarity_graph` would, but with shards cut at `cuts`."""
    store = store or fresh_store()
    A = sp.csr_matrix(A, dtype=np.float32, copy=True)  # sorting would reorder the given one
    A.sort_indices()
    bounds = [0, *cuts, A.shape[0]]
    degrees = np.asarray(A.astype(np.float64).sum(axis=1)).ravel()
    shards = []
    for first, last in pairwise(bounds):
        part = A[first:last]
        columns = np.unique(part.indices)
        owner = np.searchsorted(bounds, columns, side="right") - 1
        sources = [[int(s), int(np.sum(owner == s))] for s in np.unique(owner)]
        rows = np.repeat(np.arange(first, last), np.diff(part.indptr))
        neighbors = part.indices.astype(np.int64)
        edges = pa.table({"row": rows, "neighbor": neighbors, "weight": part.data})
        objects = {
            "indptr": store.write_array("indptr", part.indptr.astype(np.int64)),
            "indices": store.write_array("indices", neighbors),
            "weights": store.write_array("weights", part.data),
            "degrees": store.write_array("degrees", degrees[first:last]),
            "edges": store.write_table("edges", edges),
        }
        shards.append(Shard(last - first, objects, {"entries": int(part.nnz), "sources": sources}))
    metrics = {"nodes": A.shape[0], "entries": int(A.nnz), "symmetric": True}
    name = f"{A.shape[0]:08x}{len(cuts):08x}{A.nnz:016x}"
    store.commit(Manifest(name, "import_graph", 1, {}, {}, A.shape[0], tuple(shards), metrics))
    return store.dataset(name)


def random_graph(n: int, degree: float, *, seed: int, isolated: int = 0) -> sp.csr_matrix:
    """A symmetric weighted graph; the last `isolated` nodes have no edge."""
    rng = np.random.default_rng(seed)
    m = int(n * degree / 2)
    pairs = rng.integers(0, n - isolated, (m, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    weights = rng.uniform(0.2, 2.0, len(pairs)).astype(np.float32)
    one = sp.coo_matrix((weights, pairs.T), shape=(n, n)).tocsr()
    return sp.csr_matrix(one.maximum(one.T))


def blocks_graph(
    sizes: Sequence[int], *, seed: int, inside: float, between: float
) -> sp.csr_matrix:
    """A stochastic block model: an edge of weight 1 with probability `inside` or `between`."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    chance = np.where(label[:, None] == label[None, :], inside, between)
    upper = np.triu(rng.random(chance.shape) < chance, 1)
    return sp.csr_matrix((upper | upper.T).astype(np.float32))


def carried_out(
    stage: Stage, config: Any, inputs: dict[str, Dataset], *, engine: Engine | None = None
) -> Dataset:
    """The stage's dataset, in the store of its first input."""
    job = Job(stage, config, inputs)
    store = next(iter(inputs.values())).store
    if engine is not None:
        return run(job, store=store, engine=engine)
    with open_engine("local", workers=1) as own:
        return run(job, store=store, engine=own)


def column(dataset: Dataset, role: str) -> Array:
    """An array of all shards, one under the other."""
    return np.concatenate([dataset.store.read_array(s.objects[role]) for s in dataset.shards])
