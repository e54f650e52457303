"""Dask and Ray as neighbours: addresses, versions, what they listen on, what they leave behind."""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask.config
import numpy as np
import psutil
import pytest

from simdist.engine import open_engine
from simdist.engine.versions import probe, refuse_differences
from simdist.errors import ConfigError, EngineError

WAIT = 60.0

# Own Rays choose their own token, as a user's would.
TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")

LIFE = """
import json, os, signal, sys
import numpy as np, psutil
from simdist.engine import open_engine

def listening(processes):
    return sorted({c.laddr.ip for p in processes for c in p.net_connections("inet")
                   if c.status == psutil.CONN_LISTEN})

if __name__ == "__main__":
    me = psutil.Process()
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    engine = open_engine(sys.argv[1], workers=2)
    during = me.children(recursive=True)
    heard = listening([me, *during])
    assert engine.get(engine.submit(np.sum, engine.put(np.arange(4)), key="sum"), timeout=60) == 6
    engine.close()
    engine.close()
    left = [" ".join(p.cmdline()) for p in me.children(recursive=True)]
    again = open_engine(sys.argv[1], workers=1)
    second = again.get(again.submit(abs, -2, key="second"), timeout=60)
    again.close()
    print(json.dumps({
        "during": len(during), "heard": heard, "second": second,
        "left": [c for c in left if "resource_tracker" not in c],  # Python's own, for its life
        "environ": sorted(k for k in os.environ if os.environ[k] != before[0].get(k)),
        "sigterm": signal.getsignal(signal.SIGTERM) == before[1],
    }))
"""

FOREVER = """
import sys, time
from simdist.engine import Call, map_window, open_engine

if __name__ == "__main__":
    with open_engine(sys.argv[1], workers=2) as engine:
        calls = (Call(f"call-{n}", time.sleep, (0.2,)) for n in range(10_000))
        for key, _ in map_window(engine, calls, timeout=60):
            print(key, flush=True)
"""


