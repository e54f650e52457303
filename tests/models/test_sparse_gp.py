"""`SparseGP` as an estimator: exact where it can be, and right or clear where data are odd."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as theirs
from sklearn.utils.estimator_checks import check_estimator
from stages.gp.gp_data import regression, stored

import simdist as sd
from simdist.config import links, load
from simdist.errors import ConfigError, InputError
from simdist.models.chain import run_links
from simdist.models.predictions import JointPrediction

RBF = sd.kernels.RBF


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    X, y = regression(400)
    return X.astype(np.float64), y


@pytest.fixture(scope="module")
def fitted(data) -> sd.SparseGP:
    return sd.SparseGP(inducing=40, evaluations=25, held_out=0.2).fit(*data)


def small(**settings) -> sd.SparseGP:
    return sd.SparseGP(**({"inducing": 20, "evaluations": 8} | settings))


@pytest.mark.filterwarnings("ignore:inducing=:RuntimeWarning", "ignore:the noise:RuntimeWarning")
def test_it_is_an_estimator_as_scikit_learn_checks_it():
    found = check_estimator(small(evaluations=3), on_fail=None, on_skip=None)
    failed = [c["check_name"] for c in found if c["status"] not in ("passed", "skipped")]
    assert not failed


def test_with_every_row_an_inducing_point_it_is_the_exact_process(data):
    X, y = data[0][:120], data[1][:120]
    kernel, noise = 1.5 * RBF((1.0, 2.0, 3.0)), 0.04
    gp = sd.SparseGP(kernel, inducing=X, optimize=False, noise=noise, jitter=1e-12).fit(X, y)
    exact = GaussianProcessRegressor(
        theirs.ConstantKernel(1.5) * theirs.RBF([1.0, 2.0, 3.0]) + theirs.WhiteKernel(noise),
        optimizer=None,
        normalize_y=True,
    ).fit(X, y)
    new = data[0][120:140]
    mean, deviation = exact.predict(new, return_std=True)
    found = gp.predict_distribution(new)
    assert np.allclose(found.mean, mean, atol=1e-6)
    assert np.allclose(np.sqrt(found.variance), deviation, rtol=1e-6)
    evidence = exact.log_marginal_likelihood_value_ - len(y) * np.log(y.std())
    assert gp.report_["bound"] == pytest.approx(evidence, rel=1e-5)
    assert gp.report_["trace_gap"] == pytest.approx(0.0, abs=1e-6)


def test_fitting_finds_the_noise_and_which_columns_matter(fitted):
    told = fitted.report_
    assert np.sqrt(fitted.noise_variance_) == pytest.approx(0.1, abs=0.02)
    assert told["parameters"]["rbf.lengthscale[2]"] > 5 * told["parameters"]["rbf.lengthscale[0]"]
    assert told["held_out"]["rmse"] < 0.13
    assert 0.85 <= told["held_out"]["coverage_95"] <= 1.0
    assert told["trace_gap"] >= 0
    assert fitted.bounds_[-1] > fitted.bounds_[0]
    assert fitted.inducing_points_.shape == (40, 3)


def test_the_parts_of_a_distribution_agree(fitted, data):
    X, y = data[0][:30], data[1][:30]
    found = fitted.predict_distribution(X)
    latent = fitted.predict_distribution(X, joint="latent")
    observed = fitted.predict_distribution(X, joint="observed")
    assert isinstance(latent, JointPrediction)
    assert np.array_equal(found.mean, fitted.predict(X))
    assert np.allclose(found.variance - found.latent_variance, fitted.noise_variance_)
    assert np.allclose(np.diag(latent.covariance), found.latent_variance, atol=1e-9)
    assert np.allclose(np.diag(observed.covariance), found.variance, atol=1e-9)
    density = -0.5 * (np.log(2 * np.pi * found.variance) + (y - found.mean) ** 2 / found.variance)
    assert np.allclose(fitted.log_density(X, y), density)
    assert fitted.score(X, y) > 0.98
    drawn = fitted.sample(X, 4000, of="observed", random_state=1)
    assert drawn.shape == (4000, 30)
    error = np.cov(drawn.T) - observed.covariance
    assert np.abs(error).max() < 0.15 * observed.covariance.max()
    assert np.allclose(drawn.mean(axis=0), found.mean, atol=0.02)
    with pytest.raises(ConfigError, match="expected 'latent' or 'observed'"):
        fitted.predict_distribution(X, joint="both")


def test_outputs_share_a_pass_and_have_noise_of_their_own(data):
    X, y = data
    Y = np.column_stack([y, 3.0 * y - 7.0, np.cos(X[:, 1])])
    together = small(optimize=False, noise=0.02).fit(X, Y)
    apart = [small(optimize=False, noise=0.02).fit(X, Y[:, j]) for j in range(3)]
    assert np.allclose(together.predict(X[:9]), np.column_stack([a.predict(X[:9]) for a in apart]))
    assert together.report_["bound"] == pytest.approx(sum(a.report_["bound"] for a in apart))
    fitted = small().fit(X, Y)
    assert fitted.noise_variance_.shape == (3,)
    assert fitted.noise_variance_[1] == pytest.approx(9 * fitted.noise_variance_[0], rel=1e-6)
    assert fitted.predict_distribution(X[:4], joint="latent").covariance.shape == (3, 4, 4)
    assert fitted.sample(X[:4], 2).shape == (2, 4, 3)


def test_a_row_seen_twice_weighs_as_one_with_half_the_noise(data):
    X, y = data[0][:150], data[1][:150]
    settings = {"optimize": False, "noise": 0.02, "inducing": X[:30]}
    kernel = 1.0 * RBF(1.5)
    twice = sd.SparseGP(kernel, **settings).fit(np.vstack([X, X]), np.concatenate([y, y]))
    half = sd.SparseGP(kernel, **settings).fit(X, y, noise=np.full(150, 0.5))
    assert np.allclose(twice.predict(data[0][150:]), half.predict(data[0][150:]), atol=1e-9)


def test_a_stored_model_is_opened_by_its_dataset_and_predicts_datasets(data):
    X, y = data
    vectors = stored(X.astype(np.float32), y=y)
    gp = small().fit(vectors, "y")
    opened = sd.SparseGP.open(gp.dataset_)
    rows = X[:20].astype(np.float32)
    assert np.array_equal(gp.predict(rows), opened.predict(rows))
    assert opened.report_["held_out"] == gp.report_["held_out"]
    made = opened.predict_distribution(vectors).open()
    assert np.allclose(made.mean, gp.predict(X.astype(np.float32)), rtol=1e-9)
    with pytest.raises(InputError, match="expected a model of sparse_gp"):
        sd.SparseGP.open(vectors)
    with pytest.raises(ConfigError, match="fitted on arrays"):
        small().fit(X, y).predict_distribution(vectors)
    with pytest.raises(ConfigError, match="name the kept column"):
        small().fit(vectors, y)


def test_arrays_through_a_scratch_store_give_the_same_model(data, tmp_path):
    X, y = data[0].astype(np.float32), data[1]
    settings = {"inducing": X[:25].astype(np.float64), "evaluations": 4}
    here = sd.SparseGP(**settings).fit(X, y, noise=np.full(len(y), 2.0))
    there = sd.SparseGP(**settings).fit(X, y, noise=np.full(len(y), 2.0), scratch=str(tmp_path))
    assert there.report_["bound"] == pytest.approx(here.report_["bound"], rel=1e-9)
    assert np.allclose(there.predict(X), here.predict(X), atol=1e-6)
    assert not hasattr(there, "dataset_")


def test_many_inducing_points_are_fitted_block_by_block(data, monkeypatch):
    monkeypatch.setattr("simdist.stages.gp.memory.THREADED", 10)
    monkeypatch.setattr("simdist.stages.gp.memory.KEPT_NBYTES", 0)
    gp = small(random_state=1).fit(*data)
    monkeypatch.undo()
    assert gp.report_["bound"] == pytest.approx(small(random_state=1).fit(*data).report_["bound"])


def test_scales_and_offsets_of_rows_and_targets_do_not_matter(data):
    X, y = data
    plain = small().fit(X, y)
    scale = np.array([1e-7, 1e6, 1.0])
    moved = small().fit(X * scale + 1e3 * scale, 1e9 * y - 1e10)
    assert np.allclose(moved.predict(X * scale + 1e3 * scale), 1e9 * plain.predict(X) - 1e10,
                       atol=1e9 * 0.02)  # fmt: skip
    tiny = small().fit(X, 1e-12 * y)
    assert np.allclose(tiny.predict(X), 1e-12 * plain.predict(X), rtol=1e-6)


def test_a_target_without_noise_ends_at_the_floor_and_says_so(data):
    X = data[0][:, :2]
    y = X @ np.array([1.0, -2.0])
    with pytest.warns(RuntimeWarning, match="noise is at its floor"):
        gp = sd.SparseGP(inducing=20, evaluations=100).fit(X, y)
    found = gp.predict_distribution(X)
    assert np.allclose(found.mean, y, atol=2e-2)
    assert np.isfinite(gp.report_["bound"])
    assert np.all(found.variance > 0)


def test_duplicate_rows_and_collinear_inducing_points_are_fine(data):
    X, y = data
    line = np.linspace(-2, 2, 30)[:, None] * np.ones(3)
    for inducing in (np.repeat(X[:5], 4, axis=0), line):
        gp = sd.SparseGP(inducing=inducing, evaluations=5).fit(np.repeat(X, 2, 0), np.repeat(y, 2))
        assert np.isfinite(gp.predict(X)).all()
    few = sd.SparseGP(inducing=40, evaluations=3).fit(
        np.repeat(X[:10], 20, 0), np.repeat(y[:10], 20)
    )
    assert few.report_["inducing"] <= 10
    assert few.report_["inducing_asked"] == 40


def test_more_inducing_points_than_rows_are_cut_with_a_warning(data):
    with pytest.warns(RuntimeWarning, match="inducing=512 inducing points for 30 rows: cut to 30"):
        gp = sd.SparseGP(evaluations=3).fit(data[0][:30], data[1][:30])
    assert gp.report_["inducing"] == 30


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X, y: (X, np.where(np.arange(400) == 17, np.nan, y)), ValueError, "NaN: row 17"),
        (lambda X, y: (X, np.where(np.arange(400) == 3, np.inf, y)), InputError, "infinity: row 3"),
        (lambda X, y: (X, np.zeros(400)), InputError, "is 0 in all 400 rows"),
        (lambda X, y: (X[:1], y[:1]), ValueError, "n_samples=1"),
        (lambda X, y: (X, y[:10]), ValueError, "400, 10"),
        (lambda X, y: (np.where(X > 2.5, np.nan, X), y), ValueError, "NaN"),
        (lambda X, y: (1e-150 * X, y), InputError, "column 0 of the rows varies by 9.*e-151"),
        (lambda X, y: (1e150 * X, y), InputError, "Scale the rows to about unit spread"),
        (lambda X, y: (X, None), ValueError, "requires y to be passed"),
        (lambda X, y: (X, 1e-17 * y / y + 1e3), InputError, "in all 400 rows"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused(data, change, error, message):
    with pytest.raises(error, match=message):
        small().fit(*change(*data))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": RBF(1.0) + sd.kernels.White(0.1)}, "leave White out"),
        ({"kernel": "no such kernel"}, "kernel"),
        ({"inducing": np.zeros((4, 3, 2))}, r"expected a number, or finite points \[m, d\]"),
        ({"inducing": 0}, "inducing=0"),
        ({"random_state": -1}, "random_state=-1"),
        ({"held_out": 2.0}, "held_out=2.0"),
    ],
)
def test_settings_without_sense_are_refused(data, settings, message):
    with pytest.raises(ConfigError, match=message):
        sd.SparseGP(**settings).fit(*data)


def test_a_kernel_without_a_variance_is_given_a_free_one(data):
    gp = small(kernel=RBF(ard=True)).fit(*data)
    assert "scale.variance" in gp.report_["parameters"]
    assert clone(gp).kernel == RBF(ard=True)


def test_a_flow_fits_predicts_and_commits_both(tmp_path):
    path = tmp_path / "flow.yaml"
    path.write_text(
        f"""
