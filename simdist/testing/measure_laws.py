"""Laws that every measure obeys, as a class of pytest tests to inherit.

    class TestChebyshev(MeasureLaws):
        measure = Chebyshev()
        reference = staticmethod(lambda X, Y: scipy.spatial.distance.cdist(X, Y, "chebyshev"))
        invariant = frozenset({"shift"})
        degree = 1.0

`pair`, the definition in float64, is the oracle; where a law is claimed by a trait (triangle
inequality, psd ...) or by an attribute of the class (invariance, degree ...), it is collected only
where the claim is made. Needs pytest and hypothesis (`pip install simdist[test]`).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from simdist.errors import InputError
from simdist.measures import Measure, Prepared, Traits, resolve
from simdist.measures.surrogates import around
from simdist.types import Array, Float64

__all__ = ["MeasureLaws"]

_Law = TypeVar("_Law", bound=Callable[..., None])

# Derandomised: a law that fails, fails for everyone. Not shrunk: a case is a seed, and small as it
# is. Laws are inherited by many classes, which hypothesis would otherwise report as a mistake.
_LAWS = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.differing_executors],
)


class Case(NamedTuple):
    """Which rows a law is tried on: two sets of n and m rows, of one dtype."""

    seed: int
    n: int
    m: int
    d: int  # position in the class's dimensions, modulo their number
    dtype: str


_CASES = st.builds(
    Case,
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 9),
    m=st.integers(1, 9),
    d=st.integers(0, 11),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
)


def claimed(by: Callable[[type[MeasureLaws]], Any]) -> Callable[[_Law], _Law]:
    """Marks a law that holds only where it is claimed: elsewhere it is not collected."""

    def mark(law: _Law) -> _Law:
        law.claimed_by = by  # type: ignore[attr-defined]
        return law

    return mark


def _traits(choose: Callable[[Traits], Any]) -> Callable[[type[MeasureLaws]], Any]:
    return lambda cls: choose(cls.measure.traits)


class MeasureLaws:
    """The laws; see the module docstring. A subclass gives `measure`, and what else it claims.

    measure: what is tested.
    reference: `(X [n, d], Y [m, d]) -> [n, m]` of a trusted library, float64.
    dimensions: numbers of columns to try; only the measure's own where it has a fixed one.
    invariant: which of these leave values as they are: "scale" (each row by its own positive
        factor), "shift" (all rows by one vector), "rotation" (all rows, orthogonal).
    degree: f(c x, c y) = c ** degree f(x, y).
    near_rtol: relative error of `pairs` on near-duplicates (rows that differ in their last digits).
    factors: times which a row is still one that the measure takes.
    rtol, atol: float32 tolerance of values of ordinary rows; see `slack`.
    """

    measure: ClassVar[Measure]
    reference: ClassVar[Callable[[Float64, Float64], Array] | None] = None
    dimensions: ClassVar[tuple[int, ...]] = (1, 2, 7, 33)
    invariant: ClassVar[frozenset[str]] = frozenset()
    degree: ClassVar[float | None] = None
    near_rtol: ClassVar[float | None] = None
    factors: ClassVar[tuple[float, ...]] = (-1.0, 2.0, 3.0)
    rtol: ClassVar[float] = 1e-5
    atol: ClassVar[float] = 1e-5

    def __init_subclass__(cls) -> None:
        if not hasattr(cls, "measure"):
            return
        for name, law in vars(MeasureLaws).items():
            by = getattr(law, "claimed_by", None)
            if by is not None and not by(cls):
                setattr(cls, name, None)  # pytest collects only what can be called
            elif by is not None and getattr(cls, name) is None:
                setattr(cls, name, law)  # taken out of a parent that does not claim it

    # -- to override --

    def points(self, rng: np.random.Generator, n: int, d: int) -> Float64:
        """Ordinary rows for this measure, [n, d]; default: standard normal, about unit scale."""
        return rng.standard_normal((n, d))

    def between(self, x: Float64, y: Float64) -> Float64:
        """A point between two others, [d]; default: half way."""
        return (x + y) / 2

    def slack(self, X: Float64, Y: Float64, expected: Float64) -> Array:
        """How far a block's values may be off, [n, m]; default: atol + rtol |expected|."""
        return self.atol + self.rtol * np.abs(expected)

    # -- the definition, and its faster forms --

    @_LAWS
    @given(case=_CASES)
    def test_a_block_holds_the_value_of_every_pair(self, case: Case) -> None:
        X, Y = self._two(case)
        block = self.measure.block(X, Y)
        assert block.dtype == np.float32
        self._expect(block, X, Y)

    @_LAWS
    @given(case=_CASES)
    def test_pairs_hold_the_value_of_every_row_pair(self, case: Case) -> None:
        X, Y = self._two(case._replace(m=case.n))
        pairs = self.measure.pairs(X, Y)
        expected = np.array([self.measure.pair(x, y) for x, y in zip(*_doubles(X, Y), strict=True)])
        assert pairs.dtype == np.float32
        assert pairs.shape == (case.n,)
        _within(pairs, expected, self.atol + self.rtol * np.abs(expected))

    @_LAWS
    @given(case=_CASES)
    def test_listed_pairs_have_the_bits_of_gathered_rows(self, case: Case) -> None:
        X, Y = self._two(case)
        rng = np.random.default_rng(case.seed)
        rows, columns = rng.integers(0, case.n, 20), rng.integers(0, case.m, 20)
        listed = self.measure.pairs_at(X, rows, Y, columns)
        assert np.array_equal(listed, self.measure.pairs(X[rows], Y[columns]))
        one_by_one = [
            self.measure.pairs(X[r : r + 1], Y[c : c + 1])[0]
            for r, c in zip(rows, columns, strict=True)
        ]
        assert np.array_equal(listed, np.array(one_by_one)), "a pair's bits depend on its company"

    @_LAWS
    @given(case=_CASES)
    def test_the_diagonal_is_each_row_with_itself(self, case: Case) -> None:
        X, _ = self._two(case)
        expected = np.array([self.measure.pair(x, x) for x in X.astype(np.float64)])
        diag = self.measure.diag(X)
        assert diag.dtype == np.float32
        _within(diag, expected, self.atol + self.rtol * np.abs(expected))

    @_LAWS
    @given(case=_CASES)
    def test_prepared_rows_give_the_bits_of_raw_rows(self, case: Case) -> None:
        X, Y = self._two(case)
        A, B = self.measure.prepare(X), self.measure.prepare(Y)
        assert A.vectors.dtype == np.float32
        assert A.vectors.flags.c_contiguous
        assert self.measure.prepare(A) is A
        for method in ("block", "nearness"):
            raw = getattr(self.measure, method)(X, Y)
            assert np.array_equal(raw, getattr(self.measure, method)(A, Y)), method
            assert np.array_equal(raw, getattr(self.measure, method)(A, B)), method
        assert np.array_equal(self.measure.diag(X), self.measure.diag(A))

    # -- nearness --

    @_LAWS
    @given(case=_CASES)
    def test_corrected_nearness_is_the_block(self, case: Case) -> None:
        X, Y = self._two(case)
        corrected = self.measure.correct(self.measure.nearness(X, Y))
        block = self.measure.block(X, Y)
        np.testing.assert_allclose(corrected, block, rtol=1e-6, atol=1e-7)

    @_LAWS
    @given(case=_CASES)
    def test_nearness_puts_columns_in_the_order_of_their_values(self, case: Case) -> None:
        X, Y = self._two(case)
        expected = self._oracle(X, Y)
        slack = self.slack(*_doubles(X, Y), expected)
        order = np.argsort(-self.measure.nearness(X, Y), axis=1, kind="stable")
        ranked = np.take_along_axis(expected, order, axis=1)
        steps = np.diff(ranked, axis=1) * (1 if self._is_distance() else -1)
        assert (steps >= -2 * slack.max()).all(), "a nearer column has a worse value"

    def test_correct_is_monotone(self) -> None:
        X, Y = self._two(Case(seed=1, n=9, m=9, d=2, dtype="float32"))
        nearness = np.sort(self.measure.nearness(X, Y), axis=None)
        values = self.measure.correct(nearness).astype(np.float64)
        assert values.shape == nearness.shape
        steps = np.diff(values) * (-1 if self._is_distance() else 1)
        assert (steps >= -1e-6 * np.abs(values[1:])).all()

    @claimed(by=_traits(lambda traits: traits.gemm))
    @_LAWS
    @given(case=_CASES)
    def test_nearness_is_the_product_of_prepared_rows_and_their_terms(self, case: Case) -> None:
        X, Y = self._two(case)
        A, B = self.measure.prepare(X), self.measure.prepare(Y)
        product = A.vectors.astype(np.float64) @ B.vectors.astype(np.float64).T
        size = np.abs(A.vectors) @ np.abs(B.vectors).T
        for terms, shape in ((A.terms, (-1, 1)), (B.terms, (1, -1))):
            if terms is not None:
                assert terms.dtype == np.float32
                product = product + terms.reshape(shape).astype(np.float64)
                size = size + np.abs(terms.reshape(shape))
        _within(self.measure.nearness(X, Y), product, 1e-6 * size + 1e-30)

    # -- what the traits claim --

    @claimed(by=_traits(lambda traits: traits.symmetric))
    @_LAWS
    @given(case=_CASES)
    def test_it_is_symmetric(self, case: Case) -> None:
        X, Y = self._two(case._replace(m=case.n))
        assert np.array_equal(self.measure.pairs(X, Y), self.measure.pairs(Y, X))
        expected = self._oracle(X, Y)
        slack = self.slack(*_doubles(X, Y), expected)
        _within(self.measure.block(Y, X).T, self.measure.block(X, Y).astype(np.float64), 2 * slack)

    @claimed(by=_traits(lambda traits: traits.metric))
    @_LAWS
    @given(case=_CASES)
    def test_the_triangle_inequality_holds_and_only_equal_rows_are_at_zero(
        self, case: Case
    ) -> None:
        X, _ = self._two(case._replace(n=7, dtype="float64"))
        X[1] = self.between(X[0], X[2])  # makes the inequality tight
        values = self._oracle(X, X)
        detour = (values[:, :, None] + values[None, :, :]).min(axis=1)
        assert (values <= detour * (1 + 1e-9) + 1e-12).all()
        assert (np.diag(values) == 0).all()
        assert (values[~np.eye(len(X), dtype=bool)] > 0).all()
        assert np.array_equal(self.measure.pairs(X, X), np.zeros(len(X), np.float32))

    @claimed(by=_traits(lambda traits: traits.psd))
    @_LAWS
    @given(case=_CASES)
    def test_its_matrix_is_positive_semi_definite(self, case: Case) -> None:
        X, _ = self._two(case._replace(n=9, dtype="float32"))
        X = np.concatenate([X, X[:3], *(factor * X[3:6] for factor in self.factors)])
        eigenvalues = np.linalg.eigvalsh(self.measure.block(X, X).astype(np.float64))
        assert eigenvalues[0] >= -1e-5 * max(eigenvalues[-1], 1.0) * len(X)

    @_LAWS
    @given(case=_CASES)
    def test_values_are_finite_and_within_the_bounds_of_the_traits(self, case: Case) -> None:
        X, _ = self._two(case)
        X = np.concatenate([X, X, *(factor * X for factor in self.factors)])
        low, high = self.measure.traits.low, self.measure.traits.high
        for values in (self.measure.block(X, X), self.measure.pairs(X, X[::-1])):
            assert np.isfinite(values).all()
            assert low <= values.min()
            assert values.max() <= high

    @claimed(by=_traits(lambda traits: traits.zero_rows))
    def test_a_row_of_zeros_has_a_value(self) -> None:
        X, _ = self._two(Case(seed=2, n=5, m=1, d=1, dtype="float32"))
        X[3] = 0.0
        self._expect(self.measure.block(X, X), X, X)
        assert np.isfinite(self.measure.pairs(X, X)).all()

    @claimed(by=_traits(lambda traits: not traits.zero_rows))
    def test_a_row_of_zeros_is_refused_by_its_number(self) -> None:
        for dtype in ("float16", "float32", "float64"):
            X, _ = self._two(Case(seed=2, n=5, m=1, d=1, dtype=dtype))
            X[3] = 0.0
            with pytest.raises(InputError, match="row 3"):
                self.measure.prepare(X)

    @claimed(by=_traits(lambda traits: traits.shift_invariant))
    @_LAWS
    @given(case=_CASES)
    def test_it_does_not_see_a_shift_of_all_rows(self, case: Case) -> None:
        X, Y = self._two(case._replace(dtype="float64"))
        shift = np.random.default_rng(case.seed).standard_normal(X.shape[1])
        shifted = X + shift, Y + shift
        _within(self._oracle(*shifted), self._oracle(X, Y), 1e-9)

    @claimed(by=_traits(lambda traits: traits.gemm and traits.shift_invariant))
    @_LAWS
    @given(case=_CASES)
    def test_products_may_be_taken_from_another_origin(self, case: Case) -> None:
        X, Y = self._two(case)
        A, B = self.measure.prepare(X), self.measure.prepare(Y)
        origin = A.vectors[0]
        moved = [around(self.measure, rows, origin) for rows in (A, B)]
        size = sum(np.square(rows.vectors).sum(axis=1).max() for rows in (A, B, *moved))
        _within(self.measure.nearness(*moved), self.measure.nearness(A, B), 1e-5 * size)

    @_LAWS
    @given(case=_CASES)
    def test_its_surrogate_has_products_of_its_prepared_rows(self, case: Case) -> None:
        X, Y = self._two(case)
        surrogate = self.measure.surrogate()
        assert surrogate.traits.gemm
        A, B = self.measure.prepare(X), self.measure.prepare(Y)
        if surrogate != self.measure:
            A, B = surrogate.prepare(A.vectors), surrogate.prepare(B.vectors)
        assert np.isfinite(surrogate.nearness(A, B)).all()

    # -- what the class claims --

    @claimed(by=lambda cls: cls.reference is not None)
    @_LAWS
    @given(case=_CASES)
    def test_it_agrees_with_the_reference(self, case: Case) -> None:
        X, Y = self._two(case)
        reference = type(self).reference
        assert reference is not None
        expected = np.asarray(reference(*_doubles(X, Y)))
        np.testing.assert_allclose(self._oracle(X, Y), expected, rtol=1e-9, atol=1e-9)
        _within(self.measure.block(X, Y), expected, self.slack(*_doubles(X, Y), expected))

    @claimed(by=lambda cls: cls.invariant)
    @_LAWS
    @given(case=_CASES)
    def test_it_does_not_see_what_it_is_invariant_to(self, case: Case) -> None:
        X, Y = self._two(case._replace(dtype="float64"))
        rng, d = np.random.default_rng(case.seed), X.shape[1]
        shift, turn = rng.standard_normal(d), np.linalg.qr(rng.standard_normal((d, d)))[0]
        changes = {
            "scale": lambda Z: Z * np.exp(rng.uniform(-9, 9, (len(Z), 1))),
            "shift": lambda Z: Z + shift,
            "rotation": lambda Z: Z @ turn,
        }
        expected = self._oracle(X, Y)
        for name in sorted(self.invariant):
            changed = changes[name](X), changes[name](Y)
            values = self.measure.block(*changed)
            _within(values, expected, 4 * self.slack(*changed, expected), note=name)

    @claimed(by=lambda cls: cls.degree is not None)
    @_LAWS
    @given(case=_CASES)
    def test_values_scale_with_the_data_by_the_degree(self, case: Case) -> None:
        X, Y = self._two(case._replace(dtype="float64"))
        expected = self._oracle(X, Y)
        for factor in (2.0**-12, 2.0**12):  # powers of two: the data's digits stay
            assert self.degree is not None
            values = self.measure.block(factor * X, factor * Y) / np.float32(factor**self.degree)
            _within(values, expected, self.slack(X, Y, expected), note=f"factor {factor}")

    @claimed(by=lambda cls: cls.near_rtol is not None)
    @_LAWS
    @given(case=_CASES)
    def test_pairs_are_precise_on_near_duplicates(self, case: Case) -> None:
        assert self.near_rtol is not None
        X, _ = self._two(case._replace(dtype="float32"))
        X = X + np.float32(100.0)
        Y = np.nextafter(X, np.float32(np.inf))  # every entry one unit in the last place away
        expected = np.array([self.measure.pair(x, y) for x, y in zip(*_doubles(X, Y), strict=True)])
        assert (expected > 0).all()
        np.testing.assert_allclose(self.measure.pairs(X, Y), expected, rtol=self.near_rtol, atol=0)

    # -- a good citizen --

    @_LAWS
    @given(case=_CASES)
    def test_float16_32_and_64_rows_of_equal_value_agree(self, case: Case) -> None:
        X, Y = self._two(case._replace(dtype="float16"))
        expected = self._oracle(X, Y)
        slack = self.slack(*_doubles(X, Y), expected)
        narrow = self.measure.block(X, Y)
        for dtype in (np.float32, np.float64):
            _within(self.measure.block(X.astype(dtype), Y.astype(dtype)), narrow, slack)

    def test_it_reads_rows_in_any_layout_and_leaves_them_as_they_are(self) -> None:
        X, Y = self._two(Case(seed=3, n=8, m=6, d=2, dtype="float32"))
        expected = self.measure.block(X, Y), self.measure.pairs(X[:6], Y)
        kept = X.copy()
        X.flags.writeable = False  # as a memory-mapped file is
        for layout in (X, np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2]):
            assert np.array_equal(self.measure.block(layout, Y), expected[0])
            assert np.array_equal(self.measure.pairs(layout[:6], Y), expected[1])
        assert np.array_equal(X, kept)

    def test_no_rows_give_empty_values(self) -> None:
        X, Y = self._two(Case(seed=4, n=3, m=5, d=1, dtype="float32"))
        none = np.empty(0, np.int64)
        assert self.measure.block(X[:0], Y).shape == (0, 5)
        assert self.measure.nearness(X, Y[:0]).shape == (3, 0)
        assert self.measure.pairs(X[:0], Y[:0]).shape == (0,)
        assert self.measure.pairs_at(X, none, Y, none).shape == (0,)
        assert self.measure.diag(X[:0]).shape == (0,)

    def test_rows_that_do_not_fit_are_refused_with_their_shapes(self) -> None:
        X, Y = self._two(Case(seed=5, n=4, m=3, d=1, dtype="float32"))
        wider = np.concatenate([Y, Y], axis=1)
        for method in (self.measure.block, self.measure.nearness):
            with pytest.raises(InputError, match=rf"{X.shape[1]}.*{wider.shape[1]}"):
                method(Prepared(X), Prepared(wider))
        with pytest.raises(InputError, match=r"4 and 3"):
            self.measure.pairs(X, Y)
        with pytest.raises(InputError, match=r"\[n, d\].*shape \(4,\)"):
            self.measure.prepare(X[:, 0])
        with pytest.raises(InputError, match="int64"):
            self.measure.prepare(np.ones(X.shape, np.int64))
        for index in (-1, len(Y)):
            with pytest.raises(InputError, match=f"{index}.*3 rows"):
                self.measure.pairs_at(X, np.array([0, 1]), Y, np.array([0, index]))

    def test_entries_that_are_not_finite_are_refused_by_their_place(self) -> None:
        for dtype in ("float16", "float32", "float64"):
            for bad in (np.nan, np.inf, -np.inf):
                X, Y = self._two(Case(seed=6, n=4, m=3, d=1, dtype=dtype))
                X[2, 0] = bad
                with pytest.raises(InputError, match="row 2, column 0"):
                    self.measure.block(X, Y)

    def test_its_spec_is_json_and_leads_back_to_it(self) -> None:
        spec = self.measure.spec()
        assert json.loads(json.dumps(spec)) == spec
        assert resolve(json.loads(json.dumps(spec))) == self.measure

    def test_it_pickles_compares_and_hashes_by_value(self) -> None:
        copy = pickle.loads(pickle.dumps(self.measure))
        assert copy == self.measure
        assert hash(copy) == hash(self.measure)

    # -- helpers --

    def _two(self, case: Case) -> tuple[Array, Array]:
        rng = np.random.default_rng(case.seed)
        d = self.dimensions[case.d % len(self.dimensions)]
        X, Y = self.points(rng, case.n, d), self.points(rng, case.m, d)
        return X.astype(case.dtype), Y.astype(case.dtype)

    def _oracle(self, X: Array, Y: Array) -> Float64:
        X, Y = _doubles(X, Y)
        return np.array([[self.measure.pair(x, y) for y in Y] for x in X], dtype=np.float64)

    def _expect(self, block: Array, X: Array, Y: Array) -> None:
        expected = self._oracle(X, Y)
        _within(block, expected, self.slack(*_doubles(X, Y), expected))

    def _is_distance(self) -> bool:
        return self.measure.traits.kind == "distance"


def _doubles(X: Array, Y: Array) -> tuple[Float64, Float64]:
    return X.astype(np.float64), Y.astype(np.float64)


def _within(actual: Array, expected: Array, slack: Array | float, *, note: str = "") -> None:
    assert actual.shape == expected.shape, f"{note} shape {actual.shape}, not {expected.shape}"
    excess = np.abs(actual - expected) - slack
    worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
    assert excess[worst] <= 0, (
        f"{note} entry {tuple(map(int, worst))} is {actual[worst]!r}, expected {expected[worst]!r} "
        f"within {np.broadcast_to(slack, excess.shape)[worst]:.3g}"
    )
