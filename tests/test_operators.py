"""The sharded matrix: products with a sharded block are those of the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.sharded import links_dataset, random_graph

from simdist.errors import InputError
from simdist.operators import ShardedCsr, degree_power
from simdist.store import open_store
from simdist.types import Array


def _applied(operator: ShardedCsr, X: Array, **options: object) -> Array:
    """The product, shard by shard, each block handed over only when it is asked for."""
    blocks = np.split(X, operator.bounds[1:-1])
    parts = [operator.product(i, lambda s: blocks[s], **options) for i in range(operator.shards)]
    return np.concatenate(parts)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    degree=st.floats(0, 6),
    cuts=st.sets(st.integers(1, 59), max_size=5),
    width=st.sampled_from([1, 3, 24, 33]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_a_product_is_that_of_the_whole_matrix_to_the_last_bit_of_any_cut(
    seed, n, degree, cuts, width, dtype
):
    A = random_graph(n, degree, seed=seed)
    X = np.random.default_rng(seed).standard_normal((n, width)).astype(dtype)
    whole = ShardedCsr.of(links_dataset(A))
    cut = ShardedCsr.of(links_dataset(A, cuts=sorted(c for c in cuts if c < n)))
    product = _applied(cut, X)
    assert product.dtype == np.float64
    assert np.allclose(product, A.astype(np.float64) @ X.astype(np.float64), rtol=1e-12, atol=1e-12)
    assert np.array_equal(product, _applied(whole, X))


def test_float32_blocks_are_added_up_in_float64():
    n = 4001
    star = sp.lil_matrix((n, n), dtype=np.float32)
    star[0, 1:] = star[1:, 0] = 1.0
    operator = ShardedCsr.of(links_dataset(star.tocsr(), cuts=[1000, 1500]))
    X = np.full((n, 1), 1e-3, np.float32)
    X[1] = 1e4
    assert _applied(operator, X)[0, 0] == pytest.approx(1e4 + 3999 * float(X[2, 0]), rel=1e-13)


def test_normalised_matrices_are_products_with_scaled_columns():
    A = random_graph(200, 5, seed=3, isolated=4)
    operator = ShardedCsr.of(links_dataset(A, cuts=[40, 150]))
    degrees = np.concatenate([operator.degrees(i) for i in range(operator.shards)])
    root = degree_power(degrees, -0.5)
    assert np.array_equal(root[-4:], np.zeros(4))
    X = np.random.default_rng(0).standard_normal((200, 6))
    scaled = _applied(
        operator, X, scale_of=lambda s: root[operator.bounds[s] : operator.bounds[s + 1]]
    )
    S = sp.diags(root) @ A.astype(np.float64) @ sp.diags(root)
    assert np.allclose(root[:, None] * scaled, S @ X, rtol=1e-12, atol=1e-12)


def test_a_vector_gives_a_vector():
    A = random_graph(90, 4, seed=1)
    operator = ShardedCsr.of(links_dataset(A, cuts=[30]))
    x = np.random.default_rng(0).standard_normal(90)
    assert np.allclose(_applied(operator, x), A.astype(np.float64) @ x)


def test_only_the_shards_that_have_neighbours_are_asked_for(tmp_path):
    blocks = [random_graph(30, 4, seed=s) for s in range(4)]
    A = sp.block_diag(blocks, format="lil", dtype=np.float32)
    A[5, 100] = A[100, 5] = 2.0
    operator = ShardedCsr.of(
        links_dataset(A.tocsr(), cuts=[30, 60, 90], store=open_store(tmp_path))
    )
    assert [operator.sources(i) for i in range(4)] == [(0, 3), (1,), (2,), (0, 3)]
    asked: list[int] = []

    def block(s: int) -> Array:
        asked.append(s)
        return np.zeros((30, 2), np.float32)

    operator.product(0, block)
    assert asked == [0, 3]
    halo = operator.halo(0)
    assert halo.sources == (0, 3)
    assert halo.rows[1].tolist() == [10]
    columns = np.unique(A.tocsr()[:30].indices)
    assert halo.rows[0].tolist() == columns[columns < 30].tolist()
    assert operator.pass_nbytes(2, 4) == 6 * 30 * 2 * 4
    assert operator.product_nbytes(0, 24) < operator.product_nbytes(0, 48)


def test_shards_say_where_they_lie_and_join_to_the_whole_matrix(tmp_path):
    A = random_graph(120, 6, seed=8, isolated=3)
    operator = ShardedCsr.of(links_dataset(A, cuts=[7, 80], store=open_store(tmp_path)))
    assert (operator.nodes, operator.entries, operator.shards) == (120, A.nnz, 3)
    assert operator.bounds.tolist() == [0, 7, 80, 120]
    assert operator.shard_of(np.array([0, 6, 7, 79, 80, 119])).tolist() == [0, 0, 1, 1, 2, 2]
    assert (operator.to_scipy() != A).nnz == 0
    for i in range(3):
        shard = operator.shard(i)
        assert (shard.begin, shard.end) == operator.span(i)
        assert (shard.rows, shard.entries) == (operator.rows(i), operator.shard_entries(i))
        assert (shard.to_scipy(120) != A[shard.begin : shard.end]).nnz == 0
        assert not shard.weights.flags.writeable


def test_a_block_of_another_shape_is_refused():
    operator = ShardedCsr.of(links_dataset(random_graph(40, 4, seed=0), cuts=[20]))
    with pytest.raises(InputError, match=r"shape \(19, 3\); expected \[20, b\]"):
        operator.product(0, lambda s: np.zeros((19, 3)))


def test_another_kind_of_dataset_is_no_matrix(tmp_path, local_engine):
    from simdist.models.vectors import import_array

    store = open_store(tmp_path)
    vectors = import_array(np.ones((3, 2), np.float32), store=store, engine=local_engine)
    with pytest.raises(InputError, match=r"import_vectors; expected a graph.*similarity_graph"):
        ShardedCsr.of(vectors)
