"""What the tests of partitions share: a vectors dataset cut as a test wants, and its partition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from stages.importing import fresh_store

from simdist.engine import Engine, open_engine
from simdist.partitions import Partition
from simdist.runner import Job, run
from simdist.stages.partition import PartitionConfig, PartitionStage
from simdist.store import Dataset, Manifest, Shard, Store
from simdist.types import Array


def vectors_dataset(x: Array, *, cuts: Sequence[int] = (), store: Store | None = None) -> Dataset:
    """Committed as the import would, but with shards cut at `cuts`."""
    store = store or fresh_store()
    shards = []
    bounds = [0, *cuts, len(x)]
    for first, last in pairwise(bounds):
        rows = pa.table({"row": np.arange(first, last), "id": np.arange(first, last)})
        objects = {
            "vectors": store.write_array("vectors", x[first:last]),
            "rows": store.write_table("rows", rows),
        }
        shards.append(Shard(last - first, objects))
    zero = np.flatnonzero(~x.any(axis=1))
    metrics = {
        "dim": x.shape[1],
        "dtype": str(x.dtype),
        "first_zero_row": int(zero[0]) if len(zero) else None,
    }
    name = f"{len(x):08x}{len(cuts):08x}{x.shape[1]:016x}"
    store.commit(Manifest(name, "import_vectors", 1, {}, {}, len(x), tuple(shards), metrics))
    return store.dataset(name)


def partition_job(source: Dataset, measure: Any = "cosine", **config: Any) -> Job:
    return Job(PartitionStage(), PartitionConfig(measure, **config), {"vectors": source})


def partitioned(
    x: Array,
    measure: Any = "cosine",
    *,
    cuts: Sequence[int] = (),
    engine: Engine | None = None,
    **config: Any,
) -> Partition:
    source = vectors_dataset(x, cuts=cuts)
    job = partition_job(source, measure, **config)
    if engine is not None:
        return Partition.of(run(job, store=source.store, engine=engine))
    with open_engine("local", workers=1) as own:
        return Partition.of(run(job, store=source.store, engine=own))
