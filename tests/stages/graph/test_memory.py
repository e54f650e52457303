"""What a task says it holds is what it holds: never more, and not a small part of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stages.graph.nasty import duplicates, far_from_origin, graph_of, random
from task_memory import Meter, metered

from simdist import partitions
from simdist.engine import Engine, open_engine
from simdist.errors import PlanTooLarge
from simdist.models.knn import knn_graph
from simdist.models.vectors import import_array
from simdist.runner import Context, Stage, Task
from simdist.stages.graph import ApproximateKnnGraph, ExactKnnGraph, KnnParams, story
from simdist.stages.partition import PartitionStage
from simdist.store import open_store
from simdist.types import Array

WEAK = KnnParams(fanout=1, links=2, joins=0, keep=15)
SMALL = 1 << 20  # forecasts below this are constants, not formulas
LOOSE = 4

# Every kind of task is heaviest somewhere: dense leaves, equal rows that all list the same few,
# values without a GEMM form, many neighbours, rows in doubt.
JOBS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "cosine": (lambda: random(12_000, 64), 15, {"measure": "cosine", "recall": None}),
    "all levels": (lambda: random(6000, 48), 15, {"recall": 0.999, "params": WEAK}),
    "many columns": (lambda: random(5000, 384), 15, {"recall": None}),
    "few columns": (lambda: random(12_000, 2), 15, {"measure": "euclidean", "recall": None}),
    "equal rows": (lambda: np.ones((20_000, 2), np.float32), 15, {"measure": "euclidean"}),
    "copies": (lambda: duplicates(9000, 32, share=0.8), 15, {"measure": "euclidean"}),
    "no GEMM": (lambda: random(5000, 16), 15, {"measure": "manhattan", "recall": None}),
    "many neighbours": (lambda: random(5000, 32), 100, {"recall": None}),
    "in place": (lambda: random(12_000, 64), 15, {"measure": "cosine", "scratch": None}),
    "exact": (lambda: random(9000, 32), 15, {"method": "exact", "measure": "euclidean"}),
    "doubtful": (lambda: two_sides(5000), 15, {"method": "exact", "measure": "euclidean"}),
}


def two_sides(n: int) -> Array:
    """Near-duplicates far from the origin, and far from what lies in the middle of them."""
    half = far_from_origin(n // 2)
    return np.concatenate([half, -half])


@pytest.fixture(scope="module")
def meter(one_thread: Engine) -> Meter:
    beyond: list[str] = []

    def watch(stage: Stage, context: Context, task: Task) -> None:
        vectors = context.inputs["vectors"]
        largest = stage.forecast(context.config, vectors.rows, int(vectors.metrics["dim"]))
        if task.nbytes > largest.nbytes:
            beyond.append(f"{task.key} says {task.nbytes}, its job {largest.nbytes}")

    stages = (PartitionStage, ApproximateKnnGraph, ExactKnnGraph)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "MIN_BLOCK_ROWS", 4096)
        patch.setattr(story, "WORTH_WALKING", 0)  # else only large data comes to it
        for x, k, options in JOBS.values():  # compiles, and fills what a process keeps
            graph_of(x()[:600], min(k, 20), engine=one_thread, **options)
        with metered(*stages, watch=watch) as meter:
            for meter.job, (x, k, options) in JOBS.items():
                graph_of(x(), k, engine=one_thread, **options)
    assert not beyond, "\n".join(beyond)  # what is refused, is refused before the first task
    return meter


def test_every_kind_of_task_was_met(meter: Meter):
    from simdist.stages.graph.story import COMPUTE as GRAPH
    from simdist.stages.partition import COMPUTE as PARTITION

    assert {kind.partition(" ")[2] for kind in meter.kinds()} == {*GRAPH, *PARTITION}


def test_no_task_holds_more_than_it_said(meter: Meter):
    assert not meter.over()


def test_no_kind_of_task_says_several_times_what_it_holds(meter: Meter):
    assert not meter.loose(LOOSE, LOOSE * SMALL)


def test_a_job_too_large_is_refused_before_its_first_task(one_thread: Engine):
    store = open_store("memory://too-large")
    vectors = import_array(random(3000, 64), store=store, engine=one_thread)
    before = {info.key for info in store.objects.list("")}
    with (
        open_engine("local", workers=1, memory="6MiB") as engine,
        pytest.raises(PlanTooLarge, match=r"needs [\d.]+ MiB .*has 6.0 MiB. Raise engine.memory"),
    ):
        knn_graph(vectors, 15, engine=engine)
    assert {info.key for info in store.objects.list("")} == before
    graph = knn_graph(vectors, 15, engine=one_thread)
    with open_engine("local", workers=1, memory="6MiB") as engine:  # what stands needs no memory
        assert knn_graph(vectors, 15, engine=engine).fingerprint == graph.fingerprint
