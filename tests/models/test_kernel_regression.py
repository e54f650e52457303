"""`kernel_regression` as a user calls it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import logsumexp

import simdist as sd
from simdist.errors import ConfigError, InputError
from simdist.types import Array


@pytest.fixture(scope="module")
def wave() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (400, 2))
    return x, np.sin(2 * x[:, 0]) + 0.1 * rng.standard_normal(400)


def dense(x: Array, y: Array, at: Array | None, h: float) -> Array:
    """The formula, over all pairs."""
    scores = -0.5 * np.sum(((x if at is None else at)[:, None] - x) ** 2, axis=2) / h**2
    if at is None:
        np.fill_diagonal(scores, -np.inf)
    return np.exp(scores - logsumexp(scores, axis=1)[:, None]) @ y


def test_predictions_are_means_of_the_values_near(wave):
    x, y = wave
    at = np.random.default_rng(1).uniform(-4, 4, (70, 2))
    made = sd.kernel_regression(x, y, at, 0.3)
    assert np.allclose(made.predictions, dense(x, y, at, 0.3), atol=1e-12)
    own = sd.kernel_regression(x, y, bandwidth=0.3)
    assert np.allclose(own.predictions, dense(x, y, None, 0.3), atol=1e-12)
    assert own.leave_one_out
    assert own.predictions.shape == (400,)


def test_many_values_at_once_are_each_as_alone(wave):
    x, y = wave
    both = np.stack([y, 100 - 3 * y], axis=1)
    made = sd.kernel_regression(x, both, x[:50], 0.3)
    assert made.predictions.shape == (50, 2)
    assert np.allclose(made.predictions, dense(x, both, x[:50], 0.3))


def test_values_far_from_zero_keep_their_digits_in_float32(wave):
    x, y = wave
    made = sd.kernel_regression(x.astype(np.float32), y + 1e6, x[:50].astype(np.float32), 0.3)
    assert np.allclose(made.predictions - 1e6, dense(x, y, x[:50], 0.3), atol=1e-4)


def test_the_bandwidth_is_the_one_that_predicts_left_out_rows_best(wave):
    x, y = wave
    made = sd.kernel_regression(x, y)
    tried = made.bandwidth.tried
    unit = made.bandwidth.value / made.bandwidth.factor
    for factor, score in tried[::8]:
        errors = np.mean((dense(x, y, None, factor * unit) - y) ** 2)
        assert score == pytest.approx(1 - errors / y.var(), abs=1e-4)
    best = max(tried, key=lambda entry: entry[1])
    assert made.bandwidth.factor == best[0]
    assert made.bandwidth.rule == "leave_one_out"
    assert best[1] > 0.9


def test_a_point_far_from_all_rows_gets_the_value_of_the_nearest(wave):
    x, y = wave
    at = np.array([[1e5, 0.0]])
    made = sd.kernel_regression(x, y, at, 0.3)
    assert made.predictions[0] == pytest.approx(y[np.argmin(np.linalg.norm(x - at, axis=1))])


def test_kept_columns_of_a_stored_dataset_are_values(wave, tmp_path):
    x, y = wave
    flat = pa.FixedSizeListArray.from_arrays(pa.array(x.astype(np.float32).ravel()), 2)
    columns = {"v": flat, "y": y, "high": y > 0, "note": ["a"] * 400, "gap": [None, *y[1:]]}
    pq.write_table(pa.table(columns), tmp_path / "wave.parquet")
    store = sd.open_store(tmp_path / "store")
    keep = ["y", "high", "note", "gap"]
    stored = sd.import_vectors(str(tmp_path / "wave.parquet"), vector="v", keep=keep, store=store)
    made = sd.kernel_regression(stored, ["y", "high"])
    plain = sd.kernel_regression(x.astype(np.float32), np.stack([y, y > 0], axis=1))
    assert made.open().predictions.tobytes() == plain.predictions.tobytes()
    table = store.read_table(made.shards[0].objects["regression"])
    assert table.column_names == ["row", "id", "y", "high"]
    with pytest.raises(InputError, match="column 'note' holds string; expected numbers"):
        sd.kernel_regression(stored, "note", bandwidth=0.3)
    with pytest.raises(InputError, match="column 'gap', row 0: NULL, NaN or infinity"):
        sd.kernel_regression(stored, "gap", bandwidth=0.3)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda x, y: sd.kernel_regression(x, y[:9]), InputError, "9 values for 400 rows"),
        (lambda x, y: sd.kernel_regression(x, y[:9], bandwidth=1.0), InputError, "9 values .* for"),
        (lambda x, y: sd.kernel_regression(x, "y"), ConfigError, "columns are those of a stored"),
        (lambda x, y: sd.kernel_regression(x, y * np.nan), InputError, "values: row 0 of 400"),
        (lambda x, y: sd.kernel_regression(x, y, x[:, :1], 1.0), InputError, "at has 1 dim"),
        (lambda x, y: sd.kernel_regression(x[:1], y[:1], bandwidth=1.0), InputError, "has 1 row"),
    ],
)
def test_what_cannot_be_answered_is_refused(wave, call, error, said):
    with pytest.raises(error, match=said):
        call(*wave)
