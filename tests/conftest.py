"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from s3_server import S3Server, serve

pytest.register_assert_rewrite("simdist.testing")

pytest_plugins = ["plugins.engines"]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server; `.environment` is what other processes need to use it."""
    with serve(tmp_path_factory.mktemp("s3-server")) as server:
        yield server


@pytest.fixture
def s3_uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An unused s3:// store, with this process's environment set to reach it."""
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in s3_server.environment.items():
        monkeypatch.setenv(variable, value)
    return s3_server.new_uri()
