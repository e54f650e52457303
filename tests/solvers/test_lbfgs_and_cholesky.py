"""L-BFGS as a value, and Cholesky factors with jitter, pivots and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

from simdist.errors import InputError
from simdist.solvers.cholesky import factored, factored_vjp, pivoted
from simdist.solvers.lbfgs import Lbfgs


def minimised(state: Lbfgs, f, g, *, through_arrays: bool = False) -> Lbfgs:
    while state.running:
        if through_arrays:
            state = Lbfgs.of_arrays(state.arrays())
        state = state.told(f(state.trial), g(state.trial))
    return state


def test_rosenbrocks_valley_is_walked_to_its_end():
    start = Lbfgs.start(np.full(20, -1.2), most=400, tolerance=1e-14, flat=1e-9)
    found = minimised(start, rosen, rosen_der)
    assert found.status == "converged"
    assert np.allclose(found.x, 1.0, atol=1e-6)
    assert found.evaluations < 200


def test_a_state_that_was_stored_goes_on_to_the_same_bits():
    start = Lbfgs.start(np.full(8, -1.2), most=60)
    straight = minimised(start, rosen, rosen_der)
    stored = minimised(start, rosen, rosen_der, through_arrays=True)
    assert np.array_equal(straight.x, stored.x)
    assert straight.evaluations == stored.evaluations
    assert straight.status == stored.status == "exhausted"


def test_a_point_without_a_value_is_too_far():
    def f(x):
        return float(x[0] - np.log(x[0])) if x[0] > 0 else np.inf

    def g(x):
        return np.array([1.0 - 1.0 / x[0]]) if x[0] > 0 else np.array([np.nan])

    found = minimised(Lbfgs.start(np.array([0.1]), longest=5.0, tolerance=1e-12), f, g)
    assert found.x[0] == pytest.approx(1.0, abs=1e-5)


def test_no_element_of_a_step_is_longer_than_allowed():
    state = Lbfgs.start(np.zeros(3), longest=0.5, most=10)
    seen = [state.x]
    while state.running:
        x = state.trial
        state = state.told(float(np.sum((x - 100.0) ** 2)), 2 * (x - 100.0))
        seen.append(state.x)
    steps = np.abs(np.diff(seen, axis=0)).max()
    assert 0 < steps <= 0.5 + 1e-12


def test_out_of_evaluations_the_best_point_is_kept():
    start = Lbfgs.start(np.full(4, -1.2), most=5)
    found = minimised(start, rosen, rosen_der)
    assert found.status == "exhausted"
    assert found.evaluations == 5
    assert rosen(found.x) == pytest.approx(found.f)
    assert found.f < rosen(np.full(4, -1.2))


def test_a_start_without_a_value_ends_at_once():
    found = Lbfgs.start(np.zeros(2)).told(np.nan, np.zeros(2))
    assert found.status == "stalled"


def test_jitter_is_relative_raised_where_needed_and_told():
    A = np.random.default_rng(0).standard_normal((30, 4))
    K = 1e6 * A @ A.T  # of rank 4
    found = factored(K)
    assert found.jitter >= 1e-8
    assert found.added == pytest.approx(found.jitter * np.mean(np.diag(K)))
    assert np.allclose(found.L @ found.L.T, K + found.added * np.eye(30), rtol=1e-8, atol=1e-2)
    with pytest.raises(InputError, match="not positive definite"):
        factored(-np.eye(3))
    with pytest.raises(InputError, match="not finite"):
        factored(np.full((2, 2), np.nan))


def test_the_gradient_through_a_factor_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((6, 9))
    K, C = A @ A.T, np.tril(rng.standard_normal((6, 6)))
    K_bar = factored_vjp(np.asfortranarray(np.linalg.cholesky(K)), C)
    direction = rng.standard_normal((6, 6))
    direction += direction.T
    step = 1e-6
    up, down = (np.sum(C * np.linalg.cholesky(K + s * step * direction)) for s in (1, -1))
    assert np.sum(K_bar * direction) == pytest.approx((up - down) / (2 * step), rel=1e-6)


def test_pivots_leave_nothing_out_and_stop_where_nothing_is_left():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((50, 5))
    A[25:] = A[:25]  # every row twice
    K = A @ A.T
    found = pivoted(np.diag(K), lambda i: K[:, i], 20)
    assert len(found.rows) == 5
    assert len(set(found.rows % 25)) == 5
    assert found.rest == pytest.approx(0.0, abs=1e-8)
    assert np.all(np.diff(found.left) <= 1e-9)
    assert found.rows[0] == np.argmax(np.diag(K))
