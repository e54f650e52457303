"""One Prefect API for all tests of flows, and a flow over a few vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_runs import salad

from pipelines.server import PrivateApi, private_api


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateApi]:
    """A Prefect API with an empty database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS", "1")
        with private_api() as api:
            api.wait()
            yield api


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow over 400 vectors."""
    return salad(tmp_path_factory.mktemp("fruit"), name="fruit_salad")
