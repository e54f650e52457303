"""What a short, seeded part of `make chaos` needs in the suite."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.world import World


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="sdc-") as folder, pytest.MonkeyPatch.context() as here:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        here.setenv("PYTHONPATH", path)  # the processes started from here import tests.chaos
        here.setenv("SIMDIST_CACHE_DIR", f"{folder}/cache")
        made = World(Path(folder))
        yield made
        made.close()
