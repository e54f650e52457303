"""A Ray cluster of somebody else's, behind a token: the flow as a Ray job, ray://, its end.

Drivers are processes of their own: this one has the Ray of the other tests.
"""

import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from clusters.flows import WAIT, committed, finish, simdist, write_flow
from clusters.servers import RayHead, environment, other_numpy, ray_head

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[2] / "deploy"

CONNECT = """
import json, sys
from simdist.engine import open_engine
with open_engine(json.loads(sys.argv[1])) as engine:
    print(engine.get(engine.submit(abs, -3, key="three"), timeout=100))
"""

WAITING = """
import json, sys, time
from simdist.engine import open_engine
with open_engine(json.loads(sys.argv[1])) as engine:
    stuck = engine.submit(time.sleep, 600, key="stuck")
    print("waits", flush=True)
    list(engine.as_completed([stuck]))
"""


@pytest.fixture(scope="module")
def head():
    with tempfile.TemporaryDirectory(prefix="sd-", dir="/tmp") as folder:  # short: sockets
        token = Path(folder, "token")
        token.write_text(secrets.token_hex(32))
        env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        with ray_head(Path(folder), env=env) as head:
            yield head


def test_the_flow_as_a_ray_job_commits_what_local_commits(head, tmp_path, expected):
    flow = write_flow(tmp_path / "flow", {"kind": "local"})
    job = [sys.executable, "-m", "simdist", "run", flow.name, "--engine", "ray://auto"]
    submit = ["-m", "ray.scripts.scripts", "job", "submit", "--address", head.jobs]
    submit += ["--working-dir", str(flow.parent), "--runtime-env", str(DEPLOY / "ray-job.yaml")]
    submit += ["--", *job]
    run = _submitted([sys.executable, *submit], head)
    assert run.returncode == 0, run.stdout + run.stderr
    assert committed(flow) == expected


def test_the_flow_through_rays_client_commits_what_local_commits(head, tmp_path, expected):
    engine = {"address": head.client, "token": {"path": head.env["RAY_AUTH_TOKEN_PATH"]}}
    flow = write_flow(tmp_path / "flow", engine)
    run = simdist("run", flow)
    assert run.returncode == 0, run.stderr
    assert committed(flow) == expected


@pytest.mark.chaos
def test_who_has_another_token_is_refused_and_no_token_is_told(head, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text(secrets.token_hex(32))
    run = _connect({"kind": "ray", "address": head.address, "token": {"path": str(wrong)}})
    assert "EngineError: no Ray cluster could be joined at 127.0.0.1:" in run.stderr
    assert "engine.token" in run.stderr
    for path in (wrong, Path(head.env["RAY_AUTH_TOKEN_PATH"])):
        assert path.read_text() not in run.stdout + run.stderr


def test_a_driver_with_other_versions_than_the_nodes_is_refused_with_a_table(head, tmp_path):
    spec = {"kind": "ray", "address": head.address}
    run = _connect(spec, env={**head.env, **other_numpy(tmp_path)})
    assert "EngineError: 1 of 1 workers have other versions than this process" in run.stderr
    assert "9.9.9" in run.stderr


@pytest.mark.chaos
def test_drivers_that_wait_for_a_head_that_is_gone_are_told_soon(head):
    spec = {"kind": "ray", "wait_for_workers": "3s"}
    drivers = [_waiting(spec | {"address": at}, head) for at in (head.address, head.client)]
    for driver in drivers:
        assert driver.stdout.readline() == "waits\n", driver.stderr.read()
    head.server.kill()
    for driver, told in zip(drivers, ("is gone: nobody has listened", "is "), strict=True):
        _, said = driver.communicate(timeout=WAIT)
        assert driver.returncode == 1, said
        assert f"EngineError: {told}" in said or f" {told}" in said


def _submitted(command, head):
    """The head takes jobs some seconds before it has an agent that could run them."""
    deadline = time.monotonic() + WAIT
    while True:
        run = finish(command, head.env)
        if "No available agent" not in run.stderr or time.monotonic() > deadline:
            return run


def _connect(spec, env=()):
    return finish([sys.executable, "-c", CONNECT, json.dumps(spec)], dict(env))


def _waiting(spec: dict[str, object], head: RayHead) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WAITING, json.dumps(spec)],
        env={**environment(), **head.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
