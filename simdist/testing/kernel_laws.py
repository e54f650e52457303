"""Laws that every kernel obeys, as a class of pytest tests to inherit.

    class TestMine(KernelLaws):
        kernel = Mine(ard=True)
        reference = staticmethod(lambda X, Y: sklearn.gaussian_process.kernels.RBF()(X, Y))

`pair`, the definition in float64, is the oracle of values, and finite differences that of
gradients. A kernel is a measure too: `MeasureLaws` tests its float32 side. Needs pytest
(`pip install simdist[test]`).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

import numpy as np
import pytest

from simdist.errors import InputError
from simdist.measures import resolve
from simdist.measures.kernels import Kernel, Linear, White
from simdist.measures.kernels import resolve as resolve_kernel
from simdist.types import Array, Float64, Json

__all__ = ["KernelLaws"]

_SEEDS = pytest.mark.parametrize("seed", [0])
_AXES = 6
_STEP = 1e-5  # of finite differences: both errors of the central one near 1e-10


class KernelLaws:
    """The laws; see the module docstring. A subclass gives `kernel`, and what else it claims.

    kernel: what is tested, with `for_dim(d)` taken where it has one lengthscale per column.
    reference: `(X [n, d], Y [m, d]) -> [n, m]` of a trusted library, float64.
    dimensions: numbers of columns to try; only the kernel's own where it has a fixed one. Twenty
        are many: where a kernel goes from differences to products.
    rtol: of values in float64.
    gradient_rtol: of gradients, against finite differences.
    """

    kernel: ClassVar[Kernel]
    reference: ClassVar[Callable[[Float64, Float64], Array] | None] = None
    dimensions: ClassVar[tuple[int, ...]] = (3, 20)
    rtol: ClassVar[float] = 1e-10
    gradient_rtol: ClassVar[float] = 1e-6

    # -- to override --

    def points(self, rng: np.random.Generator, n: int, d: int) -> Float64:
        """Ordinary rows for this kernel, [n, d]; default: standard normal."""
        return rng.standard_normal((n, d))

    # -- values --

    @_SEEDS
    def test_a_matrix_holds_the_value_of_every_pair(self, seed: int) -> None:
        for k, X, Y in self._cases(seed):
            expected = np.array([[k.pair(x, y) for y in Y] for x in X])
            self._agree(k.matrix(X, Y), expected)
            self._agree(k(X, Y), expected)
            self._agree(k.block(X, Y), expected, rtol=1e-5)

    @_SEEDS
    def test_rows_with_themselves_have_the_values_of_the_diagonal(self, seed: int) -> None:
        for k, X, _ in self._cases(seed):
            expected = np.array([k.pair(x, x) for x in X])
            self._agree(k.diagonal(X), expected)
            self._agree(np.diagonal(k.matrix(X, X)), expected)
            self._agree(k.rowwise(X, X), expected)
            self._agree(k.diag(X), expected, rtol=1e-5)

    @_SEEDS
    def test_row_by_row_is_each_pair(self, seed: int) -> None:
        for k, X, Y in self._cases(seed):
            m = min(len(X), len(Y))
            expected = np.array([k.pair(x, y) for x, y in zip(X[:m], Y[:m], strict=True)])
            self._agree(k.rowwise(X[:m], Y[:m]), expected)
            self._agree(k.pairs(X[:m], Y[:m]), expected, rtol=1e-5)

    @_SEEDS
    def test_it_is_symmetric_and_positive_semi_definite(self, seed: int) -> None:
        for k, X, Y in self._cases(seed):
            self._agree(k.matrix(X, Y), k.matrix(Y, X).T)
            rows = np.concatenate([X, Y, X[:2]])
            K = k.matrix(rows, rows)
            self._agree(K, K.T)
            eigenvalues = np.linalg.eigvalsh((K + K.T) / 2)
            assert eigenvalues[0] >= -1e-10 * max(eigenvalues[-1], 1.0) * len(rows)

    @_SEEDS
    def test_values_lie_within_the_bounds_of_the_traits(self, seed: int) -> None:
        for k, X, _ in self._cases(seed):
            K = k.matrix(np.concatenate([X, -2.0 * X]), X)
            assert k.traits.low * (1 - 1e-6) - 1e-6 <= K.min()
            assert K.max() <= k.traits.high * (1 + 1e-6) + 1e-6

    def test_where_the_origin_is_does_not_matter_to_a_stationary_kernel(self) -> None:
        for k, X, Y in self._cases(0):
            if k.traits.shift_invariant:
                shifted = k.matrix(X + 2.0**20, Y + 2.0**20)
                np.testing.assert_allclose(shifted, k.matrix(X, Y), rtol=1e-7, atol=1e-7)

    def test_it_agrees_with_the_reference(self) -> None:
        reference = type(self).reference
        for k, X, Y in self._cases(1):
            if reference is not None:
                self._agree(k.matrix(X, Y), np.asarray(reference(X, Y)))

    # -- gradients --

    @_SEEDS
    def test_the_gradient_is_that_of_finite_differences(self, seed: int) -> None:
        for k, X, Y in self._cases(seed):
            C = np.random.default_rng(seed).standard_normal((len(X), len(Y)))
            found = k.vjp(X, Y, C)
            self._slopes(found.theta, k.theta, partial(_by_theta, k, X, Y), C)
            self._slopes(found.X, X, partial(k.matrix, Y=Y), C)
            self._slopes(found.Y, Y, partial(k.matrix, X), C)

    @_SEEDS
    def test_rows_on_both_sides_have_the_sum_of_both_gradients(self, seed: int) -> None:
        for k, X, _ in self._cases(seed):
            C = np.random.default_rng(seed).standard_normal((len(X), len(X)))
            np.fill_diagonal(C, 0.0)  # rows with themselves: the next law
            found = k.vjp(X, X, C)
            assert found.X is not None
            assert found.Y is not None
            self._slopes(found.theta, k.theta, partial(_by_theta, k, X, X), C)
            self._slopes(found.X + found.Y, X, k, C)

    @_SEEDS
    def test_the_gradient_of_the_diagonal_is_that_of_finite_differences(self, seed: int) -> None:
        for k, X, _ in self._cases(seed):
            c = np.random.default_rng(seed).standard_normal(len(X))
            found = k.vjp_diagonal(X, c)
            assert found.Y is None
            self._slopes(found.theta, k.theta, partial(_diagonal_by_theta, k, X), c)
            self._slopes(found.X, X, k.diagonal, c)

    def test_the_diagonal_of_a_matrix_has_the_gradient_of_the_diagonal(self) -> None:
        for k, X, _ in self._cases(3):
            c = np.arange(1.0, len(X) + 1.0)
            of_matrix, expected = k.vjp(X, X, np.diag(c)), k.vjp_diagonal(X, c)
            assert of_matrix.X is not None
            assert of_matrix.Y is not None
            assert expected.X is not None
            np.testing.assert_allclose(of_matrix.theta, expected.theta, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(of_matrix.X + of_matrix.Y, expected.X, rtol=1e-9, atol=1e-9)

    def test_a_pullback_comes_with_the_matrix_and_may_be_taken_again(self) -> None:
        for k, X, Y in self._cases(4):
            C = np.random.default_rng(4).standard_normal((len(X), len(Y)))
            K, pullback = k.matrix_and_vjp(X, Y)
            assert np.array_equal(K, k.matrix(X, Y))
            twice = [pullback(C), pullback(C)]
            for found in (twice[1], k.vjp(X, Y, C)):
                assert np.array_equal(found.theta, twice[0].theta)
            without = pullback(C, inputs=False)
            np.testing.assert_allclose(without.theta, twice[0].theta, rtol=1e-12, atol=1e-12)
            assert without.X is None
            assert without.Y is None
            assert k.vjp_diagonal(X, C[:, 0], inputs=False).X is None
            assert np.array_equal(K, k.matrix(X, Y)), "the pullback wrote into the matrix"

    # -- algebra --

    def test_sums_products_and_multiples_are_those_of_the_matrices(self) -> None:
        for k, X, Y in self._cases(5):
            other = Linear(0.7, bias=0.3)
            for A, B in ((X, Y), (X, X)):
                self._agree((k + other)(A, B), k(A, B) + other(A, B))
                self._agree((k * other)(A, B), k(A, B) * other(A, B))
                self._agree((2.5 * k)(A, B), 2.5 * k(A, B))
                self._agree((k + 0.5)(A, B), k(A, B) + 0.5)
            self._agree((k + other).diagonal(X), k.diagonal(X) + other.diagonal(X))
            self._agree((k * other).diagonal(X), k.diagonal(X) * other.diagonal(X))

    def test_new_rows_see_no_noise(self) -> None:
        for k, X, _ in self._cases(6):
            noisy, same_rows = k + White(0.4), X.copy()
            assert np.array_equal(noisy(X, same_rows), k(X, same_rows) + 0.0)
            self._agree(noisy(X), k(X) + 0.4 * np.eye(len(X)))
            left = k.noiseless()
            assert noisy.noiseless() == left
            if left is not None:
                self._agree(left(X), k(X, same_rows))

    # -- hyper-parameters --

    def test_theta_says_all_that_is_free(self) -> None:
        for k, X, _ in self._cases(7):
            theta = k.theta
            assert theta.shape == (len(k.names),)
            assert len(set(k.names)) == len(k.names)
            np.testing.assert_allclose(k.with_theta(theta).theta, theta, rtol=1e-14, atol=1e-14)
            moved = k.with_theta(theta + 0.1)
            np.testing.assert_allclose(moved.theta, theta + 0.1, rtol=1e-14, atol=1e-14)
            assert (moved == k) == (len(theta) == 0)
            assert k.for_dim(X.shape[1]) == k
            with pytest.raises(InputError, match=r"hyper-parameters"):
                k.with_theta(np.zeros(len(theta) + 1))
            if len(theta):
                with pytest.raises(InputError, match="theta"):
                    k.with_theta(np.full(len(theta), np.nan))

    def test_its_spec_and_its_formula_lead_back_to_it(self) -> None:
        spec = self.kernel.spec()
        assert json.loads(json.dumps(spec)) == spec
        assert resolve(json.loads(json.dumps(spec))) == self.kernel
        if ":" not in json.dumps(list(_names_in(spec))):  # formulas know shipped kernels only
            assert resolve_kernel(repr(self.kernel)) == self.kernel
        copy = pickle.loads(pickle.dumps(self.kernel))
        assert copy == self.kernel
        assert hash(copy) == hash(self.kernel)

    # -- a good citizen --

    def test_rows_that_do_not_fit_are_refused(self) -> None:
        for k, X, Y in self._cases(8):
            wider = np.concatenate([Y, Y], axis=1)
            with pytest.raises(InputError):
                k.matrix(X, wider)
            with pytest.raises(InputError, match=r"\[n, d\]"):
                k.matrix(X[0], Y)
            for bad in (np.nan, np.inf):
                spoiled = X.copy()
                spoiled[2, 0] = bad
                for method in (k.diagonal, k, lambda Z, k=k, Y=Y: k.matrix_and_vjp(Y, Z)):
                    with pytest.raises(InputError, match="row 2, column 0"):
                        method(spoiled)

    def test_rows_of_any_precision_and_layout_stay_as_they_are(self) -> None:
        for k, X, Y in self._cases(9):
            narrow = X.astype(np.float32)
            kept = narrow.copy()
            narrow.flags.writeable = False
            expected = k(narrow.astype(np.float64), Y)
            for layout in (narrow, np.asfortranarray(narrow), np.repeat(narrow, 2, axis=0)[::2]):
                self._agree(k(layout, Y), expected)
            assert np.array_equal(narrow, kept)

    def test_no_rows_and_rows_of_zeros_have_matrices_too(self) -> None:
        for k, X, Y in self._cases(10):
            assert k(X[:0], Y).shape == (0, len(Y))
            assert k(X, Y[:0]).shape == (len(X), 0)
            assert k.diagonal(X[:0]).shape == (0,)
            empty = k.vjp(X[:0], Y, np.zeros((0, len(Y))))
            assert not empty.theta.any()
            zeros = np.zeros((3, X.shape[1]))
            found = k.vjp(zeros, np.concatenate([zeros, Y]), np.ones((3, 3 + len(Y))))
            for gradient in (found.theta, found.X, found.Y):
                assert gradient is not None
                assert np.isfinite(gradient).all()

    # -- helpers --

    def _cases(self, seed: int) -> list[tuple[Kernel, Float64, Float64]]:
        """The kernel with two sets of rows, for each number of columns."""
        rng = np.random.default_rng(seed)
        return [
            (self.kernel.for_dim(d), self.points(rng, 6, d), self.points(rng, 5, d))
            for d in self.dimensions
        ]

    def _agree(self, found: Array, expected: Array, rtol: float | None = None) -> None:
        tolerance = self.rtol if rtol is None else rtol
        scale = np.abs(expected).max(initial=1.0)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)

    def _slopes(
        self, gradient: Float64 | None, at: Float64, value: Callable[[Float64], Float64], C: Float64
    ) -> None:
        """Whether the gradient is that of C . value at a point, by central differences along
        every axis, of a few, else along some directions."""
        assert gradient is not None
        assert gradient.shape == at.shape
        directions = np.eye(at.size)
        if at.size > _AXES:
            directions = np.random.default_rng(at.size).standard_normal((_AXES, at.size))
        found = directions @ gradient.ravel()
        expected = np.empty(len(directions))
        for place, direction in enumerate(directions):
            step = _STEP * direction.reshape(at.shape)
            ends = [np.vdot(C, value(at + sign * step)) for sign in (1.0, -1.0)]
            expected[place] = (ends[0] - ends[1]) / (2.0 * _STEP)
        self._agree(found, expected, rtol=self.gradient_rtol)


def _by_theta(k: Kernel, X: Float64, Y: Float64, theta: Float64) -> Float64:
    return k.with_theta(theta).matrix(X, Y)


def _diagonal_by_theta(k: Kernel, X: Float64, theta: Float64) -> Float64:
    return k.with_theta(theta).diagonal(X)


def _names_in(spec: Json) -> Iterator[str]:
    """The names of a kernel's spec, and of those inside it."""
    if isinstance(spec, dict):
        if "name" in spec:
            yield spec["name"]
        for value in spec.values():
            yield from _names_in(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from _names_in(value)
