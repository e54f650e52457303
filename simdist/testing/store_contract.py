"""What every store promises, as tests: inherit, say how to open an empty store, run.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return open_store(tmp_path / "store")

Races run 16 wide: on threads everywhere, and on four processes of four threads each where the
store is `shared`.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from simdist.errors import ConfigError, ConflictError, InputError, IntegrityError, ObjectMissing
from simdist.store import Manifest, Shard, Store
from simdist.store.maintenance import abandon, gc, verify
from simdist.testing.objects_contract import LARGE, WIDE, ObjectsContract, processes, race
from simdist.types import Array, ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["StoreContract"]

FINGERPRINT = "f" * 32
NOW = timedelta(0)


class StoreContract(ObjectsContract):
    """Inherit and provide the fixture `store`: an empty store, another one for every test."""

    # -- data --

    @pytest.mark.parametrize("array", [
        np.arange(12, dtype=np.float32).reshape(3, 4), np.array([[1.5], [-0.0]], np.float16),
        np.asfortranarray(np.arange(6, dtype=">i8").reshape(2, 3)), np.array(2.5),
        np.zeros((0, 7), np.float32), np.arange(10)[::3], np.array([True, False]),
    ], ids=lambda a: f"{a.dtype.str}{list(a.shape)}")  # fmt: skip
    def test_an_array_comes_back_as_it_was(self, store: Store, array: Array) -> None:
        ref = store.write_array("vectors", array)
        back = store.read_array(ref)
        assert back.dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(back, array, strict=back.dtype == array.dtype)
        np.testing.assert_array_equal(np.load(io.BytesIO(store.objects.get(ref.key))), array)
        assert not back.flags.writeable
        assert ref.key == f"data/vectors-{ref.sha256}.npy"

    def test_a_large_array_comes_back_and_does_not_follow_its_source(self, store: Store) -> None:
        source = np.random.default_rng(2).random(LARGE // 4)
        ref = store.write_array("vectors", source)
        wanted = source.copy()
        source[:] = 0
        np.testing.assert_array_equal(store.read_array(ref), wanted)

    @pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(2, "f4,i4")])
    def test_an_array_of_no_numbers_is_refused(self, store: Store, array: Array) -> None:
        with pytest.raises(ConfigError, match="cannot be stored"):
            store.write_array("vectors", array)

    def test_equal_values_are_one_object(self, store: Store) -> None:
        before = [store.write_array("a", _array()), store.write_table("t", _table(1))]
        after = [store.write_array("a", _array().copy("F")), store.write_table("t", _table(7))]
        assert before == after
        assert store.write_json("j", {"a": 1, "b": 2}) == store.write_json("j", {"b": 2, "a": 1})
        assert len(list(store.objects.list("data"))) == 3

    def test_another_process_gives_the_same_bytes(self, store: Store) -> None:
        here = [store.write_array("a", _array()), store.write_table("t", _table(1))]
        with processes(1) as pool:
            there = pool.submit(_names_elsewhere).result(120)
        assert [(ref.key, ref.nbytes) for ref in here] == there

    def test_a_table_comes_back_as_it_was(self, store: Store) -> None:
        ref = store.write_table("graph", _table(3))
        assert store.read_table(ref).equals(_table(1))
        assert store.read_table(ref, ["id"]).column_names == ["id"]

    def test_duckdb_reads_a_table_without_simdist(self, store: Store, tmp_path: Path) -> None:
        import duckdb  # noqa: PLC0415 - of the test extra, and heavy

        file = tmp_path / "graph.parquet"
        file.write_bytes(store.objects.get(store.write_table("graph", _table(1)).key))
        with duckdb.connect() as database:
            lists = database.execute(f"SELECT values FROM '{file}' ORDER BY row").fetchall()
            kinds = database.execute(f"SELECT typeof(neighbors), typeof(values) FROM '{file}'")
            neighbors, values = kinds.fetchall()[0]
        assert neighbors.startswith("BIGINT[")
        assert values.startswith("FLOAT[")
        assert [list(row) for (row,) in lists] == _table(1)["values"].to_pylist()

    def test_json_comes_back_and_nan_is_refused(self, store: Store) -> None:
        value = {"b": [1, None, "ü"], "a": {"x": 0.1}}
        assert store.read_json(store.write_json("round", value)) == value
        for bad in (float("nan"), np.int64(1), {1, 2}):
            with pytest.raises(InputError, match="the value of round cannot be written as JSON"):
                store.write_json("round", [bad])

    @pytest.mark.parametrize("kind", ["array", "table", "json"])
    def test_a_flipped_byte_is_an_error_naming_the_object(self, store: Store, kind: str) -> None:
        ref = _write(store, kind)
        assert store.whole(ref)
        flipped = _flip(store, ref)
        with pytest.raises(IntegrityError) as error:
            _read(store, kind, ref)
        for told in (f"{store.uri}/{ref.key}", ref.sha256, flipped, f"{ref.nbytes} bytes"):
            assert told in str(error.value)
        assert pickle.loads(pickle.dumps(error.value)).args == error.value.args

    @pytest.mark.parametrize("kind", ["array", "table", "json"])
    def test_a_cut_or_lost_object_is_an_error_and_is_written_again(
        self, store: Store, kind: str
    ) -> None:
        ref = _write(store, kind)
        store.objects.put(ref.key, store.objects.get(ref.key)[:-3])
        assert not store.whole(ref)
        with pytest.raises(IntegrityError, match=f"{ref.nbytes - 3} bytes"):
            _read(store, kind, ref)
        assert _write(store, kind) == ref
        assert store.whole(ref)
        store.objects.delete([ref.key])
        assert not store.whole(ref)
        with pytest.raises(ObjectMissing, match="vouches for it"):
            _read(store, kind, ref)
        _read(store, kind, _write(store, kind))

    def test_many_threads_read_one_object(self, store: Store) -> None:
        ref = store.write_array("vectors", _array())
        for seen in race(lambda _: store.read_array(ref)):
            np.testing.assert_array_equal(seen, _array())

    def test_scratch_keeps_arrays_for_an_engine(self, store: Store) -> None:
        handle = store.scratch().save(_array())
        if store.shared:
            handle = pickle.loads(pickle.dumps(handle))
        np.testing.assert_array_equal(handle.load(), _array())

    def test_a_shared_store_travels(self, store: Store) -> None:
        if store.shared:
            again = pickle.loads(pickle.dumps(store))
            assert again == store
            assert hash(again) == hash(store)
            store.objects.put("a", b"1")
            assert again.objects.get("a") == b"1"

    # -- records and manifests --

    def test_the_first_record_stands(self, store: Store) -> None:
        assert store.read_record(FINGERPRINT, "leaf-1") is None
        assert store.write_record(FINGERPRINT, "leaf-1", {"facts": {"n": 1}}) == {"facts": {"n": 1}}
        assert store.write_record(FINGERPRINT, "leaf-1", {"facts": {"n": 2}}) == {"facts": {"n": 1}}
        assert store.read_record(FINGERPRINT, "leaf-1") == {"facts": {"n": 1}}
        assert store.list_records(FINGERPRINT) == {"leaf-1"}
        assert store.list_records("0" * 32) == set()

    def test_a_race_of_commits_has_one_winner_whom_everyone_reads(self, store: Store) -> None:
        def commit(i: int) -> str:
            try:
                store.commit(_manifest(rows=i))
            except ConflictError as error:
                return str(error)
            return f"won {i}"

        answers = race(commit)
        won = [answer for answer in answers if answer.startswith("won ")]
        assert len(won) == 1
        assert store.dataset(FINGERPRINT).rows == int(won[0].removeprefix("won "))
        assert all("differs in rows" in answer for answer in answers if answer != won[0])

    def test_committing_the_same_again_is_no_conflict(self, store: Store) -> None:
        assert set(race(lambda _: store.commit(_manifest(rows=3)).to_bytes())) == {
            _manifest(rows=3).to_bytes()
        }

    def test_a_reader_never_sees_half_a_dataset(self, store: Store) -> None:
        shards = []
        for i in range(3):
            with pytest.raises(ObjectMissing, match=f"not complete.* {i} task records do"):
                store.dataset(FINGERPRINT)
            assert store.manifest(FINGERPRINT) is None
            ref = store.write_array("vectors", _array() + i)
            store.write_record(FINGERPRINT, f"part-{i}", {"objects": {"vectors": ref.to_json()}})
            shards.append(Shard(rows=len(_array()), objects={"vectors": ref}))
        store.commit(_manifest(rows=3 * len(_array()), shards=shards))
        dataset = store.dataset(FINGERPRINT)
        assert dataset.rows == sum(shard.rows for shard in dataset.shards)
        for i, shard in enumerate(dataset.shards):
            np.testing.assert_array_equal(store.read_array(shard.objects["vectors"]), _array() + i)

    def test_a_manifest_is_readable_json_and_comes_back_as_it_was(self, store: Store) -> None:
        ref = store.write_json("x", 1)
        manifest = _manifest(rows=1, shards=[Shard(1, {"x": ref}, {"first": 0})])
        store.commit(manifest)
        text = store.objects.get(f"manifests/{FINGERPRINT}.json").decode()
        assert json.loads(text)["shards"][0]["objects"]["x"]["sha256"] == ref.sha256
        assert len(text.splitlines()) > 10
        assert store.dataset(FINGERPRINT).manifest == manifest
        assert store.dataset(store.dataset(FINGERPRINT).uri).manifest == manifest

    def test_a_damaged_manifest_is_named(self, store: Store) -> None:
        store.objects.put(f"manifests/{FINGERPRINT}.json", b'{"format": 1')
        with pytest.raises(IntegrityError, match=f"manifests/{FINGERPRINT}.json is no manifest"):
            store.dataset(FINGERPRINT)

    # -- names, memos, leases --

    def test_names_are_numbered_and_kept(self, store: Store) -> None:
        for i in range(9):
            fingerprint = f"{i:032x}"
            assert store.name("graph", fingerprint) == i + 1
            assert store.name("graph", fingerprint) == i + 1
            store.commit(_manifest(rows=i, fingerprint=fingerprint))
        assert store.dataset("graph").rows == 8
        assert store.dataset("graph@latest").rows == 8
        assert store.dataset("graph@3").rows == 2
        with pytest.raises(ObjectMissing, match="the latest is graph@9"):
            store.dataset("graph@10")
        with pytest.raises(ObjectMissing, match="no dataset is named 'other'"):
            store.dataset("other")
        for wrong in ("../x", "a/b", "graph@x", "graph@0", "s3://elsewhere/manifests/x.json"):
            with pytest.raises(ConfigError):
                store.dataset(wrong)

    def test_a_race_for_a_name_gives_every_dataset_its_number(self, store: Store) -> None:
        numbers = race(lambda i: store.name("graph", f"{i:032x}"))
        assert sorted(numbers) == list(range(1, WIDE + 1))

    def test_the_first_memo_stands_under_any_key(self, store: Store) -> None:
        key = 's3://lake/part 0.parquet\n123 "etag"'
        assert store.memo(key) is None
        assert store.write_memo(key, {"sha": 1}) == {"sha": 1}
        assert store.write_memo(key, {"sha": 2}) == {"sha": 1}
        assert store.memo(key) == {"sha": 1}

    def test_a_run_is_cancelled_alone(self, store: Store) -> None:
        with store.lease("run-1", {"stage": "x"}):
            store.cancel("run-1")
        assert store.cancelled("run-1")
        assert not store.cancelled("run-2")

    # -- maintenance --

    def test_verify_finds_every_damaged_object(self, store: Store) -> None:
        refs = [store.write_array("vectors", _array() + i) for i in range(4)]
        store.commit(_manifest(rows=4, shards=[Shard(1, {"v": ref}) for ref in refs]))
        dataset = store.dataset(FINGERPRINT)
        assert verify(store, dataset).ok
        flipped = _flip(store, refs[1])
        store.objects.delete([refs[3].key])
        report = verify(store, dataset)
        assert (report.ok, report.objects) == (False, 4)
        problems = {damage.key: damage.problem for damage in report.damaged}
        assert problems.keys() == {refs[1].key, refs[3].key}
        assert flipped in problems[refs[1].key]
        assert "does not exist" in problems[refs[3].key]

    def test_gc_takes_what_nothing_references_and_asks_first(self, store: Store) -> None:
        kept = store.write_array("vectors", _array())
        unfinished = store.write_array("vectors", _array() + 1)
        loose = store.write_array("vectors", _array() + 2)
        store.commit(_manifest(rows=1, shards=[Shard(1, {"v": kept})]))
        store.write_record(FINGERPRINT, "done", {"objects": {"v": kept.to_json()}})
        other = "a" * 32
        store.write_record(other, "part", {"objects": {}, "facts": {"v": [unfinished.to_json()]}})
        assert gc(store).keys == ()  # all of it is young
        dry = gc(store, older_than=NOW)
        assert dry.keys == (loose.key, f"records/{FINGERPRINT}/done.json")
        assert store.whole(loose)
        wet = gc(store, delete=True, older_than=NOW)
        assert (wet.keys, wet.nbytes, wet.kept, wet.deleted) == (dry.keys, dry.nbytes, 2, True)
        assert [store.whole(ref) for ref in (kept, unfinished, loose)] == [True, True, False]
        assert abandon(store, other) == 1
        assert gc(store, delete=True, older_than=NOW).keys == (unfinished.key,)
        assert verify(store, store.dataset(FINGERPRINT)).ok

    def test_gc_stops_before_a_record_it_cannot_read(self, store: Store) -> None:
        loose = store.write_array("vectors", _array())
        store.objects.put(f"records/{FINGERPRINT}/part.json", b"{")
        with pytest.raises(IntegrityError, match="nothing was removed"):
            gc(store, delete=True, older_than=NOW)
        assert store.whole(loose)


def _names_elsewhere() -> list[tuple[str, int]]:
    from simdist.store import open_store  # noqa: PLC0415 - another process's own store

    store = open_store("memory://elsewhere")
    refs = [store.write_array("a", _array()), store.write_table("t", _table(2))]
    return [(ref.key, ref.nbytes) for ref in refs]


def _array() -> Array:
    return np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)


def _table(chunks: int) -> pa.Table:
    """A small k-NN graph, cut into so many chunks."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    rng = np.random.default_rng(0)
    n, k = 700, 5
    neighbors = pa.array(rng.integers(0, n, n * k))
    values = pa.array(rng.random(n * k, dtype=np.float32))
    whole = pa.table(
        {
            "row": pa.array(np.arange(n)),
            "id": [f"package-{i}" for i in range(n)],
            "neighbors": pa.FixedSizeListArray.from_arrays(neighbors, k),
            "values": pa.FixedSizeListArray.from_arrays(values, k),
        },
        metadata={"cut into": str(chunks)},
    )
    step = -(-n // chunks)
    return pa.concat_tables([whole.slice(start, step) for start in range(0, n, step)])


def _manifest(
    *, rows: int, shards: Sequence[Shard] = (), fingerprint: str = FINGERPRINT
) -> Manifest:
    return Manifest(
        fingerprint=fingerprint,
        stage="contract",
        version=1,
        config={"k": 15, "measure": "cosine"},
        inputs={"vectors": "0" * 32},
        rows=rows,
        shards=tuple(shards),
        metrics={"recall": {"estimate": 0.97, "low": 0.95, "high": 0.98}},
    )


def _write(store: Store, kind: str) -> ObjectRef:
    if kind == "array":
        return store.write_array("kept", _array())
    return (
        store.write_table("kept", _table(1))
        if kind == "table"
        else store.write_json("kept", 123_456)
    )


def _read(store: Store, kind: str, ref: ObjectRef) -> Any:
    return getattr(store, f"read_{kind}")(ref)


def _flip(store: Store, ref: ObjectRef) -> str:
    """Flip one bit in the middle of an object; the sha256 it has now."""
    data = bytearray(store.objects.get(ref.key))
    data[len(data) // 2] ^= 1
    store.objects.put(ref.key, bytes(data))
    return hashlib.sha256(data).hexdigest()
