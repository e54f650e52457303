"""Compiled kernels are kept on disk, and not longer than they are true."""

from __future__ import annotations

import os
from pathlib import Path

from simdist.compiled import codes, leaves
from simdist.compiled.kernel import stamp


def test_a_change_in_any_file_of_the_folder_is_another_stamp(tmp_path: Path):
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("x = 1\n")
    seen = []
    for change in (
        lambda: None,
        lambda: (tmp_path / "two.py").write_text("x = 12\n"),
        lambda: os.utime(tmp_path / "one.py", (1, 1)),
        (tmp_path / "three.py").touch,
    ):
        change()
        stamp.cache_clear()
        seen.append(stamp(tmp_path))
    stamp.cache_clear()
    assert len(set(seen)) == len(seen)


def test_what_is_kept_of_a_kernel_depends_on_the_kernels_it_calls():
    for kernel in (leaves._cell_leaves, codes.fold_leaf):
        assert kernel._cache._cache_file._source_stamp == stamp()
