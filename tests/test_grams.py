"""The Gram pass: sums over rows, and the gradient through them, against dense arithmetic."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from simdist.errors import InputError
from simdist.grams import (
    FAN,
    Cotangents,
    KernelGradients,
    Whitening,
    block_nbytes,
    gradient_block,
    gram_block,
    inducing_gradient,
    merge_name,
    merge_rounds,
    spans,
    tree_sum,
)
from simdist.measures.kernels import RBF, Kernel, Matern32

N, D, M = 700, 3, 30


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, two targets, weights."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    Y = np.column_stack([np.sin(X.sum(axis=1)), np.cos(X[:, 0])])
    return X, Y + 0.1 * rng.standard_normal(Y.shape), rng.uniform(0.5, 2.0, N)


def kernel() -> Kernel:
    return 1.3 * RBF((1.0, 1.5, 0.8)) + 0.2 * Matern32(2.0)


def test_statistics_are_sums_over_whitened_rows(rows, monkeypatch):
    monkeypatch.setattr("simdist.grams.BLOCK_NBYTES", 8 * M * 256)  # several blocks
    X, Y, w = rows
    whitening = Whitening.of(kernel(), X[:M])
    found = gram_block(whitening, X, Y, weights=w)
    K = kernel().matrix(X[:M], X[:M].copy())
    A = np.linalg.solve(np.linalg.cholesky(K + 1e-8 * np.mean(np.diag(K)) * np.eye(M)),
                        kernel().matrix(X[:M], X))  # fmt: skip
    assert np.allclose(found.P, (A * w) @ A.T, rtol=1e-9)
    assert np.allclose(found.b, (A * w) @ Y, rtol=1e-9)
    assert np.allclose(found.A1, A @ w, rtol=1e-9)
    assert np.allclose(found.yy, w @ Y**2)
    assert found.kk == pytest.approx(1.5 * w.sum())
    assert found.logw == pytest.approx(np.log(w).sum())
    assert (found.n, found.P.shape) == (N, (M, M))
    assert np.array_equal(found.P, found.P.T)


def test_parts_add_up_to_the_whole(rows):
    X, Y, w = rows
    whitening = Whitening.of(kernel(), X[:M])
    whole = gram_block(whitening, X, Y, weights=w)
    cuts = np.linspace(0, N, 2 * FAN + 2).astype(int)
    parts = [gram_block(whitening, X[a:b], Y[a:b], weights=w[a:b]) for a, b in pairwise(cuts)]
    found = tree_sum(parts)
    assert np.allclose(found.P, whole.P, rtol=1e-11)
    assert found.n == N
    assert found.kk == pytest.approx(whole.kk)


def value(kernel: Kernel, Z: np.ndarray, rows, with_gradient: bool = False):
    """tr(C P) + sum(B b) + 0.7 kk of weighted statistics, and its gradient."""
    X, Y, w = rows
    rng = np.random.default_rng(1)
    C, B = rng.standard_normal((M, M)), rng.standard_normal((M, 2))
    C = 0.01 * (C + C.T)
    whitening = Whitening.of(kernel, Z, jitter=1e-6)
    kept: list = []
    found = gram_block(whitening, X, Y, weights=w, kept=kept)
    f = float(np.sum(C * found.P) + np.sum(B * found.b) + 0.7 * found.kk)
    if not with_gradient:
        return f
    cotangents = Cotangents(C, B, 0.7)
    own = inducing_gradient(whitening, found, cotangents, inputs=True)
    first = gradient_block(whitening, X, Y, cotangents, weights=w, kept=kept, inputs=True)
    again = gradient_block(whitening, X, Y, cotangents, weights=w, inputs=True)
    assert np.allclose(first.Z, again.Z, rtol=1e-9, atol=1e-9)
    assert np.allclose(first.theta, again.theta, rtol=1e-9)
    return f, first + own


def test_the_gradient_is_that_of_finite_differences(rows, monkeypatch):
    monkeypatch.setattr("simdist.grams.BLOCK_NBYTES", 8 * M * 256)
    Z = rows[0][:M] + 0.1
    _, gradient = value(kernel(), Z, rows, with_gradient=True)
    theta = kernel().theta
    step = 1e-5
    for i in range(len(theta)):
        up, down = (theta + s * step * np.eye(len(theta))[i] for s in (1, -1))
        moved = value(kernel().with_theta(up), Z, rows) - value(kernel().with_theta(down), Z, rows)
        assert gradient.theta[i] == pytest.approx(moved / (2 * step), rel=1e-4, abs=1e-3)
    for i, j in ((0, 0), (7, 2), (M - 1, 1)):
        up, down = Z.copy(), Z.copy()
        up[i, j] += step
        down[i, j] -= step
        moved = value(kernel(), up, rows) - value(kernel(), down, rows)
        assert gradient.Z[i, j] == pytest.approx(moved / (2 * step), rel=1e-3, abs=1e-3)


def test_gradients_of_parts_add_up_and_may_leave_out_inputs():
    a = KernelGradients(np.ones(2), np.ones((3, 1)))
    assert np.array_equal((a + a).Z, 2 * np.ones((3, 1)))
    assert (a + KernelGradients(np.ones(2))).Z is None


@pytest.mark.parametrize("points", ["duplicates", "a line"])
def test_duplicate_and_collinear_inducing_points_are_fine(rows, points):
    X, Y, _ = rows
    Z = np.repeat(X[:5], 6, axis=0)
    if points == "a line":
        Z = np.linspace(-1, 1, M)[:, None] * np.ones(D)
    found = gram_block(Whitening.of(RBF(1.0), Z), X, Y)
    assert np.isfinite(found.P).all()
    assert 0 <= found.trace_gap <= found.kk


def test_a_matrix_that_is_no_kernel_is_refused():
    class Wrong(RBF):
        def matrix(self, X, Y):
            return -super().matrix(X, Y)

    with pytest.raises(InputError, match="not positive definite"):
        Whitening.of(Wrong(1.0), np.arange(6.0).reshape(3, 2))


def test_spans_cover_all_rows_and_follow_from_sizes_alone():
    for n, m in ((1, 10), (4096, 64), (10_000, 512), (2_000_000, 512), (50_000, 4096)):
        cuts = spans(n, m, 8)
        assert cuts[0][0] == 0
        assert cuts[-1][1] == n
        assert all(a[1] == b[0] for a, b in pairwise(cuts))
    assert len(spans(2_000_000, 512, 8)) == 16
    wide = max(b - a for a, b in spans(2_000_000, 512, 1000))
    assert block_nbytes(wide, 1000, 512, 1) < 700 << 20


def test_merge_rounds_end_in_one_task_whose_round_is_named():
    for count in (1, 2, FAN, FAN + 1, FAN**2 + 1):
        rounds = list(merge_rounds("pass-3", count, 1000))
        last = rounds[-1].name if rounds else "pass-3"
        assert merge_name("pass-3", count) == last
        if rounds:
            assert len(rounds[-1].tasks) == 1
            assert rounds[0].tasks[-1].args["last"] == count
