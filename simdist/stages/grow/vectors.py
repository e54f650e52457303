"""Stage `append_vectors`: new rows behind the rows of a graph's vectors.

    ids    is any new id one that a living row has?      task per few old shards
    rows   new rows numbered on from the last old one    task per new shard

The new dataset's shards are the old ones and then the new ones, which bring their vectors along: an
object that lies in the same store is referenced, not copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.lists import tombstones
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.grow.lineage import vectors_of
from simdist.store.datasets import Dataset, Shard
from simdist.types import Ids, Json, ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["AppendVectors"]

SHARDS_AT_ONCE = 16  # of old ids that a task looks through
ID_NBYTES = 256  # of an id in memory, as text and in the table of a set


class AppendVectors:
    """Inputs: graph, whose vectors grow, and vectors, the new rows."""

    name: ClassVar[str] = "append_vectors"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        base, new = vectors_of(job.inputs["graph"]), job.inputs["vectors"]
        _refuse(base, new)
        for step in _story(base, new):
            if step.name not in rounds:
                return step
        if "ids" in rounds:
            _refuse_duplicate(new, rounds)
        return _manifest(base, new, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return (_ids if task.kind == "ids" else _rows)(context, task)

    def forecast(self, config: Any, rows: int, dim: int) -> Forecast:
        """Cost of appending n rows; ids of the rows before are read too."""
        return Forecast(2 * -(-rows // 8192), (64 << 20) + ID_NBYTES * rows, 0.0, 64 * rows)


def _refuse(base: Dataset, new: Dataset) -> None:
    """InputError where the new rows cannot stand behind the old ones."""
    dims = int(base.metrics["dim"]), int(new.metrics["dim"])
    if dims[0] != dims[1]:
        raise InputError(
            f"the new rows ({new.uri}) have {dims[1]} dimensions, the graph's vectors"
            f" ({base.uri}) have {dims[0]}: they must come from the same embedding"
        )
    ids = _kind(base), _kind(new)
    if ids[0] != ids[1]:
        raise InputError(
            f"the new rows ({new.uri}) have ids of type {ids[1]}, the graph's vectors"
            f" ({base.uri}) of type {ids[0]} ('row' means numbered): import them with the same"
            " id column"
        )
    columns = _columns(base), _columns(new)
    if columns[0] != columns[1]:
        raise InputError(
            f"the new rows ({new.uri}) bring the columns {list(columns[1])}, the graph's vectors"
            f" ({base.uri}) have {list(columns[0])}: import them with the same keep="
        )


def _kind(vectors: Dataset) -> str:
    return str(vectors.metrics.get("id", "row"))


def _columns(vectors: Dataset) -> dict[str, str]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - 0.3 s that planning does not need

    with vectors.store.objects.open(vectors.shards[0].objects["rows"].key) as file:
        return {field.name: str(field.type) for field in pq.read_schema(file)}


def _story(base: Dataset, new: Dataset) -> Iterator[Round]:
    if _kind(base) != "row":
        nbytes = ID_NBYTES * (new.rows + SHARDS_AT_ONCE * max(s.rows for s in base.shards))
        firsts = range(0, len(base.shards), SHARDS_AT_ONCE)
        yield Round(
            "ids",
            tuple(Task(f"ids-{f:06d}", "ids", {"first": f}, nbytes + (8 << 20)) for f in firsts),
        )
    largest = max(shard.rows for shard in new.shards)
    nbytes = largest * (4 * int(new.metrics["dim"]) + ID_NBYTES) + (16 << 20)
    yield Round(
        "rows",
        tuple(Task(f"rows-{s:06d}", "rows", {"shard": s}, nbytes) for s in range(len(new.shards))),
    )


def _ids(context: Context, task: Task) -> Record:
    """The first living row of some old shards whose id a new row has too."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need
    import pyarrow.compute as pc  # noqa: PLC0415

    graph, new = context.inputs["graph"], context.inputs["vectors"]
    base, gone = vectors_of(graph), tombstones(graph)
    wanted = pa.chunked_array(
        [chunk for shard in new.shards for chunk in _id_column(new, shard).chunks]
    ).combine_chunks()
    offsets = _offsets(base)
    first = task.args["first"]
    for place in range(first, min(first + SHARDS_AT_ONCE, len(base.shards))):
        context.check()
        ids = _id_column(base, base.shards[place])
        hits = np.flatnonzero(pc.is_in(ids, value_set=wanted).to_numpy())
        rows = hits + offsets[place]
        living = hits[~np.isin(rows, gone)]
        if len(living):
            found = {"row": int(living[0] + offsets[place]), "id": ids[int(living[0])].as_py()}
            return Record(task.key, {}, {"duplicate": found, "repeats": len(living)})
    return Record(task.key)


def _id_column(vectors: Dataset, shard: Shard) -> pa.ChunkedArray:
    return vectors.store.read_table(shard.objects["rows"], ["id"])["id"]


def _offsets(vectors: Dataset) -> Ids:
    return np.cumsum([0, *(shard.rows for shard in vectors.shards)])


def _refuse_duplicate(new: Dataset, rounds: Rounds) -> None:
    found = next((r.facts["duplicate"] for r in rounds["ids"] if r.facts), None)
    if found is not None:
        raise InputError(
            f"id {found['id']!r} of the new rows ({new.uri}) is that of row {found['row']} already:"
            " ids must be unique. Leave such rows out, or delete the old ones first"
            " (sd.delete(graph, ids=[...]))."
        )


def _rows(context: Context, task: Task) -> Record:
    """A new shard's rows table, numbered on; its vectors too where they lie in another store."""
    base, new = vectors_of(context.inputs["graph"]), context.inputs["vectors"]
    shard = new.shards[task.args["shard"]]
    table = _numbered(new.store.read_table(shard.objects["rows"]), base.rows, _kind(base) == "row")
    objects = {"rows": context.write_table("rows", table)}
    if new.store != context.store:
        vectors = context.load(shard.objects["vectors"], store=new.store)
        objects["vectors"] = context.write_array("vectors", vectors)
    return Record(task.key, objects)


def _numbered(table: pa.Table, offset: int, ids_too: bool) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    for name in ("row", "id") if ids_too else ("row",):
        place = table.schema.get_field_index(name)
        numbers = pa.array(table[name].to_numpy() + offset)
        table = table.set_column(place, table.schema.field(place), numbers)
    return table


def _manifest(base: Dataset, new: Dataset, rounds: Rounds) -> Commit:
    added = []
    for shard, record in zip(new.shards, rounds["rows"], strict=True):
        own: dict[str, ObjectRef] = {"vectors": shard.objects["vectors"], **record.objects}
        added.append(Shard(shard.rows, own))
    zeros = [base.metrics.get("first_zero_row"), new.metrics.get("first_zero_row")]
    if zeros[0] is None and zeros[1] is not None:
        zeros[0] = base.rows + int(zeros[1])
    dtypes = {base.metrics.get("dtype", "float32"), new.metrics.get("dtype", "float32")}
    metrics: dict[str, Json] = {
        "dim": base.metrics["dim"],
        "dtype": "float16" if dtypes == {"float16"} else "float32",
        "id": _kind(base),
        "first_zero_row": zeros[0],
        "appended": new.rows,
        "first_row": base.rows,
        "first_shard": len(base.shards),
    }
    return Commit(base.rows + new.rows, (*base.shards, *added), metrics)
