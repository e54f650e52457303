"""What a chain on a graph is expected to hold, before anybody knows the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stages.sharded import links_dataset, random_graph

from simdist.engine import open_engine
from simdist.errors import PlanTooLarge
from simdist.models.chain import Link, run_link, run_links
from simdist.models.clusters import graph_cluster_links
from simdist.models.knn import knn_links
from simdist.models.shapes import Shape, after, expected, shape_of
from simdist.models.similarity import similarity_links
from simdist.models.vectors import import_array
from simdist.runner import Job
from simdist.stages.components import ComponentsConfig, ConnectedComponents
from simdist.stages.spectral import SpectralConfig, SpectralStage
from simdist.store import Dataset, open_store

ROWS, K = 2000, 15


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """2,000 rows and their exact neighbours."""
    x = np.random.default_rng(0).standard_normal((ROWS, 8)).astype(np.float32)
    store = open_store(tmp_path_factory.mktemp("store"))
    with open_engine("local", workers=1) as engine:
        vectors = import_array(x, store=store, engine=engine)
        lists = knn_links("graph", "vectors", k=K, method="exact")
        return run_links(lists, {"vectors": vectors}, store=store, engine=engine)


@pytest.fixture(scope="module")
def links() -> Dataset:
    return links_dataset(random_graph(3000, 12.0, seed=3))


def test_a_graph_is_as_large_as_its_lists_let_it_be(made: dict[str, Dataset]) -> None:
    graph = shape_of(made["graph"])
    assert graph == Shape(ROWS, 8, ROWS * K)
    (link,) = similarity_links("links", "graph")
    entries = after(link.stage, link.config, graph).entries
    with open_engine("local", workers=1) as engine:
        found = run_link(link, made, store=made["graph"].store, engine=engine)
    assert ROWS * K < entries < 2 * ROWS * K
    assert entries / 2 < found.metrics["entries"] < 2 * entries


def test_an_embedding_has_the_dimension_that_was_asked_for() -> None:
    embedded = after(SpectralStage(), SpectralConfig(dim=7), Shape(100, 0, 500))
    assert embedded == Shape(100, 7)


@pytest.mark.parametrize("solver", ["direct", "lobpcg", "chebyshev"])
def test_the_tasks_of_a_solver_are_those_that_were_forecast(links: Dataset, solver: Any) -> None:
    config = SpectralConfig(dim=6, solver=solver)
    components = links_components(links)
    job = Job(SpectralStage(), config, {"links": links, "components": components})
    begun: Any = SpectralStage().next(job, {}, None)  # type: ignore[arg-type]
    shape = shape_of(links)
    assert shape is not None
    forecast = expected(SpectralStage(), config, shape)
    assert forecast is not None
    needed = max(task.nbytes for task in begun.tasks)
    assert needed <= forecast.nbytes < 1.2 * needed


def links_components(links: Dataset) -> Dataset:
    job = Job(ConnectedComponents(), ComponentsConfig(), {"links": links})
    begun: Any = ConnectedComponents().next(job, {}, None)  # type: ignore[arg-type]
    shape = shape_of(links)
    assert shape is not None
    forecast = expected(ConnectedComponents(), ComponentsConfig(), shape)
    assert forecast is not None
    assert begun.tasks[0].nbytes == forecast.nbytes
    with open_engine("local", workers=1) as engine:
        link = Link("parts", ConnectedComponents(), ComponentsConfig(), {"links": "links"})
        return run_link(link, {"links": links}, store=links.store, engine=engine)


def test_what_nobody_can_foresee_is_none() -> None:
    *_, clusters = graph_cluster_links("c", "links", 3)
    assert expected(clusters.stage, clusters.config, Shape(10, 3)) is None
    assert expected(SpectralStage(), SpectralConfig(dim=2), Shape(0, 0, 100)) is None
    assert expected(SpectralStage(), SpectralConfig(dim=2), Shape(100, 0)) is None


def test_a_graph_is_not_begun_where_a_worker_cannot_hold_it(made: dict[str, Dataset]) -> None:
    store = made["graph"].store
    (link,) = similarity_links("again", "graph", weights="binary")
    before = store.objects.list("records")
    with (
        open_engine("local", workers=1, memory="26MiB") as engine,
        pytest.raises(PlanTooLarge, match="of 2000 rows and about 30000 entries needs 28"),
    ):
        run_link(link, made, store=store, engine=engine)
    assert len(list(store.objects.list("records"))) == len(list(before))


def test_a_graph_is_not_begun_where_its_embedding_cannot_fit(made: dict[str, Dataset]) -> None:
    chain = (
        *similarity_links("again", "graph", weights="umap"),
        *graph_cluster_links("c", "again", 600),
    )
    with (
        open_engine("local", workers=1, memory="64MiB") as engine,
        pytest.raises(PlanTooLarge, match="spectral_embedding of 2000 rows and about 51000 entr"),
    ):
        run_links(chain, made, store=made["graph"].store, engine=engine)
