"""deploy/prefect.yaml on a real server: a process worker, two runs at once, one cancelled."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters.servers import Server, environment, free_ports, start
from flow_runs import Runs, salad, slow_salad, until
from slow_measure import blocks

from pipelines.server import PrivateApi

ROOT = Path(__file__).parents[2]
MARK = "SIMDIST_TEST_RUN"  # in the environment of all that a test starts
ONCE = {"retries": 0}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Site:
    """A server with deploy/prefect.yaml deployed, and a process worker. mark: of its processes."""

    runs: Runs
    deployment: str
    worker: Server
    env: Mapping[str, str]

    def trigger(self, config: Path, **parameters: Any) -> str:
        """Ask for a run, as `prefect deployment run` does; its id."""
        given = {"config": str(config), **parameters}
        path = f"deployments/{self.deployment}/create_flow_run"
        asked = self.runs.ask(path, parameters=given, state={"type": "SCHEDULED"})
        return str(asked["id"])

    def cancel(self, run: str) -> None:
        self.runs.ask(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})

    def ended(self, run: str) -> Any:
        return self.runs.ended(run, said=self.worker.said())

    def processes(self, word: str) -> list[str]:
        """Command lines with that word among all that was started here, and by it."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.env[MARK]:
                    found.append(" ".join(process.cmdline()))
        return [line for line in found if word in line]


@pytest.fixture(scope="module")
def site(api: PrivateApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """By the commands at the top of deploy/prefect.yaml."""
    env = {**api.environment, "PREFECT_WORKER_QUERY_SECONDS": "1", MARK: uuid.uuid4().hex}
    prefect(env, "work-pool", "create", "simdist", "--type", "process")
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "simdist"]
    worker = start(command, log, env)
    try:
        prefect(env, "--no-prompt", "deploy", "--prefect-file", "deploy/prefect.yaml", "--all")
        runs = Runs(api.url)
        found = runs.get("deployments/name/simdist-flow/nightly")
        yield Site(runs, found["id"], worker, env)
    finally:
        worker.kill()  # it would wait ten seconds for runs that have ended
        worker.stop()


