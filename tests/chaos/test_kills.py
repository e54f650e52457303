"""A few of the trials of `make chaos`, which kills the main job hundreds of times."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simdist.store import open_store
from tests.chaos.gate import Gate, open_gate, set_gate, wait_held
from tests.chaos.schedule import ENGINES, schedule
from tests.chaos.trial import RESUMABLE, carry_out
from tests.chaos.world import World, journal, same_manifests

SEED = 0


@pytest.mark.parametrize(
    "id",
    [
        "driver-local-00",
        "driver-local-03",
        "driver-dask-02",
        "worker-dask-01",
        pytest.param("server-local-02", marks=pytest.mark.s3),
    ],
)
def test_what_is_killed_ends_with_the_bytes_of_an_undisturbed_run(id: str, world: World) -> None:
    sort = id.partition("-")[0]
    trials = schedule([sort], ENGINES, trials=12, seed=SEED, rounds=world.reference.rounds)
    (trial,) = [trial for trial in trials if trial.id == id]
    outcome = carry_out(trial, world)
    assert outcome.problems == [], str(trial)
    assert outcome.same
    assert outcome.before > 0


def test_tasks_that_outlive_their_driver_do_no_harm(world: World, tmp_path: Path) -> None:
    """A cluster goes on with the tasks of a killed driver while the next driver is at work."""
    set_gate(tmp_path, Gate("leaves-0", 1, "written"))
    first = world.start(tmp_path, run="first", engine=world.engine("dask"))
    wait_held(tmp_path, alive=first.alive)
    first.kill()
    second = world.start(tmp_path, run="second")
    while not any(begun.run == "second" for begun in journal(tmp_path)):
        assert second.alive(), second.said
    open_gate(tmp_path)  # the orphan goes on
    assert second.wait() == 0, second.said
    assert same_manifests(open_store(tmp_path / "store"), world.reference)


def test_a_driver_whose_workers_are_gone_for_ever_ends_and_says_so(
    world: World, tmp_path: Path
) -> None:
    cluster = world.cluster("dask")
    assert cluster is not None
    set_gate(tmp_path, Gate("leaves-0", 3, "started"))
    driver = world.start(tmp_path, engine={**cluster.engine, "wait_for_workers": "2s"})
    try:
        wait_held(tmp_path, alive=driver.alive)
        cluster.lose()
        open_gate(tmp_path)
        assert driver.wait() == RESUMABLE, driver.said
    finally:
        world.forget("dask")
    assert re.search(r"has (had no workers that take tasks|not answered).* for 2 s", driver.said)
    assert "run again" in driver.said
    assert world.start(tmp_path, run="second").wait() == 0


def test_a_full_disk_ends_the_run_and_space_lets_it_go_on(tmp_path: Path) -> None:
    """In a process of its own: the disk is a small tmpfs that only that process sees."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    if subprocess.run(["unshare", *user, "--mount", "true"], check=False).returncode != 0:
        pytest.skip("needs the right to mount: root, or `unshare --user --mount`")
    found = tmp_path / "found.jsonl"
    command = [sys.executable, "-m", "tests.chaos", "--sorts", "disk", "--engines", "local"]
    ran = subprocess.run(
        [*command, "--trials", "4", "--only", "disk-local-01", "--jsonl", str(found)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (outcome,) = map(json.loads, found.read_text().splitlines())
    assert outcome["same"]
    assert not outcome["recovered"]  # it ended with an error, and was run again
