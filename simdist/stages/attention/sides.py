"""Queries, keys and values of a task, read from their datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.panels import rows_between
from simdist.runner.resident import keep_within
from simdist.stages.attention.config import AttentionConfig, Sizes
from simdist.store.datasets import Dataset
from simdist.types import Array, Float64

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NEAR", "centre_of", "column", "refuse_unkept", "sizes_of", "values_between"]

NEAR = 256  # first keys, around whose mean squares are taken apart


def sizes_of(config: AttentionConfig, inputs: Mapping[str, Dataset]) -> Sizes:
    """Of inputs queries, keys and values; InputError where they do not fit together."""
    queries, keys, values = inputs["queries"], inputs["keys"], inputs["values"]
    if keys.rows != values.rows:
        raise InputError(
            f"keys {keys.uri} have {keys.rows} rows, values {values.uri} {values.rows}: expected a"
            " row of values for every key, in the same order"
        )
    width = len(config.values) or int(values.metrics["dim"])
    dims = int(queries.metrics["dim"]), int(keys.metrics["dim"])
    return Sizes.of(config, queries.rows, keys.rows, *dims, width)


def refuse_unkept(config: AttentionConfig, inputs: Mapping[str, Dataset]) -> None:
    """ConfigError where a column was not kept, or holds something else; reads one small table."""
    wanted = [("keys", name, "fiu") for name in (config.bias,) if name is not None]
    wanted += [("keys", name, "b") for name in (config.mask,) if name is not None]
    wanted += [("values", name, "fiu") for name in config.values]
    for role, name, kinds in wanted:
        data = inputs[role]
        table = data.store.read_table(data.shards[0].objects["rows"]).slice(0, 1)
        if name not in table.column_names:
            kept = ", ".join(sorted(set(table.column_names) - {"row", "id"})) or "none"
            raise ConfigError(
                f"{role} {data.uri} have no column {name!r}; kept: {kept}. Import them with"
                f" keep=[{name!r}]"
            )
        kind = np.dtype(table.schema.field(name).type.to_pandas_dtype()).kind
        if kind not in kinds:
            expected = "booleans" if kinds == "b" else "numbers"
            raise ConfigError(
                f"column {name!r} of {data.uri} holds {table.schema.field(name).type}; expected"
                f" {expected}"
            )


def values_between(
    data: Dataset, columns: tuple[str, ...], first: int, last: int, dtype: Any
) -> Array:
    """[last - first, dv] vectors of some rows, or their kept columns side by side."""
    if not columns:
        return rows_between(data, "vectors", first, last)
    return np.stack([column(data, name, first, last) for name in columns], axis=1).astype(dtype)


def column(data: Dataset, name: str, first: int, last: int) -> Float64:
    """[last - first] a kept column of some rows; InputError naming a row that has no number."""
    parts, offset = [], 0
    for shard in data.shards:
        low, high = max(first - offset, 0), min(last - offset, shard.rows)
        if low < high:
            keep_within()
            table = data.store.read_table(shard.objects["rows"], [name])
            part = table[name].slice(low, high - low)
            found = part.cast("float64").to_numpy() if part.type != "bool" else _flags(part)
            broken = np.flatnonzero(~np.isfinite(found))
            if len(broken):
                row = offset + low + int(broken[0])
                raise InputError(
                    f"column {name!r} of {data.uri} is {found[broken[0]]} (or empty) in row {row}:"
                    " every row needs a finite number. Filter such rows out before the import."
                )
            parts.append(found)
        offset += shard.rows
    return np.concatenate(parts)


def centre_of(keys: Dataset) -> Float64:
    """[d] the mean of the first keys: differences of rows are taken around it."""
    rows = rows_between(keys, "vectors", 0, min(NEAR, keys.rows))
    return np.asarray(rows.mean(axis=0, dtype=np.float64))


def _flags(part: Any) -> Float64:
    """Booleans as numbers, NaN where there is none."""
    return np.array([np.nan if flag is None else float(flag) for flag in part.to_pylist()])
