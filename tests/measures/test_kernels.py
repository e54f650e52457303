"""Every shipped kernel obeys the laws, and agrees with scikit-learn and with published formulas."""

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.gaussian_process import kernels as peer

from simdist.measures.kernels import (
    RBF,
    ArcCosine,
    Constant,
    Cosine,
    Laplacian,
    Linear,
    Matern12,
    Matern32,
    Matern52,
    Periodic,
    Polynomial,
    RationalQuadratic,
    Scale,
    White,
)
from simdist.measures.kernels.radial import Radial
from simdist.testing import KernelLaws

SCALES = (0.7, 2.0, 1.3)


class TestRBF(KernelLaws):
    kernel = RBF(1.4)
    reference = staticmethod(peer.RBF(1.4))


class TestRBFOfManyLengthscales(KernelLaws):
    kernel = RBF(SCALES)
    dimensions = (3,)
    reference = staticmethod(peer.RBF(SCALES))


class TestRBFOfSomeColumns(KernelLaws):
    kernel = RBF((2.0, 0.8), active=(2, 0))
    reference = staticmethod(lambda X, Y: peer.RBF((2.0, 0.8))(X[:, [2, 0]], Y[:, [2, 0]]))


class TestRBFMadeARD(KernelLaws):
    kernel = RBF(1.2, ard=True)
    reference = staticmethod(peer.RBF(1.2))


class TestMatern12(KernelLaws):
    kernel = Matern12(1.5)
    reference = staticmethod(peer.Matern(1.5, nu=0.5))


class TestMatern32(KernelLaws):
    kernel = Matern32(SCALES)
    dimensions = (3,)
    reference = staticmethod(peer.Matern(SCALES, nu=1.5))


class TestMatern52(KernelLaws):
    kernel = Matern52(1.5)
    reference = staticmethod(peer.Matern(1.5, nu=2.5))


class TestRationalQuadratic(KernelLaws):
    kernel = RationalQuadratic(1.5, alpha=0.6)
    reference = staticmethod(peer.RationalQuadratic(1.5, alpha=0.6))


class TestLaplacian(KernelLaws):
    kernel = Laplacian(SCALES)
    dimensions = (3,)
    reference = staticmethod(
        lambda X, Y: peer.PairwiseKernel(gamma=1.0, metric="laplacian")(X / SCALES, Y / SCALES)
    )


class TestPeriodic(KernelLaws):
    kernel = Periodic(0.9, period=1.7)
    dimensions = (1,)
    reference = staticmethod(peer.ExpSineSquared(0.9, 1.7))


class TestPeriodicOfManyColumns(KernelLaws):
    kernel = Periodic(SCALES, period=2.5)
    dimensions = (3,)


class TestCosine(KernelLaws):
    kernel = Cosine(6.0, ard=True)
    reference = staticmethod(lambda X, Y: np.cos(2 * np.pi * (X.sum(1)[:, None] - Y.sum(1)) / 6.0))


class TestLinear(KernelLaws):
    kernel = Linear()
    reference = staticmethod(lambda X, Y: X @ Y.T)


class TestLinearWithBias(KernelLaws):
    kernel = Linear(SCALES, bias=0.7)
    dimensions = (3,)
    reference = staticmethod(lambda X, Y: peer.DotProduct(np.sqrt(0.7))(X * SCALES, Y))


class TestPolynomial(KernelLaws):
    kernel = Polynomial(degree=3, variance=0.2, bias=1.5)
    reference = staticmethod(
        peer.PairwiseKernel(
            gamma=0.2, metric="poly", pairwise_kernels_kwargs={"degree": 3, "coef0": 1.5}
        )
    )


class TestPolynomialOfEvenDegree(KernelLaws):
    kernel = Polynomial(degree=2, variance=0.2, bias=0.0)


class TestSteps(KernelLaws):
    kernel = ArcCosine(order=0)
    rtol = 1e-7  # of an angle near 0: the root of eps


class TestRamps(KernelLaws):
    kernel = ArcCosine(SCALES, bias=0.5)
    dimensions = (3,)


class TestSquaredRamps(KernelLaws):
    kernel = ArcCosine(order=2, bias=0.0)


class TestWhite(KernelLaws):
    kernel = White(0.3)
    reference = staticmethod(peer.WhiteKernel(0.3))


class TestConstant(KernelLaws):
    kernel = Constant(0.3)
    reference = staticmethod(peer.ConstantKernel(0.3))


