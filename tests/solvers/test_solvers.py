"""The block solver on matrices in memory, against all eigenpairs at once."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from simdist.engine.threads import in_order
from simdist.errors import ConfigError, InputError
from simdist.solvers.chebyshev import Filter, Term
from simdist.solvers.lobpcg import Eigenpairs, lobpcg, moments
from simdist.solvers.rayleigh import rayleigh_ritz


def _symmetric(values: np.ndarray, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return (Q * values) @ Q.T


def _solve(A, dim: int, *, block: int, dtype=np.float64, **options) -> Eigenpairs:
    start = np.random.default_rng(1).standard_normal((A.shape[0], block)).astype(dtype)
    held = A.astype(dtype)

    def step(term: Term, last, before, out) -> None:
        out[:] = term.product * (held @ last) + term.last * last + term.before * before

    return lobpcg(step, start, dim, run=in_order, **options)


SPECTRUM = np.concatenate([[0.99, 0.97, 0.97, 0.9, 0.88], np.linspace(-0.95, 0.8, 395)])


@pytest.mark.parametrize("degree", [1, 3, 8])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-7)])
def test_largest_eigenpairs_are_found_to_the_residual_asked_for(degree, dtype, tolerance):
    A = _symmetric(SPECTRUM)
    found = _solve(A, 5, block=9, dtype=dtype, tolerance=tolerance, degree=degree)
    X = found.vectors.astype(np.float64)
    true = np.linalg.norm(A @ X - X * found.values[:5], axis=0)
    assert found.converged
    assert true.max() <= 1.1 * tolerance
    assert np.abs(found.values[:5] - SPECTRUM[:5]).max() <= tolerance
    assert np.abs(X.T @ X - np.eye(5)).max() <= 1e-5


def test_a_filter_needs_fewer_bases():
    A = _symmetric(SPECTRUM)
    plain, filtered = (_solve(A, 5, block=9, degree=degree) for degree in (1, 8))
    assert plain.passes <= filtered.passes < 3 * plain.passes
    assert filtered.rounds < plain.rounds / 2


def test_every_copy_of_an_eigenvalue_is_found():
    ring = np.roll(np.eye(200), 1, axis=1)
    A = (ring + ring.T) / 2
    found = _solve(A, 7, block=15, tolerance=1e-8, degree=8)
    expected = np.cos(2 * np.pi * np.array([0, 1, 1, 2, 2, 3, 3]) / 200)
    assert np.abs(found.values[:7] - expected).max() < 1e-12


def test_a_block_as_wide_as_the_space_is_no_trouble():
    A = _symmetric(np.linspace(-1, 1, 12))
    found = _solve(A, 10, block=15, tolerance=1e-9)
    assert found.converged
    assert np.allclose(found.values[:10], np.linspace(1, -1, 12)[:10])


def test_a_matrix_of_low_rank_is_no_trouble():
    A = _symmetric(np.r_[0.9, 0.5, np.zeros(60)])
    found = _solve(A, 4, block=8, tolerance=1e-9)
    assert found.converged
    assert np.allclose(found.values[:4], [0.9, 0.5, 0, 0], atol=1e-9)


def test_known_vectors_stay_out():
    A = _symmetric(SPECTRUM)
    values, vectors = np.linalg.eigh(A)
    U = vectors[:, -2:]

    def deflate(X) -> None:
        X -= U @ (U.T @ X)

    found = _solve(A, 3, block=6, deflate=deflate, tolerance=1e-7)
    assert np.allclose(found.values[:3], values[::-1][2:5], atol=1e-7)


def test_what_is_not_reached_is_said():
    found = _solve(_symmetric(SPECTRUM), 5, block=9, max_passes=3)
    assert not found.converged
    assert found.passes <= 3
    assert found.residuals.max() > 1e-3


def test_a_block_narrower_than_what_is_wanted_is_refused():
    with pytest.raises(ConfigError, match="a block of 4 columns cannot hold dim=5"):
        _solve(np.eye(20), 5, block=4)


def test_nan_is_refused():
    with pytest.raises(InputError, match="not finite"):
        _solve(sp.csr_matrix(np.full((30, 30), np.nan)), 2, block=4)


def test_moments_add_up_over_rows_whatever_the_cut():
    rng = np.random.default_rng(0)
    V, AV = rng.standard_normal((2, 9000, 6)).astype(np.float32)
    blocks = [V[:, :4], V[:, 4:]]
    AW = AV[:, 4:]
    whole = moments(blocks, AW)
    cuts = (slice(0, 100), slice(100, None))
    upper, lower = (moments([block[cut] for block in blocks], AW[cut]) for cut in cuts)
    assert np.allclose(whole.gram, (upper + lower).gram, rtol=1e-12)
    assert np.allclose(whole.image, V.T.astype(float) @ AW.astype(float), rtol=1e-9, atol=1e-9)


def test_a_direction_that_the_others_hold_already_adds_nothing():
    A = np.diag(np.linspace(1, 0, 30))
    V = np.eye(30)[:, :4]
    V = np.c_[V, V[:, :2] + 1e-9]
    ritz = rayleigh_ritz(V.T @ V, V.T @ A @ V, 6, orthonormal=4)
    assert np.allclose(ritz.values, np.diag(A)[:4])


def test_a_filter_is_one_at_the_top_and_small_where_nothing_is_wanted():
    damped = Filter(-1.0, 0.8, 0.99, 8)
    assert damped.at(np.array([0.99]))[0] == pytest.approx(1.0)
    inside = np.abs(damped.at(np.linspace(-1, 0.8, 500)))
    assert inside.max() < 0.05
    assert np.all(np.diff(damped.at(np.linspace(0.8, 1.0, 50))) > 0)
