"""Label propagation and correct-and-smooth: equal to closed forms and to the authors' recipe."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from stages.partitioning import vectors_dataset
from stages.propagate.test_propagate import normalised
from stages.sharded import blocks_graph, carried_out, column, links_dataset

from simdist.errors import ConfigError, InputError
from simdist.runner import Job
from simdist.stages.propagate import (
    CorrectAndSmoothStage,
    CorrectConfig,
    GivenLabels,
    LabelConfig,
    LabelPropagationStage,
    walk,
    write_labels,
)
from simdist.store import Dataset
from simdist.types import Array, Float64, Ids

SIZES = (120, 150, 90)
N = sum(SIZES) + 3  # and three nodes without edges
CUTS = (100, 222)
TRUE = np.append(np.repeat([2, 5, 9], SIZES), [-1, -1, -1])


@pytest.fixture(scope="module")
def graph() -> sp.csr_matrix:
    A = blocks_graph(SIZES, seed=1, inside=0.08, between=0.005)
    return sp.csr_matrix(sp.block_diag([A, sp.csr_matrix((3, 3))]))


@pytest.fixture(scope="module")
def labels() -> Ids:
    known = np.full(N, -1)
    for start in (0, 120, 270):
        known[start : start + 6] = TRUE[start]
    return known


def propagated(graph, labels, cuts=(), **options) -> Dataset:
    links = links_dataset(graph, cuts=cuts)
    given = carried_out_labels(labels, links)
    return carried_out(
        LabelPropagationStage(), LabelConfig(**options), {"graph": links, "labels": given}
    )


def carried_out_labels(labels: Array, beside: Dataset) -> Dataset:
    from simdist.engine import open_engine
    from simdist.runner import run

    job = Job(GivenLabels(), write_labels(labels, beside.store), {})
    with open_engine("local", workers=1) as engine:
        return run(job, store=beside.store, engine=engine)


def one_hot(labels: Ids) -> Float64:
    return (labels[:, None] == np.array([2, 5, 9])).astype(np.float64)


@pytest.mark.parametrize("cuts", [(), CUTS], ids=["one shard", "three shards"])
def test_clamped_is_the_harmonic_function(graph, labels, cuts):
    made = propagated(graph, labels, cuts, tolerance=1e-5)
    P = normalised(graph, 0.0, 1.0, 0.0).toarray()
    known = labels >= 0
    rest = np.flatnonzero(~known & (P.sum(axis=1) > 0))
    solved = np.linalg.solve(
        np.eye(len(rest)) - P[np.ix_(rest, rest)], P[rest][:, known] @ one_hot(labels)[known]
    )
    scores = column(made, "scores")
    assert np.abs(scores[rest] - solved).max() < 1e-3
    assert np.array_equal(scores[known], one_hot(labels)[known])
    assert made.metrics["state"] == "converged"


@pytest.mark.parametrize("cuts", [(), CUTS], ids=["one shard", "three shards"])
def test_spreading_is_the_closed_form(graph, labels, cuts):
    made = propagated(graph, labels, cuts, kind="spreading", alpha=0.8, tolerance=1e-6)
    S = normalised(graph, 0.0, 0.5, 0.5).toarray()
    closed = 0.2 * np.linalg.solve(np.eye(N) - 0.8 * S, one_hot(labels))
    assert np.abs(column(made, "scores") - closed).max() < 1e-6


@pytest.mark.parametrize("kind", ["clamped", "spreading"])
def test_blocks_are_found_from_a_few_labels_and_unreached_rows_are_told(graph, labels, kind):
    made = propagated(graph, labels, CUTS, kind=kind, tolerance=1e-2)
    found = column(made, "labels")
    assert np.mean(found[:-3] == TRUE[:-3]) > 0.9
    assert np.array_equal(found[-3:], [-1, -1, -1])
    assert made.metrics["unreached"] == 3
    assert made.metrics["known"] == 18
    assert made.metrics["classes"] == [2, 5, 9]


def test_the_table_says_the_same_as_the_arrays(graph, labels):
    made = propagated(graph, labels, CUTS, steps=2)
    tables = [made.store.read_table(shard.objects["table"]) for shard in made.shards]
    rows = np.concatenate([table["row"].to_numpy() for table in tables])
    said = np.concatenate([table["label"].to_numpy() for table in tables])
    assert np.array_equal(rows, np.arange(N))
    assert np.array_equal(said, column(made, "labels"))


def test_many_classes_take_column_blocks_and_give_the_same(graph, labels, monkeypatch):
    whole = propagated(graph, labels, CUTS, steps=5)
    monkeypatch.setattr(walk, "BLOCK_NBYTES", 8 * 150 * 2)  # two of the three classes
    blocks = propagated(graph, labels, CUTS, steps=5)
    assert np.array_equal(column(whole, "scores"), column(blocks, "scores"))


def test_too_few_steps_are_not_called_converged(graph, labels):
    made = propagated(graph, labels, CUTS, steps=3, tolerance=1e-12)
    assert made.metrics["state"] == "unconverged"
    assert made.metrics["steps"] == 3
    assert made.metrics["change"] > 1e-12


def corrected(graph, Z, labels, cuts=(), **options) -> Dataset:
    links = links_dataset(graph, cuts=cuts)
    inputs = {
        "graph": links,
        "predictions": vectors_dataset(Z, store=links.store, cuts=(50,)),
        "labels": carried_out_labels(labels, links),
    }
    return carried_out(CorrectAndSmoothStage(), CorrectConfig(**options), inputs)


def by_scipy(A, Z, labels, *, correct=0.8, smooth=0.8, steps=12, scale=None) -> Float64:
    """The reference code's order of operations, dense."""
    S, known = normalised(A, 0.0, 0.5, 0.5), labels >= 0
    Y = (labels[:, None] == np.arange(Z.shape[1])).astype(np.float64)
    E0 = np.where(known[:, None], Y - Z, 0.0)
    E = E0
    for _ in range(steps):
        E = np.clip(correct * (S @ E) + (1 - correct) * E0, -1, 1)
    with np.errstate(divide="ignore"):
        sizes = np.abs(E0).sum() / known.sum() / np.abs(E).sum(axis=1)
    sizes = np.where(sizes <= 1000, sizes, 1.0) if scale is None else np.full(len(Z), scale)
    G0 = np.where(known[:, None], Y, Z + sizes[:, None] * E)
    G = G0
    for _ in range(steps):
        G = np.clip(smooth * (S @ G) + (1 - smooth) * G0, 0, 1)
    return G


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("cuts", [(), CUTS], ids=["one shard", "three shards"])
def test_correct_and_smooth_is_the_published_recipe(graph, labels, cuts, scale):
    Z = np.random.default_rng(0).dirichlet(np.ones(3), N).astype(np.float32)
    classes = np.searchsorted([2, 5, 9], labels)
    classes[labels < 0] = -1
    made = corrected(graph, Z, classes, cuts, scale=scale, steps=12)
    expected = by_scipy(graph, Z.astype(np.float64), classes, scale=scale)
    assert np.abs(column(made, "scores") - expected).max() < 1e-9
    assert np.array_equal(column(made, "labels")[:-3], expected[:-3].argmax(axis=1))


