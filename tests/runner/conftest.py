"""A script for the fake stage, a store on disk, an engine that does one thing at a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from runner.fakes import Script

from simdist.engine import Engine, open_engine
from simdist.store import Store, open_store


@pytest.fixture
def script(tmp_path: Path) -> Script:
    folder = tmp_path / "ran"
    folder.mkdir()
    return Script(str(folder))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def one_worker() -> Iterator[Engine]:
    with open_engine("local", workers=1) as engine:
        yield engine
