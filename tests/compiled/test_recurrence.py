"""Steps of a polynomial of a sparse matrix, and vectors with disjoint supports, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from simdist.compiled.deflate import add_sums, subtract
from simdist.compiled.recurrence import step_rows

KINDS = [(np.float32, 1e-5), (np.float64, 1e-12)]


def _matrix(n: int, dtype: type) -> sp.csr_matrix:
    A = np.random.default_rng(0).standard_normal((n, n))
    A[np.abs(A) < 2] = 0
    A[3] = 0  # a node without edges
    return sp.csr_matrix(A, dtype=dtype)


@pytest.mark.parametrize(("dtype", "margin"), KINDS)
@pytest.mark.parametrize("width", [1, 7, 40])
def test_a_step_is_a_product_and_two_multiples_whatever_the_cuts(dtype, margin, width):
    n = 300
    A = _matrix(n, dtype)
    X, B = np.random.default_rng(1).standard_normal((2, n, width)).astype(dtype)
    parts = (A.indptr.astype(np.int64), A.indices.astype(np.int32), A.data)
    whole, cut, own = np.empty_like(X), np.empty_like(X), B.copy()
    step_rows(*parts, X, B, (1.5, -0.5, 0.25), 0, n, whole)
    assert np.allclose(whole, 1.5 * (A @ X) - 0.5 * X + 0.25 * B, rtol=margin, atol=margin)
    for first, end in ((0, 3), (3, 4), (4, 299), (299, 300)):
        step_rows(*parts, X, B, (1.5, -0.5, 0.25), first, end, cut)
        step_rows(*parts, X, own, (1.5, -0.5, 0.25), first, end, own)  # over what it reads
    assert np.array_equal(cut, whole)
    assert np.array_equal(own, whole)


@pytest.mark.parametrize(("dtype", "margin"), KINDS)
def test_a_block_is_freed_of_the_vectors_of_its_components(dtype, margin):
    rng = np.random.default_rng(2)
    place = rng.integers(0, 4, 100).astype(np.int32)
    roots, X = rng.uniform(0.5, 2, 100), rng.standard_normal((100, 6)).astype(dtype)
    U = np.zeros((100, 4))
    U[np.arange(100), place] = roots
    sums = np.zeros((4, 6))
    add_sums(place, roots, X, sums)
    assert np.allclose(sums, U.T @ X.astype(np.float64), rtol=1e-9)
    means = sums / np.sum(U * U, axis=0)[:, None]
    freed = X.copy()
    for first, end in ((0, 60), (60, 100)):
        subtract(place, roots, means, X, first, end, freed)
    assert np.allclose(freed, X - U @ means, rtol=margin, atol=margin)
    assert np.allclose(U.T @ freed, 0, atol=100 * margin)
