"""Bytes that follow from the value alone, also where a writer is tempted to differ."""

from __future__ import annotations

import ast
import io
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes

from simdist.store.formats import json_bytes, npy_pieces, npy_view, parquet_buffer
from simdist.types import Array

NUMBERS = scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc" and dtype.itemsize <= 16)


@settings(deadline=None)
@given(arrays(NUMBERS, array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_any_array_comes_back_and_numpy_reads_it(array: Array) -> None:
    header, data = npy_pieces(array)
    file = header + bytes(data)
    assert len(header) % 64 == 0
    assert sorted(ast.literal_eval(header[10:].decode())) == ["descr", "fortran_order", "shape"]
    for back in (np.load(io.BytesIO(file)), npy_view(memoryview(file))):
        assert back.dtype == array.dtype.newbyteorder("<")
        assert back.shape == array.shape
        np.testing.assert_array_equal(back, array)
    assert not npy_view(memoryview(file)).flags.writeable


def test_a_plain_array_is_not_copied() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    _, data = npy_pieces(array)
    assert np.shares_memory(np.frombuffer(data, np.uint8), array)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    n = 40_000
    return pa.table(
        {
            "id": [f"package-{i}" for i in range(n)],  # outgrows a dictionary, mid-page
            "section": [f"section-{i % 30}" for i in range(n)],
            "row": [None if i % 7 == 0 else i for i in range(n)],
        }
    )


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 40_000), max_size=6))
def test_a_table_s_bytes_do_not_depend_on_its_chunks(table: pa.Table, cuts: list[int]) -> None:
    borders = [0, *sorted(cuts), len(table)]
    pieces = [table.slice(a, b - a) for a, b in itertools.pairwise(borders)]
    assert parquet_buffer(pa.concat_tables(pieces)).equals(parquet_buffer(table))


def test_repeating_strings_become_a_dictionary_and_ids_do_not(table: pa.Table) -> None:
    full = io.BytesIO()
    pq.write_table(table, full, compression="zstd", compression_level=1)
    ids, sections, _ = (
        [pq.ParquetFile(file).metadata.row_group(0).column(i).total_compressed_size
         for file in (pa.BufferReader(parquet_buffer(table)), full)] for i in range(3)
    )  # fmt: skip
    assert ids[0] < 0.8 * ids[1]
    assert sections[0] < 1_000


def test_json_is_sorted_and_keeps_letters() -> None:
    assert json_bytes({"b": 1, "a": "ü"}, what="it") == '{"a":"ü","b":1}'.encode()
    assert json_bytes({"b": 1}, what="it", indent=1) == b'{\n "b": 1\n}\n'
