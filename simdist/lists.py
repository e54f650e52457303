"""k-NN lists as committed Parquet: the schema every stage that yields lists shares.

shards of a graph    | lists as built | ... |  changed lists  | changed lists |   tombstones
                       fact "change" absent    "older"          "newest"          rows that are
                                               a later list of a row stands         gone
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.types import Float32, Ids

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.store.datasets import Dataset

__all__ = ["graph_table", "hits_table", "ids_of_rows", "standing_table", "tombstones"]


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


def hits_table(rows: Ids, ids: pa.ChunkedArray, neighbors: Ids, values: Float32) -> pa.Table:
    """Lists of any length: row int64, id, neighbors list<int64>, values list<float32>. What is -1
    in neighbors [n, k] is left out; it comes last in its row."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    found = neighbors >= 0
    offsets = pa.array(np.concatenate([[0], np.cumsum(found.sum(axis=1))]), pa.int32())
    return pa.table(
        {
            "row": pa.array(rows),
            "id": ids,
            "neighbors": pa.ListArray.from_arrays(offsets, pa.array(neighbors[found])),
            "values": pa.ListArray.from_arrays(offsets, pa.array(values[found])),
        }
    )


def tombstones(graph: Dataset) -> Ids:
    """[t] rows of a graph that are gone, ascending; none of most graphs."""
    ref = graph.manifest.objects.get("tombstones")
    return np.empty(0, np.int64) if ref is None else np.asarray(graph.store.read_array(ref))


def standing_table(graph: Dataset, shard: int, columns: list[str]) -> pa.Table:
    """Columns of a graph shard, "row" among them, of the rows whose lists stand: neither deleted
    nor changed by a later shard. Of a graph that never changed, all."""
    table = graph.store.read_table(graph.shards[shard].objects["graph"], columns)
    gone = [tombstones(graph)]
    for later in graph.shards[shard + 1 :]:
        if "change" in later.facts:
            gone.append(graph.store.read_table(later.objects["graph"], ["row"])["row"].to_numpy())
    dead = np.concatenate(gone)
    return table.filter(~np.isin(table["row"].to_numpy(), dead)) if len(dead) else table
