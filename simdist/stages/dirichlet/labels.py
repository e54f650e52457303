"""Labels of stored rows, as codes of classes: from a kept column, or an array beside the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.stages.dirichlet.config import Labels
from simdist.types import Array, Ids, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["MOST_CLASSES", "classes_between", "codes_at", "codes_between", "refuse_many"]

MOST_CLASSES = 1000  # each has its own m x m matrix


def classes_between(context: Context, labels: Labels, first: int, last: int) -> list[Json]:
    """The classes that rows first..last have, ascending. InputError for a row without a label."""
    if labels.array is not None:
        present = np.unique(_codes(context, labels)[first:last])
        return [labels.classes[code] for code in present.tolist()]
    found = sorted(set(_values(context, labels, first, last).tolist()))
    refuse_many(len(found))
    return found


def codes_between(
    context: Context, labels: Labels, classes: Sequence[Json], first: int, last: int
) -> Ids:
    """[rows] places in `classes`, ascending, of the labels of rows first..last."""
    if labels.array is not None:
        place = np.searchsorted(np.array(classes), np.array(labels.classes))
        return place[_codes(context, labels)[first:last]].astype(np.int64)
    values = _values(context, labels, first, last)
    return np.searchsorted(np.array(classes), values).astype(np.int64)


def codes_at(context: Context, labels: Labels, classes: Sequence[Json], rows: Ids) -> Ids:
    """The same of ascending rows, a shard at a time."""
    parts, offset = [], 0
    for shard in context.inputs["vectors"].shards:
        low, high = np.searchsorted(rows, [offset, offset + shard.rows])
        if low < high:
            whole = codes_between(context, labels, classes, offset, offset + shard.rows)
            parts.append(whole[rows[low:high] - offset])
        offset += shard.rows
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def refuse_many(count: int) -> None:
    """InputError where classes are too many to be classes."""
    if count > MOST_CLASSES:
        raise InputError(
            f"y has more than {MOST_CLASSES} classes, each of which is a matrix of its own. Are"
            " these measured values? NeighborGP and SparseGP predict those."
        )


def _codes(context: Context, labels: Labels) -> Ids:
    assert labels.array is not None  # see Labels
    codes = np.asarray(context.load(labels.array))
    vectors = context.inputs["vectors"]
    if len(codes) != vectors.rows:
        raise InputError(f"y has {len(codes)} labels; {vectors.uri} has {vectors.rows} rows")
    return codes


def _values(context: Context, labels: Labels, first: int, last: int) -> Array:
    """[rows] of the kept column."""
    assert labels.column is not None  # see Labels
    vectors = context.inputs["vectors"]
    parts, offset = [], 0
    for shard in vectors.shards:
        low, high = max(first - offset, 0), min(last - offset, shard.rows)
        if low < high:
            if "rows" not in shard.objects:
                raise InputError(f"{vectors.uri} ({vectors.stage}) keeps no columns beside vectors")
            table = vectors.store.read_table(shard.objects["rows"])
            if labels.column not in table.column_names:
                kept = ", ".join(table.column_names[2:]) or "none"
                raise InputError(
                    f"{vectors.uri} keeps no column {labels.column!r}: import it with"
                    f" keep=[{labels.column!r}]. Kept: {kept}"
                )
            column = table[labels.column].combine_chunks().slice(low, high - low)
            parts.append(_plain(column, labels.column, offset + low))
        offset += shard.rows
    return np.concatenate(parts)


def _plain(column: pa.Array, name: str, first: int) -> Array:
    """A column of labels as integers, booleans or strings."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if column.null_count:
        row = first + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"column {name!r} is NULL in row {row}: every row needs a label")
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.to_pylist(), dtype=str)
    raise InputError(
        f"column {name!r} holds {kind}: labels are integers, booleans or strings. NeighborGP and"
        " SparseGP predict measured values."
    )
