"""The stages of the density family: any cuts, any engine, resumed, within what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from stages.grow.growing import Disturbed, computed
from stages.importing import fresh_store
from stages.partitioning import vectors_dataset
from stages.sharded import column
from task_memory import metered

import simdist as sd
from simdist.engine import Engine, open_engine
from simdist.errors import PlanTooLarge, TaskFailed
from simdist.models.chain import Link, run_links
from simdist.models.denoise import denoise_links
from simdist.models.density import density_links, outlier_links
from simdist.models.mean_shift import mean_shift_links
from simdist.models.vectors import import_array
from simdist.runner import Stage
from simdist.stages.density import (
    BandwidthStage,
    DenoiseStage,
    KernelDensityStage,
    KernelRegressionStage,
    MeanShiftStage,
    OutlierStage,
    ScoreFieldStage,
)
from simdist.store import Dataset
from simdist.types import Array

STAGES: tuple[type[Stage], ...] = (
    BandwidthStage,
    DenoiseStage,
    KernelDensityStage,
    KernelRegressionStage,
    MeanShiftStage,
    OutlierStage,
    ScoreFieldStage,
)


def rows(n: int = 400, d: int = 3) -> Array:
    rng = np.random.default_rng(11)
    centers = 5 * rng.standard_normal((6, d))
    x = centers[rng.integers(0, 6, n)] + rng.standard_normal((n, d))
    return x.astype(np.float32)


def chain() -> tuple[Link, ...]:
    """A density, outliers, denoised rows and modes of "x" at "at"."""
    return (
        *density_links("density", "x", "at", bandwidth="likelihood"),
        *outlier_links("outliers", "x", method="relative", bandwidth="knn"),
        *denoise_links("clean", "at", "x", 0.7, steps=2),
        *mean_shift_links("modes", "x", 2.0),
    )


def made_of(x: Dataset, at: Dataset, engine: Engine, **places: Any) -> dict[str, Dataset]:
    given = {"x": x, "at": at}
    store = places.get("store", x.store)
    return run_links(chain(), given, store=store, engine=engine)


RESULTS = {"density": "log_density", "outliers": "scores", "clean": "vectors", "modes": "labels"}


def test_chunks_panels_and_shards_change_no_more_than_a_rounding(small_tasks, local_engine):
    x, at = rows(), rows(200) + np.float32(0.5)
    store = fresh_store()
    cut = made_of(
        vectors_dataset(x, cuts=(1, 150, 360), store=store),
        vectors_dataset(at, cuts=(130,), store=store),
        local_engine,
    )
    assert len(cut["density"].shards) == 2
    plain = sd.kernel_density(x, at, cut["density"].metrics["bandwidth"], engine=local_engine)
    assert np.allclose(column(cut["density"], "log_density"), plain.log_density, atol=1e-5)
    clean = sd.denoise(at, x, 0.7, 2, engine=local_engine).points
    assert np.allclose(column(cut["clean"], "vectors"), clean, atol=1e-5)
    everywhere = sd.mean_shift(x, 2.0, seeds="all", engine=local_engine).labels
    assert adjusted_rand_score(column(cut["modes"], "labels"), everywhere) > 0.98


def test_small_tasks_give_what_large_ones_give(small_tasks, monkeypatch, local_engine):
    x = rows()
    small = sd.outlier_scores(x, method="relative", engine=local_engine)
    regression = sd.kernel_regression(x, x[:, 0] ** 2, engine=local_engine)
    field = sd.score_field(x, x[:90] + 1, 0.6, engine=local_engine)
    monkeypatch.undo()
    assert np.allclose(
        small.scores, sd.outlier_scores(x, method="relative").scores, rtol=1e-4, atol=1e-4
    )
    at_once = sd.kernel_regression(x, x[:, 0] ** 2)
    assert at_once.bandwidth.value == pytest.approx(regression.bandwidth.value)
    assert np.allclose(at_once.predictions, regression.predictions, atol=1e-3)
    assert np.allclose(sd.score_field(x, x[:90] + 1, 0.6).scores, field.scores, atol=1e-4)


def test_engines_agree_bit_by_bit(engine: Engine, tmp_path: Path, local_engine: Engine):
    x, at = rows(1200), rows(600) + np.float32(0.5)
    here, there = sd.open_store(tmp_path / "here"), sd.open_store(tmp_path / "there")
    given = [import_array(a, store=here, engine=local_engine) for a in (x, at)]
    expected = made_of(*given, local_engine)
    found = made_of(*given, engine, store=there)
    for name, role in RESULTS.items():
        assert found[name].manifest == expected[name].manifest, (name, role)


class DisturbedDensity(Disturbed, KernelDensityStage):
    """A density that fails once."""


class DisturbedDenoise(Disturbed, DenoiseStage):
    """Denoising that fails once."""


class DisturbedShift(Disturbed, MeanShiftStage):
    """A mean-shift that fails once."""


@pytest.mark.parametrize(
    ("links", "stage", "fails_at"),
    [
        (density_links("made", "x", bandwidth=0.5), DisturbedDensity, "fold-000003-000002"),
        (denoise_links("made", "x", "x", 0.5, steps=3), DisturbedDenoise, "move-001-000002"),
        (mean_shift_links("made", "x", 2.0), DisturbedShift, "climb-000-001-000001"),
    ],
)
def test_what_a_failed_task_left_undone_is_all_that_is_done_again(
    small_tasks, tmp_path: Path, links: tuple[Link, ...], stage: Any, fails_at: str
):
    with open_engine("local", workers=1) as engine:
        store, other = sd.open_store(tmp_path / "store"), sd.open_store(tmp_path / "other")
        given = {"x": import_array(rows(), store=store, engine=engine)}
        expected = run_links(links, given, store=other, engine=engine)["made"]
        disturbed = (*links[:-1], replace(links[-1], stage=stage(fails_at, str(tmp_path))))
        with pytest.raises(TaskFailed, match=f"InjectedError: {fails_at}$"):
            run_links(disturbed, given, store=store, engine=engine)
        made = run_links(disturbed, given, store=store, engine=engine)["made"]
    assert made.manifest == expected.manifest
    assert fails_at in computed(tmp_path)
    assert set(computed(tmp_path).values()) == {1}


def test_a_second_call_computes_nothing(local_engine, tmp_path):
    store = sd.open_store(tmp_path / "store")
    stored = import_array(rows(), store=store, engine=local_engine)
    told: list[Any] = []
    first = sd.mean_shift(stored, 2.0, engine=local_engine)
    again = sd.mean_shift(stored, 2.0, engine=local_engine, listeners=[told.append])
    assert first == again
    assert all(event.reused for event in told if hasattr(event, "reused"))


def test_a_worker_that_is_too_small_is_told_before_it_runs(tmp_path):
    with open_engine("local", workers=1, memory="40MiB") as engine:
        store = sd.open_store(tmp_path / "store")
        stored = import_array(rows(3000, 40), store=store, engine=engine)
        with pytest.raises(PlanTooLarge, match="gaussian_bandwidth of 3000 rows of 40 dim"):
            sd.kernel_density(stored, bandwidth="knn", engine=engine)


def test_no_task_holds_more_than_it_says() -> None:
    x = rows(2600, 64)
    few = x[:1300]
    with open_engine("local", workers=1) as engine:
        sd.kernel_density(x[:300], bandwidth="knn", engine=engine)  # compiles
        with metered(*STAGES) as meter:
            sd.outlier_scores(x, "likelihood", method="relative", engine=engine, sample=200)
            sd.score_field(x.astype(np.float64), few, 4.0, engine=engine)
            sd.denoise(few, x, 4.0, 2, engine=engine)
            sd.kernel_regression(few, few[:, :3], engine=engine, sample=200)
            sd.mean_shift(few[:, :3], 2.0, seeds="bins", engine=engine)
            sd.mean_shift(x, 14.0, seeds="cover", engine=engine, turns=3)
            sd.mean_shift(few, "knn", kernel="gaussian", engine=engine, turns=2)
    assert len(meter.kinds()) >= 18
    assert not meter.over()
