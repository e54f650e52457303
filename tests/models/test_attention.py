"""`attention` on arrays: heads, grouped queries, biases, masks and gradients, on any engine."""

from __future__ import annotations

import numpy as np
import pytest
from tiles.attention import dense, gap

from simdist.engine import Engine
from simdist.errors import ConfigError, InputError
from simdist.models import heads as units
from simdist.models.attention import Attention, attention, attention_gradients
from simdist.types import Array

BATCH, HEADS, N, M, D, DV = 2, 6, 70, 110, 8, 5
STEP = 1e-5


def arrays(kv_heads: int = HEADS, *, dtype: type = np.float64) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    q = rng.standard_normal((BATCH, HEADS, N, D))
    k = rng.standard_normal((BATCH, kv_heads, M, D))
    v = rng.standard_normal((BATCH, kv_heads, M, DV))
    return tuple(x.astype(dtype) for x in (q, k, v))


def joined(x: Array) -> Array:
    """[.., h, n, d] -> [.., n, h d]."""
    moved = np.moveaxis(x, -3, -2)
    return moved.reshape(*moved.shape[:-2], -1)


def variants() -> dict[str, dict]:
    rng = np.random.default_rng(1)
    bias = rng.standard_normal((HEADS, N, M))
    pairs = rng.random((BATCH, 1, N, M)) < 0.1
    pairs[:, :, 3] = False
    return {
        "plain": {},
        "scale": {"scale": 0.7},
        "causal": {"causal": True},
        "causal from the last": {"causal": "lower_right"},
        "bias of pairs": {"bias": bias},
        "bias of all heads": {"bias": bias[0]},
        "bias of keys": {"bias": bias[0, 0]},
        "bias of keys and batches": {"bias": rng.standard_normal((BATCH, 1, 1, M))},
        "bias of queries": {"bias": bias[:, :, :1]},
        "one bias a head": {"bias": bias[:, :1, :1]},
        "mask of pairs": {"mask": pairs},
        "mask of keys": {"mask": pairs[0, 0, 0] | (np.arange(M) < 3)},
        "all": {"bias": bias, "mask": pairs, "causal": True, "scale": -0.2},
    }


@pytest.mark.parametrize("kind", variants())
@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
def test_every_variant_is_what_the_definition_says(kind, kv_heads):
    asked = variants()[kind]
    q, k, v = arrays(kv_heads)
    made = attention(q, k, v, **asked)
    assert made.output.shape == (BATCH, HEADS, N, DV)
    assert made.logsumexp.shape == (BATCH, HEADS, N)
    assert max(map(gap, (made.output, made.logsumexp), dense(q, k, v, **asked))) < 1e-12
    single = [x.astype(np.float32) for x in (q, k, v)]
    near = attention(*single, **asked)
    plain = dense(*single, **asked, dtype=np.float32)
    exact = dense(*single, **asked)
    for mine, theirs, true in zip((near.output, near.logsumexp), plain, exact, strict=True):
        assert gap(mine, true) <= 2 * gap(theirs, true) + 1e-5


@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
def test_heads_side_by_side_are_axes_of_heads(kv_heads):
    q, k, v = arrays(kv_heads)
    apart = attention(q, k, v)
    made = attention(*map(joined, (q, k, v)), heads=HEADS, kv_heads=kv_heads)
    assert np.array_equal(made.output, joined(apart.output))
    assert np.array_equal(made.logsumexp, apart.logsumexp)


def test_matrices_alone_have_no_axis_of_heads():
    q, k, v = (x[0, 0] for x in arrays())
    made = attention(q, k, v, bias=np.zeros((N, M)))
    assert made.output.shape == (N, DV)
    assert made.logsumexp.shape == (N,)
    assert max(map(gap, (made.output, made.logsumexp), dense(q, k, v))) < 1e-12


