"""Small chunks and panels, so that a few hundred rows take the ways of a few million."""

from __future__ import annotations

import pytest

from simdist.stages.density import seeding, shift, sides


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 128 queries, panels of 100 rows, a panel a task; waves of 150 seeds."""
    monkeypatch.setattr(sides, "LEAST_CHUNK", 128)
    monkeypatch.setattr(sides, "MOST_CHUNK", 128)
    monkeypatch.setattr(sides, "MOST_PANEL", 100)
    monkeypatch.setattr(sides, "TASK_FLOPS", 1.0)
    monkeypatch.setattr(shift, "CHUNK", 64)
    monkeypatch.setattr(shift, "TASK_FLOPS", 5e6)
    monkeypatch.setattr(seeding, "ALL_FLOPS", 0.0)
    monkeypatch.setattr("simdist.stages.density.ascent.HELD_VALUES", 0)
    monkeypatch.setattr("simdist.stages.density.ascent.WAVE", 150)
