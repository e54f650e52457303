"""Machine files: read, refused, written, and used by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from simdist.cli.app import app
from simdist.config.machine import load_machine, save_machine
from simdist.datasets import manifold
from simdist.errors import ConfigError
from simdist.models import calibration
from simdist.simulation import Driver, KindRates, Machine, ObjectStore, Rates

ROOT = Path(__file__).parents[2]
FLOW = ROOT / "configs" / "debian-packages.yaml"
RATES = Rates(4e10, 1.2e11, 3e-8, {"leaves": KindRates(0.01, 1e-6, 1e-9, 1.25, 0.5, 0.2, 0.05)})
MACHINE = """\
name: rented
cpus: 8
memory: 26GiB
network: 390MB/s
price_per_hour: 0.5
lost_after: 20h
store: {bandwidth: 10GB/s, latency: 0.03, price_per_1000: 0.001}
driver: {submit: 0.001}
rates: {like: here.yaml, speed: 0.5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A measured machine, and one like it."""
    save_machine(Machine("here", 2, 2.0**31, RATES), tmp_path / "here.yaml", comment="By a test.")
    (tmp_path / "rented.yaml").write_text(MACHINE)
    return tmp_path


def test_what_is_written_is_read_again(folder: Path) -> None:
    assert (folder / "here.yaml").read_text().startswith("# By a test.\n")
    assert load_machine(folder / "here.yaml") == Machine("here", 2, 2**31, RATES)


def test_a_machine_like_another_has_its_rates_and_its_own_prices(folder: Path) -> None:
    machine = load_machine(folder / "rented.yaml")
    assert machine.rates == RATES.times(0.5)
    assert machine.store == ObjectStore(10_000_000_000, 0.03, 0.001)
    assert (machine.network, machine.price, machine.lost) == (390_000_000, 0.5, 20.0)
    assert machine.driver == Driver(submit=0.001)
    assert machine.slots(4 << 30) == 6
    assert machine.slots(1 << 40) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("cpus: 8\n->cpus: none\n", "rented.yaml:2: cpus: expected"),
        ("price_per_hour->price_per_our", "unknown key; did you mean 'price_per_hour'?"),
        ("390MB/s->fast", "network: 'fast': expected a number with a unit"),
        ("{like: here.yaml, speed: 0.5}->{speed: 0.5}", "expected flops, ops and pair"),
        ("here.yaml->there.yaml", "cannot read the machine file"),
        ("name: rented\n->- name\n", "rented.yaml"),
    ],
)
def test_a_wrong_machine_file_is_refused_with_what_is_wrong(
    folder: Path, change: str, told: str
) -> None:
    before, after = change.split("->")
    path = folder / "rented.yaml"
    path.write_text(MACHINE.replace(before, after))
    with pytest.raises(ConfigError) as error:
        load_machine(path)
    assert told in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "machines").glob("*.yaml")), ids=str)
def test_the_machines_that_ship_can_be_read(path: Path) -> None:
    assert load_machine(path).rates.flops > 1e9


def simdist(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    assert result.exit_code == code, result.output
    return result


def test_plan_tells_every_round(tmp_path: Path) -> None:
    out = simdist("plan", FLOW, "--store", tmp_path / "store").stdout
    assert all(name in out for name in ("assign", "gather", "leaves-0", "join-0-1", "finish"))
    assert "12,000 x 128" in out
    planned = json.loads(simdist("plan", FLOW, "--store", tmp_path / "store", "--json").stdout)
    rounds = {cost["name"]: cost for cost in planned["steps"][-1]["rounds"]}
    assert rounds["join-0-1"]["pairs"] > 12_000


def test_plan_for_a_machine_tells_time_money_and_traffic(folder: Path) -> None:
    rented = folder / "rented.yaml"
    arguments = ("plan", FLOW, "--store", folder / "store", "--machine", rented)
    shape = ("--rows", "2e6", "--dim", "96")
    out = simdist(*arguments, *shape, "--workers", 4).stdout
    assert "2,000,000 x 96  on 4 x rented" in out
    assert all(word in out for word in ("shuffled", "from store", "requests", "worker holds", "$"))
    few, many = (
        json.loads(simdist(*arguments, *shape, "--workers", n, "--json").stdout) for n in (2, 8)
    )
    assert few["seconds"] > many["seconds"] > 0
    assert many["dollars"] > 0
    assert [step["name"] for step in many["steps"]] == ["packages", "graph.partition", "graph"]
    again = json.loads(simdist(*arguments, *shape, "--workers", 8, "--json").stdout)
    assert again == many, "the same seed, the same simulation"


def test_show_puts_the_forecast_beside_what_happened(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", manifold(700, 16, 4, seed=1))
    (tmp_path / "flow.yaml").write_text(
        f"name: small\nstore: {tmp_path / 'store'}\ninputs: {{x: {{path: {tmp_path}/rows.npy}}}}\n"
        "steps: {graph: {stage: knn_graph, of: x, k: 5, measure: euclidean}}\n"
    )
    simdist("run", tmp_path / "flow.yaml")
    out = simdist("show", "small.graph", "--store", tmp_path / "store").stdout
    told = out[out.index("took") :]
    assert "on the local engine" in told
    assert all(word in told for word in ("forecast", "pairs", "wrote", "leaves-0", "finish"))
    shown = json.loads(
        simdist("show", "small.graph", "--store", tmp_path / "store", "--json").stdout
    )
    assert {step["name"] for step in shown["run"]["rounds"]} >= {"leaves-0", "finish"}
    assert {cost["name"] for cost in shown["run"]["forecast"]} >= {"leaves-0", "finish"}


def test_rows_that_are_no_number_are_refused(folder: Path) -> None:
    told = simdist("plan", FLOW, "--rows", "many", "--store", folder / "store", code=2)
    assert "--rows many: expected a number of at least 1, such as 1e9" in told.stderr


def test_calibrate_writes_a_machine_that_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "LOOP_SECONDS", 0.01)
    monkeypatch.setattr(calibration, "SIZES", ((400, 16), (900, 16)))
    monkeypatch.setattr(calibration, "WARM_ROWS", 200)
    path = tmp_path / "measured.yaml"
    out = simdist("calibrate", path, "--workers", 2)
    assert "GFLOP/s in float32" in out.stdout
    machine = load_machine(path)
    assert machine.cpus == 2
    assert {"read", "assign", "leaves", "merge-join", "join", "finish"} <= set(machine.rates.kinds)
    planned = simdist("plan", FLOW, "--store", tmp_path / "store", "--machine", path, "--json")
    assert 0 < json.loads(planned.stdout)["seconds"] < 3600
