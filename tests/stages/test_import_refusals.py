"""What an import refuses, and that the message says where, what and what next."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stages.importing import bring_in, fixed, fresh_store, matrix, parquet, table

from simdist.errors import ConfigError, InputError, PlanTooLarge
from simdist.stages.vectors import describe, scan


def refusal(path: str | Path, **columns: Any) -> str:
    """The message of the InputError that importing the path must raise."""
    with pytest.raises(InputError) as caught:
        bring_in(path, workers=2, **columns)
    return str(caught.value)


def lists(rows: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    column = pa.array(rows, kind or pa.list_(pa.float32()))
    return pa.table({"id": np.arange(len(rows)), "v": column})


@pytest.mark.parametrize("fixed_size", [True, False])
def test_a_null_vector_is_refused_with_its_file_and_row(tmp_path: Path, fixed_size: bool) -> None:
    kind = pa.list_(pa.float32(), 2) if fixed_size else pa.list_(pa.float32())
    parquet(tmp_path / "a.parquet", lists([[1.0, 2.0]] * 5, kind))
    rows = [[1.0, 2.0]] * 3 + [None, [1.0, 2.0], None]
    bad = lists(rows, kind).set_column(0, "id", pa.array(range(10, 16)))
    parquet(tmp_path / "b.parquet", bad, row_group_size=2)
    message = refusal(tmp_path)
    assert f"{tmp_path}/b.parquet row 3: the vector in column 'v' is NULL" in message
    assert "Filter out the rows where v is NULL" in message


def test_a_null_first_vector_is_refused_too(tmp_path: Path) -> None:
    message = refusal(parquet(tmp_path / "a.parquet", lists([None, [1.0, 2.0]])))
    assert "a.parquet row 0: the vector in column 'v' is NULL" in message


def test_a_null_element_is_refused_with_its_row_and_place(tmp_path: Path) -> None:
    message = refusal(parquet(tmp_path / "a.parquet", lists([[1.0, 2.0], [1.0, None]])))
    assert "a.parquet row 1: element 1 of the vector in column 'v' is NULL" in message


def test_a_null_id_is_refused_with_its_file_and_row(tmp_path: Path) -> None:
    ids = pa.array(["a", "b", None, "c"])
    message = refusal(parquet(tmp_path / "a.parquet", table(matrix(4), id=ids)))
    assert "a.parquet row 2: the id in column 'id' is NULL" in message
    assert "leave id out to number the rows" in message


def test_ragged_vectors_are_refused_with_the_row_and_both_lengths(tmp_path: Path) -> None:
    rows = [[1.0, 2.0, 3.0]] * 7 + [[1.0, 2.0]]
    message = refusal(parquet(tmp_path / "a.parquet", lists(rows), row_group_size=4))
    assert (
        "a.parquet row 7: the vector in column 'v' has 2 elements; the first one has 3" in message
    )


def test_vectors_without_elements_are_refused(tmp_path: Path) -> None:
    message = refusal(parquet(tmp_path / "a.parquet", lists([[], []])))
    assert "a.parquet row 0: the vector in column 'v' has no elements" in message


def test_files_of_different_dimension_are_refused_with_both(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", table(matrix(3, 8)))
    parquet(tmp_path / "b.parquet", table(matrix(3, 6), id=[3, 4, 5]))
    message = refusal(tmp_path)
    assert f"{tmp_path}/b.parquet has vectors of 6 elements, {tmp_path}/a.parquet of 8" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nan_and_infinity_are_refused_with_row_and_column(
    tmp_path: Path, value: float, dtype: str
) -> None:
    x = matrix(2000, 16, dtype=dtype)
    x[1234, 5] = value
    message = refusal(parquet(tmp_path / "a.parquet", table(x), row_group_size=500))
    assert f"a.parquet row 1234: element 5 of the vector in column 'v' is {value}" in message


def test_a_number_too_large_for_float32_is_refused(tmp_path: Path) -> None:
    x = matrix(10, dtype="float64")
    x[4, 2] = 1e300
    message = refusal(parquet(tmp_path / "a.parquet", table(x)))
    assert "a.parquet row 4: element 2 of the vector in column 'v' is 1e+300" in message
    assert "Scale the vectors down" in message


def test_nan_in_an_npy_file_is_refused(tmp_path: Path) -> None:
    x = matrix(10)
    x[7, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    assert f"{tmp_path}/x.npy row 7: element 1" in refusal(tmp_path / "x.npy")


@pytest.mark.parametrize("strings", [True, False])
def test_duplicate_ids_are_refused_with_both_files_and_rows(tmp_path: Path, strings: bool) -> None:
    def ids(numbers: list[int]) -> pa.Array:
        return pa.array([f"name-{number}" for number in numbers] if strings else numbers)

    parquet(tmp_path / "a.parquet", table(matrix(100), id=ids(list(range(100)))))
    again = [*range(100, 150), 42, *range(150, 170), 7]
    parquet(tmp_path / "b.parquet", table(matrix(72, seed=1), id=ids(again)))
    message = refusal(tmp_path)
    shown = "'name-42'" if strings else "42"
    assert f"id {shown} in column 'id' appears twice" in message
    assert f"{tmp_path}/a.parquet row 42 and {tmp_path}/b.parquet row 50" in message
    assert "2 of 172 rows repeat an earlier id" in message


def test_duplicates_far_apart_in_one_file_are_refused(tmp_path: Path) -> None:
    ids = np.arange(300_000)
    ids[299_999] = 5
    content = table(matrix(300_000, 2), id=ids)
    message = refusal(parquet(tmp_path / "a.parquet", content, row_group_size=50_000))
    assert "a.parquet row 5 and" in message
    assert "a.parquet row 299999" in message


def test_an_import_without_rows_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", table(matrix(0)))
    parquet(tmp_path / "b.parquet", table(matrix(0)))
    message = refusal(tmp_path)
    assert f"no rows to import: {tmp_path}/a.parquet and 1 more files have none" in message


@pytest.mark.parametrize("column", ["vector", "id", "keep"])
def test_an_unknown_column_is_refused_with_the_nearest_and_the_list(
    tmp_path: Path, column: str
) -> None:
    content = pa.table({"packages": ["a"], "sections": ["b"], "embedding": [[1.0, 2.0]]})
    path = parquet(tmp_path / "a.parquet", content)
    right: dict[str, Any] = {"vector": "embedding", "id": "packages", "keep": ["sections"]}
    wrong = {"vector": "embeding", "id": "package", "keep": ["section"]}
    message = refusal(path, **{**right, column: wrong[column]})
    name = wrong[column] if isinstance(wrong[column], str) else wrong[column][0]
    expected = right[column] if isinstance(right[column], str) else right[column][0]
    assert f"a.parquet has no column {name!r}. Did you mean {expected!r}?" in message
    assert "packages, sections, embedding" in message


def test_leaving_the_vector_column_out_lists_the_columns(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", table(matrix(3)))
    with pytest.raises(ConfigError, match=r"which column holds the vectors\?.*id, v"):
        scan(path)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (pa.array([[1, 2], [3, 4]]), "list<element: int64>"),
        (pa.array(["a", "b"]), "string"),
        (pa.array([1.0, 2.0]), "double"),
    ],
    ids=["integers", "strings", "numbers"],
)
def test_a_vector_column_of_another_type_is_refused(
    tmp_path: Path, column: pa.Array, found: str
) -> None:
    content = pa.table({"id": [1, 2], "v": column, "good": [[1.0], [2.0]]})
    message = refusal(parquet(tmp_path / "a.parquet", content))
    assert f"a.parquet: column 'v' has type {found}" in message
    assert "float16, float32 or float64" in message
    assert "Columns that are: good." in message or "Cast its elements from int64" in message


def test_an_id_column_of_another_type_is_refused(tmp_path: Path) -> None:
    message = refusal(parquet(tmp_path / "a.parquet", table(matrix(2), id=[0.5, 1.5])))
    assert "a.parquet: id column 'id' has type double; ids are integers or strings" in message


def test_ids_beyond_int64_are_refused(tmp_path: Path) -> None:
    ids = pa.array([1, 2**63 + 1, 3], pa.uint64())
    message = refusal(parquet(tmp_path / "a.parquet", table(matrix(3), id=ids)))
    assert "a.parquet row 1: id 9223372036854775809" in message
    assert "Cast the ids to strings" in message


def test_number_ids_in_one_file_and_string_ids_in_another_are_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", table(matrix(2), id=[1, 2]))
    parquet(tmp_path / "b.parquet", table(matrix(2), id=["3", "4"]))
    message = refusal(tmp_path)
    assert re.search(r"column 'id' has type string in \S+b.parquet and int64 in \S+a.par", message)


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, cut: int) -> None:
    path = Path(parquet(tmp_path / "a.parquet", table(matrix(100))))
    path.write_bytes(path.read_bytes()[:cut])
    message = refusal(path)
    assert f"{path} cannot be read as parquet ({cut} bytes)" in message
    assert "written to its end" in message


def test_a_matrix_cut_short_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, matrix(100))
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path} ended 4 rows early" in refusal(path)


def test_damaged_pages_are_refused_by_name(tmp_path: Path) -> None:
    path = Path(parquet(tmp_path / "a.parquet", table(matrix(5000, 32)), compression="zstd"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    path.write_bytes(data)
    assert f"{path} cannot be read as parquet" in refusal(path)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.arange(12.0), "shape (12,)"),
        (np.zeros((2, 3, 4)), "shape (2, 3, 4)"),
        (np.array([["a", "b"]]), "'<U1'; expected numbers or booleans"),
        (np.asfortranarray(np.zeros((5, 4))), "Fortran order"),
        (np.arange(12).reshape(3, 4), "list<item: int64>"),
    ],
    ids=["one-dimensional", "three-dimensional", "strings", "fortran", "integers"],
)
def test_an_npy_file_that_is_no_float_matrix_is_refused(tmp_path: Path, x: Any, says: str) -> None:
    np.save(tmp_path / "x.npy", x)
    message = refusal(tmp_path / "x.npy")
    assert "x.npy" in message
    assert says.replace("list<item: int64>", "int64") in message


def test_npy_files_take_no_column_names(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", matrix(3))
    with pytest.raises(ConfigError, match="matrix without column names"):
        scan(str(tmp_path / "x.npy"), vector="v")


@pytest.mark.parametrize("keep", [["row"], ["id"], ["v"], ["size", "size"]])
def test_columns_that_cannot_be_kept_are_refused(tmp_path: Path, keep: list[str]) -> None:
    path = parquet(tmp_path / "a.parquet", table(matrix(3), size=[1, 2, 3]))
    with pytest.raises(ConfigError, match=f"keep names '{keep[0]}'"):
        scan(path, vector="v", id="id", keep=keep)


def test_a_file_that_changes_between_listing_and_reading_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", table(matrix(3)))
    config = scan(path, vector="v", id="id")
    parquet(tmp_path / "a.parquet", table(matrix(4)))
    with pytest.raises(InputError, match="changed while it was imported"):
        describe(config)
    Path(path).unlink()
    with pytest.raises(InputError, match="gone now"):
        describe(config)


def test_an_import_larger_than_the_memory_is_refused_before_anything_is_read(
    tmp_path: Path,
) -> None:
    from simdist.engine import open_engine
    from simdist.runner import Job, run
    from simdist.stages.vectors import ImportVectors

    path = parquet(tmp_path / "a.parquet", table(matrix(3)))
    job = Job(ImportVectors(), scan(path, vector="v", id="id"), {})
    with (
        open_engine("local", workers=1, memory="30MiB") as engine,
        pytest.raises(
            PlanTooLarge, match=r"needs [\d.]+ MiB; a worker of the local engine has [\d.]+ MiB"
        ),
    ):
        run(job, store=fresh_store(), engine=engine)


def test_a_refused_import_commits_nothing(tmp_path: Path) -> None:
    store = fresh_store()
    path = parquet(tmp_path / "a.parquet", table(matrix(4), id=[1, 2, 1, 3]))
    for _ in range(2):  # the second time the records of the first are there
        with pytest.raises(InputError, match="appears twice"):
            bring_in(path, store=store)
    assert not list(store.objects.list("manifests"))
    assert not list(store.objects.list("memos"))


def test_mixed_list_and_fixed_columns_of_one_length_are_fine(tmp_path: Path) -> None:
    x = matrix(3)
    parquet(tmp_path / "a.parquet", pa.table({"id": [0, 1, 2], "v": fixed(x)}))
    listed = fixed(x).cast(pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": [3, 4, 5], "v": listed}), tmp_path / "b.parquet")
    assert bring_in(tmp_path).rows == 6