def test_leading_axes_broadcast():
    q, k, v = arrays()
    whole = attention(q, np.repeat(k[:1], BATCH, 0), np.repeat(v[:1], BATCH, 0))
    assert np.array_equal(attention(q, k[0], v[:1]).output, whole.output)
    one = attention(q[0, 0], k, v)  # one set of queries for every head
    assert np.array_equal(one.output[1, 2], attention(q[0, 0], k[1, 2], v[1, 2]).output)


@pytest.mark.parametrize(("n", "m"), [(N, 30), (30, M), (N, N)])
def test_causal_positions_are_global_whatever_is_longer(n, m):
    q, k, v = arrays()
    q, k, v = q[..., :n, :], np.resize(k, (BATCH, HEADS, m, D)), np.resize(v, (BATCH, HEADS, m, DV))
    for alignment in ("upper_left", "lower_right"):
        made = attention(q, k, v, causal=alignment)
        assert (
            max(map(gap, (made.output, made.logsumexp), dense(q, k, v, causal=alignment))) < 1e-12
        )
    unseeing = max(0, n - m)
    assert np.all(made.output[..., :unseeing, :] == 0)
    assert np.isneginf(made.logsumexp).sum() == BATCH * HEADS * unseeing


def test_queries_cut_into_tasks_give_the_same(monkeypatch, local_engine: Engine):
    q, k, v = arrays()
    bias = np.random.default_rng(2).standard_normal((N, M))
    whole = attention(q, k, v, bias=bias, causal=True)
    monkeypatch.setattr(units, "UNIT_NBYTES", 1)  # 256 rows at least: more queries than that
    long = np.resize(q, (BATCH, HEADS, 600, D))
    made = attention(long, k, v, engine=local_engine)
    assert max(map(gap, (made.output, made.logsumexp), dense(long, k, v))) < 1e-12
    again = attention(q, k, v, bias=bias, causal=True, engine=local_engine)
    assert np.array_equal(again.output, whole.output)


def test_types_are_what_was_given_or_asked_for():
    q, k, v = arrays(dtype=np.float16)
    half = attention(q, k, v)
    assert half.output.dtype == np.float32
    assert gap(half.output, dense(q, k, v)[0]) < 1e-5
    wide = attention(q, k, v, dtype="float64")
    assert wide.output.dtype == wide.logsumexp.dtype == np.float64
    assert gap(wide.output, dense(q, k, v)[0]) < 1e-12
    assert attention(q.astype(np.float64), k, v).output.dtype == np.float64


def test_without_keys_or_queries_there_is_nothing_to_weigh():
    q, k, v = arrays()
    made = attention(q, k[..., :0, :], v[..., :0, :])
    assert np.all(made.output == 0)
    assert np.all(made.logsumexp == -np.inf)
    assert attention(q[..., :0, :], k, v).output.shape == (BATCH, HEADS, 0, DV)


@pytest.mark.parametrize("kind", variants())
@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
def test_gradients_are_those_of_the_definition(kind, kv_heads, monkeypatch):
    monkeypatch.setattr(units, "BACK_ROWS", 32)  # several parts of a head's queries
    asked = variants()[kind]
    rng = np.random.default_rng(3)
    given = dict(zip("qkv", arrays(kv_heads), strict=True)) | asked
    do, dl = rng.standard_normal((BATCH, HEADS, N, DV)), rng.standard_normal((BATCH, HEADS, N))

    def loss(changed: dict) -> float:
        output, sums = dense(**changed)
        return float((output * do).sum() + (np.where(np.isfinite(sums), sums, 0) * dl).sum())

    found = attention(**given)
    made = attention_gradients(
        given["q"], given["k"], given["v"], do, found, d_logsumexp=dl, **asked
    )
    for name in ("q", "k", "v", *(("bias",) if "bias" in asked else ())):
        gradient = getattr(made, name)
        assert gradient.shape == given[name].shape
        along = rng.standard_normal(gradient.shape)
        ahead, behind = (loss(given | {name: given[name] + s * along}) for s in (STEP, -STEP))
        assert np.isclose((ahead - behind) / (2 * STEP), (gradient * along).sum(), atol=1e-5)
    assert (made.bias is None) == ("bias" not in asked)


