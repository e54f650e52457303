"""What a person may write for an engine, and what they are told otherwise."""

import os
import subprocess
import sys
import threading

import pytest

from simdist.engine import open_engine
from simdist.engine.local import LocalEngine
from simdist.engine.memory import format_nbytes, parse_nbytes
from simdist.engine.seconds import parse_seconds
from simdist.errors import ConfigError, EngineError


@pytest.mark.parametrize("spec", [None, "local", {"kind": "local"}, {}])
def test_local_is_the_default(spec):
    with open_engine(spec, workers=1) as engine:
        assert isinstance(engine, LocalEngine)
        assert (engine.kind, engine.workers, engine.memory) == ("local", 1, 2 << 30)


def test_a_mapping_overrides_the_options():
    spec = {"kind": "local", "workers": 3, "memory": "300MiB", "retries": 0}
    with open_engine(spec, workers=1, memory="1GiB") as engine:
        assert (engine.workers, engine.memory) == (3, 300 << 20)


def test_an_engine_is_passed_through_and_stays_open():
    with open_engine(workers=1) as engine:
        assert open_engine(engine) is engine
        assert engine.get(engine.submit(abs, -1, key="still-open"), timeout=60) == 1


def test_by_default_there_is_a_worker_per_cpu():
    with open_engine() as engine:
        assert engine.workers >= 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("spark", "engine is 'spark': expected 'local', 'dask', 'ray', an address"),
        ("http://there:80", "engine is 'http://there:80': expected"),
        ({"kind": "local", "adress": "x"}, "unknown key adress; known: kind, workers, address"),
        ({"kind": "local", "address": "tcp://h:1"}, "takes no address: 'tcp://h:1'"),
        ({"kind": "tcp://a:1", "address": "tcp://b:1"}, "two addresses, 'tcp://a:1' and"),
        ({"kind": "local", "workers": 0}, "engine.workers is 0: expected"),
        ({"kind": "local", "workers": "two"}, "engine.workers is 'two': expected a whole number"),
        ({"kind": "local", "retries": -1}, "engine.retries is -1: expected a whole number"),
        ({"kind": "local", "memory": "lots"}, "engine.memory is 'lots': expected a number with"),
        ({"kind": 3}, "engine is 3: expected"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_with_what_would(spec, message):
    with pytest.raises(ConfigError) as caught:
        open_engine(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "module", "extra"),
    [
        ("dask", "distributed", "dask"),
        ("tcp://scheduler:8786", "distributed", "dask"),
        ("tls://scheduler:8786", "distributed", "dask"),
        ("ray", "ray", "ray"),
        ("ray://head:10001", "ray", "ray"),
        ({"kind": "ray", "address": "auto"}, "ray", "ray"),
    ],
)
def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch, spec, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as caught:
        open_engine(spec)
    assert f"pip install 'simdist[{extra}]'" in str(caught.value)


def test_the_local_engine_imports_no_scheduler():
    code = (
        "import sys; from simdist.engine import open_engine\n"
        "with open_engine('local', workers=1) as e: e.get(e.submit(abs, -1, key='k'))\n"
        "heavy = {'dask', 'distributed', 'ray', 'numba', 'scipy', 'pyarrow'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("300MiB", 300 << 20), ("4GiB", 4 << 30), ("1.5 GiB", 3 << 29), ("2GB", 2 * 10**9), (7, 7)],
)
def test_memory_is_read_with_its_unit(text, nbytes):
    assert parse_nbytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "GiB", "4", "-1GiB", "0B", 0, True, None, "4 apples"])
def test_memory_without_number_or_unit_is_refused(text):
    with pytest.raises(ConfigError, match="memory is"):
        parse_nbytes(text)


def test_memory_is_written_for_people():
    written = [format_nbytes(n) for n in (0, 1023, 1536, 300 << 20, 4 << 30, 5 << 40)]
    assert written == ["0 B", "1023 B", "1.5 KiB", "300 MiB", "4.0 GiB", "5.0 TiB"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1.5 m", 90), ("1h", 3600), ("2d", 172800), (5, 5), (0.5, 0.5)],
)
def test_time_spans_are_read_with_their_unit(text, seconds):
    assert parse_seconds(text, what="it") == seconds


@pytest.mark.parametrize("text", ["", "h", "1", "-1s", "0s", 0, True, None, float("inf"), "1 week"])
def test_time_spans_without_number_or_unit_are_refused(text):
    with pytest.raises(ConfigError, match="it is"):
        parse_seconds(text, what="it")


def test_a_wait_that_was_told_no_timeout_takes_the_engines():
    gate = threading.Event()
    with open_engine({"kind": "local", "workers": 1, "timeout": 0.1}) as engine:
        ref = engine.submit(gate.wait, 60, key="stuck")
        with pytest.raises(EngineError, match=r"none of 1 tasks \(stuck\) ended within 0.1 s on"):
            engine.get(ref)
        with pytest.raises(EngineError, match=r"raise engine\.timeout"):
            list(engine.as_completed([ref]))
        gate.set()
        assert engine.get(ref, timeout=60)


SECRET = "-----BEGIN PRIVATE KEY-----\ncanary"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"address": "tls://h:1", "tls": SECRET}, "engine.tls: expected {ca: FILE, cert: FILE"),
        ({"address": "tls://h:1", "tls": {"ca": "x"}}, "engine.tls: expected {ca: FILE, cert"),
        (
            {"address": "tls://h:1", "tls": {"ca": os.devnull, "cert": os.devnull, "key": SECRET}},
            "engine.tls.key: expected the path of a file, never what is in it",
        ),
        (
            {"address": "tls://h:1", "tls": {"ca": "/no/ca.pem", "cert": "c", "key": "k"}},
            "engine.tls.ca: cannot read '/no/ca.pem': No such file",
        ),
        (
            {"address": "tcp://h:1", "tls": {"ca": "a", "cert": "c", "key": "k"}},
            "engine.tls is for a Dask scheduler at tls://",
        ),
        ({"address": "ray://h:1", "token": SECRET}, "engine.token: expected {path: FILE}"),
        ({"address": "ray://h:1", "token": {"path": "/no/t"}}, "cannot read '/no/t': No such"),
        ({"address": "ray://h:1", "token": {"path": os.devnull}}, "is empty: expected the cl"),
        ({"kind": "ray", "token": {"path": "t"}}, "engine.token is for a Ray cluster at an addr"),
    ],
)
def test_credentials_are_files_and_errors_never_show_what_was_written(spec, message):
    with pytest.raises(ConfigError) as caught:
        open_engine(spec)
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)
