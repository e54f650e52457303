"""A committed k-NN graph as Parquet files of one's own, with neighbours called by their ids.

    graph shard (row, id, neighbors, values) ──> a file: row, id, neighbors, neighbor_ids, values
    vectors shards (row, id) ── ids of the rows that the shard names ──┘

A graph keeps neighbours as row numbers, which are short and never change; ids are a join away. Who
hands the graph to people or to another database has the join done here, once.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.lists import standing_table
from simdist.store.datasets import Dataset
from simdist.store.store import open_store
from simdist.types import Ids, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.store.objects import Objects

__all__ = ["Exported", "export_graph"]

COLUMNS = ["row", "id", "neighbors", "values"]
KEPT_NBYTES = 256 << 20  # of ids kept between shards; what is beyond is read again for each
SLICE_ROWS = 65_536  # rows whose neighbours' ids are laid out at once: a row group


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: where, how many files, and what is in them."""

    uri: str
    files: int
    rows: int
    nbytes: int

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


def export_graph(graph: Dataset, target: str | os.PathLike[str], *, ids: bool = True) -> Exported:
    """Write a k-NN graph, of `knn_graph`, `append`, `delete` or `knn`, as `part-00000.parquet`, ...

    target: an empty folder or s3:// prefix, or one that does not exist yet; a store's options come
        from the environment, as for `open_store`.
    ids: whether each list carries its neighbours' ids too: strings or int64, as they were imported.

    A file per shard with rows that stand: row int64, id, neighbors fixed_size_list<int64>[k],
    neighbor_ids fixed_size_list<id>[k] in the same order, values fixed_size_list<float32>[k]. Rows
    come as the graph's shards hold them, cell by cell where cells made it, so `row` says which one
    it is; deleted rows are left out. Equal graphs give equal files.

    Cost: one pass over the graph in this process. Memory: a shard, the ids of the rows that it
    names, and 256 MiB of ids kept for the next shard. Where all ids take more than that, the rest
    is read once per shard.
    Raises InputError where the dataset is no k-NN graph, or something lies at the target already.
    """
    if not graph.shards or any("graph" not in shard.objects for shard in graph.shards):
        raise InputError(
            f"{graph.uri} is of {graph.stage} and holds no k-NN lists: export takes what knn_graph,"
            " append, delete and knn commit"
        )
    objects = open_store(target).objects
    if (found := next(iter(objects.list("")), None)) is not None:
        raise InputError(
            f"{objects.uri} holds {found.key} already, and readers take every file of a folder:"
            " give an empty or a new one"
        )
    names = _Names(_named_by(graph)) if ids else None
    files = rows = nbytes = 0
    for place in range(len(graph.shards)):
        table = standing_table(graph, place, COLUMNS)
        if len(table):
            nbytes += _write(objects, f"part-{files:05d}.parquet", table, names)
            files, rows = files + 1, rows + len(table)
    return Exported(objects.uri, files, rows, nbytes)


def _named_by(graph: Dataset) -> Dataset:
    """The vectors whose rows the lists name."""
    inputs = graph.manifest.inputs
    return graph.store.dataset(inputs["corpus"] if "corpus" in inputs else inputs["vectors"])


class _Names:
    """Ids of the rows that a shard names. Those read first are kept, up to KEPT_NBYTES: every shard
    needs nearly all, in the same order, and whatever is dropped would be the next to be asked for.
    """

    def __init__(self, vectors: Dataset) -> None:
        self._vectors = vectors
        self._kept: dict[int, pa.ChunkedArray] = {}
        self._nbytes = 0

    def of(self, rows: Ids) -> pa.ChunkedArray:
        """The ids of some rows, which are ascending."""
        import pyarrow as pa  # noqa: PLC0415 - only where a table is written

        parts, offset = [], 0
        for place, shard in enumerate(self._vectors.shards):
            low, high = np.searchsorted(rows, [offset, offset + shard.rows])
            if low < high or place == 0:  # the first for its type
                parts.append(self._column(place).take(pa.array(rows[low:high] - offset)))
            offset += shard.rows
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)

    def _column(self, place: int) -> pa.ChunkedArray:
        """The ids of a shard of the vectors."""
        kept = self._kept.get(place)
        if kept is None:
            shard = self._vectors.shards[place]
            kept = self._vectors.store.read_table(shard.objects["rows"], ["id"])["id"]
            if self._nbytes + kept.nbytes <= KEPT_NBYTES:
                self._kept[place] = kept
                self._nbytes += kept.nbytes
        return kept


def _write(objects: Objects, key: str, table: pa.Table, names: _Names | None) -> int:
    """A shard's lists as one file, a row group at a time; its bytes."""
    import pyarrow as pa  # noqa: PLC0415 - only where a table is written
    import pyarrow.parquet as pq  # noqa: PLC0415

    parts = (table.slice(first, SLICE_ROWS) for first in range(0, len(table), SLICE_ROWS))
    if names is not None:
        rows = np.unique(_flat(table))
        ids = names.of(rows)
        parts = (_with_ids(part, rows, ids) for part in parts)
    first = next(parts)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, first.schema, compression="zstd", compression_level=1) as file:
        file.write_table(first)
        for part in parts:
            file.write_table(part)
    data = sink.getvalue()
    objects.put(key, memoryview(data))
    return int(data.size)


def _with_ids(table: pa.Table, rows: Ids, ids: pa.ChunkedArray) -> pa.Table:
    """Lists with their neighbours' ids behind them. rows, ids: what all of them are called."""
    import pyarrow as pa  # noqa: PLC0415 - only where a table is written

    named = ids.take(pa.array(np.searchsorted(rows, _flat(table)))).combine_chunks()
    lists = pa.FixedSizeListArray.from_arrays(named, table["neighbors"].type.list_size)
    return table.add_column(table.schema.get_field_index("values"), "neighbor_ids", lists)


def _flat(table: pa.Table) -> Ids:
    """[m k] the neighbours of all lists of a table."""
    flat: Ids = table["neighbors"].combine_chunks().flatten().to_numpy()
    return flat
