"""BLAS and LAPACK as pointers: the answers of SciPy's wrappers, and other threads run meanwhile."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from simdist.solvers import lapack


@pytest.fixture
def psd():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 40))
    return np.array(X @ X.T, order="F")


def fortran(rows, columns, seed=1):
    return np.array(np.random.default_rng(seed).standard_normal((rows, columns)), order="F")


def test_products_are_numpys():
    X, Y = fortran(4, 7), fortran(7, 5)
    C = fortran(4, 5)
    before = C.copy()
    lapack.gemm(X, Y, C, beta=2.0)
    np.testing.assert_allclose(C, 2.0 * before + X @ Y, rtol=1e-13)
    lapack.gemm(X, np.array(Y.T, order="F"), C, turned=True)
    np.testing.assert_allclose(C, X @ Y, rtol=1e-13)
    square = np.ones((4, 4), order="F")
    lapack.syrk(X, square)
    np.testing.assert_allclose(np.tril(square), np.tril(1.0 + X @ X.T), rtol=1e-13)
    assert (square[np.triu_indices(4, 1)] == 1.0).all()


@pytest.mark.parametrize("turned", [False, True])
def test_triangles_multiply_and_solve(psd, turned):
    L, B = np.asfortranarray(np.linalg.cholesky(psd)), fortran(30, 3)
    plain, made = L.T if turned else L, B.copy(order="F")
    lapack.trmm(L, made, turned=turned)
    np.testing.assert_allclose(made, plain @ B, rtol=1e-12)
    lapack.trsm(L, made, turned=turned)
    np.testing.assert_allclose(made, B, rtol=1e-9)


def test_a_factor_solves_and_inverts(psd):
    L = psd.copy(order="F")
    assert lapack.potrf(L, clean=True) == 0
    np.testing.assert_allclose(L @ L.T, psd, rtol=1e-12)
    U = psd.copy(order="F")
    assert lapack.potrf(U, upper=True, clean=True) == 0
    np.testing.assert_allclose(U.T @ U, psd, rtol=1e-12)
    b = fortran(30, 2)
    x = b.copy(order="F")
    lapack.potrs(L, x)
    np.testing.assert_allclose(psd @ x, b, atol=1e-10)
    lapack.potri(L)
    inverse = np.tril(L) + np.tril(L, -1).T
    np.testing.assert_allclose(inverse @ psd, np.eye(30), atol=1e-10)


def test_a_matrix_that_has_no_factor_is_told_by_its_row(psd):
    psd[4, 4] = -1.0
    assert lapack.potrf(psd) == 5


def test_other_orders_types_and_shapes_are_refused(psd):
    wrong = [np.ones((30, 2), order="C"), np.ones((30, 2), np.float32, order="F")]
    for B in wrong:
        with pytest.raises(ValueError, match="expected float64 in Fortran order"):
            lapack.trsm(psd, B)
    with pytest.raises(ValueError, match=r"\(30, 30\): expected \(29, 29\)"):
        lapack.trsm(psd, fortran(29, 2))


def test_other_threads_run_while_a_product_is_made(monkeypatch):
    """No thread is made to give way, so another one runs only where the product lets it."""
    go, ran = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: go.wait() and ran.set())
    other.start()
    X = fortran(600, 600)
    C = np.empty_like(X)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e3)
    try:
        go.set()
        for _ in range(1000):
            lapack.gemm(X, X, C)
            if ran.is_set():
                break
        assert ran.is_set()
    finally:
        sys.setswitchinterval(before)
        other.join()
