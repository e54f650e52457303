"""Kernels written in a CPU's own instructions and those for any other CPU give the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from compiled.portable import digests

from simdist.compiled.simd import VNNI

HERE = Path(__file__).parent
GENERIC = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}


def run(*command: str, **environment: str) -> str:
    """What Python prints, without the vector instructions that this process may use."""
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_cpu_without_vnni_gives_the_same_bytes():
    elsewhere = json.loads(run("-m", "compiled.portable", **GENERIC))
    assert not elsewhere.pop("vnni")
    here = digests()
    assert here.pop("vnni") == VNNI
    assert elsewhere == here


def test_tiles_are_exact_where_numba_is_told_to_leave_avx_alone():
    tests = str(HERE / "test_simd.py")
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", tests, NUMBA_ENABLE_AVX="0")
    assert " passed" in said
