"""Addresses and options: what is understood, what is refused, and what is never shown."""

from __future__ import annotations

import pickle
import traceback
import uuid
from pathlib import Path

import numpy as np
import pytest
from s3_server import BUCKET, S3Server

from simdist.errors import ConfigError, StoreError
from simdist.store import Manifest, open_store
from simdist.store.place import Options, Secret, redact

KEY, SECRET, TOKEN = "AKIACANARYCANARY", "canary/secret+canary", "canary-token"
GIVEN = {"access_key_id": KEY, "secret_access_key": SECRET, "session_token": TOKEN}


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION",
                 "DEFAULT_REGION", "ENDPOINT_URL", "ENDPOINT_URL_S3"):  # fmt: skip
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def test_a_plain_path_is_a_file_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = (tmp_path / "a b").as_uri()
    assert open_store("a b").uri == wanted
    assert open_store(tmp_path / "a b").uri == wanted
    assert open_store(wanted).uri == wanted
    assert open_store(wanted) == open_store("./x/../a b")


def test_opening_or_reading_creates_no_directory(tmp_path: Path) -> None:
    store = open_store(tmp_path / "typo")
    assert store.objects.head("x") is None
    assert list(store.objects.list("")) == []
    assert not (tmp_path / "typo").exists()


def test_a_store_that_cannot_be_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreError, match=r"file"):
        open_store(tmp_path / "file").objects.put("a", b"1")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("gs://bucket/x", "scheme 'gs' is not known"),
        ("file://host/x", "host before its path"),
        ("memory://", "object key"),
        ("s3://", "no bucket name"),
        ("s3://bucket/a/../b", "'..' part"),
        ("s3://bucket/a?versionId=1", "no query"),
        ("", "empty"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused(uri: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        open_store(uri)


def test_options_are_refused_where_they_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown store option 'colour'"):
        open_store("s3://bucket", colour="red")
    with pytest.raises(ConfigError, match="takes no options, got \\['region'\\]"):
        open_store(tmp_path, region="eu-west-1")
    with pytest.raises(ConfigError, match="together"):
        open_store("s3://bucket", access_key_id=KEY)


@pytest.mark.parametrize("endpoint", [f"http://me:{SECRET}@host", "ftp://host", "host:8333"])
def test_an_endpoint_must_be_a_plain_url(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="endpoint") as error:
        open_store("s3://bucket", endpoint=endpoint)
    assert SECRET not in str(error.value)


def test_the_endpoint_travels_and_the_environment_s_credentials_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://first")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://second/")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    data = pickle.dumps(open_store("s3://bucket/prefix/"))
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    again = pickle.loads(data)
    assert again.objects.place.options.endpoint == "http://second"
    assert again.uri == "s3://bucket/prefix"
    assert SECRET.encode() not in data
    assert KEY.encode() not in data


def test_given_credentials_travel_but_never_show() -> None:
    store = open_store("s3://bucket", endpoint="http://127.0.0.1:9", **GIVEN)
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    secret = again.objects.place.options.secret_access_key
    assert secret is not None
    assert secret.reveal() == SECRET
    place = again.objects.place
    things = (again, again.objects, place, place.options, secret)
    shown = [show(thing) for show in (repr, str) for thing in things]
    assert not [text for text in shown if "canary" in text.lower()]


def test_credentials_in_an_address_are_refused_without_repeating_them() -> None:
    for secret in (SECRET, SECRET.replace("/", "")):
        with pytest.raises(ConfigError, match="must not carry credentials") as error:
            open_store(f"s3://{KEY}:{secret}@bucket/x")
        assert "canary" not in str(error.value).lower()


def test_redaction_takes_queries_user_info_and_known_secrets() -> None:
    options = Options(access_key_id=Secret(KEY), secret_access_key=Secret(SECRET))
    text = f"PUT http://u:p@host/k?X-Amz-Signature=abc&X-Amz-Credential={KEY} with {SECRET} ({KEY})"
    assert redact(text, options) == "PUT http://host/k with *** (***)"


@pytest.mark.s3
@pytest.mark.parametrize("known_key", [False, True])
def test_a_refused_login_says_so_without_the_credentials(
    s3_server: S3Server, known_key: bool
) -> None:
    key = s3_server.access_key if known_key else KEY
    given = {"access_key_id": key, "secret_access_key": SECRET}
    store = open_store(s3_server.new_uri(), endpoint=s3_server.endpoint, **given)
    for use in (
        lambda: store.objects.get("x"),
        lambda: store.objects.put("x", b"1"),
        lambda: store.objects.put_once("x", b"1"),
        lambda: list(store.objects.list("")),
        lambda: store.write_array("vectors", np.zeros(3)),
    ):
        with pytest.raises(StoreError, match="Check the credentials") as error:
            use()
        whole = "".join(traceback.format_exception(error.value))
        assert store.uri in whole
        assert "canary" not in whole.lower()
        assert key not in whole


@pytest.mark.s3
def test_what_is_stored_holds_no_credentials(s3_server: S3Server) -> None:
    given = {"access_key_id": s3_server.access_key, "secret_access_key": s3_server.secret_key}
    store = open_store(s3_server.new_uri(), endpoint=s3_server.endpoint, **given)
    store.commit(Manifest("0" * 32, "stage", 1, {}, {}, 0, ()))
    store.name("graph", "0" * 32)
    with store.lease("run", {"stage": "x"}):
        for info in store.objects.list(""):
            data = store.objects.get(info.key).decode()
            assert s3_server.access_key not in data
            assert s3_server.secret_key not in data
    assert store.dataset("graph").uri == f"{store.uri}/manifests/{'0' * 32}.json"


@pytest.mark.s3
def test_the_aws_files_are_read(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = wrong%s\n"
        f"[work]\naws_access_key_id = {s3_server.access_key}\n"
        f"aws_secret_access_key = {s3_server.secret_key}\n"
    )
    (tmp_path / "config").write_text(
        f"[profile work]\nendpoint_url = {s3_server.endpoint}\nregion = us-east-1\n"
        "[profile login]\nsso_session = corp\n"
    )
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    open_store(uri, profile="work").objects.put("a", b"1")
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert open_store(uri).objects.get("a") == b"1"
    monkeypatch.delenv("AWS_PROFILE")
    with pytest.raises(StoreError, match="Check the credentials"):
        open_store(uri, endpoint=s3_server.endpoint).objects.get("a")
    with pytest.raises(ConfigError, match="aws configure export-credentials --profile login"):
        open_store(uri, profile="login").objects.get("a")
    with pytest.raises(ConfigError, match="AWS profile 'nobody' is neither in"):
        open_store(uri, profile="nobody")
    (tmp_path / "credentials").write_text(f"aws_secret_access_key = {SECRET}\n")
    with pytest.raises(ConfigError, match="no AWS settings file") as error:
        open_store(uri)
    assert "canary" not in "".join(traceback.format_exception(error.value))
