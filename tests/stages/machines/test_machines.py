"""Kernel machines over stored datasets: the arrays' answer, resumed runs, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stages.importing import bring_in, table
from stages.sharded import carried_out

import simdist as sd
from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, InputError
from simdist.measures import kernels
from simdist.runner import Context, Event, Job, Record, Task, run
from simdist.runner.events import RoundStarted
from simdist.stages.machines import PcaConfig, RidgeConfig, SvmConfig, svm, svm_stage
from simdist.stages.machines.apply import ApplyConfig, ApplyMachine
from simdist.stages.machines.centers import choose, drawn
from simdist.stages.machines.columns import held_rows
from simdist.stages.machines.config import Centers
from simdist.stages.machines.falkon import fit_falkon
from simdist.stages.machines.machine import read_machine
from simdist.stages.machines.pca import KernelPcaStage, fit_pca
from simdist.stages.machines.ridge import fit_ridge
from simdist.stages.machines.ridge_stage import KernelRidgeStage
from simdist.stages.machines.rows import Rows
from simdist.stages.machines.svm import Labelled, fit_svm
from simdist.stages.machines.svm_stage import KernelSvmStage
from simdist.store import Dataset

N = 9000  # more than two spans of rows
RBF = kernels.RBF(1.3)


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 3)).astype(np.float32)
    return {
        "x": x,
        "y": np.sin(x[:, 0]) + 0.1 * rng.standard_normal(N),
        "z": 5.0 + x[:, 1].astype(np.float64) ** 2,
        "w": rng.uniform(0.5, 2.0, N),
        "kind": np.where(x[:, 0] > 0.3, "a", np.where(x[:, 1] > 0, "b", "c")),
    }


@pytest.fixture(scope="module")
def vectors(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("machines")
    columns = {name: data[name] for name in ("y", "z", "w", "kind")}
    pq.write_table(table(data["x"], **columns), folder / "x.parquet")
    return bring_in(folder / "x.parquet", keep=list(columns))


def again(tmp_path: Path, x: np.ndarray, **columns: Any) -> Dataset:
    """Some rows as vectors of their own."""
    pq.write_table(table(x, **columns), tmp_path / "again.parquet")
    return bring_in(tmp_path / "again.parquet", keep=list(columns))


RIDGES = [
    {},
    {"alphas": (1e-3, 0.1, 10.0)},
    {"alphas": (1e-3, 0.1), "choice": "held_out", "weights": "w", "intercept": True},
    {"solver": "cg", "weights": "w", "intercept": True, "alphas": (30.0,), "tolerance": 1e-4},
    {"solver": "cg", "alphas": (30.0, 300.0), "choice": "held_out", "tolerance": 1e-3},
]


@pytest.mark.parametrize("settings", RIDGES, ids=lambda s: "-".join(map(str, s)) or "plain")
def test_a_stored_ridge_has_the_numbers_of_one_on_arrays(data, vectors, settings):
    config = RidgeConfig(RBF.spec(), ("y", "z"), Centers(60), **settings)
    made = carried_out(KernelRidgeStage(), config, {"vectors": vectors})
    weights = data["w"] if "weights" in settings else None
    rows = Rows(data["x"], np.column_stack([data["y"], data["z"]]), weights)
    chosen = choose(RBF, data["x"][drawn(N, 60, 0)])
    fit = (fit_falkon if config.taken == "cg" else fit_ridge)(rows, chosen, config)
    machine = read_machine(made)
    assert np.array_equal(machine.Z, fit.machine.Z)
    assert np.allclose(machine(data["x"][:50]), fit.machine(data["x"][:50]), rtol=1e-12)
    assert made.metrics["alpha"] == fit.alpha
    assert made.rows == made.metrics["centers"] == 60
    assert np.allclose(made.metrics["fitted_rmse"], fit.metrics["fitted_rmse"])


def test_conjugate_gradients_reach_the_direct_answer(data, vectors):
    direct, cg = (
        read_machine(
            carried_out(
                KernelRidgeStage(),
                RidgeConfig(
                    RBF.spec(),
                    ("y",),
                    Centers(30),
                    (30.0,),
                    solver=solver,
                    intercept=True,
                    tolerance=1e-8,
                ),
                {"vectors": vectors},
            )
        )
        for solver in ("direct", "cg")
    )
    rows = data["x"][:200]
    assert np.abs(direct(rows) - cg(rows)).max() < 1e-6


def test_rows_held_out_follow_from_their_numbers_alone():
    whole = held_rows(0, 20_000, 0.2, seed=7)
    parts = [held_rows(first, first + 5000, 0.2, seed=7) for first in range(0, 20_000, 5000)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert abs(whole.mean() - 0.2) < 0.01
    assert not np.array_equal(whole, held_rows(0, 20_000, 0.2, seed=8))


def test_a_stored_pca_has_the_numbers_of_one_on_an_array_and_gives_vectors(data, vectors):
    config = PcaConfig(RBF.spec(), Centers(80), 3)
    made = carried_out(KernelPcaStage(), config, {"vectors": vectors})
    fit = fit_pca(data["x"], choose(RBF, data["x"][drawn(N, 80, 0)]), config)
    assert np.allclose(made.metrics["eigenvalues"], fit.eigenvalues)
    scores = carried_out(ApplyMachine(), ApplyConfig(), {"vectors": vectors, "model": made})
    assert scores.metrics["dim"] == 3
    held = scores.store.read_array(scores.shards[0].objects["vectors"])
    assert np.allclose(held, fit.machine(data["x"][: len(held)]), atol=1e-5)
    rows = scores.store.read_table(scores.shards[0].objects["rows"])
    assert rows["id"].to_pylist()[:3] == [0, 1, 2]


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
@pytest.mark.parametrize("held", [True, False], ids=["one-task", "looks"])
def test_a_stored_svm_has_the_numbers_of_one_on_arrays(data, tmp_path, monkeypatch, loss, held):
    x, kind = data["x"][:5000], data["kind"][:5000]
    if not held:
        for module in (svm, svm_stage):
            monkeypatch.setattr(module, "HELD_NBYTES", 0)
    given = again(tmp_path, x, kind=kind)
    config = SvmConfig(RBF.spec(), "kind", Centers(30), loss=loss)
    made = carried_out(KernelSvmStage(), config, {"vectors": given})
    places = np.unique(kind, return_inverse=True)[1]
    fit = fit_svm(Labelled(x, places, None), [0, 1, 2], choose(RBF, x[drawn(5000, 30, 0)]), config)
    assert made.metrics["state"] == "converged"
    assert made.metrics["classes"] == ["a", "b", "c"]
    assert np.allclose(read_machine(made)(x[:99]), fit.machine(x[:99]), atol=1e-9)
    judged = carried_out(ApplyMachine(), ApplyConfig(("kind",)), {"vectors": given, "model": made})
    assert judged.metrics["accuracy"] > 0.97
    said = judged.store.read_table(judged.shards[0].objects["table"])
    assert np.mean(said["label"].to_numpy(zero_copy_only=False) == kind) > 0.97


class StoppedRidge(KernelRidgeStage):
    """Fails in a step of conjugate gradients."""

    def compute(self, context: Context, task: Task) -> Record:
        if task.key == "refit-step-2-000":
            raise InputError("stopped by the test")
        return super().compute(context, task)


class StoppedSvm(KernelSvmStage):
    """Fails in the fourth look."""

    def compute(self, context: Context, task: Task) -> Record:
        if task.key.startswith("look-3-"):
            raise InputError("stopped by the test")
        return super().compute(context, task)


@pytest.mark.parametrize("machine", ["ridge", "svm"])
def test_a_run_that_fails_goes_on_at_its_last_round_to_the_same_answer(
    data, tmp_path, monkeypatch, machine
):
    for module in (svm, svm_stage):
        monkeypatch.setattr(module, "HELD_NBYTES", 0)
    x = data["x"][:5000]
    given, clean = (
        again(tmp_path, x, y=data["y"][:5000], kind=data["kind"][:5000]) for _ in range(2)
    )
    if machine == "ridge":
        stage, stopped, told_round = KernelRidgeStage(), StoppedRidge(), "refit-step-1"
        config: Any = RidgeConfig(RBF.spec(), ("y",), Centers(30), solver="cg", tolerance=1e-3)
    else:
        stage, stopped, told_round = KernelSvmStage(), StoppedSvm(), "step-2"
        config = SvmConfig(RBF.spec(), "kind", Centers(30))
    store, told = given.store, list[Event]()
    with open_engine("local", workers=1) as engine:
        with pytest.raises(InputError, match="stopped by the test"):
            run(Job(stopped, config, {"vectors": given}), store=store, engine=engine)
        job = Job(stage, config, {"vectors": given})
        made = run(job, store=store, engine=engine, listeners=[told.append])
    started = [event for event in told if isinstance(event, RoundStarted)]
    assert told_round in {event.round for event in started if event.done == event.tasks}
    assert any(event.done < event.tasks for event in started)
    fresh = carried_out(stage, config, {"vectors": clean})
    assert made.fingerprint == fresh.fingerprint
    assert dict(made.metrics) == dict(fresh.metrics)
    assert read_machine(made).coefficients.tobytes() == read_machine(fresh).coefficients.tobytes()


def test_all_engines_give_the_same_machines(engine: Engine, data, tmp_path):
    x = data["x"][:5000]
    pq.write_table(table(x, y=data["y"][:5000]), tmp_path / "x.parquet")
    store = sd.open_store(tmp_path / "store")
    given = bring_in(tmp_path / "x.parquet", store=store, keep=["y"])
    config = RidgeConfig(RBF.spec(), ("y",), Centers(50), alphas=(0.1, 1.0))
    made = carried_out(KernelRidgeStage(), config, {"vectors": given}, engine=engine)
    fit = fit_ridge(
        Rows(x, data["y"][:5000, None], None), choose(RBF, x[drawn(5000, 50, 0)]), config
    )
    assert made.metrics["alpha"] == fit.alpha
    assert np.allclose(read_machine(made)(x[:100]), fit.machine(x[:100]), rtol=1e-10)


def test_a_target_that_is_not_finite_is_refused_with_its_row(data, tmp_path):
    y = data["y"][:5000].copy()
    y[4321] = np.nan
    given = again(tmp_path, data["x"][:5000], y=y)
    config = RidgeConfig(RBF.spec(), ("y",), Centers(20))
    with pytest.raises(InputError, match=r"column 'y' of .*, row 4321: expected a finite number"):
        carried_out(KernelRidgeStage(), config, {"vectors": given})


def test_a_missing_class_is_refused_with_its_row(data, tmp_path):
    kind = pa.array(["a", "b", None] + ["a"] * 47)
    given = again(tmp_path, data["x"][:50], kind=kind)
    with pytest.raises(InputError, match="row 2: expected a class, got NULL"):
        carried_out(
            KernelSvmStage(), SvmConfig(RBF.spec(), "kind", Centers(20)), {"vectors": given}
        )


def test_one_class_is_refused(data, tmp_path):
    given = again(tmp_path, data["x"][:50], kind=["a"] * 50)
    with pytest.raises(InputError, match="1 class"):
        carried_out(
            KernelSvmStage(), SvmConfig(RBF.spec(), "kind", Centers(20)), {"vectors": given}
        )


def test_a_column_that_was_not_kept_is_named_with_those_that_were(vectors):
    config = RidgeConfig(RBF.spec(), ("price",), Centers(20))
    with pytest.raises(InputError, match=r"keeps no column 'price'; it has id, y, z, w, kind"):
        carried_out(KernelRidgeStage(), config, {"vectors": vectors})


def test_words_are_no_numbers_and_numbers_with_fractions_no_classes(vectors):
    with pytest.raises(InputError, match=r"column 'kind' .* holds string; expected numbers"):
        carried_out(
            KernelRidgeStage(),
            RidgeConfig(RBF.spec(), ("kind",), Centers(20)),
            {"vectors": vectors},
        )
    with pytest.raises(InputError, match=r"column 'y' .* holds double; expected classes"):
        carried_out(KernelSvmStage(), SvmConfig(RBF.spec(), "y", Centers(20)), {"vectors": vectors})


def test_rows_of_another_width_and_datasets_that_are_no_models_are_refused(vectors, tmp_path):
    model = carried_out(KernelPcaStage(), PcaConfig(None, Centers(10), 2), {"vectors": vectors})
    other = again(tmp_path, np.eye(5, dtype=np.float32))
    with pytest.raises(InputError, match=r"was fitted on 3 columns; .* has rows of 5"):
        carried_out(ApplyMachine(), ApplyConfig(), {"vectors": other, "model": model})
    with pytest.raises(InputError, match="no kernel machine"):
        carried_out(ApplyMachine(), ApplyConfig(), {"vectors": vectors, "model": other})
    with pytest.raises(ConfigError, match="judged by 0 columns"):
        carried_out(ApplyMachine(), ApplyConfig(("y",)), {"vectors": vectors, "model": model})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alphas": ()}, "at least 1"),
        ({"alphas": (-1.0,)}, "at least 0"),
        ({"choice": "luck"}, "leave_one_out"),
        ({"held_out": 1.0}, "between 0 and 1"),
        ({"solver": "cg", "alphas": (1.0, 2.0)}, "choice='held_out'"),
        ({"targets": ()}, "targets is empty"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    given = {"kernel": None, "targets": ("y",), "centers": Centers(5)} | settings
    with pytest.raises(ConfigError, match=message):
        RidgeConfig(**given)


def test_forecasts_grow_with_rows_and_their_tasks_do_not_hold_them():
    for stage, config in (
        (KernelRidgeStage(), RidgeConfig(None, ("y",), Centers(1024))),
        (KernelRidgeStage(), RidgeConfig(None, ("y",), Centers(1024), solver="cg")),
        (KernelPcaStage(), PcaConfig(None, Centers(1024))),
        (KernelSvmStage(), SvmConfig(None, "y", Centers(1024))),
        (ApplyMachine(), ApplyConfig()),
    ):
        small, large = (stage.forecast(config, n, 8) for n in (1_000_000, 4_000_000))
        assert 3.5 < large.flops / small.flops < 4.5
        assert large.nbytes < 4 * small.nbytes
        assert stage.forecast(config, 0, 8).nbytes > 0
