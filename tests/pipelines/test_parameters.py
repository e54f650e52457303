"""What a run's parameters name: a store and an engine by variable, keys by block, patience."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clusters.servers import environment
from flow_runs import Runs, salad, slow_salad
from s3_server import S3Server

from pipelines.server import PrivateApi
from simdist.store import Store, open_store

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.s3, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def lake(s3_server: S3Server) -> Store:
    """An unused store on S3, opened with its keys."""
    return open_store(
        s3_server.new_uri(),
        endpoint=s3_server.endpoint,
        region="us-east-1",
        access_key_id=s3_server.access_key,
        secret_access_key=s3_server.secret_key,
    )


@pytest.fixture(scope="module")
def told(
    api: PrivateApi, s3_server: S3Server, lake: Store, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """What `flow_parameters` printed, a line a run, and what went to stderr last."""
    folder = tmp_path_factory.mktemp("parameters")
    given = {
        "endpoint": s3_server.endpoint,
        "keys": {
            "aws_access_key_id": s3_server.access_key,
            "aws_secret_access_key": s3_server.secret_key,
            "region_name": "us-east-1",
        },
        "uri": lake.uri,
        "config": str(salad(folder / "by-block", name="by_block")),
        # A block outlasts the stage's three seconds; a local engine waits for it to end.
        "late": str(slow_salad(folder / "late", name="late", how="seconds: 6")),
    }
    kept = {name: value for name, value in environment().items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "flow_parameters.py")],
        cwd=ROOT,
        env={**kept, **api.environment, "GIVEN": json.dumps(given)},
        check=False,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return [*done.stdout.splitlines(), done.stderr]


def test_keys_from_a_block_open_the_store_that_a_variable_names(
    told: list[str], lake: Store
) -> None:
    assert json.loads(told[0]) == {"store": lake.uri}, told[-1]
    assert lake.dataset("by_block.graph").rows == 400


def test_the_keys_show_nowhere(told: list[str], api: PrivateApi, s3_server: S3Server) -> None:
    seen = Runs(api.url).everything() + "\n".join(told)
    assert "aws-credentials/lake" in seen
    assert s3_server.secret_key not in seen
    assert s3_server.access_key not in seen


def test_a_block_or_variable_that_is_not_there_is_told(told: list[str]) -> None:
    block, variable = json.loads(told[1]), json.loads(told[2])
    assert block["error"] == variable["error"] == "ConfigError"
    assert "there is no block aws-credentials/sea" in block["message"]
    assert "there is no Prefect variable 'none'" in variable["message"]
    assert "prefect variable set none" in variable["message"]


def test_a_stage_that_takes_too_long_is_stopped_and_says_so(
    told: list[str], api: PrivateApi
) -> None:
    assert json.loads(told[3])["error"] == "TaskRunTimeoutError", told[-1]
    runs = Runs(api.url)
    run: Any = runs.run(runs.last("late"))
    assert run["state_name"] == "Failed"
    assert "The stage took longer than stages.timeout_seconds = 3" in run["state"]["message"]
    assert runs.tasks(run["id"], number=3)[-1]["state_name"] == "TimedOut"
    assert "give the stages longer" in runs.artifacts(run["id"])["late-what-next"]["data"]