def test_guesses_at_random_are_corrected_by_a_few_labels(graph, labels):
    Z = np.random.default_rng(0).dirichlet(np.ones(3), N).astype(np.float32)
    truth = np.repeat([0, 1, 2], SIZES)
    classes = np.where(labels >= 0, np.searchsorted([2, 5, 9], labels), -1)
    assert np.mean(Z[:-3].argmax(axis=1) == truth) < 0.4
    assert np.mean(column(corrected(graph, Z, classes), "labels")[:-3] == truth) > 0.85


def test_a_label_without_a_column_is_refused_with_its_row(graph, labels):
    Z = np.full((N, 8), 1 / 8, np.float32)
    with pytest.raises(InputError, match="row 270 has label 9, the predictions have 8 columns"):
        corrected(graph, Z, labels, CUTS)


def test_labels_that_are_all_unknown_are_refused(graph):
    none = np.full(N, -1)
    with pytest.raises(InputError, match="no row has a label"):
        propagated(graph, none)
    with pytest.raises(InputError, match="no row has a label"):
        corrected(graph, np.full((N, 3), 1 / 3, np.float32), none)


def test_labels_of_another_shape_or_kind_are_refused(graph):
    links = links_dataset(graph)
    with pytest.raises(InputError, match=r"got float64 of shape \(4,\)"):
        write_labels(np.ones(4), links.store)
    with pytest.raises(InputError, match="row 1 has label -7; expected -1"):
        write_labels(np.array([0, -7, 2]), links.store)
    with pytest.raises(InputError, match="at most 10000 can be handed on"):
        propagated(sp.csr_matrix((20_000, 20_000)), np.arange(20_000))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "harmonic"}, "kind='harmonic': expected 'clamped' or 'spreading'"),
        ({"alpha": 0.5}, "alpha=0.5: clamped label propagation has none"),
        ({"kind": "spreading", "alpha": 0.0}, "alpha=0.0: expected a number between 0 and 1"),
        ({"tolerance": 0.0}, "tolerance=0.0: expected a positive number"),
    ],
)
def test_label_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        LabelConfig(**options)
