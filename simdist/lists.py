"""k-NN lists as committed Parquet: the schema every stage that yields lists shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.types import Float32, Ids

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.store.datasets import Dataset

__all__ = ["graph_table", "ids_of_rows"]


def ids_of_rows(source: Dataset, rows: Ids) -> pa.ChunkedArray | pa.Array:
    """The vectors' own ids of some dataset rows, in that order, one shard's table at a time."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    parts = []
    offset = 0
    for shard in source.manifest.shards:
        low, high = np.searchsorted(ascending, [offset, offset + shard.rows])
        if low < high:
            table = source.store.read_table(shard.objects["rows"], ["id"])
            parts.append(table["id"].take(pa.array(ascending[low:high] - offset)))
        offset += shard.rows
    chunks = [chunk for part in parts for chunk in part.chunks]
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    return pa.chunked_array(chunks).take(pa.array(back))


def graph_table(rows: Ids, ids: pa.ChunkedArray, neighbors: Ids, values: Float32) -> pa.Table:
    """The graph's schema: row int64, id, neighbors fixed_size_list<int64>[k], values likewise."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    k = neighbors.shape[1]
    return pa.table(
        {
            "row": pa.array(rows),
            "id": ids,
            "neighbors": pa.FixedSizeListArray.from_arrays(pa.array(neighbors.ravel()), k),
            "values": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), k),
        }
    )
