"""What may be imported, and how a batch becomes vectors, ids and kept columns.

    file schema ──> check_columns ──> usable types           once a file
    batch ──> vectors_of, ids_of, plain ──> [m, d], [m], kept columns

Every refusal is an InputError that says in which file and row (counted from 0), what was found,
what was expected, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simdist.errors import InputError
from simdist.stages.vectors.sources import Source
from simdist.types import Array

__all__ = [
    "Place",
    "Wanted",
    "check_columns",
    "dim_of",
    "dtype_of",
    "first_zero_row",
    "ids_of",
    "row_fields",
    "rows_of",
    "unify",
    "vectors_of",
]

FLOATS = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float32"}
EXPONENT_16 = np.uint16(0x7C00)  # all ones: infinity or NaN


@dataclass(frozen=True, slots=True)
class Wanted:
    """The columns an import asks for."""

    vector: str
    id: str | None
    keep: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, each once."""
        ids = () if self.id is None else (self.id,)
        return tuple(dict.fromkeys((self.vector, *ids, *self.keep)))

    def stored_in(self, source: Source) -> list[str]:
        """Those to read from the file itself; the path gives the others."""
        paths = dict(source.partitions)
        return [name for name in self.names if name not in paths]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch begins: in its file (for messages), and among all rows of the import."""

    uri: str
    row: int
    number: int

    def at(self, row: int) -> str:
        """Names one row of the batch."""
        return f"{self.uri} row {self.row + row}"


def check_columns(
    source: Source, schema: pa.Schema, wanted: Wanted, types: Mapping[str, pa.DataType]
) -> pa.Schema:
    """The file's schema with the path's Hive columns, if it holds what is wanted in usable types.

    types: of the Hive columns.

    Raises InputError for an unknown column, naming the nearest; and for a vector column that is no
    list of floats or an id column that is neither integers nor strings.
    """
    for name, _ in source.partitions:  # the path wins over the file, as in DuckDB and Spark
        if name in schema.names:
            schema = schema.remove(schema.get_field_index(name))
        schema = schema.append(pa.field(name, types[name]))
    for name in wanted.names:
        if name not in schema.names:
            raise InputError(_unknown(source.uri, name, schema))
        if schema.names.count(name) > 1:
            raise InputError(
                f"{source.uri} has {schema.names.count(name)} columns named {name!r}; rename them"
            )
    kind = _storage(schema.field(wanted.vector).type)
    if not _is_list(kind) or kind.value_type not in FLOATS:
        raise InputError(
            f"{source.uri}: column {wanted.vector!r} has type {kind}; vectors are lists (fixed-size"
            f" or not) of float16, float32 or float64. {_vector_remedy(schema, kind)}"
        )
    if wanted.id is not None:
        kind = plain_type(schema.field(wanted.id).type)
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
            raise InputError(
                f"{source.uri}: id column {wanted.id!r} has type {kind}; ids are integers or"
                " strings. Cast it, or leave id out to number the rows."
            )
    return schema


def dtype_of(kind: pa.DataType) -> str:
    """In which precision vectors of this column type are kept: "float16" or "float32"."""
    return FLOATS[_storage(kind).value_type]


def row_fields(schema: pa.Schema, wanted: Wanted) -> pa.Schema:
    """Types of the rows table: `row`, `id` (the row number where no id is wanted), kept columns."""
    ids = pa.int64()
    if wanted.id is not None and pa.types.is_string(plain_type(schema.field(wanted.id).type)):
        ids = pa.string()
    kept = [(name, plain_type(schema.field(name).type)) for name in wanted.keep]
    return pa.schema([("row", pa.int64()), ("id", ids), *kept])


def rows_of(
    batch: pa.RecordBatch, source: Source, wanted: Wanted, fields: pa.Schema, place: Place
) -> pa.RecordBatch:
    """A batch of the rows table, in the types of `fields`; Hive columns come from the path.

    Raises InputError for ids that `ids_of` refuses.
    """
    paths = dict(source.partitions)

    def column(name: str, kind: pa.DataType) -> pa.Array:
        if name in paths:
            return pa.repeat(pa.scalar(paths[name], pa.string()).cast(kind), len(batch))
        return batch.column(name)

    numbers = pa.array(np.arange(place.number, place.number + len(batch)))
    ids = numbers
    if wanted.id is not None:
        ids = ids_of(column(wanted.id, fields.field("id").type), wanted.id, place)
    kept = [
        plain(column(name, fields.field(name).type)).cast(fields.field(name).type)
        for name in wanted.keep
    ]
    return pa.record_batch([numbers, ids, *kept], schema=fields)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without its encoding: what a dictionary or extension holds, 32-bit string offsets.

    So the same values in another encoding are the same content, with the same fingerprint.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return kind


def dim_of(column: pa.Array, name: str, place: Place) -> int:
    """The length of the first vector of a batch of at least one row; it becomes the import's d.

    Raises InputError where that vector is NULL or empty.
    """
    if column[0].as_py() is None:
        vectors_of(column, name, place, dim=0, dtype="float32")
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    dim = int(pc.list_value_length(column)[0].as_py())
    if dim == 0:
        raise InputError(
            f"{place.at(0)}: the vector in column {name!r} has no elements; expected at least one."
            " Is this the right column?"
        )
    return dim


def vectors_of(column: pa.Array, name: str, place: Place, *, dim: int, dtype: str) -> Array:
    """The vectors of a batch: [m, dim] of `dtype`; float64 is narrowed to float32.

    Raises InputError for a NULL vector, another length than `dim`, a NULL, NaN or infinite element,
    and an element too large for float32.
    """
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if column.null_count:
        row = _first(column.is_null())
        raise InputError(
            f"{place.at(row)}: the vector in column {name!r} is NULL; expected a list of numbers."
            f" {column.null_count} of the {len(column)} rows read with it are. Filter out the rows"
            f" where {name} is NULL, or compute their vectors."
        )
    if not pa.types.is_fixed_size_list(column.type):
        _refuse_ragged(column, name, place, dim)
    flat = column.flatten()
    if flat.null_count:
        row, element = divmod(_first(flat.is_null()), dim)
        raise InputError(
            f"{place.at(row)}: element {element} of the vector in column {name!r} is NULL; expected"
            " a finite number. Fill it, or filter out the row."
        )
    source = flat.to_numpy(zero_copy_only=False).reshape(len(column), dim)
    with np.errstate(over="ignore"):  # an overflow is infinite, and refused below
        vectors: Array = source.astype(dtype, copy=False)
    broken = _not_finite(vectors)
    if broken is not None:
        row, element = broken
        raise InputError(_not_finite_message(place.at(row), name, element, source[row, element]))
    return vectors


def finite_rows(
    rows: Array, dtype: np.dtype[Any], where: str, first: int, *, out: Array | None = None
) -> Array:
    """Rows of an array [m, d] as `dtype`, contiguous. where: says of `{row}` which it is; first:
    the number of the first one; out: where they go, by default a copy only where one is needed.
    Raises InputError for an element that is not finite as `dtype`."""
    with np.errstate(over="ignore"):  # an overflow is infinite, and refused below
        if out is None:
            vectors = np.ascontiguousarray(rows, dtype)
        else:
            vectors = out
            vectors[...] = rows
    broken = _not_finite(vectors)
    if broken is not None:
        row, element = broken
        value = rows[row, element]
        wrong = "too large for float32" if np.isfinite(value) else "expected a finite number"
        raise InputError(
            f"{where.format(row=first + row)}: element {element} is {value}; {wrong}. Filter out"
            " such rows, or find what made them (a division by zero, an overflow)."
        )
    return vectors


def first_zero_row(vectors: Array) -> int | None:
    """The first row whose elements are all zero, if any."""
    maybe = np.flatnonzero(vectors[:, 0] == 0)  # few, and the rest need no second look
    found = _first_zero_row(vectors[maybe])
    return None if found is None else int(maybe[found])


def _first_zero_row(vectors: Array) -> int | None:
    words = vectors.view(f"u{vectors.dtype.itemsize}")
    zero = ~(words << np.array(1, words.dtype)).any(axis=1)  # shifted: -0.0 is zero too
    return int(zero.argmax()) if zero.any() else None


def ids_of(column: pa.Array, name: str, place: Place) -> pa.Array:
    """The ids of a batch: [m] int64 or string.

    Raises InputError for a NULL id and for an unsigned integer beyond int64.
    """
    ids = plain(column)
    if ids.null_count:
        row = _first(ids.is_null())
        raise InputError(
            f"{place.at(row)}: the id in column {name!r} is NULL; expected an integer or a string."
            f" Filter out the rows where {name} is NULL, or leave id out to number the rows."
        )
    if not pa.types.is_uint64(ids.type):
        return ids if pa.types.is_string(ids.type) else ids.cast(pa.int64())
    largest = np.uint64(np.iinfo(np.int64).max)
    values = ids.to_numpy()
    if len(values) and values.max() > largest:
        row = int((values > largest).argmax())
        raise InputError(
            f"{place.at(row)}: id {values[row]} in column {name!r} is larger than {largest}, the"
            " largest int64. Cast the ids to strings first."
        )
    return ids.cast(pa.int64())


def plain(column: pa.Array) -> pa.Array:
    """The column in its `plain_type`."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    kind = plain_type(column.type)
    return column if column.type == kind else column.cast(kind)


