"""A path, a glob, a directory, a Hive-partitioned prefix, a store: which files, in which order."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from s3_server import S3Server
from stages.importing import bring_in, fresh_store, matrix, parquet, rows_in, table, vectors_in

from simdist.errors import ConfigError, InputError
from simdist.stages.vectors import describe, scan
from simdist.stages.vectors.sources import find
from simdist.store import open_store


def names(found: object, base: Path) -> list[str]:
    return [source.uri.removeprefix(f"{base}/") for source in found]  # type: ignore[attr-defined]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """year=2023 and year=2024, two files each, with what other tools leave beside them."""
    for year in (2023, 2024):
        for part in (0, 1):
            start = (year - 2023) * 20 + part * 10
            content = table(matrix(10, seed=start), id=np.arange(start, start + 10))
            parquet(tmp_path / f"year={year}" / f"part-{part}.parquet", content)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "year=2023" / ".part-0.parquet.crc").touch()
    (tmp_path / "_delta_log").mkdir()
    (tmp_path / "_delta_log" / "0.json").write_text("{}")
    (tmp_path / "README.md").write_text("about this lake")
    return tmp_path


ALL = [f"year={year}/part-{part}.parquet" for year in (2023, 2024) for part in (0, 1)]


def test_a_directory_is_its_data_files_sorted_without_hidden_ones(lake: Path) -> None:
    assert names(find(str(lake)), lake) == ALL
    assert names(find(f"{lake}/"), lake) == ALL
    assert names(find(f"file://{lake}"), lake) == ALL


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("year=2024/*.parquet", ALL[2:]),
        ("*/part-1.parquet", ALL[1::2]),
        ("**/*.parquet", ALL),
        ("**", ALL),
        ("year=202[4-9]/*", ALL[2:]),
        ("year=202[!4]/*", ALL[:2]),
        ("year=2023/part-?.parquet", ALL[:2]),
        ("year=202*", ALL),
        ("year=2023/part-0.parquet", ALL[:1]),
    ],
)
def test_a_glob_means_the_same_on_files_and_in_a_store(
    lake: Path, pattern: str, expected: list[str]
) -> None:
    (lake / "README.md").unlink()  # `**` would ask for it
    assert names(find(f"{lake}/{pattern}"), lake) == expected
    store = open_store(f"memory://{uuid.uuid4().hex}")
    for file in lake.rglob("*"):
        if file.is_file():
            store.objects.put(f"lake/{file.relative_to(lake)}", file.read_bytes())
    found = find(f"{store.uri}/lake/{pattern}", objects=store.objects)
    assert [source.uri.removeprefix(f"{store.uri}/lake/") for source in found] == expected


def test_a_prefix_of_a_store_is_its_data_files(lake: Path) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    for name in [*ALL, "_SUCCESS"]:
        store.objects.put(f"lake/{name}", (lake / name).read_bytes())
    for path in ("lake", "lake/", ""):
        config = scan(f"{store.uri}/{path}", vector="v", id="id", keep=["year"])
        assert len(config.sources) == 4
        assert describe(config).rows == 40


def test_importing_from_a_store_gives_what_importing_the_files_gives(lake: Path) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    for name in ALL:
        store.objects.put(f"elsewhere/{name}", (lake / name).read_bytes())
    remote = bring_in(f"{store.uri}/elsewhere", keep=["year"])
    local = bring_in(lake, keep=["year"])
    assert remote.manifest.to_bytes() == local.manifest.to_bytes()


def test_rows_follow_the_sorted_paths(lake: Path) -> None:
    dataset = bring_in(lake)
    expected = np.concatenate([matrix(10, seed=start) for start in (0, 10, 20, 30)])
    assert np.array_equal(vectors_in(dataset), expected)
    assert rows_in(dataset)["id"].to_pylist() == list(range(40))


def test_hive_columns_can_be_kept(lake: Path) -> None:
    rows = rows_in(bring_in(lake, keep=["year"]))
    assert rows["year"].to_pylist() == [2023] * 20 + [2024] * 20
    assert rows_in(bring_in(f"{lake}/year=*/*.parquet", keep="year"))["year"].to_pylist() == [
        *[2023] * 20,
        *[2024] * 20,
    ]


def test_hive_values_are_decoded_and_nulls_kept(tmp_path: Path) -> None:
    folders = ["section=a%20b", "section=__HIVE_DEFAULT_PARTITION__", "section=007"]
    for number, folder in enumerate(folders):
        parquet(tmp_path / folder / "x.parquet", table(matrix(1), id=[number]))
    rows = rows_in(bring_in(tmp_path, keep=["section"]))
    assert dict(zip(rows["id"].to_pylist(), rows["section"].to_pylist(), strict=True)) == {
        0: "a b",
        1: None,
        2: "007",
    }


def test_a_hive_column_the_file_also_holds_is_read_from_the_path(tmp_path: Path) -> None:
    content = table(matrix(2), year=["in the file"] * 2)
    parquet(tmp_path / "year=2024" / "x.parquet", content)
    assert rows_in(bring_in(tmp_path, keep=["year"]))["year"].to_pylist() == [2024, 2024]


def test_a_path_may_hold_wildcard_characters_and_spaces(tmp_path: Path) -> None:
    path = parquet(tmp_path / "odd [name] *.parquet", table(matrix(3)))
    assert bring_in(path).rows == 3


def test_a_file_address_is_decoded(tmp_path: Path) -> None:
    path = Path(parquet(tmp_path / "a b%20c.parquet", table(matrix(3))))
    assert "%2520" in path.as_uri()
    assert bring_in(path.as_uri()).rows == 3


def test_a_missing_file_is_refused_with_its_neighbours(lake: Path) -> None:
    with pytest.raises(InputError) as caught:
        find(f"{lake}/year=2024/part-7.parquet")
    message = str(caught.value)
    assert f"the path {lake}/year=2024/part-7.parquet matches nothing" in message
    assert f"{lake}/year=2024 holds part-" in message


def test_a_glob_that_matches_nothing_is_refused_with_what_is_there(lake: Path) -> None:
    with pytest.raises(InputError) as caught:
        find(f"{lake}/year=2024/*.feather")
    message = str(caught.value)
    assert f"the pattern {lake}/year=2024/*.feather matches nothing" in message
    assert "part-0.parquet" in message


def test_a_prefix_of_a_store_that_holds_nothing_is_refused() -> None:
    store = fresh_store()
    store.objects.put("lake/a.parquet", b"x")
    with pytest.raises(InputError, match=rf"{store.uri}/lakes matches nothing.*lake/a.parquet"):
        find(f"{store.uri}/lakes", objects=store.objects)


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("nothing here")
    with pytest.raises(InputError, match=r"folder without a file that can be read.*notes\.md"):
        find(str(tmp_path))


def test_formats_are_not_mixed(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", table(matrix(3)))
    np.save(tmp_path / "b.npy", matrix(3))
    with pytest.raises(InputError, match=r"one format, found 2: .*b\.npy.*a\.parquet"):
        find(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "remedy"), [("a.csv", "convert to Parquet"), ("a.npz", "numpy.save"), ("a", "Rename")]
)
def test_an_unknown_suffix_is_refused_with_a_remedy(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / name).write_text("1,2")
    with pytest.raises(InputError, match=remedy):
        find(str(tmp_path / name))


def test_an_unknown_bundled_set_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'debian-packages'\?"):
        scan("datasets://debian-package", vector="embedding")


def test_a_local_path_takes_no_store_options(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", table(matrix(3)))
    with pytest.raises(ConfigError, match="takes no options"):
        scan(path, vector="v", options={"endpoint": "http://127.0.0.1:1"})


def test_describe_counts_rows_without_reading_vectors(lake: Path) -> None:
    summary = describe(scan(str(lake), vector="v", id="id"))
    assert (summary.rows, summary.dim, summary.dtype, summary.files) == (40, 8, "float32", 4)
    assert summary.nbytes == sum((lake / name).stat().st_size for name in ALL)


@pytest.mark.s3
def test_files_on_a_real_s3_server_are_read_by_prefix_and_glob(lake: Path, s3_uri: str) -> None:
    store = open_store(s3_uri)
    for name in ALL:
        store.objects.put(f"lake/{name}", (lake / name).read_bytes())
    remote = bring_in(f"{s3_uri}/lake", store=store, keep=["year"])
    assert remote.manifest.to_bytes() == bring_in(lake, keep=["year"]).manifest.to_bytes()
    assert bring_in(f"{s3_uri}/lake/*/part-0.parquet").rows == 20
    with pytest.raises(InputError, match=r"lake/\*\.npy matches nothing"):
        bring_in(f"{s3_uri}/lake/*.npy")


@pytest.mark.s3
def test_options_given_to_a_store_reach_sources_beside_it(
    lake: Path, s3_uri: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "endpoint": s3_server.endpoint,
        "region": "us-east-1",
        "access_key_id": s3_server.access_key,
        "secret_access_key": s3_server.secret_key,
    }
    for variable in s3_server.environment:
        if variable.startswith("AWS_") and not variable.endswith("_FILE"):
            monkeypatch.delenv(variable)
    store = open_store(s3_uri, **options)
    store.objects.put("lake/a.parquet", (lake / ALL[0]).read_bytes())
    path = f"{s3_uri}/lake/*.parquet"
    for config in (
        scan(path, vector="v", id="id", store=store),
        scan(path, vector="v", id="id", options=options),
    ):
        assert describe(config).rows == 10
        assert s3_server.secret_key not in repr(config)


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["arrow", "npy"])
def test_other_formats_are_read_from_a_real_s3_server(
    tmp_path: Path, s3_uri: str, kind: str
) -> None:
    x = matrix(5000)
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, x)
    else:
        content = table(x)
        with pa.ipc.new_file(path, content.schema) as writer:
            writer.write_table(content, max_chunksize=700)
    store = open_store(s3_uri)
    store.objects.put(f"lake/x.{kind}", path.read_bytes())
    assert np.array_equal(vectors_in(bring_in(f"{s3_uri}/lake/x.{kind}", store=store)), x)
