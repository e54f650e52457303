"""Rows that stay where they lie: prepared when asked for, the same bits as prepared at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simdist.measures import Cosine, Scaled, resolve
from simdist.measures.in_place import AsTheyAre, InPlace, Units
from simdist.types import Array

N, D = 400, 37
SPECS = [
    "cosine",
    "euclidean",
    "sqeuclidean",
    "dot",
    "manhattan",
    Scaled(Cosine(), np.linspace(0.5, 2.0, D)).spec(),
]


def some_rows(*, odd: bool = False) -> Array:
    x = np.random.default_rng(5).standard_normal((N, D)).astype(np.float32)
    x *= np.random.default_rng(6).lognormal(0.0, 2.0, (N, 1)).astype(np.float32)
    if odd:
        x[7] *= np.float32(1e-33)
        x[11] *= np.float32(1e33) / np.abs(x[11]).max()
    return x


def listed() -> tuple[Array, Array]:
    rng = np.random.default_rng(7)
    return (np.sort(rng.integers(0, N, 3000)).astype(np.int32), rng.integers(0, N, 3000))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_values_and_copies_have_the_bits_of_rows_prepared_at_once(spec: Any):
    measure, x = resolve(spec), some_rows()
    prepared, lying = measure.prepare(x), measure.in_place(x)
    left, right = listed()
    right = right.astype(np.int32)
    expected = measure.pairs_at(prepared, left, prepared, right)
    np.testing.assert_array_equal(lying.pairs(left, right), expected)
    taken = lying.take(right)
    np.testing.assert_array_equal(taken.vectors, prepared.vectors[right])
    if prepared.terms is not None:
        np.testing.assert_array_equal(taken.terms, prepared.terms[right])


def test_nothing_is_copied_where_rows_are_prepared_as_they_are():
    assert type(resolve("euclidean").in_place(some_rows())) is AsTheyAre
    assert type(resolve("cosine").in_place(some_rows())) is Units
    scaled = Scaled(Cosine(), np.ones(D))
    assert type(scaled.in_place(some_rows())) is InPlace


def test_rows_too_long_or_too_short_for_their_length_are_prepared_first():
    measure, x = resolve("cosine"), some_rows(odd=True)
    prepared, (left, right) = measure.prepare(x), listed()
    left[:20], right[10:40] = 7, 11
    expected = measure.pairs_at(prepared, left, prepared, right)
    found = measure.in_place(x).pairs(left, right.astype(np.int32))
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(found).all()


def test_no_pairs_have_no_values():
    nobody = np.empty(0, np.int32)
    for spec in SPECS:
        assert resolve(spec).in_place(some_rows()).pairs(nobody, nobody).shape == (0,)
