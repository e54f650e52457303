"""Rows on their way into a measure: checked, made float32, and carried with their terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from simdist.errors import InputError
from simdist.types import Array, Float32, Float64, Ids

__all__ = ["Prepared", "Rows", "as_float32", "as_indices", "as_points", "as_rows", "square_norms"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows made ready for a measure, once.

    vectors: [n, d] float32, C-contiguous; may share memory with the array it was made from.
    terms: [n] float32, the additive term of the GEMM form; None where it is zero.
    """

    vectors: Float32
    terms: Float32 | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Array | slice) -> Prepared:
        """The prepared form of some of the rows (an index array copies, a slice views)."""
        return Prepared(self.vectors[rows], None if self.terms is None else self.terms[rows])


Rows: TypeAlias = "Prepared | Array"


def as_rows(X: Array, *, of: str) -> Array:
    """`X` as a finite [n, d] float16, float32 or float64 array, or an InputError.

    of: the measure that asks, for the message.
    """
    X = np.asarray(X)
    if X.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(
            f"{of} takes rows of float16, float32 or float64; got {X.dtype} of shape {X.shape}. "
            f"Convert them with .astype(np.float32)."
        )
    if X.ndim != 2 or X.shape[1] == 0:
        remedy = " A single row is x[None, :]." if X.ndim == 1 else ""
        raise InputError(
            f"{of} takes rows of shape [n, d] with d >= 1; got shape {X.shape}.{remedy}"
        )
    _refuse_non_finite(X, of=of, why="")
    return X


def as_float32(X: Array, *, of: str) -> Float32:
    """`X` as C-contiguous float32, without a copy where it is that already.

    InputError where a float64 entry is beyond float32 (3.4e38).
    """
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(X, dtype=np.float32)
    if X.dtype == np.float64:
        _refuse_non_finite(vectors, of=of, why=" in float32, which ends at 3.4e38: scale the data")
    return vectors


def square_norms(vectors: Array, *, of: str) -> Float64:
    """|x|^2 of every row, in float64; InputError where products of rows could overflow float32.

    vectors: [n, d] -> [n].
    """
    from simdist.compiled.norms import square_lengths  # noqa: PLC0415 - numba at the first call

    squares = square_lengths(vectors)
    # |x - y|^2 <= 4 max |x|^2, so no value of two rows within the limit overflows.
    too_long = squares > np.finfo(np.float32).max / 8
    if too_long.any():
        row = int(np.argmax(too_long))
        raise InputError(
            f"{of} cannot take row {row}: its length is {np.sqrt(squares[row]):.3g}, and products "
            f"of rows longer than 6.5e18 overflow float32. Scale the data down."
        )
    return squares


def as_points(x: Array, y: Array, *, of: str) -> tuple[Float64, Float64]:
    """Two single points as float64 [d], or an InputError: the way into a `pair`."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(
            f"{of}.pair takes two points of one shape [d]; got shapes {x.shape} and {y.shape}. "
            f"For many rows use block or pairs."
        )
    return x, y


def as_indices(indices: Array, rows: int, *, of: str) -> Ids:
    """`indices` as int64 [p] within [0, rows), or an InputError: compiled code checks nothing."""
    indices = np.asarray(indices)
    if indices.ndim != 1 or not (np.issubdtype(indices.dtype, np.integer) or indices.size == 0):
        raise InputError(
            f"{of} takes row indices as integers of shape [p]; "
            f"got {indices.dtype} of shape {indices.shape}."
        )
    if indices.size and not 0 <= indices.min() <= indices.max() < rows:
        raise InputError(
            f"{of} was given row indices from {indices.min()} to {indices.max()}, "
            f"but there are {rows} rows: expected 0 to {rows - 1}."
        )
    return np.ascontiguousarray(indices, dtype=np.int64)


def _refuse_non_finite(X: Array, *, of: str, why: str) -> None:
    # One pass without a temporary; the sum of finite rows may overflow, so a second look decides.
    with np.errstate(all="ignore"):
        if np.isfinite(X.sum(dtype=np.float32 if X.dtype == np.float16 else None)):
            return
    finite = np.isfinite(X)
    if not finite.all():
        row, column = (int(index) for index in np.argwhere(~finite)[0])
        raise InputError(
            f"{of} cannot take {X[row, column]} at row {row}, column {column} "
            f"of rows of shape {X.shape}: every entry must be finite{why}."
        )
