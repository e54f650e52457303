"""Clusters and duplicates by name: whose names, from which shards, and how they read."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from stages.importing import fresh_store
from stages.partitioning import vectors_dataset

from simdist.report import Summary, Timings, summarize
from simdist.report.groups import CLUSTERS, GROUPS, clusters, duplicate_groups
from simdist.report.markdown import caption, markdown
from simdist.report.show import describe, print_dataset
from simdist.report.terminal import print_summary
from simdist.store import Dataset, Manifest, Shard, Store

ROWS = 40


@pytest.fixture
def vectors() -> Dataset:
    """40 rows in four shards; the ids are n0, n1, ..."""
    x = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)
    source = vectors_dataset(x, cuts=(10, 20, 30))
    shards, first = [], 0
    for shard in source.shards:
        ids = pa.array([f"n{row}" for row in range(first, first + shard.rows)])
        rows = source.store.write_table("rows", pa.table({"id": ids}))
        shards.append(Shard(shard.rows, {**shard.objects, "rows": rows}))
        first += shard.rows
    return committed(source.store, "import_vectors", shards=shards, metrics={"dim": 4})


def committed(
    store: Store,
    stage: str,
    *,
    inputs: Mapping[str, Dataset] | None = None,
    metrics: Mapping[str, Any] | None = None,
    shards: Sequence[Shard] = (),
    rows: int = ROWS,
) -> Dataset:
    """A manifest as the stage might have left it."""
    lineage = {role: dataset.fingerprint for role, dataset in (inputs or {}).items()}
    name = sha256(f"{stage} {lineage} {metrics}".encode()).hexdigest()[:32]
    store.commit(Manifest(name, stage, 1, {}, lineage, rows, tuple(shards), metrics or {}))
    return store.dataset(name)


def clustered(of: Dataset, sizes: Sequence[int], central: Sequence[Sequence[int]]) -> Dataset:
    """Clusters of an embedding of a graph of k-NN lists of vectors."""
    lists = committed(of.store, "knn_graph", inputs={"vectors": of}, metrics={"k": 3})
    links = committed(of.store, "similarity_graph", inputs={"graph": lists}, metrics=LINKS)
    parts = {"links": links}
    embedded = committed(of.store, "spectral_embedding", inputs=parts, metrics=EMBEDDED)
    metrics = {**CLUSTERED, "sizes": list(sizes), "central": [list(rows) for rows in central]}
    metrics["clusters"] = len(sizes)
    return committed(of.store, "spectral_clusters", inputs={"embedding": embedded}, metrics=metrics)


LINKS = {"nodes": ROWS, "entries": 120, "isolated": 2, "dropped": 3}
EMBEDDED = {
    "state": "converged",
    "eigenvalues": [0.1, 0.25],
    "residuals": [1e-4, 5e-4],
    "eigengap": 0.05,
    "tolerance": 1e-3,
    "passes": 1,
    "solver": "direct",
}
CLUSTERED = {"method": "kmeans", "rows": ROWS, "iterations": 1, "state": "converged", "uncut": 1}
REMOVED = {
    "nodes": ROWS,
    "kept": 36,
    "removed": 4,
    "groups": 2,
    "threshold": 0.9,
    "semantics": "leader",
    "copies": 1,
}


def deduplicated(of: Dataset, groups: Sequence[dict[str, Any]], values: pa.Array) -> Dataset:
    """A deduplication in four shards."""
    shards = [
        Shard(10, {"rows": of.store.write_table("rows", pa.table({"value": values[at : at + 10]}))})
        for at in range(0, ROWS, 10)
    ]
    metrics = {**REMOVED, "largest": list(groups)}
    return committed(of.store, "deduplicate", shards=shards, metrics=metrics)


def read_of(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """Fills while something runs: which shards' tables of a dataset are read, and what of them."""
    place = {shard.objects["rows"].key: at for at, shard in enumerate(dataset.shards)}
    seen: list[tuple[int, list[str]]] = []
    original = Store.read_table

    def spied(self: Store, ref: Any, wanted: Any = None) -> Any:
        seen.append((place[ref.key], wanted))
        return original(self, ref, wanted)

    monkeypatch.setattr(Store, "read_table", spied)
    return seen


