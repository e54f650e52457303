"""Rounds, records, resume and commit: what a run does, and what it leaves alone."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from runner.fakes import (
    Drifts,
    NamedByContent,
    RepeatsRound,
    RepeatsTask,
    Script,
    Spreads,
    fresh_store,
    job_of,
    keys,
    lines,
    manifest_bytes,
    settle,
)

from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, ConflictError, PlanTooLarge, TaskFailed
from simdist.runner import Event, committed, run
from simdist.runner.events import RoundStarted
from simdist.store import Dataset, Store

ALL = [f"{name}-{i:03d}" for name in ("numbers", "sums") for i in range(4)]


def test_records_reach_the_stage_in_plan_order_whatever_ended_first(
    script: Script, store: Store, local_engine: Engine
) -> None:
    slow = replace(script, waiting=("sums-000",))  # the first of its round ends last

    def let_go(event: Event) -> None:
        if getattr(event, "key", "") == "sums-003":
            Path(script.folder, "go").touch()

    told: list[Event] = []
    dataset = run(job_of(slow), store=store, engine=local_engine, listeners=[let_go, told.append])
    ended = [line.split()[2] for line in lines(told) if line.startswith("TaskDone sums")]
    assert ended[-1] == "sums-000"
    alone = run(job_of(script), store=fresh_store(), engine=local_engine)
    assert manifest_bytes(dataset) == manifest_bytes(alone)
    arrays = [dataset.store.read_array(shard.objects["array"]) for shard in dataset.shards]
    assert [int(array.sum()) for array in arrays] == dataset.metrics["sums"]


def test_all_engines_commit_the_same_bytes_in_the_same_rounds(
    engine: Engine, local_engine: Engine, script: Script, store: Store
) -> None:
    told: list[Event] = []
    dataset = run(job_of(script), store=store, engine=engine, listeners=[told.append])
    assert script.ran() == Counter(ALL)
    expected = run(job_of(script), store=fresh_store(), engine=local_engine)
    assert manifest_bytes(dataset) == manifest_bytes(expected)
    starts = [line for line in lines(told) if line.startswith("Round")]
    assert starts == [
        "RoundStarted numbers 0", "RoundDone numbers", "RoundStarted sums 0", "RoundDone sums"
    ]  # fmt: skip


@pytest.mark.parametrize(("workers", "memory"), [(1, "1MiB"), (2, "4GiB")])
def test_workers_and_memory_leave_no_trace_in_the_manifest(
    workers: int, memory: str, script: Script, local_engine: Engine
) -> None:
    with open_engine("local", workers=workers, memory=memory) as engine:
        dataset = run(job_of(script), store=fresh_store(), engine=engine)
    assert manifest_bytes(dataset) == manifest_bytes(
        run(job_of(script), store=fresh_store(), engine=local_engine)
    )


def test_a_committed_job_runs_nothing_and_says_so(
    script: Script, store: Store, local_engine: Engine
) -> None:
    first = run(job_of(script), store=store, engine=local_engine)
    before = [(info.key, info.modified) for info in store.objects.list("")]
    told: list[Event] = []
    second = run(job_of(script), store=store, engine=local_engine, listeners=[told.append])
    assert second == first == committed(job_of(script), store)
    assert lines(told) == ["StageStarted", "StageDone True"]
    assert script.ran() == Counter(ALL)
    assert [(info.key, info.modified) for info in store.objects.list("")] == before


def test_a_second_run_after_a_failure_computes_only_what_has_no_record(
    script: Script, store: Store, one_worker: Engine
) -> None:
    with pytest.raises(TaskFailed):
        run(job_of(script.failing("sums-001")), store=store, engine=one_worker)
    settle(one_worker)
    assert committed(job_of(script), store) is None
    done = {line for line in keys(store, "records") if "round-" not in line}
    assert len(done) >= 5
    told: list[Event] = []
    dataset = run(job_of(script), store=store, engine=one_worker, listeners=[told.append])
    ran = script.ran()
    assert ran.pop("sums-001") == 2
    assert set(ran.values()) == {1}
    assert "RoundStarted numbers 4" in lines(told)
    assert manifest_bytes(dataset) == manifest_bytes(
        run(job_of(script), store=fresh_store(), engine=one_worker)
    )


def test_the_index_of_a_round_is_written_once_and_kept(
    script: Script, store: Store, one_worker: Engine
) -> None:
    with pytest.raises(TaskFailed):
        run(job_of(script.failing("sums-003")), store=store, engine=one_worker)
    (index,) = [key for key in keys(store, "records") if "round-numbers" in key]
    before = store.objects.head(index)
    run(job_of(script), store=store, engine=one_worker)
    assert store.objects.head(index) == before
    indexed = [store.objects.get(key) for key in keys(store, "records") if "round-" in key]
    listed = [key for key in keys(store, "data") if "/round-" in key]
    assert len(indexed) == len(listed) == 2
    assert all(any(key.encode() in data for data in indexed) for key in listed)


def test_there_is_one_record_a_task_one_index_a_round_and_one_manifest(
    script: Script, store: Store, one_worker: Engine
) -> None:
    dataset = run(job_of(script), store=store, engine=one_worker)
    folder = f"records/{dataset.fingerprint}/"
    recorded = {key.removeprefix(folder).removesuffix(".json") for key in keys(store, folder)}
    assert recorded == {*ALL, "round-numbers", "round-sums"}
    assert keys(store, "manifests") == [f"manifests/{dataset.fingerprint}.json"]


@pytest.mark.parametrize("damage", ["deleted", "cut short", "flipped"])
def test_a_record_whose_object_is_lost_is_computed_again_and_says_so(
    damage: str, script: Script, store: Store, one_worker: Engine
) -> None:
    with pytest.raises(TaskFailed):
        run(job_of(script.failing("sums-000")), store=store, engine=one_worker)
    fingerprint = job_of(script).fingerprint
    record = store.read_record(fingerprint, "numbers-002")
    assert record is not None
    key = record["objects"]["array"]["key"]
    spoil(store, key, damage)
    told: list[Event] = []
    dataset = run(job_of(script), store=store, engine=one_worker, listeners=[told.append])
    assert [line for line in lines(told) if "Lost" in line] == ["RecordLost numbers-002"]
    assert script.ran()["numbers-002"] == 2
    assert script.ran()["numbers-001"] == 1
    assert manifest_bytes(dataset) == manifest_bytes(
        run(job_of(script), store=fresh_store(), engine=one_worker)
    )


@pytest.mark.parametrize("damage", ["deleted", "cut short"])
def test_a_committed_dataset_that_lost_an_object_is_made_whole_again(
    damage: str, script: Script, store: Store, one_worker: Engine
) -> None:
    dataset = run(job_of(script), store=store, engine=one_worker)
    before = manifest_bytes(dataset)
    lost = dataset.shards[1].objects["array"]
    spoil(store, lost.key, damage)
    told: list[Event] = []
    again = run(job_of(script), store=store, engine=one_worker, listeners=[told.append])
    assert "RecordLost manifest" in lines(told)
    assert lines(told)[-1] == "StageDone False"
    assert store.read_array(lost).shape == (8,)
    assert manifest_bytes(again) == before
    ran = script.ran()
    assert ran.pop("sums-001") == 2
    assert set(ran.values()) == {1}


def test_a_lost_object_that_does_not_come_back_is_an_error_not_a_dangling_record(
    script: Script, store: Store, one_worker: Engine
) -> None:
    stage = Drifts()
    with pytest.raises(TaskFailed):
        run(job_of(script.failing("sums-000"), stage), store=store, engine=one_worker)
    record = store.read_record(job_of(script, stage).fingerprint, "numbers-001")
    assert record is not None
    store.objects.delete([record["objects"]["array"]["key"]])
    with pytest.raises(ConflictError, match=r"numbers-001 .* other bytes than its record") as told:
        run(job_of(script, stage), store=store, engine=one_worker)
    assert record["objects"]["array"]["key"] in str(told.value)


def spoil(store: Store, key: str, damage: str) -> None:
    data = store.objects.get(key)
    store.objects.delete([key])
    if damage == "cut short":
        store.objects.put(key, data[:-1])
    if damage == "flipped":
        store.objects.put(key, data[:-1] + bytes([data[-1] ^ 1]))


def test_a_dataset_named_by_its_content_is_found_again_by_a_memo(
    script: Script, store: Store, one_worker: Engine
) -> None:
    job = job_of(script, NamedByContent())
    first = run(job, store=store, engine=one_worker)
    assert first.fingerprint != job.fingerprint
    assert first.manifest.config == {"what": "sums"}
    told: list[Event] = []
    second = run(job, store=store, engine=one_worker, listeners=[told.append])
    assert second == first
    assert lines(told) == ["StageStarted", "StageDone True"]
    assert set(script.ran().values()) == {1}


def test_two_jobs_of_one_content_commit_one_dataset(
    script: Script, store: Store, one_worker: Engine
) -> None:
    class Renamed(NamedByContent):
        VERSION = 1
        name = "sums"

    class Elsewhere(Script):
        def to_json(self) -> dict[str, object]:
            return {**Script.to_json(self), "listing": "elsewhere"}

    first = run(job_of(script, NamedByContent()), store=store, engine=one_worker)
    other = Elsewhere(script.folder)
    second = run(job_of(other, Renamed()), store=store, engine=one_worker)
    assert second == first
    assert set(script.ran().values()) == {2}  # read again under the other name, once
    assert len(keys(store, "manifests")) == 1


def test_two_drivers_at_once_commit_one_manifest_and_both_return_it(
    script: Script, store: Store, local_engine: Engine
) -> None:
    together = threading.Barrier(2)

    def meet(event: Event) -> None:
        if isinstance(event, RoundStarted):
            together.wait(timeout=60)

    def drive(_: int) -> Dataset:
        return run(job_of(script), store=store, engine=local_engine, listeners=[meet])

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(drive, range(2), timeout=120)
    assert one == two
    assert set(script.ran().values()) <= {1, 2}  # what the other has recorded is not computed
    assert keys(store, "manifests") == [f"manifests/{one.fingerprint}.json"]
    assert keys(store, "leases") == []
    assert manifest_bytes(one) == manifest_bytes(
        run(job_of(script), store=fresh_store(), engine=local_engine)
    )


def test_a_plan_too_large_is_refused_before_its_first_task(
    script: Script, store: Store, one_worker: Engine
) -> None:
    large = replace(script, nbytes={"numbers-003": 5 * 2**30 + 1})
    with pytest.raises(PlanTooLarge) as told:
        run(job_of(large), store=store, engine=one_worker)
    for part in ("sums task numbers-003", "5.0 GiB", "2.0 GiB", "engine.memory", "5121MiB"):
        assert part in str(told.value)
    assert script.ran() == Counter()
    with open_engine("local", workers=1, memory="5121MiB") as engine:  # as it said
        assert run(job_of(large), store=store, engine=engine).rows == 4


def test_a_plan_too_large_spares_what_an_earlier_run_has_done(
    script: Script, store: Store, one_worker: Engine
) -> None:
    large = replace(script, nbytes={"numbers-003": 3 << 30})
    with (
        open_engine("local", workers=1, memory="4GiB") as engine,
        pytest.raises(TaskFailed),
    ):
        run(job_of(large.failing("sums-000")), store=store, engine=engine)
    assert run(job_of(large), store=store, engine=one_worker).rows == 4


def test_a_round_asked_for_twice_is_an_error_that_names_it(
    script: Script, store: Store, one_worker: Engine
) -> None:
    with pytest.raises(ConfigError, match="stage sums asked for round 'numbers' twice"):
        run(job_of(script, RepeatsRound()), store=store, engine=one_worker)


def test_a_task_key_used_in_two_rounds_is_an_error_not_the_other_ones_record(
    script: Script, store: Store, one_worker: Engine
) -> None:
    with pytest.raises(ConfigError, match=r"two tasks '000', the second in round 'sums'"):
        run(job_of(script, RepeatsTask()), store=store, engine=one_worker)
    assert script.ran() == Counter(["000", "001", "002", "003"])


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_store_in_this_process_is_refused_where_tasks_run_in_others(
    kind: str, script: Script, store: Store, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(f"{kind}_engine")
    here = fresh_store()
    with pytest.raises(ConfigError, match=f"{here.uri} lives in this process, but the {kind}"):
        run(job_of(script), store=here, engine=engine)
    with open_engine("local", workers=1) as local:
        source = run(job_of(script), store=here, engine=local)
    job = replace(job_of(script), inputs={"vectors": source})
    with pytest.raises(ConfigError, match=f"{here.uri} lives in this process"):
        run(job, store=store, engine=engine)


@pytest.mark.parametrize(("tasks", "workers", "expected"), [(1, 3, 3), (2, 3, 1), (1, 1, 1)])
def test_a_task_whose_work_spreads_has_all_threads_of_a_local_engine_to_itself_when_alone(
    script: Script, store: Store, tasks: int, workers: int, expected: int
) -> None:
    job = job_of(replace(script, tasks=tasks), Spreads())
    with open_engine("local", workers=workers) as engine:
        dataset = run(job, store=store, engine=engine)
    assert dataset.metrics["sums"] == [expected] * tasks


def test_a_task_whose_work_spreads_has_the_cpus_it_asked_for_on_a_cluster(
    dask_engine: Engine, script: Script, store: Store
) -> None:
    dataset = run(job_of(replace(script, tasks=1), Spreads()), store=store, engine=dask_engine)
    assert dataset.metrics["sums"] == [1]
