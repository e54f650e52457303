"""The laws catch what they are there to catch: each broken kernel fails the law that names it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from simdist.measures.kernels import RBF, KernelGradient, Linear, White
from simdist.testing import KernelLaws


@dataclass(frozen=True, slots=True, repr=False)
class WrongMatrix(RBF):
    def matrix(self, X, Y):
        return RBF.matrix(self, X, Y) * 1.001


@dataclass(frozen=True, slots=True, repr=False)
class WrongDiagonal(Linear):
    def diagonal(self, X):
        return np.ones(len(X))


@dataclass(frozen=True, slots=True, repr=False)
class WrongRowByRow(RBF):
    def rowwise(self, X, Y):
        return RBF.rowwise(self, X[::-1], Y)


@dataclass(frozen=True, slots=True, repr=False)
class NotSymmetric(RBF):
    def matrix(self, X, Y):
        return RBF.matrix(self, X, Y) * (1.0 + 0.1 * np.arange(len(X))[:, None])


@dataclass(frozen=True, slots=True, repr=False)
class KnowsTheOrigin(RBF):
    def matrix(self, X, Y):
        return RBF.matrix(self, X, Y) * np.cos(1e-3 * X[:, :1]) * np.cos(1e-3 * Y[:, 0])


@dataclass(frozen=True, slots=True, repr=False)
class ForgetsTheChainRule(RBF):
    def matrix_and_vjp(self, X, Y):
        K, pullback = RBF.matrix_and_vjp(self, X, Y)

        def wrong(C, *, inputs=True):
            found = pullback(C, inputs=inputs)
            return KernelGradient(found.theta / self.lengthscale, found.X, found.Y)

        return K, wrong


@dataclass(frozen=True, slots=True, repr=False)
class SwapsSides(Linear):
    def matrix_and_vjp(self, X, Y):
        K, pullback = Linear.matrix_and_vjp(self, X, Y)

        def wrong(C, *, inputs=True):
            found = pullback(C, inputs=inputs)
            return replace(found, X=None if found.X is None else -found.X)

        return K, wrong


@dataclass(frozen=True, slots=True, repr=False)
class ForgetsTheDiagonal(Linear):
    def vjp_diagonal(self, X, c, *, inputs=True):
        return KernelGradient(np.zeros(1), np.zeros(X.shape) if inputs else None)


@dataclass(frozen=True, slots=True, repr=False)
class WritesIntoItsMatrix(RBF):
    def matrix_and_vjp(self, X, Y):
        K, pullback = RBF.matrix_and_vjp(self, X, Y)

        def wrong(C, *, inputs=True):
            found = pullback(C, inputs=inputs)
            K[0, 0] += 1.0
            return found

        return K, wrong


@dataclass(frozen=True, slots=True, repr=False)
class SeesNoiseInCopies(White):
    def matrix(self, X, Y):
        return self.variance * (X[:, None] == Y).all(axis=2)


@dataclass(frozen=True, slots=True, repr=False)
class ForgetsTheta(RBF):
    def with_theta(self, theta):
        return self


@dataclass(frozen=True, slots=True, repr=False)
class TakesAnything(RBF):
    def matrix(self, X, Y):
        return RBF.matrix(self, np.nan_to_num(X), np.nan_to_num(Y))


@dataclass(frozen=True, slots=True, repr=False)
class Misprints(RBF):
    def formula(self, digits=None):
        return "RBF(lengthscale=1.0)"


Misprints.__module__ = "simdist.measures.kernels.stationary"  # as if it were shipped

BROKEN = [
    (WrongMatrix(2.0), "test_a_matrix_holds_the_value_of_every_pair", 0),
    (WrongDiagonal(2.0), "test_rows_with_themselves_have_the_values_of_the_diagonal", 0),
    (WrongRowByRow(2.0), "test_row_by_row_is_each_pair", 0),
    (NotSymmetric(2.0), "test_it_is_symmetric_and_positive_semi_definite", 0),
    (KnowsTheOrigin(2.0), "test_where_the_origin_is_does_not_matter_to_a_stationary_kernel", None),
    (ForgetsTheChainRule(2.0), "test_the_gradient_is_that_of_finite_differences", 0),
    (SwapsSides(2.0), "test_the_gradient_is_that_of_finite_differences", 0),
    (SwapsSides(2.0), "test_rows_on_both_sides_have_the_sum_of_both_gradients", 0),
    (
        ForgetsTheDiagonal(2.0),
        "test_the_gradient_of_the_diagonal_is_that_of_finite_differences",
        0,
    ),
    (
        ForgetsTheDiagonal(2.0),
        "test_the_diagonal_of_a_matrix_has_the_gradient_of_the_diagonal",
        None,
    ),
    (
        WritesIntoItsMatrix(2.0),
        "test_a_pullback_comes_with_the_matrix_and_may_be_taken_again",
        None,
    ),
    (WrongMatrix(2.0), "test_it_agrees_with_the_reference", None),
    (SeesNoiseInCopies(0.3), "test_a_matrix_holds_the_value_of_every_pair", 0),
    (ForgetsTheta(2.0), "test_theta_says_all_that_is_free", None),
    (TakesAnything(2.0), "test_rows_that_do_not_fit_are_refused", None),
    (Misprints(2.0), "test_its_spec_and_its_formula_lead_back_to_it", None),
]


@pytest.mark.parametrize(
    ("broken", "law", "seed"), BROKEN, ids=[f"{type(b).__name__}-{law}" for b, law, _ in BROKEN]
)
def test_a_broken_kernel_fails_its_law(broken, law, seed):
    class Claims(KernelLaws):
        kernel = broken
        reference = staticmethod(RBF(2.0).matrix)

        def points(self, rng, n, d):
            rows = rng.standard_normal((n, d))
            rows[0] = 1.0  # a row that both sides have
            return rows

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(Claims(), law)(*([] if seed is None else [seed]))
