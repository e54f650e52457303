"""`similarity_tiles` as a user calls it, and read back with zarr, xarray and dask."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray
import yaml
import zarr
from s3_server import S3Server
from stages.importing import fresh_store
from stages.tiles.cases import Lopsided, dense, names, rows, stored

import simdist as sd
from simdist.config import links, parse
from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, InputError, PlanTooLarge
from simdist.measures import resolve
from simdist.models.chain import run_links
from simdist.models.tiles import TilesDataset
from simdist.report.plan import plan_flow
from simdist.report.show import describe
from simdist.runner import Event
from simdist.runner.events import RoundStarted
from simdist.store import open_store

N, M = 150, 70
ATOL = {"euclidean": 3e-3}  # of equal rows: see simdist.measures.vectors


@pytest.fixture(scope="module")
def reference(
    local_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TilesDataset]:
    """x with itself and with y, on the local engine and in files: what the others must equal."""
    return both(tmp_path_factory.mktemp("reference"), None, local_engine)


def both(folder: Path, store: Any, engine: Engine) -> dict[str, TilesDataset]:
    """The matrices of x with itself and of x with y, from stored datasets with names."""
    place = open_store(folder / "store") if store is None else store
    x = stored(rows(N), folder / "x", place, ids=names(N))
    y = stored(rows(M, seed=1), folder / "y", place)
    options: dict[str, Any] = {"block": 32, "engine": engine}
    return {
        "own": sd.similarity_tiles(x, **options),
        "two": sd.similarity_tiles(x, y, measure="euclidean", dtype="float16", **options),
    }


def manifests(made: dict[str, TilesDataset]) -> dict[str, bytes]:
    return {name: data.manifest.to_bytes() for name, data in made.items()}


# -- on arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["cosine", "dot", "euclidean", "sqeuclidean", "manhattan"])
def test_an_array_gives_the_dense_answer(measure: str) -> None:
    x = rows(90)
    x[3] = x[70]
    tiles = sd.similarity_tiles(x, measure=measure, block=32)
    values = tiles.to_numpy()
    assert (tiles.shape, tiles.dtype, values.dtype) == ((90, 90), np.float32, np.float32)
    assert tiles.nbytes == values.nbytes
    expected = dense(resolve(measure), x, x)
    np.testing.assert_allclose(values, expected, rtol=3e-5, atol=ATOL.get(measure, 3e-5))
    np.testing.assert_array_equal(values, values.T)
    np.testing.assert_array_equal(values.diagonal(), resolve(measure).diag(x))


def test_two_arrays_give_a_rectangle_and_both_may_be_any_floats() -> None:
    x, y = rows(50).astype(np.float64), rows(20, seed=4).astype(np.float16)
    tiles = sd.similarity_tiles(x, y, measure="manhattan", block=16)
    np.testing.assert_allclose(
        tiles.to_numpy(), dense(resolve("manhattan"), x, y), rtol=1e-5, atol=1e-5
    )
    assert tiles.array.shape == (50, 20)


def test_a_measure_that_is_not_symmetric_keeps_both_of_its_halves() -> None:
    x = rows(70)
    values = sd.similarity_tiles(x, measure=Lopsided(), block=32).to_numpy()
    np.testing.assert_allclose(values, dense(Lopsided(), x, x), rtol=1e-5, atol=1e-5)
    assert (values != values.T).any()


def test_float16_is_float32_rounded_once() -> None:
    x = rows(60)
    half = sd.similarity_tiles(x, dtype="float16", block=32)
    whole = sd.similarity_tiles(x, block=32)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half.to_numpy(), whole.to_numpy().astype(np.float16))


@pytest.mark.parametrize("block", [16, 64, None])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 65])
def test_any_cut_gives_the_same_values(n: int, block: int | None) -> None:
    x = rows(n)
    values = sd.similarity_tiles(x, block=block).to_numpy()
    np.testing.assert_allclose(values, dense(resolve("cosine"), x, x), atol=1e-6)


def test_the_temporary_folder_lasts_as_long_as_anything_that_reads_it() -> None:
    tiles = sd.similarity_tiles(rows(40), block=16)
    folder = Path(tiles.store.uri.removeprefix("file://"))
    array = tiles.array
    del tiles
    gc.collect()
    assert array[3, 3] == 1
    del array
    gc.collect()
    assert not folder.exists()


def test_a_failure_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InputError, match="row 0"):
        sd.similarity_tiles(np.zeros((20, 3), np.float32))
    assert not os.listdir(tmp_path)


def test_a_named_scratch_keeps_the_matrix(tmp_path: Path) -> None:
    path = sd.similarity_tiles(rows(20), scratch=str(tmp_path)).path
    gc.collect()
    assert zarr.open_group(path, mode="r")["similarity"].shape == (20, 20)


# -- on stored datasets, engines and stores --------------------------------------------------------


def test_every_engine_commits_the_same_bytes(
    engine: Engine, reference: dict[str, TilesDataset], tmp_path: Path
) -> None:
    assert manifests(both(tmp_path, None, engine)) == manifests(reference)


@pytest.mark.s3
def test_s3_holds_what_files_hold_on_every_engine(
    engine: Engine, reference: dict[str, TilesDataset], tmp_path: Path, s3_server: S3Server
) -> None:
    store = open_store(  # workers are older than the server: its address travels with the store
        s3_server.new_uri(),
        endpoint=s3_server.endpoint,
        region="us-east-1",
        access_key_id=s3_server.access_key,
        secret_access_key=s3_server.secret_key,
    )
    made = both(tmp_path, store, engine)
    assert manifests(made) == manifests(reference)
    np.testing.assert_array_equal(made["own"].array[40:50, ::7], whole(reference)[40:50, ::7])


def whole(made: dict[str, TilesDataset]) -> np.ndarray[Any, Any]:
    return made["own"].to_numpy()


def test_memory_holds_what_files_hold(
    local_engine: Engine, reference: dict[str, TilesDataset], tmp_path: Path
) -> None:
    made = both(tmp_path, fresh_store(), local_engine)
    assert manifests(made) == manifests(reference)
    np.testing.assert_array_equal(whole(made), whole(reference))


def test_a_second_call_does_nothing(reference: dict[str, TilesDataset]) -> None:
    told: list[Event] = []
    x = reference["own"].store.dataset(reference["own"].manifest.inputs["vectors"])
    again = sd.similarity_tiles(x, block=32, max_nbytes=1, listeners=[told.append])
    assert again.manifest == reference["own"].manifest
    assert not [event for event in told if isinstance(event, RoundStarted)]


# -- read by others --------------------------------------------------------------------------------


def readers(path: str, store: Any) -> None:
    """Zarr, xarray and dask read the matrix; `store` is whatever they take for an address."""
    group = zarr.open_group(store, mode="r")
    assert sorted(name for name, _ in group.members()) == ["column", "row", "similarity"]
    own = xarray.open_zarr(store)
    assert own.similarity.dims == ("row", "column")
    assert list(own.row.values) == list(own.column.values) == names(N)
    lazy = dask.array.from_zarr(group["similarity"], chunks=(32, 32))
    values = group["similarity"][:]
    np.testing.assert_array_equal(lazy.compute(scheduler="sync"), values)
    np.testing.assert_array_equal(own.similarity.load(scheduler="sync").values, values)
    np.testing.assert_allclose(values, dense(resolve("cosine"), rows(N), rows(N)), atol=1e-6)
    one = own.similarity.sel(row=names(N)[77], column=names(N)[78])
    assert float(one) == values[77, 78]


def test_zarr_xarray_and_dask_open_it_without_simdist(reference: dict[str, TilesDataset]) -> None:
    path = reference["own"].path
    readers(path, path)
    lazy = dask.array.from_zarr(path, component="similarity")
    assert lazy.shape == (N, N)


def test_they_read_it_through_the_manifest_too(reference: dict[str, TilesDataset]) -> None:
    readers(reference["own"].path, reference["own"].open().store)


def test_what_reads_it_can_be_sent_to_other_processes(reference: dict[str, TilesDataset]) -> None:
    array = pickle.loads(pickle.dumps(reference["own"].array))
    np.testing.assert_array_equal(array[:], whole(reference))


@pytest.mark.s3
def test_on_s3_a_reader_needs_the_address_and_nothing_of_simdist(
    local_engine: Engine, tmp_path: Path, s3_uri: str, s3_server: S3Server
) -> None:
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    path = both(tmp_path, open_store(s3_uri), local_engine)["own"].path
    client = S3Store.from_url(
        path,
        endpoint=s3_server.endpoint,
        access_key_id=s3_server.access_key,
        secret_access_key=s3_server.secret_key,
        region="us-east-1",
        client_options={"allow_http": True},
    )
    readers(path, ObjectStore(client, read_only=True))


def test_a_rectangle_has_the_ids_of_both_sides(reference: dict[str, TilesDataset]) -> None:
    two = xarray.open_zarr(reference["two"].path)
    assert list(two.row.values) == names(N)
    assert list(two.column.values) == list(range(M))
    assert two.similarity.dtype == np.float16
    np.testing.assert_allclose(
        two.similarity.values,
        dense(resolve("euclidean"), rows(N), rows(M, seed=1)),
        rtol=1e-3,
        atol=1e-3,
    )
    assert two.attrs["simdist"]["measure"] == {"name": "euclidean"}


def test_reading_a_value_reads_one_chunk_of_its_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = sd.similarity_tiles(rows(1000), block=1024)
    assert (tiles.array.shards, tiles.array.chunks) == ((1024, 1024), (512, 512))
    asked: list[int] = []
    read = type(tiles.store).read_range

    def noted(store: Any, ref: Any, start: int, nbytes: int) -> bytes:
        asked.append(nbytes)
        return read(store, ref, start, nbytes)

    monkeypatch.setattr(type(tiles.store), "read_range", noted)
    assert tiles.array[700, 700] == 1
    assert len(asked) == 2  # the shard's index, and a chunk
    assert 0 < sum(asked) < tiles.metrics["stored_nbytes"] / 3


def test_nothing_can_be_written_through_it(reference: dict[str, TilesDataset]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        reference["own"].array[0, 0] = 2


# -- in a flow -------------------------------------------------------------------------------------

FLOW = """\
name: tiles
store: {store}
inputs:
  packages: {{path: "{rows}", id: id, vector: v}}
  others: {{path: "{rows}", id: id, vector: v}}