def unify(schemas: Sequence[tuple[str, pa.Schema]]) -> pa.Schema:
    """One schema for the kept columns of all files: int32 and int64 give int64, and so on.

    schemas: (uri, schema) of each file. Raises InputError naming the column and two files.
    """
    (first_uri, unified), *others = schemas
    for uri, schema in others:
        try:
            unified = pa.unify_schemas([unified, schema], promote_options="permissive")
        except pa.ArrowException as error:
            name = next(n for n in schema.names if schema.field(n).type != unified.field(n).type)
            raise InputError(
                f"column {name!r} has type {schema.field(name).type} in {uri} and"
                f" {unified.field(name).type} in {first_uri}; one column has one type. Cast it in"
                " one of them, or leave it out of keep."
            ) from error
    return unified


def _refuse_ragged(column: pa.Array, name: str, place: Place, dim: int) -> None:
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    wrong = lengths != dim
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{place.at(row)}: the vector in column {name!r} has {lengths[row]} elements; the first"
            f" one has {dim}. All vectors of an import have one length: find where these rows come"
            " from, and filter them out or compute them again."
        )


def _not_finite(vectors: Array) -> tuple[int, int] | None:
    """Row and column of the first NaN or infinity."""
    if vectors.dtype == np.float16:  # numpy has no fast isfinite for it
        broken = (vectors.view(np.uint16) & EXPONENT_16) == EXPONENT_16
    else:
        broken = ~np.isfinite(vectors)
    if not broken.any():
        return None
    row, element = divmod(int(broken.argmax()), vectors.shape[1])
    return row, element


