"""A writer that is killed leaves whole objects or none."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from simdist.store import open_store

WRITER = """
import sys
import numpy as np
from simdist.store import open_store
store = open_store(sys.argv[1])
for i in range(10_000):
    store.write_array("vectors", np.full(3_000_000, i, np.float32))
"""


def test_a_writer_killed_at_any_moment_leaves_only_whole_objects(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    for enough in (1, 3, 5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "store")])
        try:
            deadline = time.monotonic() + 60
            while len(list(store.objects.list("data"))) < enough:
                assert writer.poll() is None
                assert time.monotonic() < deadline
        finally:
            writer.kill()
            writer.wait(30)
        for info in store.objects.list("data"):
            assert store.objects.digest(info.key)[0] in info.key
