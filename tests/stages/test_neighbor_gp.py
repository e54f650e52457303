"""What Gaussian processes from neighbours are computed with: packed triangles, local solves, the
likelihood of subsets, the space of a kernel, scores."""

from __future__ import annotations

import numpy as np
import pytest

from simdist.compiled.packed import packed_squares, spread
from simdist.errors import ConfigError, InputError
from simdist.measures.kernels import (
    RBF,
    Constant,
    Kernel,
    Linear,
    Matern12,
    Matern32,
    Matern52,
    Periodic,
    RationalQuadratic,
    White,
)
from simdist.stages.neighbor_gp.local import predict_rows
from simdist.stages.neighbor_gp.marginal import Subset, fit_marginal, marginal_likelihood
from simdist.stages.neighbor_gp.scores import calibrated_report, report
from simdist.stages.neighbor_gp.space import inverse_lengthscales
from simdist.stages.neighbor_gp.story import without_self
from simdist.stages.neighbor_gp.targets import moments_of, refuse_not_finite
from simdist.types import Array

KERNELS: list[Kernel] = [
    1.5 * RBF(lengthscale=(0.7, 1.3, 2.0)),
    Matern12(0.8),
    2.0 * Matern32(1.1) + Constant(0.3),
    Matern52(1.0, active=(0, 2)) * RBF(2.0) + 0.5 * RationalQuadratic(1.0),
    RBF(1.0) + 0.2 * Linear(),  # has no packed form
]


def sets(m: int = 9, k: int = 12, d: int = 3, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """Rows, their lists, known rows and their targets."""
    rng = np.random.default_rng(seed)
    known = rng.standard_normal((40, d)).astype(np.float32)
    lists = np.stack([rng.choice(40, k, replace=False) for _ in range(m)])
    return rng.standard_normal((m, d)).astype(np.float32), lists, known, rng.standard_normal(40)


def test_packed_triangles_are_those_of_the_whole_matrices() -> None:
    points = np.random.default_rng(0).standard_normal((4, 7, 3))
    whole = np.square(points[:, :, None] - points[:, None]).sum(axis=3)
    lower = np.tril_indices(7)
    assert np.allclose(packed_squares(points), whole[:, lower[0], lower[1]], rtol=1e-14)
    y = np.arange(24.0).reshape(4, 6)
    made = spread(packed_squares(points), y, 0.5, 9.0)
    assert np.allclose(np.tril(made[:, :7, :7]), np.tril(whole + 0.5 * np.eye(7)))
    assert np.array_equal(made[:, 7, :6], y)
    assert np.array_equal(made[:, 7, 6:], np.tile([0.0, 9.0], (4, 1)))


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_local_solve_is_the_process_on_those_neighbours(kernel: Kernel) -> None:
    X, lists, known, y = sets()
    found = predict_rows(kernel, 0.01, X, lists, known, y)
    for i, near in enumerate(lists):
        K = kernel.matrix(known[near], known[near].copy()) + 0.01 * np.eye(len(near))
        across = kernel.matrix(X[i : i + 1], known[near])[0]
        assert found.mean[i] == pytest.approx(across @ np.linalg.solve(K, y[near]), abs=1e-8)
        left = kernel.diagonal(X[i : i + 1])[0] - across @ np.linalg.solve(K, across)
        assert found.latent[i] == pytest.approx(left, abs=1e-8)


def test_a_row_has_the_same_answer_in_any_company() -> None:
    X, lists, known, y = sets(m=400, k=30)
    whole = predict_rows(KERNELS[0], 0.01, X, lists, known, y)
    alone = predict_rows(KERNELS[0], 0.01, X[7:8], lists[7:8], known, y)
    assert whole.mean[7] == alone.mean[0]
    assert whole.latent[7] == alone.latent[0]


def test_copies_without_noise_are_held_apart_by_jitter() -> None:
    known = np.repeat(np.random.default_rng(0).standard_normal((5, 2)), 8, axis=0)
    y = np.repeat(np.arange(5.0) - 2, 8)
    lists = np.tile(np.arange(40), (3, 1))
    found = predict_rows(RBF(1.0), 1e-300, known[[0, 8, 16]], lists, known, y)
    assert np.allclose(found.mean, [-2.0, -1.0, 0.0], atol=1e-3)
    assert np.all((found.latent >= 0) & (found.latent < 1e-3))


def test_values_that_are_no_kernel_are_refused() -> None:
    X, lists, known, y = sets(m=1)
    known = known.astype(np.float64)
    known[lists[0, 0]] = np.nan
    with pytest.raises(InputError, match="is not positive definite"):
        predict_rows(RBF(1.0), 0.01, X, lists, known, y)


def test_the_likelihood_is_the_dense_one_and_its_gradient_that_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 3)), rng.standard_normal(50)
    kernel = (2.0 * Matern52(ard=True)).for_dim(3)
    value, slope = marginal_likelihood(kernel, 0.1, Subset(X, y))
    K = kernel(X) + 0.1 * np.eye(50)
    dense = -0.5 * (y @ np.linalg.solve(K, y) + np.linalg.slogdet(K)[1] + 50 * np.log(2 * np.pi))
    assert value == pytest.approx(dense, rel=1e-10)
    theta = np.append(kernel.theta, np.log(0.1))
    for i, step in enumerate(1e-5 * np.eye(len(theta))):
        ends = [
            marginal_likelihood(kernel.with_theta(t[:-1]), float(np.exp(t[-1])), Subset(X, y))[0]
            for t in (theta + step, theta - step)
        ]
        assert slope[i] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-6)


