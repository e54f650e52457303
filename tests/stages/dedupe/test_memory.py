"""What a task of a join or a deduplication says it holds is at least what it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from task_memory import metered

from simdist import partitions
from simdist.engine import Engine
from simdist.models.dedupe import deduplicate
from simdist.models.pairs import similarity_join
from simdist.stages.dedupe import Deduplicate, DistinctRows
from simdist.stages.pairs import SimilarityJoin
from simdist.types import Array


def clumps(n: int, d: int, size: int) -> Array:
    """Rows about some centres, `size` each: n size / 2 pairs."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((n // size, d))
    rows = np.repeat(centres, size, axis=0) + 0.05 * rng.standard_normal((n // size * size, d))
    return rng.permutation(rows).astype(np.float32)


def test_no_task_holds_more_than_it_says(one_thread: Engine, monkeypatch: pytest.MonkeyPatch):
    few, many = clumps(6000, 48, 10), clumps(4400, 24, 400)
    half = many[: len(many) // 2]
    jobs: dict[str, Any] = {
        "few pairs": lambda: similarity_join(few, 0.9, engine=one_thread),
        "many pairs": lambda: similarity_join(many, 0.9, engine=one_thread),
        "no GEMM": lambda: similarity_join(few[:3000], 4.0, "manhattan", engine=one_thread),
        "cells": lambda: similarity_join(few, 0.9, method="approximate", engine=one_thread),
        "cells of another": lambda: similarity_join(
            many, 0.9, against=half, method="approximate", engine=one_thread
        ),
        "leader": lambda: deduplicate(many, 0.9, max_removed=1.0, engine=one_thread),
        "groups": lambda: deduplicate(
            np.concatenate([few, few]),
            0.9,
            keep="medoid",
            semantics="components",
            cap=0.95,
            max_removed=1.0,
            engine=one_thread,
        ),
    }
    monkeypatch.setattr(partitions, "MIN_BLOCK_ROWS", 2048)
    for x, options in ((few, {}), (many, {"method": "approximate"})):  # compiles
        deduplicate(x[:600], 0.9, max_removed=1.0, engine=one_thread, **options)
    with metered(SimilarityJoin, DistinctRows, Deduplicate) as meter:
        for meter.job, run in jobs.items():
            run()
    assert len(meter.kinds()) >= 15
    assert not meter.over()
