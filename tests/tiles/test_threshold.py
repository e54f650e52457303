"""Pairs that reach a threshold: the dense answer by the fixed kernel, whichever way it is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simdist.compiled.screen import Screen, encode
from simdist.errors import ConfigError
from simdist.measures import resolve
from simdist.tiles.threshold import Threshold, fold_threshold
from simdist.types import Array

WAYS = (None, "codes", "products")


def pairs_of(spec: Any, x: Array, y: Array | None, limit: float, way: Any) -> list[Array]:
    """What arrives at the sink, in the order in which it comes, rows then sorted stably."""
    measure = resolve(spec)
    found: list[tuple[Array, ...]] = []
    fold_threshold(
        Threshold(measure, limit),
        measure.prepare(x),
        None if y is None else measure.prepare(y),
        lambda *part: found.append(part),
        way=way,
    )
    none = (np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
    rows, columns, values = (np.concatenate(parts) for parts in zip(none, *found, strict=True))
    order = np.argsort(rows, kind="stable")
    return [rows[order], columns[order], values[order]]


def dense(spec: Any, x: Array, y: Array | None, limit: float) -> list[Array]:
    """The definition: every pair by `pairs`, compared in float32."""
    measure = resolve(spec)
    X = measure.prepare(x)
    Y = X if y is None else measure.prepare(y)
    rows, columns = np.divmod(np.arange(len(X) * len(Y)), len(Y))
    if y is None:
        rows, columns = rows[rows < columns], columns[rows < columns]
    values = measure.pairs_at(X, rows, Y, columns)
    larger = measure.traits.kind == "similarity"
    near = values >= np.float32(limit) if larger else values <= np.float32(limit)
    return [rows[near], columns[near], values[near]]


def same(found: list[Array], expected: list[Array]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def clumps(n: int, d: int, seed: int = 0) -> Array:
    """Half the rows near the other half, and some equal."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d))
    rows[n // 2 :] = rows[: n - n // 2] + 0.1 * rng.standard_normal((n - n // 2, d))
    rows[::11] = rows[0]
    return rows.astype(np.float32)


CASES = [
    ("cosine", 0.9),
    ("cosine", 0.0),
    ("dot", 20.0),
    ("euclidean", 2.0),
    ("euclidean", 0.0),
    ("sqeuclidean", 3.0),
    ("manhattan", 12.0),
    ({"name": "squash", "measure": "euclidean", "scale": 2.0}, 0.4),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("measure", "limit"), CASES)
def test_pairs_of_a_set_are_those_of_the_dense_answer(measure, limit, way):
    x = clumps(1300, 33)  # more than a tile, and no whole one
    assert same(pairs_of(measure, x, None, limit, way), dense(measure, x, None, limit))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("measure", "limit"), CASES)
def test_pairs_of_two_sets_are_those_of_the_dense_answer(measure, limit, way):
    x, y = clumps(150, 20), clumps(1200, 20, seed=1)
    y[:75] = x[75:]
    assert same(pairs_of(measure, x, y, limit, way), dense(measure, x, y, limit))


@pytest.mark.parametrize("way", WAYS)
def test_a_pair_on_the_threshold_is_kept_and_one_just_off_it_is_not(way):
    x = clumps(400, 16)
    for measure, towards in (("cosine", np.inf), ("euclidean", -np.inf)):
        values = np.unique(dense(measure, x, None, 0.5 if measure == "cosine" else 4.0)[2])
        limit = values[len(values) // 2]
        found = pairs_of(measure, x, None, float(limit), way)
        assert (found[2] == limit).any()
        beyond = pairs_of(measure, x, None, float(np.nextafter(limit, towards)), way)
        assert len(beyond[0]) == len(found[0]) - (found[2] == limit).sum()


@pytest.mark.parametrize("way", WAYS)
def test_whole_numbers_tie_on_the_threshold(way):
    bits = (np.random.default_rng(0).random((300, 40)) < 0.5).astype(np.float32)
    for measure, limit in (("hamming", 14.0), ("jaccard", 0.5)):
        assert same(pairs_of(measure, bits, None, limit, way), dense(measure, bits, None, limit))


def test_far_from_the_origin_no_pair_is_lost():
    x = clumps(300, 8) + np.float32(3000.0)
    for way in WAYS:
        assert same(pairs_of("euclidean", x, None, 0.5, way), dense("euclidean", x, None, 0.5))


def test_where_codes_leave_too_much_over_products_take_over_and_the_answer_stays():
    rows = np.random.default_rng(0).standard_normal((2500, 12)).astype(np.float32)
    rows[:, 0] *= 1000.0  # one long column: codes tell nothing of the others
    assert same(
        pairs_of("sqeuclidean", rows, None, 2.0, None), dense("sqeuclidean", rows, None, 2.0)
    )


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 40),
    dim=st.integers(1, 70),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e12]),
    shift=st.sampled_from([0.0, 1.0, 300.0]),
    share=st.floats(0.0, 1.0),
)
@example(seed=0, rows=3, dim=1, scale=1.0, shift=0.0, share=0.5)
def test_no_pair_above_its_floor_is_screened_out(seed, rows, dim, scale, shift, share):
    rng = np.random.default_rng(seed)
    x = ((rng.standard_normal((rows, dim)) + shift) * scale).astype(np.float32)
    y = ((rng.standard_normal((rows + 5, dim)) + shift) * scale).astype(np.float32)
    terms = rng.standard_normal(rows).astype(np.float32) * np.float32(scale)
    near = x.astype(np.float64) @ y.astype(np.float64).T + terms[:, None]
    floors = np.quantile(near, share, axis=1)
    centre = x.mean(axis=0, dtype=np.float64)
    zeros = np.zeros(len(y), np.float32)
    tiles = Screen(encode(x, terms, centre), encode(y, zeros, centre), floors, above=False)
    out = np.empty((2, tiles.room), np.int32)
    found = np.zeros(near.shape, bool)
    for first in range(0, len(y), tiles.size):
        for count in tiles.batches(first, out):
            found[out[0, :count], out[1, :count]] = True
    assert found[near >= floors[:, None]].all()


def test_a_screen_leaves_few_over_where_rows_are_unit_vectors():
    x = np.random.default_rng(0).standard_normal((800, 384))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    coded = encode(x, None, x.mean(axis=0, dtype=np.float64))
    floors = np.full(len(x), 0.15)
    tiles = Screen(coded, coded, floors, above=True)
    out = np.empty((2, tiles.room), np.int32)
    count = sum(sum(tiles.batches(first, out)) for first in range(0, len(x), tiles.size))
    near = np.triu(x @ x.T, 1)
    assert count <= (near >= 0.15 - 0.02).sum()


@pytest.mark.parametrize(
    ("measure", "limit", "said"),
    [
        ("cosine", 1.01, "no pair"),
        ("cosine", -1.0, "every pair"),
        ("euclidean", -0.5, "no pair"),
        ("jaccard", 0.0, "every pair"),
        ("cosine", float("nan"), "finite"),
        ("euclidean", float("inf"), "finite"),
    ],
)
def test_a_threshold_out_of_the_measures_range_is_refused(measure, limit, said):
    with pytest.raises(ConfigError, match=said):
        Threshold(resolve(measure), limit)
