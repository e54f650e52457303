"""Every step of a flow: what may be written of it, and the links it stands for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from simdist.config import STEPS, FlowConfig, GraphInputConfig, InputConfig, links, parse
from simdist.errors import ConfigError

FLOW = """\
name: everything
store: ./runs/everything
inputs:
  x: {path: PATH/x.npy}
  y: {path: PATH/x.npy}
  own: {edges: PATH/edges.parquet, row: from, neighbor: to, weight: score, symmetrize: union}
steps:
  graph: {stage: knn_graph, of: x, k: 5}
  cells: {stage: index, of: x, cells: 3}
  found: {stage: retrieve, of: y, corpus: x, k: 3, where: 'id in [1, 2] or not id < 4'}
  tiles: {stage: similarity_tiles, of: x, against: y}
  grown: {stage: append, of: graph, new: y}
  pairs: {stage: similarity_join, of: x, threshold: 0.9, against: y}
  unique: {stage: deduplicate, of: x, threshold: 0.9, semantics: components, cap: 0.8}
  links: {stage: similarity_graph, of: graph, weights: umap}
  parts: {stage: connected_components, of: links}
  embedded: {stage: spectral_embedding, of: own, dim: 4}
  diffused: {stage: diffusion_map, of: links, dim: 4, time: 2}
  clusters: {stage: spectral_clusters, of: own, clusters: auto}
  exemplars: {stage: affinity_propagation, of: links, preference: -0.5}
  cut: {stage: normalized_cut, of: links, labels: exemplars}
  walked: {stage: propagate, of: links, features: y, kind: ppr}
  again: {stage: knn_graph, of: walked, k: 3}
  given: {stage: column_labels, of: x, column: kind}
  spread: {stage: label_propagation, of: links, labels: given, kind: spreading}
  mended: {stage: correct_and_smooth, of: links, predictions: walked, labels: given}
  few: {stage: sparse_attention, of: x, keys: y, columns: [kind], scale: 20, budget: 5}
  landmarks: {stage: nystroem, of: x, kernel: 2.0 * RBF(ard=True), components: 4, centers: pivots}
  waves: {stage: random_features, of: x, kernel: {name: matern32, lengthscale: 2.0}}
  mixed: {stage: attention, of: x, keys: y, heads: 2, kv_heads: 1, causal: lower_right}
  dense: {stage: kernel_density, of: x, at: y, bandwidth: knn}
  far: {stage: outlier_scores, of: x, method: relative, bandwidth: [0.5, 1, 1, 1, 1, 1, 1, 2]}
  modes: {stage: mean_shift, of: x, bandwidth: 0.5, kernel: gaussian}
  near: {stage: kernel_regression, of: x, columns: kind, at: y}
  pull: {stage: score_field, of: x, at: y, sigma: 0.5}
  clean: {stage: denoise, of: y, data: x, sigma: 0.5, steps: 4}
  price: {stage: kernel_ridge, of: x, target: price, kernel: "2.0 * RBF(1.5)", alphas: [0.1, 1]}
  kind: {stage: kernel_svm, of: x, target: kind, C: 10, loss: hinge, centers: 64}
  parts_of: {stage: kernel_pca, of: x, components: 2}
  scores: {stage: kernel_transform, of: y, model: parts_of}
  process: {stage: sparse_gp, of: x, target: [price, kind], kernel: 1.0 * RBF(), inducing: 8}
  foretold: {stage: gp_predict, of: y, model: process}
  worth: {stage: kernel_predict, of: y, model: price, target: price}
  around: {stage: neighbor_gp, of: y, target: price, neighbors: 20}
  nearby: {stage: neighbor_gp_predict, of: y, model: around, neighbors: 20}
  classes: {stage: dirichlet_gp, of: y, label: price}
  classed: {stage: dirichlet_gp_predict, of: y, model: classes}
