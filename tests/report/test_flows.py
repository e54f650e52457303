"""Flows that end in groups, on a few hundred packages: what is made, and what a person reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from simdist.cli.app import app
from simdist.datasets import load
from simdist.store import Store, open_store

ROOT = Path(__file__).parents[2]
ROWS = 400
Say = Callable[..., str]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 packages that ship, half of them cross compilers and the like: near one another."""
    table = load("debian-packages").slice(2100, ROWS)
    path = tmp_path_factory.mktemp("packages") / "packages.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def say(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Say:
    """The command line on a config that ships, with these packages, in a store of this module."""
    store = tmp_path_factory.mktemp("store")

    def said(verb: str, config: str, *options: str) -> str:
        given = [verb, f"{ROOT}/configs/{config}.yaml", "--store", str(store)]
        given += ["--set", f"inputs.packages.path={packages}", *options]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 0, result.output
        return result.stdout

    return said


@pytest.fixture(scope="module")
def clusters(say: Say) -> dict[str, Any]:
    """The summary of the clusters, as JSON."""
    out = say("run", "clusters", "--set", "steps.clusters.clusters=6", "--json")
    return summary_of(out)


@pytest.fixture(scope="module")
def unique(say: Say) -> dict[str, Any]:
    """The summary of the deduplication, as JSON."""
    return summary_of(say("run", "deduplicate", "--json"))


