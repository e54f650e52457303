"""The three engines, started once per session: `engine` runs a test on each of them.

`local_engine`, `dask_engine`, `ray_engine`: one of them. Two workers, 2 GiB each, two retries.
A process has one Ray: a test that needs a Ray of its own starts another process.
"""

from collections.abc import Iterator

import pytest

from simdist.engine import Engine, open_engine

KINDS = ("local", "dask", "ray")


@pytest.fixture(scope="session")
def local_engine() -> Iterator[Engine]:
    with open_engine("local", workers=2) as engine:
        yield engine


@pytest.fixture(scope="session")
def dask_engine() -> Iterator[Engine]:
    with open_engine("dask", workers=2) as engine:
        yield engine


@pytest.fixture(scope="session")
def ray_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        # A token left in the user's home would be used, and what Ray writes there would stay.
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        with open_engine("ray", workers=2) as engine:
            yield engine


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(f"{request.param}_engine")
