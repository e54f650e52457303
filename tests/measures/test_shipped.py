"""Every shipped measure obeys the laws, and agrees with scikit-learn and scipy."""

import numpy as np
from scipy.spatial import distance
from sklearn.metrics import pairwise

from simdist.measures import Cosine, Dot, Euclidean, Manhattan, Scaled, SqEuclidean, Squash
from simdist.testing import MeasureLaws

EPS = float(np.finfo(np.float32).eps)
SCALES = (0.5, 2.0, 10.0, 1.0, 0.1, 3.0, 7.0)


def cancellation(X, Y):
    """What a GEMM may lose of |x - y|^2, as the docstring of `vectors` states it."""
    return 4 * EPS * (np.square(X).sum(1)[:, None] + np.square(Y).sum(1))


def root_slack(X, Y, expected):
    """The same, seen through the square root: large where the distance is small."""
    lost = cancellation(X, Y)
    return np.minimum(np.sqrt(lost), lost / np.maximum(expected, 1e-30)) + 1e-6 * expected


class TestDot(MeasureLaws):
    measure = Dot()
    reference = staticmethod(pairwise.linear_kernel)
    invariant = frozenset({"rotation"})
    degree = 2.0


class TestCosine(MeasureLaws):
    measure = Cosine()
    reference = staticmethod(pairwise.cosine_similarity)
    invariant = frozenset({"scale", "rotation"})
    degree = 0.0


class TestSqEuclidean(MeasureLaws):
    measure = SqEuclidean()
    reference = staticmethod(lambda X, Y: distance.cdist(X, Y, "sqeuclidean"))
    invariant = frozenset({"shift", "rotation"})
    degree = 2.0
    near_rtol = 1e-6

    def slack(self, X, Y, expected):
        return cancellation(X, Y)


class TestEuclidean(MeasureLaws):
    measure = Euclidean()
    reference = staticmethod(lambda X, Y: distance.cdist(X, Y, "euclidean"))
    invariant = frozenset({"shift", "rotation"})
    degree = 1.0
    near_rtol = 1e-6

    def slack(self, X, Y, expected):
        return root_slack(X, Y, expected)


class TestManhattan(MeasureLaws):
    measure = Manhattan()
    reference = staticmethod(pairwise.manhattan_distances)
    invariant = frozenset({"shift"})
    degree = 1.0
    near_rtol = 1e-6


class TestScaledManhattan(MeasureLaws):
    measure = Scaled(Manhattan(), SCALES)
    dimensions = (7,)
    reference = staticmethod(lambda X, Y: distance.cdist(X, Y, "cityblock", w=1 / np.array(SCALES)))
    invariant = frozenset({"shift"})
    degree = 1.0


class TestScaledEuclidean(MeasureLaws):
    measure = Scaled(Euclidean(), SCALES)
    dimensions = (7,)
    reference = staticmethod(lambda X, Y: distance.cdist(X, Y, "seuclidean", V=np.square(SCALES)))
    invariant = frozenset({"shift"})
    degree = 1.0

    def slack(self, X, Y, expected):
        return root_slack(X / SCALES, Y / SCALES, expected)


class TestScaledCosine(MeasureLaws):
    measure = Scaled(Cosine(), SCALES)
    dimensions = (7,)
    invariant = frozenset({"scale"})
    degree = 0.0


class TestGaussian(MeasureLaws):
    measure = Squash(SqEuclidean(), 8.0)
    reference = staticmethod(lambda X, Y: pairwise.rbf_kernel(X, Y, gamma=1 / 8.0))
    invariant = frozenset({"shift", "rotation"})


class TestExponential(MeasureLaws):
    measure = Squash(Euclidean(), 1.5)
    reference = staticmethod(lambda X, Y: np.exp(-distance.cdist(X, Y) / 1.5))
    invariant = frozenset({"shift", "rotation"})

    def slack(self, X, Y, expected):
        return root_slack(X, Y, distance.cdist(X, Y)) / 1.5 + 1e-6


class TestLaplacian(MeasureLaws):
    measure = Squash(Manhattan(), 3.0)
    reference = staticmethod(lambda X, Y: pairwise.laplacian_kernel(X, Y, gamma=1 / 3.0))
    invariant = frozenset({"shift"})


class TestSquashOfScaled(MeasureLaws):
    measure = Squash(Scaled(SqEuclidean(), SCALES), 20.0)
    dimensions = (7,)
    invariant = frozenset({"shift"})

    def slack(self, X, Y, expected):
        return cancellation(X / SCALES, Y / SCALES) / 20.0 + 1e-6
