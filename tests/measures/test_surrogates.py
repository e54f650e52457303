"""What cells are formed under, and rows shifted so that their products keep their digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simdist.measures import (
    Cosine,
    Dot,
    Euclidean,
    Hamming,
    Jaccard,
    Manhattan,
    Packed,
    Scaled,
    SqEuclidean,
    Squash,
)
from simdist.measures.surrogates import Direction, around, middle
from simdist.testing import MeasureLaws


class TestDirection(MeasureLaws):
    measure = Direction()
    invariant = frozenset({"scale", "rotation"})
    degree = 0.0


@pytest.mark.parametrize(
    ("measure", "surrogate"),
    [
        (Cosine(), Cosine()),
        (Euclidean(), Euclidean()),
        (Hamming(), Hamming()),
        (Dot(), Direction()),
        (Jaccard(), Direction()),
        (Manhattan(), SqEuclidean()),
        (Packed(Hamming()), SqEuclidean()),
        (Scaled(Dot(), (1.0, 2.0)), Direction()),
        (Scaled(Cosine(), (1.0, 2.0)), Scaled(Cosine(), (1.0, 2.0))),
        (Squash(Euclidean(), 2.0), Squash(Euclidean(), 2.0)),
        (Squash(Manhattan(), 2.0), SqEuclidean()),
    ],
)
def test_cells_form_under_the_measure_where_its_nearest_leader_is_a_home(
    measure: Any, surrogate: Any
) -> None:
    assert measure.surrogate() == surrogate


def test_rows_of_zeros_have_no_direction_and_break_nothing() -> None:
    X = np.array([[0.0, 0.0], [3.0, 0.0], [1e-30, 1e-30]], np.float32)
    expected = [[0, 0, 0], [0, 1, np.sqrt(0.5)], [0, np.sqrt(0.5), 1]]
    np.testing.assert_allclose(Direction().block(X, X), expected, atol=1e-6)


# -- rows far from the origin ----------------------------------------------------------------------


def far(offset: float, seed: int = 0) -> Any:
    return (offset + np.random.default_rng(seed).standard_normal((400, 16))).astype(np.float32)


@pytest.mark.parametrize("offset", [100.0, 1e4, -1e6])
@pytest.mark.parametrize("measure", [Euclidean(), Squash(SqEuclidean(), 8.0)])
def test_seen_from_their_middle_rows_far_away_have_precise_products(
    offset: float, measure: Any
) -> None:
    X = far(offset)
    A = measure.prepare(X)
    origin = middle(measure, A)
    assert origin is not None
    B = around(measure, A, origin)
    exact = np.square(X.astype(np.float64)[:, None] - X.astype(np.float64)).sum(axis=2)
    assert np.abs(measure.nearness(B, B) + exact / 2).max() < 1e-4
    if abs(offset) >= 1e4:
        assert np.abs(measure.nearness(A, A) + exact / 2).max() > 1.0


@pytest.mark.parametrize("measure", [Cosine(), Dot(), Hamming(), Manhattan(), Jaccard()])
def test_a_measure_that_is_no_l2_stays_where_it_is(measure: Any) -> None:
    A = measure.prepare(np.ones((3, 16), np.float32))
    assert middle(measure, A) is None
    assert around(measure, A, np.ones(16, np.float32)) is A


def test_rows_around_the_origin_stay_where_they_are() -> None:
    for X in (far(0.0), far(1.5), far(100.0)[:0]):
        A = Euclidean().prepare(X)
        assert middle(Euclidean(), A) is None
        assert around(Euclidean(), A, None) is A