"""

# What a diffusion map is, and what feature maps and fitted machines come down to.
SHARED_STAGES = ("spectral_embedding", "map_features", "apply_machine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors and edges for the flow."""
    path = tmp_path_factory.mktemp("inputs")
    np.save(path / "x.npy", np.eye(8, dtype=np.float32))
    edges = {"from": [0, 1, 2], "to": [1, 2, 3], "score": [0.5, 1.0, 2.0]}
    pq.write_table(pa.table(edges), path / "edges.parquet")
    return path


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return FLOW.replace("PATH", str(folder))


@pytest.fixture
def complaint(text: str) -> Callable[..., str]:
    """What is said about the flow with something else in a place."""

    def said(written: str, instead: str) -> str:
        assert written in text
        with pytest.raises(ConfigError) as caught:
            parse(text.replace(written, instead), source="flow.yaml")
        return str(caught.value)

    return said


def test_the_flow_of_these_tests_has_every_step_there_is(text: str) -> None:
    assert {step.stage for step in parse(text).steps.values()} == set(STEPS)


def test_every_step_written_out_reads_as_itself(text: str) -> None:
    flow = parse(text)
    assert parse(yaml.safe_dump(flow.to_json())) == flow


def test_every_step_stands_for_links_that_end_in_its_name_and_follow_what_they_need(
    text: str,
) -> None:
    flow = parse(text)
    chain = links(flow)
    names = [link.name for link in chain]
    assert len(set(names)) == len(names)
    assert {*flow.inputs, *flow.steps} <= set(names)
    for place, link in enumerate(chain):
        assert set(link.inputs.values()) <= set(names[:place]), link.name
        if link.name in flow.steps:
            step = flow.steps[link.name]
            assert link.stage.name in (step.stage, *SHARED_STAGES), link.name


def test_what_a_step_says_reaches_the_stage(text: str) -> None:
    chain = {link.name: link for link in links(parse(text))}
    assert chain["clusters"].config.clusters is None
    assert chain["clusters.embedding"].config.dim == 16
    assert chain["exemplars"].config.preference == -0.5
    assert chain["diffused"].config.time == 2
    assert chain["unique"].config.cap == 0.8
    assert chain["links"].config.weights == "umap"
    assert chain["cut"].inputs == {"graph": "links", "labels": "exemplars"}
    changed = parse(text, overrides=["steps.clusters.residual=1e-2", "steps.clusters.iterations=7"])
    chain = {link.name: link for link in links(changed)}
    assert chain["clusters.embedding"].config.tolerance == 1e-2
    assert chain["clusters"].config.iterations == 7


