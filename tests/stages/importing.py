"""What the tests of the import share: write a file, import it, read back what was committed."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simdist.engine import open_engine
from simdist.runner import Job, run
from simdist.stages.vectors import ImportVectors, scan
from simdist.store import Dataset, Store, open_store
from simdist.types import Array


def matrix(n: int, d: int = 8, *, seed: int = 0, dtype: str = "float32") -> Array:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


def fixed(rows: Array) -> pa.Array:
    """[n, d] as FixedSizeList."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def table(rows: Array, **columns: Any) -> pa.Table:
    """Vectors as column `v`, ids 0, 1, ... as `id` unless given."""
    columns.setdefault("id", np.arange(len(rows)))
    return pa.table({**columns, "v": fixed(rows)})


def parquet(path: Path, content: pa.Table, **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, **options)
    return str(path)


def fresh_store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def bring_in(
    path: str | Path, *, store: Store | None = None, workers: int = 1, **columns: Any
) -> Dataset:
    """Import with the local engine; columns default to `v` and `id`."""
    if not str(path).endswith(".npy"):
        columns = {"vector": "v", "id": "id", **columns}
    job = Job(ImportVectors(), scan(str(path), **columns), {})
    with open_engine("local", workers=workers) as engine:
        return run(job, store=store or fresh_store(), engine=engine)


def vectors_in(dataset: Dataset) -> Array:
    arrays = [dataset.store.read_array(shard.objects["vectors"]) for shard in dataset.shards]
    return np.concatenate(arrays)


def rows_in(dataset: Dataset) -> pa.Table:
    tables = [dataset.store.read_table(shard.objects["rows"]) for shard in dataset.shards]
    return pa.concat_tables(tables)


def shared_file(name: str) -> Path:
    """A file of the shared data folder beside the checkout; skips where there is none."""
    path = Path(__file__).parents[3] / "shared" / "data" / name
    if not path.exists():
        pytest.skip(f"runs where ../shared/data/{name} lies beside the checkout; it does not here")
    return path
