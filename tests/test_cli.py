"""The command line, as people and scripts use it: each verb, its words, its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from slow_measure import blocks
from typer.testing import CliRunner, Result

from simdist.cli.app import app
from simdist.store import open_store

ROOT = Path(__file__).parents[1]
ROWS, DIM, K = 600, 8, 5
FLOW = """\
name: fruit
store: {store}
engine: {{kind: local, workers: 2, memory: 1GiB}}
inputs:
  fruit: {{path: "{path}", id: name, vector: embedding}}
steps:
  graph: {{stage: knn_graph, of: fruit, k: 5, recall: 0.9}}
examples: [fruit-3, fruit-14, fruit-159]
"""
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def fruit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 vectors with names, as Parquet."""
    rng = np.random.default_rng(7)
    flat = pa.array(rng.standard_normal(ROWS * DIM).astype(np.float32))
    table = pa.table(
        {
            "name": [f"fruit-{row}" for row in range(ROWS)],
            "embedding": pa.FixedSizeListArray.from_arrays(flat, DIM),
        }
    )
    path = tmp_path_factory.mktemp("fruit") / "fruit.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture
def flow(fruit: Path, tmp_path: Path) -> Path:
    """A config over a store that is still empty."""
    path = tmp_path / "fruit.yaml"
    path.write_text(FLOW.format(store=tmp_path / "store", path=fruit))
    return path


