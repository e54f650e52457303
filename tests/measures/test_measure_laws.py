"""The laws catch what they are there to catch: each broken measure fails the law that names it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from simdist.measures import Cosine, Dot, Euclidean, Manhattan, Measure, SqEuclidean, Traits
from simdist.testing import MeasureLaws


@dataclass(frozen=True, slots=True)
class WrongBlock(Manhattan):
    def block(self, X, Y):
        return Manhattan.block(self, X, Y) * np.float32(1.001)


@dataclass(frozen=True, slots=True)
class WrongPairs(Dot):
    def pairs_at(self, X, rows, Y, columns):
        return -Dot.pairs_at(self, X, rows, Y, columns)


@dataclass(frozen=True, slots=True)
class PairsDependOnCompany(Euclidean):
    def pairs(self, X, Y):
        return Euclidean.pairs(self, X, Y) + np.float32(len(self.prepare(X)))


@dataclass(frozen=True, slots=True)
class WrongDiagonal(Dot):
    def diag(self, X):
        return np.ones(len(self.prepare(X)), np.float32)


@dataclass(frozen=True, slots=True)
class FarIsNear(Manhattan):
    def nearness(self, X, Y):
        return self.block(X, Y)


@dataclass(frozen=True, slots=True)
class WrongWay(Manhattan):
    def correct(self, nearness):
        return nearness


@dataclass(frozen=True, slots=True)
class ForgottenTerms(SqEuclidean):
    def nearness(self, X, Y):
        A, B = self.both(X, Y)
        return A.vectors @ B.vectors.T


@dataclass(frozen=True, slots=True)
class Directed(Measure):
    name = "directed"
    traits = Traits(kind="distance", low=0.0)

    def pair(self, x, y):
        return float(np.maximum(x - y, 0).sum())


@dataclass(frozen=True, slots=True)
class NotMetric(SqEuclidean):
    traits = replace(SqEuclidean.traits, metric=True)


@dataclass(frozen=True, slots=True)
class NotPsd(Euclidean):
    traits = replace(Euclidean.traits, psd=True)


@dataclass(frozen=True, slots=True)
class Unbounded(Dot):
    traits = replace(Dot.traits, low=-1.0, high=1.0)


@dataclass(frozen=True, slots=True)
class ZerosRefused(Dot):
    traits = replace(Dot.traits, zero_rows=False)


@dataclass(frozen=True, slots=True)
class CancellingPairs(Euclidean):
    def pairs(self, X, Y):
        return np.diagonal(self.block(X, Y)).copy()


@dataclass(frozen=True, slots=True)
class WritesIntoItsInput(Manhattan):
    def block(self, X, Y):
        A, B = self.both(X, Y)
        values = Manhattan.block(self, A, B)
        A.vectors[:] += 1.0
        return values


@dataclass(frozen=True, slots=True)
class ForgetsItsFields(Dot):
    weight: float = 1.0

    def spec(self):
        return {"name": "dot"}


BROKEN = [
    (WrongBlock(), "test_a_block_holds_the_value_of_every_pair"),
    (WrongPairs(), "test_pairs_hold_the_value_of_every_row_pair"),
    (PairsDependOnCompany(), "test_listed_pairs_have_the_bits_of_gathered_rows"),
    (WrongDiagonal(), "test_the_diagonal_is_each_row_with_itself"),
    (FarIsNear(), "test_nearness_puts_columns_in_the_order_of_their_values"),
    (FarIsNear(), "test_corrected_nearness_is_the_block"),
    (WrongWay(), "test_correct_is_monotone"),
    (ForgottenTerms(), "test_nearness_is_the_product_of_prepared_rows_and_their_terms"),
    (Directed(), "test_it_is_symmetric"),
    (NotMetric(), "test_the_triangle_inequality_holds_and_only_equal_rows_are_at_zero"),
    (NotPsd(), "test_its_matrix_is_positive_semi_definite"),
    (Unbounded(), "test_values_are_finite_and_within_the_bounds_of_the_traits"),
    (ZerosRefused(), "test_a_row_of_zeros_is_refused_by_its_number"),
    (CancellingPairs(), "test_pairs_are_precise_on_near_duplicates"),
    (Dot(), "test_it_does_not_see_what_it_is_invariant_to"),
    (Dot(), "test_values_scale_with_the_data_by_the_degree"),
    (Dot(), "test_it_agrees_with_the_reference"),
    (WritesIntoItsInput(), "test_it_reads_rows_in_any_layout_and_leaves_them_as_they_are"),
    (ForgetsItsFields(), "test_its_spec_is_json_and_leads_back_to_it"),
]


@pytest.mark.parametrize(("broken", "law"), BROKEN)
def test_a_broken_measure_fails_its_law(broken, law):
    class Claims(MeasureLaws):
        measure = broken
        invariant = frozenset({"scale"})
        degree = 0.0
        near_rtol = 1e-6
        reference = staticmethod(lambda X, Y: X @ Y.T + 1.0)

    # ValueError is how numpy refuses to write into the read-only rows of the law on layouts.
    with pytest.raises((AssertionError, pytest.fail.Exception, ValueError)):
        getattr(Claims(), law)()


def test_laws_are_collected_only_where_they_are_claimed():
    class OfDot(MeasureLaws):
        measure = Dot()

    class OfEuclidean(OfDot):
        measure = Euclidean()
        degree = 1.0

    class OfCosine(MeasureLaws):
        measure = Cosine()

    triangle = "test_the_triangle_inequality_holds_and_only_equal_rows_are_at_zero"
    assert getattr(OfDot, triangle) is None
    assert callable(getattr(OfEuclidean, triangle))
    assert OfEuclidean.test_its_matrix_is_positive_semi_definite is None
    assert callable(OfEuclidean.test_values_scale_with_the_data_by_the_degree)
    assert OfDot.test_values_scale_with_the_data_by_the_degree is None
    assert OfCosine.test_a_row_of_zeros_has_a_value is None
    assert callable(OfCosine.test_a_row_of_zeros_is_refused_by_its_number)
