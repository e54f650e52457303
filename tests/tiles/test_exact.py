"""Exact means exact: the order by the measure's fixed kernel, duplicates and near-ties included."""

from __future__ import annotations

import numpy as np
import pytest

from simdist.errors import InputError
from simdist.measures import Cosine, Dot, Euclidean, Manhattan, Scaled, SqEuclidean, Squash
from simdist.tiles import Tile, TopK, fold
from simdist.tiles.exact import certify, fold_exact, nearest, reach, rerank, signed

N, D, K = 400, 24, 6
MEASURES = [
    Dot(),
    Cosine(),
    Euclidean(),
    SqEuclidean(),
    Manhattan(),
    Scaled(Euclidean(), tuple(np.linspace(0.1, 10, D))),
    Squash(SqEuclidean(), 3.0),
    Squash(Manhattan(), 0.01),  # most values underflow to 0 and tie
]


def _data(kind: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((N, D))
    if kind == "duplicates":
        x = x[rng.integers(0, 5, N)]
    elif kind == "near duplicates":
        x = x[rng.integers(0, 4, N)] + 3e-7 * x
    elif kind == "small integers":
        x = rng.integers(1, 4, (N, D))
    elif kind == "far from the origin":
        x = x + 3000
    elif kind == "two far clusters":
        x = 1e-3 * x + np.where(np.arange(N)[:, None] % 2, 50.0, -50.0)
    return x.astype(np.float32)


KINDS = [
    "random",
    "duplicates",
    "near duplicates",
    "small integers",
    "far from the origin",
    "two far clusters",
]


def _oracle(measure, x, y, k, *, rows, columns):
    """Every pair by the fixed kernel, sorted whole."""
    at, to = np.divmod(np.arange(len(x) * len(y)), len(y))
    keys = signed(measure, measure.pairs_at(x, at, y, to)).reshape(len(x), len(y)).astype(float)
    keys[rows[:, None] == columns] = -np.inf
    ids = np.broadcast_to(columns, keys.shape)
    order = np.lexsort((ids, -keys), axis=1)[:, :k]
    values = signed(measure, np.take_along_axis(keys, order, 1))
    return values, np.take_along_axis(ids, order, 1)


@pytest.fixture(params=MEASURES, ids=lambda measure: str(measure.spec())[:60])
def measure(request):
    return request.param


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_is_the_sorted_truth(measure, kind):
    x = _data(kind)
    ids = np.random.default_rng(1).permutation(10**6)[:N]
    expected = _oracle(measure, x, x, K, rows=ids, columns=ids)
    found = nearest(measure, x, None, K, rows=ids, slack=2, tile=Tile(64, 128))
    np.testing.assert_array_equal(found.ids, expected[1])
    np.testing.assert_array_equal(found.values, expected[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_certified_row_is_exact(measure, kind):
    x = measure.prepare(_data(kind))
    ids = np.arange(N)
    lists = fold(measure, x, None, TopK(K + 2), tile=Tile(50, 70))
    values, found = rerank(measure, x, None, lists.ids, K)
    sure = certify(measure, x, reach(x), weakest=lists.keys[:, -1], worst=values[:, -1])
    expected = _oracle(measure, x, x, K, rows=ids, columns=ids)
    np.testing.assert_array_equal(found[sure], expected[1][sure])
    np.testing.assert_array_equal(values[sure], expected[0][sure])


def test_most_rows_of_ordinary_data_are_certified():
    x = Cosine().prepare(_data("random"))
    lists = fold(Cosine(), x, None, TopK(K + 8))
    values, _ = rerank(Cosine(), x, None, lists.ids, K)
    sure = certify(Cosine(), x, reach(x), weakest=lists.keys[:, -1], worst=values[:, -1])
    assert sure.mean() > 0.99


def test_a_list_that_misses_a_neighbour_is_not_certified_by_luck():
    x = Euclidean().prepare(_data("near duplicates"))
    lists = fold(Euclidean(), x, None, TopK(K))
    values, _ = rerank(Euclidean(), x, None, lists.ids, K)
    sure = certify(Euclidean(), x, reach(x), weakest=lists.keys[:, -1], worst=values[:, -1])
    assert not sure.any()  # a hundred near-ties per row, all within the rounding of a GEMM


def test_lists_with_room_hold_everything_and_are_certified():
    x = Dot().prepare(_data("duplicates")[:5])
    lists = fold(Dot(), x, None, TopK(9))
    values, _ = rerank(Dot(), x, None, lists.ids, 4)
    assert certify(Dot(), x, reach(x), weakest=lists.keys[:, -1], worst=values[:, -1]).all()


def test_columns_in_blocks_merge_to_the_whole(measure):
    x = _data("near duplicates")
    rows, topk = np.arange(0, N, 3), TopK(K)
    cuts = [np.arange(0, 150), np.arange(150, 390), np.arange(390, N)]
    states = [
        fold_exact(measure, x[rows], x[c], topk, rows=rows, columns=c, tile=Tile(32, 64))
        for c in cuts
    ]
    merged = topk.merge(topk.merge(states[2], states[0]), states[1])
    expected = _oracle(measure, x[rows], x, K, rows=rows, columns=np.arange(N))
    np.testing.assert_array_equal(merged.ids, expected[1])
    np.testing.assert_array_equal(signed(measure, merged.keys), expected[0])


def test_thousands_of_copies_are_evaluated_once(monkeypatch):
    x = np.repeat(_data("random")[:3], 2000, axis=0)
    evaluated = 0
    pairs_at = Dot.pairs_at

    def counted(self, X, rows, Y, columns):
        nonlocal evaluated
        evaluated += len(rows)
        return pairs_at(self, X, rows, Y, columns)

    monkeypatch.setattr(Dot, "pairs_at", counted)
    found = nearest(Dot(), x, None, 3, slack=2)
    reranked = len(x) * 5
    assert evaluated <= reranked + 3 * len(x)
    assert (found.ids[:2000] != np.arange(2000)[:, None]).all()


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_rows_far_from_the_origin_are_proved_exact_without_looking_at_every_pair(
    offset, monkeypatch
):
    x = (offset + np.random.default_rng(5).standard_normal((N, D))).astype(np.float32)
    evaluated = 0
    pairs_at = Euclidean.pairs_at

    def counted(self, X, rows, Y, columns):
        nonlocal evaluated
        evaluated += len(rows)
        return pairs_at(self, X, rows, Y, columns)

    monkeypatch.setattr(Euclidean, "pairs_at", counted)
    found = nearest(Euclidean(), x, None, K)
    assert evaluated < N * (K + 8 + 10)
    numbers = np.arange(N)
    values, ids = _oracle(Euclidean(), x, x, K, rows=numbers, columns=numbers)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.values, values)


def test_two_sets_numbered_separately_keep_equal_numbers():
    x = _data("random")
    found = nearest(Cosine(), x[:10], x, 1, exclude_self=False)
    np.testing.assert_array_equal(found.ids[:, 0], np.arange(10))


def test_a_list_shorter_than_k_is_named():
    lists = np.array([[1, 2], [0, -1], [0, 1]])
    with pytest.raises(InputError, match=r"row 1 lists 1 columns and k is 2"):
        rerank(Dot(), _data("random")[:3], None, lists, 2)


def test_a_listed_id_without_a_vector_is_named():
    with pytest.raises(InputError, match=r"id 9 is not among the 3"):
        rerank(Dot(), _data("random")[:3], None, np.array([[1], [9], [0]]), 1)