@pytest.fixture(scope="module")
def done(fruit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the flow has run."""
    folder = tmp_path_factory.mktemp("done")
    path = folder / "fruit.yaml"
    path.write_text(FLOW.format(store=folder / "store", path=fruit))
    result = CliRunner().invoke(app, ["run", str(path)])
    assert result.exit_code == 0, result.output
    return folder / "store"


@pytest.fixture
def simdist() -> Run:
    """Call the command line in this process."""

    def call(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(item) for item in arguments])
        assert result.exit_code == code, result.output
        return result

    return call


def json_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# -- run -------------------------------------------------------------------------------------------


def test_run_says_what_was_made_how_good_it_is_and_where_it_lies(flow: Path, simdist: Run) -> None:
    result = simdist("run", flow)
    out = result.stdout
    assert f"600 rows, {ROWS * K:,} edges in " in out
    assert "recall" in out
    assert "asked for 0.9" in out
    assert all(name in out for name in ("fruit-3", "fruit-14", "fruit-159"))
    assert "fruit.graph@1" in out
    store = open_store(flow.parent / "store")
    assert store.dataset("fruit.graph").uri in out
    assert "graph: 600 rows in " in result.stderr
    assert "\x1b" not in result.output, "escape codes where the output is no terminal"


def test_a_second_run_has_nothing_to_do_and_says_so(flow: Path, simdist: Run) -> None:
    simdist("run", flow)
    before = {path: path.stat().st_mtime_ns for path in (flow.parent / "store").rglob("data/*")}
    again = simdist("run", flow)
    assert "nothing to do, already committed" in again.stdout
    assert "graph: committed already, 600 rows" in again.stderr
    assert {p: p.stat().st_mtime_ns for p in (flow.parent / "store").rglob("data/*")} == before
    assert open_store(flow.parent / "store").dataset("fruit.graph@1")


def test_the_neighbors_shown_are_the_nearest_ones(flow: Path, fruit: Path, simdist: Run) -> None:
    result = simdist("run", flow, "--set", "steps.graph.method=exact", "--json")
    shown = json_lines(result.stdout)[-1]["neighbors"][0]
    vectors = np.array(pq.read_table(fruit)["embedding"].to_pylist())
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors[3]
    cosine[3] = -np.inf
    nearest = np.argsort(-cosine)[:K]
    assert shown["id"] == "fruit-3"
    assert [name for name, _ in shown["neighbors"]] == [f"fruit-{row}" for row in nearest]
    assert [value for _, value in shown["neighbors"]] == pytest.approx(cosine[nearest], abs=1e-5)


def test_an_example_that_is_not_there_is_noted_and_others_are_shown(
    flow: Path, done: Path, simdist: Run
) -> None:
    result = simdist("run", flow, "--store", done, "--set", "examples=[kiwi]")
    assert "no row is called 'kiwi'" in result.stdout
    assert "fruit-" in result.stdout


def test_run_as_json_is_one_object_a_line_ending_in_the_summary(flow: Path, simdist: Run) -> None:
    result = simdist("run", flow, "--json")
    lines = json_lines(result.stdout)
    assert result.stderr == ""
    assert {"stage_started", "round_started", "task_done", "stage_done"} <= {
        line["event"] for line in lines
    }
    assert lines[-1]["event"] == "summary"
    steps = {step["name"]: step for step in lines[-1]["steps"]}
    assert steps["graph"]["rows"] == ROWS
    assert steps["graph"]["edges"] == ROWS * K
    assert steps["graph"]["metrics"]["recall"]["low"] >= 0.9
    assert not lines[-1]["reused"]


def test_the_store_workers_and_memory_do_not_change_what_is_made(
    flow: Path, tmp_path: Path, simdist: Run
) -> None:
    fingerprints = []
    for place, workers in (("one", 1), ("two", 2)):
        options = ("--store", tmp_path / place, "--workers", workers, "--memory", "512MiB")
        lines = json_lines(simdist("run", flow, *options, "--json").stdout)
        fingerprints.append([step["fingerprint"] for step in lines[-1]["steps"]])
    assert fingerprints[0] == fingerprints[1]


def test_a_damaged_config_ends_with_code_2_and_no_traceback(flow: Path, simdist: Run) -> None:
    flow.write_text(flow.read_text().replace("k: 5", "kk: 5"))
    result = simdist("run", flow, code=2)
    assert result.stdout == ""
    assert f"{flow}:7: steps.graph.kk: unknown key; did you mean 'k'?" in result.stderr
    assert f"{flow}:7: steps.graph.k: is missing" in result.stderr
    assert "Traceback" not in result.stderr


def test_data_that_cannot_be_used_ends_with_code_2(flow: Path, simdist: Run) -> None:
    result = simdist("run", flow, "--set", "inputs.fruit.path=/nowhere/at/all.parquet", code=2)
    assert "/nowhere/at/all.parquet" in result.stderr
    result = simdist("run", flow, "--set", "steps.graph.k=600", code=2)
    assert "need at least 601 rows" in result.stderr


def test_an_error_as_json_is_an_object_with_its_code(flow: Path, simdist: Run) -> None:
    result = simdist("run", flow, "--engine", "dusk", "--json", code=2)
    error = json_lines(result.stdout)[-1]["error"]
    assert error["kind"] == "ConfigError"
    assert error["exit_code"] == 2
    assert error["message"].startswith("--engine: expected 'local', 'dask' or 'ray'")


def test_a_task_too_large_for_a_worker_ends_with_code_2_and_both_numbers(
    flow: Path, simdist: Run
) -> None:
    result = simdist("run", flow, "--memory", "1MiB", code=2)
    assert "a worker of the local engine has 1.0 MiB" in result.stderr
    assert "Raise engine.memory" in result.stderr


def test_debug_shows_where_an_error_comes_from(flow: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(flow), "--set", "steps.graph.k=0", "--debug"])
    assert "steps.graph.k" in str(result.exception)
    assert result.exception.__traceback__ is not None


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_130_and_the_next_one_goes_on(
    flow: Path, simdist: Run, stop: signal.Signals, tmp_path: Path
) -> None:
    folder = tmp_path / "blocks"
    folder.mkdir()
    slow = f"steps.graph.measure={{name: 'slow_measure:Slow', folder: {folder}, seconds: 2}}"
    with subprocess.Popen(
        [sys.executable, "-m", "simdist", "run", str(flow), "--set", slow],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        while running.poll() is None and not blocks(folder):
            time.sleep(0.05)
        running.send_signal(stop)  # blocks of two seconds each are still to come
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "Interrupted. What is computed is kept: the same command goes on" in said
    assert "Traceback" not in said
    assert "fruit: committed already" in simdist("run", flow).stderr


# -- plan ------------------------------------------------------------------------------------------


def test_plan_forecasts_every_step_and_runs_nothing(flow: Path, simdist: Run) -> None:
    out = simdist("plan", flow).stdout
    assert all(step in out for step in ("fruit", "graph.partition", "graph", "600 x 8"))
    assert not (flow.parent / "store").exists()


def test_plan_as_json_has_tasks_bytes_and_what_is_done(
    flow: Path, done: Path, simdist: Run
) -> None:
    planned = json.loads(simdist("plan", flow, "--json").stdout)
    assert [step["name"] for step in planned["steps"]] == ["fruit", "graph.partition", "graph"]
    assert all(step["tasks"] > 0 and step["nbytes"] > 0 for step in planned["steps"])
    assert not any(step["committed"] for step in planned["steps"])
    assert planned["memory"] == 2**30
    planned = json.loads(simdist("plan", flow, "--store", done, "--json").stdout)
    assert all(step["committed"] for step in planned["steps"])
    assert (
        planned["steps"][-1]["fingerprint"] == open_store(done).dataset("fruit.graph").fingerprint
    )


def test_plan_prints_later_fingerprints_as_soon_as_the_import_stands(
    flow: Path, done: Path, simdist: Run
) -> None:
    planned = json.loads(
        simdist("plan", flow, "--store", done, "--set", "steps.graph.k=6", "--json").stdout
    )
    assert [step["committed"] for step in planned["steps"]] == [True, True, False]
    assert planned["steps"][-1]["fingerprint"] is not None


def test_plan_says_what_a_worker_cannot_hold(flow: Path, simdist: Run) -> None:
    result = simdist("plan", flow, "--memory", "1MiB")
    assert "a worker has 1.0 MiB. Raise engine.memory." in result.stdout


# -- show, verify, gc ------------------------------------------------------------------------------


def test_show_tells_schema_lineage_and_recall(done: Path, simdist: Run) -> None:
    uri = open_store(done).dataset("fruit.graph").uri
    out = simdist("show", uri).stdout
    assert "knn_graph  600 rows" in out
    assert "fixed_size_list<element: float>[5]" in out
    assert "import_vectors" in out
    assert "asked for 0.9" in out
    by_name = simdist("show", "fruit.graph", "--store", done).stdout
    assert by_name == out


def test_show_as_json_holds_everything(done: Path, simdist: Run) -> None:
    shown = json.loads(simdist("show", "fruit.graph@1", "--store", done, "--json").stdout)
    assert shown["rows"] == ROWS
    assert shown["config"]["k"] == K
    roles = {part["role"]: dict(part["schema"]) for part in shown["parts"]}
    assert list(roles["graph"]) == ["row", "id", "neighbors", "values"]
    assert {origin["stage"] for origin in shown["lineage"]} == {"partition", "import_vectors"}


def test_show_of_a_store_lists_its_datasets(done: Path, simdist: Run) -> None:
    out = simdist("show", done).stdout
    assert "3 datasets" in out
    assert all(f"fruit.{name}@1" in out for name in ("fruit", "graph.partition", "graph"))


def test_show_of_what_is_not_there_says_what_to_give(done: Path, simdist: Run) -> None:
    assert "is no dataset: expected STORE/manifests/" in simdist("show", "fruit", code=2).stderr
    missing = simdist("show", "fruit.tree", "--store", done, code=3)
    assert "no dataset is named 'fruit.tree'" in missing.stderr


def test_verify_passes_what_is_whole_and_ends_with_code_5_on_a_flipped_byte(
    flow: Path, simdist: Run
) -> None:
    simdist("run", flow)
    place = flow.parent / "store"
    assert "all as committed" in simdist("verify", "fruit.graph", "--store", place).stdout
    shard = open_store(place).dataset("fruit.graph").shards[0].objects["graph"]
    path = place / shard.key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    result = simdist("verify", "fruit.graph", "--store", place, code=5)
    assert shard.key in result.stdout
    assert "1 of " in result.stderr
    report = json.loads(simdist("verify", "fruit.graph", "--store", place, "--json", code=5).stdout)
    assert not report["ok"]
    assert report["damaged"][0]["key"] == shard.key


def test_gc_says_what_would_go_and_removes_it_only_when_told(flow: Path, simdist: Run) -> None:
    simdist("run", flow)
    place = flow.parent / "store"
    store = open_store(place)
    stray = store.write_json("stray", {"nobody": "needs me"})
    old = simdist("gc", place, "--older-than", "0s")
    assert stray.key in old.stdout
    assert "Nothing was removed: add --delete." in old.stdout
    assert (place / stray.key).exists()
    report = json.loads(simdist("gc", place, "--older-than", "0s", "--delete", "--json").stdout)
    assert stray.key in report["garbage"]["keys"]
    assert not (place / stray.key).exists()
    assert "nothing to do" in simdist("run", flow).stdout
    assert "all as committed" in simdist("verify", "fruit.graph", "--store", place).stdout
    assert "expected a number and s, m, h or d" in simdist(
        "gc", place, "--older-than", "soon", code=2
    ).stderr  # fmt: skip


# -- the rest --------------------------------------------------------------------------------------


def test_help_names_every_verb(simdist: Run) -> None:
    out = simdist("--help").stdout
    assert all(verb in out for verb in ("plan", "run", "show", "verify", "gc"))


def test_an_unknown_option_ends_with_code_2(simdist: Run) -> None:
    assert "--enginge" in simdist("run", "x.yaml", "--enginge", "dask", code=2).stderr


def test_output_may_be_cut_off_by_its_reader(done: Path) -> None:
    command = f"{sys.executable} -m simdist show {done} --json | head -c 10"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr
