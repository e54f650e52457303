"""The cost model: what follows from it, and how near it comes to a job that ran."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import simdist as sd
from simdist.models.calibration import seen_in
from simdist.runner import RoundForecast
from simdist.runner.journal import Run, last_run
from simdist.stages.costs import Typical, Work, graph_rounds, partition_rounds
from simdist.stages.graph import ApproximateKnnGraph, KnnGraphConfig
from simdist.stages.graph.cost import exact_rounds, work_of

ROWS, DIM, K = 6000, 32, 10
FACTOR = 1.5  # that a forecast of bytes is off at most


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """How a partition and a graph of it were made, by stage."""
    folder = tmp_path_factory.mktemp("costs")
    np.save(folder / "rows.npy", sd.datasets.manifold(ROWS, DIM, 6, seed=3))
    store = sd.open_store(folder / "store")
    vectors = sd.import_vectors(str(folder / "rows.npy"), store=store, engine="local")
    graph = sd.knn_graph(vectors, K, measure="euclidean", recall=None, engine="local")
    made = [vectors, store.dataset(graph.manifest.inputs["partition"]), graph]
    found = {data.stage: last_run(store, data.fingerprint) for data in made}
    assert all(run is not None for run in found.values())
    return found


def test_every_round_that_ran_was_forecast(runs: dict[str, Run]) -> None:
    for stage, run in runs.items():
        missing = [step.name for step, cost in run.paired() if cost is None]
        assert not missing, (stage, missing)


def test_bytes_written_are_as_forecast(runs: dict[str, Run]) -> None:
    told = {
        step.name: step.written / cost.written
        for run in runs.values()
        for step, cost in run.paired()
        if cost is not None and step.written > 100_000
    }
    del told["join-0-1"]  # how much a join proposes is for the data to say
    assert len(told) >= 6
    assert not {name for name, ratio in told.items() if not 1 / FACTOR < ratio < FACTOR}, told


def test_what_only_the_data_decides_is_found_in_a_run(runs: dict[str, Run]) -> None:
    config = KnnGraphConfig(K, "euclidean", recall=None)
    went = runs["knn_graph"].rounds
    typical = ApproximateKnnGraph().typical(config, ROWS, DIM, seen_in(went))
    rounds = graph_rounds(work_of(config, ROWS, DIM, typical))
    costs = {cost.name: cost for cost in rounds}
    joins = [step for step in went if step.kind == "join"]
    assert len(joins) == typical.joins
    for join in joins:
        assert costs[join.name].pairs == pytest.approx(join.facts["scored"])
        assert costs[join.name].written == pytest.approx(join.written, rel=0.05)


def test_tasks_are_as_forecast(runs: dict[str, Run]) -> None:
    for run in runs.values():
        for step, cost in run.paired():
            assert cost is not None
            assert 0.5 <= step.tasks / cost.tasks <= 2, step.name


def test_twice_the_rows_are_about_twice_the_work_of_a_graph() -> None:
    small, large = (graph_rounds(Work(n, 128, 15)) for n in (10**6, 2 * 10**6))
    for one, two in zip(small, large, strict=True):
        for name in ("flops", "ops", "pairs", "rows", "written"):
            before, after = getattr(one, name), getattr(two, name)
            if before > 1000 and one.kind not in ("pilot", "check"):
                assert 1.8 <= after / before <= 2.3, (one.name, name)


def test_assigning_rows_to_cells_grows_faster_than_the_rows() -> None:
    small, large = (
        {cost.kind: cost for cost in partition_rounds(Work(n, 128, 15))} for n in (10**6, 4 * 10**6)
    )
    assert large["assign"].flops / small["assign"].flops == pytest.approx(8, rel=0.1)


def test_all_pairs_are_counted_once() -> None:
    rounds = exact_rounds(Work(100_000, 64, 15), width=24)
    assert sum(cost.flops for cost in rounds) == pytest.approx(100_000**2 * 64)


def test_joins_cost_what_typical_says() -> None:
    typical = Typical(pairs=(100.0, 10.0), proposals=(5.0, 1.0), joins=3)
    rounds = graph_rounds(Work(1000, 64, 15, typical=typical))
    pairs = [cost.pairs for cost in rounds if cost.kind == "join"]
    assert pairs == [100_000, 10_000, 10_000]
    walks = graph_rounds(Work(1000, 64, 15, coded=False, typical=typical))
    assert sum(cost.kind == "merge-join" for cost in rounds) == 3
    assert not any(cost.kind == "merge-join" for cost in walks)
    assert sum(cost.kind == "walk" for cost in walks) == 3


def test_what_is_common_is_fetched_by_each_worker_once() -> None:
    cost = RoundForecast("join", 100, read=50, common=10, requests=200, common_requests=3)
    assert cost.fetched(1) == 60
    assert cost.fetched(7) == 50 + 7 * 10
    assert cost.fetched(1000) == 50 + 100 * 10, "no more workers than tasks have anything to do"
    assert cost.asked(7) == 200 + 7 * 3
    part = replace(cost, reach=0.01)
    assert part.fetched(100) == pytest.approx(50 + 10)
    assert 50 + 10 * 0.5 < part.fetched(1) < 50 + 10 * 0.7, "parts drawn at random overlap"
    assert cost.fetched(7, cache=9) == 50 + 100 * 10
    assert part.fetched(1, cache=1) == pytest.approx(50 + 100 * 0.1)
