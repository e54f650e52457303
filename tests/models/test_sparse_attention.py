"""`sparse_attention` on arrays: whatever is certified holds, against all keys in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.importing import shared_file

import simdist as sd
from simdist.errors import ConfigError, InputError


def exact(q, k, v, scale, *, exclude_self=False):
    """Output, logsumexp and weights, in float64."""
    s = scale * (q.astype(np.float64) @ k.astype(np.float64).T)
    if exclude_self:
        np.fill_diagonal(s, -np.inf)
    most = s.max(axis=1, keepdims=True)
    weights = np.exp(s - most)
    total = weights.sum(axis=1, keepdims=True)
    return weights / total @ v.astype(np.float64), (most + np.log(total))[:, 0], weights / total


def fewest(weights: np.ndarray, tolerance: float) -> np.ndarray:
    ordered = np.sort(weights, axis=1)[:, ::-1]
    return 1 + (1.0 - np.cumsum(ordered, axis=1) > tolerance).sum(axis=1)


def assert_certified(found, q, k, v, scale, tolerance=1e-2, *, exclude_self=False):
    """All that the result says is true."""
    output, logsumexp, _ = exact(q, k, v, scale, exclude_self=exclude_self)
    error = np.linalg.norm(found.output.astype(np.float64) - output, axis=1)
    widest = np.linalg.norm(v.astype(np.float64), axis=1).max()
    room = 1e-13 * widest  # what float64 rounds in this check
    assert (error <= found.error + room).all()
    assert (found.error <= 2.0 * found.tau * widest * (1 + 1e-12)).all()
    assert (found.logsumexp[:, 0] <= logsumexp + 1e-12 * np.abs(logsumexp)).all()
    assert (logsumexp <= found.logsumexp[:, 1] + 1e-12 * np.abs(logsumexp)).all()
    assert np.array_equal(found.certified, found.tau <= tolerance)
    assert np.isfinite(found.output).all()


def clouds(seed: int, n: int, m: int, d: int, dv: int, kind: str = "unit"):
    rng = np.random.default_rng(seed)
    q, k = (rng.standard_normal((rows, d)) for rows in (n, m))
    if kind == "unit":
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        k /= np.linalg.norm(k, axis=1, keepdims=True)
    if kind == "ties":
        q, k = np.sign(q), np.sign(k)
    if kind == "zeros":
        k[:] = 0.0
    if kind == "copies":
        k[:] = k[rng.integers(0, max(m // 8, 1), m)]
    if kind == "far":
        k += 30.0
    v = rng.standard_normal((m, dv)) * 10.0 ** rng.uniform(-3, 3)
    return tuple(x.astype(np.float32) for x in (q, k, v))


@settings(max_examples=120)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 300), st.integers(1, 70), st.integers(1, 5)),
    kind=st.sampled_from(["unit", "normal", "ties", "zeros", "copies", "far"]),
    scale=st.sampled_from([-3.0, 0.0, 0.5, 1.0, 20.0, 500.0]),
    tolerance=st.sampled_from([0.3, 1e-1, 1e-2, 1e-3, 1e-6]),
    budget=st.sampled_from([None, 1, 7, 100]),
    exact_above=st.sampled_from([0.0, 0.125, 1.0]),
)
def test_the_certificate_holds(*, seed, shape, kind, scale, tolerance, budget, exact_above):
    q, k, v = clouds(seed, *shape, kind)
    found = sd.sparse_attention(
        q, k, v, tolerance=tolerance, budget=budget, scale=scale, exact_above=exact_above, sample=2
    )
    assert_certified(found, q, k, v, scale, tolerance)
    if budget is not None:
        assert (found.keys <= budget).all()
        assert not found.fell_back.any() or budget >= len(k)
    if exact_above == 0.0 and budget is None:
        assert found.fell_back.all()
    assert (found.keys[found.fell_back] == len(k)).all()


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("scale", [10.0, 40.0])
def test_few_more_keys_are_scored_than_an_oracle_needs(scale, tolerance):
    q, k, v = clouds(3, 60, 4000, 48, 6)
    found = sd.sparse_attention(q, k, v, tolerance=tolerance, scale=scale, exact_above=1.0)
    assert found.certified.all()
    assert not found.fell_back.any()
    least = fewest(exact(q, k, v, scale)[2], tolerance)
    assert found.keys.sum() <= 1.5 * least.sum()
    assert (found.keys >= least).all()
    assert np.array_equal(found.least, least[found.sampled])
    assert found.ratio == found.keys[found.sampled].sum() / least[found.sampled].sum()
    assert len(found.sampled) == 32


def test_where_all_keys_are_cheaper_all_are_taken_and_it_is_said():
    q, k, v = clouds(4, 20, 3000, 16, 4)
    found = sd.sparse_attention(q, k, v, scale=0.1)
    assert found.fell_back.all()
    assert found.certified.all()
    assert (found.keys == 3000).all()
    assert_certified(found, q, k, v, 0.1)
    assert "20 exact" in repr(found)


def test_a_few_keys_tell_that_a_scan_of_very_many_would_be_in_vain():
    q, k, v = clouds(5, 9, 40_000, 8, 3)
    found = sd.sparse_attention(q, k, v, scale=0.1, sample=0)
    assert found.fell_back.all()
    assert_certified(found, q, k, v, 0.1)
    peaked = sd.sparse_attention(q, k, v, scale=200.0, sample=0)
    assert not peaked.fell_back.any()
    assert_certified(peaked, q, k, v, 200.0)


def test_a_budget_goes_to_the_keys_that_matter_and_misses_are_never_certified():
    q, k, v = clouds(6, 40, 2000, 32, 4)
    found = sd.sparse_attention(q, k, v, scale=10.0, budget=50, tolerance=1e-2)
    assert_certified(found, q, k, v, 10.0)
    assert len(found.missed)
    assert (found.keys[found.missed] == 50).all()
    kept = np.sort(exact(q, k, v, 10.0)[2], axis=1)[:, ::-1][:, :50].sum(axis=1)
    assert (found.tau >= 1.0 - kept - 1e-6).all()  # no fifty keys leave out less
    assert (found.tau <= 1.35 * (1.0 - kept) + 1e-6).all()


def test_a_budget_of_all_keys_may_take_all_keys():
    q, k, v = clouds(7, 5, 200, 8, 2)
    found = sd.sparse_attention(q, k, v, scale=0.01, budget=200)
    assert found.fell_back.all()
    assert not sd.sparse_attention(q, k, v, scale=0.01, budget=199).fell_back.any()


def test_tolerances_finer_than_rounding_are_not_certified():
    q, k, v = clouds(8, 6, 500, 20, 3)
    found = sd.sparse_attention(q, k, v, scale=5.0, tolerance=1e-9)
    assert not found.certified.any()
    assert_certified(found, q, k, v, 5.0, 1e-9)
    double = sd.sparse_attention(*(x.astype(np.float64) for x in (q, k, v)), scale=5.0,
                                 tolerance=1e-6, exact_above=1.0)  # fmt: skip
    assert double.output.dtype == np.float64
    assert double.certified.all()
    assert_certified(double, q, k, v, 5.0, 1e-6)


@pytest.mark.parametrize("exact_above", [0.125, 1.0])
def test_a_row_that_does_not_see_itself(exact_above):
    _, x, v = clouds(9, 1, 700, 24, 5)
    found = sd.sparse_attention(x, x, v, scale=20.0, exclude_self=True, exact_above=exact_above)
    assert_certified(found, x, x, v, 20.0, exclude_self=True)
    weights = exact(x, x, v, 20.0, exclude_self=True)[2]
    assert np.array_equal(found.least, fewest(weights, 1e-2)[found.sampled])
    alone = sd.sparse_attention(x[:1], x[:1], v[:1], exclude_self=True, exact_above=exact_above)
    assert not alone.output.any()
    assert (alone.logsumexp == -np.inf).all()


def test_one_key_is_its_own_average():
    q, k, v = clouds(10, 4, 1, 6, 3)
    for above in (0.0, 1.0):
        found = sd.sparse_attention(q, k, v, exact_above=above)
        assert np.allclose(found.output, np.tile(v, (4, 1)), rtol=1e-6)
        assert (found.keys == 1).all()
        assert found.certified.all()


def test_no_queries_and_no_keys_are_no_trouble():
    q, k, v = clouds(11, 4, 5, 6, 3)
    assert sd.sparse_attention(q[:0], k, v).output.shape == (0, 3)
    found = sd.sparse_attention(q, k[:0], v[:0])
    assert not found.output.any()
    assert (found.logsumexp == -np.inf).all()
    assert found.certified.all()


def test_the_scale_is_that_of_attention_where_none_is_given():
    q, k, v = clouds(12, 5, 300, 16, 3, "normal")
    assert_certified(sd.sparse_attention(q, k, v), q, k, v, 0.25)


def test_half_precision_and_read_only_rows_are_taken():
    q, k, v = clouds(13, 5, 300, 16, 3)
    k, v = k.astype(np.float16), v.astype(np.float16)
    k.flags.writeable = v.flags.writeable = False
    found = sd.sparse_attention(q, k, v, scale=30.0)
    assert found.output.dtype == np.float32
    assert_certified(found, q, k, v, 30.0)


def test_logits_too_large_for_codes_fall_back_or_are_not_certified():
    q, k, v = clouds(14, 3, 50, 8, 2)
    q, k = (x.astype(np.float64) * 1e18 for x in (q, k))
    scale = 1e-35
    found = sd.sparse_attention(q, k, v, scale=scale, exact_above=1.0)
    assert_certified(found, q, k, v, scale)
    short = sd.sparse_attention(q, k, v, scale=scale, budget=10)
    assert not short.certified.any()


@pytest.mark.parametrize("what", ["queries", "keys", "values"])
def test_nan_is_refused_with_its_row(what):
    arrays = dict(zip(("queries", "keys", "values"), clouds(15, 5, 40, 6, 2), strict=True))
    arrays[what] = arrays[what].copy()
    arrays[what][3, 1] = np.nan
    with pytest.raises(InputError, match=rf"(?s){what}.*row 3"):
        sd.sparse_attention(*arrays.values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tolerance": 0.0}, "tolerance=0"),
        ({"tolerance": 1.0}, "tolerance=1"),
        ({"budget": 0}, "budget=0"),
        ({"exact_above": 2.0}, "exact_above=2"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"sample": -1}, "sample=-1"),
        ({"exclude_self": True}, "exclude_self"),
    ],
)
def test_settings_without_meaning_are_refused(options, said):
    q, k, v = clouds(16, 3, 10, 4, 2)
    with pytest.raises(ConfigError, match=said):
        sd.sparse_attention(q, k, v, **options)


def test_shapes_that_do_not_fit_are_refused_with_all_three():
    q, k, v = clouds(17, 3, 10, 4, 2)
    for wrong in ((q[:, :3], k, v), (q, k, v[:9])):
        with pytest.raises(InputError, match="row of values"):
            sd.sparse_attention(*wrong)
    with pytest.raises(ConfigError, match="names of columns"):
        sd.sparse_attention(q, k, ["size"])


@pytest.mark.shared
def test_on_real_embeddings_the_bound_holds_and_keys_are_near_the_fewest():
    import pyarrow.parquet as pq

    column = pq.read_table(shared_file("debian-packages-384.parquet"))["embedding"]
    x = column.combine_chunks().flatten().to_numpy().reshape(-1, 384).astype(np.float32)
    held_out = np.random.default_rng(0).permutation(len(x))
    q, k = x[held_out[:32]], x[held_out[32:]]
    for scale, tolerance in ((50.0, 1e-2), (20.0, 1e-1)):
        found = sd.sparse_attention(
            q, k, k, scale=scale, tolerance=tolerance, exact_above=1.0, sample=32
        )
        assert found.certified.all()
        assert found.ratio <= 1.5
        assert_certified(found, q, k, k, scale, tolerance)
