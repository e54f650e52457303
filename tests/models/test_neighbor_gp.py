"""`NeighborGP` on arrays and on stored rows, beside the exact Gaussian process of scikit-learn."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from stages.importing import bring_in, parquet, table

from simdist import NeighborGP
from simdist.engine import Engine
from simdist.errors import ConfigError, InputError
from simdist.measures.kernels import RBF, Constant, Linear, Matern32, White
from simdist.store import Dataset
from simdist.types import Array

SMALL: dict[str, Any] = {"neighbors": 20, "subset": 120, "iterations": 8, "calibration": 60}


def waves(n: int, *, noise: float = 0.05, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, (n, 2)).astype(np.float32)
    y = np.sin(2 * x[:, 0]) + 0.3 * x[:, 1] + noise * rng.standard_normal(n)
    return x, 10.0 + 4.0 * y


def stored(tmp_path: Path, x: Array, y: Array) -> Dataset:
    return bring_in(parquet(tmp_path / "rows.parquet", table(x, y=y)), keep=["y"])


@parametrize_with_checks([NeighborGP(neighbors=8, subset=20, iterations=1, calibration=10)])
def test_it_is_a_scikit_learn_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


def test_with_every_row_for_a_neighbour_it_is_the_exact_process() -> None:
    x, y = waves(80)
    new, _ = waves(30, seed=1)
    given = 1.5 * RBF(lengthscale=0.8)
    gp = NeighborGP(given, neighbors=80, noise=0.01, iterations=0).fit(x, y)
    mean, scale = y.mean(), y.std()
    exact = GaussianProcessRegressor(
        theirs.ConstantKernel(1.5) * theirs.RBF(0.8), alpha=0.01, optimizer=None
    ).fit(x.astype(np.float64), (y - mean) / scale)
    expected, spread = exact.predict(new.astype(np.float64), return_std=True)
    found = gp.predict_distribution(new)
    assert np.allclose(found.mean, mean + scale * expected, rtol=0, atol=1e-6 * scale)
    latent = gp.calibration_ * scale**2 * spread**2
    assert np.allclose(found.latent_variance, latent, rtol=1e-5, atol=1e-9)
    assert np.allclose(found.variance - found.latent_variance, gp.calibration_ * gp.noise_)


def test_it_learns_the_function_its_noise_and_how_sure_to_be() -> None:
    x, y = waves(1500)
    new, known = waves(1000, seed=1)
    gp = NeighborGP(neighbors=50, subset=300, calibration=500).fit(x, y)
    found = gp.predict_distribution(new)
    z = (known - found.mean) / np.sqrt(found.variance)
    assert np.sqrt(np.mean((known - found.mean) ** 2)) < 1.15 * 4.0 * 0.05
    assert 0.8 < np.mean(z**2) < 1.25
    assert 0.92 < np.mean(np.abs(z) < 1.96) < 0.98
    assert gp.noise_ == pytest.approx((4.0 * 0.05) ** 2, rel=0.4)
    assert gp.score(new, known) > 0.99
    assert gp.held_out_["rmse"] == pytest.approx(4.0 * 0.05, rel=0.2)
    assert gp.held_out_["mean_z2"] == pytest.approx(1.0, abs=0.2)
    assert np.all(found.latent_variance < found.variance)


def test_variances_of_held_out_rows_are_right_on_average() -> None:
    x, y = waves(400)
    gp = NeighborGP(0.5 * RBF(1.0), noise=1.0, iterations=0, **_without("iterations")).fit(x, y)
    assert gp.calibration_ < 0.1  # noise was said to be far larger than it is
    assert gp.held_out_["mean_z2"] == pytest.approx(1.0, abs=0.35)


def test_a_row_left_out_is_predicted_as_by_a_fit_without_it() -> None:
    x, y = waves(60)
    gp = NeighborGP(1.0 * RBF(0.8), neighbors=12, noise=0.01, iterations=0).fit(x, y)
    left_out = gp.leave_one_out()
    rest = np.arange(60) != 7
    other = NeighborGP(1.0 * RBF(0.8), neighbors=12, noise=0.01, iterations=0)
    other.fit(x[rest], y[rest])
    assert len(left_out) == 60
    assert left_out.mean[7] == pytest.approx(
        other.predict(x[7:8])[0], abs=0.01
    )  # its mean is another
    assert np.abs(left_out.mean - y).max() > np.abs(gp.predict(x) - y).max()


@pytest.mark.parametrize("columns", ["kept", "array"])
def test_stored_rows_give_the_model_of_the_arrays_bit_for_bit(tmp_path: Path, columns: str) -> None:
    x, y = waves(300)
    new, known = waves(50, seed=1)
    here = NeighborGP(**SMALL).fit(x, y)
    rows = stored(tmp_path, x, y)
    there = NeighborGP(**SMALL).fit(rows, "y" if columns == "kept" else y)
    assert there.kernel_ == here.kernel_
    assert there.calibration_ == here.calibration_
    assert there.held_out_ == here.held_out_
    queries = bring_in(
        parquet(tmp_path / "new.parquet", table(new, y=known, id=[f"q{i}" for i in range(50)])),
        store=rows.store,
        keep=["y"],
    )
    predicted = there.predict_distribution(queries)
    expected = here.predict_distribution(new)
    assert predicted.open().mean.tobytes() == expected.mean.tobytes()
    assert predicted.open().variance.tobytes() == expected.variance.tobytes()
    made = rows.store.read_table(predicted.shards[0].objects["table"])
    assert made["id"].to_pylist()[:2] == ["q0", "q1"]
    assert there.leave_one_out().open().mean.tobytes() == here.leave_one_out().mean.tobytes()
    assert there.score(queries, "y") == pytest.approx(here.score(new, known), rel=1e-12)
    assert np.array_equal(there.predict(new), expected.mean)  # an array, by a stored model


def test_a_committed_model_is_opened_and_predicts(tmp_path: Path) -> None:
    x, y = waves(200)
    rows = stored(tmp_path, x, y)
    fitted = NeighborGP(**SMALL).fit(rows, "y")
    model = Dataset(rows.store, rows.store.manifest(fitted.dataset_.fingerprint))
    loaded = NeighborGP.open(model)
    assert np.array_equal(loaded.predict(x[:10]), fitted.predict(x[:10]))
    assert str(loaded.kernel_) == model.metrics["formula"]
    with pytest.raises(InputError, match="expected a neighbor_gp model"):
        NeighborGP.open(rows)


def test_the_same_model_on_every_engine(engine: Engine, tmp_path: Path) -> None:
    x, y = waves(150)
    settings = {**SMALL, "iterations": 3}
    here = NeighborGP(**settings).fit(x, y)
    there = NeighborGP(**settings, engine=engine, scratch=str(tmp_path / "scratch")).fit(x, y)
    assert there.kernel_ == here.kernel_
    assert there.calibration_ == here.calibration_
    assert np.array_equal(there.predict(x[:20]), here.predict(x[:20]))


def test_approximate_neighbours_do_nearly_as_well(tmp_path: Path) -> None:
    x, y = waves(900)
    new, known = waves(200, seed=1)
    settings = {**SMALL, "method": "approximate", "recall": 0.9}
    gp = NeighborGP(**settings, scratch=str(tmp_path / "scratch")).fit(x, y)
    assert gp.score(new, known) > 0.98


# -- kernels ---------------------------------------------------------------------------------------


def test_white_noise_in_the_kernel_is_where_the_noise_starts() -> None:
    x, y = waves(60)
    kernel = 2.0 * RBF(1.0) + White(0.3)
    gp = NeighborGP(kernel, neighbors=10, iterations=0).fit(x, y)
    assert gp.noise_ == pytest.approx(0.3 * y.var())
    assert gp.kernel_ == 2.0 * RBF(1.0)


def test_sums_and_products_have_neighbours_where_a_part_has_them() -> None:
    x, y = waves(200)
    for kernel in (RBF(1.0) + Linear(), 1.0 * RBF(1.0, active=(0,)) * Matern32(2.0) + Constant()):
        assert NeighborGP(kernel, **SMALL).fit(x, y).score(x, y) > 0.9
    with pytest.raises(ConfigError, match="does not fall with a distance"):
        NeighborGP(Linear(), **SMALL).fit(x, y)
    with pytest.raises(ConfigError, match="nothing but noise"):
        NeighborGP(White(1.0), **SMALL).fit(x, y)


def test_a_kernel_may_be_written_as_its_formula() -> None:
    x, y = waves(100)
    gp = NeighborGP("0.5 * Matern32(ard=True)", **SMALL).fit(x, y)
    assert "Matern32" in str(gp.kernel_)


# -- what users bring ------------------------------------------------------------------------------


def test_a_constant_target_is_predicted_with_next_to_no_variance() -> None:
    x, _ = waves(60)
    for value in (3.5, 0.0):
        gp = NeighborGP(**SMALL).fit(x, np.full(60, value))
        found = gp.predict_distribution(x[:5])
        assert np.allclose(found.mean, value, rtol=1e-12)
        assert np.all((found.variance > 0) & (found.variance < 1e-9 * max(1.0, value**2)))


def test_copies_of_rows_are_fine_and_noise_does_not_vanish() -> None:
    x, y = waves(60, noise=0.0)
    gp = NeighborGP(**SMALL).fit(np.repeat(x, 5, axis=0), np.repeat(y, 5))
    assert np.allclose(gp.predict(x), y, atol=0.05 * y.std())
    assert gp.noise_ >= 0.99e-6 * y.var()
    same = NeighborGP(**SMALL).fit(np.zeros((50, 2), np.float32), np.arange(50.0))
    assert np.allclose(same.predict(np.zeros((1, 2))), np.arange(50.0).mean(), atol=15.0)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_any_unit_gives_the_same_answer(unit: float) -> None:
    x, y = waves(300)
    new, known = waves(100, seed=1)
    plain = NeighborGP(**SMALL).fit(x, y).score(new, known)
    scaled = NeighborGP(**SMALL).fit(x * np.float32(unit), y * unit)
    assert scaled.score(new * np.float32(unit), known * unit) > plain - 0.01


def test_what_cannot_be_fitted_is_refused_with_its_row(tmp_path: Path) -> None:
    x, y = waves(40)
    y[17] = np.nan
    with pytest.raises(InputError, match="row 17"):
        NeighborGP(**SMALL).fit(stored(tmp_path, x, y), "y")
    with pytest.raises(InputError, match="row 17"):
        NeighborGP(**SMALL).fit(stored(tmp_path, x, y), y)
    with pytest.raises(ValueError, match="NaN"):
        NeighborGP(**SMALL).fit(x, y)
    with pytest.raises(InputError, match="has 1 row"):
        NeighborGP(**SMALL).fit(stored(tmp_path, x[:1], y[:1]), "y")
    with pytest.raises(ConfigError, match="names a column, and X is an array"):
        NeighborGP(**SMALL).fit(x, "y")
    with pytest.raises(ConfigError, match="method='near'"):
        NeighborGP(method="near").fit(x, y)  # type: ignore[arg-type]


def test_more_neighbours_than_rows_are_all_rows() -> None:
    x, y = waves(8)
    gp = NeighborGP(neighbors=400).fit(x, y)
    assert np.isfinite(gp.predict(x)).all()
    assert NeighborGP().fit(x[:2], y[:2]).predict(x[:2]).shape == (2,)


def test_it_stands_in_a_pipeline_is_cloned_and_pickled() -> None:
    x, y = waves(200)
    gp = NeighborGP(Matern32(ard=True), **SMALL)
    assert clone(gp).get_params()["kernel"] == gp.kernel
    pipeline = make_pipeline(StandardScaler(), gp).fit(x, y)
    assert pipeline.score(x, y) > 0.95
    again = pickle.loads(pickle.dumps(pipeline))
    assert np.array_equal(again.predict(x), pipeline.predict(x))


def test_a_stored_fit_resumes_with_what_stands(tmp_path: Path) -> None:
    x, y = waves(100)
    rows = stored(tmp_path, x, y)
    seen: list[Any] = []
    NeighborGP(**SMALL).fit(rows, "y")
    NeighborGP(**SMALL).fit(rows, "y", listeners=[seen.append])
    assert not [event for event in seen if type(event).__name__ == "TaskDone"]


def _without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in SMALL.items() if name not in names}
