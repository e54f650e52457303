"""How kernels are written and read: formulas, specs, hyper-parameters, and what is refused."""

import numpy as np
import pytest

import simdist as sd
from simdist.errors import ConfigError, InputError
from simdist.measures import Scaled, Squash
from simdist.measures import resolve as resolve_measure
from simdist.measures.kernels import (
    RBF,
    SHIPPED,
    ArcCosine,
    Constant,
    Laplacian,
    Linear,
    Matern32,
    Periodic,
    Polynomial,
    Product,
    RationalQuadratic,
    Scale,
    Sum,
    White,
    resolve,
)


def test_a_kernel_prints_as_its_formula():
    kernel = 2.5 * RBF((1 / 3, 2.0)) + Linear(active=1) * Periodic(period=12.0) + White(0.1)
    assert str(kernel) == (
        "2.5 * RBF(lengthscale=(0.3333, 2)) + Linear(variance=1, bias=0, active=(1,))"
        " * Periodic(lengthscale=1, period=12) + White(variance=0.1)"
    )
    assert str(3.0 * (RBF() + 1.0)) == "3 * (RBF(lengthscale=1) + Constant(variance=1))"
    assert str((RBF() + 1.0) * RBF()).startswith("(RBF(lengthscale=1) + Constant")
    assert str(RBF(tuple(range(1, 21)))) == "RBF(lengthscale=(1, 2, 3, ..., 20))"
    assert str(RBF(ard=True)) == "RBF(lengthscale=1, ard=True)"
    assert str(Polynomial(degree=2)) == "Polynomial(degree=2, variance=1, bias=1)"


@pytest.mark.parametrize(
    "kernel",
    [
        RBF(1 / 3),
        RBF((0.1, 0.2), active=(3, 1)),
        RBF(ard=True, fixed="lengthscale"),
        2.0 * (3.0 * RBF()),
        Scale(Scale(RBF(), 2.0, fixed=("variance",)), 3.0),
        1.5 * (RBF() + White()) * (Matern32() + 2.0 * Constant()),
        ArcCosine(order=2, bias=0.0) + Polynomial(degree=5),
    ],
    ids=str,
)
def test_what_is_printed_in_full_reads_as_the_kernel(kernel):
    assert resolve(repr(kernel)) == kernel
    assert resolve(kernel.spec()) == kernel
    assert resolve_measure(kernel.spec()) == kernel
    assert resolve(kernel) is kernel


def test_every_shipped_kernel_may_be_named():
    needs = {"sum", "product", "scale"}
    for name, cls in SHIPPED.items():
        if name not in needs:
            assert resolve(name) == resolve(cls.__name__) == resolve({"name": name}) == cls()


def test_kernels_inside_kernels_may_be_names_too():
    spec = {"name": "sum", "kernels": ["rbf", {"name": "scale", "kernel": "linear"}]}
    assert resolve(spec) == RBF() + Scale(Linear(), 1.0)


def test_sums_and_products_are_flat_and_numbers_find_their_place():
    a, b, c = RBF(), Linear(), Matern32()
    assert (a + b) + c == a + (b + c) == Sum((a, b, c))
    assert (a * b) * c == a * (b * c) == Product((a, b, c))
    assert a + 2 == Sum((a, Constant(2.0)))
    assert 2 + a == Sum((Constant(2.0), a))
    assert a * 2 == 2 * a == np.float64(2) * a == Scale(a, 2.0)
    assert 2.0 * (3.0 * a) == Scale(a, 6.0)


def test_hyper_parameters_are_named_and_fixed_ones_left_out():
    kernel = 2.0 * RBF((1.0, 2.0), active=(3, 1)) + RationalQuadratic(fixed="alpha") + White(0.1)
    assert kernel.names == (
        "scale.variance",
        "rbf.lengthscale[3]",
        "rbf.lengthscale[1]",
        "rational_quadratic.lengthscale",
        "white.variance",
    )
    np.testing.assert_allclose(np.exp(kernel.theta), [2.0, 1.0, 2.0, 1.0, 0.1])
    moved = kernel.with_theta(np.log([3.0, 4.0, 5.0, 6.0, 7.0]))
    assert str(moved) == (
        "3 * RBF(lengthscale=(4, 5), active=(3, 1)) + RationalQuadratic(lengthscale=6, alpha=1,"
        " fixed=('alpha',)) + White(variance=7)"
    )
    assert (RBF() + RBF(2.0)).names == ("0.rbf.lengthscale", "1.rbf.lengthscale")
    assert Linear().names == ("linear.variance",)
    assert Linear(bias=1.0).names == ("linear.variance", "linear.bias")
    assert Scale(RBF(fixed="lengthscale"), fixed=("variance",)).theta.shape == (0,)


def test_lengthscales_become_one_per_column_once_their_number_is_known():
    kernel = 2.0 * RBF(3.0, ard=True) * Matern32(ard=True, active=(0, 2)) + Laplacian()
    with pytest.raises(ConfigError, match=r"for_dim"):
        _ = kernel.theta
    known = kernel.for_dim(4)
    assert known.kernels[0].kernels[0].kernel.lengthscale == (3.0,) * 4
    assert known.kernels[0].kernels[1].lengthscale == (1.0, 1.0)
    assert known.kernels[1] == Laplacian()
    assert known.for_dim(4) == known
    rows = np.random.default_rng(0).standard_normal((4, 4))
    np.testing.assert_allclose(kernel(rows), known(rows))
    with pytest.raises(ConfigError, match="4 values of lengthscale and reads 3 columns"):
        known.for_dim(3)