@pytest.fixture
def script(tmp_path):
    def write(text):
        path = tmp_path / "script.py"
        path.write_text(text)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        return {"args": [sys.executable, "-W", "error", str(path)], "env": environment}

    return write


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "dask", "ray"])
def test_a_closed_engine_leaves_nothing_behind_and_can_be_opened_again(
    script, kind, monkeypatch, tmp_path
):
    for name in TOKEN:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with tempfile.TemporaryDirectory(prefix="sd-") as folder:  # short: Ray puts sockets there
        how = script(LIFE)
        run = _run(how | {"env": how["env"] | {"TMPDIR": folder}}, kind)
        left = sorted(path.name for path in Path(folder).iterdir())
    assert run.returncode == 0, run.stderr
    assert left == []
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["left"] == []
    assert told["second"] == 2
    assert told["sigterm"]
    # No thread counts and no path: only what Ray, Dask and threadpoolctl keep there.
    theirs = ("RAY_", "PYTHONBREAKPOINT", "__DASK_PARENT_PID", "KMP_DUPLICATE_LIB_OK")
    assert [name for name in told["environ"] if not name.startswith(theirs)] == []
    assert set(told["heard"]) <= {"127.0.0.1", "::ffff:127.0.0.1"}
    if kind != "local":
        assert told["during"] >= 2
        assert told["heard"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_ctrl_c_ends_the_run_and_its_workers_without_a_word_from_them(script, kind):
    how = script(FOREVER)
    process = subprocess.Popen(
        [*how["args"], kind],
        env=how["env"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal does: the whole group gets the signal
    )
    try:
        assert process.stdout.readline().startswith("call-")
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert process.returncode in (-signal.SIGINT, 1)
    assert told.count("Traceback") == 1  # the driver's own
    assert psutil.wait_procs(children, timeout=WAIT)[1] == []


def test_an_engine_at_an_address_uses_the_cluster_and_leaves_it_running(dask_engine):
    with open_engine(dask_engine.where) as guest:
        assert (guest.kind, guest.workers, guest.where) == ("dask", 2, dask_engine.where)
        assert guest.get(guest.submit(np.sum, guest.put(np.arange(4)), key="s"), timeout=WAIT) == 6
    assert dask_engine.get(dask_engine.submit(abs, -1, key="after"), timeout=WAIT) == 1


@pytest.mark.slow
def test_another_process_joins_a_ray_cluster_by_its_address(ray_engine, script):
    import ray

    how = script(
        "import sys\nfrom simdist.engine import open_engine\n"
        "with open_engine({'kind': 'ray', 'address': sys.argv[1]}) as engine:\n"
        "    print(engine.workers, engine.get(engine.submit(abs, -3, key='three'), timeout=60))\n"
    )
    address = ray.get_runtime_context().gcs_address
    run = _run(how, address)
    assert run.stdout.split() == ["2", "3"], run.stderr
    assert ray_engine.get(ray_engine.submit(abs, -1, key="after"), timeout=WAIT) == 1


def test_a_process_has_one_ray_and_says_so(ray_engine):
    with pytest.raises(EngineError, match="Ray is already connected in this process"):
        open_engine("ray")
    with open_engine({"kind": "ray", "address": "auto"}) as guest:
        assert guest.get(guest.submit(abs, -2, key="guest"), timeout=WAIT) == 2
    assert ray_engine.get(ray_engine.submit(abs, -1, key="after"), timeout=WAIT) == 1


def test_an_address_where_nobody_answers_is_named(monkeypatch):
    monkeypatch.setattr("simdist.engine.dask.START_SECONDS", 0.5)
    with pytest.raises(
        EngineError, match=r"no Dask scheduler could be joined at tcp://127.0.0.1:9: .*Timed out"
    ):
        open_engine("tcp://127.0.0.1:9")


def test_a_ray_address_where_nobody_answers_is_named_at_once(script):
    how = script(
        "import sys\nfrom simdist.engine import open_engine\n"
        "open_engine({'kind': 'ray', 'address': sys.argv[1]})\n"
    )
    run = _run(how, "127.0.0.1:9")
    assert "EngineError: no Ray cluster could be joined at 127.0.0.1:9" in run.stderr


def test_other_versions_on_the_workers_are_refused_with_a_table():
    here = {"python": "3.11", "simdist": "0.1.0", "numpy": "2.4.6"}
    other = {"python": "3.12", "simdist": "0.1.0", "numpy": "2.3.0"}
    with pytest.raises(EngineError) as caught:
        refuse_differences(here, {"tcp://a:1": here, "tcp://b:2": other})
    table = [line.split() for line in str(caught.value).splitlines()[1:4]]
    assert table == [
        ["python", "simdist", "numpy"],
        ["this", "process", "3.11", "0.1.0", "2.4.6"],
        ["tcp://b:2", "3.12", "0.1.0", "2.3.0"],
    ]
    assert "1 of 2 workers" in str(caught.value)


def test_equal_versions_pass(tmp_path):
    versions, sees = probe(str(tmp_path))()
    assert sees
    assert versions["numpy"] == np.__version__
    refuse_differences(versions, {"tcp://a:1": dict(versions)})


def test_dask_forgets_a_result_when_its_ref_goes(dask_engine):
    ref = dask_engine.submit(abs, -1, key="forget-me")
    dask_engine.get(ref, timeout=WAIT)
    assert _keys(dask_engine, "forget-me")
    del ref
    gc.collect()
    deadline = time.monotonic() + WAIT
    while _keys(dask_engine, "forget-me"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_dask_settings_last_as_long_as_the_engine():
    before = dask.config.get("distributed.deploy.lost-worker-timeout")
    with open_engine({"kind": "dask", "workers": 1, "wait_for_workers": "90s"}) as engine:
        scheduler = {
            name: dask.config.get(f"distributed.scheduler.{name}")
            for name in ("no-workers-timeout", "allowed-failures")
        }
        assert scheduler == {"no-workers-timeout": "90.0s", "allowed-failures": 10}
        assert dask.config.get("distributed.deploy.lost-worker-timeout") == "1h"
        assert engine.workers == 1
    assert dask.config.get("distributed.deploy.lost-worker-timeout") == before
    with pytest.raises(EngineError, match="is closed"):
        engine.submit(abs, -1, key="late")


def test_workers_that_see_other_files_need_a_store_for_what_is_put(dask_engine, monkeypatch):
    monkeypatch.setattr(dask_engine, "_scratch", None)
    with pytest.raises(ConfigError, match=r"scratch=store.scratch\(\)"):
        dask_engine.put(np.arange(3))


def _run(how, argument):
    return subprocess.run(
        [*how["args"], argument],
        env=how["env"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,  # what it said on stderr belongs into the assertion
    )


def _keys(engine, name):
    return engine._client.run_on_scheduler(_scheduler_keys, name)


def _scheduler_keys(name, dask_scheduler):
    return [key for key in dask_scheduler.tasks if key.startswith(name)]
