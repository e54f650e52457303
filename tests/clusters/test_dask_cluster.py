"""A Dask scheduler and workers of somebody else's: their own command lines, TLS, deaths, guests."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from clusters.flows import committed, simdist, write_flow
from clusters.servers import (
    DaskCluster,
    certificates,
    dask_cluster,
    dask_workers,
    other_numpy,
    wait_until,
)

from simdist.engine import open_engine
from simdist.errors import ConfigError, EngineError, TaskFailed

WAIT = 120.0


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A cluster that speaks TLS only."""
    folder = tmp_path_factory.mktemp("secured")
    with dask_cluster(folder, files=certificates(folder / "certificates")) as cluster:
        yield cluster


@pytest.fixture
def cluster(tmp_path):
    """A cluster to be killed."""
    with dask_cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr("simdist.engine.waiting.LOOK_SECONDS", 0.2)


@pytest.mark.slow
def test_the_flow_on_a_scheduler_with_tls_commits_what_local_commits(secured, tmp_path, expected):
    engine = {"kind": "dask", "address": secured.address, "tls": secured.files, "timeout": "10m"}
    flow = write_flow(tmp_path / "flow", engine)
    run = simdist("run", flow)
    assert run.returncode == 0, run.stderr
    assert committed(flow) == expected


def test_certificates_in_dasks_own_configuration_do_as_well(secured, monkeypatch):
    import dask.config

    names = {"ca-file": "ca", "client.cert": "cert", "client.key": "key"}
    settings = {f"distributed.comm.tls.{name}": secured.files[key] for name, key in names.items()}
    with dask.config.set(settings), open_engine(secured.address) as engine:
        assert engine.get(engine.submit(abs, -1, key="one"), timeout=WAIT) == 1


def test_who_has_other_certificates_or_none_is_refused_at_once(secured, tmp_path):
    other = certificates(tmp_path / "other")
    with pytest.raises(EngineError, match="TLS certificate does not match") as caught:
        open_engine({"address": secured.address, "tls": other})
    assert "PRIVATE" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"tls://.* needs certificates: give engine.tls"):
        open_engine(secured.address)
    with pytest.raises(
        EngineError, match=r"no Dask scheduler could be joined at tcp://.*engine.tls"
    ):
        open_engine(secured.address.replace("tls://", "tcp://"))


def test_a_guest_leaves_no_plugins_for_workers_to_come(secured):
    from distributed import Client, Security

    names = {"tls_ca_file": "ca", "tls_client_cert": "cert", "tls_client_key": "key"}
    security = Security(**{name: secured.files[key] for name, key in names.items()})
    with Client(secured.address, security=security, set_as_default=False) as client:
        before = client.run_on_scheduler(_plugins)
        with open_engine({"address": secured.address, "tls": secured.files}) as engine:
            engine.warm("colorsys")
            during = client.run_on_scheduler(_plugins)
        assert client.run_on_scheduler(_plugins) == before
    assert len(during) == len(before) + 2


@pytest.mark.slow
def test_workers_come_and_go_and_those_with_other_versions_do_no_work(cluster, tmp_path):
    with open_engine({"address": cluster.address, "wait_for_workers": "2m"}) as engine:
        assert engine.slots() == 2
        cluster.workers.kill()
        with _workers_of(cluster, tmp_path / "new", number=3):
            wait_until(lambda: engine.slots() == 3, what="the new workers did not show")
            assert engine.get(engine.submit(abs, -1, key="one"), timeout=WAIT) == 1
        with _workers_of(cluster, tmp_path / "odd", number=1, env=other_numpy(tmp_path)):
            with pytest.raises(TaskFailed, match="joined later has other versions") as late:
                engine.get(engine.submit(abs, -1, key="late"), timeout=WAIT)
            with (
                pytest.warns(Warning, match="Mismatched versions found"),  # Dask's own
                pytest.raises(EngineError, match="1 of 1 workers have other versions") as first,
            ):
                open_engine(cluster.address)
    for told in (str(late.value.cause), str(first.value)):
        assert "9.9.9" in told
    assert isinstance(late.value.cause, EngineError)


@pytest.mark.slow
def test_a_cluster_without_workers_and_one_without_a_scheduler_end_the_wait(cluster):
    spec = {"address": cluster.address, "wait_for_workers": "3s"}
    with open_engine({**spec, "wait_for_workers": "2m"}) as engine:
        with open_engine(spec) as guest:
            stuck = guest.submit(time.sleep, 600, key="stuck")
            threading.Timer(1.0, cluster.workers.kill).start()
            with pytest.raises(EngineError, match="has had no workers that take tasks for 3 s"):
                guest.get(stuck, timeout=WAIT)
            with pytest.raises(EngineError, match="had no 1 workers within 3 s: start workers"):
                open_engine(spec)
        stuck = engine.submit(time.sleep, 600, key="stuck")
        threading.Timer(1.0, cluster.scheduler.kill).start()
        with pytest.raises(EngineError, match=r"stuck: the connection to tcp://.* is lost. Run ag"):
            engine.get(stuck, timeout=WAIT)


@pytest.mark.slow
def test_a_run_whose_workers_are_all_killed_ends_with_code_3_and_goes_on_later(
    cluster, tmp_path, expected
):
    engine = {"kind": "dask", "address": cluster.address, "wait_for_workers": "3s"}
    flow = write_flow(tmp_path / "flow", engine)
    killed = threading.Thread(target=_kill_when, args=(cluster, tmp_path / "flow/store/records"))
    killed.start()
    run = simdist("run", flow)
    killed.join()
    assert run.returncode == 3, run.stderr
    assert "has had no workers that take tasks for 3 s" in " ".join(run.stderr.split())
    with _workers_of(cluster, tmp_path / "new", number=2):
        run = simdist("run", flow, "--set", "engine.wait_for_workers=2m")
    assert run.returncode == 0, run.stderr
    assert committed(flow) == expected


@pytest.mark.slow
def test_workers_that_stand_still_are_given_up_on(cluster):
    with open_engine({"address": cluster.address, "timeout": "2s"}) as engine:
        engine.get(engine.submit(abs, -1, key="one"), timeout=WAIT)
        pids = cluster.workers.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(EngineError, match=r"\(stuck\) ended within 2 s .*engine.timeout"):
                engine.get(engine.submit(abs, -1, key="stuck"))
        finally:
            cluster.workers.kill()


def test_an_own_cluster_keeps_its_workers_through_many_deaths():
    with open_engine("dask", workers=2) as engine:
        for death in range(6):
            pid = engine.get(engine.submit(os.getpid, key=f"who-{death}"), timeout=WAIT)
            os.kill(pid, signal.SIGKILL)
        pids = {engine.get(engine.submit(os.getpid, key=f"s-{n}"), timeout=WAIT) for n in range(20)}
        wait_until(lambda: engine._look() == 2, what="a worker did not come back")
        assert pids
        assert "threadpoolctl" in engine.get(engine.submit(_loaded, key="warm"), timeout=WAIT)


def _workers_of(cluster: DaskCluster, folder: Path, **how):
    folder.mkdir()
    return dask_workers(cluster.address, folder, **how)


def _kill_when(cluster: DaskCluster, records: Path) -> None:
    wait_until(lambda: len(list(records.glob("*/*"))) > 3, what="no records came")
    cluster.workers.kill()


def _loaded() -> list[str]:
    return sorted(sys.modules)


def _plugins(dask_scheduler) -> list[str]:
    return sorted(dask_scheduler.worker_plugins)
