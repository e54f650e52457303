"""Chains of stages: what cannot be finished is not begun."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simdist.engine import open_engine
from simdist.errors import PlanTooLarge
from simdist.models.chain import run_link
from simdist.models.knn import knn_links
from simdist.models.vectors import import_link
from simdist.store import open_store


def test_a_step_is_not_begun_where_a_later_one_cannot_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((20_000, 16), np.float32))
    store = open_store(tmp_path / "store")
    vectors = import_link("vectors", path=str(tmp_path / "x.npy"))
    cells, graph = knn_links("graph", "vectors", k=15, measure="euclidean")
    with open_engine("local", workers=1, memory="1GiB") as engine:
        made = {"vectors": run_link(vectors, {}, store=store, engine=engine)}
    most = cells.stage.forecast(cells.config, 20_000, 16).nbytes
    assert most < graph.stage.forecast(graph.config, 20_000, 16).nbytes
    with (
        open_engine("local", workers=1, memory=most) as engine,
        pytest.raises(PlanTooLarge, match="knn_graph of 20000 rows of 16 dimensions needs"),
    ):
        run_link(cells, made, store=store, engine=engine, then=[graph])
    assert not [info for info in store.objects.list("records") if "assign" in info.key]