# -- what is given to what -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("of: graph, weights", "of: x, weights", "links.of: 'x' is a vectors; similarity_graph"),
        ("components, of: links", "components, of: graph", "parts.of: 'graph' is a knn_graph"),
        ("of: own, dim", "of: x, dim", "embedded.of: 'x' is a vectors; spectral_embedding works"),
        ("map, of: links", "map, of: parts", "diffused.of: 'parts' is a labelling"),
        ("of: own, clusters", "of: embedded, clusters", "clusters.of: 'embedded' is a spectral_em"),
        ("ion, of: links, pref", "ion, of: x, pref", "exemplars.of: 'x' is a vectors"),
        ("labels: exemplars", "labels: embedded", "cut.labels: 'embedded' is a spectral_embedding"),
        ("features: y", "features: links", "walked.features: 'links' is a similarity_graph"),
        ("join, of: x", "join, of: graph", "pairs.of: 'graph' is a knn_graph; similarity_join"),
        ("0.9, against: y", "0.9, against: own", "pairs.against: 'own' is a similarity_graph"),
        ("deduplicate, of: x", "deduplicate, of: pairs", "unique.of: 'pairs' is a similarity_join"),
        ("of: x, k: 5", "of: own, k: 5", "graph.of: 'own' is a similarity_graph; knn_graph works"),
    ],
)
def test_a_step_of_the_wrong_kind_of_dataset_is_told(
    complaint: Callable[..., str], written: str, instead: str, said: str
) -> None:
    assert f"steps.{said}" in complaint(written, instead)


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("weights: umap", "weigths: umap", "links.weigths: unknown key; did you mean 'weights'?"),
        ("parts: {", "parts: {dim: 3, ", "parts.dim: unknown key"),
        ("dim: 4}", "dims: 4, dim: 4}", "embedded.dims: unknown key; did you mean 'dim'?"),
        ("time: 2", "times: 2", "diffused.times: unknown key; did you mean 'time'?"),
        ("clusters: auto", "cluster: auto", "clusters.cluster: unknown key; did you mean 'clu"),
        ("preference:", "preferences:", "exemplars.preferences: unknown key; did you mean 'pre"),
        ("labels: exemplars", "label: exemplars", "cut.label: unknown key; did you mean 'labels'?"),
        ("kind: ppr", "knd: ppr", "walked.knd: unknown key; did you mean 'kind'?"),
        ("cap: 0.8", "caps: 0.8", "unique.caps: unknown key; did you mean 'cap'?"),
        ("threshold: 0.9, against", "treshold: 0.9, against", "pairs.treshold: unknown key; did y"),
    ],
)
def test_an_unknown_key_of_a_step_is_told_with_the_nearest(
    complaint: Callable[..., str], written: str, instead: str, said: str
) -> None:
    assert f"steps.{said}" in complaint(written, instead)


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("clusters: auto", "clusters: 0", "clusters.clusters: expected greater than or equal to 1"),
        ("clusters: auto", "clusters: some", "clusters.clusters: expected a valid integer"),
        ("weights: umap", "weights: cosine", "links.weights: expected 'value', 'binary'"),
        ("own, dim: 4", "own, dim: 0", "embedded.dim: expected greater than or equal to 1"),
        ("time: 2", "time: -1", "diffused.time: expected greater than or equal to 0"),
        ("preference: -0.5", "preference: mean", "exemplars.preference: expected a valid number"),
        ("kind: ppr", "kind: rank", "walked.kind: expected 'sgc', 'appnp', 'ppr' or 'lightgcn'"),
        ("semantics: components", "semantics: chains", "unique.semantics: expected 'leader' or"),
        ("threshold: 0.9, sem", "threshold: .nan, sem", "unique.threshold: expected a finite num"),
    ],
)
def test_a_value_that_makes_no_sense_is_told(
    complaint: Callable[..., str], written: str, instead: str, said: str
) -> None:
    assert f"steps.{said}" in complaint(written, instead)


# -- a graph as input ------------------------------------------------------------------------------


def test_an_input_is_a_graph_where_it_has_edges(text: str) -> None:
    flow = parse(text)
    assert isinstance(flow.inputs["own"], GraphInputConfig)
    assert isinstance(flow.inputs["x"], InputConfig)
    link = next(link for link in links(flow) if link.name == "own")
    assert (link.stage.name, dict(link.inputs)) == ("import_graph", {})
    assert link.config.columns.names == ["from", "to", "score"]
    assert link.config.symmetrize == "union"


def test_an_unknown_key_of_a_graph_is_told_with_those_of_graphs(
    complaint: Callable[..., str],
) -> None:
    told = complaint("neighbor: to", "neighbour: to")
    assert "inputs.own.neighbour: unknown key; did you mean 'neighbor'?" in told
    assert "Allowed: edges, row, neighbor, weight, nodes, symmetrize, duplicates" in told
    told = complaint("y: {path", "y: {vectr: v, path")
    assert "inputs.y.vectr: unknown key; did you mean 'vector'? Allowed: path, id, vector" in told


def test_a_graph_whose_edges_are_nowhere_is_told_with_its_path(text: str, folder: Path) -> None:
    flow = parse(text.replace("edges.parquet", "none.parquet"))
    with pytest.raises(Exception, match=r"none.parquet matches nothing"):
        links(flow)


def test_a_flow_of_a_graph_alone_needs_no_vectors(folder: Path) -> None:
    flow = parse(
        f"""
        name: own
        store: ./runs/own
        inputs: {{own: {{edges: {folder}/edges.parquet, row: from, neighbor: to}}}}
        steps: {{clusters: {{stage: spectral_clusters, of: own, clusters: 2}}}}
        """
    )
    assert isinstance(flow, FlowConfig)
    assert [link.name for link in links(flow)] == [
        "own",
        "clusters.components",
        "clusters.embedding",
        "clusters",
    ]