def test_gradients_with_heads_side_by_side_are_laid_out_like_their_inputs():
    q, k, v = arrays(2)
    do = np.random.default_rng(3).standard_normal((BATCH, HEADS, N, DV))
    apart = attention_gradients(q, k, v, do, attention(q, k, v))
    flat = [joined(x) for x in (q, k, v)]
    found = attention(*flat, heads=HEADS, kv_heads=2)
    made = attention_gradients(*flat, joined(do), found, heads=HEADS, kv_heads=2)
    for mine, theirs in zip(made[:3], apart[:3], strict=True):
        assert np.array_equal(mine, joined(theirs))


def test_a_projection_learns_through_it():
    """Descent along the gradients alone makes queries find the one key that has the answer."""
    rng = np.random.default_rng(4)
    k, v = rng.standard_normal((30, 6)), rng.standard_normal((30, 2))
    x, wanted = rng.standard_normal((10, 4)), v[rng.integers(0, 30, 10)]
    W = np.zeros((4, 6))

    def step(W: Array) -> tuple[float, Array]:
        found = attention(x @ W, k, v)
        missing = found.output - wanted
        made = attention_gradients(x @ W, k, v, missing, found)
        return float((missing**2).sum()), x.T @ made.q

    first, _ = step(W)
    for _ in range(60):
        W = W - 0.3 * step(W)[1]
    assert step(W)[0] < 0.6 * first


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_is_not_finite_is_refused_with_array_head_and_row(which):
    given = list(arrays())
    given[which][1, 4, 17, 3] = np.nan
    said = rf"^{'qkv'[which]} is nan at head \(1, 4\), row 17, column 3"
    with pytest.raises(InputError, match=said):
        attention(*given)


REFUSED = {
    "columns": (
        InputError,
        "as many columns of q as of k",
        {"k": np.ones((BATCH, HEADS, M, D + 1))},
    ),
    "rows": (InputError, "as many rows of k as of v", {"v": np.ones((BATCH, HEADS, M + 1, DV))}),
    "groups": (InputError, "q has 6 heads, k and v 4", {k: np.ones((4, M, D)) for k in "kv"}),
    "kinds": (InputError, "k has 6 heads, v 3", {"v": np.ones((3, M, DV))}),
    "batches": (InputError, "do not broadcast", {"k": np.ones((3, HEADS, M, D))}),
    "integers": (InputError, "v is int64", {"v": np.ones((M, DV), np.int64)}),
    "bias": (InputError, "bias is float64 of shape .*broadcasts", {"bias": np.zeros((N, M + 1))}),
    "mask": (InputError, "mask is float64 .*expected bool", {"mask": np.zeros((N, M))}),
    "causal": (ConfigError, "causal='down'", {"causal": "down"}),
    "heads": (ConfigError, "q has 8 columns, which 3 heads", {"heads": 3}),
    "kv_heads": (ConfigError, "kv_heads=2 without heads", {"kv_heads": 2}),
    "dtype": (ConfigError, "dtype='float16'", {"dtype": "float16"}),
    "columns of arrays": (ConfigError, "columns are those of datasets", {"columns": ["price"]}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_runs(kind):
    error, said, wrong = REFUSED[kind]
    with pytest.raises(error, match=said):
        attention(**(dict(zip("qkv", arrays(), strict=True)) | wrong))


def test_gradients_refuse_results_of_something_else():
    q, k, v = arrays()
    found = attention(q, k, v)
    with pytest.raises(InputError, match="d_output has shape"):
        attention_gradients(q, k, v, found.output[..., :-1, :], found)
    other = Attention(found.output, found.logsumexp[0])
    with pytest.raises(InputError, match="logsumexp has shape"):
        attention_gradients(q, k, v, found.output, other)
