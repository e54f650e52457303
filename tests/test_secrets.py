"""A canary in every credential a user can give: it sings nowhere.

Successful runs use the real keys of the test server as the canary, failing ones a made-up secret.
Everything that comes out is searched: both streams, log records, errors with their frames' locals,
every object of the store, and the names that a scheduler sees.
"""

from __future__ import annotations

import logging
import os
import pickle
import traceback
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from pprint import pformat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import BUCKET, S3Server
from typer.testing import CliRunner

import simdist as sd
from simdist.cli.app import app
from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, SimdistError, StoreError, TaskFailed
from simdist.store import Store, open_store
from simdist.store.place import Secret

KEY, SECRET, TOKEN = "AKIACANARYKEY0000000", "canary/Secret+Of/40=Signs", "canary-session-token"
CANARIES = (KEY, SECRET, TOKEN)
FLOW = """\
name: fruit
store: {store}
engine: {{kind: local, workers: 2}}
inputs:
  fruit: {{path: "{path}", id: name, vector: embedding}}
steps:
  graph: {{stage: knn_graph, of: fruit, k: 5, recall: 0.9}}
"""


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings; files that do not exist yet."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    flat = pa.array(np.random.default_rng(7).standard_normal(300 * 8).astype(np.float32))
    names = [f"fruit-{row}" for row in range(300)]
    table = pa.table({"name": names, "embedding": pa.FixedSizeListArray.from_arrays(flat, 8)})
    pq.write_table(table, tmp_path / "fruit.parquet")
    return tmp_path / "fruit.yaml"


def silent(told: Mapping[str, str | bytes], canaries: Iterable[str] = CANARIES) -> None:
    """No canary, plain or url-quoted, in anything that was told."""
    from urllib.parse import quote

    for canary in canaries:
        for form in {canary, quote(canary, safe=""), quote(canary)}:
            for where, text in told.items():
                data = text if isinstance(text, bytes) else text.encode()
                assert form.encode() not in data, f"a canary in {where}"


def objects_of(store: Store) -> dict[str, bytes]:
    return {info.key: store.objects.get(info.key) for info in store.objects.list("")}


