"""Pivoted factors, ridge paths and conjugate gradients, beside the dense answers."""

from __future__ import annotations

import numpy as np
import pytest

from simdist.errors import InputError
from simdist.solvers.cg import cg_start, cg_step, conjugate_gradients, relative
from simdist.solvers.pivoted import pivoted_cholesky
from simdist.solvers.ridge import ridge_coefficients, ridge_path


def kernel_matrix(n: int, *, seed: int = 0, copies: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).standard_normal((n, 2))
    points[n - copies :] = points[:copies]
    r2 = np.square(points[:, None] - points[None]).sum(axis=-1)
    return np.exp(-0.5 * r2)


def test_a_pivoted_factor_gives_the_kept_part_back_and_explains_the_rest():
    K = kernel_matrix(60)
    found = pivoted_cholesky(K)
    kept = K[np.ix_(found.kept, found.kept)]
    assert np.abs(found.factor @ found.factor.T - kept).max() < 1e-12
    features = np.linalg.solve(found.factor, K[found.kept])
    assert np.abs(features.T @ features - K).max() < 1e-10
    assert np.abs(np.triu(found.factor, 1)).max() == 0


def test_copies_are_left_out_of_a_pivoted_factor():
    found = pivoted_cholesky(kernel_matrix(20, seed=3, copies=5))
    assert len(found.kept) <= 15
    assert found.left <= 1e-12
    assert len({row % 15 for row in found.kept.tolist()}) == len(found.kept)


@pytest.mark.parametrize("scale", [1e-250, 1e250])
def test_the_scale_of_a_kernel_does_not_change_what_is_kept(scale):
    K = kernel_matrix(30)
    one, other = pivoted_cholesky(K), pivoted_cholesky(K * scale)
    assert np.array_equal(one.kept, other.kept)
    assert np.allclose(other.factor / np.sqrt(scale), one.factor)


def test_a_matrix_without_variance_or_with_nan_is_refused():
    with pytest.raises(InputError, match="the kernel is 0 at all 3 centres"):
        pivoted_cholesky(np.zeros((3, 3)))
    with pytest.raises(InputError, match="not finite"):
        pivoted_cholesky(np.full((3, 3), np.nan))


@pytest.fixture
def regression() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    A = rng.standard_normal((80, 7))
    return A, A @ rng.standard_normal((7, 2)) + rng.standard_normal((80, 2))


def test_a_path_has_the_coefficients_of_every_alpha(regression):
    A, y = regression
    path = ridge_path(A.T @ A, A.T @ y)
    for alpha in (0.0, 1e-3, 10.0):
        expected = np.linalg.solve(A.T @ A + alpha * np.eye(7), A.T @ y)
        assert np.allclose(path.coefficients(alpha), expected)
        assert np.allclose(ridge_coefficients(A.T @ A, A.T @ y, alpha), expected)


def test_residuals_of_rows_left_out_are_those_of_fits_without_them(regression):
    A, y = regression
    weights = np.random.default_rng(2).uniform(0.5, 2.0, 80)
    P, b = (A.T * weights) @ A, (A.T * weights) @ y
    found = ridge_path(P, b).left_out(
        A, y, np.array([0.5, 5.0]), weights=weights, before=np.zeros(80)
    )
    for row in (0, 17, 79):
        others = np.arange(80) != row
        for place, alpha in enumerate((0.5, 5.0)):
            W = (A[others].T * weights[others]) @ A[others] + alpha * np.eye(7)
            v = np.linalg.solve(W, (A[others].T * weights[others]) @ y[others])
            assert np.allclose(found[place, row], y[row] - A[row] @ v)


def test_without_a_penalty_directions_that_no_row_has_get_nothing():
    P = np.diag([2.0, 1.0, 0.0])
    b = np.array([[2.0], [3.0], [0.0]])
    assert np.allclose(ridge_coefficients(P, b, 0.0), [[1.0], [3.0], [0.0]])


def test_sums_that_overflowed_are_refused():
    with pytest.raises(InputError, match="too large for float64"):
        ridge_coefficients(np.eye(2), np.array([[np.inf], [0.0]]), 1.0)


def test_conjugate_gradients_solve_every_column_in_as_many_steps_as_there_are_rows():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((12, 12))
    A, b = A @ A.T + np.eye(12), rng.standard_normal((12, 3))
    found = conjugate_gradients(lambda p: A @ p, b, tolerance=1e-12, max_steps=40)
    assert np.allclose(A @ found.x, b)
    exact = conjugate_gradients(
        lambda p: A @ p, b, precondition=lambda r: np.linalg.solve(A, r), max_steps=1
    )
    assert np.allclose(A @ exact.x, b)


def test_a_column_of_zeros_stays_where_it_is():
    A, b = np.diag([1.0, 2.0, 3.0]), np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    state = cg_start(b, lambda r: r)
    for _ in range(5):
        state = cg_step(state, A @ state.p, lambda r: r)
    assert np.allclose(state.x[:, 0], [1.0, 0.5, 1 / 3])
    assert np.array_equal(state.x[:, 1], np.zeros(3))
    assert relative(state).max() < 1e-12