def test_noise_is_of_the_same_rows_only():
    x = np.random.default_rng(0).standard_normal((5, 2))
    x[1] = x[0]
    kernel = RBF() + 3.0 * White(0.1)
    assert kernel(x)[0, 0] == pytest.approx(1.3)
    assert kernel(x)[0, 1] == pytest.approx(1.0), "equal rows are still two rows"
    assert kernel(x, x.copy())[0, 0] == pytest.approx(1.0), "prediction sees no noise"
    assert kernel.pair(x[0], x[1]) == pytest.approx(1.0)
    assert kernel.noiseless() == RBF()
    assert (RBF() * White()).noiseless() is None
    np.testing.assert_allclose(kernel.diagonal(x) - kernel.noiseless().diagonal(x), 0.3)
    narrow = x.astype(np.float32)
    assert kernel.block(narrow, narrow)[0, 0] == pytest.approx(1.3)
    assert kernel.block(narrow, narrow.copy())[0, 0] == pytest.approx(1.0)


def test_rows_far_from_the_origin_and_near_each_other_keep_their_digits():
    rng = np.random.default_rng(0)
    for d in (3, 40):
        x = rng.standard_normal((30, d))
        near = x + 1e-9 * rng.standard_normal(x.shape)
        for kernel in (RBF(), Matern32(), Laplacian(), sd.kernels.Matern12()):
            gaps = 1.0 - np.diagonal(kernel(x, near))
            expected = 1.0 - kernel.rowwise(x, near)
            np.testing.assert_allclose(gaps, expected, rtol=1e-3, atol=1e-15)
            np.testing.assert_allclose(kernel(x + 1e6), kernel(x), atol=1e-7)


def test_huge_and_tiny_scales_give_values_or_a_clear_error():
    x = np.array([[0.0, 1.0], [1e200, 0.0], [1e-200, 3.0]])
    assert np.isfinite(RBF(1e200)(x)).all()
    assert np.isfinite(RBF(1e-120)(x[[0, 2]])).all()
    with pytest.raises(InputError, match="lengthscales apart"):
        RBF()(x)
    assert np.array_equal(RBF(1e-100)(x[[0, 2]]), np.eye(2))
    found = RBF((1e-3, 1e3)).vjp(x[[0, 2]], x[[0, 2]], np.ones((2, 2)))
    assert np.isfinite(found.theta).all()


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda: RBF(0.0), "RBF.lengthscale is 0.0; it is a positive number"),
        (lambda: RBF(-1), "RBF.lengthscale is -1"),
        (lambda: RBF((1.0, np.nan)), r"RBF.lengthscale\[1\] is nan"),
        (lambda: RBF(True), "RBF.lengthscale is True"),
        (lambda: RBF("wide"), "RBF.lengthscale is 'wide'"),
        (lambda: RBF(()), "empty"),
        (lambda: RBF(active=(0, 0)), "active is"),
        (lambda: RBF(active=-1), "active is -1"),
        (lambda: RBF((1.0, 2.0), active=(0, 1, 2)), "reads 3 columns and has 2"),
        (lambda: RBF(fixed="variance"), "fixed names 'variance'; its parameters: lengthscale"),
        (lambda: Linear(bias=-1.0), "number of at least 0"),
        (lambda: Polynomial(degree=0), "degree is 0"),
        (lambda: ArcCosine(order=3), "order is 3"),
        (lambda: Sum((RBF(),)), "two kernels or more"),
        (lambda: Sum((RBF(), 3)), "not a kernel"),
        (lambda: Scale(RBF(), 0.0), "Scale.variance is 0.0"),
        (lambda: Scale("rbf", 1.0), "not a kernel"),
        (lambda: resolve("cosine"), "cosine is a measure.*rows of length 1"),
        (lambda: resolve({"name": "squash", "measure": "euclidean", "scale": 1.0}), "no.*kernel"),
        (lambda: resolve("rfb"), "Did you mean 'rbf'"),
        (lambda: resolve("gaussian"), "Did you mean 'rbf'"),
        (lambda: resolve("2 * Rbf()"), "'Rbf' in the kernel .* is no kernel"),
        (lambda: resolve("2 * RBF() +"), "no formula"),
        (lambda: resolve("RBF() - White()"), "numbers, . and ."),
        (lambda: resolve("__import__('os')"), "'__import__' in the kernel"),
        (lambda: resolve("RBF(width=2)"), "width"),
        (lambda: resolve("2 * 3"), "is 6, not a kernel"),
        (lambda: resolve({"name": "rbf", "length": 1}), "no field 'length'.*'lengthscale'"),
    ],
)
def test_what_makes_no_kernel_is_refused(write, says):
    with pytest.raises(ConfigError, match=f"(?s){says}"):
        write()


def test_rows_that_a_kernel_cannot_read_are_refused():
    x = np.ones((3, 2))
    with pytest.raises(InputError, match=r"reads column 4 .* 2 columns"):
        RBF(active=(1, 4))(x)
    with pytest.raises(InputError, match="3 values of lengthscale and the rows have 2"):
        RBF((1.0, 2.0, 3.0))(x)
    with pytest.raises(InputError, match="int64"):
        RBF()(np.ones((3, 2), np.int64))


def test_measures_that_are_no_kernels_stay_what_they_are():
    assert isinstance(
        resolve_measure({"name": "scaled", "measure": "dot", "lengthscales": [1]}), Scaled
    )
    assert isinstance(
        resolve_measure({"name": "squash", "measure": "euclidean", "scale": 2}), Squash
    )
    assert resolve_measure("rbf") == RBF()
