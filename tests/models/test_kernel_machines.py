"""KernelRidge, KernelPCA and KernelSVM beside scikit-learn's exact ones, and on stored rows."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import KernelPCA as ExactPCA
from sklearn.kernel_ridge import KernelRidge as ExactRidge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import simdist as sd
from simdist import KernelPCA, KernelRidge, KernelSVM
from simdist.errors import ConfigError, InputError
from simdist.stages.machines.centers import choose
from simdist.store import Dataset

SHARED = Path(__file__).parents[3] / "shared" / "data"


@parametrize_with_checks([KernelRidge(), KernelPCA(), KernelSVM()])
def test_they_are_scikit_learn_estimators(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def curve() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((250, 3))
    return x, np.sin(x[:, 0]) + x[:, 1] ** 2 + 0.1 * rng.standard_normal(250)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x[:400] / 16.0, y[:400]


NEW = np.random.default_rng(9).standard_normal((40, 3))


@pytest.mark.parametrize("alpha", [1.0, 1e-3])
@pytest.mark.parametrize("outputs", [1, 2])
def test_ridge_is_the_exact_one_where_every_row_is_a_centre(curve, alpha, outputs):
    x, y = curve
    Y = y if outputs == 1 else np.column_stack([y, x[:, 2]])
    ours = KernelRidge("RBF(1.5)", alpha=alpha).fit(x, Y)
    theirs = ExactRidge(alpha=alpha, kernel="rbf", gamma=0.5 / 1.5**2).fit(x, Y)
    assert ours.predict(NEW).shape == theirs.predict(NEW).shape
    assert np.allclose(ours.predict(NEW), theirs.predict(NEW), atol=1e-6)


def test_weights_of_a_ridge_are_those_of_the_exact_one(curve):
    x, y = curve
    weights = np.random.default_rng(1).uniform(0, 2, 250)
    ours = KernelRidge("RBF(1.5)", alpha=0.1).fit(x, y, weights)
    theirs = ExactRidge(alpha=0.1, kernel="rbf", gamma=0.5 / 1.5**2).fit(x, y, weights)
    assert np.allclose(ours.predict(NEW), theirs.predict(NEW), atol=1e-6)


def test_conjugate_gradients_are_the_exact_ridge_too(curve):
    x, y = curve
    ours = KernelRidge("RBF(1.5)", solver="cg", tol=1e-10, max_iter=300).fit(x, y)
    theirs = ExactRidge(alpha=1.0, kernel="rbf", gamma=0.5 / 1.5**2).fit(x, y)
    assert ours.metrics_["state"] == "converged"
    assert np.allclose(ours.predict(NEW), theirs.predict(NEW), atol=1e-5)


def test_the_alpha_that_is_chosen_is_the_one_that_leaving_rows_out_prefers(curve):
    x, y = curve
    x, y = x[:60], y[:60]
    alphas = [1e-3, 0.1, 10.0]
    found = KernelRidge("RBF(1.5)", alphas=alphas, centers=x).fit(x, y)
    errors = []
    for alpha in alphas:
        left = []
        for row in range(60):
            rest = np.arange(60) != row
            one = KernelRidge("RBF(1.5)", alpha=alpha, centers=x).fit(x[rest], y[rest])
            left.append(one.predict(x[row : row + 1])[0] - y[row])
        errors.append(np.sqrt(np.mean(np.square(left))))
    assert np.allclose(found.errors_[:, 0], errors, rtol=1e-6)
    assert found.alpha_ == alphas[int(np.argmin(errors))]


def test_a_constant_is_fitted_without_penalty(curve):
    x, y = curve
    far = KernelRidge("RBF(1.5)", alpha=1e6, fit_intercept=True).fit(x, y + 1000.0)
    assert np.allclose(far.predict(NEW), y.mean() + 1000.0, atol=0.5)
    assert KernelRidge("RBF(1.5)", alpha=1e6).fit(x, y + 1000.0).predict(NEW).max() < 10


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_a_constant_target_copies_of_rows_and_all_scales_are_fine(scale):
    x = np.repeat(np.random.default_rng(0).standard_normal((20, 2)), 3, axis=0)
    found = KernelRidge(alphas=[0.01, 1.0], fit_intercept=True, centers=500).fit(
        x, np.full(60, scale)
    )
    assert len(found.centers_) <= 20
    assert np.allclose(found.predict(x) / scale, 1.0)
    line = KernelRidge("Linear()", alpha=1e-9).fit(x * 1e-6, x[:, 0])
    assert np.allclose(line.predict(x * 1e-6), 0.0, atol=3.0)
    assert np.isfinite(KernelRidge().fit(x * scale, x[:, 0]).predict(x * scale)).all()


def test_one_row_is_fitted_and_no_target_or_one_that_is_not_finite_is_refused():
    one = KernelRidge(alpha=1e-12).fit([[1.0, 2.0]], [3.0])
    assert np.allclose(one.predict([[1.0, 2.0]]), 3.0)
    y = np.ones(20)
    y[13] = np.nan
    with pytest.raises(InputError, match="y contains NaN: row 13"):
        KernelRidge().fit(np.eye(20), y)
    with pytest.raises(ValueError, match="y contains NaN: row 13"):
        KernelSVM().fit(np.eye(20), y)
    with pytest.raises(ConfigError, match="white noise"):
        KernelRidge("RBF() + White(0.1)").fit(np.eye(5), np.ones(5))


@pytest.mark.parametrize("components", [2, None])
def test_components_are_the_exact_ones_where_every_row_is_a_centre(curve, components):
    x = curve[0][:80]
    gamma = 0.5 / 1.5**2
    ours = KernelPCA(components, kernel="RBF(1.5)").fit(x)
    theirs = ExactPCA(components, kernel="rbf", gamma=gamma).fit(x)
    shared = min(len(ours.eigenvalues_), 40)
    assert np.allclose(ours.eigenvalues_[:shared], theirs.eigenvalues_[:shared], atol=1e-7)
    found, expected = ours.transform(NEW)[:, :8], theirs.transform(NEW)[:, :8]
    signs = np.sign((found * expected).sum(axis=0))
    assert np.allclose(found * signs, expected, atol=1e-5)


def test_the_way_back_is_that_of_the_exact_one(curve):
    x = curve[0][:80]
    settings = {"fit_inverse_transform": True, "alpha": 0.1}
    ours = KernelPCA(3, kernel="RBF(1.5)", **settings).fit(x)
    theirs = ExactPCA(3, kernel="rbf", gamma=0.5 / 1.5**2, **settings).fit(x)
    back = ours.inverse_transform(ours.transform(NEW))
    assert np.allclose(back, theirs.inverse_transform(theirs.transform(NEW)), atol=1e-4)
    with pytest.raises(ConfigError, match="fit_inverse_transform=True"):
        KernelPCA(2).fit(x).inverse_transform(np.zeros((1, 2)))


def test_rows_that_are_all_the_same_have_no_components():
    with pytest.raises(InputError, match="no direction in which they differ"):
        KernelPCA(kernel="RBF(1.0)").fit(np.ones((10, 3)))
    shares = KernelPCA(2, kernel="Linear()").fit(np.eye(10)).metrics_["explained"]
    assert len(shares) == 2
    assert sum(shares) <= 1.0


def test_a_squared_hinge_is_that_of_liblinear_on_the_features(digits):
    x, y = digits
    ours = KernelSVM(3.0, kernel="RBF(3.0)", fit_intercept=False, tol=1e-9).fit(x, y)
    features = choose("RBF(3.0)", x).whitening.columns(x).T
    theirs = LinearSVC(C=3.0, dual=False, tol=1e-9, fit_intercept=False).fit(features, y)
    assert np.allclose(ours.decision_function(x), theirs.decision_function(features), atol=1e-4)


@pytest.mark.filterwarnings("error")
def test_a_hinge_is_that_of_libsvm(digits):
    x, y = digits
    names = np.where(y < 5, "low", "high")
    ours = KernelSVM(2.0, loss="hinge", kernel="RBF(3.0)").fit(x, names)
    theirs = SVC(C=2.0, gamma=0.5 / 3.0**2, tol=1e-7).fit(x, names)
    assert ours.classes_.tolist() == ["high", "low"]
    assert np.allclose(ours.decision_function(x), theirs.decision_function(x), atol=5e-3)
    assert np.array_equal(ours.predict(x), theirs.predict(x))


def test_fewer_centres_than_rows_do_nearly_as_well(digits):
    x, y = digits
    some = KernelSVM(3.0, kernel="RBF(3.0)", centers=120).fit(x[:300], y[:300])
    assert some.score(x[300:], y[300:]) > 0.93
    assert some.dual_coef_.shape == (120, 10)


def test_svm_refuses_one_class_and_says_where_looks_were_not_enough(digits):
    x, y = digits
    with pytest.raises(ValueError, match="1 class"):
        KernelSVM().fit(x[:10], np.zeros(10, int))
    with pytest.warns(RuntimeWarning, match="did not converge"):
        KernelSVM(1e3, max_iter=2).fit(x, y)


def test_they_work_in_pipelines_searches_clones_and_pickles(curve):
    x, y = curve
    pipe = make_pipeline(StandardScaler(), KernelPCA(5, centers=50), KernelRidge(centers=50))
    search = GridSearchCV(pipe, {"kernelridge__alpha": [0.1, 1e4]}, cv=2).fit(x, y)
    assert search.best_params_["kernelridge__alpha"] == 0.1
    best = search.best_estimator_
    assert np.array_equal(pickle.loads(pickle.dumps(best)).predict(x), best.predict(x))
    kernel = 2.0 * sd.kernels.RBF(1.5) + sd.kernels.Constant(1.0)
    assert clone(KernelRidge(kernel)).kernel == kernel
    assert KernelRidge(kernel).get_params()["kernel"] == kernel


@pytest.fixture(scope="module")
def stored(curve, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    x, y = curve[0].astype(np.float32), curve[1]
    folder = tmp_path_factory.mktemp("stored")
    columns = {
        "v": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 3),
        "y": y,
        "kind": np.where(y > 1, "high", "low"),
    }
    pq.write_table(pa.table(columns), folder / "x.parquet")
    store = sd.open_store(folder / "store")
    keep = ["y", "kind"]
    return sd.import_vectors(str(folder / "x.parquet"), vector="v", keep=keep, store=store)


def test_a_model_of_stored_rows_is_a_dataset_that_opens_by_name(curve, stored):
    x = curve[0].astype(np.float32)
    ridge = KernelRidge("RBF(1.5)", alphas=[0.1, 1.0], centers=64).fit(stored, "y")
    stored.store.name("prices", ridge.dataset_.fingerprint)
    opened = KernelRidge.open(stored.store.dataset("prices"))
    assert np.array_equal(opened.predict(x), ridge.predict(x))
    assert opened.alpha_ == ridge.alpha_
    assert abs(ridge.score(stored, "y") - ridge.score(x, curve[1])) < 1e-9
    table = ridge.predict(stored)
    said = table.store.read_table(table.shards[0].objects["table"])
    assert np.allclose(said["prediction"].to_numpy(), ridge.predict(x))
    with pytest.raises(InputError, match="a dataset of kernel_ridge, not of kernel_svm"):
        KernelSVM.open(ridge.dataset_)


def test_classes_and_components_of_stored_rows_are_those_of_arrays(curve, stored):
    x, kind = curve[0].astype(np.float32), np.where(curve[1] > 1, "high", "low")
    svm = KernelSVM(2.0, kernel="RBF(1.5)", centers=64).fit(stored, "kind")
    same = KernelSVM(2.0, kernel="RBF(1.5)", centers=64).fit(x, kind)
    assert np.allclose(svm.decision_function(x), same.decision_function(x), atol=1e-9)
    assert svm.score(stored, "kind") == svm.score(x, kind)
    pca = KernelPCA(3, kernel="RBF(1.5)", centers=64).fit(stored)
    scores = pca.transform(stored)
    assert scores.metrics["dim"] == 3
    held = scores.store.read_array(scores.shards[0].objects["vectors"])
    assert np.allclose(held, pca.transform(x), atol=1e-5)
    assert KernelPCA.open(pca.dataset_).transform(x).shape == (250, 3)


def test_arrays_through_an_engine_give_the_same_and_leave_a_model_where_one_is_asked_for(
    curve, tmp_path
):
    x, y = curve[0].astype(np.float32), curve[1]
    weights = np.arange(250) % 3
    plain = KernelRidge("RBF(1.5)", centers=64).fit(x, y, weights)
    through = KernelRidge("RBF(1.5)", centers=64, engine="local").fit(x, y, weights)
    assert np.allclose(plain.predict(x), through.predict(x), atol=1e-9)
    assert not hasattr(through, "dataset_")
    kept = KernelSVM(kernel="RBF(1.5)", centers=64).fit(
        x, y > 1, weights, store=str(tmp_path / "store")
    )
    assert kept.classes_.dtype == np.bool_
    assert kept.dataset_.rows == 64
    with pytest.raises(ConfigError, match="was fitted on arrays"):
        plain.predict(kept.dataset_)


@pytest.mark.shared
def test_three_hundred_centres_tell_handwritten_digits_apart():
    if not SHARED.exists():
        pytest.skip(f"needs {SHARED}/mnist-10k.npz: the shared data beside the checkout")
    data = np.load(SHARED / "mnist-10k.npz")
    x = data["images"].reshape(10_000, 784).astype(np.float32) / 255
    y = data["labels"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = KernelSVM(10.0, kernel="RBF(5.0)", centers=300, tol=1e-2).fit(x[:3000], y[:3000])
    assert found.score(x[8000:], y[8000:]) > 0.9
