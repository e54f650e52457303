"""A measure of one's own is a dozen lines, obeys the laws, and is found again by its path."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial import distance

from simdist.errors import ConfigError
from simdist.measures import Measure, Scaled, Squash, Traits, resolve
from simdist.testing import MeasureLaws


@dataclass(frozen=True, slots=True)
class Chebyshev(Measure):
    name = "chebyshev"
    traits = Traits(kind="distance", metric=True, low=0.0)

    def pair(self, x, y):
        return float(np.abs(x - y).max())

    def block(self, X, Y):
        A, B = self.both(X, Y)
        values = np.empty((len(A), len(B)), np.float32)
        for i, a in enumerate(A.vectors):
            values[i] = np.abs(a - B.vectors).max(axis=1)
        return values


@dataclass(frozen=True, slots=True)
class Minkowski(Measure):
    """Says nothing but what a pair is worth."""

    p: float = 3.0

    name = "minkowski"
    traits = Traits(kind="distance", metric=True, low=0.0)

    def pair(self, x, y):
        return float((np.abs(x - y) ** self.p).sum() ** (1 / self.p))


@dataclass(frozen=True, slots=True)
class Logistic(Measure):
    """Has a GEMM form: the default product of rows, and a correction."""

    slope: float

    name = "logistic"
    version = 2
    traits = Traits(kind="similarity", low=0.0, high=1.0, gemm=True)

    def pair(self, x, y):
        return float(1 / (1 + np.exp(-self.slope * (x @ y))))

    def correct(self, nearness):
        return 1 / (1 + np.exp(-np.float32(self.slope) * nearness))


class TestChebyshev(MeasureLaws):
    measure = Chebyshev()
    reference = staticmethod(lambda X, Y: distance.cdist(X, Y, "chebyshev"))
    invariant = frozenset({"shift"})
    degree = 1.0
    near_rtol = 1e-6


class TestMinkowski(MeasureLaws):
    measure = Minkowski(p=3.0)
    reference = staticmethod(lambda X, Y: distance.cdist(X, Y, "minkowski", p=3.0))
    invariant = frozenset({"shift"})
    degree = 1.0


class TestLogistic(MeasureLaws):
    measure = Logistic(slope=0.5)
    invariant = frozenset({"rotation"})


class TestSquashOfScaledOfOwn(MeasureLaws):
    measure = Squash(Scaled(Chebyshev(), (1.0, 4.0)), 2.0)
    dimensions = (2,)


def test_an_own_measure_is_named_by_its_path_with_its_fields():
    path = f"{__name__}:Minkowski"
    assert Minkowski(p=4.0).spec() == {"name": path, "p": 4.0}
    assert resolve(path) == Minkowski()
    assert resolve({"name": path, "p": 4.0}) == Minkowski(p=4.0)


def test_an_own_measure_can_be_modified_by_path():
    path = f"{__name__}:Chebyshev"
    spec = {"name": "squash", "measure": path, "scale": 2}
    assert resolve(spec) == Squash(Chebyshev(), 2.0)


def test_a_new_version_is_another_fingerprint_and_the_old_one_is_refused():
    spec = Logistic(slope=0.5).spec()
    assert spec["version"] == 2
    with pytest.raises(ConfigError, match=r"version 1.*version 2"):
        resolve({**spec, "version": 1})


def test_a_measure_without_traits_cannot_be_made():
    @dataclass(frozen=True, slots=True)
    class Nothing(Measure):
        name = "nothing"

        def pair(self, x, y):
            return 0.0

    with pytest.raises(TypeError, match="traits"):
        Nothing()


def test_a_measure_whose_fields_cannot_enter_a_fingerprint_says_so():
    class Bare(Measure):
        name = "bare"
        traits = Traits(kind="distance")

        def __init__(self, weight):
            self.weight = weight

        def pair(self, x, y):
            return self.weight * float(np.abs(x - y).sum())

    with pytest.raises(ConfigError, match=r"Bare is not a frozen dataclass.*@dataclass"):
        Bare(2.0).spec()
    with pytest.raises(ConfigError, match=r"Minkowski.p holds a ndarray"):
        Minkowski(p=np.ones(2)).spec()


def test_a_class_made_inside_a_function_cannot_be_resolved_and_says_why():
    @dataclass(frozen=True, slots=True)
    class Local(Chebyshev):
        pass

    with pytest.raises(ConfigError, match="made inside a function"):
        resolve(Local().spec())
