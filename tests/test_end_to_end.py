"""The main job on real data: vectors in, k-NN graph out, the same bytes wherever it runs."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from failing_graph import FailingGraph, computed_in
from s3_server import S3Server
from stages.importing import shared_file

from simdist.engine import Engine, open_engine
from simdist.errors import TaskFailed
from simdist.models.chain import Link, run_link, run_links
from simdist.models.graphs import KnnGraph, open_graph
from simdist.models.knn import knn_graph, knn_links
from simdist.models.vectors import import_link
from simdist.recall import Recall, hits, interval
from simdist.runner import Event
from simdist.runner.events import RoundStarted, StageDone
from simdist.store import Dataset, Store, open_store
from simdist.types import Array

K = 15
STEPS = ("packages", "graph.partition", "graph")

Digests = Mapping[str, tuple[str, str]]


def links() -> tuple[Link, ...]:
    """Import, partition and graph of the data that ships with the package."""
    return (
        import_link(
            "packages",
            path="datasets://debian-packages",
            id="package",
            vector="embedding",
            keep=("section", "summary"),
        ),
        *knn_links("graph", "packages", k=K, measure="cosine", recall=0.95),
    )


def whole_job(store: Store, engine: Engine, **options: Any) -> dict[str, Dataset]:
    return run_links(links(), {}, store=store, engine=engine, **options)


def digests(made: Mapping[str, Dataset]) -> Digests:
    """(fingerprint, sha256 of the manifest as the store holds it) of every step. A manifest names
    its objects by their sha256, so that equal manifests mean equal data."""
    found = {}
    for name in STEPS:
        data = made[name]
        manifest = data.store.objects.get(f"manifests/{data.fingerprint}.json")
        found[name] = (data.fingerprint, hashlib.sha256(manifest).hexdigest())
    return found


@pytest.fixture(scope="session")
def made(local_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """The job once, on the local engine and file://: what the others are compared with."""
    return whole_job(open_store(tmp_path_factory.mktemp("reference")), local_engine)


@pytest.fixture(scope="session")
def graph(made: dict[str, Dataset]) -> KnnGraph:
    return open_graph(made["graph"])


@pytest.fixture(scope="session")
def packages(made: dict[str, Dataset]) -> list[str]:
    data = made["packages"]
    tables = [data.store.read_table(s.objects["rows"], ["row", "id"]) for s in data.shards]
    assert [row for t in tables for row in t["row"].to_pylist()] == list(range(data.rows))
    return [name for table in tables for name in table["id"].to_pylist()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_dask_and_ray_commit_what_local_commits(
    kind: str, made: dict[str, Dataset], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(f"{kind}_engine")
    assert digests(whole_job(open_store(tmp_path), engine)) == digests(made)


@pytest.mark.slow
@pytest.mark.s3
def test_s3_holds_what_files_hold_on_every_engine(
    engine: Engine, made: dict[str, Dataset], s3_server: S3Server
) -> None:
    store = open_store(
        s3_server.new_uri(),
        endpoint=s3_server.endpoint,
        region="us-east-1",
        access_key_id=s3_server.access_key,
        secret_access_key=s3_server.secret_key,
    )
    found = whole_job(store, engine)
    assert digests(found) == digests(made)
    told: list[Event] = []
    again = whole_job(store, engine, listeners=[told.append])
    assert again == found
    assert_nothing_ran(told)
    assert_same_graph(open_graph(found["graph"]), open_graph(made["graph"]))


def assert_same_graph(one: KnnGraph, other: KnnGraph) -> None:
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.values, other.values)


def assert_nothing_ran(told: list[Event]) -> None:
    assert not [event for event in told if isinstance(event, RoundStarted)]
    assert [event.reused for event in told if isinstance(event, StageDone)] == [True] * len(STEPS)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "memory"), [(1, "300MiB"), (2, "300MiB"), (1, "4GiB")])
def test_workers_and_memory_change_no_byte(
    workers: int, memory: str, made: dict[str, Dataset], tmp_path: Path
) -> None:
    with open_engine("local", workers=workers, memory=memory) as engine:
        assert digests(whole_job(open_store(tmp_path), engine)) == digests(made)


def test_a_second_run_does_nothing(made: dict[str, Dataset], local_engine: Engine) -> None:
    store = made["graph"].store
    before = {info.key: info.modified for info in store.objects.list("")}
    told: list[Event] = []
    assert whole_job(store, local_engine, listeners=[told.append]) == made
    assert_nothing_ran(told)
    assert {info.key: info.modified for info in store.objects.list("")} == before


def test_a_failure_in_any_round_is_resumed_to_the_same_bytes(
    made: dict[str, Dataset], tmp_path: Path
) -> None:
    store = open_store(tmp_path / "store")
    (tmp_path / "ran").mkdir()
    *before, link = links()
    last_tasks = last_task_of_each_round(made["graph"])
    assert len(last_tasks) >= 7  # leaves, merge, links, join, truth, check, finish
    told: list[Event] = []
    with open_engine("local", workers=1) as engine:  # one after the other: others are not lost
        datasets = run_links(before, {}, store=store, engine=engine)
        for task in last_tasks:
            failing = replace(link, stage=FailingGraph(task, str(tmp_path / "ran")))
            with pytest.raises(TaskFailed, match=f"InjectedError: {task}$"):
                run_link(failing, datasets, store=store, engine=engine)
        datasets["graph"] = run_link(
            failing, datasets, store=store, engine=engine, listeners=[told.append]
        )
    assert digests(datasets) == digests(made)
    assert Counter(computed_in(tmp_path / "ran")) == Counter(tasks_of(datasets["graph"]))
    starts = [event for event in told if isinstance(event, RoundStarted)]
    assert [event.tasks - event.done for event in starts] == [0] * (len(starts) - 1) + [1]


