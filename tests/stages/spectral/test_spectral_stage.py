"""`spectral_embedding` over shards: the rounds, deflation, and what the manifest says."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from stages.sharded import carried_out, column, links_dataset, random_graph

from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, InputError
from simdist.runner import Context, Event, Job, Record, Task, run
from simdist.runner.events import RoundStarted
from simdist.stages.components import ComponentsConfig, ConnectedComponents
from simdist.stages.spectral import SpectralConfig, SpectralStage
from simdist.store import Dataset

SOLVERS = ("direct", "lobpcg", "chebyshev")


def two_parts() -> sp.csr_matrix:
    """700 nodes: two parts, five nodes without edges, one pair apart."""
    parts = [
        random_graph(400, 8, seed=1),
        random_graph(298, 8, seed=2, isolated=5),
        [[0, 1], [1, 0]],
    ]
    return sp.csr_matrix(sp.block_diag(parts))


def inputs_of(A: sp.csr_matrix, *cuts: int) -> dict[str, Dataset]:
    links = links_dataset(A, cuts=cuts)
    found = carried_out(ConnectedComponents(), ComponentsConfig(), {"links": links})
    return {"links": links, "components": found}


def eigenpairs(A: sp.csr_matrix, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the Laplacian, beside its null space, nodes without edges left out."""
    A = A.astype(np.float64)
    degrees = np.asarray(A.sum(axis=1)).ravel()
    there = np.flatnonzero(degrees > 0)
    scale = sp.diags(degrees[there] ** -0.5)
    values, vectors = np.linalg.eigh(np.eye(len(there)) - (scale @ A[there][:, there] @ scale))
    count = sp.csgraph.connected_components(A[there][:, there])[0]
    whole = np.zeros((A.shape[0], dim))
    whole[there] = vectors[:, count : count + dim]
    return values[count : count + dim], whole


def angle(X: np.ndarray, Y: np.ndarray) -> float:
    """Sine of the largest principal angle between two spaces."""
    return float(np.linalg.norm(X - Y @ (Y.T @ X), 2))


@pytest.fixture(scope="module")
def given() -> dict[str, Dataset]:
    return inputs_of(two_parts(), 100, 350, 351, 500)


