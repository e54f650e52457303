"""The three engines, started once per session: `engine` runs a test on each of them.

`local_engine`, `dask_engine`, `ray_engine`: one of them. Two workers, 2 GiB each, two retries.
A process has one Ray: a test that needs a Ray of its own starts another process.
"""

import os
import secrets
from collections.abc import Iterator

import pytest

from simdist.engine import Engine, open_engine

KINDS = ("local", "dask", "ray")

# Said out loud before anything imports Ray: a token left in the user's home is not used, and none
# is written there. Processes that tests start inherit it and may join the cluster.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ.pop("RAY_AUTH_TOKEN_PATH", None)


@pytest.fixture(scope="session")
def local_engine() -> Iterator[Engine]:
    with open_engine("local", workers=2) as engine:
        yield engine


@pytest.fixture(scope="session")
def one_thread() -> Iterator[Engine]:
    """A local engine that does one task at a time, with all the memory there is."""
    with open_engine("local", workers=1) as engine:
        yield engine


@pytest.fixture(scope="session")
def dask_engine() -> Iterator[Engine]:
    with open_engine("dask", workers=2) as engine:
        yield engine


@pytest.fixture(scope="session")
def ray_engine() -> Iterator[Engine]:
    with open_engine("ray", workers=2) as engine:
        yield engine


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(f"{request.param}_engine")
