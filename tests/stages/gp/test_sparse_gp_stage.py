"""`sparse_gp` over spans of a stored dataset: the bound, resuming, and what the manifest says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stages.gp.gp_data import dense_bound, regression, stored, worked

from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, InputError
from simdist.measures.kernels import RBF, Matern52
from simdist.runner import Context, Event, Job, Record, Task, run
from simdist.runner.events import RoundStarted
from simdist.stages.gp import PredictConfig, PredictStage, SparseGPConfig, SparseGPStage, read_model
from simdist.stages.gp.local import fit_local
from simdist.stages.gp.table import Arrays, chances, held_out
from simdist.store import Dataset

KERNEL = 1.2 * RBF((1.0, 1.5, 2.0))
FIXED = SparseGPConfig(KERNEL, ("y",), inducing=40, optimize=False, held_out=0.0, noise=0.05)
FITTED = SparseGPConfig(
    1.0 * RBF(ard=True), ("y",), inducing=25, evaluations=6, mini_rows=200, mini_evaluations=4
)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    return regression()


@pytest.fixture(scope="module")
def vectors(data) -> Dataset:
    X, y = data
    rng = np.random.default_rng(1)
    return stored(X, y=y, twice=2 * y, spread=rng.uniform(0.5, 2.0, len(y)))


@pytest.fixture(autouse=True)
def short_spans(monkeypatch):
    """Several tasks a pass, of few rows."""
    monkeypatch.setattr("simdist.grams.span_rows", lambda n, m, d=1: 200)


def test_the_bound_is_that_of_dense_arithmetic(data, vectors):
    X, y = data
    made = worked(SparseGPStage(), FIXED, {"vectors": vectors})
    model = read_model(made)
    standard = (y - y.mean()) / y.std()
    expected = dense_bound(KERNEL, model.Z, X, standard, np.full(len(y), 0.05), 1e-8)
    assert made.metrics["bound"] + len(y) * np.log(y.std()) == pytest.approx(expected, rel=1e-9)
    assert made.metrics["state"] == "given"
    assert made.metrics["noise"] == pytest.approx([0.05 * y.var()])


def test_rows_with_noise_of_their_own_weigh_by_it(data, vectors):
    X, y = data
    spread = np.concatenate(
        [vectors.store.read_table(s.objects["rows"])["spread"] for s in vectors.shards]
    )
    made = worked(SparseGPStage(), replace(FIXED, noise_column="spread"), {"vectors": vectors})
    standard = (y - y.mean()) / y.std()
    Z = read_model(made).Z
    expected = dense_bound(KERNEL, Z, X, standard, 0.05 * spread, 1e-8)
    assert made.metrics["bound"] + len(y) * np.log(y.std()) == pytest.approx(expected, rel=1e-9)


def test_a_stored_fit_finds_what_one_in_memory_finds(data, vectors):
    X, y = data
    made = worked(SparseGPStage(), FITTED, {"vectors": vectors})
    found = fit_local(Arrays(X, y[:, None]), FITTED)
    for name in (
        "bound",
        "trace_gap",
        "noise",
        "evaluations",
        "evaluations_on_sample",
        "held_out",
        "calibration",
    ):
        assert made.metrics[name] == pytest.approx(found.report[name], rel=1e-6), name
    assert np.allclose(read_model(made).Z, found.model.Z, atol=1e-5)
    assert made.metrics["evaluations"] == 6
    assert made.metrics["evaluations_on_sample"] == 4


class Stopped(SparseGPStage):
    """Fails in the gradient of the fourth evaluation."""

    def compute(self, context: Context, task: Task) -> Record:
        if task.key == "slope-3-00002":
            raise InputError("stopped by the test")
        return super().compute(context, task)


def test_a_fit_that_fails_goes_on_at_its_last_round_to_the_same_answer(data):
    X, y = data
    given, again = stored(X, y=y), stored(X, y=y)
    with open_engine("local", workers=1) as engine:
        with pytest.raises(InputError, match="stopped by the test"):
            run(Job(Stopped(), FITTED, {"vectors": given}), store=given.store, engine=engine)
        told: list[Event] = []
        made = run(
            Job(SparseGPStage(), FITTED, {"vectors": given}),
            store=given.store,
            engine=engine,
            listeners=[told.append],
        )
    started = [event for event in told if isinstance(event, RoundStarted)]
    reused = {event.round for event in started if event.done == event.tasks}
    assert {"survey", "begin", "pass-0", "step-2", "bound-3"} <= reused
    assert "slope-3" not in reused
    clean = worked(SparseGPStage(), FITTED, {"vectors": again})
    assert clean.metrics == made.metrics
    assert read_model(clean).Z.tobytes() == read_model(made).Z.tobytes()


def test_all_engines_give_the_same_bound(engine: Engine, data, tmp_path):
    X, y = data
    vectors = stored(X[:500], tmp_path, y=y[:500])
    config = replace(FITTED, evaluations=2, mini_evaluations=0, inducing=15)
    made = worked(SparseGPStage(), config, {"vectors": vectors}, engine)
    expected = fit_local(Arrays(X[:500], y[:500, None]), config).report["bound"]
    assert made.metrics["bound"] == pytest.approx(expected, rel=1e-8)


def test_inducing_points_that_stay_are_chosen_anew_and_the_best_end_is_kept(data, vectors):
    config = replace(FITTED, optimize_inducing=False, evaluations=16, reselections=1)
    found = fit_local(Arrays(data[0], data[1][:, None]), config)
    made = worked(SparseGPStage(), config, {"vectors": vectors})
    assert made.metrics["reselections"] == 1
    assert made.metrics["bound"] == pytest.approx(found.report["bound"], rel=1e-6)
    n = found.report["rows"]
    scale = float(np.log(found.report["target_scale"][0]))
    assert found.report["bound"] / n + scale == pytest.approx(max(found.bounds), abs=1e-6)


def test_predictions_of_stored_rows_are_those_of_the_model(data, vectors):
    X, _ = data
    model = worked(SparseGPStage(), replace(FIXED, targets=("y", "twice")), {"vectors": vectors})
    made = worked(PredictStage(), PredictConfig(), {"vectors": vectors, "model": model})
    table = made.store.read_table(made.shards[0].objects["table"])
    mean, latent = read_model(model).moments(X)
    assert table.column_names[:4] == ["row", "id", "mean_y", "mean_twice"]
    assert np.allclose(table["mean_twice"], mean[:, 1])
    assert np.allclose(table["mean_twice"], 2 * np.array(table["mean_y"]), rtol=1e-9)
    assert np.allclose(table["latent_variance_y"], latent[:, 0])
    assert np.all(np.array(table["variance_y"]) > np.array(table["latent_variance_y"]))
    assert made.rows == len(X)
    other = stored(X[:5, :2])
    with pytest.raises(InputError, match="rows of 2 columns"):
        worked(PredictStage(), PredictConfig(), {"vectors": other, "model": model})
    with pytest.raises(InputError, match="expected a model of sparse_gp"):
        read_model(vectors)


def test_rows_held_out_are_scored_and_not_learned_from(data, vectors):
    config = replace(FIXED, held_out=0.25)
    made = worked(SparseGPStage(), config, {"vectors": vectors})
    out = held_out(config, 0, len(data[1]))
    told = made.metrics["held_out"]
    assert told["rows"] == out.sum()
    assert made.metrics["rows"] == len(out) - out.sum()
    model = read_model(made)
    mean, latent = model.moments(data[0][out])
    error, variance = data[1][out] - mean[:, 0], latent[:, 0] + model.noise_variance
    assert told["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
    z2 = error**2 / variance
    assert told["mean_z2"] == pytest.approx(np.mean(z2))
    assert told["nlpd"] == pytest.approx(np.mean(0.5 * np.log(2 * np.pi * variance) + z2 / 2))
    assert told["coverage_95"] == pytest.approx(np.mean(z2 < 1.959964**2))


def test_calibrated_variances_agree_with_errors_of_rows_left_out(data):
    X, y = data
    config = replace(FITTED, held_out=0.0, evaluations=10)
    plain = fit_local(Arrays(X, y[:, None]), replace(config, calibrate=False)).model
    found = fit_local(Arrays(X, y[:, None]), config).model
    standard = (y - plain.mean) / plain.scale
    A = plain.whitening.columns(X)
    # The Gaussian model of all rows, each left out in turn: Rasmussen and Williams, 5.12.
    inverse = np.linalg.inv(A.T @ A + plain.noise[0] * np.eye(len(y)))
    errors = (inverse @ standard) / np.diag(inverse)
    gap = plain.kernel.diagonal(X) - np.sum(A**2, axis=0)
    expected = np.mean(errors**2 / (1 / np.diag(inverse) + gap))
    assert found.calibration == pytest.approx([expected], rel=1e-6)
    assert np.array_equal(plain.calibration, [1.0])
    assert np.allclose(found.moments(X)[1], expected * plain.moments(X)[1], rtol=1e-6)


def test_what_is_held_out_follows_from_the_row_and_the_seed():
    whole = chances(3, 1, 0, 10_000)
    assert np.array_equal(chances(3, 1, 4_000, 5_000), whole[4_000:5_000])
    assert abs(whole.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(whole, chances(4, 1, 0, 10_000))[0, 1]) < 0.05
    assert abs(np.corrcoef(whole, chances(3, 2, 0, 10_000))[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            lambda y: [None if i == 777 else v for i, v in enumerate(y)],
            "is NULL in row 777.*row-777",
        ),
        (lambda y: np.where(np.arange(len(y)) == 305, np.nan, y), r"is nan in row 305.*row-305"),
        (lambda y: np.full(len(y), 3.0), r"target 'y' is 3 in all 900 rows"),
        (lambda y: [str(v) for v in y], "holds string; expected numbers"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(data, column, message):
    X, y = data
    given = stored(X, y=column(y))
    with pytest.raises(InputError, match=message):
        worked(SparseGPStage(), FIXED, {"vectors": given})


@pytest.mark.parametrize(("rows", "held_out"), [(1, 0.0), (2, 0.9)])
def test_one_row_to_learn_from_is_refused(data, rows, held_out):
    X, y = data
    given = stored(X[:rows], y=y[:rows])
    with pytest.raises(InputError, match=r"row\(s\) to learn from.*needs at least 2"):
        worked(SparseGPStage(), replace(FIXED, inducing=1, held_out=held_out), {"vectors": given})


def test_a_column_that_was_not_kept_is_refused_with_those_that_were(vectors):
    with pytest.raises(InputError, match="no target column 'price'; it keeps: spread, twice, y"):
        worked(SparseGPStage(), replace(FIXED, targets=("price",)), {"vectors": vectors})
    bad = stored(regression(50)[0], y=regression(50)[1], noise=np.full(50, -1.0))
    config = replace(FIXED, noise_column="noise", inducing=5)
    with pytest.raises(InputError, match="row 0 has noise -1"):
        worked(SparseGPStage(), config, {"vectors": bad})


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": ()},
        {"inducing": 0},
        {"held_out": 0.95},
        {"noise_floor": 0.0},
        {"noise": 1e-9},
        {"jitter": 0.5},
        {"select": "random"},
        {"start": "zero"},
        {"evaluations": 0},
        {"reselections": -1},
    ],
)
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        replace(FIXED, **wrong)


def test_a_forecast_follows_from_rows_and_inducing_points(vectors):
    config = SparseGPConfig(1.0 * Matern52(ard=True), ("y",), inducing=512)
    small, large = (SparseGPStage().forecast(config, n, 8) for n in (20_000, 200_000))
    assert large.flops > 9 * small.flops
    assert large.nbytes < 400 << 20
