"""Kept columns of a vectors dataset, as numbers and as classes, each row checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from simdist.errors import InputError
from simdist.runner.resident import keep_within
from simdist.types import Array, Bools, Float64, Ids, ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.store.datasets import Dataset

__all__ = [
    "Class",
    "classes_in",
    "held_rows",
    "labels_between",
    "numbers_between",
    "refuse_row",
    "signs_of",
    "weights_between",
]

Class: TypeAlias = int | str

MOST_CLASSES = 1000  # each is a column of coefficients, and a problem of its own


def numbers_between(vectors: Dataset, columns: tuple[str, ...], first: int, last: int) -> Float64:
    """Some rows of kept columns. -> [rows, columns] float64.

    Raises InputError naming the column and the first row that is NULL, NaN or infinite, and where a
    column is not kept or holds no numbers.
    """
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    out = np.empty((last - first, len(columns)))
    for place, name in enumerate(columns):
        column = _column_between(vectors, name, first, last)
        try:
            numbers = column.cast(pa.float64())
        except pa.ArrowInvalid:
            numbers = None
        if numbers is None or not (
            pa.types.is_integer(column.type)
            or pa.types.is_floating(column.type)
            or pa.types.is_boolean(column.type)
        ):
            raise InputError(
                f"column {name!r} of {vectors.uri} holds {column.type}; expected numbers"
            )
        out[:, place] = numbers.to_numpy()
        wrong = np.flatnonzero(~np.isfinite(out[:, place]))
        if len(wrong):
            refuse_row(f"column {name!r} of {vectors.uri}", first, wrong, out[wrong[0], place])
    return out


def refuse_row(what: str, first: int, wrong: Ids, value: float) -> None:
    """InputError that names the first of some rows without a finite number."""
    held = "NaN or NULL" if np.isnan(value) else "infinity"
    more = "" if len(wrong) == 1 else f", and {len(wrong) - 1} more rows near it hold none either"
    raise InputError(
        f"{what}, row {first + int(wrong[0])}: expected a finite number, got {held}{more}. Leave"
        " such rows out, or fill them, before the import."
    )


def labels_between(
    vectors: Dataset, column: str, first: int, last: int, classes: list[Class]
) -> Ids:
    """Places in `classes` (ascending) of some rows' values: [rows] int64, -1 for a value that is
    none of them."""
    values = _labels(vectors, column, first, last)
    known = np.array(classes)
    if known.dtype.kind != values.dtype.kind:
        raise InputError(
            f"column {column!r} of {vectors.uri} holds {values.dtype.name}, the model's classes are"
            f" {known.dtype.name}: {classes[:3]}"
        )
    places = np.searchsorted(known, values).clip(0, len(known) - 1)
    return np.where(known[places] == values, places, -1).astype(np.int64)


def classes_in(
    vectors: Dataset, column: str, first: int, last: int, weights: Array | None = None
) -> list[Class]:
    """The classes of some rows that have a weight, ascending. InputError where a row has none, or
    there are more than a thousand."""
    labels = _labels(vectors, column, first, last)
    found: list[Class] = np.unique(labels if weights is None else labels[weights > 0]).tolist()
    if len(found) > MOST_CLASSES:
        raise InputError(
            f"column {column!r} of {vectors.uri} has {len(found)} classes in {last - first} rows;"
            f" at most {MOST_CLASSES} can be learned. Is it a number to be predicted"
            " (KernelRidge), or an id?"
        )
    return found


def held_rows(first: int, last: int, share: float, seed: int) -> Bools:
    """[last - first] which of some rows are held out: by a hash of the row's number and the seed,
    so that it is the same whatever the cuts are."""
    with np.errstate(over="ignore"):
        x = np.arange(first, last, dtype=np.uint64) + np.uint64(seed) * np.uint64(
            0x9E3779B97F4A7C15
        )
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(x < np.uint64(int(share * 2.0**64)))


def _labels(vectors: Dataset, column: str, first: int, last: int) -> npt.NDArray[np.generic]:
    import pyarrow as pa  # noqa: PLC0415

    values = _column_between(vectors, column, first, last)
    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if not (text or pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise InputError(
            f"column {column!r} of {vectors.uri} holds {values.type}; expected classes: integers"
            " or strings"
        )
    if values.null_count:
        row = first + int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise InputError(
            f"column {column!r} of {vectors.uri}, row {row}: expected a class, got NULL. Leave"
            " such rows out before the import."
        )
    if text:
        return np.array(values.to_pylist(), dtype=np.str_)
    return values.cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def _column_between(vectors: Dataset, name: str, first: int, last: int) -> pa.ChunkedArray:
    """Rows first..last of a kept column."""
    import pyarrow as pa  # noqa: PLC0415

    parts, offset = [], 0
    for shard in vectors.shards:
        low, high = max(first - offset, 0), min(last - offset, shard.rows)
        offset += shard.rows
        if low < high:
            keep_within()
            if "rows" not in shard.objects:
                raise InputError(f"{vectors.uri} keeps no columns, so there is no {name!r}")
            table = vectors.store.read_table(shard.objects["rows"], [name])
            if name not in table.column_names:
                _refuse_unkept(vectors, name, shard.objects["rows"])
            parts.append(table[name].slice(low, high - low))
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks])


def signs_of(places: Ids, classes: int) -> Float64:
    """[rows, K] of -1 and 1: one column for each class, the second's alone where there are two."""
    columns = np.arange(classes) if classes > 2 else np.array([1])
    return np.where(places[:, None] == columns, 1.0, -1.0)


def weights_between(vectors: Dataset, column: str | None, first: int, last: int) -> Array | None:
    """[rows] weights from a kept column; None where there are none. InputError below 0."""
    if column is None:
        return None
    weights = numbers_between(vectors, (column,), first, last)[:, 0]
    below = np.flatnonzero(weights < 0)
    if len(below):
        raise InputError(
            f"column {column!r} of {vectors.uri}, row {first + int(below[0])}: a weight of"
            f" {weights[below[0]]:g}; expected at least 0"
        )
    return np.asarray(weights)


def _refuse_unkept(vectors: Dataset, name: str, rows: ObjectRef) -> NoReturn:
    kept = [column for column in vectors.store.read_table(rows).column_names if column != "row"]
    raise InputError(
        f"{vectors.uri} keeps no column {name!r}; it has {', '.join(kept)}. Import it with"
        f" keep=[{name!r}]."
    )
