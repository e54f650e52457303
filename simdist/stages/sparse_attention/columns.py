"""Columns kept beside the keys as values: numbers as they are, text as shares of its classes.

size        1200, 80, ...        ──> one column of the output: the average
section     games, net, ...      ──> a column `section=games`, `section=net`, ... for every class
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simdist.errors import InputError
from simdist.types import Float64, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.store.datasets import Dataset

__all__ = ["Column", "classes_of", "column_values", "kinds_of", "with_classes"]

MOST_CLASSES = 1000  # of a column: each is a column of the output


@dataclass(frozen=True, slots=True)
class Column:
    """kind: "number" or "text". classes: of text, ascending."""

    name: str
    kind: str
    classes: tuple[str, ...] = ()

    @property
    def text(self) -> bool:
        return self.kind == "text"

    @property
    def width(self) -> int:
        return len(self.classes) if self.text else 1

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the columns that come of it."""
        if self.text:
            return tuple(f"{self.name}={value}" for value in self.classes)
        return (self.name,)


def kinds_of(source: Dataset, names: Sequence[str]) -> list[Json]:
    """[name, kind] of every column; InputError where one is not there or can be no value."""
    from pyarrow import types  # noqa: PLC0415 - 0.3 s that planning does not need

    schema = source.store.read_table(source.shards[0].objects["rows"]).schema
    found: list[Json] = []
    for name in names:
        if name not in schema.names:
            kept = ", ".join(c for c in schema.names if c not in ("row", "id")) or "none"
            raise InputError(
                f"{source.uri} has no column {name!r}; kept with its vectors: {kept}. Import them"
                f" with keep: [{name}]."
            )
        kind = schema.field(name).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
            found.append([name, "number"])
        elif types.is_string(kind) or types.is_large_string(kind):
            found.append([name, "text"])
        else:
            raise InputError(
                f"column {name!r} of {source.uri} holds {kind}; values are numbers, booleans or"
                " text"
            )
    return found


def classes_of(source: Dataset, columns: Sequence[Column], shard: int) -> dict[str, Json]:
    """What each column of text holds in one shard, ascending; NULL is no class."""
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    names = [column.name for column in columns if column.text]
    table = source.store.read_table(source.shards[shard].objects["rows"], names)
    found: dict[str, Json] = {}
    for name in names:
        values = [v for v in pc.unique(_plain(table[name])).to_pylist() if v is not None]
        _refuse_many(name, len(values))
        found[name] = sorted(values)
    return found


def with_classes(columns: Sequence[Column], shards: Sequence[Json]) -> list[Column]:
    """The columns with the classes that any shard has."""
    found = []
    for column in columns:
        if column.text:
            classes = sorted({value for shard in shards for value in shard[column.name]})
            _refuse_many(column.name, len(classes))
            found.append(replace(column, classes=tuple(classes)))
        else:
            found.append(column)
    return found


def _refuse_many(name: str, count: int) -> None:
    if count > MOST_CLASSES:
        raise InputError(
            f"column {name!r} has {count:,} different texts; at most {MOST_CLASSES:,} become"
            " columns. Is it an id?"
        )


def column_values(source: Dataset, columns: Sequence[Column], first: int, last: int) -> Float64:
    """[rows, width] of rows first..last; a NULL text has no share in any class. InputError for a
    number that is NULL or not finite."""
    parts, offset = [], 0
    names = [column.name for column in columns]
    for shard in source.shards:
        low, high = max(first - offset, 0), min(last - offset, shard.rows)
        if low < high:
            table = source.store.read_table(shard.objects["rows"], names).slice(low, high - low)
            made = [
                _shares(table[column.name], column)
                if column.text
                else _numbers(source, column.name, table[column.name], offset + low)
                for column in columns
            ]
            parts.append(np.concatenate(made, axis=1))
        offset += shard.rows
    return np.concatenate(parts)


def _shares(values: pa.ChunkedArray, column: Column) -> Float64:
    import pyarrow as pa  # noqa: PLC0415 - as above
    import pyarrow.compute as pc  # noqa: PLC0415

    plain = _plain(values)
    numbers = pc.index_in(plain, value_set=pa.array(column.classes, plain.type))
    at = pc.fill_null(numbers, -1).to_numpy()
    shares = np.zeros((len(at), column.width))
    rows = np.flatnonzero(at >= 0)
    shares[rows, at[rows]] = 1.0
    return shares


def _numbers(source: Dataset, name: str, values: pa.ChunkedArray, first: int) -> Float64:
    import pyarrow as pa  # noqa: PLC0415 - as above

    plain = _plain(values).cast(pa.float64(), safe=False)
    numbers = np.asarray(plain.to_numpy(zero_copy_only=False), np.float64)
    broken = ~np.isfinite(numbers)  # NULL is NaN here
    if broken.any():
        row = first + int(np.argmax(broken))
        raise InputError(
            f"column {name!r} of {source.uri} is NULL or not finite at row {row}: an average"
            " needs a number in every row. Fill it, or leave the row out of the import."
        )
    return numbers[:, None]


def _plain(values: pa.ChunkedArray) -> Any:
    """A column without a dictionary, in one piece; booleans as whole numbers."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    from pyarrow import types  # noqa: PLC0415

    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if types.is_boolean(values.type):
        values = values.cast(pa.int8())
    whole = values.combine_chunks()
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
