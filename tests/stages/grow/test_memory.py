"""What a task of growing says it holds is what it holds at most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stages.graph.nasty import random
from stages.grow.growing import grown
from task_memory import Meter, metered

from simdist.engine import Engine, open_engine
from simdist.models.grow import compact, delete
from simdist.stages.grow import (
    AppendStage,
    AppendVectors,
    CompactStage,
    DeleteStage,
    GraphLists,
    SegmentStage,
    story,
)

LOOSE = 12  # lists that all name different rows, and the worst data, are what is planned for
FIXED = 96 << 20  # of which small data use little

JOBS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "cosine": (lambda: random(3000, 64), 300, {"k": 15}),
    "many columns": (lambda: random(1200, 384), 100, {"k": 15, "recall": 0.8}),
    "no GEMM": (lambda: random(1000, 8), 100, {"measure": "manhattan"}),
    "many neighbours": (lambda: random(1500, 16), 100, {"k": 60, "recall": 0.9}),
    "exact": (lambda: random(1500, 32), 150, {"method": "exact", "measure": "euclidean"}),
}


@pytest.fixture(scope="module")
def meter() -> Meter:
    stages = (AppendStage, AppendVectors, CompactStage, DeleteStage, GraphLists, SegmentStage)
    with pytest.MonkeyPatch.context() as patch, open_engine("local", workers=1) as engine:
        _all_of(random(600), 60, {}, engine)  # compiles, and fills what a process keeps
        _all_of(random(600), 60, {"method": "exact"}, engine)
        with metered(*stages) as meter:
            for meter.job, (x, new, options) in JOBS.items():
                _all_of(x(), new, options, engine)
            meter.job = "all levels"
            for name, little in (("PROBES", (1, 1)), ("REACH", (1, 1)), ("LOOKS", (0, 0))):
                patch.setattr(story, name, little)
            patch.setattr(story, "_kept", lambda recall: False)
            _all_of(random(1500, 24), 100, {"k": 15, "recall": 0.9}, engine)
    return meter


def _all_of(x: Any, new: int, options: dict[str, Any], engine: Engine) -> None:
    graph = grown(x, [len(x) - new, new], engine, **options)
    compact(delete(graph, np.arange(0, len(x), 20), engine=engine), engine=engine)


def test_every_kind_of_task_was_met(meter: Meter) -> None:
    assert {kind.partition(" ")[2] for kind in meter.kinds()} >= set(story.COMPUTE)


def test_no_task_holds_more_than_it_said(meter: Meter) -> None:
    assert not meter.over()


def test_no_kind_of_task_says_many_times_what_it_holds(meter: Meter) -> None:
    assert not meter.loose(LOOSE, FIXED)
