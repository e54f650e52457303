"""The Prefect flow on a private API: tasks that read well, a cache that never lies, a quiet end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.server import PrivateApi, private_api
from simdist.store import open_store

ROOT = Path(__file__).parents[2]
FLOW = """\
name: fruit_salad
store: {folder}/store
engine: {{kind: local, workers: 2, memory: 1GiB}}
inputs:
  fruit: {{path: "{folder}/fruit.parquet", id: name, vector: embedding}}
steps:
  graph: {{stage: knn_graph, of: fruit, k: 5, recall: 0.9}}
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateApi]:
    """A Prefect API with an empty database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with private_api() as api:
            api.wait()
            yield api


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow over 400 vectors."""
    folder = tmp_path_factory.mktemp("fruit")
    rng = np.random.default_rng(11)
    flat = pa.array(rng.standard_normal(400 * 8).astype(np.float32))
    vectors = pa.FixedSizeListArray.from_arrays(flat, 8)
    names = [f"fruit-{row}" for row in range(400)]
    pq.write_table(pa.table({"name": names, "embedding": vectors}), folder / "fruit.parquet")
    path = folder / "fruit-salad.yaml"
    path.write_text(FLOW.format(folder=folder))
    return path


@pytest.fixture(scope="module")
def first(api: PrivateApi, config: Path) -> subprocess.CompletedProcess[str]:
    """The flow's first run, into an empty store."""
    return run(config, environment=dict(api.environment))


def run(
    config: Path, *arguments: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", str(config), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )


@dataclass(frozen=True)
class Seen:
    """What Prefect's API says of the last run of a flow."""

    state: str
    tasks: list[tuple[str, str]]  # (name, state), in the order they began


def seen(api: PrivateApi, config: Path, *, tasks: int) -> Seen:
    """Ask until the task runs are recorded: Prefect does that in the background."""

    def ask(path: str, **body: Any) -> Any:
        answer = httpx.post(f"{api.url}/{path}/filter", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    named = {"name": {"any_": [config.stem]}}
    last = ask("flow_runs", flow_runs=named, sort="START_TIME_DESC")[0]
    mine = {"id": {"any_": [last["id"]]}}

    def recorded() -> list[tuple[str, str]] | None:
        runs = ask("task_runs", flow_runs=mine, sort="EXPECTED_START_TIME_ASC")
        ended = [run for run in runs if run["state_type"] in ("COMPLETED", "FAILED")]
        ended.sort(key=lambda run: run["start_time"])
        return [(r["name"], r["state_name"]) for r in ended] if len(ended) == tasks else None

    return Seen(last["state_name"], until(recorded))


def until(ask: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if (found := ask()) is not None:
            return found
        time.sleep(0.2)
    pytest.fail(f"not seen within {seconds} s")


NAMES = ["import vectors · fruit", "partition · graph.partition", "knn graph · graph"]


def test_a_run_shows_its_stages_as_tasks_and_its_results_as_artifacts(
    first: subprocess.CompletedProcess[str], api: PrivateApi, config: Path
) -> None:
    assert first.returncode == 0, first.stderr
    assert "400 rows, 2,000 edges in " in first.stdout
    assert "graph: 400 rows in " in first.stderr
    found = seen(api, config, tasks=3)
    assert found == Seen("Completed", [(name, "Completed") for name in NAMES])
    answer = httpx.post(f"{api.url}/artifacts/latest/filter", json={}, timeout=30).json()
    artifacts = {artifact["key"]: artifact for artifact in answer}
    assert artifacts["fruit-salad-metrics"]["type"] == "table"
    assert '"metric": "recall"' in artifacts["fruit-salad-metrics"]["data"]
    assert artifacts["fruit-salad-summary"]["type"] == "markdown"
    assert "2,000 edges" in artifacts["fruit-salad-summary"]["data"]


def test_a_second_run_is_answered_from_what_is_committed_and_only_from_that(
    first: subprocess.CompletedProcess[str], api: PrivateApi, config: Path
) -> None:
    assert first.returncode == 0, first.stderr
    again = run(config, environment=dict(api.environment))
    assert "nothing to do, already committed" in again.stdout
    assert seen(api, config, tasks=3).tasks == [(name, "Cached") for name in NAMES]

    place = config.parent / "store"
    fingerprint = open_store(place).dataset("fruit_salad.graph").fingerprint
    shutil.rmtree(place)  # Prefect's cache still says that all is done
    again = run(config, environment=dict(api.environment))
    assert "400 rows, 2,000 edges in " in again.stdout, again.stderr
    assert seen(api, config, tasks=3).tasks == [(name, "Completed") for name in NAMES]
    assert open_store(place).dataset("fruit_salad.graph").fingerprint == fingerprint


@pytest.mark.s3
def test_the_same_flow_on_s3_commits_the_same_fingerprint_and_a_second_run_does_nothing(
    first: subprocess.CompletedProcess[str], api: PrivateApi, config: Path, s3_uri: str
) -> None:
    assert first.returncode == 0, first.stderr
    environment = dict(api.environment)  # the server's credentials are in this process's own
    there = run(config, "--set", f"store={s3_uri}", environment=environment)
    assert there.returncode == 0, there.stderr
    again = run(config, "--set", f"store={s3_uri}", environment=environment)
    assert "nothing to do, already committed" in again.stdout, again.stderr
    here = open_store(config.parent / "store").dataset("fruit_salad.graph")
    assert open_store(s3_uri).dataset("fruit_salad.graph").fingerprint == here.fingerprint


def test_a_stage_that_fails_is_told_plainly_and_shows_as_failed(
    api: PrivateApi, config: Path
) -> None:
    failed = run(config, "--set", "steps.graph.k=400", environment=dict(api.environment))
    assert failed.returncode == 2
    assert "need at least 401 rows" in failed.stderr
    assert "Traceback" not in failed.stderr
    found = seen(api, config, tasks=3)
    assert found.state == "Failed"
    assert found.tasks[-1] == ("knn graph · graph", "Failed")


def test_a_wrong_config_is_told_before_anything_starts(config: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    wrong = run(config, "--set", "steps.graph.k=0", environment={"XDG_CACHE_HOME": str(cache)})
    assert wrong.returncode == 2
    assert "--set steps.graph.k: expected greater than or equal to 1, got 0" in wrong.stderr
    assert not cache.exists()


def test_without_a_server_a_private_one_starts_and_stops_quietly(
    api: PrivateApi, config: Path
) -> None:
    cache = api.home.parents[1]  # its home is taken: this run must do with a fresh one
    environment = {"XDG_CACHE_HOME": str(cache), "PREFECT_LOGGING_LEVEL": "INFO"}
    done = run(config, "--set", "steps.graph.k=4", environment=environment)
    assert done.returncode == 0, done.stderr
    assert "Prefect API up in " in done.stderr
    assert "400 rows, 1,600 edges in " in done.stdout
    assert not [line for line in done.stderr.splitlines() if "rror" in line or "Trace" in line]


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
