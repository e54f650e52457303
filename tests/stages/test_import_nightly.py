"""A prefix that grew overnight: only what is new or changed is read; the dataset is the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from s3_server import S3Server
from stages.importing import bring_in, fresh_store, matrix, parquet, rows_in, table, vectors_in

from simdist.errors import InputError
from simdist.store import Store, open_store


def night(folder: Path, number: int, *, seed: int = 0, rows: int = 300, **columns: Any) -> Path:
    """Writes night `number`: rows of their own."""
    ids = np.arange(number * 1000, number * 1000 + rows)
    path = folder / f"night-{number}.parquet"
    parquet(path, table(matrix(rows, seed=100 * number + seed), id=ids, **columns))
    return path


def make_unreadable(path: Path) -> None:
    """Other bytes under the same name, size and time, in the same file: who reads it, fails."""
    times = os.stat(path)
    with path.open("r+b") as file:
        file.write(b"\xff" * times.st_size)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def store() -> Store:
    return fresh_store()


def test_new_files_alone_are_read(tmp_path: Path, store: Store) -> None:
    old = [night(tmp_path, number) for number in (0, 1)]
    bring_in(tmp_path, store=store)
    night(tmp_path, 2)
    expected = bring_in(tmp_path).manifest.to_bytes()
    for path in old:
        make_unreadable(path)
    with pytest.raises(InputError):
        bring_in(tmp_path)  # where nothing is known, they are read
    assert bring_in(tmp_path, store=store).manifest.to_bytes() == expected


def test_a_file_may_come_before_or_between_the_known_ones(tmp_path: Path, store: Store) -> None:
    old = [night(tmp_path, number) for number in (1, 3)]
    bring_in(tmp_path, store=store)
    for number in (0, 2, 4):
        night(tmp_path, number)
    expected = bring_in(tmp_path).manifest.to_bytes()
    for path in old:
        make_unreadable(path)
    assert bring_in(tmp_path, store=store).manifest.to_bytes() == expected


def test_a_changed_file_is_read_again_and_the_others_are_not(tmp_path: Path, store: Store) -> None:
    kept, changed = night(tmp_path, 0), night(tmp_path, 1)
    before = bring_in(tmp_path, store=store)
    night(tmp_path, 1, seed=1, rows=280)
    expected = bring_in(tmp_path)
    make_unreadable(kept)
    after = bring_in(tmp_path, store=store)
    assert after.manifest.to_bytes() == expected.manifest.to_bytes()
    assert after.fingerprint != before.fingerprint
    make_unreadable(changed)
    night(tmp_path, 2)
    assert bring_in(tmp_path, store=store).rows == 880


def test_files_that_went_are_left_out(tmp_path: Path, store: Store) -> None:
    paths = [night(tmp_path, number) for number in range(3)]
    bring_in(tmp_path, store=store)
    paths[1].unlink()
    expected = bring_in(tmp_path).manifest.to_bytes()
    make_unreadable(paths[2])
    assert bring_in(tmp_path, store=store).manifest.to_bytes() == expected


@pytest.mark.parametrize("columns", [{"id": None}, {"keep": ("name",)}, {"id": "name"}])
def test_known_rows_come_with_their_numbers_and_columns(
    columns: dict[str, Any], tmp_path: Path, store: Store
) -> None:
    old = night(tmp_path, 1, name=[f"a{i}" for i in range(300)])
    first = bring_in(tmp_path, store=store, **columns)
    night(tmp_path, 0, name=[f"b{i}" for i in range(300)])
    expected = bring_in(tmp_path, **columns)
    make_unreadable(old)
    made = bring_in(tmp_path, store=store, **columns)
    assert made.manifest.to_bytes() == expected.manifest.to_bytes()
    assert rows_in(made)["row"].to_pylist() == list(range(600))
    np.testing.assert_array_equal(vectors_in(made)[300:], vectors_in(first))


def test_other_columns_of_a_known_file_are_read(tmp_path: Path, store: Store) -> None:
    night(tmp_path, 0, name=[f"a{i}" for i in range(300)])
    bring_in(tmp_path, store=store)
    made = bring_in(tmp_path, store=store, keep=("name",))
    assert rows_in(made)["name"][5].as_py() == "a5"


def test_half_precision_is_widened_where_a_new_file_is_in_full(
    tmp_path: Path, store: Store
) -> None:
    half = table(matrix(300, dtype="float16"), id=np.arange(300))
    old = tmp_path / "night-0.parquet"
    parquet(old, half)
    assert bring_in(tmp_path, store=store).metrics["dtype"] == "float16"
    night(tmp_path, 1)
    expected = bring_in(tmp_path)
    make_unreadable(old)
    made = bring_in(tmp_path, store=store)
    assert made.manifest.to_bytes() == expected.manifest.to_bytes()
    assert made.metrics["dtype"] == "float32"


def test_an_id_of_a_known_file_is_not_taken_twice(tmp_path: Path, store: Store) -> None:
    night(tmp_path, 0)
    bring_in(tmp_path, store=store)
    parquet(tmp_path / "night-1.parquet", table(matrix(2), id=np.array([5000, 7])))
    with pytest.raises(
        InputError, match=r"id 7 .*night-0.parquet row 7 and .*night-1.parquet row 1"
    ):
        bring_in(tmp_path, store=store)


def test_shards_that_were_removed_cost_a_reading_and_are_remembered_anew(
    tmp_path: Path, store: Store
) -> None:
    old = night(tmp_path, 0)
    first = bring_in(tmp_path, store=store)
    for shard in first.shards:
        store.objects.delete([shard.objects["vectors"].key])
    night(tmp_path, 1)
    expected = bring_in(tmp_path).manifest.to_bytes()
    assert bring_in(tmp_path, store=store).manifest.to_bytes() == expected
    make_unreadable(old)
    night(tmp_path, 2)
    assert bring_in(tmp_path, store=store).rows == 900


@pytest.mark.s3
def test_objects_of_a_bucket_are_known_by_their_etags(
    s3_server: S3Server, s3_uri: str, tmp_path: Path
) -> None:
    lake, store = open_store(f"{s3_uri}/lake"), open_store(f"{s3_uri}/store")

    def put(number: int, *, seed: int = 0) -> None:
        path = night(tmp_path, number, seed=seed)
        lake.objects.put(f"{path.name}", path.read_bytes())

    put(0)
    put(1)
    first = bring_in(lake.uri, store=store)
    put(2)
    put(1, seed=5)
    made = bring_in(lake.uri, store=store)
    assert made.manifest.to_bytes() == bring_in(lake.uri).manifest.to_bytes()
    np.testing.assert_array_equal(vectors_in(made)[:300], vectors_in(first)[:300])
    assert not np.array_equal(vectors_in(made)[300:600], vectors_in(first)[300:600])


def test_a_schema_is_kept(tmp_path: Path, store: Store) -> None:
    night(tmp_path, 0, when=pa.array(["a"] * 300).dictionary_encode())
    bring_in(tmp_path, store=store, keep=("when",))
    night(tmp_path, 1, when=["b"] * 300)
    made = bring_in(tmp_path, store=store, keep=("when",))
    assert made.manifest.to_bytes() == bring_in(tmp_path, keep=("when",)).manifest.to_bytes()
