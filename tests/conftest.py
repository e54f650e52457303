"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from s3_server import S3Server, serve

pytest.register_assert_rewrite("simdist.testing")

pytest_plugins = ["plugins.engines"]

# The same examples on every run, however slow the machine is; HYPOTHESIS_PROFILE=search looks for
# new ones.
settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


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


SERVERS = {"dask_engine", "ray_engine", "s3_server"}  # fixtures that start some
SERIAL = (  # start servers of their own, or look at the clock
    "chaos/",
    "clusters/",
    "engine/",
    "pipelines/",
    "runner/test_resident.py",
    "store/test_killed_writer.py",
    "store/test_leases.py",
    "test_cli.py",
    "test_doctor.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs one at a time: `make test` has the others beside it, at a low priority."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        fixtures = set(getattr(item, "fixturenames", ()))
        if path.startswith(SERIAL) or SERVERS & fixtures or _engine(item):
            item.add_marker("serial")


def _engine(item: pytest.Item) -> bool:
    """Whether `engine`, or the `kind` that a test asks for, is one that starts processes."""
    given = getattr(getattr(item, "callspec", None), "params", {})
    return any(given.get(name) in ("dask", "ray") for name in ("engine", "kind"))