def test_a_fit_raises_the_likelihood_and_noise_keeps_its_floor() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-3, 3, (100, 2))
    y = np.sin(X[:, 0])
    kernel = (1.0 * RBF(ard=True)).for_dim(2)
    subset = Subset(X, (y - y.mean()) / y.std())
    found = fit_marginal(kernel, 0.1, [subset], iterations=40)
    assert found.likelihood > marginal_likelihood(kernel, 0.1, subset)[0] + 100
    assert found.noise >= 0.99e-6
    scales = found.kernel.theta[1:]
    assert scales[1] > scales[0] + 2  # the second column says nothing
    kept = fit_marginal(kernel, 0.1, [subset], iterations=0)
    assert (kept.kernel, kept.noise) == (kernel, 0.1)


def test_the_space_of_a_kernel_is_its_columns_over_lengthscales() -> None:
    assert np.allclose(inverse_lengthscales(2.0 * RBF((0.5, 2.0)) + White(0.1), 2), [2.0, 0.5])
    assert np.allclose(inverse_lengthscales(Matern32(0.5, active=(1,)), 3), [0, 2.0, 0])
    weighted = 3.0 * RBF(1.0) + 1.0 * RBF(0.5) + 5.0 * Linear()
    assert np.allclose(inverse_lengthscales(weighted, 1), [np.sqrt(0.75 + 0.25 * 4)])
    product = RBF(1.0, active=(0,)) * RBF(0.5, active=(1,)) * Periodic()
    assert np.allclose(inverse_lengthscales(product, 2), [1.0, 2.0])
    with pytest.raises(ConfigError, match="take SparseGP"):
        inverse_lengthscales(Periodic() + Linear(), 2)


def test_a_row_is_taken_out_of_its_list_and_else_the_last() -> None:
    lists = np.array([[4, 1, 2], [5, 6, 7], [3, 2, 1]])
    own = without_self(lists, np.array([4, 9, 2]))
    assert own.tolist() == [[1, 2], [5, 6], [3, 1]]


def test_moments_do_not_depend_on_the_cuts_and_know_a_constant() -> None:
    y = 1e6 + np.random.default_rng(0).standard_normal(1000)
    whole, parts = moments_of([y]), moments_of([y[:10], y[10:400], y[400:]])
    assert parts.mean == pytest.approx(y.mean(), rel=1e-14)
    assert parts.scale == pytest.approx(y.std(), rel=1e-9)
    assert whole.count == parts.count == 1000
    assert moments_of([np.full(7, 0.1)] * 3).constant
    assert moments_of([np.zeros(3)]).scale == 1.0
    with pytest.raises(InputError, match="inf in row 12"):
        refuse_not_finite(np.array([0.0, 1.0, np.inf]), 10)


def test_scores_of_gaussians_are_what_they_should_be() -> None:
    rng = np.random.default_rng(0)
    mean, variance = rng.standard_normal(20000), rng.uniform(0.5, 2, 20000)
    y = mean + np.sqrt(variance) * rng.standard_normal(20000)
    told = report(y, mean, variance)
    assert told["mean_z2"] == pytest.approx(1.0, abs=0.03)
    for name, share in (("50%", 0.5), ("90%", 0.9), ("95%", 0.95)):
        assert told["coverage"][name] == pytest.approx(share, abs=0.01)
    factor, scores = calibrated_report(y, mean, variance / 4)
    assert factor == pytest.approx(4.0, rel=0.05)
    assert scores["nlpd"] == pytest.approx(told["nlpd"], abs=0.01)
    assert calibrated_report(y[:3], y[:3], variance[:3])[0] == 1e-12
