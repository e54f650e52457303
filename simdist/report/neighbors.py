"""Who stands next to whom, by name: a few rows of a committed k-NN graph.

    graph shard (row, id, neighbors, values) ──> rows asked for ──> neighbour rows ──> their ids
                                                                     vectors shard (row, id) ──┘

Reads only the shards that hold what is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.lists import standing_table
from simdist.store.datasets import Dataset, Shard
from simdist.types import Ids, Json

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Neighborhood", "neighborhoods"]

ROWS_SEARCHED = 5_000_000  # looking for an id by name ends here: a summary is not a query
COLUMNS = ["row", "id", "neighbors", "values"]


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """A row's id, and its nearest ids with their values, nearest first."""

    id: str | int
    neighbors: tuple[tuple[str | int, float], ...]

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


def neighborhoods(
    graph: Dataset, *, ids: Sequence[str | int] = (), count: int = 3, nearest: int = 5
) -> tuple[Neighborhood, ...]:
    """The `nearest` neighbours of the rows called `ids`, or of `count` rows drawn by seed.

    InputError names the ids that are not there.
    """
    if graph.rows == 0:
        return ()
    table = _named(graph, ids) if ids else _drawn(graph, count)
    near = [
        list(zip(rows[:nearest], values[:nearest], strict=True))
        for rows, values in zip(
            table["neighbors"].to_pylist(), table["values"].to_pylist(), strict=True
        )
    ]
    vectors = graph.store.dataset(graph.manifest.inputs["vectors"])
    names = _ids(vectors, np.unique([row for pairs in near for row, _ in pairs]))
    return tuple(
        Neighborhood(own, tuple((names[row], value) for row, value in pairs))
        for own, pairs in zip(table["id"].to_pylist(), near, strict=True)
    )


def _named(graph: Dataset, ids: Sequence[str | int]) -> pa.Table:
    """The graph's rows of these ids, in the order asked for."""
    import pyarrow as pa  # noqa: PLC0415 - only where a table is read
    import pyarrow.compute as pc  # noqa: PLC0415

    found: dict[str | int, pa.Table] = {}
    searched = 0
    for place, shard in enumerate(graph.shards):
        if len(found) == len(set(ids)) or searched > ROWS_SEARCHED:
            break
        searched += shard.rows
        table = standing_table(graph, place, COLUMNS)
        kind = table["id"].type
        wanted = [name for name in ids if isinstance(name, int) == pa.types.is_integer(kind)]
        hits = table.filter(pc.is_in(table["id"], value_set=pa.array(wanted, kind)))
        found |= {name: hits.slice(at, 1) for at, name in enumerate(hits["id"].to_pylist())}
    if missing := [name for name in ids if name not in found]:
        reach = "" if searched <= ROWS_SEARCHED else f" among the first {searched:,} rows"
        raise InputError(f"no row is called {', '.join(map(repr, missing))}{reach}")
    return pa.concat_tables([found[name] for name in ids])


def _drawn(graph: Dataset, count: int) -> pa.Table:
    """Rows of the first shard that has any, the same ones every time."""
    tables = (standing_table(graph, place, COLUMNS) for place in range(len(graph.shards)))
    table = next(table for table in tables if len(table))
    rng = np.random.default_rng([0, len(table)])
    rows = np.sort(rng.choice(len(table), size=min(count, len(table)), replace=False))
    return table.take(rows)


def _ids(vectors: Dataset, rows: Ids) -> dict[int, str | int]:
    """The ids of global row numbers (sorted), from the shards that hold them."""
    names: dict[int, str | int] = {}
    for start, shard in _offsets(vectors):
        here = rows[(rows >= start) & (rows < start + shard.rows)]
        if len(here):
            column = vectors.store.read_table(shard.objects["rows"], ["id"])["id"]
            names |= dict(zip(here.tolist(), column.take(here - start).to_pylist(), strict=True))
    return names


def _offsets(dataset: Dataset) -> Iterator[tuple[int, Shard]]:
    starts = accumulate((shard.rows for shard in dataset.shards), initial=0)
    return zip(starts, dataset.shards, strict=False)
