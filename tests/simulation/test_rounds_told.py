"""Stages that tell their rounds one by one: what ran was foretold, and can be simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import simdist as sd
from simdist import partitions
from simdist.engine import Engine
from simdist.runner.journal import last_run
from simdist.store import Dataset

ROWS, DIM, K = 1400, 16, 5
FACTOR = 1.5  # that a forecast of bytes is off at most


@pytest.fixture
def vectors(local_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Rows that are searched in several blocks."""
    monkeypatch.setattr(partitions, "MIN_BLOCK_ROWS", 400)
    np.save(tmp_path / "rows.npy", sd.datasets.manifold(ROWS, DIM, 6, seed=3))
    return sd.import_vectors(
        str(tmp_path / "rows.npy"), store=tmp_path / "store", engine=local_engine
    )


ROUNDS = {
    "tiles": ["tiles", "metadata"],
    "exact": ["scan", "settle"],
    "approximate": ["truth", "choose", "probe", "settle"],
}


@pytest.mark.parametrize("how", ROUNDS)
def test_rounds_their_tasks_and_their_bytes_are_as_foretold(
    how: str, vectors: Dataset, local_engine: Engine
) -> None:
    made: Dataset
    if how == "tiles":
        made = sd.similarity_tiles(vectors, engine=local_engine)
    else:
        method = {"method": how, "measure": "euclidean"}
        made = sd.knn(vectors, vectors, K, engine=local_engine, **method)  # type: ignore[call-overload]
    run = last_run(vectors.store, made.fingerprint)
    assert run is not None
    assert [step.name for step in run.rounds] == [cost.name for cost in run.forecast] == ROUNDS[how]
    for step, cost in run.paired():
        assert cost is not None, step.name
        assert cost.tasks == step.tasks, step.name
        if step.written > 50_000:
            assert 1 / FACTOR < step.written / cost.written < FACTOR, (step.name, step, cost)
