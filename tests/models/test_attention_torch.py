"""`attention` beside PyTorch's scaled_dot_product_attention, and its gradients beside autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiles.attention import dense, gap

from simdist.models.attention import attention, attention_gradients

torch: Any = pytest.importorskip("torch")

HEADS, N, M, D, DV = 4, 150, 190, 16, 10
DTYPES = [np.float32, np.float64]


def arrays(dtype, kv_heads=HEADS, m=M):
    rng = np.random.default_rng(0)
    shapes = ((2, HEADS, N, D), (2, kv_heads, m, D), (2, kv_heads, m, DV))
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def theirs(q, k, v, **asked):
    given = [torch.from_numpy(x) for x in (q, k, v)]
    for name in ("attn_mask",):
        if name in asked:
            asked[name] = torch.from_numpy(asked[name])
    return torch.nn.functional.scaled_dot_product_attention(*given, **asked).numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("kind", ["plain", "causal", "longer", "scale", "bias", "keys", "mask"])
def test_it_is_as_near_to_the_definition_as_pytorch(dtype, kv_heads, kind):
    rng = np.random.default_rng(1)
    q, k, v = arrays(dtype, kv_heads, m=N - 40 if kind == "longer" else M)
    bias = rng.standard_normal((HEADS, N, M)).astype(dtype)
    mask = rng.random((N, M)) < 0.1
    mask[:, 0] = True
    mine, other = {
        "plain": ({}, {}),
        "causal": ({"causal": True}, {"is_causal": True}),
        "longer": ({"causal": True}, {"is_causal": True}),
        "scale": ({"scale": 0.7}, {"scale": 0.7}),
        "bias": ({"bias": bias}, {"attn_mask": bias}),
        "keys": ({"bias": bias[0, 0]}, {"attn_mask": bias[0, :1]}),
        "mask": ({"mask": mask}, {"attn_mask": mask}),
    }[kind]
    made = attention(q, k, v, **mine).output
    peer = theirs(q, k, v, enable_gqa=kv_heads < HEADS, **other)
    exact, _ = dense(q, k, v, **mine)
    assert gap(made, exact) <= (1e-12 if dtype == np.float64 else 2 * gap(peer, exact) + 1e-5)
    assert gap(made, peer) < (1e-12 if dtype == np.float64 else 1e-5)


def test_a_query_that_sees_nothing_is_zeros_as_in_pytorch():
    q, k, v = arrays(np.float64)
    mask = np.zeros((N, M), bool)
    mask[1:, :3] = True
    made = attention(q, k, v, mask=mask)
    peer = theirs(q, k, v, attn_mask=mask)
    assert gap(made.output, np.nan_to_num(peer)) < 1e-12
    assert np.all(made.output[:, :, 0] == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_gradients_are_those_of_autograd(dtype, kv_heads):
    rng = np.random.default_rng(2)
    given = arrays(dtype, kv_heads)
    do, bias = (rng.standard_normal(s).astype(dtype) for s in ((2, HEADS, N, DV), (N, M)))
    leaves = [torch.from_numpy(x).requires_grad_() for x in (*given, bias)]
    output = torch.nn.functional.scaled_dot_product_attention(
        *leaves[:3], attn_mask=leaves[3], enable_gqa=kv_heads < HEADS
    )
    output.backward(torch.from_numpy(do))
    made = attention_gradients(*given, do, attention(*given, bias=bias), bias=bias)
    for mine, leaf in zip(made, leaves, strict=True):
        assert gap(mine, leaf.grad.numpy()) < (1e-12 if dtype == np.float64 else 1e-4)
