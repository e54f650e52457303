"""`DirichletGP` on arrays and on stored rows, beside the dense Gaussian process it stands for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from stages.importing import bring_in, parquet, shared_file, table

from simdist import DirichletGP
from simdist.engine import Engine
from simdist.errors import ConfigError, InputError
from simdist.grams import Whitening
from simdist.measures.kernels import RBF, White
from simdist.stages.dirichlet.bound import Softness, class_bound, posterior
from simdist.stages.dirichlet.calibrate import (
    Sharpness,
    classification_report,
    log_loss,
    probabilities,
    sharpness_of,
)
from simdist.stages.dirichlet.fit import Rows, _Objective, class_sums
from simdist.store import Dataset
from simdist.types import Array

SMALL: dict[str, Any] = {"inducing": 40, "subset": 120, "iterations": 4}


def moons(n: int, *, seed: int = 0) -> tuple[Array, Array]:
    """Three classes: two bands and a disc, overlapping a little."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 2))
    y = np.where(np.hypot(*x.T) < 0.9, 2, (x[:, 1] > np.sin(2 * x[:, 0])).astype(int))
    return (x + 0.08 * rng.standard_normal((n, 2))).astype(np.float32), y


def stored(tmp_path: Path, x: Array, y: Array, name: str = "rows", **more: Any) -> Dataset:
    return bring_in(parquet(tmp_path / f"{name}.parquet", table(x, y=y)), keep=["y"], **more)


@parametrize_with_checks([DirichletGP(inducing=12, subset=24, iterations=1)])
def test_it_is_a_scikit_learn_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


def test_with_every_row_a_point_bound_means_and_variances_are_the_dense_ones() -> None:
    x, y = moons(60)
    new, _ = moons(7, seed=1)
    kernel, softness = 1.5 * RBF(0.7), Softness(0.02, 3.0)
    whitening = Whitening.of(kernel, x, jitter=1e-10)
    sums = class_sums(whitening, Rows(x, y), 3)
    mean, variance = posterior(sums, softness).latent(whitening.columns(new), kernel.diagonal(new))
    (s1, s0), (t1, t0) = softness.noise, softness.targets
    K, across, likelihood = 3.0 * kernel(x), 3.0 * kernel(new, x), 0.0
    for c in range(3):
        t = np.where(y == c, t1, t0)
        t, mu = t - t.mean(), t.mean()
        C = K + np.diag(np.where(y == c, s1, s0))
        likelihood += -0.5 * (
            t @ np.linalg.solve(C, t) + np.linalg.slogdet(C)[1] + 60 * np.log(2 * np.pi)
        )
        assert np.allclose(mean[:, c], mu + across @ np.linalg.solve(C, t), atol=1e-6)
        left = 4.5 - np.einsum("ij,ji->i", across, np.linalg.solve(C, across.T))
        assert np.allclose(variance[:, c], left, atol=1e-6)
    assert class_bound(sums, softness).value == pytest.approx(likelihood, rel=1e-6)


def test_the_gradient_of_the_bound_is_that_of_finite_differences() -> None:
    x, y = moons(80)
    kernel = (1.5 * RBF(ard=True)).for_dim(2)
    objective = _Objective(kernel, Rows(x, y), 3, x[:15].astype(np.float64), None)
    theta = kernel.theta
    _, slope = objective(theta)
    for i, step in enumerate(1e-5 * np.eye(len(theta))):
        numeric = (objective(theta + step)[0] - objective(theta - step)[0]) / 2e-5
        assert slope[i] == pytest.approx(numeric, rel=1e-5)


def test_it_separates_classes_and_its_probabilities_can_be_trusted() -> None:
    x, y = moons(1500)
    new, known = moons(1500, seed=1)
    gp = DirichletGP(inducing=100, subset=400, iterations=6).fit(x, y)
    p = gp.predict_proba(new)
    scores = classification_report(p, known)
    assert scores["accuracy"] > SVC(C=10, gamma=1.0).fit(x, y).score(new, known) - 0.02
    assert scores["ece"] < 0.04
    assert np.allclose(p.sum(axis=1), 1.0)
    assert gp.held_out_["rows"] == 150
    assert gp.held_out_["accuracy"] == pytest.approx(scores["accuracy"], abs=0.06)
    assert gp.score(new, known) == scores["accuracy"]


@pytest.mark.parametrize("labels", ["numbers", "names"])
def test_stored_rows_give_the_model_of_the_arrays_bit_for_bit(tmp_path: Path, labels: str) -> None:
    x, y = moons(300)
    new, known = moons(50, seed=1)
    if labels == "names":
        y, known = (np.array(["band", "other", "disc"])[codes] for codes in (y, known))
    here = DirichletGP(**SMALL).fit(x, y)
    rows = stored(tmp_path, x, y)
    there = DirichletGP(**SMALL).fit(rows, "y")
    beside = DirichletGP(**SMALL).fit(rows, y)  # the same labels as an array
    assert there.classes_.tolist() == here.classes_.tolist()
    assert there.held_out_ == here.held_out_ == beside.held_out_
    queries = stored(tmp_path, new, known, "new", store=rows.store)
    found = there.predict_proba(queries)
    expected = here.predict_proba(new)
    assert found.open().probabilities.tobytes() == expected.tobytes()
    assert found.open().labels.tolist() == here.predict(new).tolist()
    assert np.array_equal(there.predict_proba(new), expected)
    made = rows.store.read_table(found.shards[0].objects["table"])
    assert made["label"].to_pylist() == here.predict(new).tolist()
    assert DirichletGP.open(there.dataset_).predict(new).tolist() == here.predict(new).tolist()


