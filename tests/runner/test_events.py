"""What listeners hear, what travels to workers, and where randomness comes from."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runner.fakes import Script, fresh_store, job_of, lines, settle

from simdist.engine import open_engine
from simdist.errors import ObjectMissing
from simdist.runner import Context, Event, JobSpec, Task, run
from simdist.runner.events import RoundDone, StageDone, StageStarted, TaskDone
from simdist.store import Dataset, Manifest, Shard, open_store
from simdist.types import ObjectRef

SPEC_NBYTES = 4096


def test_listeners_hear_a_run_from_start_to_end(script: Script) -> None:
    told: list[Event] = []
    with open_engine("local", workers=1) as engine:
        dataset = run(
            job_of(script),
            store=fresh_store(),
            engine=engine,
            name="my sums",
            listeners=[told.append],
        )
    rounds = [
        [f"RoundStarted {name} 0"]
        + [f"TaskDone {name} {name}-{i:03d} {i + 1}" for i in range(4)]
        + [f"RoundDone {name}"]
        for name in ("numbers", "sums")
    ]
    assert lines(told) == ["StageStarted", *rounds[0], *rounds[1], "StageDone False"]
    first, last = told[0], told[-1]
    assert isinstance(first, StageStarted)
    assert isinstance(last, StageDone)
    assert (first.name, last.name, first.stage) == ("my sums", "my sums", "sums")
    assert first.fingerprint == last.fingerprint == dataset.fingerprint
    assert last.metrics == dataset.metrics
    assert all(event.seconds >= 0 for event in told if isinstance(event, TaskDone | RoundDone))


def test_events_of_a_resumed_round_count_from_what_was_done(script: Script) -> None:
    store = fresh_store()
    told: list[Event] = []
    with open_engine("local", workers=1) as engine:
        with pytest.raises(Exception, match="nothing to divide by"):
            run(job_of(script.failing("numbers-002")), store=store, engine=engine)
        settle(engine)
        recorded = len(store.list_records(job_of(script).fingerprint))
        run(job_of(script), store=store, engine=engine, listeners=[told.append])
    assert lines(told)[1] == f"RoundStarted numbers {recorded}"
    counts = [e.done for e in told if isinstance(e, TaskDone) and e.round == "numbers"]
    assert counts == list(range(recorded + 1, 5))


def test_what_travels_with_each_task_is_small_for_a_thousand_shards(
    script: Script, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "store")
    ref = ObjectRef(f"data/vectors-{'0' * 64}.npy", "0" * 64, 1 << 25)
    shards = tuple(Shard(1 << 16, {"vectors": ref, "rows": ref}) for _ in range(1000))
    manifest = Manifest("a" * 32, "import_vectors", 1, {}, {}, 1000 << 16, shards)
    store.commit(manifest)
    rounds = {f"round-{i}": ref for i in range(12)}
    inputs = {"vectors": (store, "a" * 32), "partition": (store, "a" * 32)}
    stage = job_of(script).stage
    spec = JobSpec(stage, script, store, "b" * 32, "c" * 32, inputs, rounds)
    travelling = pickle.dumps((spec, Task("leaves-0-000000", "leaves", {"first_cell": 3}, 1 << 20)))
    assert len(travelling) < SPEC_NBYTES
    there: JobSpec = pickle.loads(travelling)[0]
    assert Context(there).inputs["vectors"] == Dataset(store, manifest)


def test_an_input_that_was_removed_is_an_error_that_says_what_to_do(
    script: Script, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "store")
    inputs = {"vectors": (store, "d" * 32)}
    spec = JobSpec(job_of(script).stage, script, store, "b" * 32, "c" * 32, inputs)
    with pytest.raises(ObjectMissing, match=rf"{'d' * 32} has no manifest .* Run the flow again"):
        _ = Context(spec).inputs


def test_randomness_follows_from_seed_and_key_alone(script: Script, tmp_path: Path) -> None:
    def drawn(seed: int, *key: int | str) -> list[int]:
        spec = JobSpec(
            job_of(script).stage, replace(script, seed=seed), fresh_store(), "b" * 32, "c" * 32, {}
        )
        values: list[int] = Context(spec).rng(*key).integers(1 << 60, size=4).tolist()
        return values

    assert drawn(0, "split", 3) == drawn(0, "split", 3)
    others = [drawn(0, "split", 3), drawn(1, "split", 3), drawn(0, "split", 4), drawn(0, "joins")]
    assert len({tuple(values) for values in others}) == len(others)
    assert np.ptp(drawn(0)) > 0
