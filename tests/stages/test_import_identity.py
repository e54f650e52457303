"""The same content is the same dataset; an unchanged listing is not read again."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stages.importing import bring_in, fixed, fresh_store, matrix, parquet, rows_in, table

from simdist.engine import Engine, open_engine
from simdist.runner import Event, Job, run
from simdist.runner.events import RoundStarted, StageDone, TaskDone
from simdist.stages.vectors import ImportVectors, scan
from simdist.store import Store, open_store


def watched(path: Path, store: Store, **columns: Any) -> tuple[str, list[Event]]:
    """Fingerprint of an import, and the events it emitted."""
    events: list[Event] = []
    config = scan(str(path), **{"vector": "v", "id": "id", **columns})
    with open_engine("local", workers=2) as engine:
        dataset = run(
            Job(ImportVectors(), config, {}), store=store, engine=engine, listeners=[events.append]
        )
    return dataset.fingerprint, events


@pytest.fixture
def content() -> pa.Table:
    return table(matrix(1000), name=[f"n{i}" for i in range(1000)])


def test_the_manifest_does_not_depend_on_names_times_stores_or_cuts_into_files(
    tmp_path: Path, content: pa.Table
) -> None:
    parquet(tmp_path / "one" / "a.parquet", content)
    parquet(tmp_path / "two" / "renamed.parquet", content, row_group_size=77, compression="gzip")
    os.utime(tmp_path / "two" / "renamed.parquet", (1, 1))
    for number, start in enumerate(range(0, 1000, 300)):
        parquet(tmp_path / "cut" / f"{number}.parquet", content.slice(start, 300))
    with pa.ipc.new_file(tmp_path / "a.arrow", content.schema) as writer:
        writer.write_table(content, max_chunksize=90)
    places = [tmp_path / "one", tmp_path / "two", tmp_path / "cut", tmp_path / "a.arrow"]
    manifests = {bring_in(place, keep=["name"]).manifest.to_bytes() for place in places}
    assert len(manifests) == 1
    assert str(tmp_path).encode() not in manifests.pop()


def test_the_encoding_of_a_column_is_not_content(tmp_path: Path, content: pa.Table) -> None:
    name = content["name"].combine_chunks()
    variants = {
        "plain": (name, content["v"]),
        "large": (name.cast(pa.large_string()), content["v"].cast(pa.large_list(pa.float32()))),
        "coded": (name.dictionary_encode(), content["v"].cast(pa.list_(pa.float32()))),
    }
    prints = set()
    for label, (names, vectors) in variants.items():
        variant = pa.table({"id": content["id"], "v": vectors, "name": names})
        path = parquet(tmp_path / f"{label}.parquet", variant)
        prints.add(bring_in(path, id="name").fingerprint)
    assert len(prints) == 1


def test_the_fingerprint_depends_on_every_value_and_their_order(
    tmp_path: Path, content: pa.Table
) -> None:
    x = matrix(1000)
    x[999, 7] += 1e-6
    variants = {
        "same": content,
        "value": content.set_column(content.schema.get_field_index("v"), "v", fixed(x)),
        "id": content.set_column(
            content.schema.get_field_index("id"), "id", pa.array(np.arange(1, 1001))
        ),
        "order": content.take(np.r_[1, 0, 2:1000]),
        "shorter": content.slice(0, 999),
    }
    prints = [
        bring_in(parquet(tmp_path / f"{label}.parquet", variant)).fingerprint
        for label, variant in variants.items()
    ]
    prints.append(bring_in(tmp_path / "same.parquet", keep=["name"]).fingerprint)
    prints.append(bring_in(tmp_path / "same.parquet", id="name").fingerprint)
    prints.append(bring_in(tmp_path / "same.parquet", id=None).fingerprint)
    assert len(set(prints)) == len(prints)


def test_an_unchanged_listing_is_not_read_again(tmp_path: Path, content: pa.Table) -> None:
    path, store = tmp_path / "a.parquet", fresh_store()
    parquet(path, content)
    first, events = watched(path, store)
    assert any(isinstance(event, TaskDone) for event in events)
    again, events = watched(path, store)
    assert again == first
    assert not any(isinstance(event, RoundStarted) for event in events)
    assert [event.reused for event in events if isinstance(event, StageDone)] == [True]


def test_a_touched_file_is_read_again_and_is_the_same_dataset(
    tmp_path: Path, content: pa.Table
) -> None:
    path, store = tmp_path / "a.parquet", fresh_store()
    parquet(path, content)
    first, _ = watched(path, store)
    os.utime(path, (1, 1))
    again, events = watched(path, store)
    assert again == first
    assert any(isinstance(event, RoundStarted) for event in events)


def test_a_changed_file_is_another_dataset(tmp_path: Path, content: pa.Table) -> None:
    path, store = tmp_path / "a.parquet", fresh_store()
    parquet(path, content)
    first, _ = watched(path, store)
    parquet(path, content.slice(0, 900))
    assert watched(path, store)[0] != first


def test_a_killed_import_goes_on_where_it_was(
    tmp_path: Path, content: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simdist.stages.vectors import stage as stage_module

    path, store = tmp_path / "a.parquet", fresh_store()
    parquet(path, content)

    def out_of_power(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(stage_module, "_id_tasks", out_of_power)
        with pytest.raises(KeyboardInterrupt):
            watched(path, store)
    _, events = watched(path, store)
    started = {event.round: event for event in events if isinstance(event, RoundStarted)}
    assert started["survey"].done == started["survey"].tasks
    assert started["read"].done == started["read"].tasks
    assert started["ids"].done == 0


def test_the_first_zero_row_is_recorded(tmp_path: Path) -> None:
    x = matrix(5000, dtype="float16")
    x[[4100, 4321]] = 0
    x[4100, 3] = -0.0
    dataset = bring_in(parquet(tmp_path / "a.parquet", table(x), row_group_size=1000))
    assert dataset.metrics["first_zero_row"] == 4100
    assert (
        bring_in(parquet(tmp_path / "b.parquet", table(matrix(9)))).metrics["first_zero_row"]
        is None
    )


def test_every_engine_commits_the_same_bytes(
    tmp_path: Path, content: pa.Table, engine: Engine
) -> None:
    for number, start in enumerate(range(0, 1000, 300)):
        parquet(tmp_path / f"{number}.parquet", content.slice(start, 300))
    store = open_store(tmp_path / "store")
    config = scan(f"{tmp_path}/*.parquet", vector="v", id="name")
    dataset = run(Job(ImportVectors(), config, {}), store=store, engine=engine)
    local = bring_in(f"{tmp_path}/*.parquet", id="name")
    assert dataset.manifest.to_bytes() == local.manifest.to_bytes()
    assert rows_in(dataset)["id"].to_pylist() == content["name"].to_pylist()


def test_the_rows_table_opens_in_duckdb_and_the_vectors_in_numpy(
    tmp_path: Path, content: pa.Table
) -> None:
    import duckdb

    store = open_store(tmp_path / f"store-{uuid.uuid4().hex}")
    dataset = bring_in(parquet(tmp_path / "a.parquet", content), store=store, id="name", keep=())
    (shard,) = dataset.shards
    path = store.objects.local_path(shard.objects["rows"].key)
    found = duckdb.sql(f"select row from '{path}' where id = 'n123'").fetchall()
    assert found == [(123,)]
    vectors = np.load(store.objects.local_path(shard.objects["vectors"].key))
    assert np.array_equal(vectors, matrix(1000))