def tasks_of(data: Dataset) -> list[str]:
    """Keys of all tasks of the job that made it, in order."""
    recorded = data.store.list_records(data.fingerprint)
    return sorted(task for task in recorded if not task.startswith("round-"))


def last_task_of_each_round(data: Dataset) -> list[str]:
    """In the order of the rounds."""
    tasks = tasks_of(data)
    return [
        max(task for task in tasks if task == name or task.startswith(f"{name}-"))
        for name in data.metrics["rounds"]
    ]


def test_every_row_has_k_distinct_neighbours_and_recall_holds_against_all_pairs(
    made: dict[str, Dataset], graph: KnnGraph
) -> None:
    x = vectors_of(made["packages"])
    n = len(x)
    assert graph.indices.shape == graph.values.shape == (n, K)
    ordered = np.sort(graph.indices, axis=1)
    assert (np.diff(ordered, axis=1) > 0).all()
    assert (graph.indices != np.arange(n)[:, None]).all()
    rows = np.random.default_rng(5).choice(n, 1500, replace=False)
    assert_interval_holds(graph, x, rows)
    values = np.einsum("nd,nkd->nk", x[rows], x[graph.indices[rows]])
    np.testing.assert_allclose(graph.values[rows], values, atol=2e-6)
    assert (np.diff(graph.values, axis=1) <= 0).all()


def vectors_of(data: Dataset) -> Array:
    """All rows as unit vectors, float32."""
    arrays = [data.store.read_array(shard.objects["vectors"]) for shard in data.shards]
    x = np.concatenate(arrays).astype(np.float32)
    return x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True).astype(np.float32)


def assert_interval_holds(graph: KnnGraph, x: Array, rows: Array) -> Recall:
    """faiss's exact neighbours of `rows`, which the graph's own sample knows nothing of, find a
    recall whose interval meets the reported one, and the target holds."""
    import faiss

    faiss.omp_set_num_threads(2)
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    _, found = index.search(x[rows], K + 1)
    others = [row[row != i][:K] for i, row in zip(rows, found, strict=True)]
    per_row = hits(graph.indices[rows], np.stack(others))
    low, high = interval(per_row, K, population=len(x))
    reported = graph.recall
    assert reported is not None
    assert reported.target is not None
    assert reported.target <= reported.low <= reported.estimate <= reported.high <= 1
    assert low <= reported.high
    assert reported.low <= high
    assert per_row.mean() >= reported.target
    return reported


def test_duckdb_reads_the_graph_and_joins_rows_to_names(
    made: dict[str, Dataset], graph: KnnGraph, packages: list[str]
) -> None:
    import duckdb

    found = duckdb.sql(
        f"""
        with edges as (
            select id, unnest(neighbors) as neighbor, unnest(values) as value
            from read_parquet({local_paths(made["graph"], "graph")})
        )
        select edges.id, packages.id as neighbor, packages.section, edges.value
        from edges join read_parquet({local_paths(made["packages"], "rows")}) as packages
            on edges.neighbor = packages.row
        where edges.id = 'tshark'
        order by edges.value desc, packages.row
        """
    ).fetchall()
    row = packages.index("tshark")
    assert [line[1] for line in found] == [packages[i] for i in graph.indices[row]]
    np.testing.assert_array_equal([line[3] for line in found], graph.values[row])
    assert all(line[2] for line in found)
    graph_files = local_paths(made["graph"], "graph")
    (total,) = duckdb.sql(
        f"select count(*), count(distinct id) from read_parquet({graph_files})"
    ).fetchall()
    assert total == (len(packages), len(packages))


def local_paths(data: Dataset, role: str) -> list[str]:
    paths = [data.store.objects.local_path(shard.objects[role].key) for shard in data.shards]
    return [str(path) for path in paths]


def test_neighbours_by_name_are_what_a_person_expects(graph: KnnGraph, packages: list[str]) -> None:
    """libfoo-dev has libfoo1 among its neighbours, and mostly as the nearest of them."""
    libraries: dict[str, list[int]] = {}
    for row, name in enumerate(packages):
        if match := re.fullmatch(r"(lib.*?[a-z+])-?\d[\d.]*[a-z]?", name):
            libraries.setdefault(match[1], []).append(row)
    pairs = [
        (row, libraries[match[1]])
        for row, name in enumerate(packages)
        if (match := re.fullmatch(r"(lib.*?[a-z+])-?[\d.]*-dev", name)) and match[1] in libraries
    ]
    assert len(pairs) > 100
    listed = [bool(set(graph.indices[row]) & set(wanted)) for row, wanted in pairs]
    nearest = [graph.indices[row, 0] in wanted for row, wanted in pairs]
    assert np.mean(listed) > 0.9
    assert np.mean(nearest) > 0.7
    assert "diffoscope-minimal" in [
        packages[i] for i in graph.indices[packages.index("diffoscope")]
    ]


@pytest.mark.shared
@pytest.mark.slow
def test_on_all_packages_faiss_finds_the_recall_that_was_reported(
    local_engine: Engine, tmp_path: Path
) -> None:
    path = shared_file("debian-packages-384.parquet")
    column = pq.read_table(path, columns=["embedding"])["embedding"].combine_chunks()
    x = column.flatten().to_numpy().reshape(len(column), -1)
    graph = knn_graph(
        x, K, measure="cosine", recall=0.95, engine=local_engine, scratch=str(tmp_path)
    )
    units = x.astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    rows = np.random.default_rng(11).choice(len(x), 2000, replace=False)
    reported = assert_interval_holds(graph, units, rows)
    assert reported.rows >= 1000
    assert reported.high - reported.low < 0.02