def test_the_same_model_on_every_engine(engine: Engine, tmp_path: Path) -> None:
    x, y = moons(200)
    here = DirichletGP(**SMALL).fit(x, y)
    there = DirichletGP(**SMALL, engine=engine, scratch=str(tmp_path / "scratch")).fit(x, y)
    assert there.held_out_ == here.held_out_
    assert np.array_equal(there.predict_proba(x[:20]), here.predict_proba(x[:20]))


# -- calibration -----------------------------------------------------------------------------------


def test_a_temperature_is_found_where_means_are_too_sure() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    p = probabilities(logits, np.zeros_like(logits), Sharpness(1.0, 0.0))
    codes = np.array([rng.choice(3, p=row) for row in p])
    found = sharpness_of(4.0 * logits, np.zeros_like(logits), codes)
    assert found.t == pytest.approx(0.25, rel=0.1)
    assert classification_report(p, codes)["ece"] < 0.03
    sure = probabilities(4.0 * logits, np.zeros_like(logits), Sharpness(1.0, 0.0))
    assert log_loss(sure, codes) > log_loss(p, codes)
    assert classification_report(sure, codes)["ece"] > 0.1


# -- what users bring ------------------------------------------------------------------------------


def test_one_class_copies_and_few_rows_are_fine() -> None:
    x, y = moons(30)
    assert DirichletGP(**SMALL).fit(x, np.full(30, "a")).predict(x[:3]).tolist() == ["a"] * 3
    few = DirichletGP(inducing=500).fit(x[:5], [0, 1, 0, 1, 1])
    assert few.held_out_ is None
    assert np.isfinite(few.predict_proba(x)).all()
    copies = DirichletGP(**SMALL).fit(np.repeat(x, 6, axis=0), np.repeat(y, 6))
    assert np.isfinite(copies.predict_proba(x)).all()
    assert copies.score(x, y) > 0.9


@pytest.mark.parametrize("unit", [1e-10, 1e10])
def test_any_unit_gives_the_same_answer(unit: float) -> None:
    x, y = moons(400)
    plain = DirichletGP(**SMALL).fit(x, y).score(x, y)
    assert DirichletGP(**SMALL).fit(x * np.float32(unit), y).score(x * unit, y) > plain - 0.03


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    x, y = moons(40)
    rows = stored(tmp_path, x, np.where(np.arange(40) == 17, None, y.astype(object)))
    with pytest.raises(InputError, match="NULL in row 17"):
        DirichletGP(**SMALL).fit(rows, "y")
    with pytest.raises(InputError, match=r"keeps no column 'label'.*Kept: y"):
        DirichletGP(**SMALL).fit(rows, "label")
    measured = stored(tmp_path, x, y + 0.5, "measured")
    with pytest.raises(InputError, match="predict measured values"):
        DirichletGP(**SMALL).fit(measured, "y")
    with pytest.raises(ConfigError, match="targets bring their own"):
        DirichletGP(RBF() + White(0.1), **SMALL).fit(x, y)
    with pytest.raises(ConfigError, match=r"held_out=1\.5"):
        DirichletGP(held_out=1.5).fit(x, y)
    with pytest.raises(InputError, match="more than 1000 classes"):
        DirichletGP(**SMALL).fit(np.zeros((3300, 2)), np.repeat(np.arange(1100), 3))


def test_it_stands_in_a_pipeline_is_cloned_and_pickled() -> None:
    x, y = load_digits(return_X_y=True)
    gp = DirichletGP(RBF(2.0), inducing=150, subset=300, iterations=3)
    assert clone(gp).get_params()["kernel"] == gp.kernel
    pipeline = make_pipeline(MinMaxScaler(), gp).fit(x[:1200], y[:1200])
    assert pipeline.score(x[1200:], y[1200:]) > 0.92
    again = pickle.loads(pickle.dumps(pipeline))
    assert np.array_equal(again.predict_proba(x[1200:]), pipeline.predict_proba(x[1200:]))


def test_a_stored_fit_resumes_with_what_stands(tmp_path: Path) -> None:
    x, y = moons(100)
    rows = stored(tmp_path, x, y)
    seen: list[Any] = []
    DirichletGP(**SMALL).fit(rows, "y")
    DirichletGP(**SMALL).fit(rows, "y", listeners=[seen.append])
    assert not [event for event in seen if type(event).__name__ == "TaskDone"]


@pytest.mark.shared
def test_handwritten_digits_are_told_apart() -> None:
    data = np.load(shared_file("mnist-10k.npz"))
    x = data["images"].reshape(10000, -1)[:1800] / np.float32(255)
    y = data["labels"][:1800]
    gp = DirichletGP(inducing=250, subset=300, iterations=1).fit(x[:1500], y[:1500])
    assert gp.score(x[1500:], y[1500:]) > 0.87
    assert gp.held_out_["ece"] < 0.12
