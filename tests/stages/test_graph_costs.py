"""Stages on graphs tell their rounds one by one, so that a plan can say how long they take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stages.sharded import carried_out, links_dataset, random_graph

from simdist.engine import open_engine
from simdist.models.knn import knn_graph
from simdist.models.vectors import import_vectors
from simdist.runner import Event, Job, run
from simdist.runner.events import RoundStarted
from simdist.stages.components import ComponentsConfig, ConnectedComponents, stage
from simdist.stages.links.similarity import SimilarityConfig, SimilarityGraphStage
from simdist.stages.spectral import SpectralConfig, SpectralStage
from simdist.stages.spectral.cost import sharded_rounds
from simdist.store import Dataset, open_store


def ran(it: Any, config: Any, inputs: dict[str, Dataset]) -> tuple[Dataset, dict[str, int]]:
    """What a stage committed, and its rounds with their tasks."""
    told: list[Event] = []
    with open_engine("local", workers=1) as engine:
        store = next(iter(inputs.values())).store
        made = run(Job(it, config, inputs), store=store, engine=engine, listeners=[told.append])
    return made, {e.round: e.tasks for e in told if isinstance(e, RoundStarted)}


@pytest.fixture(scope="module")
def links() -> Dataset:
    return links_dataset(random_graph(600, 8, seed=5), cuts=(150, 300, 450))


def test_components_tell_the_rounds_that_run(links, monkeypatch):
    entries = int(links.metrics["entries"])
    monkeypatch.setattr(stage, "SHARD_ENTRIES", -(-entries // 4))
    _, rounds = ran(ConnectedComponents(), ComponentsConfig(), {"links": links})
    found = ConnectedComponents().forecast(ComponentsConfig(), 600, 0, entries=entries)
    assert {step.name: step.tasks for step in found.rounds} == rounds
    assert len(rounds) > 1


@pytest.mark.parametrize("solver", ["lobpcg", "chebyshev"])
def test_eigenvectors_tell_the_rounds_that_run(links, solver):
    components = carried_out(ConnectedComponents(), ComponentsConfig(), {"links": links})
    config = SpectralConfig(3, solver=solver)
    inputs = {"links": links, "components": components}
    made, rounds = ran(SpectralStage(), config, inputs)
    degree = int(made.metrics["degree"])
    passes = int(made.metrics["bases"]) * degree
    found = sharded_rounds(config, 600, 4800, shards=4, degree=degree, passes=passes)
    assert {step.name: step.tasks for step in found} == rounds
    whole = SpectralStage().forecast(config, 600, 0, entries=4800)
    assert whole.tasks == sum(step.tasks for step in whole.rounds)


def test_eigenvectors_in_one_task_are_one_round():
    (step,) = SpectralStage().forecast(SpectralConfig(4), 10_000, 0, entries=100_000).rounds
    assert (step.name, step.tasks) == ("direct", 1)


@pytest.mark.parametrize("weights", ["value", "self_tuning", "umap"])
def test_similarity_graphs_tell_the_rounds_that_run(weights, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((500, 6)))
    store = open_store(tmp_path / "store")
    with open_engine("local", workers=1) as engine:
        vectors = import_vectors(str(tmp_path / "x.npy"), store=store, engine=engine)
        graph = knn_graph(vectors, 8, measure="cosine", method="exact", engine=engine)
    config = SimilarityConfig(weights=weights)
    _, rounds = ran(SimilarityGraphStage(), config, {"graph": graph})
    found = SimilarityGraphStage().forecast(config, 500, 6, entries=4000)
    assert {step.name: step.tasks for step in found.rounds} == rounds
