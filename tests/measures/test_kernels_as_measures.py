"""Kernels are measures: the laws of those hold for their float32 side, and graphs take them."""

import numpy as np
import pytest
from measures.test_shipped import cancellation

import simdist as sd
from simdist.measures.kernels import (
    RBF,
    ArcCosine,
    Laplacian,
    Linear,
    Matern12,
    Matern52,
    Periodic,
    Polynomial,
)
from simdist.testing import MeasureLaws

SCALES = (0.5, 2.0, 10.0, 1.0, 0.9, 3.0, 7.0)


class TestRBF(MeasureLaws):
    measure = 2.5 * RBF(SCALES)
    dimensions = (7,)
    invariant = frozenset({"shift"})

    def slack(self, X, Y, expected):
        return 2.5 * cancellation(X / SCALES, Y / SCALES) + 1e-6


class TestMatern12(MeasureLaws):
    measure = Matern12(3.0)
    invariant = frozenset({"shift", "rotation"})

    def slack(self, X, Y, expected):
        return np.sqrt(cancellation(X / 3.0, Y / 3.0)) + 1e-6


class TestLaplacian(MeasureLaws):
    measure = Laplacian(5.0)
    invariant = frozenset({"shift"})


class TestPolynomialOfEvenDegree(MeasureLaws):
    measure = Polynomial(degree=2, variance=0.05)
    rtol = 1e-4


class TestSumOfProducts(MeasureLaws):
    measure = 0.5 * RBF(3.0) * Linear(0.1, bias=1.0) + ArcCosine(variance=0.1) + 0.2


def test_a_graph_of_a_kernel_is_that_of_its_distance():
    x = np.random.default_rng(0).standard_normal((800, 6)).astype(np.float32)
    of_kernel = sd.knn_graph(x, 5, measure=2.0 * RBF(3.0), method="exact")
    of_distance = sd.knn_graph(x, 5, measure="euclidean", method="exact")
    assert np.mean(of_kernel.indices == of_distance.indices) > 0.999
    expected = 2.0 * np.exp(-np.square(of_distance.values) / 18.0)
    np.testing.assert_allclose(of_kernel.values, expected, rtol=1e-5)


@pytest.mark.parametrize("kernel", [Matern52(3.0), RBF(3.0) + Linear()], ids=str)
def test_approximate_graphs_of_kernels_keep_their_promise(kernel):
    x = np.random.default_rng(1).standard_normal((1500, 6)).astype(np.float32)
    found = sd.knn_graph(x, 8, measure=kernel, recall=0.95)
    true = sd.knn_graph(x, 8, measure=kernel, method="exact")
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found.indices, true.indices, strict=True)]
    assert np.mean(hits) / 8 >= 0.95


def test_a_column_that_is_not_read_changes_nothing():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((6, 4))
    other = x.copy()
    other[:, [1, 2]] = rng.standard_normal((6, 2))
    for kernel in (RBF(active=(0, 3)), Linear(active=3), Periodic(active=(0, 3))):
        assert np.array_equal(kernel(x), kernel(other))
        assert np.array_equal(kernel.block(x, x), kernel.block(other, other))
        assert not kernel.vjp(x, other, np.ones((6, 6))).X[:, [1, 2]].any()
