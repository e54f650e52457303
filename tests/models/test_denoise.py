"""`score_field` and `denoise` as a user calls them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.datasets import load_digits

import simdist as sd
from simdist.errors import ConfigError, InputError
from simdist.models.vectors import import_array
from simdist.types import Array


@pytest.fixture(scope="module")
def digits() -> Array:
    return load_digits().data / 16


@pytest.fixture(scope="module")
def cloud() -> Array:
    return np.random.default_rng(1).standard_normal((300, 3))


def mean_of_rows(x: Array, at: Array, sigma: float) -> Array:
    """Attn(x), over all pairs."""
    scores = -0.5 * np.sum((at[:, None] - x) ** 2, axis=2) / sigma**2
    return np.exp(scores - logsumexp(scores, axis=1)[:, None]) @ x


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_scores_are_the_gradient_of_the_log_density(cloud, offset):
    at, step = cloud[:20] + 0.3, 1e-4
    made = sd.score_field(cloud + offset, at + offset, 0.7)
    for axis in range(3):
        aside = step * np.eye(3)[axis]
        up, down = (
            sd.kernel_density(cloud, at + sign * aside, 0.7).log_density for sign in (1, -1)
        )
        assert np.allclose(made.scores[:, axis], (up - down) / (2 * step), atol=1e-5)
    assert np.allclose(made.log_density, sd.kernel_density(cloud, at, 0.7).log_density, atol=1e-8)
    assert made.sigma == 0.7


def test_far_from_all_rows_the_score_points_at_the_nearest(cloud):
    made = sd.score_field(cloud, np.array([[1e4, 0.0, 0.0]]), 0.1)
    nearest = cloud[np.argmin(np.sum((cloud - [1e4, 0, 0]) ** 2, axis=1))]
    assert np.allclose(made.scores[0], (nearest - [1e4, 0, 0]) / 0.01, rtol=1e-9)


def test_one_step_is_the_mean_of_the_rows_that_may_be_behind_a_point(digits):
    noisy = digits[:40] + 0.4 * np.random.default_rng(2).standard_normal((40, 64))
    made = sd.denoise(noisy, digits, 0.4)
    assert np.allclose(made.points, mean_of_rows(digits, noisy, 0.4), atol=1e-10)
    assert made.sigmas == (0.4,)


def test_steps_follow_the_falling_noise(digits):
    noisy = digits[:30] + 0.5 * np.random.default_rng(3).standard_normal((30, 64))
    made = sd.denoise(noisy, digits, 0.5, 4, last=0.1)
    expected = noisy
    for now, then in zip(made.sigmas, (*made.sigmas[1:], 0.0), strict=True):
        mean = mean_of_rows(digits, expected, now)
        expected = mean + then / now * (expected - mean)
    assert np.allclose(made.points, expected, atol=1e-9)
    assert made.sigmas[0] == 0.5
    assert made.sigmas[-1] == pytest.approx(0.1)
    assert np.allclose(np.diff(np.log(made.sigmas)), np.log(0.2) / 3)


def test_noisy_digits_are_pulled_back_to_digits_that_were_never_seen_noisy(digits):
    """Clean rows are held out: the answer is made of other digits, and still nearer the truth."""
    rng = np.random.default_rng(4)
    held, rest = digits[:100], digits[100:]
    noisy = held + 0.3 * rng.standard_normal(held.shape)
    before = np.linalg.norm(noisy - held, axis=1)
    one, many = (sd.denoise(noisy, rest, 0.3, steps).points for steps in (1, 8))
    after = np.linalg.norm(one - held, axis=1)
    assert np.median(after / before) < 0.65
    blur, sharp = (np.linalg.norm(p[:, None] - rest, axis=2).min(axis=1) for p in (one, many))
    assert np.median(sharp) < np.median(blur)  # further steps choose; one step blends


def test_a_tiny_last_sigma_ends_at_rows_of_the_data(digits):
    noisy = digits[:20] + 0.3 * np.random.default_rng(5).standard_normal((20, 64))
    made = sd.denoise(noisy, digits, 0.3, 6, last=1e-3)
    apart = np.linalg.norm(made.points[:, None] - digits, axis=2).min(axis=1)
    assert np.allclose(apart, 0, atol=1e-6)


def test_stored_points_become_vectors_that_stages_take(digits, tmp_path, local_engine):
    x = digits[:500].astype(np.float32)
    noisy = x[:80] + np.float32(0.3)
    store = sd.open_store(tmp_path / "store")
    rows, points = (import_array(a, store=store, engine=local_engine) for a in (x, noisy))
    made = sd.denoise(points, rows, 0.3, 3, engine=local_engine)
    assert made.uri.startswith(store.uri)
    assert made.open().points.dtype == np.float32
    assert made.open().points.tobytes() == sd.denoise(noisy, x, 0.3, 3).points.tobytes()
    hits = sd.knn(made, rows, 1, measure="euclidean", engine=local_engine)
    assert hits.rows == 80
    field = sd.score_field(rows, points, 0.3, engine=local_engine)
    table = store.read_table(field.shards[0].objects["field"])
    assert table.column_names == ["row", "id", "score", "log_density"]
    assert field.open().scores.shape == (80, 64)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (
            lambda x: sd.denoise(x, x, 0.0),
            ConfigError,
            "sigma=0.0: expected a finite number above 0",
        ),
        (lambda x: sd.denoise(x, x, "scott"), ConfigError, "sigma='scott'"),
        (lambda x: sd.denoise(x, x, 1.0, 0), ConfigError, "steps=0"),
        (lambda x: sd.denoise(x, x, 1.0, 3, last=2.0), ConfigError, "less than sigma=1.0"),
        (lambda x: sd.denoise(x, x[:, :2], 1.0), InputError, "at has 3 dimensions"),
        (lambda x: sd.denoise(x, x[:0], 1.0), InputError, "data: shape .* has no rows"),
        (lambda x: sd.score_field(x, x[:, :2], 1.0), InputError, "at has 2 dimensions"),
        (lambda x: sd.score_field(x, x[0], 1.0), InputError, r"at: expected \[n, d\]"),
    ],
)
def test_what_cannot_be_answered_is_refused(cloud, call, error, said):
    with pytest.raises(error, match=said):
        call(cloud)
