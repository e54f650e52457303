"""A store for the length of a call: nothing is copied, nothing is hashed, nothing stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import simdist as sd
from simdist.errors import ConfigError, ObjectMissing
from simdist.models import places
from simdist.store.held import HeldStore

ROWS = np.random.default_rng(5).standard_normal((1500, 24)).astype(np.float32)
TABLE = pa.table({"row": [1, 2, 3], "name": ["a", "b", "c"]})


@pytest.fixture
def store() -> Iterator[HeldStore]:
    held = HeldStore(limit=1 << 20)
    yield held
    held.close()


def test_an_array_is_held_and_not_copied(store: HeldStore):
    back = store.read_array(store.write_array("rows", ROWS))
    assert np.shares_memory(back, ROWS)
    assert not back.flags.writeable
    assert ROWS.flags.writeable, "the caller's own array stays as it was"


@pytest.mark.parametrize("array", [
    np.asfortranarray(np.arange(6, dtype=">i8").reshape(2, 3)), np.array(2.5), np.arange(10)[::3],
    np.zeros((0, 7), np.float32),
], ids=lambda a: f"{a.dtype.str}{list(a.shape)}")  # fmt: skip
def test_what_is_read_is_as_any_store_gives_it(store: HeldStore, array: np.ndarray):
    back = store.read_array(store.write_array("rows", array))
    assert back.dtype == array.dtype.newbyteorder("<")
    assert back.flags.c_contiguous
    assert back.shape == array.shape
    assert np.array_equal(back, array)


def test_a_table_is_held_and_gives_the_columns_asked_for(store: HeldStore):
    ref = store.write_table("names", TABLE)
    assert store.read_table(ref).equals(TABLE)
    assert store.read_table(ref, ["name"]).column_names == ["name"]


def test_what_no_store_takes_is_refused(store: HeldStore):
    with pytest.raises(ConfigError, match="cannot be stored"):
        store.write_array("rows", np.array(["a"]))


def test_past_its_limit_arrays_and_tables_are_files(store: HeldStore):
    first = store.write_array("rows", np.zeros(100_000))
    second = store.write_array("rows", np.ones(100_000))
    table = store.write_table("rows", pa.table({"x": np.arange(100_000)}))
    assert (Path(store._folder.name) / second.key).exists()
    assert float(store.read_array(first).sum()) == 0.0
    assert float(store.read_array(second).sum()) == 100_000.0
    assert store.read_table(table).num_rows == 100_000
    assert all(store.whole(ref) for ref in (first, second, table))


def test_what_was_released_makes_room_and_is_gone(store: HeldStore):
    first = store.write_array("rows", np.zeros(100_000))
    store.release([first])
    assert not store.whole(first)
    with pytest.raises(ObjectMissing):
        store.read_array(first)
    second = np.ones(100_000)
    assert np.shares_memory(store.read_array(store.write_array("rows", second)), second)


def test_what_is_held_can_be_had_as_bytes(store: HeldStore, tmp_path: Path):
    ref = store.write_array("rows", ROWS)
    (tmp_path / "rows.npy").write_bytes(store.read_bytes(ref))
    assert np.array_equal(np.load(tmp_path / "rows.npy"), ROWS)
    (tmp_path / "names.parquet").write_bytes(store.read_bytes(store.write_table("names", TABLE)))
    assert pa.parquet.read_table(tmp_path / "names.parquet").equals(TABLE)
    value = store.write_json("said", {"a": 1})
    assert store.read_json(value) == {"a": 1}
    assert store.whole(value)
    head = store.objects.head(ref.key)
    assert head is not None
    assert head.nbytes == ref.nbytes


def test_a_closed_store_has_nothing_left():
    held = HeldStore(limit=1 << 10)
    held_alone, in_a_file = held.write_array("rows", ROWS[:10]), held.write_array("rows", ROWS)
    held.close()
    assert not Path(held._folder.name).exists()
    for ref in (held_alone, in_a_file):
        with pytest.raises(ObjectMissing):
            held.read_array(ref)


@pytest.mark.parametrize("share", [4, 1 << 40], ids=["held", "spilled"])
def test_a_graph_is_the_same_wherever_its_arrays_are_on_their_way(share, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "HELD_SHARE", share)
    kept = sd.knn_graph(ROWS, 5, scratch=str(tmp_path / "files"))
    near = sd.knn_graph(ROWS, 5)
    assert np.array_equal(near.indices, kept.indices)
    assert near.values.tobytes() == kept.values.tobytes()


def test_lists_and_proposals_are_let_go_of_when_they_are_merged(monkeypatch):
    released: list[str] = []

    class Watched(HeldStore):
        def release(self, refs):
            refs = list(refs)
            released.extend(ref.key.split("/")[1].rsplit("-", 1)[0] for ref in refs)
            super().release(refs)

    monkeypatch.setattr(places, "HeldStore", Watched)
    sd.knn_graph(ROWS, 5)
    assert {"proposed", "links", "lists"} <= set(released)
    assert "block" not in released, "the partition's rows are read to the end"