class TestSum(KernelLaws):
    kernel = 2.0 * RBF(0.9) + Linear(0.3) + 0.5
    reference = staticmethod(
        2.0 * peer.RBF(0.9) + 0.3 * peer.DotProduct(0) + peer.ConstantKernel(0.5)
    )


class TestProduct(KernelLaws):
    kernel = RBF(2.0, active=(0, 2)) * (Linear(bias=1.0, active=1) + 0.3 * Matern32()) * Periodic()


class TestScaledSumWithNoise(KernelLaws):
    kernel = 1.7 * (RBF(active=0) + White(0.2))


class TestFixed(KernelLaws):
    kernel = Scale(RationalQuadratic(fixed=("alpha",)), 2.0, fixed=("variance",)) + RBF(
        3.0, fixed="lengthscale"
    )


@dataclass(frozen=True, slots=True, repr=False)
class Cauchy(Radial):
    """1 / (1 + r^2): a kernel of one's own, as docs/kernels.md shows it."""

    name = "cauchy"
    slope = -1.0

    def profile(self, distances):
        distances += 1.0
        return np.reciprocal(distances, out=distances)

    def fill(self, r2, S):
        K = self.profile(r2)
        np.square(K, out=S)


class TestCauchy(KernelLaws):
    kernel = Cauchy((1.0, 2.0), active=(0, 2))
    reference = staticmethod(
        lambda X, Y: peer.RationalQuadratic(np.sqrt(0.5), 1.0)(
            X[:, [0, 2]] / (1, 2), Y[:, [0, 2]] / (1, 2)
        )
    )


@pytest.mark.parametrize("order", [0, 1, 2])
def test_arc_cosine_is_the_covariance_of_random_neurons(order):
    rng = np.random.default_rng(0)
    x, y, v, bias = np.array([1.0, -0.4]), np.array([0.3, 0.8]), np.array([0.5, 2.0]), 0.7
    w = rng.standard_normal((400_000, 3))
    rows = [np.append(np.sqrt(v) * z, np.sqrt(bias)) for z in (x, y)]
    fired = [np.where(w @ row > 0, (w @ row) ** order, 0.0) for row in rows]
    samples = 2.0 * fired[0] * fired[1]
    kernel = ArcCosine(tuple(v), order=order, bias=bias)
    assert abs(kernel.pair(x, y) - samples.mean()) < 5 * samples.std() / np.sqrt(len(w))


PAIRED = [
    (RBF(SCALES), peer.RBF(SCALES)),
    (Matern32(SCALES), peer.Matern(SCALES, nu=1.5)),
    (Matern52(0.8), peer.Matern(0.8, nu=2.5)),
    (Matern12(0.8), peer.Matern(0.8, nu=0.5)),
    (2.0 * RBF(0.7) + White(0.3), 2.0 * peer.RBF(0.7) + peer.WhiteKernel(0.3)),
    (RBF(0.7) * Matern52(2.0), peer.RBF(0.7) * peer.Matern(2.0, nu=2.5)),
]


@pytest.mark.parametrize(("kernel", "other"), PAIRED, ids=lambda k: str(k)[:40])
def test_hyper_parameters_have_the_gradient_of_scikit_learn(kernel, other):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((9, 3))
    C = rng.standard_normal((9, 9))
    values, gradients = other(X, eval_gradient=True)
    np.testing.assert_allclose(kernel(X), values, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(kernel.theta, other.theta)
    expected = np.einsum("ij,ijp->p", C, gradients)
    np.testing.assert_allclose(kernel.vjp(X, X, C).theta, expected, rtol=1e-9, atol=1e-9)


def test_what_scikit_learn_names_otherwise_has_the_same_gradient():
    rng = np.random.default_rng(1)
    X, C = rng.standard_normal((9, 1)), rng.standard_normal((9, 9))
    for kernel, other in (
        (Periodic(0.9, period=1.7), peer.ExpSineSquared(0.9, 1.7)),
        (RationalQuadratic(0.9, alpha=1.7), peer.RationalQuadratic(0.9, 1.7)),
    ):
        own = [name.split(".")[1] for name in kernel.names]
        found = dict(zip(own, kernel.vjp(X, X, C).theta, strict=True))
        names = {"length_scale": "lengthscale", "periodicity": "period", "alpha": "alpha"}
        expected = np.einsum("ij,ijp->p", C, other(X, eval_gradient=True)[1])
        for parameter, slope in zip(other.hyperparameters, expected, strict=True):
            assert found[names[parameter.name]] == pytest.approx(slope, rel=1e-9)
