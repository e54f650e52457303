"""The k nearest by codes: the same answer as by products, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from simdist.measures import resolve
from simdist.tiles import exact, screened
from simdist.types import Array


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred rows are worth it, on any CPU."""
    monkeypatch.setattr(screened, "FEWEST_ROWS", 1)
    monkeypatch.setattr(screened, "FEWEST_COLUMNS", 256)
    monkeypatch.setattr("simdist.compiled.screen.VNNI", True)


def rows(n: int, d: int, *, far: float = 0.0, copies: int = 1) -> Array:
    rng = np.random.default_rng([n, d])
    x = rng.standard_normal((n // copies, d)) + far
    return np.repeat(x, copies, axis=0).astype(np.float32)


def both(spec: Any, x: Array, y: Array, k: int, **options: Any) -> tuple[exact.Nearest, ...]:
    """By codes and by products; ids are numbers of another set."""
    measure = resolve(spec)
    A, B = measure.prepare(x), measure.prepare(y)
    ids = np.random.default_rng(3).permutation(10 * len(y))[: len(y)]
    given = {"rows": np.arange(len(x)), "columns": ids, "exclude_self": False} | options
    found = exact.nearest(measure, A, B, k, **given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screened, "worth_screening", lambda *_: False)
        return found, exact.nearest(measure, A, B, k, **given)


@pytest.mark.parametrize("spec", ["cosine", "euclidean", "sqeuclidean", "dot"])
@pytest.mark.parametrize("far", [0.0, 30.0])
def test_codes_and_products_find_the_same(
    spec: str, far: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    way = screened.nearest_screened
    monkeypatch.setattr(
        screened, "nearest_screened", lambda *a, **k: used.append(way(*a, **k)) or used[-1]
    )
    found, expected = both(spec, rows(60, 24, far=far), rows(3000, 24, far=far), 7)
    assert used[0] is not None
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.values, expected.values)


def test_a_row_is_left_out_of_its_own_list() -> None:
    x = rows(2000, 16)
    here = np.arange(0, 2000, 50)
    found, expected = both(
        "euclidean", x[here], x, 5, rows=here, columns=np.arange(2000), exclude_self=True
    )
    assert not (found.ids == here[:, None]).any()
    np.testing.assert_array_equal(found.ids, expected.ids)


@pytest.mark.parametrize("copies", [3, 40, 1000])
def test_copies_tie_and_the_lower_numbers_come_first(copies: int) -> None:
    found, expected = both("cosine", rows(40, 16), rows(3000, 16, copies=copies), 9)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.values, expected.values)


def test_where_codes_rule_little_out_products_take_over() -> None:
    x = np.ones((300, 8), np.float32) + 1e-6 * rows(300, 8)
    measure = resolve("euclidean")
    X = measure.prepare(x)
    given = {"rows": np.arange(20), "columns": np.arange(300), "exclude_self": True}
    near = (X.take(np.arange(20)), X)
    assert screened.nearest_screened(measure, *near, 5, check=None, **given) is None
    found, expected = both("euclidean", x[:20], x, 4)
    np.testing.assert_array_equal(found.ids, expected.ids)


@pytest.mark.parametrize("spec", ["cosine", "euclidean"])
@pytest.mark.parametrize("far", [0.0, 30.0])
@pytest.mark.parametrize("cuts", [[], [1], [700, 704, 2999], range(100, 3000, 100)])
def test_columns_may_come_in_pieces(spec: str, far: float, cuts: Sequence[int]) -> None:
    measure = resolve(spec)
    A, B = measure.prepare(rows(60, 24, far=far)), measure.prepare(rows(3000, 24, far=far))
    ids = np.random.default_rng(3).permutation(30_000)[:3000]
    expected = exact.nearest(measure, A, B, 7, rows=np.arange(60), columns=ids, exclude_self=False)
    some = np.arange(0, 3000, screened.STRIDE)
    bounds = pairwise([0, *cuts, 3000])
    found = screened.nearest_of_pieces(
        measure,
        A,
        7,
        rows=np.arange(60),
        some=(B.take(some), ids[some]),
        pieces=((B.take(slice(*bound)), ids[slice(*bound)]) for bound in bounds),
        exclude_self=False,
    )
    assert found is not None
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.values, expected.values)
