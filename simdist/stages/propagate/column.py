"""Stage `column_labels`: a column that was imported with vectors, as class numbers.

    values   which values the column has             task a shard
    labels   each row's number, -1 for an empty one  task a shard

Classes are numbered by their values in ascending order, so numbers do not depend on shards.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.runner.plan import Commit, Job, Record, Round, Rounds, Task
from simdist.store.datasets import Shard
from simdist.types import Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["ColumnConfig", "ColumnLabels"]

MOST_CLASSES = 10_000  # listed in every task's args and in the manifest


@dataclass(frozen=True, slots=True)
class ColumnConfig:
    """column: a name of the `keep=` of the import; strings, whole numbers or booleans."""

    column: str

    def to_json(self) -> Json:
        return asdict(self)


class ColumnLabels:
    """See the module docstring. Input: vectors. The manifest lists the classes by number."""

    name: ClassVar[str] = "column_labels"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        shards = job.inputs["vectors"].shards
        if "values" not in rounds:
            return _each("values", [shard.rows for shard in shards])
        classes = _classes(job, rounds)
        if "labels" not in rounds:
            return _each("labels", [shard.rows for shard in shards], classes=classes)
        made = rounds["labels"]
        return Commit(
            rows=sum(shard.rows for shard in shards),
            shards=tuple(
                Shard(shard.rows, record.objects)
                for shard, record in zip(shards, made, strict=True)
            ),
            metrics={
                "column": job.config.column,
                "classes": classes,
                "labelled": sum(int(record.facts["labelled"]) for record in made),
            },
        )

    def compute(self, context: Context, task: Task) -> Record:
        import pyarrow.compute as pc  # noqa: PLC0415 - 0.3 s that planning does not need

        column = _column(context, task.args["shard"])
        if task.kind == "values":
            found = [value for value in pc.unique(column).to_pylist() if value is not None]
            if len(found) > MOST_CLASSES:
                raise InputError(_too_many(context.config.column, len(found)))
            return Record(task.key, {}, {"classes": sorted(found)})
        numbers = pc.index_in(column, value_set=_values(column, task.args["classes"]))
        labels = pc.fill_null(numbers, -1).to_numpy().astype(np.int64)
        ref = context.write_array("labels", labels)
        return Record(task.key, {"labels": ref}, {"labelled": int(np.sum(labels >= 0))})


def _each(name: str, rows: list[int], **args: Json) -> Round:
    return Round(
        name,
        tuple(
            Task(f"{name}-{i:06d}", name, {"shard": i, **args}, 128 * count + (16 << 20))
            for i, count in enumerate(rows)
        ),
    )


def _classes(job: Job, rounds: Rounds) -> list[Json]:
    """All values, ascending; InputError where there is none, or too many."""
    found = sorted({value for record in rounds["values"] for value in record.facts["classes"]})
    column = job.config.column
    if not found:
        raise InputError(
            f"column {column!r} of {job.inputs['vectors'].uri} is empty in every row: label at"
            " least one row of a class"
        )
    if len(found) > MOST_CLASSES:
        raise InputError(_too_many(column, len(found)))
    return found


def _column(context: Context, shard: int) -> pa.Array:
    """One shard's values; InputError where there is no such column, or it holds no classes."""
    from pyarrow import types  # noqa: PLC0415 - 0.3 s that planning does not need

    source, name = context.inputs["vectors"], context.config.column
    table = source.store.read_table(source.shards[shard].objects["rows"])
    if name not in table.column_names:
        kept = ", ".join(c for c in table.column_names if c not in ("row", "id")) or "none"
        raise InputError(
            f"{source.uri} has no column {name!r}; kept with its vectors: {kept}. Import them with"
            f" keep: [{name}]."
        )
    column = table[name].combine_chunks()
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    known = (types.is_integer, types.is_boolean, types.is_string, types.is_large_string)
    if not any(check(column.type) for check in known):
        raise InputError(
            f"column {name!r} of {source.uri} holds {column.type}; classes are strings, whole"
            " numbers or booleans"
        )
    return column


def _values(column: pa.Array, classes: list[Json]) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415 - as above

    return pa.array(classes, type=column.type)


def _too_many(column: str, count: int) -> str:
    return (
        f"column {column!r} has {count:,} different values; at most {MOST_CLASSES:,} classes are"
        " propagated. Is it an id?"
    )
