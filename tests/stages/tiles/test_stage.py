"""Dense tiles as a job: nothing half visible, resumed, repaired, verified, swept."""

from __future__ import annotations

import signal
import subprocess
import sys
import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from s3_server import S3Server
from stages.importing import fresh_store
from stages.tiles.cases import Failing, armed, computed, names, rows, stored

from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, InputError, IntegrityError, ObjectMissing, TaskFailed
from simdist.measures import resolve
from simdist.models.chain import Link, run_link
from simdist.models.tiles import TilesDataset, similarity_tiles, tiles_link
from simdist.runner import Context, Event, Record, Task
from simdist.runner.events import RecordLost, RoundStarted
from simdist.stages.tiles import SimilarityTiles
from simdist.store import Dataset, Store, maintenance, open_store
from simdist.testing.fault_proxy import FaultProxy, LostAnswer, Rule, Status, Truncated

N = 150
TASKS = 15 + 1  # 5 blocks of 32, each pair once, and the metadata
LAST_PAIR = "tiles-000003-000004"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def vectors(store: Store, tmp_path: Path) -> Dataset:
    return stored(rows(N), tmp_path, store, ids=names(N))


@pytest.fixture(scope="module")
def undisturbed(local_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The manifest that every run of this file ends with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    data = stored(rows(N), folder, open_store(folder / "store"), ids=names(N))
    return run(data, local_engine).manifest.to_bytes()


def run(
    vectors: Dataset, engine: Engine | None = None, stage: Any = None, **options: Any
) -> TilesDataset:
    made = tiles_link("tiles", "x", block=32)
    link = Link("tiles", stage or made.stage, made.config, made.inputs)
    if engine is not None:
        data = run_link(link, {"x": vectors}, store=vectors.store, engine=engine, **options)
        return TilesDataset.of(data)
    with open_engine("local", workers=1) as one:
        return run(vectors, one, stage, **options)


def folder_of(vectors: Dataset) -> str:
    """Where the matrix of a job that is not committed lies."""
    (fingerprint,) = {info.key.split("/")[1] for info in vectors.store.objects.list("arrays")}
    return f"{vectors.store.uri.removeprefix('file://')}/arrays/{fingerprint}"


def test_two_runs_commit_the_same_bytes(vectors: Dataset, undisturbed: bytes) -> None:
    assert run(vectors).manifest.to_bytes() == undisturbed


@pytest.mark.parametrize("task", ["tiles-000000-000000", LAST_PAIR, "metadata"])
def test_a_failure_leaves_nothing_to_open_and_is_resumed_to_the_same_bytes(
    task: str, vectors: Dataset, tmp_path: Path, undisturbed: bytes
) -> None:
    stage = Failing(task, str(tmp_path))
    with armed(tmp_path), pytest.raises(TaskFailed, match=f"InjectedError: {task}$"):
        run(vectors, stage=stage)
    before = len(computed(tmp_path))
    assert before < TASKS
    if before:
        with pytest.raises(FileNotFoundError):
            zarr.open_group(folder_of(vectors), mode="r")
    told: list[Event] = []
    made = run(vectors, stage=stage, listeners=[told.append])
    assert made.manifest.to_bytes() == undisturbed
    assert computed(tmp_path) == dict.fromkeys(computed(tmp_path), 1)
    assert len(computed(tmp_path)) == TASKS
    assert sum(event.done for event in told if isinstance(event, RoundStarted)) == before


def test_a_driver_killed_in_the_middle_is_resumed_to_the_same_bytes(
    vectors: Dataset, tmp_path: Path, undisturbed: bytes
) -> None:
    code = (
        "from stages.tiles.cases import Failing; from stages.tiles.test_stage import run;"
        "from simdist.store import open_store;"
        f"data = open_store({vectors.store.uri!r}).dataset({vectors.fingerprint!r});"
        f"run(data, stage=Failing('tiles-000001-000003', {str(tmp_path)!r}, dies=True))"
    )
    paths = f"import sys; sys.path[:0] = {[str(Path(__file__).parents[2])]};"
    with armed(tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", paths + code], capture_output=True, check=False, timeout=120
        )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    before = computed(tmp_path)
    assert 0 < len(before) < TASKS
    assert run(vectors, stage=Failing("", str(tmp_path))).manifest.to_bytes() == undisturbed
    assert computed(tmp_path) == dict.fromkeys(computed(tmp_path), 1)


def test_a_task_done_twice_writes_once(
    vectors: Dataset, monkeypatch: pytest.MonkeyPatch, undisturbed: bytes
) -> None:
    compute = SimilarityTiles.compute
    twice: list[tuple[Record, Record]] = []

    def again(self: SimilarityTiles, context: Context, task: Task) -> Record:
        twice.append((compute(self, context, task), compute(self, context, task)))
        return twice[-1][1]

    monkeypatch.setattr(SimilarityTiles, "compute", again)
    assert run(vectors).manifest.to_bytes() == undisturbed
    assert all(first == second for first, second in twice)
    assert len(twice) == TASKS


@pytest.mark.s3
def test_a_faulty_store_changes_nothing(
    tmp_path: Path, s3_server: S3Server, s3_uri: str, undisturbed: bytes
) -> None:
    rules = [
        Rule(LostAnswer(), methods=("PUT",), path="/arrays/", after=2, times=4),
        Rule(Status(503), path="/(arrays|records)/", after=9, times=4),
        Rule(Truncated(), methods=("GET",), path="/arrays/", after=1, times=4),
    ]
    with FaultProxy(upstream=s3_server.endpoint, rules=rules) as proxy:
        place = open_store(s3_uri, endpoint=proxy.endpoint)
        made = run(stored(rows(N), tmp_path, place, ids=names(N)))
        assert made.manifest.to_bytes() == undisturbed
        assert made.array[10, 149] == made.array[149, 10]
        assert maintenance.verify(place, made).ok
        hit = {type(seen.fault) for seen in proxy.log if seen.fault is not None}
    assert hit == {LostAnswer, Status, Truncated}


# -- what is lost or damaged -----------------------------------------------------------------------


def test_a_shard_that_is_gone_is_an_error_and_comes_back(
    vectors: Dataset, undisturbed: bytes
) -> None:
    made = run(vectors)
    whole = made.to_numpy()
    key = f"{made.metrics['array']}/similarity/c/1/2"
    vectors.store.objects.delete([key])
    assert np.isnan(zarr.open_group(made.path, mode="r")["similarity"][40, 70])  # never 0
    with pytest.raises(ObjectMissing, match=r"similarity/c/1/2 does not exist, though a manifest"):
        made.to_numpy()
    assert [d.key for d in maintenance.verify(made.store, made).damaged] == [key]
    told: list[Event] = []
    again = run(vectors, listeners=[told.append])
    assert again.manifest.to_bytes() == undisturbed
    assert [event.object for event in told if isinstance(event, RecordLost)] == [key, key]
    np.testing.assert_array_equal(again.to_numpy(), whole)
    assert maintenance.verify(again.store, again).ok


@pytest.mark.parametrize("recorded", [True, False], ids=["records", "records swept"])
def test_a_damaged_shard_is_found_and_written_again(
    recorded: bool, vectors: Dataset, undisturbed: bytes
) -> None:
    made = run(vectors)
    if not recorded:
        maintenance.gc(vectors.store, delete=True, older_than=timedelta(0))
    key = f"{made.metrics['array']}/similarity/c/0/3"
    vectors.store.objects.put(key, b"short")
    assert not maintenance.verify(made.store, made).ok
    again = run(vectors)
    assert again.manifest.to_bytes() == undisturbed
    assert maintenance.verify(again.store, again).ok


@pytest.mark.parametrize("place", ["chunk", "index", "ids"])
def test_a_flipped_byte_is_an_error_and_no_number(place: str, vectors: Dataset) -> None:
    made = run(vectors)
    name = "row/c/0" if place == "ids" else "similarity/c/0/3"
    key = f"{made.metrics['array']}/{name}"
    data = bytearray(vectors.store.objects.get(key))
    data[-9 if place == "index" else len(data) // 2] ^= 1
    vectors.store.objects.put(key, bytes(data))
    with pytest.raises((IntegrityError, ValueError, RuntimeError)):
        made.to_numpy() if place != "ids" else made.open()["row"][:]


def test_gc_keeps_arrays_that_a_manifest_or_an_unfinished_job_needs(
    vectors: Dataset, tmp_path: Path, undisturbed: bytes
) -> None:
    stage = Failing(LAST_PAIR, str(tmp_path))
    with armed(tmp_path), pytest.raises(TaskFailed):
        run(vectors, stage=stage)
    objects = vectors.store.objects
    before = {info.key for info in objects.list("arrays")}
    objects.put("arrays/0123/zarr.json", b"left by a job that was abandoned")
    gone = maintenance.gc(vectors.store, delete=True, older_than=timedelta(0))
    assert "arrays/0123/zarr.json" in gone.keys
    assert {info.key for info in objects.list("arrays")} == before
    made = run(vectors, stage=stage)
    assert made.manifest.to_bytes() == undisturbed
    assert len(computed(tmp_path)) == TASKS
    maintenance.gc(vectors.store, delete=True, older_than=timedelta(0))
    assert maintenance.verify(made.store, made).ok


def test_an_abandoned_job_leaves_its_array_to_gc(vectors: Dataset, tmp_path: Path) -> None:
    with armed(tmp_path), pytest.raises(TaskFailed):
        run(vectors, stage=Failing("metadata", str(tmp_path)))
    (fingerprint,) = {info.key.split("/")[1] for info in vectors.store.objects.list("arrays")}
    maintenance.abandon(vectors.store, fingerprint)
    maintenance.gc(vectors.store, delete=True, older_than=timedelta(0))
    assert not list(vectors.store.objects.list("arrays"))


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "d", "options"),
    [
        (1700, 32, {"block": 1024}),
        (1700, 32, {"block": 1024, "dtype": "float16", "measure": "euclidean"}),
        (600, 900, {"block": 512, "measure": "manhattan"}),
        (40, 3, {}),
    ],
)
def test_a_task_holds_no_more_than_it_says(
    n: int, d: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held: list[tuple[str, int, int]] = []
    compute = SimilarityTiles.compute

    def traced(self: SimilarityTiles, context: Context, task: Task) -> Record:
        tracemalloc.start()
        record = compute(self, context, task)
        held.append((task.key, tracemalloc.get_traced_memory()[1], task.nbytes))
        tracemalloc.stop()
        return record

    x = rows(n, d).astype(np.float16)  # so that rows are not used as they lie on disk
    data = stored(x, tmp_path, fresh_store())
    resolve(options.get("measure", "cosine")).block(rows(4, d), rows(4, d))  # compiled before
    monkeypatch.setattr(SimilarityTiles, "compute", traced)
    with open_engine("local", workers=1) as engine:
        similarity_tiles(data, engine=engine, **options)
    for task, peak, said in held:
        assert peak <= said, task
    assert max(peak for _, peak, _ in held) * 6 > max(said for *_, said in held)


# -- what is refused -------------------------------------------------------------------------------


def test_a_row_of_zeros_has_no_cosine(tmp_path: Path) -> None:
    x = rows(20)
    x[13] = 0
    data = stored(x, tmp_path, fresh_store())
    with pytest.raises(InputError, match=r"row 13 of .* is all zeros, which cosine cannot"):
        run(data)


def test_without_the_zarr_library_the_extra_is_named(
    vectors: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ConfigError, match=r"pip install 'simdist\[zarr\]'"):
        similarity_tiles(vectors)
    with pytest.raises(ConfigError, match=r"pip install 'simdist\[zarr\]'"):
        run(vectors)
