"""The Prefect flow on a private API: tasks that read well, a cache that never lies, a quiet end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flow_runs import Runs, until

from pipelines import server
from pipelines.server import PrivateApi
from simdist.store import open_store

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def first(api: PrivateApi, config: Path) -> subprocess.CompletedProcess[str]:
    """The flow's first run, into an empty store."""
    return run(config, environment=dict(api.environment))


Rerun = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def rerun(first: subprocess.CompletedProcess[str], api: PrivateApi) -> Iterator[Rerun]:
    """`run` by a process that goes on to the next: see `flow_runner`. After the first run."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "flow_runner.py")],
        cwd=ROOT,
        env={**own, **api.environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        wants, answers = process.stdin, process.stdout

        def rerun(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
            keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
            asked = {"arguments": [str(config), *arguments], "environment": keys}
            wants.write(json.dumps(asked) + "\n")
            wants.flush()
            return subprocess.CompletedProcess(asked["arguments"], **json.loads(answers.readline()))

        yield rerun
        wants.close()
        process.wait(timeout=60)


def run(
    config: Path, *arguments: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-m", "pipelines", str(config), *arguments],
        cwd=ROOT,
        env={**own, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )


def seen(api: PrivateApi, config: Path, *, tasks: int) -> tuple[str, list[tuple[str, str]]]:
    """State of the last run of a flow, and (name, state) of its tasks."""
    runs = Runs(api.url)
    last = runs.last(config.stem)
    ended = runs.tasks(last, number=tasks)
    return runs.run(last)["state_name"], [(task["name"], task["state_name"]) for task in ended]


NAMES = ["import vectors · fruit", "partition · graph.partition", "knn graph · graph"]


def test_a_run_shows_its_stages_as_tasks_and_its_results_as_artifacts(
    first: subprocess.CompletedProcess[str], api: PrivateApi, config: Path
) -> None:
    assert first.returncode == 0, first.stderr
    assert "400 rows, 2,000 edges in " in first.stdout
    assert "graph: 400 rows in " in first.stderr
    found = seen(api, config, tasks=3)
    assert found == ("Completed", [(name, "Completed") for name in NAMES])
    runs = Runs(api.url)
    artifacts = runs.artifacts(runs.last(config.stem))
    assert artifacts["fruit-salad-metrics"]["type"] == "table"
    assert '"metric": "recall"' in artifacts["fruit-salad-metrics"]["data"]
    assert artifacts["fruit-salad-summary"]["type"] == "markdown"
    assert "2,000 edges" in artifacts["fruit-salad-summary"]["data"]
    assert artifacts["fruit-salad-graph-progress"]["type"] == "progress"
    assert artifacts["fruit-salad-graph-progress"]["data"] == 100
    assert "graph: 400 rows in " in artifacts["fruit-salad-graph-progress"]["description"]


def test_a_second_run_is_answered_from_what_is_committed_and_only_from_that(
    first: subprocess.CompletedProcess[str], rerun: Rerun, api: PrivateApi, config: Path
) -> None:
    assert first.returncode == 0, first.stderr
    again = rerun(config)
    assert "nothing to do, already committed" in again.stdout
    assert seen(api, config, tasks=3)[1] == [(name, "Cached") for name in NAMES]

    place = config.parent / "store"
    fingerprint = open_store(place).dataset("fruit_salad.graph").fingerprint
    shutil.rmtree(place)  # Prefect's cache still says that all is done
    again = rerun(config)
    assert "400 rows, 2,000 edges in " in again.stdout, again.stderr
    assert seen(api, config, tasks=3)[1] == [(name, "Completed") for name in NAMES]
    assert open_store(place).dataset("fruit_salad.graph").fingerprint == fingerprint


@pytest.mark.s3
def test_the_same_flow_on_s3_commits_the_same_fingerprint_and_a_second_run_does_nothing(
    first: subprocess.CompletedProcess[str], rerun: Rerun, config: Path, s3_uri: str
) -> None:
    assert first.returncode == 0, first.stderr
    there = rerun(config, "--set", f"store={s3_uri}")
    assert there.returncode == 0, there.stderr
    again = rerun(config, "--set", f"store={s3_uri}")
    assert "nothing to do, already committed" in again.stdout, again.stderr
    here = open_store(config.parent / "store").dataset("fruit_salad.graph")
    assert open_store(s3_uri).dataset("fruit_salad.graph").fingerprint == here.fingerprint


def test_a_stage_that_fails_is_told_plainly_and_shows_as_failed(
    rerun: Rerun, api: PrivateApi, config: Path
) -> None:
    failed = rerun(config, "--set", "steps.graph.k=400")
    assert failed.returncode == 2
    assert "need at least 401 rows" in failed.stderr
    assert "Traceback" not in failed.stderr
    found = seen(api, config, tasks=3)
    assert found[0] == "Failed"
    assert found[1][-1] == ("knn graph · graph", "Failed")


def test_a_wrong_config_is_told_before_anything_starts(config: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    wrong = run(config, "--set", "steps.graph.k=0", environment={"XDG_CACHE_HOME": str(cache)})
    assert wrong.returncode == 2
    assert "--set steps.graph.k: expected greater than or equal to 1, got 0" in wrong.stderr
    assert not cache.exists()


def test_without_a_server_a_private_one_starts_and_stops_quietly(
    api: PrivateApi, config: Path, tmp_path: Path
) -> None:
    home = tmp_path / api.home.relative_to(api.home.parents[1])
    home.mkdir(parents=True)  # of an earlier run, as it were: making a database takes ten seconds
    with (
        closing(sqlite3.connect(api.home / "prefect.db")) as kept,
        closing(sqlite3.connect(home / "prefect.db")) as copy,
    ):
        kept.backup(copy)
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PREFECT_LOGGING_LEVEL": "INFO"}
    done = run(config, "--set", "steps.graph.k=4", environment=environment)
    assert done.returncode == 0, done.stderr
    assert "Prefect API up in " in done.stderr
    assert "400 rows, 1,600 edges in " in done.stdout
    assert not [line for line in done.stderr.splitlines() if "rror" in line or "Trace" in line]


def test_a_home_that_another_run_is_using_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with server._home() as first:
        assert tmp_path in first.parents
        with server._home() as second:
            assert second.is_dir()
            assert tmp_path not in second.parents
        assert not second.exists()
    with server._home() as again:
        assert again == first


def test_the_private_server_ends_with_its_parent_however_that_ended(tmp_path: Path) -> None:
    code = (
        "import time; from pipelines.server import private_api\n"
        "with private_api() as api:\n"
        "    print(api.process.pid, flush=True); time.sleep(300)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    ) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait(timeout=30)
    until(lambda: True if not Path(f"/proc/{server}").exists() else None)