@pytest.fixture(scope="module")
def expected() -> tuple[np.ndarray, np.ndarray]:
    return eigenpairs(two_parts(), 6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_eigenvalues_and_spaces_are_those_of_the_dense_laplacian(given, expected, solver):
    made = carried_out(SpectralStage(), SpectralConfig(6, solver=solver, tolerance=1e-7), given)
    values, vectors = expected
    assert made.metrics["state"] == "converged"
    assert np.allclose(made.metrics["eigenvalues"], values, atol=1e-7)
    assert angle(column(made, "vectors"), vectors) < 1e-3
    assert made.metrics["isolated"] == 5


@pytest.mark.parametrize("solver", SOLVERS)
def test_residuals_are_those_of_the_vectors_that_are_committed(given, solver):
    made = carried_out(SpectralStage(), SpectralConfig(6, solver=solver), given)
    A = two_parts().astype(np.float64)
    degrees = np.asarray(A.sum(axis=1)).ravel()
    scale = sp.diags(np.divide(1, np.sqrt(degrees), out=np.zeros(700), where=degrees > 0))
    X = column(made, "vectors").astype(np.float64)
    true = np.linalg.norm(
        scale @ A @ scale @ X - X * (1 - np.array(made.metrics["eigenvalues"])), axis=0
    )
    assert np.allclose(made.metrics["residuals"], true, atol=1e-5)
    assert true.max() <= 1e-3
    assert np.abs(X[degrees == 0]).max() == 0
    assert np.abs(X.T @ X - np.eye(6)).max() < 1e-5


def test_the_largest_entry_of_a_column_is_positive(given):
    for solver in SOLVERS:
        X = column(carried_out(SpectralStage(), SpectralConfig(4, solver=solver), given), "vectors")
        assert np.all(X[np.argmax(np.abs(X), axis=0), np.arange(4)] > 0)


def test_tables_hold_what_the_arrays_hold_and_flag_nodes_without_edges(given):
    made = carried_out(SpectralStage(), SpectralConfig(4, solver="chebyshev"), given)
    tables = [made.store.read_table(shard.objects["embedding"]) for shard in made.shards]
    rows = np.concatenate([table["row"].to_numpy() for table in tables])
    flags = np.concatenate([table["isolated"].to_numpy(zero_copy_only=False) for table in tables])
    flat = np.concatenate([np.array(table["vector"].to_pylist()) for table in tables])
    assert np.array_equal(rows, np.arange(700))
    assert flags.sum() == 5
    assert np.array_equal(flat.astype(np.float32), column(made, "vectors"))


def test_components_by_the_hundred_are_deflated():
    A = sp.csr_matrix(sp.block_diag([random_graph(5 + i % 4, 6, seed=i) for i in range(120)]))
    given = inputs_of(A, 200, 400)
    values, _ = eigenpairs(A, 8)
    for solver in SOLVERS:
        made = carried_out(SpectralStage(), SpectralConfig(8, solver=solver, tolerance=1e-6), given)
        assert np.allclose(made.metrics["eigenvalues"], values, atol=1e-6)


def test_one_task_gives_the_same_bytes_on_any_number_of_threads():
    A = random_graph(9000, 8, seed=3)  # three pieces of rows
    made = []
    for workers in (1, 3):
        with open_engine("local", workers=workers) as engine:
            config = SpectralConfig(4, solver="direct", tolerance=1e-2)
            made.append(carried_out(SpectralStage(), config, inputs_of(A), engine=engine))
    one, three = made
    assert column(one, "vectors").tobytes() == column(three, "vectors").tobytes()
    assert one.metrics == three.metrics


def test_every_copy_of_an_eigenvalue_of_a_ring_is_found():
    ring = sp.csr_matrix(np.roll(np.eye(600), 1, axis=1) + np.roll(np.eye(600), -1, axis=1))
    given = inputs_of(ring, 250)
    pairs = 1 - np.cos(2 * np.pi * np.repeat([1, 2, 3], 2) / 600)
    for solver in ("direct", "chebyshev"):
        made = carried_out(SpectralStage(), SpectralConfig(6, solver=solver, tolerance=1e-6), given)
        assert np.allclose(made.metrics["eigenvalues"], pairs, atol=1e-9)


def test_the_random_walk_has_the_same_eigenvalues_and_scaled_vectors(given):
    same, walk = (
        carried_out(SpectralStage(), SpectralConfig(4, laplacian=laplacian, tolerance=1e-6), given)
        for laplacian in ("symmetric", "random_walk")
    )
    assert np.allclose(same.metrics["eigenvalues"], walk.metrics["eigenvalues"], atol=1e-9)
    A = two_parts().astype(np.float64)
    degrees = np.asarray(A.sum(axis=1)).ravel()
    X = column(walk, "vectors").astype(np.float64)
    there = degrees > 0
    step = (A @ X)[there] / degrees[there, None]
    values = 1 - np.array(walk.metrics["eigenvalues"])
    assert np.allclose(step, X[there] * values, atol=1e-6)
    assert np.all(X[~there] == 0)


def test_a_run_that_fails_goes_on_at_its_last_round_to_the_same_answer():
    given, again = (inputs_of(two_parts(), 100, 350) for _ in range(2))
    config = SpectralConfig(4, solver="lobpcg")
    with open_engine("local", workers=1) as engine:
        store = given["links"].store
        with pytest.raises(InputError, match="stopped by the test"):
            run(Job(Stopped(), config, given), store=store, engine=engine)
        told: list[Event] = []
        made = run(
            Job(SpectralStage(), config, given), store=store, engine=engine, listeners=[told.append]
        )
    started = [event for event in told if isinstance(event, RoundStarted)]
    reused = {event.round for event in started if event.done == event.tasks}
    assert {"start", "product-0", "solve-3", "update-3", "product-4"} <= reused
    assert "update-4" not in reused
    clean = carried_out(SpectralStage(), config, again)
    assert clean.metrics["passes"] == made.metrics["passes"]
    assert clean.metrics["eigenvalues"] == made.metrics["eigenvalues"]
    assert column(clean, "vectors").tobytes() == column(made, "vectors").tobytes()


class Stopped(SpectralStage):
    """Fails in the fifth update."""

    def compute(self, context: Context, task: Task) -> Record:
        if task.key == "update-4-000001":
            raise InputError("stopped by the test")
        return super().compute(context, task)


def test_all_engines_give_the_same_eigenvalues(engine: Engine, tmp_path):
    A = two_parts()
    links = links_dataset(A, cuts=(300,), store=_store(tmp_path))
    found = carried_out(ConnectedComponents(), ComponentsConfig(), {"links": links})
    config = SpectralConfig(3, solver="chebyshev", guards=8)
    made = carried_out(
        SpectralStage(), config, {"links": links, "components": found}, engine=engine
    )
    values, _ = eigenpairs(A, 3)
    assert made.metrics["state"] == "converged"
    assert np.allclose(made.metrics["eigenvalues"], values, atol=1e-5)


def _store(folder: Any) -> Any:
    from simdist.store import open_store

    return open_store(folder / "store")


def test_what_is_not_reached_is_committed_as_unconverged(given):
    for solver in ("lobpcg", "chebyshev"):
        config = SpectralConfig(4, solver=solver, max_passes=3, tolerance=1e-5)
        made = carried_out(SpectralStage(), config, given)
        assert made.metrics["state"] == "unconverged"
        assert max(made.metrics["residuals"]) > 1e-5


def test_small_graphs_go_to_one_task_and_large_ones_to_their_shards():
    config = SpectralConfig(32)
    assert config.taken(63_666, 1_400_000) == "direct"
    assert config.taken(1_000_000, 22_000_000) == "chebyshev"
    assert SpectralConfig(32, solver="lobpcg").taken(100, 500) == "lobpcg"


def test_metrics_tell_passes_barriers_and_bytes(given):
    made = carried_out(SpectralStage(), SpectralConfig(4, solver="chebyshev"), given)
    metrics = made.metrics
    assert metrics["passes"] == 2 + 8 * (metrics["bases"] - 1)
    assert metrics["barriers"] < 1.5 * metrics["passes"]
    assert metrics["bytes_per_pass"] > 0
    assert all(low <= high for low, high in pairwise(metrics["eigenvalues"]))
    assert metrics["eigengap"] >= 0


def test_more_eigenvectors_than_there_are_are_refused(given):
    with pytest.raises(InputError, match=r"dim=693 .* in 8 components: .* Ask for dim <= 692"):
        carried_out(SpectralStage(), SpectralConfig(693), given)


def test_a_graph_without_edges_is_refused():
    given = inputs_of(sp.csr_matrix((20, 20)))
    with pytest.raises(InputError, match=r"no node of .* has an edge"):
        carried_out(SpectralStage(), SpectralConfig(2), given)


def test_components_of_another_graph_are_refused(given):
    other = inputs_of(two_parts(), 350)
    with pytest.raises(InputError, match="find the components of this graph"):
        carried_out(
            SpectralStage(), SpectralConfig(2), {**given, "components": other["components"]}
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim=0: expected at least 1"),
        ({"dim": 2, "tolerance": 0.0}, "tolerance=0.0"),
        ({"dim": 2, "solver": "arpack"}, "solver='arpack': expected 'auto', 'direct'"),
        ({"dim": 2, "laplacian": "plain"}, "laplacian='plain'"),
        ({"dim": 2, "guards": 0}, "guards=0"),
        ({"dim": 2, "alpha": 2.0}, "alpha=2.0: expected 0 to 1"),
        ({"dim": 2, "time": 1}, "a diffusion map takes"),
        ({"dim": 2, "max_passes": 0}, "max_passes=0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SpectralConfig(**settings)
