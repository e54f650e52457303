"""Newton's method for margins, beside scikit-learn's exact solvers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVC, LinearSVC

from simdist.solvers.hinge import (
    HingeState,
    dense_direction,
    hinge_start,
    hinge_sums,
    minimise,
    product_direction,
    shared_inverse,
)


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping classes and their signs."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((150, 6))
    signs = np.where(A[:, 0] + 0.7 * rng.standard_normal(150) > 0.2, 1.0, -1.0)
    return A, signs[:, None]


def with_ones(A: np.ndarray) -> np.ndarray:
    return np.column_stack([A, np.ones(len(A))])


def test_a_squared_hinge_is_minimised_as_liblinear_does(rows):
    A, signs = rows
    ours = minimise(
        lambda: [(A, signs, np.full(150, 3.0))],
        hinge_start(6, 1),
        "squared_hinge",
        intercept=False,
        tolerance=1e-10,
    )
    theirs = LinearSVC(C=3.0, dual=False, tol=1e-10, fit_intercept=False).fit(A, signs[:, 0])
    assert ours.settled.all()
    assert ours.looks < 15
    assert np.allclose(ours.W[:, 0], theirs.coef_[0], atol=1e-6)


def test_a_hinge_is_minimised_as_libsvm_does(rows):
    A, signs = rows
    ours = minimise(lambda: [(with_ones(A), signs, np.full(150, 2.0))], hinge_start(7, 1), "hinge")
    theirs = SVC(C=2.0, kernel="linear", tol=1e-8).fit(A, signs[:, 0])
    assert ours.settled.all()
    assert np.allclose(with_ones(A) @ ours.W[:, 0], theirs.decision_function(A), atol=3e-3)


def test_the_gradient_is_zero_at_the_minimum_and_classes_do_not_disturb_one_another(rows):
    A, signs = rows
    both = np.column_stack([signs[:, 0], -np.sign(A[:, 1])])
    weights = np.random.default_rng(1).uniform(0.1, 2.0, 150)
    F = with_ones(A)
    state = minimise(
        lambda: [(F, both, weights)], hinge_start(7, 2), "squared_hinge", tolerance=1e-10
    )
    alone = minimise(
        lambda: [(F, both[:, :1], weights)], hinge_start(7, 1), "squared_hinge", tolerance=1e-10
    )
    short = np.maximum(1 - both * (F @ state.W), 0)
    slope = -2 * F.T @ (weights[:, None] * both * short)
    slope[:-1] += state.W[:-1]
    assert np.abs(slope).max() < 1e-7
    assert np.allclose(state.W[:, :1], alone.W, atol=1e-9)


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
def test_blocks_of_rows_add_up_whether_they_are_held_or_read_again(rows, loss):
    A, signs = rows
    F, c = with_ones(A), np.full(150, 1.5)
    blocks = [(F[part], signs[part], c[part]) for part in (slice(0, 40), slice(40, 150))]
    held = minimise(lambda: blocks, hinge_start(7, 1), loss)
    again = minimise(lambda: blocks, hinge_start(7, 1), loss, held=False)
    whole = minimise(lambda: [(F, signs, c)], hinge_start(7, 1), loss)
    assert np.allclose(held.W, again.W, atol=1e-6)
    assert np.allclose(held.W, whole.W, atol=1e-6)


def test_steps_by_products_are_those_by_curvature(rows):
    A, signs = rows
    F, c = with_ones(A), np.full(150, 1.5)
    point = np.random.default_rng(3).standard_normal((7, 1))
    start = hinge_start(7, 1)
    state = HingeState(
        W=point,
        D=np.zeros((7, 1)),
        stage=start.stage,
        zone=start.zone,
        scale=np.array([1e9]),  # so small a share of it is asked for exactly
        gradient=start.gradient,
        objective=start.objective,
        settled=start.settled,
        looks=1,
    )
    sums = hinge_sums(F, signs, c, state, "squared_hinge")
    slope = point[:, 0] + sums.gradient[:, 0]
    one, slopes = np.array([0]), slope[:, None]
    dense = dense_direction(sums, intercept=True)(one, slopes)
    at_zero = hinge_sums(F, signs, c, start, "squared_hinge")
    found = product_direction(
        [(F, signs, c)],
        state,
        "squared_hinge",
        intercept=True,
        precondition=shared_inverse(at_zero, intercept=True),
    )(one, slopes)
    assert np.allclose(found, dense, atol=1e-6 * np.abs(dense).max())


def test_rows_that_are_all_beyond_the_margin_leave_a_finite_answer():
    A = np.array([[1e3], [-1e3]])
    signs = np.array([[1.0], [-1.0]])
    state = minimise(lambda: [(with_ones(A), signs, np.full(2, 1e6))], hinge_start(2, 1), "hinge")
    assert np.isfinite(state.W).all()
    assert (signs * (with_ones(A) @ state.W) > 0.99).all()


def test_it_says_so_where_looks_were_not_enough(rows):
    A, signs = rows
    state = minimise(
        lambda: [(A, signs, np.full(150, 3.0))],
        hinge_start(6, 1),
        "hinge",
        intercept=False,
        max_looks=3,
    )
    assert not state.settled.any()
