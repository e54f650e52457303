"""Where float32 ends: extreme rows, near-duplicates, and what compiled kernels promise."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from simdist.errors import InputError
from simdist.measures import Cosine, Dot, Euclidean, Manhattan, Prepared, SqEuclidean

SHIPPED = [Dot(), Cosine(), SqEuclidean(), Euclidean(), Manhattan()]
EPS = float(np.finfo(np.float32).eps)


def rows(seed, n, d):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@settings(deadline=None, derandomize=True)
@given(
    X=arrays.arrays(np.float64, (3, 4), elements=st.floats(-1.0, 1.0, width=32)),
    powers=arrays.arrays(np.int64, (3, 1), elements=st.integers(-290, 290)),
)
def test_cosine_takes_rows_of_any_length_in_float64(X, powers):
    X[:, 0] = np.where(np.abs(X).max(axis=1) < 0.1, 1.0, X[:, 0])
    expected = [[Cosine().pair(x, y) for y in X] for x in X]
    np.testing.assert_allclose(Cosine().block(X * 10.0**powers, X), expected, atol=1e-6)


@pytest.mark.parametrize("length", [1e-44, 1e-38, 1e-20, 1e20, 1e38])
def test_cosine_takes_rows_of_any_length_in_float32(length):
    X = np.array([[1.0, 0.0], [0.0, -1.0], [1.0, 0.0]], np.float32) * np.float32(length)
    expected = [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    np.testing.assert_allclose(Cosine().block(X, X), expected, atol=1e-6)


def test_cosine_names_the_first_row_of_zeros_and_how_many_there_are():
    X = rows(0, 6, 3)
    X[[2, 4]] = 0
    with pytest.raises(InputError, match=r"row 2 of rows of shape \(6, 3\).*2 in all"):
        Cosine().prepare(X)
    with pytest.raises(InputError, match="zeros"):
        Cosine().pair(np.zeros(3), np.ones(3))


@pytest.mark.parametrize("measure", [Dot(), SqEuclidean(), Euclidean()], ids=lambda m: m.name)
def test_rows_whose_products_overflow_float32_are_refused_by_number(measure):
    X = rows(1, 3, 4)
    assert np.isfinite(measure.block(X * np.float32(1e18), X * np.float32(-1e18))).all()
    X[1, 2] = 1e19
    with pytest.raises(InputError, match=r"row 1: its length is 1e\+19"):
        measure.prepare(X)


@pytest.mark.parametrize("measure", [Dot(), SqEuclidean(), Manhattan()], ids=lambda m: m.name)
def test_float64_entries_beyond_float32_are_refused_by_place(measure):
    X = rows(2, 3, 4).astype(np.float64)
    X[2, 1] = 1e39
    with pytest.raises(InputError, match=r"row 2, column 1.*in float32"):
        measure.prepare(X)


def test_large_finite_rows_whose_sum_overflows_are_not_taken_for_infinite():
    X = np.full((2, 4), 3e38, np.float32)
    assert np.isfinite(Cosine().block(X, X)).all()


def test_float16_rows_whose_sums_overflow_float16_are_fine():
    X = np.full((2, 2000), 60_000, np.float16)
    np.testing.assert_allclose(Cosine().block(X, X), 1.0, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1_000.0])
@pytest.mark.parametrize(("gap", "d"), [(1e-3, 64), (1.0, 64), (1.0, 3), (1e-3, 768)])
def test_a_block_of_l2_is_off_by_no_more_than_its_docstring_says_and_pairs_are_exact(
    offset, gap, d
):
    X = (rows(3, 40, d) + np.float32(offset)).astype(np.float64)
    Y = (X + gap * rows(4, 40, d)).astype(np.float32).astype(np.float64)
    true = np.array([SqEuclidean().pair(x, y) for x, y in zip(X, Y, strict=True)])
    bound = max(2, d**0.5 / 2) * EPS * (np.square(X).sum(1) + np.square(Y).sum(1))
    block = SqEuclidean().block(X, Y).diagonal()
    assert (np.abs(block - true) <= bound).all()
    assert (block >= 0).all()
    np.testing.assert_allclose(SqEuclidean().pairs(X, Y), true, rtol=2 * EPS)
    np.testing.assert_allclose(Euclidean().pairs(X, Y), np.sqrt(true), rtol=2 * EPS)


def test_equal_rows_are_at_distance_exactly_zero():
    X = rows(5, 30, 17) * np.float32(1e6)
    for measure in (SqEuclidean(), Euclidean(), Manhattan()):
        assert (measure.pairs(X, X.copy()) == 0).all()
        assert (measure.diag(X) == 0).all()


@pytest.mark.parametrize("measure", SHIPPED, ids=lambda m: m.name)
def test_pairs_have_the_same_bits_from_memory_mapped_and_unaligned_rows(measure, tmp_path):
    X, Y = rows(6, 100, 37), rows(7, 100, 37)
    expected = measure.pairs(X, Y)
    np.save(tmp_path / "x.npy", X)
    assert np.array_equal(measure.pairs(np.load(tmp_path / "x.npy", mmap_mode="r"), Y), expected)
    for start in range(1, 16):
        shifted = np.empty(X.size + 16, np.float32)[start : start + X.size].reshape(X.shape)
        shifted[:] = X
        assert np.array_equal(measure.pairs(shifted, Y), expected)


@pytest.mark.parametrize("measure", SHIPPED, ids=lambda m: m.name)
def test_threads_get_the_bits_that_one_thread_gets(measure):
    X, Y = rows(8, 300, 24), rows(9, 300, 24)
    parts = [slice(start, start + 50) for start in range(0, 300, 50)]
    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(lambda part: measure.pairs(X[part], Y[part]), parts, timeout=60))
    assert np.array_equal(np.concatenate(values), measure.pairs(X, Y))


def test_a_kernel_is_compiled_once_for_writable_read_only_and_mapped_rows(tmp_path):
    from simdist.compiled import distances

    X = rows(10, 20, 5)
    np.save(tmp_path / "x.npy", X)
    frozen = X.copy()
    frozen.flags.writeable = False
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for Z in (X, frozen, mapped):
        SqEuclidean().pairs(Z, X)
        Manhattan().block(Prepared(Z), Prepared(X))
    for kernel in (distances._square_gaps, distances._manhattan_block):
        assert len(kernel.signatures) == 1


def test_manhattan_blocks_wider_than_a_cache_tile_are_whole():
    X, Y = rows(11, 3, 700), rows(12, 50, 700)  # a tile holds 11 such rows
    expected = [[Manhattan().pair(x, y) for y in Y] for x in X]
    np.testing.assert_allclose(Manhattan().block(X, Y), expected, rtol=1e-5)


def test_prepared_rows_of_another_measure_are_refused():
    X = rows(13, 4, 3)
    with pytest.raises(InputError, match="prepared by another measure"):
        SqEuclidean().block(X, Dot().prepare(X))


def test_a_pair_is_of_two_points():
    with pytest.raises(InputError, match=r"two points.*\(2, 3\)"):
        Dot().pair(rows(14, 2, 3), rows(14, 2, 3))
    with pytest.raises(InputError, match=r"\(3,\) and \(4,\)"):
        Euclidean().pair(np.ones(3), np.ones(4))


def test_importing_measures_imports_nothing_heavy():
    code = (
        "import sys, simdist.measures as m; m.resolve('cosine').spec(); "
        "print([name for name in ('numba', 'scipy', 'pyarrow', 'ray', 'dask') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
