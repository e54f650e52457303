"""Measures between rows of 0 and 1: sets, fingerprints, binarised embeddings.

    Hamming   how many columns differ             |x - y|^2                     distance, metric
    Jaccard   shared / present in either          x.y / (|x|^2 + |y|^2 - x.y)   similarity, psd
    Packed    either of them on rows of bytes, eight columns in each

Both are functions of three counts, how many columns are set in x, in y and in both, so every value
is exact: whole numbers below 2^24, or one float32 division of two of them.

How rows get here: 0/1 rows as float16, `(x > 0).astype(np.float16)`; packed ones, as faiss and
`np.packbits` have them, as `packed.astype(np.float16)`, which holds 0 to 255 exactly, under
`Packed(Hamming())`. Packed rows take an eighth of the memory; rows of 0 and 1 under Hamming are
faster, as they have a GEMM form.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures.base import Measure, Traits
from simdist.measures.rows import Prepared, Rows, as_float32, as_points
from simdist.measures.surrogates import Direction
from simdist.types import Array, Float32

__all__ = ["Hamming", "Jaccard", "Packed"]


class _Listed(Measure):
    """A measure whose listed pairs run in a kernel: it gives `pairs_at`."""

    __slots__ = ()

    def pairs(self, X: Rows, Y: Rows) -> Float32:
        A, B = self.matched(X, Y)
        order = np.arange(len(A))
        return self.pairs_at(A, order, B, order)


class _Counted(_Listed):
    """A measure of 0/1 rows that follows from how many columns are set, in each and in both."""

    __slots__ = ()

    @abstractmethod
    def from_counts(self, x: Float32, y: Float32, both: Float32) -> Float32:
        """Values, elementwise. x, y: columns set in either row; both: in both; they broadcast."""

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        _refuse_other_than_bits(np.stack([x, y]), of=self.name)
        x, y = x[None], y[None]
        return float(self.from_counts(x.sum(axis=1), y.sum(axis=1), (x * y).sum(axis=1))[0])


@dataclass(frozen=True, slots=True)
class Hamming(_Counted):
    """In how many columns two rows of 0 and 1 differ; divide by d for their share.

    As a matrix product: |x - y|^2 of rows shifted by 1/2, so that every entry is +-1/2 and every
    row is equally long; exact to d = 2^22 columns.
    """

    name = "hamming"
    traits = Traits(kind="distance", metric=True, low=0.0, gemm=True, negative_type=True)

    def from_counts(self, x: Float32, y: Float32, both: Float32) -> Float32:
        return x + y - 2 * both

    def represent(self, X: Array) -> Prepared:
        _refuse_other_than_bits(X, of=self.name)
        vectors = X.astype(np.float32)
        vectors -= np.float32(0.5)
        return Prepared(vectors, np.full(len(X), -X.shape[1] / 8, np.float32))

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        from simdist.compiled import distances  # noqa: PLC0415  numba comes with the first call

        A, B = self.both(X, Y)
        rows, columns = self.listed(A, rows, B, columns)
        return distances.square_gaps(A.vectors, rows, B.vectors, columns)

    def correct(self, nearness: Float32) -> Float32:
        # Whole numbers and halves all the way: nothing is rounded, nothing falls below 0.
        return np.multiply(nearness, np.float32(-2.0))


@dataclass(frozen=True, slots=True)
class Jaccard(_Counted):
    """The share of columns set in either row of 0 and 1 that is set in both (Tanimoto's
    coefficient): in [0, 1], and 1 for two rows of zeros. 1 - Jaccard is a metric.

    A ratio is no product with a correction, so there is no GEMM form; a block is one product and
    one division all the same.
    """

    name = "jaccard"
    traits = Traits(kind="similarity", psd=True, low=0.0, high=1.0)

    def from_counts(self, x: Float32, y: Float32, both: Float32) -> Float32:
        either = x + y - both
        ones = np.ones(either.shape, either.dtype)
        shares: Float32 = np.divide(both, either, out=ones, where=either > 0)
        return shares

    def represent(self, X: Array) -> Prepared:
        _refuse_other_than_bits(X, of=self.name)
        return Prepared(as_float32(X, of=self.name))

    def block(self, X: Rows, Y: Rows) -> Float32:
        A, B = self.both(X, Y)
        both: Float32 = A.vectors @ B.vectors.T
        x, y = A.vectors.sum(axis=1), B.vectors.sum(axis=1)
        return self.from_counts(x[:, None], y[None], both)

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        from simdist.compiled import bits  # noqa: PLC0415  numba comes with the first call

        A, B = self.both(X, Y)
        rows, columns = self.listed(A, rows, B, columns)
        return self.from_counts(*bits.bits_listed(A.vectors, rows, B.vectors, columns))

    def surrogate(self) -> Measure:
        return Direction()


@dataclass(frozen=True, slots=True)
class Packed(_Listed):
    """A measure of 0/1 rows on rows of bytes: each column holds eight of theirs.

    Which bit comes first does not matter. Where the number of columns is no multiple of eight, fill
    up with zeros, as `np.packbits` does.

    measure: Hamming or Jaccard.
    """

    measure: Measure

    name = "packed"

    def __post_init__(self) -> None:
        if not isinstance(self.measure, _Counted):
            raise ConfigError(
                f"Packed.measure is {self.measure!r}, which does not compare rows of 0 and 1. "
                f"Pack Hamming() or Jaccard(); for bytes that are numbers take another measure."
            )

    @property
    def counted(self) -> _Counted:
        """The measure, as what it is known to be."""
        measure: Any = self.measure
        return measure  # type: ignore[no-any-return]

    @property
    def traits(self) -> Traits:
        return replace(self.measure.traits, gemm=False)

    def pair(self, x: Array, y: Array) -> float:
        x, y = as_points(x, y, of=self.name)
        bits = unpacked(np.stack([x, y])).astype(np.float64)
        return self.measure.pair(bits[0], bits[1])

    def represent(self, X: Array) -> Prepared:
        whole = (np.floor(X) == X) & (X >= 0) & (X <= 255)
        if not whole.all():
            row, column = (int(index) for index in np.argwhere(~whole)[0])
            raise InputError(
                f"packed takes rows of bytes, whole numbers from 0 to 255, eight columns of 0 and 1"
                f" in each; got {X[row, column]} at row {row}, column {column}. Pack rows of 0 and"
                f" 1 with np.packbits(rows.astype(bool), axis=1).astype(np.float16)."
            )
        return Prepared(as_float32(X, of=self.name))

    def block(self, X: Rows, Y: Rows) -> Float32:
        from simdist.compiled import bits  # noqa: PLC0415  numba comes with the first call

        A, B = self.both(X, Y)
        x, y = bits.byte_counts(A.vectors), bits.byte_counts(B.vectors)
        both = bits.both_block(A.vectors, B.vectors)
        return self.counted.from_counts(x[:, None], y[None], both)

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        from simdist.compiled import bits  # noqa: PLC0415  numba comes with the first call

        A, B = self.both(X, Y)
        rows, columns = self.listed(A, rows, B, columns)
        return self.counted.from_counts(*bits.bytes_listed(A.vectors, rows, B.vectors, columns))


def unpacked(bytes_: Array) -> Array:
    """Rows of bytes as rows of 0 and 1. bytes_: [n, d] whole numbers 0 to 255 -> [n, 8 d] uint8."""
    return np.unpackbits(np.asarray(bytes_).astype(np.uint8), axis=1)


def _refuse_other_than_bits(X: Array, *, of: str) -> None:
    good = (X == 0) | (X == 1)
    if not good.all():
        row, column = (int(index) for index in np.argwhere(~good)[0])
        raise InputError(
            f"{of} takes rows of 0 and 1; got {X[row, column]} at row {row}, column {column}. For "
            f"the signs of an embedding pass (x > 0).astype(np.float16); for rows packed into "
            f"bytes wrap the measure: {{'name': 'packed', 'measure': {of!r}}}."
        )