steps:
  matrix: {{stage: similarity_tiles, of: packages, measure: cosine, dtype: float16, block: 32}}
  two: {{stage: similarity_tiles, of: packages, against: others, block: 64}}
"""


@pytest.fixture
def flow(tmp_path: Path) -> str:
    stored(rows(N), tmp_path, fresh_store(), ids=names(N))
    return FLOW.format(store=tmp_path / "runs", rows=tmp_path / "rows.parquet")


def test_a_flow_makes_it_and_its_plan_says_how_large_it_is(flow: str, local_engine: Engine) -> None:
    config = parse(flow)
    planned = {step.name: step for step in plan_flow(config).steps}
    assert (planned["matrix"].tasks, planned["matrix"].written) == (15 + 1, N * N * 2)
    assert (planned["two"].tasks, planned["two"].written) == (9 + 1, N * N * 4)
    made = run_links(links(config), {}, store=config.store.open(), engine=local_engine)
    assert made["two"].manifest.inputs["columns"] == made["others"].fingerprint
    half, two = (TilesDataset.of(made[name]).to_numpy() for name in ("matrix", "two"))
    np.testing.assert_allclose(half, two, atol=1e-3)
    assert all(step.committed for step in plan_flow(config).steps)
    (part,) = describe(made["matrix"]).parts
    assert (part.role, part.objects) == ("similarity", 25)


def test_a_flow_written_out_reads_as_itself(flow: str) -> None:
    assert parse(yaml.safe_dump(parse(flow).to_json())) == parse(flow)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("against=othrs", r"there is no input or step 'othrs'; did you mean 'others'"),
        ("against=matrix", r"'matrix' is a similarity_tiles; similarity_tiles works on vectors"),
        ("max_nbytes=lots", r"max_nbytes is 'lots': expected a number with a unit"),
        ("dtype=float64", r"expected 'float32' or 'float16', got 'float64'"),
        ("blok=32", r"unknown key; did you mean 'block'\?"),
    ],
)
def test_a_flow_that_is_wrong_is_told(flow: str, change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(flow, overrides=[f"steps.two.{change}"])


def test_a_plan_refuses_what_a_run_would(flow: str) -> None:
    with pytest.raises(PlanTooLarge, match=r"150 x 150 in float32 is 87\.9 KiB; the limit is"):
        plan_flow(parse(flow, overrides=["steps.two.max_nbytes=50KiB"]))


# -- what is refused -------------------------------------------------------------------------------


def test_a_matrix_over_the_limit_is_refused_with_its_size_before_anything_is_written(
    tmp_path: Path, reference: dict[str, TilesDataset]
) -> None:
    large = np.broadcast_to(np.float32(1), (200_000, 2))
    with pytest.raises(PlanTooLarge) as caught:
        sd.similarity_tiles(large, scratch=str(tmp_path / "scratch"))
    assert str(caught.value) == (
        "similarity_tiles of 200,000 x 200,000 in float32 is 149 GiB; the limit is 64.0 GiB."
        " dtype='float16' takes half of it. Raise max_nbytes to 160000000000 if all of it is"
        " needed; knn_graph keeps each row's nearest in n x k, and knn searches one set in another."
    )
    assert not (tmp_path / "scratch").exists()
    x = reference["own"].store.dataset(reference["own"].manifest.inputs["vectors"])
    with pytest.raises(PlanTooLarge, match=r"is 87\.9 KiB; the limit is 87\.0 KiB"):
        sd.similarity_tiles(x, block=16, max_nbytes=87 << 10)


def test_a_matrix_that_does_not_fit_in_memory_is_read_in_parts(
    reference: dict[str, TilesDataset],
) -> None:
    with pytest.raises(InputError, match=r"is 87\.9 KiB in memory; the limit is 1\.0 KiB"):
        reference["own"].to_numpy(max_nbytes="1KiB")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"dtype": "float64"}, ConfigError, r"dtype='float64': expected 'float32' or 'float16'"),
        ({"block": 100}, ConfigError, r"block=100: expected a power of two from 16 to 16384"),
        ({"measure": "cosin"}, ConfigError, r"Did you mean 'cosine'"),
        ({"y": np.ones((3, 5), np.float32)}, InputError, r"rows have 6 dimensions, the columns 5"),
        ({"y": np.ones(6, np.float32)}, InputError, r"expected rows \[n, d\]"),
        ({"max_nbytes": 0}, ConfigError, r"max_nbytes is 0: expected more than zero"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        sd.similarity_tiles(rows(20), **options)


def test_an_array_and_a_dataset_do_not_mix(reference: dict[str, TilesDataset]) -> None:
    x = reference["own"].store.dataset(reference["own"].manifest.inputs["vectors"])
    with pytest.raises(ConfigError, match=r"arrays or stored datasets, not one of each"):
        sd.similarity_tiles(x, rows(5))


def test_a_value_that_float16_cannot_hold_is_refused_with_its_place() -> None:
    x = rows(50) * np.float32(3)
    x[33] *= 100
    with pytest.raises(InputError, match=r"the dot of row 33 and column 33 is \d.*float16 ends at"):
        sd.similarity_tiles(x, measure="dot", dtype="float16", block=32)


def test_a_worker_too_small_for_a_block_is_told_before_the_first_task(tmp_path: Path) -> None:
    x = stored(rows(2000, 100), tmp_path, open_store(tmp_path / "store"))
    said = r"similarity_tiles of 2000 rows of 100 dimensions needs .* none of its tasks has run"
    with (
        open_engine("local", workers=1, memory="8MiB") as engine,
        pytest.raises(PlanTooLarge, match=said),
    ):
        sd.similarity_tiles(x, engine=engine)
