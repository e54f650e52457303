"""Squared distances of all pairs in float64, and the way back through them: `Squares`.

    r2 = |A_i - B_j|^2                                   [n, m]
       of few columns   sums of squared differences: exact, and quicker
       of many          |A_i|^2 + |B_j|^2 - 2 A_i . B_j: a matrix product; what cancelled to less
                        than a share of 1e-8 comes from differences after all

    W = C * S = d / d r2,  w = W 1,  v = W' 1            the way back, matrix products too
    d/dA = 2 (w A - W B),  d/dB = 2 (v B - W' A)
    sum_ij W_ij (A_ik - B_jk)^2 = w . A_k^2 + v . B_k^2 - 2 A_k . (W B)_k

Both go over the rows of A in blocks that stay in the cache between one pass and the next, so
nothing [n, m] is made beside the result. What cancels does so near the origin: callers shift both
sides to where the rows are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simdist.errors import InputError
from simdist.types import Array, Float64

__all__ = ["SquareGradient", "Squares", "row_blocks", "scratch"]

_FEW = 12  # columns, up to which differences are as quick as a product
_kept = threading.local()
_CANCELLED = 1e-8  # of |A_i|^2 + |B_j|^2: half the digits are left
_BLOCK = 2**17  # entries of a block of rows: 1 MiB


class SquareGradient(NamedTuple):
    """What `Squares.back` gives. A: [n, k], B: [m, k], None where they were not asked for.

    scaled: [k] = sum_ij W_ij (A_ik - B_jk)^2, the gradient of -log l_k / 2.
    """

    scaled: Float64
    A: Float64 | None
    B: Float64 | None


@dataclass(frozen=True, slots=True)
class Squares:
    """Two sides ready for their squared distances. A: [n, k], B: [m, k] float64."""

    A: Float64
    B: Float64
    s: Float64  # [n] |A_i|^2
    t: Float64  # [m] |B_j|^2

    @classmethod
    def of(cls, A: Float64, B: Float64, *, name: str) -> Squares:
        """B is A says that the rows are the same. InputError where squares would overflow.

        name: the kernel that asks, for the message.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            s = np.einsum("ij,ij->i", A, A)
            t = s if B is A else np.einsum("ij,ij->i", B, B)
            longest = s.max(initial=0.0) + t.max(initial=0.0)
        if not 4.0 * longest < np.finfo(np.float64).max:
            raise InputError(
                f"{name} cannot compare rows that are 1e153 lengthscales apart: their squares "
                f"overflow. Scale the data, or take longer lengthscales."
            )
        return cls(A, B, s, t)

    def map(self, *into: Float64, by: Callable[..., None]) -> None:
        """by(r2, *parts) for one block of rows after another. r2 is `parts[0]`, the block of the
        first array, with the squared distances in it; into: each [n, m], and `by` fills them."""
        columns = np.ascontiguousarray(self.B.T)
        for rows in row_blocks(len(self.A), len(self.B)):
            parts = [array[rows] for array in into]
            self._write(rows, columns, parts[0])
            by(*parts)

    def back(self, C: Float64, S: Float64, *, inputs: bool) -> SquareGradient:
        """The gradient of sum_ij C_ij f(r2_ij), S_ij = f'(r2_ij). C, S: [n, m]."""
        A, B = self.A, self.B
        w, v = np.empty(len(A)), np.zeros(len(B))
        WB, WA = np.empty(A.shape), np.zeros(B.shape)
        for rows in row_blocks(len(A), len(B)):
            W = np.multiply(C[rows], S[rows], out=scratch(S[rows]))
            w[rows] = W.sum(axis=1)
            v += W.sum(axis=0)
            np.matmul(W, B, out=WB[rows])
            if inputs:
                WA += W.T @ A[rows]
        scaled = w @ np.square(A) + v @ np.square(B) - 2.0 * np.einsum("ik,ik->k", A, WB)
        if not inputs:
            return SquareGradient(scaled, None, None)
        return SquareGradient(scaled, 2.0 * (w[:, None] * A - WB), 2.0 * (v[:, None] * B - WA))

    def _write(self, rows: slice, columns: Float64, out: Float64) -> None:
        """The squared distances of a block of rows into out [rows, m]. columns: B'."""
        from simdist.compiled import gaps  # noqa: PLC0415  numba comes with the first call

        if len(columns) <= _FEW:
            gaps.square_gaps(self.A[rows], columns, out)
            return
        np.matmul(-2.0 * self.A[rows], columns, out=out)
        out += self.s[rows, None]
        out += self.t
        below = _CANCELLED * (self.s[rows].max() + self.t.max(initial=0.0))
        if out.min(initial=np.inf) < below:
            gaps.resolve_near(self.A[rows], self.B, below, out)


def scratch(like: Array, place: int = 0) -> Array:
    """An array of that shape and type to write into: in a thread always the same memory, as long
    as it is a block's. Fresh memory for every block would cost more than what is done in it.

    place: which of several that are in use at a time.
    """
    if like.nbytes > 8 * _BLOCK:
        return np.empty_like(like)
    kept = _kept.__dict__
    name = f"place{place}"
    if name not in kept:
        kept[name] = np.empty(8 * _BLOCK, np.uint8)
    found: Array = kept[name][: like.nbytes].view(like.dtype).reshape(like.shape)
    return found


def row_blocks(n: int, m: int) -> Iterator[slice]:
    """Slices of n rows, of which a block [rows, m] stays in the cache."""
    step = max(16, _BLOCK // max(m, 1))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
