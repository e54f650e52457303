"""The forecast bounds what numpy allocates, and not by much."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from simdist.measures import Cosine, Euclidean, Manhattan, Squash
from simdist.tiles import (
    Candidates,
    Gram,
    Softmax,
    Tile,
    TopK,
    fold,
    fold_candidates,
    fold_pair,
)
from simdist.tiles.exact import fold_exact, rerank
from simdist.tiles.memory import (
    Memory,
    around_nbytes,
    candidates_memory,
    exact_memory,
    fold_memory,
    pair_memory,
    rerank_memory,
)

SMALL = 64 << 10  # array headers and the interpreter's own, which no forecast counts
FACTOR = 2.5  # what the module promises
N, M, D = 3000, 2000, 32
TILE = Tile(256, 512)


def _peak(call) -> int:
    call()  # compiled code and caches come once
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1] if result is not None else 0
    finally:
        tracemalloc.stop()


def _holds(forecast: Memory, call) -> None:
    peak = _peak(call)
    assert peak <= forecast.nbytes + SMALL, (peak, forecast)
    assert forecast.nbytes <= FACTOR * peak, (peak, forecast)


@pytest.fixture(params=[np.float16, np.float32], ids=["float16", "float32"])
def x(request):
    return np.random.default_rng(0).standard_normal((N, D)).astype(request.param)


@pytest.mark.parametrize("measure", [Cosine(), Euclidean()], ids=lambda m: m.name)
@pytest.mark.parametrize("k", [5, 60])
def test_folding_lists(measure, k, x):
    topk = TopK(k)
    _holds(
        fold_memory(measure, topk, N, None, D, tile=TILE),
        lambda: fold(measure, x, None, topk, tile=TILE),
    )


def test_folding_values_of_a_squashed_distance(x):
    measure = Squash(Euclidean(), 2.0)
    reducer = Softmax(1.0, np.ones((M, 8), np.float32))
    _holds(
        fold_memory(measure, reducer, N, M, D, tile=TILE),
        lambda: fold(measure, x, x[:M], reducer, tile=TILE),
    )


def test_folding_a_gram(x):
    reducer = Gram(200, np.ones(N))
    _holds(
        fold_memory(Cosine(), reducer, N, 200, D, tile=TILE),
        lambda: fold(Cosine(), x, x[:200], reducer, tile=TILE),
    )


@pytest.mark.parametrize("measure", [Cosine(), Euclidean(), Manhattan()], ids=lambda m: m.name)
def test_a_block_pair(measure, x):
    ids, topk, sub = np.arange(N), TopK(15), 1200
    n_b = N - sub
    _holds(
        pair_memory(measure, topk, sub, n_b, D, tile=TILE),
        lambda: fold_pair(
            measure, x[:sub], x[sub:], topk, rows_a=ids[:sub], rows_b=ids[sub:], tile=TILE
        ),
    )


@pytest.mark.parametrize("measure", [Cosine(), Euclidean()], ids=lambda m: m.name)
def test_candidate_lists(measure, x):
    topk, pairs = TopK(10), 20_000
    indices = np.random.default_rng(1).integers(0, N, N * 20)
    lists = Candidates(np.arange(N + 1) * 20, indices)
    _holds(
        candidates_memory(topk, N, None, D, pairs=pairs),
        lambda: fold_candidates(measure, x, None, lists, topk, pairs=pairs),
    )


def test_reranking(x):
    lists = np.argsort(np.random.default_rng(1).random((N, 100)), axis=1)[:, :23]
    _holds(
        rerank_memory(N, None, D, 23, 15, pairs=20_000),
        lambda: rerank(Cosine(), x, None, lists, 15, pairs=20_000),
    )


@pytest.mark.parametrize("measure", [Cosine(), Euclidean()], ids=lambda m: m.name)
def test_exact_rows(measure, x):
    _holds(
        exact_memory(500, N, D, 15, tile=TILE),
        lambda: fold_exact(
            measure, x[:500], x, TopK(15), rows=np.arange(500), columns=np.arange(N), tile=TILE
        ),
    )


def test_exact_rows_far_from_the_origin(x):
    far = np.float32(1e4) + x.astype(np.float32)
    measure, numbers = Euclidean(), np.arange(N)
    stated = exact_memory(500, N, D, 15, tile=TILE)
    moved = around_nbytes(measure, 500, N, D)
    _holds(
        replace(stated, vectors=stated.vectors + moved),
        lambda: fold_exact(
            measure, far[:500], far, TopK(15), rows=numbers[:500], columns=numbers, tile=TILE
        ),
    )


def test_a_forecast_says_what_the_bytes_are_for():
    memory = Memory(vectors=2 * 1024**3, states=0, tile=1536)
    assert str(memory) == "vectors 2.0 GiB + states 0 B + tile 1.5 KiB"
    assert memory.nbytes == 2 * 1024**3 + 1536
