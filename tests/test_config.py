"""Reading a flow: what it becomes, and what is said about one that is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError
from s3_server import S3Server

from simdist.config import FlowConfig, Override, links, load, parse
from simdist.errors import ConfigError
from simdist.store import open_store

ROOT = Path(__file__).parents[1]
FLOW = """\
name: packages
store: ./runs/packages
engine: {kind: local, memory: 300MiB}
inputs:
  packages: {path: "datasets://debian-packages", id: package, vector: embedding}
steps:
  graph: {stage: knn_graph, of: packages, k: 15, recall: 0.9}
"""


def complaint(text: str = FLOW, *overrides: str) -> str:
    """What is said about a flow that is wrong."""
    with pytest.raises(ConfigError) as caught:
        parse(text, source="flow.yaml", overrides=overrides)
    return str(caught.value)


def test_a_flow_has_its_defaults_filled_in_and_cannot_be_changed() -> None:
    flow = parse(FLOW)
    graph = flow.steps["graph"]
    assert (flow.engine.kind, flow.engine.memory) == ("local", 300 * 2**20)
    assert flow.store.uri == "./runs/packages"
    assert graph.model_dump()["measure"] == "cosine"
    assert graph.model_dump()["method"] == "approximate"
    with pytest.raises(ValidationError, match="frozen"):
        flow.name = "other"  # type: ignore[misc]


def test_a_flow_written_out_reads_as_itself() -> None:
    flow = parse(FLOW)
    assert parse(yaml.safe_dump(flow.to_json())) == flow


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_that_ships_is_valid(path: Path) -> None:
    assert isinstance(load(path), FlowConfig)


@pytest.mark.parametrize(
    ("short", "kind", "address"),
    [
        ("dask", "dask", None),
        ("tcp://scheduler:8786", None, "tcp://scheduler:8786"),
        ("{kind: ray, address: auto}", "ray", "auto"),
    ],
)
def test_an_engine_is_a_word_an_address_or_a_mapping(
    short: str, kind: str | None, address: str | None
) -> None:
    engine = parse(FLOW.replace("{kind: local, memory: 300MiB}", short)).engine
    assert (engine.kind, engine.address) == (kind, address)


def test_a_number_in_scientific_notation_is_a_number() -> None:
    flow = parse(FLOW.replace("recall: 0.9", "recall: 9e-1"))
    assert flow.steps["graph"].model_dump()["recall"] == 0.9


# -- overrides -------------------------------------------------------------------------------------


def test_set_changes_one_key_and_its_value_is_typed_as_in_yaml() -> None:
    flow = parse(FLOW, overrides=["steps.graph.k=30", "engine.memory=4GiB", "examples=[fish, 7]"])
    assert flow.steps["graph"].model_dump()["k"] == 30
    assert flow.engine.memory == 4 * 2**30
    assert flow.examples == ("fish", 7)


def test_set_can_add_a_step_and_reaches_into_short_forms() -> None:
    more = "steps.wide={stage: knn_graph, of: packages, k: 50}"
    flow = parse(FLOW, overrides=["engine=dask", "engine.workers=2", more])
    assert (flow.engine.kind, flow.engine.workers) == ("dask", 2)
    assert list(flow.steps) == ["graph", "wide"]


def test_set_that_is_wrong_says_which_one() -> None:
    assert complaint(FLOW, "steps.graph.k=many") == (
        "--set steps.graph.k: expected a valid integer, got 'many'"
    )
    assert "--set name.a: name is 'packages', which has no keys" in complaint(FLOW, "name.a=1")
    assert "expected a.b.c=value, for example steps.graph.k=30" in complaint(FLOW, "steps.graph.k")
    assert "the value is not YAML" in complaint(FLOW, "steps.graph.k=[1")


def test_an_override_is_called_what_the_caller_calls_it() -> None:
    change = Override(("engine", "kind"), "dusk", "--engine")
    with pytest.raises(ConfigError, match=r"^--engine: expected 'local', 'dask' or 'ray'"):
        parse(FLOW, overrides=[change])


# -- what is said ----------------------------------------------------------------------------------


def test_an_unknown_key_is_told_with_its_line_its_path_the_nearest_and_the_allowed_ones() -> None:
    told = complaint(FLOW.replace("k: 15", "kk: 15, k: 15"))
    assert told.startswith("flow.yaml:7: steps.graph.kk: unknown key; did you mean 'k'?")
    assert "Allowed: stage, of, k, measure, recall, method, seed, params" in told


def test_everything_that_is_wrong_is_told_at_once() -> None:
    told = complaint(FLOW.replace("k: 15", "k: 0").replace("id:", "ids:").replace("300MiB", "lots"))
    assert [line.split(":")[1] for line in told.splitlines()] == ["3", "5", "7"]
    assert "engine.memory: memory is 'lots': expected a number with a unit" in told
    assert "inputs.packages.ids: unknown key; did you mean 'id'?" in told
    assert "steps.graph.k: expected greater than or equal to 1, got 0" in told


def test_an_unknown_stage_is_told_with_those_there_are() -> None:
    told = complaint(FLOW.replace("stage: knn_graph", "stage: knn_grph"))
    assert "there is no stage 'knn_grph'; did you mean 'knn_graph'? Allowed: knn_graph" in told
    assert "append" in told


def test_a_step_without_a_stage_is_told() -> None:
    assert "steps.graph: needs a stage: knn_graph" in complaint(
        FLOW.replace("stage: knn_graph,", "")
    )


def test_a_step_of_nothing_is_told_with_what_there_is() -> None:
    told = complaint(FLOW.replace("of: packages", "of: packges"))
    assert "steps.graph.of: there is no input or step 'packges'; did you mean 'packages'?" in told


def test_a_circle_is_told_step_by_step() -> None:
    text = FLOW.replace("of: packages", "of: b") + "  b: {stage: knn_graph, of: graph, k: 5}\n"
    told = complaint(text)
    assert "goes in a circle: " in told
    assert "graph of b of graph" in told or "b of graph of b" in told


def test_a_step_of_the_wrong_kind_of_dataset_is_told() -> None:
    told = complaint(FLOW + "  again: {stage: knn_graph, of: graph, k: 5}\n")
    assert "steps.again.of: 'graph' is a knn_graph; knn_graph works on vectors" in told


def test_a_name_used_twice_is_told() -> None:
    told = complaint(FLOW.replace("  graph:", "  packages:"))
    assert "steps.packages: 'packages' is the name of an input already" in told
    told = complaint(FLOW + "  graph: {stage: knn_graph, of: packages, k: 5}\n")
    assert "flow.yaml:8: key 'graph' is given twice" in told


def test_a_measure_that_does_not_exist_is_told() -> None:
    told = complaint(FLOW.replace("k: 15", "k: 15, measure: cosin"))
    assert told.startswith("flow.yaml:7: steps.graph.measure: ")
    assert "'cosine'" in told


def test_an_unknown_knob_of_the_builder_is_told() -> None:
    told = complaint(FLOW.replace("k: 15", "k: 15, params: {fan: 3}"))
    assert "steps.graph.params: 'fan' is not one of them. Allowed: fanout" in told


@pytest.mark.parametrize("recall", ["1.5", "true", "high", "0"])
def test_a_recall_that_is_no_fraction_is_told(recall: str) -> None:
    told = complaint(FLOW.replace("recall: 0.9", f"recall: {recall}"))
    assert told.startswith("flow.yaml:7: steps.graph.recall: expected ")


def test_what_is_missing_is_told() -> None:
    told = complaint("name: x\nstore: ./runs\n")
    assert "inputs: is missing" in told
    assert "name: expected a name" in complaint(FLOW.replace("name: packages", "name: my packages"))


@pytest.mark.parametrize("text", ["", "- a\n", "just words"])
def test_what_is_no_mapping_is_told(text: str) -> None:
    assert "flow.yaml: expected a mapping with name, store, inputs and steps" in complaint(text)


def test_broken_yaml_is_told_with_its_line() -> None:
    assert complaint("name: x\nsteps: [a\n").startswith("flow.yaml:3: ")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the config '.*none.yaml': No such file"):
        load(tmp_path / "none.yaml")


# -- links -----------------------------------------------------------------------------------------


def test_links_come_inputs_first_and_end_in_the_steps_name() -> None:
    names = [link.name for link in links(parse(FLOW))]
    assert names[0] == "packages"
    assert names[-1] == "graph"


def test_exact_needs_no_partition() -> None:
    flow = parse(FLOW, overrides=["steps.graph.method=exact"])
    assert [link.name for link in links(flow)] == ["packages", "graph"]
    assert links(flow)[1].inputs == {"vectors": "packages"}


def test_what_a_stage_refuses_is_told_with_the_steps_path() -> None:
    flow = parse(FLOW, overrides=["inputs.packages.vector=null"])
    with pytest.raises(ConfigError, match=r"^inputs.packages: vector= is needed"):
        links(flow)


@pytest.mark.s3
def test_the_stores_endpoint_and_keys_reach_s3_inputs(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in s3_server.environment:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # another endpoint answers nothing
    uri = s3_server.new_uri()
    place = {"uri": f"{uri}/store", "endpoint": s3_server.endpoint}
    lake = open_store(f"{uri}/lake", endpoint=s3_server.endpoint).objects
    np.save(tmp_path / "x.npy", np.eye(4, dtype=np.float32))
    lake.put("x.npy", (tmp_path / "x.npy").read_bytes())
    config = {"name": "far", "store": place, "inputs": {"x": {"path": f"{uri}/lake/x.npy"}}}
    config["steps"] = {"graph": {"stage": "knn_graph", "of": "x", "k": 1}}
    path = tmp_path / "flow.yaml"
    path.write_text(yaml.safe_dump(config))
    flow = load(path)
    assert links(flow, store=flow.store.open())[0].name == "x"  # it has looked the file up
