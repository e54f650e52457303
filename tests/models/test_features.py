"""`Nystroem` and `RandomFeatures` as a user calls them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import kernel_approximation as peer
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from stages.importing import fresh_store

import simdist as sd
from simdist.errors import ConfigError, InputError
from simdist.measures.kernels import (
    RBF,
    ArcCosine,
    Cosine,
    Kernel,
    Laplacian,
    Linear,
    Matern12,
    Matern32,
    Matern52,
    RationalQuadratic,
    White,
)
from simdist.types import Array


@pytest.fixture(scope="module")
def rows() -> Array:
    return np.random.default_rng(0).standard_normal((600, 5))


@parametrize_with_checks([sd.Nystroem(), sd.RandomFeatures()])
def test_scikit_learn_takes_them(estimator, check):
    check(estimator)


@pytest.mark.parametrize("centers", ["random", "kmeans++", "pivots", "greedy"])
def test_values_between_centres_are_exact_and_none_has_more_variance(rows, centers):
    kernel = 2.0 * Matern52(1.5) + 0.3
    map_ = sd.Nystroem(kernel, 60, centers=centers).fit(rows)
    at_centers, features = map_.transform(map_.centers_), map_.transform(rows)
    assert features.shape == (600, 60)
    np.testing.assert_allclose(at_centers @ at_centers.T, kernel(map_.centers_), atol=1e-10)
    np.testing.assert_allclose(at_centers @ features.T, kernel(map_.centers_, rows), atol=1e-10)
    assert (np.square(features).sum(axis=1) <= kernel.diagonal(rows) + 1e-10).all()


def test_with_all_rows_for_centres_nothing_is_lost(rows):
    features = sd.Nystroem(RBF(0.5), 600).fit_transform(rows)
    np.testing.assert_allclose(features @ features.T, RBF(0.5)(rows), atol=1e-8)


def test_products_of_features_are_those_of_scikit_learn_with_the_same_centres(rows):
    own = sd.Nystroem(RBF(1.5), centers=rows[:40]).fit(rows)
    other = peer.Nystroem(gamma=1 / (2 * 1.5**2), n_components=40).fit(rows[:40])
    expected = other.transform(rows)
    found = own.transform(rows)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-9)


def test_pivots_and_spread_lose_less_than_drawing_where_rows_are_uneven():
    rng = np.random.default_rng(1)
    crowd, few = 0.05 * rng.standard_normal((1900, 3)), 4.0 * rng.standard_normal((100, 3))
    x = np.concatenate([crowd, few])
    lost = {}
    for centers in ("random", "kmeans++", "pivots", "greedy"):
        features = sd.Nystroem(RBF(1.0), 50, centers=centers).fit_transform(x)
        lost[centers] = len(x) - np.square(features).sum()
    assert max(lost["kmeans++"], lost["pivots"], lost["greedy"]) < 0.75 * lost["random"], lost


def test_copies_of_centres_are_left_out(rows):
    twice = np.concatenate([rows[:30], rows[:30]])
    map_ = sd.Nystroem(RBF(), centers=twice).fit(rows)
    assert len(map_.centers_) == 30
    assert map_.transform(rows).shape == (600, 30)
    assert len(map_.get_feature_names_out()) == 30


SPECTRAL = [
    RBF(1.5),
    RBF(2.0, active=(1, 3)),
    Matern12(2.0),
    Matern32((1.0, 2.0, 3.0, 1.0, 2.0)),
    Matern52(2.0),
    RationalQuadratic(2.0, alpha=1.0),
    Laplacian(4.0),
    Cosine(5.0),
    2.0 * RBF(1.5) + Matern12(1.0) + 0.5,
    3.0 * (RBF(1.5) * Matern32(3.0, active=(0, 1))),
    ArcCosine(order=0),
    0.5 * ArcCosine((1.0, 2.0, 0.5, 1.0, 1.0), order=1),
    ArcCosine(order=2, active=(0, 2)),
]


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("kernel", SPECTRAL, ids=str)
def test_random_features_have_the_kernel_for_their_mean(rows, kernel: Kernel, orthogonal):
    """The error of D features is about k(x, x) / sqrt(D)."""
    x = rows[:60]
    features = sd.RandomFeatures(kernel, 2000, orthogonal=orthogonal).fit_transform(x)
    assert features.shape == (60, 2000)
    error = np.sqrt(np.mean(np.square(features @ features.T - kernel(x))))
    assert error < 2.0 * np.sqrt(np.mean(np.square(kernel.diagonal(x))) / 1000)


def test_orthogonal_frequencies_lose_less(rows):
    x = rows[:200]
    errors = {}
    for orthogonal in (True, False):
        total = 0.0
        for seed in range(5):
            map_ = sd.RandomFeatures(RBF(2.0), 64, orthogonal=orthogonal, random_state=seed)
            features = map_.fit_transform(x)
            total += np.square(features @ features.T - RBF(2.0)(x)).sum()
        errors[orthogonal] = total
    assert errors[True] < 0.9 * errors[False]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_random_features_is_possible(rows, count):
    features = sd.RandomFeatures("rbf", count).fit_transform(rows)
    assert features.shape == (600, count)


def test_an_odd_number_of_them_has_the_same_mean(rows):
    x, total = rows[:20], 0.0
    for seed in range(100):
        features = sd.RandomFeatures(RBF(1.5), 3, random_state=seed).fit_transform(x)
        total = total + features @ features.T / 100
    assert np.abs(total - RBF(1.5)(x)).max() < 0.4


def test_float32_rows_have_the_features_of_float64_rows(rows):
    for map_ in (sd.Nystroem(RBF(2.0), 50), sd.RandomFeatures(RBF(2.0), 50)):
        narrow = rows.astype(np.float32)
        map_.fit(narrow)
        found = map_.transform(narrow)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, map_.transform(narrow.astype(np.float64)), atol=1e-5)


def test_digits_are_told_apart_nearly_as_well_as_by_the_kernel_itself():
    x, y = load_digits(return_X_y=True)
    x = x / 16.0
    train, test = np.arange(1200), np.arange(1200, len(x))
    exact = SVC(C=10.0).fit(x[train], y[train]).score(x[test], y[test])
    for step in (sd.Nystroem(None, 300), sd.RandomFeatures(None, 1000)):
        model = make_pipeline(step, LogisticRegression(C=100.0, max_iter=300))
        assert model.fit(x[train], y[train]).score(x[test], y[test]) > exact - 0.03


# -- stored datasets --


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> sd.Dataset:
    x = np.random.default_rng(2).standard_normal((5000, 4)).astype(np.float32)
    path = tmp_path_factory.mktemp("vectors") / "x.parquet"
    keys = [f"row-{i}" for i in range(5000)]
    pq.write_table(pa.table({"key": keys, "x": list(x), "label": np.arange(5000) % 3}), path)
    return sd.import_vectors(str(path), id="key", vector="x", keep=["label"], store=fresh_store())


def in_memory(dataset: sd.Dataset, role: str = "vectors") -> Array:
    return np.concatenate([dataset.store.read_array(s.objects[role]) for s in dataset.shards])


STEPS = [sd.Nystroem(RBF(1.5), 600, random_state=3), sd.RandomFeatures(Matern32(), 600)]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_a_dataset_becomes_a_dataset_with_the_features_of_its_array(stored, step):
    x = in_memory(stored)
    made = step.fit(stored).transform(stored)
    assert made.rows == 5000
    assert len(made.shards) == 2
    assert made.metrics["dim"] == 600
    np.testing.assert_allclose(in_memory(made), step.fit(x).transform(x), atol=1e-6)
    table = made.store.read_table(made.shards[1].objects["rows"])
    first = made.shards[0].rows
    assert table["id"][0].as_py() == f"row-{first}"
    assert table["label"].to_pylist()[:2] == [first % 3, (first + 1) % 3]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_a_model_at_rest_maps_as_it_did(stored, step):
    x = in_memory(stored)[:50]
    fitted = step.fit(stored)
    opened = type(step).open(stored.store.dataset(fitted.dataset_.fingerprint))
    assert opened.kernel_ == fitted.kernel_
    assert np.array_equal(opened.transform(x), fitted.transform(x))


def test_a_map_of_arrays_takes_a_dataset_and_an_engine(stored):
    x = in_memory(stored)
    map_ = sd.Nystroem(RBF(1.5), 20).fit(x)
    expected = map_.transform(x)
    np.testing.assert_allclose(in_memory(map_.transform(stored)), expected, atol=1e-6)
    np.testing.assert_allclose(map_.transform(x, engine="local"), expected, atol=1e-6)


def test_features_are_vectors_for_what_follows(stored):
    made = sd.RandomFeatures(RBF(), 32).fit(stored).transform(stored)
    graph = sd.knn_graph(made, 3, measure="euclidean", store=stored.store)
    assert graph.rows == 5000


def test_engines_agree_to_the_bit(stored, tmp_path, dask_engine):
    x = in_memory(stored)
    map_ = sd.Nystroem(RBF(1.5), 600).fit(x)
    found = map_.transform(x, engine=dask_engine, scratch=str(tmp_path))
    assert np.array_equal(found, map_.transform(x, engine="local"))


# -- what is refused --


def test_what_cannot_be_a_feature_map_is_refused(rows, stored):
    with pytest.raises(ConfigError, match="white noise"):
        sd.Nystroem(RBF() + White(0.1)).fit(rows)
    with pytest.raises(ConfigError, match=r"Linear.*Nystroem takes any kernel"):
        sd.RandomFeatures(Linear()).fit(rows)
    with pytest.raises(ConfigError, match="centers='best'"):
        sd.Nystroem(centers="best").fit(rows)
    with pytest.raises(ConfigError, match="n_components=0"):
        sd.Nystroem(n_components=0).fit(rows)
    with pytest.raises(InputError, match="columns"):
        sd.Nystroem(centers=np.ones((3, 2))).fit(rows)
    with pytest.raises(InputError, match="fitted on rows of 5 columns"):
        sd.Nystroem().fit(rows).transform(stored)
    with pytest.raises(InputError, match="no feature map"):
        sd.Nystroem.open(stored)