name: regression
store: {tmp_path}/store
engine: {{kind: local, workers: 1}}
inputs:
  rows: {{path: "datasets://friedman", id: id, vector: x, keep: [y]}}
steps:
  model: {{stage: sparse_gp, of: rows, target: y, inducing: 20, evaluations: 3, mini_rows: 0}}
  predictions: {{stage: gp_predict, of: rows, model: model}}
"""
    )
    flow = load(path)
    store = flow.store.open()
    with flow.engine.open(store) as engine:
        made = run_links(links(flow, store=store), {}, store=store, engine=engine)
    model, predictions = made["model"], made["predictions"]
    assert model.metrics["held_out"]["rows"] > 400
    assert predictions.rows == 5000
    opened = sd.SparseGP.open(model)
    rows = np.stack(sd.datasets.load("friedman")["x"].to_numpy())[:10]
    table = predictions.store.read_table(predictions.shards[0].objects["table"])
    assert np.allclose(table["mean"][:10], opened.predict(rows))


@pytest.mark.parametrize(("rows", "target"), [(1e-80, 1e-150), (1e80, 1e150)])
def test_rows_and_targets_of_any_scale_give_the_same_answer_in_their_units(data, rows, target):
    X, y = data[0][:100], data[1][:100]
    plain = small(evaluations=3).fit(X, y).predict_distribution(X)
    moved = small(evaluations=3).fit(rows * X, target * y).predict_distribution(rows * X)
    assert np.allclose(moved.mean / target, plain.mean, atol=1e-6)
    assert np.allclose(moved.variance / target / target, plain.variance, rtol=1e-4)


def test_more_given_points_than_rows_are_a_model_all_the_same(data):
    X, y = data
    gp = sd.SparseGP(inducing=X[:200], evaluations=3).fit(X[:40], y[:40])
    found = gp.predict_distribution(X)
    assert np.isfinite(found.mean).all()
    assert (found.variance > 0).all()


def test_a_constant_column_and_copies_with_other_targets_are_fine(data):
    X, y = data[0][:60].copy(), data[1][:60]
    X[:, 1] = 4.0
    twice = sd.SparseGP(inducing=20, evaluations=5).fit(
        np.repeat(X, 2, 0), np.repeat(y, 2) + np.tile([0.5, -0.5], 60)
    )
    assert twice.noise_variance_ > 0.05
    assert np.isfinite(twice.predict(X)).all()