def summary_of(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def store_of(summary: dict[str, Any]) -> Store:
    return open_store(summary["store"])


def table(store: Store, name: str, role: str) -> Any:
    dataset = store.dataset(name)
    return [
        row for shard in dataset.shards for row in store.read_table(shard.objects[role]).to_pylist()
    ]


def test_clusters_are_told_by_size_and_by_the_names_of_their_own_rows(
    clusters: dict[str, Any], packages: Path
) -> None:
    names = pq.read_table(packages)["package"].to_pylist()
    store = store_of(clusters)
    label = {
        names[r["row"]]: r["cluster"] for r in table(store, "debian-clusters.clusters", "clusters")
    }
    sizes = np.bincount(list(label.values()))
    shown = clusters["clusters"]
    assert len(shown) >= 6
    assert sum(cluster["size"] for cluster in shown) == ROWS
    assert [c["size"] for c in shown] == sorted((c["size"] for c in shown), reverse=True)
    for cluster in shown:
        assert cluster["size"] == sizes[cluster["number"]]
        assert {label[name] for name in cluster["central"]} == {cluster["number"]}
        assert 0 <= cluster["cut"] <= 1


def test_the_groups_told_are_those_of_the_table(unique: dict[str, Any]) -> None:
    rows = {row["id"]: row for row in table(store_of(unique), "debian-unique.unique", "rows")}
    kept = {row["row"]: name for name, row in rows.items()}
    members: dict[str, set[str]] = {}
    for name, row in rows.items():
        members.setdefault(kept[row["group"]], set()).add(name)
    assert unique["duplicates"]
    for group in unique["duplicates"]:
        assert rows[group["kept"]]["kept"]
        assert len(members[group["kept"]]) == group["size"]
        for name, value in group["removed"]:
            assert name in members[group["kept"]]
            assert value == rows[name]["value"] >= np.float32(0.95)
    sizes = [group["size"] for group in unique["duplicates"]]
    assert sizes == sorted((len(m) for m in members.values()), reverse=True)[: len(sizes)]


def test_the_terminal_lists_clusters_and_a_line_for_every_stage(
    clusters: dict[str, Any], say: Say
) -> None:
    out = say("run", "clusters", "--set", "steps.clusters.clusters=6")
    assert f"{ROWS} rows, {ROWS * 15:,} edges, 6 clusters: nothing to do" in out
    lines = [line.strip() for line in out.splitlines()]
    for word in ("recall", "links", "components", "embedding", "clusters", "cut", "central"):
        assert [line for line in lines if line.startswith(f"{word} ")], word
    for cluster in clusters["clusters"][:3]:
        line = next(line for line in lines if cluster["central"][0] in line)
        number, size, cut, *_ = line.split()
        assert (number, size) == (str(cluster["number"]), str(cluster["size"]))
        assert cut == f"{cluster['cut']:.0%}"


def test_the_terminal_lists_groups_with_who_stays_first(unique: dict[str, Any], say: Say) -> None:
    out = say("run", "deduplicate")
    kept = next(step for step in unique["steps"] if step["name"] == "unique")["metrics"]["kept"]
    assert f"{ROWS} rows, {kept} stay: nothing to do" in out
    largest = unique["duplicates"][0]
    (name, value), *_ = largest["removed"]
    line = next(line for line in out.splitlines() if largest["kept"] in line)
    assert line.split()[-4:] == [str(largest["size"]), largest["kept"], name, f"{value:.3f}"]
    assert f"and {largest['size'] - 4} more" in out
    assert "exact: every pair was compared" in out


def test_show_tells_of_each_dataset_in_a_sentence_and_by_name(
    clusters: dict[str, Any], unique: dict[str, Any]
) -> None:
    def shown(name: str, *options: str) -> str:
        result = CliRunner().invoke(app, ["show", name, "--store", clusters["store"], *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    cut = shown("debian-clusters.cut")
    assert all(cluster["central"][0] in cut for cluster in clusters["clusters"])
    assert "listed" not in cut, "a list of row numbers, told by name above"
    assert json.loads(shown("debian-clusters.cut", "--json"))["clusters"] == clusters["clusters"]
    assert "largest residual" in shown("debian-clusters.clusters.embedding")
    assert "links  " in shown("debian-clusters.links")
    group = unique["duplicates"][0]
    assert group["kept"] in shown("debian-unique.unique")
    pairs = shown("debian-unique.unique.pairs")
    assert "exact: every pair was compared" in pairs
    assert "on 0 rows" not in pairs


def test_plan_forecasts_the_steps_on_a_graph_and_says_what_it_cannot(
    say: Say, tmp_path: Path
) -> None:
    empty = ("--store", str(tmp_path))
    planned = json.loads(say("plan", "clusters", *empty, "--json"))
    steps = {step["name"]: step for step in planned["steps"]}
    assert steps["links"]["entries"] == pytest.approx(1.7 * ROWS * 15)
    assert steps["clusters.embedding"]["nbytes"] > 2**24
    assert [name for name, step in steps.items() if not step["foreseen"]] == ["clusters", "cut"]
    out = say("plan", "clusters", *empty)
    assert "about 10.2 k entries" in out
    assert out.count("depends on the graph") == 2
    assert "unique.pairs" in say("plan", "deduplicate", *empty)


def test_plan_knows_what_is_committed_and_counts_its_edges(
    clusters: dict[str, Any], say: Say
) -> None:
    planned = json.loads(say("plan", "clusters", "--set", "steps.clusters.clusters=6", "--json"))
    assert all(step["committed"] for step in planned["steps"])
    links = next(step for step in clusters["steps"] if step["name"] == "links")
    assert planned["steps"][3]["entries"] == links["metrics"]["entries"]
    larger = json.loads(say("plan", "clusters", "--rows", "1e9", "--json"))["steps"]
    assert not any(step["committed"] for step in larger)
    assert larger[3]["entries"] == pytest.approx(1.7 * 1e9 * 15)


def test_a_graph_of_ones_own_is_clustered_planned_and_told_by_numbers(tmp_path: Path) -> None:
    rows = np.arange(60)
    edges = [f"{i},{j}" for i in rows for j in rows[i + 1 :] if i // 20 == j // 20]
    (tmp_path / "edges.csv").write_text("\n".join(["a,b", *edges, "0,20", "20,40"]) + "\n")
    own = {"edges": str(tmp_path / "edges.csv"), "row": "a", "neighbor": "b", "symmetrize": "union"}
    flow = {"name": "own", "store": str(tmp_path / "store"), "inputs": {"own": own}}
    flow["steps"] = {"c": {"stage": "spectral_clusters", "of": "own", "clusters": 3}}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(flow))
    planned = CliRunner().invoke(app, ["plan", str(path)])
    assert planned.exit_code == 0, planned.output
    assert planned.stdout.count("depends on the graph") == 3
    done = CliRunner().invoke(app, ["run", str(path), "--json"])
    assert done.exit_code == 0, done.output
    shown = summary_of(done.stdout)["clusters"]
    assert [cluster["size"] for cluster in shown] == [20, 20, 20]
    assert all(len({row // 20 for row in cluster["central"]}) == 1 for cluster in shown)
    planned = CliRunner().invoke(app, ["plan", str(path), "--json"])
    assert [step["rows"] for step in json.loads(planned.stdout)["steps"]] == [60] * 4