@pytest.fixture(scope="module")
def dask(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Dask scheduler with three workers, all started by their command lines."""
    folder = tmp_path_factory.mktemp("dask")
    address = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    run = [sys.executable, "-m"]
    listens = ["--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard"]
    works = ["--nworkers", "3", "--nthreads", "1", "--no-dashboard"]
    with ExitStack() as stack:
        for module, words in (("scheduler", listens), ("worker", [address, *works])):
            command = [*run, f"distributed.cli.dask_{module}", *words]
            stack.callback(start(command, folder / f"{module}.log", site.env).stop)
        yield address


def prefect(env: Mapping[str, str], *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *words],
        cwd=ROOT,
        env={**environment(), **env},
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Night:
    """Two runs on one Dask cluster: the night's, cancelled, and another; then the next night's.

    doomed, following: the runs, when they had ended. shown: the doomed one's progress while it ran.
    held: the following run's state while the doomed one ran. begun: blocks of the doomed run, when
    it had ended, and when the other had.
    """

    doomed: Any
    shown: Any
    begun: tuple[int, int]
    other: subprocess.CompletedProcess[str]
    held: str
    following: Any


@pytest.fixture(scope="module")
def night(site: Site, dask: str, tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder = tmp_path_factory.mktemp("night")
    runs = site.runs
    doomed, lasting = folder / "doomed", folder / "lasting"
    first = slow_salad(doomed, name="doomed", how="seconds: 2", rows=6000)
    other = slow_salad(lasting, name="lasting", how="seconds: 600", graph=", method: exact")
    next_one = slow_salad(folder / "next", name="next_night", how="stumbles: true")
    command = [sys.executable, "-m", "pipelines", str(other), "--set", f"engine={dask}"]
    env = {**environment(), **site.env}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            run = site.trigger(first, engine=dask, stages=ONCE)
            until(lambda: blocks(lasting) or None, said=site.worker.said())
            until(lambda: blocks(doomed) >= 3 or None, said=site.worker.said())
            again = {"retries": 1, "retry_delay_seconds": 0}
            following = site.trigger(next_one, stages=again)
            waits = "AwaitingConcurrencySlot"
            held = until(lambda: name if (name := state_of(runs, following)) == waits else None)
            shown = runs.artifacts(run)["doomed-graph-progress"]
            site.cancel(run)
            ended = site.ended(run)
            begun = blocks(doomed)
            (lasting / "go").touch()
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        counted = (begun, blocks(doomed))
    return Night(ended, shown, counted, done, held, site.ended(following))


def state_of(runs: Runs, run: str) -> str:
    return str(runs.run(run)["state_name"])


def test_the_nightly_schedule_has_a_time_zone_and_two_nights_never_overlap(site: Site) -> None:
    found = site.runs.get(f"deployments/{site.deployment}")
    schedule = found["schedules"][0]
    assert schedule["active"]
    assert schedule["schedule"]["cron"] == "30 1 * * *"
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["work_pool_name"] == "simdist"
    assert set(found["tags"]) == {"simdist", "nightly"}


def test_a_cancelled_run_stops_its_own_tasks_on_dask_and_nobody_elses(
    site: Site, night: Night
) -> None:
    assert night.doomed["state_name"] == "Cancelled", site.worker.said()
    at_end, later = night.begun
    assert later <= at_end + 3  # each of three workers may have been between two blocks
    assert later < 150  # of some 185 that the whole run has: two minutes of them
    assert night.other.returncode == 0, night.other.stderr
    assert "400 rows, 2,000 edges in " in night.other.stdout


def test_a_run_shows_how_far_it_is_and_a_cancelled_one_what_to_do_next(
    site: Site, night: Night
) -> None:
    assert night.shown["type"] == "progress"
    assert 0 <= night.shown["data"] < 100
    assert "leaves-0: " in night.shown["description"]
    left = site.runs.artifacts(night.doomed["id"])
    assert left["doomed-graph-progress"]["description"].startswith("stopped at leaves-0: ")
    page = left["doomed-what-next"]["data"]
    assert page.startswith("# doomed was stopped at `graph`")
    assert "2 of 3 steps committed" in page
    assert "prefect deployment run simdist-flow/nightly" in page


def test_the_next_night_waits_its_turn_and_gets_over_a_broken_connection(
    site: Site, night: Night
) -> None:
    assert night.held == "AwaitingConcurrencySlot"
    run = night.following
    assert run["state_name"] == "Completed", run["state"]["message"]
    assert {"simdist", "nightly", "flow:next_night", "engine:local"} <= set(run["tags"])
    graph = site.runs.tasks(run["id"], number=3)[-1]
    assert graph["run_count"] == 2, site.worker.said()
    assert "stage:knn_graph" in graph["tags"]
    left = site.runs.artifacts(run["id"])
    assert left["next-night-graph-progress"]["data"] == 100
    assert '"metric": "recall"' in left["next-night-metrics"]["data"]
    assert "2,000 edges" in left["next-night-summary"]["data"]
    assert "next-night-what-next" not in left


@pytest.fixture(scope="module")
def crowded(site: Site, night: Night) -> Site:
    """The site, once the night's own limit is lifted: runs go side by side."""
    site.runs.send("PATCH", f"deployments/{site.deployment}", {"concurrency_limit": 5})
    return site


def test_a_failed_run_says_what_happened_what_stands_and_what_to_do(
    crowded: Site, tmp_path: Path
) -> None:
    site, beyond = crowded, salad(tmp_path / "beyond", name="beyond")
    run = site.ended(site.trigger(beyond, overrides=["steps.graph.k=400"]))
    assert run["state_name"] == "Failed"
    message = run["state"]["message"]
    assert message.startswith("graph: InputError: k=400 neighbours need at least 401 rows")
    assert message.endswith("the same run would fail again (exit code 2).")
    graph = site.runs.tasks(run["id"], number=3)[-1]
    assert (graph["state_name"], graph["run_count"]) == ("Failed", 1)  # not worth a second try
    page = site.runs.artifacts(run["id"])["beyond-what-next"]["data"]
    assert "# beyond failed at `graph`" in page
    assert "> InputError: k=400 neighbours need at least 401 rows" in page
    assert "2 of 3 steps committed" in page
    assert "steps.graph.k=400" in page.partition("prefect deployment run")[2]


@pytest.mark.chaos
def test_a_cancelled_run_takes_its_own_ray_along(crowded: Site, tmp_path: Path) -> None:
    site, folder = crowded, tmp_path / "ray"
    slow = slow_salad(folder, name="on_ray", how="seconds: 2", rows=2000)
    often = {"retries": 3, "retry_delay_seconds": 0}  # Ray gives up early on a busy machine
    run = site.trigger(slow, engine={"kind": "ray", "workers": 2}, stages=often)
    until(lambda: blocks(folder) or None, said=site.worker.said())
    assert site.processes("raylet")
    site.cancel(run)
    assert site.ended(run)["state_name"] == "Cancelled", site.worker.said()
    until(lambda: True if not site.processes("raylet") else None)
    page = site.runs.artifacts(run)["on-ray-what-next"]["data"]
    assert page.startswith("# on_ray was stopped at `graph`")
    assert blocks(folder) < 40  # of 59
