"""`kernel_density` and `outlier_scores` as a user calls them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import gaussian_kde
from sklearn.neighbors import KernelDensity as TreeDensity
from stages.importing import fresh_store

import simdist as sd
from simdist.errors import ConfigError, InputError
from simdist.models.vectors import import_array
from simdist.types import Array, Float64

N = 400


@pytest.fixture(scope="module")
def rows() -> Array:
    rng = np.random.default_rng(3)
    centers = 4 * rng.standard_normal((5, 3))
    return centers[rng.integers(0, 5, N)] + rng.standard_normal((N, 3))


def dense(x: Array, at: Array | None, widths: Float64) -> Float64:
    """The formula, over all pairs."""
    points = x if at is None else at
    gaps = (points[:, None] - x) / widths
    scores = -0.5 * np.sum(gaps * gaps, axis=2)
    if at is None:
        np.fill_diagonal(scores, -np.inf)
    count = len(x) - (at is None)
    volume = np.log(widths).sum() + 0.5 * x.shape[1] * math.log(2 * math.pi)
    return logsumexp(scores, axis=1) - math.log(count) - volume


def test_densities_are_those_of_scikit_learn(rows):
    at = rows[:200] + 0.1
    made = sd.kernel_density(rows, at, 0.7)
    tree = TreeDensity(bandwidth=0.7, rtol=1e-10).fit(rows)
    assert np.allclose(made.log_density, tree.score_samples(at), rtol=0, atol=1e-8)
    assert not made.leave_one_out
    assert made.bandwidth.value == 0.7
    assert made.bandwidth.rule == "given"


@pytest.mark.parametrize("rule", ["scott", "silverman"])
def test_rules_are_those_of_scipy_in_one_dimension(rows, rule):
    x, at = rows[:, :1], np.linspace(-10, 10, 50)[:, None]
    made = sd.kernel_density(x, at, rule)
    assert np.allclose(made.log_density, gaussian_kde(x.T, rule).logpdf(at.T), atol=1e-10)


def test_rules_are_those_of_scipy_where_features_are_independent(rows):
    """scipy scales by the whole covariance: the same where that is diagonal."""
    white = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T * [1.0, 10.0, 0.1]
    made = sd.kernel_density(white, white[:50], "scott", scale="feature")
    expected = gaussian_kde(white.T, "scott").logpdf(white[:50].T)
    assert np.allclose(made.log_density, expected, atol=1e-8)
    assert made.bandwidth.scale == "feature"
    assert made.bandwidth.value is None


@pytest.mark.parametrize("precision", ["auto", "float32", "float64"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_row_is_left_out_of_its_own_density(rows, dtype, precision):
    x = rows.astype(dtype)
    made = sd.kernel_density(x, bandwidth=0.5, precision=precision)
    wide = dtype is np.float64 and precision != "float32"
    expected = dense(x.astype(np.float64), None, np.full(3, 0.5))
    assert np.allclose(made.log_density, expected, rtol=0, atol=1e-10 if wide else 1e-3)
    assert made.leave_one_out


def test_a_bandwidth_for_each_feature(rows):
    widths = np.array([0.3, 0.6, 1.2])
    made = sd.kernel_density(rows, rows[:90] * 2, widths)
    assert np.allclose(made.log_density, dense(rows, rows[:90] * 2, widths), atol=1e-10)


def test_densities_integrate_to_one(rows):
    grid = np.linspace(-20, 20, 4001)[:, None]
    made = sd.kernel_density(rows[:, :1], grid, "likelihood")
    assert np.exp(made.log_density).sum() * 0.01 == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("offset", [1e3, 1e7])
def test_rows_far_from_the_origin_keep_their_digits(rows, offset):
    made = sd.kernel_density(rows + offset, bandwidth=0.5)
    assert np.allclose(made.log_density, dense(rows, None, np.full(3, 0.5)), atol=1e-5)


def test_bandwidths_far_below_the_spread_keep_their_digits():
    """Float32 rows, thousands of bandwidths apart, in groups that are less than one."""
    rng = np.random.default_rng(8)
    x = (1000 * rng.standard_normal((20, 4))).repeat(15, axis=0)
    x = (x + 0.25 * rng.integers(-2, 3, x.shape)).astype(np.float32)
    made = sd.kernel_density(x, bandwidth=0.25)
    expected = dense(x.astype(np.float64), None, np.full(4, 0.25))
    assert np.allclose(made.log_density, expected, rtol=1e-9, atol=1e-6)


def test_a_lone_far_row_is_very_unlikely_and_not_impossible(rows):
    x = np.concatenate([rows, [[1e4, 0, 0]]])
    made = sd.kernel_density(x, bandwidth=0.5)
    assert np.isfinite(made.log_density).all()
    assert made.log_density[-1] == pytest.approx(dense(x, None, np.full(3, 0.5))[-1], rel=1e-9)
    assert made.log_density[-1] < -1e8


def test_copies_count_and_only_the_row_itself_is_left_out():
    x = np.zeros((3, 2))
    x[2] = 1.0
    made = sd.kernel_density(x, bandwidth=1.0)
    assert np.allclose(made.log_density, dense(x, None, np.ones(2)))
    at = sd.kernel_density(x, x, 1.0)
    assert np.allclose(at.log_density, dense(x, x, np.ones(2)))


def test_the_knn_rule_is_the_median_distance_to_a_neighbour(rows):
    made = sd.kernel_density(rows, rows[:1], "knn", neighbor=7, sample=N)
    gaps = np.sqrt(np.sum((rows[:, None] - rows) ** 2, axis=2))
    expected = np.median(np.sort(gaps, axis=1)[:, 7]) / np.sqrt(3)
    assert made.bandwidth.value == pytest.approx(expected, rel=1e-9)
    assert made.bandwidth.sample == N


def test_the_likelihood_rule_takes_the_best_of_what_it_tried(rows):
    made = sd.kernel_density(rows, rows[:1], "likelihood", sample=N)
    unit = made.bandwidth.value / made.bandwidth.factor
    told = np.array(made.bandwidth.tried)
    assert len(told) == 33
    for factor, score in told[::8]:
        widths = np.full(3, factor * unit)
        assert score == pytest.approx(dense(rows, None, widths).mean(), rel=1e-5, abs=1e-5)
    assert made.bandwidth.factor == told[np.argmax(told[:, 1]), 0]
    assert not made.bandwidth.edge
    assert made.bandwidth.value < sd.kernel_density(rows, rows[:1]).bandwidth.value


def test_copies_pull_the_likelihood_to_the_edge_which_is_said(rows):
    with pytest.warns(RuntimeWarning, match="the first or last of them. Rows with copies pull"):
        made = sd.kernel_density(rows.repeat(2, axis=0), rows[:1], "likelihood")
    assert made.bandwidth.edge


def test_a_sampled_bandwidth_follows_from_its_seed(rows):
    one, same, other = (
        sd.kernel_density(rows, rows[:1], "knn", sample=100, seed=seed).bandwidth.value
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other


def test_a_stored_dataset_gives_the_same_numbers_in_a_dataset(rows, tmp_path, local_engine):
    x = rows.astype(np.float32)
    store = sd.open_store(tmp_path / "store")
    stored = import_array(x, store=store, engine=local_engine)
    made = sd.kernel_density(stored, rows[:70], "scott", engine=local_engine)
    plain = sd.kernel_density(x, rows[:70], "scott")
    assert made.uri.startswith(store.uri)
    assert made.open().log_density.tobytes() == plain.log_density.tobytes()
    assert made.metrics["rule"] == "scott"
    table = store.read_table(made.shards[0].objects["density"])
    assert table.column_names == ["row", "id", "log_density"]
    assert np.array_equal(table["log_density"].to_numpy(), plain.log_density[: len(table)])
    assert repr(made.open()).startswith("KernelDensity(70 points under 400 rows; Bandwidth(")


# -- outliers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["density", "relative"])
def test_planted_outliers_are_found(rows, method):
    rng = np.random.default_rng(9)
    planted = np.sort(rng.choice(N, 12, replace=False))
    x = rows.copy()
    x[planted] += 12 * rng.choice([-1, 1], (12, 3)) * (1 + rng.random((12, 3)))
    made = sd.outlier_scores(x, method=method)
    assert set(made.top(12)) == set(planted)
    assert made.method == method
    assert len(made) == N


def test_scores_are_negative_log_densities(rows):
    made = sd.outlier_scores(rows, 0.5)
    assert np.array_equal(made.scores, -made.log_density)
    assert np.allclose(made.log_density, dense(rows, None, np.full(3, 0.5)), atol=1e-10)


def test_relative_scores_are_what_is_missing_to_the_neighbours_mean_density(rows):
    made = sd.outlier_scores(rows, 0.5, method="relative")
    gaps = (rows[:, None] - rows) / 1.5
    scores = -0.5 * np.sum(gaps * gaps, axis=2)
    np.fill_diagonal(scores, -np.inf)
    mean = logsumexp(scores + made.log_density, axis=1) - logsumexp(scores, axis=1)
    expected = mean - made.log_density
    assert np.allclose(made.scores, expected, atol=1e-8)


def test_beside_a_dense_region_a_row_is_an_outlier_only_relative_to_it():
    """A thin cloud, a dense one, and a row three bandwidths beside the dense one."""
    rng = np.random.default_rng(10)
    thin, close = 8 * rng.standard_normal((300, 2)), 0.1 * rng.standard_normal((300, 2))
    x = np.concatenate([thin, close + np.array([60, 0]), [[63.0, 0]]])
    relative = sd.outlier_scores(x, 1.0, method="relative").scores
    plain = sd.outlier_scores(x, 1.0).scores
    assert np.sum(relative > relative[-1]) < 20
    assert np.sum(plain > plain[-1]) > 200


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda x: sd.kernel_density(x, bandwidth=0.0), ConfigError, "numbers above 0"),
        (lambda x: sd.kernel_density(x, bandwidth=float("nan")), ConfigError, "numbers above 0"),
        (lambda x: sd.kernel_density(x, bandwidth="wide"), ConfigError, "'scott', 'silverman'"),
        (lambda x: sd.kernel_density(x, bandwidth="given"), ConfigError, "give the number itself"),
        (lambda x: sd.kernel_density(x, bandwidth=[1, 2]), ConfigError, "2 numbers for 3 features"),
        (
            lambda x: sd.kernel_density(x, bandwidth="leave_one_out"),
            ConfigError,
            "which has values",
        ),
        (lambda x: sd.kernel_density(x, x[:, :2]), InputError, "at has 2 dimensions"),
        (lambda x: sd.kernel_density(x[:1]), InputError, "at least 2 rows"),
        (
            lambda x: sd.kernel_density(x[:1], bandwidth=1.0),
            InputError,
            "has 1 row: without itself",
        ),
        (lambda x: sd.kernel_density(x[:0]), InputError, "no rows or no columns"),
        (lambda x: sd.kernel_density(0 * x), InputError, "all rows are equal"),
        (lambda x: sd.kernel_density(x * [1, 0, 1], scale="feature"), InputError, "column 1 is co"),
        (lambda x: sd.kernel_density(x, bandwidth="knn", neighbor=N), InputError, "least 401 ro"),
        (lambda x: sd.kernel_density(x.repeat(12, 0), bandwidth="knn"), InputError, "have 10 copi"),
        (lambda x: sd.kernel_density(x * 1e300, bandwidth=1e-9), InputError, "too many bandwidths"),
        (lambda x: sd.kernel_density(x, precision="float16"), ConfigError, "precision='float16'"),
        (lambda x: sd.kernel_density(x, scale="row"), ConfigError, "scale='row'"),
        (lambda x: sd.kernel_density(x, np.where(x > 5, np.nan, x)), InputError, "at: row"),
        (lambda x: sd.outlier_scores(x, method="far"), ConfigError, "method='far'"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_cannot_be_answered_is_refused(rows, call, error, said):
    with pytest.raises(error, match=said):
        call(rows)


def test_a_dataset_without_vectors_is_refused(rows, local_engine):
    stored = import_array(rows.astype(np.float32), store=fresh_store(), engine=local_engine)
    made = sd.kernel_density(stored, bandwidth=1.0, engine=local_engine)
    with pytest.raises(InputError, match="made by stage kernel_density and has no vectors"):
        sd.kernel_density(made, bandwidth=1.0, engine=local_engine)
