"""Hamming and Jaccard on rows of 0 and 1, packed or not, beside scipy and plain counting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial import distance

from simdist.errors import ConfigError, InputError
from simdist.measures import Euclidean, Hamming, Jaccard, Packed, Squash, resolve
from simdist.testing import MeasureLaws
from simdist.types import Array, Float64


class _OfBits(MeasureLaws):
    """Rows of 0 and 1, wide enough that two of them are never equal by chance."""

    dimensions = (40, 64, 129)
    factors = (0.0, 1.0)
    rtol = atol = 1e-7  # one rounded division at most

    def points(self, rng: np.random.Generator, n: int, d: int) -> Float64:
        density = rng.uniform(0.2, 0.8, (n, 1))
        return (rng.random((n, d)) < density).astype(np.float64)

    def between(self, x: Float64, y: Float64) -> Float64:
        return np.where(np.arange(len(x)) % 2, x, y)


class _OfBytes(_OfBits):
    dimensions = (5, 8, 17)

    def points(self, rng: np.random.Generator, n: int, d: int) -> Float64:
        return np.packbits(_OfBits.points(self, rng, n, 8 * d).astype(bool), axis=1).astype(float)


def bits(X: Array) -> Array:
    return np.unpackbits(X.astype(np.uint8), axis=1)


def hamming(X: Array, Y: Array) -> Array:
    return np.abs(X[:, None] - Y[None]).sum(axis=2)


def jaccard(X: Array, Y: Array) -> Array:
    # scipy's distance of two rows of zeros is 0 as well: they are equal.
    return 1 - distance.cdist(X.astype(bool), Y.astype(bool), "jaccard")


class TestHamming(_OfBits):
    measure = Hamming()
    reference = staticmethod(hamming)


class TestJaccard(_OfBits):
    measure = Jaccard()
    reference = staticmethod(jaccard)


class TestPackedHamming(_OfBytes):
    measure = Packed(Hamming())
    reference = staticmethod(lambda X, Y: hamming(bits(X).astype(float), bits(Y).astype(float)))


class TestPackedJaccard(_OfBytes):
    measure = Packed(Jaccard())
    reference = staticmethod(lambda X, Y: jaccard(bits(X), bits(Y)))


class TestSquashedHamming(_OfBits):
    measure = Squash(Hamming(), 20.0)
    reference = staticmethod(lambda X, Y: np.exp(-hamming(X, Y) / 20.0))
    rtol = 1e-6


# -- exactness -------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 7, 384, 3001])
def test_hamming_is_exact_in_every_form(d: int) -> None:
    rng = np.random.default_rng(d)
    X, Y = (rng.integers(0, 2, (n, d)).astype(np.float16) for n in (30, 40))
    expected = (X[:, None] != Y[None]).sum(axis=2)
    assert np.array_equal(Hamming().block(X, Y), expected)
    assert np.array_equal(Hamming().pairs(X, Y[:30]), np.diag(expected))
    packed = [np.packbits(rows.astype(bool), axis=1).astype(np.float16) for rows in (X, Y)]
    assert np.array_equal(Packed(Hamming()).block(*packed), expected)
    assert np.array_equal(Packed(Hamming()).pairs(packed[0], packed[1][:30]), np.diag(expected))


def test_packed_rows_have_the_bits_of_unpacked_ones() -> None:
    rng = np.random.default_rng(1)
    X = (rng.random((50, 200)) < 0.1).astype(np.float32)
    X[3] = 0.0
    packed = np.packbits(X.astype(bool), axis=1).astype(np.float32)
    assert np.array_equal(Packed(Jaccard()).block(packed, packed), Jaccard().block(X, X))
    assert np.array_equal(Packed(Jaccard()).diag(packed), np.ones(50, np.float32))


def test_whichever_bit_comes_first_the_values_are_the_same() -> None:
    X = np.random.default_rng(2).integers(0, 2, (20, 64)).astype(bool)
    big, little = (
        np.packbits(X, axis=1, bitorder=order).astype(np.float16)  # type: ignore[call-overload]
        for order in ("big", "little")
    )
    measure = Packed(Hamming())
    assert np.array_equal(measure.block(big, big), measure.block(little, little))


# -- what they refuse ------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [Hamming(), Jaccard()])
@pytest.mark.parametrize("entry", [-1.0, 0.5, 2.0])
def test_rows_of_anything_else_are_refused_with_the_way_to_make_them(
    measure: Any, entry: float
) -> None:
    X = np.zeros((6, 5), np.float32)
    X[4, 2] = entry
    with pytest.raises(InputError, match=rf"got {entry} at row 4, column 2.*x > 0.*packed"):
        measure.prepare(X)


@pytest.mark.parametrize("entry", [-1.0, 0.5, 256.0])
def test_what_is_no_byte_is_refused(entry: float) -> None:
    X = np.zeros((6, 5), np.float32)
    X[4, 2] = entry
    with pytest.raises(InputError, match=rf"got {entry} at row 4, column 2.*packbits"):
        Packed(Hamming()).prepare(X)


def test_only_measures_of_bits_can_be_packed() -> None:
    assert resolve({"name": "packed", "measure": "jaccard"}) == Packed(Jaccard())
    with pytest.raises(ConfigError, match="does not compare rows of 0 and 1"):
        Packed(Euclidean())
    with pytest.raises(ConfigError, match="Did you mean 'jaccard'"):
        resolve("tanimoto")
