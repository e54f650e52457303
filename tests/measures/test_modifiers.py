"""Scaled and Squash: the traits they hand on, and the settings they refuse."""

import math

import numpy as np
import pytest

from simdist.errors import ConfigError, InputError
from simdist.measures import Cosine, Dot, Euclidean, Manhattan, Scaled, SqEuclidean, Squash


def test_scaling_keeps_what_may_be_assumed_about_a_measure():
    for measure in (Dot(), Cosine(), SqEuclidean(), Euclidean(), Manhattan()):
        assert Scaled(measure, [1.0, 2.0]).traits == measure.traits


def test_lengthscales_are_taken_from_any_sequence_and_kept_as_floats():
    expected = Scaled(Euclidean(), (1.0, 2.0))
    assert Scaled(Euclidean(), np.array([1, 2])) == expected
    assert Scaled(Euclidean(), [np.float32(1), 2]) == expected
    assert hash(Scaled(Euclidean(), [1, 2])) == hash(expected)


@pytest.mark.parametrize(
    ("lengthscales", "message"),
    [
        ([1.0, 0.0], r"lengthscales\[1\] is 0.0"),
        ([-1.0], r"lengthscales\[0\] is -1.0"),
        ([math.nan], "is nan"),
        ([math.inf], "is inf"),
        ([], "one number per column"),
        ("12", "one number per column; got '12'"),
        (3.0, "one number per column; got 3.0"),
        (["a"], r"lengthscales\[0\] is 'a'"),
        ([[1.0]], r"lengthscales\[0\] is \[1.0\]"),
    ],
)
def test_lengthscales_that_make_no_sense_are_refused(lengthscales, message):
    with pytest.raises(ConfigError, match=message):
        Scaled(Euclidean(), lengthscales)


def test_rows_with_more_columns_than_lengthscales_are_refused_with_both_numbers():
    measure = Scaled(Euclidean(), [1.0, 2.0])
    with pytest.raises(InputError, match=r"2 lengthscales.*3 columns"):
        measure.block(np.ones((4, 3)), np.ones((4, 3)))
    with pytest.raises(InputError, match=r"2 lengthscales.*3 columns"):
        measure.pair(np.ones(3), np.ones(3))


def test_a_squash_is_a_similarity_between_0_and_1_and_psd_where_the_distance_is_of_negative_type():
    traits = Squash(Euclidean(), 2.0).traits
    assert (traits.kind, traits.low, traits.high) == ("similarity", 0.0, 1.0)
    assert traits.psd
    assert not traits.metric
    assert traits.gemm
    assert not Squash(Manhattan(), 2.0).traits.gemm


@pytest.mark.parametrize("scale", [0, -1.0, math.nan, math.inf, "1", None])
def test_a_scale_that_makes_no_sense_is_refused(scale):
    with pytest.raises(ConfigError, match=r"Squash.scale is .*positive and finite"):
        Squash(Euclidean(), scale)


def test_only_a_distance_can_be_squashed():
    with pytest.raises(ConfigError, match="cosine is a similarity already"):
        Squash(Cosine(), 1.0)
    with pytest.raises(ConfigError, match="scaled is a similarity already"):
        Squash(Scaled(Cosine(), [1.0]), 1.0)


def test_a_modifier_wants_a_measure_and_says_how_to_get_one():
    with pytest.raises(ConfigError, match=r"Scaled.measure is 'euclidean'.*resolve"):
        Scaled("euclidean", [1.0])
    with pytest.raises(ConfigError, match=r"Squash.measure is <class.*Euclidean"):
        Squash(Euclidean, 1.0)


def test_far_pairs_keep_their_order_where_their_similarity_is_zero():
    measure = Squash(SqEuclidean(), 1.0)
    x, Y = np.zeros((1, 2), np.float32), np.array([[30, 0], [20, 0], [40, 0]], np.float32)
    assert (measure.block(x, Y) == 0).all()
    assert np.argsort(-measure.nearness(x, Y))[0].tolist() == [1, 0, 2]