def test_ids_come_through_the_lineage_from_the_shards_that_hold_what_is_shown(
    vectors: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = clustered(vectors, [30, 10], [[25, 3], [24]])
    seen = read_of(vectors, monkeypatch)
    shown = clusters(made)
    assert [(c.number, c.size, c.central) for c in shown] == [
        (0, 30, ("n25", "n3")),
        (1, 10, ("n24",)),
    ]
    assert seen == [(0, ["id"]), (2, ["id"])]


def test_values_come_from_the_shards_that_hold_what_is_shown(
    vectors: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = pa.array([row / 100 if row != 11 else None for row in range(ROWS)], pa.float32())
    groups = [
        {"kept": 5, "size": 3, "rows": [11, 12], "ids": ["five", "eleven", "twelve"]},
        {"kept": 33, "size": 2, "rows": [35], "ids": ["a", "b"]},
    ]
    made = deduplicated(vectors, groups, values)
    seen = read_of(made, monkeypatch)
    first, second = duplicate_groups(made)
    assert (first.kept, first.size) == ("five", 3)
    assert first.removed == (("eleven", None), ("twelve", pytest.approx(0.12)))
    assert second.removed == (("b", pytest.approx(0.35)),)
    assert seen == [(1, ["value"]), (3, ["value"])]


def test_at_most_twenty_clusters_and_ten_groups_are_shown(vectors: Dataset) -> None:
    many = [[row % ROWS] * 9 for row in range(100)]
    shown = clusters(clustered(vectors, range(200, 100, -1), many))
    assert len(shown) == CLUSTERS == 20
    assert all(len(cluster.central) == 5 for cluster in shown)
    groups = [{"kept": 0, "size": 30, "rows": list(range(1, 21))} for _ in range(20)]
    found = duplicate_groups(deduplicated(vectors, groups, pa.array([0.9] * ROWS, pa.float32())))
    assert len(found) == GROUPS == 10
    assert all(len(group.removed) == 10 for group in found)
    assert found[0].kept == 0, "pairs alone have no ids"


def test_rows_are_called_by_their_numbers_where_nobody_has_ids_for_them(vectors: Dataset) -> None:
    store = fresh_store()
    links = committed(store, "import_graph", metrics=LINKS)
    embedded = committed(store, "spectral_embedding", inputs={"links": links}, metrics=EMBEDDED)
    metrics = {**CLUSTERED, "clusters": 1, "sizes": [40], "central": [[7]]}
    inputs = {"embedding": embedded}
    made = committed(store, "spectral_clusters", inputs=inputs, metrics=metrics)
    assert clusters(made)[0].central == (7,)
    fewer = committed(vectors.store, "spectral_clusters", inputs={"embedding": vectors}, rows=39,
                      metrics=metrics)  # fmt: skip
    assert clusters(fewer)[0].central == (7,), "ids of other rows"


def test_a_cut_tells_its_clusters_largest_first_with_what_leaves_them(vectors: Dataset) -> None:
    labels = clustered(vectors, [30, 10], [[25], [24]])
    graph = vectors.store.dataset(labels.manifest.inputs["embedding"])
    graph = graph.store.dataset(graph.manifest.inputs["links"])
    arrays = {
        "labels": [0, 3, 150],
        "rows": [10, 0, 30],
        "volumes": [8.0, 0.0, 6.0],
        "association": [6.0, 0.0, 3.0],
        "central": [[1, -1], [-1, -1], [2, 0]],
    }
    write = vectors.store.write_array
    objects = {role: write(role, np.array(array)) for role, array in arrays.items()}
    cut = committed(
        vectors.store,
        "normalized_cut",
        inputs={"graph": graph, "labels": labels},
        metrics={"nodes": ROWS, "clusters": 3, "normalized_cut": 0.75},
        shards=[Shard(3, objects)],
        rows=3,
    )
    assert [(c.number, c.central, c.cut) for c in clusters(cut)] == [
        (150, ("n2", "n0"), 0.5),
        (0, ("n1",), 0.25),
        (3, (), 0.0),
    ]


def test_exemplars_stand_for_their_clusters(vectors: Dataset) -> None:
    graph = committed(vectors.store, "similarity_graph", inputs={"vectors": vectors}, metrics=LINKS)
    metrics = {"largest": [[4, 12, 17], [0, 3, 2]], "state": "converged"}
    made = committed(
        vectors.store, "affinity_propagation", inputs={"graph": graph}, metrics=metrics
    )
    assert [(c.number, c.size, c.central) for c in clusters(made)] == [
        (4, 12, ("n17",)),
        (0, 3, ("n2",)),
    ]


# -- how it reads ----------------------------------------------------------------------------------


def summary_of(*datasets: Dataset) -> Summary:
    named = {f"step-{place}": dataset for place, dataset in enumerate(datasets)}
    return summarize("flow", named, Timings(), names={})


def printed(summary: Summary) -> str:
    out = io.StringIO()
    print_summary(summary, Console(file=out))
    return out.getvalue()


def flowing(text: str) -> str:
    """Without the breaks of lines."""
    return " ".join(text.split())


def test_every_stage_on_a_graph_is_told_in_a_line(vectors: Dataset) -> None:
    made = clustered(vectors, [30, 10], [[25], [24]])
    embedded = vectors.store.dataset(made.manifest.inputs["embedding"])
    links = vectors.store.dataset(embedded.manifest.inputs["links"])
    parts = {"components": 3, "singletons": 1, "largest": [[0, 30], [1, 9], [2, 1]]}
    components = committed(vectors.store, "connected_components", metrics=parts)
    out = flowing(printed(summary_of(links, components, embedded, made)))
    assert (
        "60 edges between 40 nodes, 3.0 at each; 2 nodes without any; 3 values not above 0" in out
    )
    assert "3: 30, 9 rows; 1 row alone" in out
    assert "2 eigenvalues from 0.1 to 0.25, 0.05 to the next; largest residual 0.0005" in out
    assert "1 pass, direct" in out
    assert "2 of 40 rows by kmeans, 1 iteration; 1 component too small to be cut" in out


def test_lines_of_several_steps_of_one_kind_name_the_step(vectors: Dataset) -> None:
    one = clustered(vectors, [30, 10], [[25], [24]])
    two = clustered(vectors, [20, 20], [[1], [2]])
    summary = summary_of(one, two)
    assert [said.partition(":")[0] for _, said in summary.sentences] == ["step-0", "step-1"]
    assert [cluster.size for cluster in summary.clusters] == [20, 20], "of the last one"


def test_a_result_that_is_not_final_is_told_everywhere(vectors: Dataset) -> None:
    late = {**EMBEDDED, "state": "unconverged", "residuals": [0.2, 0.4], "passes": 1000}
    embedded = committed(vectors.store, "spectral_embedding", metrics=late)
    summary = summary_of(vectors, embedded)
    assert summary.unconverged == ("step-1",)
    assert summary.to_json()["unconverged"] == ["step-1"]
    out = printed(summary)
    assert out.strip().startswith("! flow")
    assert "not converged: step-1" in out.splitlines()[1]
    assert "not converged: 2 eigenvalues" in out
    assert "largest residual 0.4, asked for 0.001; 1,000 passes" in flowing(out)
    assert "allow more passes" in flowing(out)
    assert "not converged: step-1" in caption(summary)
    assert "**Unfinished** step-1" in markdown(summary)
    shown = io.StringIO()
    print_dataset(describe(embedded), Console(file=shown))
    assert "not converged" in shown.getvalue()
    assert "allow more passes" in flowing(shown.getvalue())


def test_a_result_that_is_final_is_not_called_otherwise(vectors: Dataset) -> None:
    summary = summary_of(clustered(vectors, [40], [[1]]))
    assert "converged" not in printed(summary) + markdown(summary)
    assert summary.unconverged == ()


def test_markdown_has_the_clusters_the_groups_and_a_sentence_each(vectors: Dataset) -> None:
    made = clustered(vectors, [30, 10], [[25, 3], [24]])
    groups = [{"kept": 5, "size": 13, "rows": [11, 12], "ids": ["fi|ve", "eleven", "twelve"]}]
    values = pa.array([0.95 if row != 11 else None for row in range(ROWS)], pa.float32())
    text = markdown(summary_of(made, deduplicated(vectors, groups, values)))
    assert "| 0 | 30 |  | `n25`, `n3` |" in text
    assert "| 13 | `fi\\|ve` | `eleven`, `twelve` 0.950, and 10 more |" in text
    assert "**Clusters** 2 of 40 rows by kmeans" in text
    assert "**Rows** 36 of 40 rows stay, 4 go; 2 groups at 0.9 by leader (1 exact copy)." in text


def test_ids_that_hold_escape_codes_are_shown_as_text(vectors: Dataset) -> None:
    groups = [{"kept": 5, "size": 2, "rows": [11], "ids": ["\x1b[31mred", "\x07bell"]}]
    values = pa.array([0.95] * ROWS, pa.float32())
    out = printed(summary_of(deduplicated(vectors, groups, values)))
    assert "\\x1b[31mred" in out
    assert not {"\x1b", "\x07"} & set(out)
