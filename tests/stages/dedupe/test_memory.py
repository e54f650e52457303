"""What a task of a join or a deduplication says it holds is at least what it holds."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from simdist import partitions
from simdist.engine import Engine
from simdist.models.dedupe import deduplicate
from simdist.models.pairs import similarity_join
from simdist.runner import Context, Record, Stage, Task
from simdist.stages.dedupe import Deduplicate, DistinctRows
from simdist.stages.pairs import SimilarityJoin
from simdist.types import Array


def clumps(n: int, d: int, size: int) -> Array:
    """Rows about some centres, `size` each: n size / 2 pairs."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((n // size, d))
    rows = np.repeat(centres, size, axis=0) + 0.05 * rng.standard_normal((n // size * size, d))
    return rng.permutation(rows).astype(np.float32)


@pytest.fixture(scope="module")
def held(one_thread: Engine) -> dict[str, list[tuple[str, int, int]]]:
    """For every kind of task: (job and task, peak bytes of numpy, bytes it had said)."""
    found: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    job = ""

    def measured(stage: type[Stage]) -> Any:
        compute = stage.compute

        def traced(self: Stage, context: Context, task: Task) -> Record:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            record = compute(self, context, task)
            _, peak = tracemalloc.get_traced_memory()
            found[f"{self.name} {task.kind}"].append(
                (f"{job}: {task.key}", peak - before, task.nbytes)
            )
            return record

        return traced

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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "MIN_BLOCK_ROWS", 2048)
        for x, options in ((few, {}), (many, {"method": "approximate"})):  # compiles
            deduplicate(x[:600], 0.9, max_removed=1.0, engine=one_thread, **options)
        for stage in (SimilarityJoin, DistinctRows, Deduplicate):
            patch.setattr(stage, "compute", measured(stage))
        tracemalloc.start()
        try:
            for name, run in jobs.items():
                job = name
                run()
        finally:
            tracemalloc.stop()
    return found


def test_no_task_holds_more_than_it_says(held):
    assert len(held) >= 15
    beyond = [
        f"{kind}: {where} held {peak:,} of {said:,}"
        for kind, tasks in held.items()
        for where, peak, said in tasks
        if peak > said
    ]
    assert not beyond
