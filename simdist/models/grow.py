"""k-NN graphs that grow: `append`, `delete`, `compact`, and the links they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simdist.errors import InputError
from simdist.lists import tombstones
from simdist.models.chain import Link, run_links
from simdist.models.graphs import GraphDataset
from simdist.models.places import borrowed
from simdist.models.vectors import import_array
from simdist.stages.grow import (
    GROWN,
    AppendStage,
    AppendVectors,
    CompactConfig,
    CompactStage,
    DeleteStage,
    GraphLists,
    GrowConfig,
    PlainConfig,
    SegmentStage,
    partition_of,
    promise_of,
    vectors_of,
)
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.types import Array, Ids, ObjectRef

__all__ = ["append", "append_links", "compact", "delete", "delete_links"]


def append_links(name: str, graph: str, new: str, *, seed: int = 0) -> tuple[Link, ...]:
    """The steps that append the vectors called `new` to a graph; the last one is called `name`."""
    vectors, lists, segment = f"{name}.vectors", f"{name}.lists", f"{name}.segment"
    grown = {"graph": graph, "vectors": vectors}
    return (
        Link(vectors, AppendVectors(), PlainConfig(), {"graph": graph, "vectors": new}),
        Link(lists, GraphLists(), PlainConfig(), {"graph": graph}),
        Link(segment, SegmentStage(), PlainConfig(), grown),
        Link(
            name,
            AppendStage(),
            GrowConfig(seed=seed),
            {**grown, "lists": lists, "segment": segment},
        ),
    )


def append(
    graph: Dataset,
    new: Dataset | Array,
    *,
    seed: int = 0,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> GraphDataset:
    """The graph over its rows and new ones, which are numbered on from its last row.

    graph: what `knn_graph`, `append`, `delete` or `compact` committed. new: a vectors dataset with
    the same dimension, id type and kept columns, or an array [m, d] where the rows are numbered.
    seed: draws the rows on which recall is measured.

    k, measure and the recall promised are the graph's own: new rows find k neighbours among all,
    old rows take the new ones that are nearer than their k-th, and work is added until the sampled
    recall of all rows, and that of the new ones, keep the promise. An exact graph stays exact.
    The result lies in the graph's store, refers to its shards and adds the lists that changed;
    `metrics` has recall, recall_new and how many lists changed.
    Raises InputError for another dimension or id type, an id that a row has already, zero rows that
    the measure cannot take; ObjectMissing where what the graph was built on is gone.
    Cost: proportional to the new rows, times n^0.5 while cells are searched whole; reading lists
    and ids, and checking recall, take O(n).
    """
    place = graph.store
    links = append_links("graph", "base", "new", seed=seed)
    with borrowed(engine, place) as opened:
        if not isinstance(new, Dataset):
            new = import_array(new, store=place, engine=opened, listeners=listeners)
        given = {"base": graph, "new": new}
        made = run_links(links, given, store=place, engine=opened, listeners=listeners)
    return GraphDataset.of(made["graph"])


def delete_links(
    name: str, graph: str, vectors: str, rows: ObjectRef, *, seed: int = 0
) -> tuple[Link, ...]:
    """The steps that delete rows of a graph over the vectors called so. rows: an array in the
    store, ascending, each once."""
    lists = f"{name}.lists"
    return (
        Link(lists, GraphLists(), PlainConfig(), {"graph": graph}),
        Link(
            name,
            DeleteStage(),
            GrowConfig(seed=seed, deleted=rows),
            {"graph": graph, "vectors": vectors, "lists": lists},
        ),
    )


def delete(
    graph: Dataset,
    rows: Iterable[int] | Array | None = None,
    *,
    ids: Iterable[int | str] | None = None,
    seed: int = 0,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> GraphDataset:
    """The graph without some rows, given by number or by id. No other row changes its number.

    A deleted row has no list and is in none; lists that named it are filled up from neighbours'
    neighbours, and further until the sampled recall of all rows, and that of the repaired ones,
    keep the graph's promise. `open()` says which rows are gone.
    Raises InputError for a row or id that is not there (or was deleted before), and where k or
    fewer rows would be left. Cost: O(n) to read lists, then proportional to the lists that named a
    deleted row.
    """
    if (rows is None) == (ids is None):
        raise InputError("delete takes rows or ids, one of them: which rows are to go?")
    place = graph.store
    promise_of(graph)  # refuses what is no graph
    vectors = vectors_of(graph)
    numbers = _rows_of_ids(graph, vectors, list(ids)) if ids is not None else _checked(graph, rows)
    given = {"base": graph, "vectors": vectors}
    gone = place.write_array("deleted", numbers)
    links = delete_links("graph", "base", "vectors", gone, seed=seed)
    with borrowed(engine, place) as opened:
        made = run_links(links, given, store=place, engine=opened, listeners=listeners)
    return GraphDataset.of(made["graph"])


def compact(
    graph: Dataset,
    *,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> GraphDataset:
    """The same lists as one plain graph: no changes laid over others, one partition of all rows.

    Rows keep their numbers and deleted ones stay deleted: they have no row in the Parquet. A graph
    without changes comes back as it is. Worth it after several appends, each of which adds shards
    that later ones look through. Cost: O(n), a partition and the lists written anew.
    """
    if graph.stage not in GROWN:
        promise_of(graph)
        return GraphDataset.of(graph)
    place = graph.store
    given = {"base": graph, "vectors": vectors_of(graph)}
    inputs = {"graph": "base", "vectors": "vectors", "lists": "lists"}
    links = [Link("lists", GraphLists(), PlainConfig(), {"graph": "base"})]
    partition = partition_of(graph)
    if partition is not None:
        inputs["partition"] = "partition"
        if partition.rows == graph.rows:  # nothing was appended
            given["partition"] = partition
        else:
            links.append(_partition_link(partition))
    links.append(Link("graph", CompactStage(), CompactConfig(promise_of(graph)), inputs))
    with borrowed(engine, place) as opened:
        made = run_links(links, given, store=place, engine=opened, listeners=listeners)
    return GraphDataset.of(made["graph"])


def _partition_link(partition: Dataset) -> Link:
    """The partition of the grown vectors, made as the one before was."""
    from simdist.stages.partition import PartitionConfig, PartitionStage  # noqa: PLC0415

    config: dict[str, Any] = dict(partition.manifest.config)
    return Link("partition", PartitionStage(), PartitionConfig(**config), {"vectors": "vectors"})


def _checked(graph: Dataset, rows: Iterable[int] | Array | None) -> Ids:
    """The rows to delete, ascending, each once."""
    given = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows or ()))
    if given.size and (given.ndim != 1 or not np.issubdtype(given.dtype, np.integer)):
        raise InputError(f"rows to delete are integers [m]; got {given.dtype} {given.shape}")
    numbers = np.unique(given.astype(np.int64))
    if not len(numbers):
        raise InputError("no rows to delete: give at least one row or id")
    outside = numbers[(numbers < 0) | (numbers >= graph.rows)]
    if len(outside):
        raise InputError(f"row {outside[0]} is not there: {graph.uri} has {graph.rows} rows")
    again = numbers[np.isin(numbers, tombstones(graph))]
    if len(again):
        raise InputError(f"row {again[0]} was deleted from {graph.uri} before")
    return numbers


def _rows_of_ids(graph: Dataset, vectors: Dataset, ids: list[int | str]) -> Ids:
    """Numbers of the living rows that are called so; InputError names the first that is not."""
    import pyarrow as pa  # noqa: PLC0415 - only where a table is read
    import pyarrow.compute as pc  # noqa: PLC0415

    gone, found, offset = tombstones(graph), [], 0
    names: set[int | str] = set()
    for shard in vectors.shards:
        column = vectors.store.read_table(shard.objects["rows"], ["id"])["id"]
        fits = [i for i in ids if isinstance(i, str) != pa.types.is_integer(column.type)]
        hits = np.flatnonzero(pc.is_in(column, value_set=pa.array(fits, column.type)).to_numpy())
        living = hits[~np.isin(hits + offset, gone)]
        names |= set(column.take(pa.array(living)).to_pylist())
        found.append(living + offset)
        offset += shard.rows
    missing = next((i for i in ids if i not in names), None)
    if missing is not None:
        raise InputError(f"no row of {graph.uri} has the id {missing!r}")
    return _checked(graph, np.concatenate(found))