def story(error: BaseException) -> str:
    """All that an error can tell: words, notes, the frames of this package with their locals."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if "tests" not in frame.filename]
    )
    pickled = "".join(traceback.format_exception(pickle.loads(pickle.dumps(error))))
    return "".join([*shown.format(), repr(error), pickled])


def commands(*lines: list[object]) -> dict[str, str]:
    """Run each command line; what it printed, and its error with locals where it raised one."""
    told = {}
    for line in lines:
        result = CliRunner().invoke(app, [str(item) for item in line])
        said = result.output + result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            said += story(result.exception)
        told[" ".join(map(str, line[:1]))] = said
    return told


# -- runs that succeed -----------------------------------------------------------------------------


@contextmanager
def given_by(way: str, server: S3Server, folder: Path) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        if way == "environment":
            for name, value in server.environment.items():
                if name not in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
                    patch.setenv(name, value)
        else:
            patch.setenv("AWS_PROFILE", "work")
            (folder / "config").write_text(f"[profile work]\nendpoint_url = {server.endpoint}\n")
            (folder / "credentials").write_text(
                f"[work]\naws_access_key_id = {server.access_key}\n"
                f"aws_secret_access_key = {server.secret_key}\n"
            )
        yield patch


@pytest.mark.s3
@pytest.mark.parametrize("way", ["environment", "profile"])
def test_no_verb_and_no_object_shows_the_keys_of_a_run_that_succeeds(
    s3_server: S3Server, flow: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    uri = s3_server.new_uri()
    flow.write_text(FLOW.format(store=uri, path=flow.parent / "fruit.parquet"))
    caplog.set_level(logging.DEBUG)
    with given_by(way, s3_server, flow.parent):
        told = commands(
            ["plan", flow, "--json"],
            ["run", flow, "--json"],
            ["show", "fruit.graph", "--store", uri, "--json"],
            ["verify", "fruit.graph", "--store", uri],
            ["gc", uri, "--older-than", "0s"],
        )
        told |= commands(["run", flow], ["plan", flow], ["show", uri])
        store = open_store(uri)
        stored = objects_of(store)
        assert store.dataset("fruit.graph").rows == 300
    assert len(stored) > 10
    silent(told | stored | {"log": caplog.text}, (s3_server.access_key, s3_server.secret_key))


@pytest.mark.s3
def test_keys_given_as_options_do_not_rest_in_the_store_or_in_what_is_shown(
    s3_server: S3Server, flow: Path
) -> None:
    keys = {"access_key_id": s3_server.access_key, "secret_access_key": s3_server.secret_key}
    store = open_store(s3_server.new_uri(), endpoint=s3_server.endpoint, **keys)
    path = str(flow.parent / "fruit.parquet")
    with open_engine("local", workers=2, scratch=store.scratch()) as engine:
        vectors = sd.import_vectors(path, id="name", vector="embedding", store=store, engine=engine)
        graph = sd.knn_graph(vectors, k=5, measure="cosine", store=store, engine=engine)
        engine.get(engine.put(np.zeros(3)))
    place = store.objects.place
    shown = {
        type(thing).__name__: f"{thing!r} {thing!s} {pformat(thing)}"
        for thing in (store, store.objects, place, place.options, vectors, graph, engine)
    }
    told = {**shown, "asdict": pformat(asdict(place)), **objects_of(store)}
    silent(told, (s3_server.access_key, s3_server.secret_key))


# -- runs that fail --------------------------------------------------------------------------------


@pytest.mark.s3
@pytest.mark.parametrize(
    ("way", "debug"), [("environment", []), ("environment", ["--debug"]), ("profile", ["--json"])]
)
def test_a_refused_login_shows_no_keys(
    s3_server: S3Server, flow: Path, way: str, debug: list[str]
) -> None:
    uri = s3_server.new_uri()
    flow.write_text(FLOW.format(store=uri, path=flow.parent / "fruit.parquet"))
    forged = S3Server(s3_server.endpoint, KEY, SECRET)
    with given_by(way, forged, flow.parent) as patch:
        if way == "environment":
            patch.setenv("AWS_SESSION_TOKEN", TOKEN)
        told = commands(
            ["run", flow, *debug],
            ["show", uri, *debug],
            ["show", "fruit.graph", "--store", uri, *debug],
            ["verify", "fruit.graph", "--store", uri, *debug],
            ["gc", uri, *debug],
            ["doctor", uri, "--engine", "local", *debug],
        )
    assert all("credentials" in text or "login" in text for text in told.values()), told
    silent(told)


@pytest.mark.s3
@pytest.mark.parametrize("trouble", ["refused", "dead", "no bucket name", "half a pair", "option"])
def test_errors_show_no_keys_even_with_the_locals_of_their_frames(
    s3_server: S3Server, trouble: str
) -> None:
    keys: dict[str, Any] = {
        "access_key_id": KEY, "secret_access_key": SECRET, "session_token": TOKEN, "patience": 0.1,
    }  # fmt: skip
    uri, endpoint = s3_server.new_uri(), s3_server.endpoint
    if trouble == "dead":
        endpoint = "http://127.0.0.1:1"
    elif trouble == "no bucket name":
        uri = "s3://!/x"
    elif trouble == "half a pair":
        del keys["access_key_id"]
    elif trouble == "option":
        keys["colour"] = "red"
    with pytest.raises(SimdistError) as error:
        open_store(uri, endpoint=endpoint, **keys).objects.put("x", b"1")
    silent({trouble: story(error.value)})
    if trouble in ("refused", "dead"):
        store = open_store(uri, endpoint=endpoint, **keys)
        for use in (
            lambda: store.objects.put_once("x", b"1"),
            lambda: list(store.objects.list("")),
            lambda: store.write_array("vectors", np.zeros(3)),
            lambda: store.dataset("graph"),
        ):
            with pytest.raises(StoreError) as error:
                use()
            silent({trouble: story(error.value)})


def test_a_client_that_cannot_be_built_shows_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("no such setting")

    monkeypatch.setattr("obstore.store.S3Store", broken)
    store = open_store(
        "s3://bucket/x", access_key_id=KEY, secret_access_key=SECRET, session_token=TOKEN
    )
    with pytest.raises(StoreError) as error:
        store.objects.get("x")
    silent({"error": story(error.value)})
    context: BaseException | None = error.value
    while context is not None:  # what a debugger or a crash reporter would walk, told or not
        silent({"context": story_of_frames(context)})
        context = context.__cause__ or context.__context__


def story_of_frames(error: BaseException) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    mine = [frame for frame in frames if "simdist/store" in frame.f_code.co_filename]
    return "".join(repr(frame.f_locals) for frame in mine)


def look_and_fail(store: Store, how: str) -> None:
    if how == "store":
        store.objects.get("x")
    raise RuntimeError(f"cannot work with {store!r}")


@pytest.mark.parametrize("how", ["store", "task"])
def test_a_task_that_fails_with_the_store_among_its_arguments_shows_no_keys(
    dask_engine: Engine, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    store = open_store(
        "s3://bucket/x", endpoint="http://127.0.0.1:1", access_key_id=KEY, secret_access_key=SECRET,
        session_token=TOKEN, patience=0.1,
    )  # fmt: skip
    for engine in (dask_engine, open_engine("local", workers=1)):
        ref = engine.submit(look_and_fail, store, how, key=f"look-{how}")
        with pytest.raises(TaskFailed) as error:
            engine.get(ref, timeout=120)
        silent({"error": story(error.value), "trace": error.value.trace, "ref": repr(ref)})
        if engine is not dask_engine:
            engine.close()
    silent({"streams": "".join(capfd.readouterr())})


def test_a_payload_on_its_way_to_a_worker_does_not_show_itself() -> None:
    """Schedulers log the arguments of a task that cannot even be loaded."""
    from simdist.engine.ray import cloudpickle  # what travels on Dask is made by the same library
    from simdist.engine.task import Work, encode

    store = open_store("s3://bucket/x", access_key_id=KEY, secret_access_key=SECRET)
    work = Work(look_and_fail, (store, "task"), "look", 1, 0, None)
    payload, _ = encode(work, dumps=cloudpickle.dumps)
    silent({"payload": repr(payload) + str(payload)})


# -- where a key may not be written ----------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"store": f"{{uri: 's3://bucket/x', secret_access_key: '{SECRET}'}}"},
        {"store": f"'s3://{KEY}:{SECRET}@bucket/x'"},
        {"store": f"{{uri: 's3://bucket/x', endpoint: 'https://{KEY}:{SECRET}@host'}}"},
        {"engine": f"'tcp://me:{TOKEN}@scheduler:8786'"},
        {"engine": f"{{kind: dask, address: 'tls://{TOKEN}@scheduler:8786'}}"},
        {"engine": f"{{kind: ray, address: 'ray://me:{TOKEN}@head:10001'}}"},
        {"engine": f"{{kind: ray, address: 'ray://head:10001', token: {TOKEN}}}"},
        {"engine": f"{{kind: ray, address: 'ray://head:10001', token: {{text: {TOKEN}}}}}"},
        {"path": f"s3://{KEY}:{TOKEN}@bucket/x.parquet"},
    ],
    ids=lambda changed: next(iter(changed)),
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_key_in_a_config_is_refused_and_not_repeated(
    flow: Path, verb: str, changed: dict[str, str]
) -> None:
    text = FLOW.format(
        store=flow.parent / "store", path=changed.get("path", flow.parent / "fruit.parquet")
    )
    for name, value in changed.items():
        lines = [
            f"{name}: {value}" if line.startswith(f"{name}:") else line
            for line in text.splitlines()
        ]
        text = "\n".join(lines)
    flow.write_text(text)
    for options in ([], ["--json"]):
        result = CliRunner().invoke(app, [verb, str(flow), *options])
        assert result.exit_code == 2, result.output
        silent({verb: result.output + result.stderr})


@pytest.mark.parametrize("verb", ["show", "gc", "doctor"])
def test_a_key_in_an_address_is_refused_and_not_repeated(verb: str) -> None:
    told = commands([verb, f"s3://{KEY}:{TOKEN}@bucket/x"])
    assert "must not carry credentials" in told[verb]
    silent(told)


def test_an_engine_s_address_with_a_password_is_refused_without_it() -> None:
    for scheme in ("tcp", "tls", "ray"):
        with pytest.raises(ConfigError, match="must not carry") as error:
            open_engine(f"{scheme}://me:{TOKEN}@host:1")
        silent({scheme: str(error.value) + repr(error.value)})
    told = commands(["doctor", "memory://x", "--engine", f"tcp://me:{TOKEN}@host:1"])
    silent(told)


def test_a_secret_shows_itself_to_nobody_but_reveal() -> None:
    secret = Secret(SECRET)
    assert secret.reveal() == SECRET
    silent({"secret": f"{secret} {secret!r} {[secret]} {pformat(secret)} {secret!s:>20}"})
    store = open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}", anonymous=True)
    assert SECRET.encode() not in pickle.dumps(store)
