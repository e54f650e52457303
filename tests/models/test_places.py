"""Where an array's intermediate data goes, and whether the workers can see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simdist as sd
from simdist.engine import Ref
from simdist.engine.local import LocalEngine
from simdist.errors import ConfigError

ROWS = np.random.default_rng(2).standard_normal((300, 6)).astype(np.float32)


class Elsewhere(LocalEngine):
    """Workers on a machine that has none of this one's folders."""

    kind = "dask"
    remote = True

    def submit(self, fn: Any, *args: Any, key: str, nbytes: int = 0, cpus: int = 1) -> Ref:
        return super().submit(lambda: False, key=key)


def test_an_array_is_refused_where_workers_cannot_see_the_scratch_folder():
    with Elsewhere(workers=1) as engine, pytest.raises(ConfigError, match=r"pass scratch= with"):
        sd.knn_graph(ROWS, 3, engine=engine)


def test_the_scratch_folder_is_gone_after_the_call(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    sd.knn_graph(ROWS, 3)
    assert list(tmp_path.glob("simdist-*")) == []


def test_a_scratch_store_of_the_callers_own_is_kept(tmp_path: Path):
    sd.knn_graph(ROWS, 3, scratch=str(tmp_path / "mine"))
    assert list((tmp_path / "mine" / "manifests").iterdir())


def test_an_array_goes_to_dask_and_comes_back(dask_engine):
    near = sd.knn_graph(ROWS, 3, engine=dask_engine)
    assert np.array_equal(near.indices, sd.knn_graph(ROWS, 3).indices)
