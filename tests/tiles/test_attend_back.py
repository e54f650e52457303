"""Attention backwards: gradients against differences of the definition, and added up over parts."""

from __future__ import annotations

import numpy as np
import pytest
from tiles.attention import dense, gap

from simdist.errors import ConfigError, InputError
from simdist.tiles import Tile
from simdist.tiles.attend import Logits, attend, causal_limits
from simdist.tiles.attend_back import attend_back
from simdist.tiles.softmax import Attended, attended

N, M, D, DV = 60, 300, 5, 3
STEP = 1e-5


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(s) for s in ((N, D), (M, D), (M, DV)))


@pytest.fixture(scope="module")
def cotangents():
    rng = np.random.default_rng(1)
    return rng.standard_normal((N, DV)), rng.standard_normal(N)


BIASES = {"pairs": (N, M), "rows": (N, 1), "columns": (1, M), "keys": (M,), "one": ()}


def test_biases_of_every_shape_and_all_rows_have_gradients(rows, cotangents):
    Q, K, V = rows
    do, dl = cotangents
    rng = np.random.default_rng(2)
    mask = rng.random((N, M)) < 0.3
    mask[7] = False  # a query that sees nothing
    for shape in BIASES.values():
        args = {"Q": Q, "K": K, "V": V, "bias": rng.standard_normal(shape), "keys": rng.random(M)}

        def loss(changed):
            all_biases = changed["bias"] + changed["keys"]
            output, sums = dense(
                changed["Q"], changed["K"], changed["V"], scale=0.7, bias=all_biases, mask=mask
            )
            return (output * do).sum() + (np.where(np.isfinite(sums), sums, 0) * dl).sum()

        logits = Logits(0.7, args["keys"], args["bias"], mask)
        found = attended(attend(Q, K, V, logits), np.float64)
        made = attend_back(Q, K, V, do, found, logits, d_logsumexp=dl, tile=Tile(50, 70))
        given = zip(
            args, (made.queries, made.keys, made.values, made.bias, made.key_bias), strict=True
        )
        for name, gradient in given:
            assert gradient.shape == np.shape(args[name])
            along = rng.standard_normal(gradient.shape)
            ahead, behind = (loss({**args, name: args[name] + s * along}) for s in (STEP, -STEP))
            assert np.isclose((ahead - behind) / (2 * STEP), (gradient * along).sum(), atol=1e-6)
        assert np.all(made.queries[7] == 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_of_parts_of_queries_or_keys_add_up(rows, cotangents, dtype):
    Q, K, V = (x.astype(dtype) for x in rows)
    do = cotangents[0].astype(dtype)
    logits = Logits(0.7, limits=causal_limits(0, N, 0, M, shift=50), own=np.arange(N))
    found = attended(attend(Q, K, V, logits), dtype)
    whole = attend_back(Q, K, V, do, found, logits)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    first, last = (
        attend_back(Q[s], K, V, do[s], Attended(*(x[s] for x in found)), logits.rows(s))
        for s in (slice(0, 23), slice(23, N))
    )
    assert gap(first.keys + last.keys, whole.keys) < tolerance
    assert gap(first.values + last.values, whole.values) < tolerance
    assert gap(np.concatenate([first.queries, last.queries]), whole.queries) < tolerance
    parts = []
    for a, b in ((0, 111), (111, 111), (111, M)):
        seen = causal_limits(0, N, a, b - a, shift=50)
        there = Logits(0.7, limits=seen, own=np.arange(N) - a)
        parts.append(attend_back(Q, K[a:b], V[a:b], do, found, there))
    assert gap(sum(part.queries for part in parts), whole.queries) < tolerance
    assert gap(np.concatenate([part.keys for part in parts]), whole.keys) < tolerance


def test_float32_gradients_are_near_those_in_float64(rows, cotangents):
    Q, K, V = rows
    wide = attend_back(Q, K, V, cotangents[0], attended(attend(Q, K, V), np.float64))
    single = [x.astype(np.float32) for x in rows]
    found = attended(attend(*single), np.float32)
    near = attend_back(*single, cotangents[0].astype(np.float32), found)
    for a, b in zip(near[:4], wide[:4], strict=True):
        assert gap(a, b) < 1e-4


def test_cotangents_that_do_not_fit_are_refused(rows, cotangents):
    Q, K, V = rows
    found = attended(attend(Q, K, V), np.float64)
    with pytest.raises(InputError, match=r"d_output of shape \(60, 2\); expected \(60, 3\)"):
        attend_back(Q, K, V, cotangents[0][:, :2], found)
    broken = cotangents[0].copy()
    broken[2, 0] = np.nan
    with pytest.raises(InputError, match=r"d_output.*nan at row 2"):
        attend_back(Q, K, V, broken, found)
    with pytest.raises(ConfigError, match="needs values"):
        attend_back(Q, K, None, cotangents[0], found)
