"""Pages of mapped arrays count against the budget, and are let go where they are too many."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20

# A process of its own: what others have mapped, and libraries loaded meanwhile, must not count.
PROGRAM = """
import json, os, sys
import numpy as np
from simdist.runner.resident import keep_within, within
from simdist.store import open_store

def mapped():
    return int(open("/proc/self/statm").read().split()[2]) * os.sysconf("SC_PAGE_SIZE")

store, budget = open_store(sys.argv[1]), int(sys.argv[2])
arrays = 12
refs = [store.write_array("part", np.full(2 << 20, i, np.float64)) for i in range(arrays)]
base, peak, total = mapped(), 0, 0.0
with within(budget, 20 << 20, run_id="run"):  # it needs one array at once, and a little more
    held = [store.read_array(ref) for ref in refs]
    for array in held:
        keep_within()
        total += float(array.sum())
        peak = max(peak, mapped() - base)
    again = float(held[0].sum())
print(json.dumps({"peak": peak, "total": total / (2 << 20), "again": again}))
"""


def read_arrays(folder: Path, budget: int) -> dict[str, float]:
    """Twelve arrays of 16 MiB, read one after the other under a budget."""
    command = [sys.executable, "-c", PROGRAM, str(folder), str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="pages are counted in /proc")
def test_arrays_read_one_after_the_other_stay_within_the_budget(tmp_path: Path):
    found = read_arrays(tmp_path, 64 * MIB)
    assert found["peak"] <= 64 * MIB
    assert found["total"] == sum(range(12))  # what was let go and read again is what it was
    assert found["again"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="pages are counted in /proc")
def test_within_a_large_budget_nothing_is_let_go(tmp_path: Path):
    assert read_arrays(tmp_path, 1024 * MIB)["peak"] >= 12 * 16 * MIB
