"""Message passing over a sharded graph: equal to scipy on one worker, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from stages.partitioning import vectors_dataset
from stages.sharded import carried_out, column, links_dataset, random_graph

from simdist.errors import ConfigError, InputError
from simdist.runner import Job, run
from simdist.stages.propagate import PropagateConfig, PropagateStage, walk
from simdist.types import Array, Float64

N, DIM = 900, 12
CUTS = (250, 300, 777)


@pytest.fixture(scope="module")
def graph() -> sp.csr_matrix:
    return random_graph(N, 6.0, seed=3, isolated=5)


@pytest.fixture(scope="module")
def features() -> Array:
    return np.random.default_rng(4).standard_normal((N, DIM)).astype(np.float32)


def normalised(A: sp.csr_matrix, loops: float, left: float, right: float) -> sp.csr_matrix:
    """D^-left (A + loops I) D^-right, a row and column of zeros where a degree is 0."""
    B = sp.csr_matrix(A, dtype=np.float64) + loops * sp.eye(A.shape[0])
    degrees = np.asarray(B.sum(axis=1)).ravel()
    with np.errstate(divide="ignore"):
        scale = [np.where(degrees > 0, degrees**-power, 0.0) for power in (left, right)]
    return sp.csr_matrix(sp.diags(scale[0]) @ B @ sp.diags(scale[1]))


def sgc(A: sp.csr_matrix, X: Float64, steps: int) -> Float64:
    S = normalised(A, 1.0, 0.5, 0.5)
    for _ in range(steps):
        X = S @ X
    return X


def appnp(A: sp.csr_matrix, X: Float64, steps: int, alpha: float) -> Float64:
    S, Z = normalised(A, 1.0, 0.5, 0.5), X
    for _ in range(steps):
        Z = (1 - alpha) * (S @ Z) + alpha * X
    return Z


def lightgcn(A: sp.csr_matrix, X: Float64, steps: int) -> Float64:
    S, layers = normalised(A, 0.0, 0.5, 0.5), [X]
    for _ in range(steps):
        layers.append(S @ layers[-1])
    return np.mean(layers, axis=0)


def ppr(A: sp.csr_matrix, X: Float64, alpha: float) -> Float64:
    """Solved directly: p = alpha s + (1 - alpha) A D^-1 p; isolated nodes keep what they have."""
    P = normalised(A, 0.0, 0.0, 1.0).toarray()
    alone = ~P.any(axis=0)
    P[alone, alone] = 1.0
    return alpha * np.linalg.solve(np.eye(len(P)) - (1 - alpha) * P, X)


ORACLES = {
    "sgc": (lambda A, X: sgc(A, X, 2), {}),
    "appnp": (lambda A, X: appnp(A, X, 10, 0.1), {}),
    "lightgcn": (lambda A, X: lightgcn(A, X, 3), {}),
    "ppr": (lambda A, X: ppr(A, X, 0.15), {"tolerance": 1e-7, "steps": 200}),
}


@pytest.mark.parametrize("cuts", [(), CUTS], ids=["one shard", "four shards"])
@pytest.mark.parametrize("kind", ORACLES)
def test_every_method_is_what_scipy_gives_to_1e_5(graph, features, kind, cuts):
    oracle, options = ORACLES[kind]
    made = propagated(graph, features, cuts, kind=kind, **options)
    assert np.abs(column(made, "vectors") - oracle(graph, features.astype(np.float64))).max() < 1e-5


def propagated(graph, features, cuts, **options):
    source = vectors_dataset(features, cuts=(100, 640))
    links = links_dataset(graph, cuts=cuts, store=source.store)
    inputs = {"graph": links, "features": source}
    return carried_out(PropagateStage(), PropagateConfig(**options), inputs)


def test_features_wider_than_a_block_give_the_same_numbers(graph, features, monkeypatch):
    whole = propagated(graph, features, CUTS, kind="appnp")
    monkeypatch.setattr(walk, "BLOCK_NBYTES", 8 * 500 * 5)  # five columns of the widest shard
    blocks = propagated(graph, features, CUTS, kind="appnp")
    assert np.array_equal(column(whole, "vectors"), column(blocks, "vectors"))


def test_a_long_result_is_written_in_runs_of_rows(graph, features, monkeypatch):
    from simdist.stages.propagate import finish

    monkeypatch.setattr(finish, "RUN_NBYTES", 8 * DIM * 100)
    made = propagated(graph, features, CUTS)
    assert max(shard.rows for shard in made.shards) == 100
    assert sum(shard.rows for shard in made.shards) == N
    assert np.abs(column(made, "vectors") - sgc(graph, features.astype(float), 2)).max() < 1e-5


def test_a_node_without_edges_keeps_its_row_where_the_method_has_self_loops(graph, features):
    made = column(propagated(graph, features, (), kind="sgc"), "vectors")
    assert np.allclose(made[-5:], features[-5:])
    assert np.allclose(
        column(propagated(graph, features, (), kind="lightgcn"), "vectors")[-5:], features[-5:] / 4
    )


def test_page_rank_keeps_the_mass_of_every_column(graph):
    seeds = np.zeros((N, 3), np.float32)
    seeds[[4, 500, N - 1], [0, 1, 2]] = 1.0
    made = column(propagated(graph, seeds, CUTS, kind="ppr"), "vectors")
    assert np.allclose(made.sum(axis=0), 1.0, atol=1e-4)
    assert made[N - 1, 2] == pytest.approx(1.0)  # isolated: the walk cannot leave


def test_it_stops_when_nothing_moves_and_says_so(graph, features):
    made = propagated(graph, features, (), kind="ppr", tolerance=1e-3)
    assert made.metrics["state"] == "converged"
    assert made.metrics["steps"] < 100
    short = propagated(graph, features, (), kind="ppr", steps=2)
    assert short.metrics["state"] == "unconverged"
    assert short.metrics["steps"] == 2
    assert propagated(graph, features, ()).metrics["state"] == "done"


def test_a_run_that_failed_goes_on_from_its_last_step(graph, features, monkeypatch):
    from simdist.engine import open_engine

    source = vectors_dataset(features)
    links = links_dataset(graph, cuts=CUTS, store=source.store)
    job = Job(PropagateStage(), PropagateConfig("appnp"), {"graph": links, "features": source})
    steps = []
    original = PropagateStage.compute

    def failing(self, context, task):
        if task.key == "walk-00006-000002":
            raise InputError("unplugged")
        return original(self, context, task)

    def counted(self, context, task):
        steps.append(task.key)
        return original(self, context, task)

    with open_engine("local", workers=1) as engine:
        monkeypatch.setattr(PropagateStage, "compute", failing)
        with pytest.raises(InputError, match="unplugged"):
            run(job, store=source.store, engine=engine)
        monkeypatch.setattr(PropagateStage, "compute", counted)
        made = run(job, store=source.store, engine=engine)
    walked = [step for step in steps if step.startswith("walk-")]  # what ran beside it may end late
    assert min(walked) == "walk-00006-000002"
    expected = appnp(graph, features.astype(np.float64), 10, 0.1)
    assert np.abs(column(made, "vectors") - expected).max() < 1e-5


def test_features_of_another_number_of_rows_are_refused(graph, features):
    with pytest.raises(InputError, match=r"900 nodes, the features .* have 899 rows"):
        propagated(graph, features[:-1], ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "gcn"}, "kind='gcn': expected one of sgc, appnp, ppr, lightgcn"),
        ({"kind": "sgc", "alpha": 0.1}, "alpha=0.1: sgc has none"),
        ({"kind": "appnp", "alpha": 1.0}, r"alpha=1\.0: expected a number between 0 and 1"),
        ({"steps": 0}, "steps=0: expected at least 1"),
        ({"self_loops": -1.0}, r"self_loops=-1\.0: expected a weight of at least 0"),
        ({"kind": "ppr", "tolerance": float("nan")}, "tolerance=nan: expected a positive number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PropagateConfig(**options)
