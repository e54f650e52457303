"""Whatever the file format and column types, the rows that went in come out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from stages.importing import (
    bring_in,
    fixed,
    matrix,
    parquet,
    rows_in,
    shared_file,
    table,
    vectors_in,
)

LIST_TYPES = {
    "fixed_size_list": pa.list_,
    "list": lambda value, d: pa.list_(value),
    "large_list": lambda value, d: pa.large_list(value),
}


@pytest.mark.parametrize("kind", LIST_TYPES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_lists_of_every_float_come_out_as_they_went_in(
    tmp_path: Path, kind: str, dtype: str
) -> None:
    x = matrix(300, dtype=dtype)
    column = fixed(x).cast(LIST_TYPES[kind](pa.from_numpy_dtype(dtype), 8))
    path = parquet(tmp_path / "a.parquet", pa.table({"id": np.arange(300), "v": column}))
    dataset = bring_in(path)
    kept = "float16" if dtype == "float16" else "float32"
    assert dataset.metrics["dtype"] == kept
    assert dataset.metrics["dim"] == 8
    assert vectors_in(dataset).dtype == kept
    assert np.array_equal(vectors_in(dataset), x.astype(kept))


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (pa.array(range(50), pa.int32()), pa.int64()),
        (pa.array(range(50), pa.uint64()), pa.int64()),
        (pa.array(range(-25, 25), pa.int8()), pa.int64()),
        (pa.array([f"name {i}" for i in range(50)], pa.string()), pa.string()),
        (pa.array(["naïve" * (i % 7) + str(i) for i in range(50)], pa.large_string()), pa.string()),
        (pa.array([f"k{i}" for i in range(50)]).dictionary_encode(), pa.string()),
    ],
    ids=["int32", "uint64", "int8", "string", "large_string", "dictionary"],
)  # fmt: skip
def test_ids_are_integers_or_strings_in_any_encoding(
    tmp_path: Path, ids: pa.Array, kind: pa.DataType
) -> None:
    path = parquet(tmp_path / "a.parquet", table(matrix(50), id=ids))
    rows = rows_in(bring_in(path))
    assert rows.schema.field("id").type == kind
    assert rows["id"].to_pylist() == ids.to_pylist()
    assert rows["row"].to_pylist() == list(range(50))


def test_without_an_id_column_rows_are_numbered(tmp_path: Path) -> None:
    dataset = bring_in(parquet(tmp_path / "a.parquet", table(matrix(20))), id=None)
    assert dataset.metrics["id"] == "row"
    assert rows_in(dataset)["id"].to_pylist() == list(range(20))


def test_kept_columns_travel_along_in_plain_types(tmp_path: Path) -> None:
    content = table(
        matrix(40),
        section=pa.array(["net", "doc", None, "math"] * 10).dictionary_encode(),
        size=pa.array(range(40), pa.int16()),
        tags=pa.array([["a"], [], None, ["b", "c"]] * 10),
    )
    rows = rows_in(
        bring_in(parquet(tmp_path / "a.parquet", content), keep=["section", "size", "tags"])
    )
    assert rows.column_names == ["row", "id", "section", "size", "tags"]
    assert rows.schema.field("section").type == pa.string()
    for name in ("section", "size", "tags"):
        assert rows[name].to_pylist() == content[name].to_pylist()


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("streamed", [False, True])
def test_arrow_files_and_streams_are_read(
    tmp_path: Path, compression: str | None, streamed: bool
) -> None:
    content = table(matrix(1000), name=[f"n{i}" for i in range(1000)])
    path = tmp_path / "a.arrow"
    options = pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_stream if streamed else pa.ipc.new_file
    with new(path, content.schema, options=options) as writer:
        writer.write_table(content, max_chunksize=170)
    dataset = bring_in(path, id="name")
    assert np.array_equal(vectors_in(dataset), matrix(1000))
    assert rows_in(dataset)["id"].to_pylist() == content["name"].to_pylist()


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_npy_files_are_read_and_numbered(tmp_path: Path, dtype: str) -> None:
    x = matrix(500).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    dataset = bring_in(tmp_path / "x.npy")
    kept = "float16" if dtype == "<f2" else "float32"
    assert np.array_equal(vectors_in(dataset), x.astype(kept))
    assert rows_in(dataset)["id"].to_pylist() == list(range(500))


def test_orc_files_are_read(tmp_path: Path) -> None:
    x = matrix(400)
    content = pa.table({"id": [f"n{i}" for i in range(400)], "v": x.tolist()})
    content = content.set_column(1, "v", content["v"].cast(pa.list_(pa.float32())))
    pyarrow.orc.write_table(content, tmp_path / "a.orc", stripe_size=4096)
    dataset = bring_in(tmp_path / "a.orc")
    assert np.array_equal(vectors_in(dataset), x)
    assert rows_in(dataset)["id"].to_pylist() == content["id"].to_pylist()


def test_json_lines_are_read_whole_numbers_included(tmp_path: Path) -> None:
    lines = [{"id": f"n{i}", "v": [i, 1] if i < 5 else [i + 0.5, 1.0]} for i in range(50)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    dataset = bring_in(path)
    assert vectors_in(dataset).tolist() == [line["v"] for line in lines]
    assert rows_in(dataset)["id"].to_pylist() == [line["id"] for line in lines]


def test_fixed_shape_tensors_are_vectors(tmp_path: Path) -> None:
    x = matrix(30)
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [8]), fixed(x))
    path = parquet(tmp_path / "a.parquet", pa.table({"id": np.arange(30), "v": tensors}))
    assert np.array_equal(vectors_in(bring_in(path)), x)


def test_half_and_single_precision_files_become_single_precision(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", table(matrix(10, dtype="float16")))
    parquet(tmp_path / "b.parquet", table(matrix(10, seed=1), id=np.arange(10, 20)))
    dataset = bring_in(tmp_path)
    assert dataset.metrics["dtype"] == "float32"
    expected = np.concatenate([matrix(10, dtype="float16").astype("float32"), matrix(10, seed=1)])
    assert np.array_equal(vectors_in(dataset), expected)


def test_integer_widths_of_kept_columns_may_differ_between_files(tmp_path: Path) -> None:
    small, large = pa.array([1, 2], pa.int32()), pa.array([3, 2**40], pa.int64())
    parquet(tmp_path / "a.parquet", table(matrix(2), size=small))
    parquet(tmp_path / "b.parquet", table(matrix(2, seed=1), id=[2, 3], size=large))
    assert rows_in(bring_in(tmp_path, keep="size"))["size"].to_pylist() == [1, 2, 3, 2**40]


def test_files_without_rows_between_others_are_passed_over(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", table(matrix(5)))
    parquet(tmp_path / "b.parquet", table(matrix(0)))
    parquet(tmp_path / "c.parquet", table(matrix(5, seed=1), id=np.arange(5, 10)))
    dataset = bring_in(tmp_path)
    assert np.array_equal(vectors_in(dataset), np.concatenate([matrix(5), matrix(5, seed=1)]))


def test_the_bundled_set_imports_by_name() -> None:
    from simdist import datasets

    dataset = bring_in(
        "datasets://debian-packages", vector="embedding", id="package", keep=["section"]
    )
    bundled = datasets.load("debian-packages")
    expected = np.stack(bundled["embedding"].to_numpy())
    assert np.array_equal(vectors_in(dataset), expected)
    assert rows_in(dataset)["id"].to_pylist() == bundled["package"].to_pylist()
    assert rows_in(dataset)["section"].to_pylist() == bundled["section"].to_pylist()


@pytest.mark.shared
def test_the_real_set_of_63666_rows_imports() -> None:
    path = shared_file("debian-packages-384.parquet")
    dataset = bring_in(path, vector="embedding", id="package", keep=["section"], workers=2)
    stored = pq.read_table(path, columns=["package", "embedding"])
    assert dataset.rows == 63_666
    assert [shard.rows for shard in dataset.shards] == [8192] * 7 + [6322]
    flat = stored["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    assert np.array_equal(vectors_in(dataset), flat.reshape(-1, 384))
    assert rows_in(dataset)["id"].to_pylist() == stored["package"].to_pylist()