def _not_finite_message(where: str, name: str, element: int, value: Any) -> str:
    if np.isfinite(value):
        return (
            f"{where}: element {element} of the vector in column {name!r} is {value}, too large for"
            " float32, in which vectors are kept. Scale the vectors down first."
        )
    return (
        f"{where}: element {element} of the vector in column {name!r} is {value}; expected a finite"
        " number. Filter out such rows, or find what made them (a division by zero, an overflow)."
    )


def _unknown(uri: str, name: str, schema: pa.Schema) -> str:
    near = difflib.get_close_matches(name, schema.names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(schema.names[:20]) + (", ..." if len(schema.names) > 20 else "")
    return f"{uri} has no column {name!r}.{hint} Its columns are: {shown}."


def _vector_remedy(schema: pa.Schema, kind: pa.DataType) -> str:
    if _is_list(kind):
        return f"Cast its elements from {kind.value_type} to float32 first."
    usable = [f.name for f in schema if _is_list(f.type) and _storage(f.type).value_type in FLOATS]
    return f"Columns that are: {', '.join(usable)}." if usable else "No column of this file is one."


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_list(kind: pa.DataType) -> bool:
    kind = _storage(kind)
    tests = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    return any(test(kind) for test in tests)


def _first(mask: pa.Array) -> int:
    """The first row where the mask is true."""
    return int(pc.index(mask, pa.scalar(True)).as_py())
