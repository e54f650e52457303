"""Bytes that follow from the value alone: the same array, table or JSON gives the same object.

A retried task, a backup task and a second driver all write; because their bytes are equal, their
objects have one name, and whoever comes first has done the work.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.npy import HEADER_NBYTES, read_header
from simdist.types import Array, Json

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Buffer", "json_bytes", "npy_pieces", "npy_view", "parquet_buffer", "plain_array"]

Buffer = bytes | memoryview

DICTIONARY_NBYTES = (
    1 << 16
)  # a column of sections fits; one of ids outgrows it, and is written plain
ROW_GROUP_ROWS = 65_536  # 12 MB of a k=15 graph: what a reader decodes at once


def json_bytes(value: Json, *, what: str, indent: int | None = None) -> bytes:
    """Sorted JSON in UTF-8; InputError where `value` is no JSON (NaN, a numpy scalar, a set).

    what: names the value in the error. indent: for files that people read; compact without it.
    """
    separators = (",", ":") if indent is None else None
    try:
        text = json.dumps(
            value,
            sort_keys=True,
            indent=indent,
            separators=separators,
            allow_nan=False,
            ensure_ascii=False,
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{what} cannot be written as JSON: {error}. Use None instead of NaN or infinity, and"
            " int(), float() or .tolist() instead of numpy values."
        ) from error
    return (text if indent is None else text + "\n").encode()


def npy_pieces(array: Array) -> tuple[bytes, memoryview]:
    """Header and data of the array's .npy file: C order, little endian, format 1.0, no pickle.

    The data is a view of `array` where its layout allows, so that nothing is copied. The header is
    written here rather than by numpy, whose padding has changed between versions.
    Raises ConfigError for anything but numbers and booleans.
    """
    plain = plain_array(array)
    shape: tuple[int, ...] = plain.shape
    text = f"{{'descr': '{plain.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    padded = text.ljust(-(-(len(text) + 11) // 64) * 64 - 11) + "\n"
    header = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode("latin1")
    return header, plain.reshape(-1).view(np.uint8).data


def plain_array(array: Array) -> Array:
    """The array in C order and little endian, itself where it is; ConfigError for no numbers."""
    if array.dtype.kind not in "biufc":
        raise ConfigError(
            f"an array of {array.dtype} cannot be stored: expected booleans or numbers; put strings"
            " and mixed columns into a table"
        )
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return plain.reshape(array.shape)  # a number alone had become a row of one


def npy_view(data: memoryview) -> Array:
    """A read-only array over the bytes of an .npy file, without a copy."""
    shape, dtype, _, begin = read_header(bytes(data[:HEADER_NBYTES]))
    count = int(np.prod(shape, dtype=np.int64))
    array = np.frombuffer(data, dtype=dtype, count=count, offset=begin).reshape(shape)
    array.flags.writeable = False
    return array


def parquet_buffer(table: pa.Table) -> pa.Buffer:
    """The table as one Parquet file in memory; zstd, so DuckDB, Polars and Spark read it.

    Equal tables give equal bytes: chunks are joined first (they would move page borders) and schema
    metadata is dropped (it says who made the table, not what is in it).
    """
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that a reader of manifests does not need
    import pyarrow.parquet as pq  # noqa: PLC0415

    kinds = (pa.types.is_string, pa.types.is_large_string)
    strings = [field.name for field in table.schema if any(kind(field.type) for kind in kinds)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks().replace_schema_metadata(None),
        sink,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=1,
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=strings,  # rows and neighbours hardly repeat
        dictionary_pagesize_limit=DICTIONARY_NBYTES,
        write_statistics=True,
        store_schema=True,
    )
    return sink.getvalue()
