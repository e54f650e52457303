"""Whatever a key, a name, an id or a stored file says: nothing outside the store, nothing executed.

Keys and names are refused unless they stay inside; ids are data and may say anything; what lies in
a store is read as numbers, tables and JSON, or refused as damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import simdist as sd
from simdist.cli.app import app
from simdist.errors import ConfigError, InputError, IntegrityError, SimdistError, StoreError
from simdist.runner.plan import Record
from simdist.store import Manifest, Shard, Store, open_store
from simdist.store.maintenance import gc
from simdist.store.sealed import seal
from simdist.types import ObjectRef

ROOT = Path(__file__).parents[1]
OUTSIDE = [
    "../x", "a/../../x", "..", ".", "/etc/passwd", "//host/x", "a//b", "a/./b", "a/", "",
    "..\\..\\x", "C:\\x", "a\\b", "a\0b", "a\nb", "\x1b[31m", "a\x7fb", "a\x85b", "a\u2028b",
    "a\ud800b", "x" * 1025, "é" * 513,
]  # fmt: skip
HARMLESS = ["a..b", "...", "%2e%2e/%2e%2e/x", "a%00b", "~", "~root/x", "$HOME", "a b", "C:x",
            "\uff0e\uff0e/x", "a\uff0fb", "\uff45tc", "e\u0301", "-rf", "*", "a?b#c"]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# -- keys and names --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", OUTSIDE)
def test_a_key_outside_the_store_is_refused_by_every_use(store: Store, key: str) -> None:
    objects = store.objects
    for use in (
        lambda: objects.put(key, b"x"),
        lambda: objects.put_once(key, b"x"),
        lambda: objects.get(key),
        lambda: objects.get_range(key, 0, 1),
        lambda: objects.head(key),
        lambda: objects.open(key),
        lambda: objects.delete([key]),
        lambda: objects.local_path(key),
    ):
        with pytest.raises(ConfigError, match="object key"):
            use()
    assert not Path(store.objects.place.root).exists()


@pytest.mark.parametrize("key", HARMLESS)
def test_a_strange_key_inside_the_store_is_the_same_file_for_every_use(
    store: Store, tmp_path: Path, key: str
) -> None:
    assert_inside(store, tmp_path, key)


@given(st.text(alphabet=st.sampled_from("./\\%2eE~ab\0\n\u2024\uff0f#1é"), max_size=12))
def test_no_text_is_a_key_that_leaves_the_store(
    tmp_path_factory: pytest.TempPathFactory, key: str
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    store = open_store(folder / "store")
    try:
        assert_inside(store, folder, key)
    except ConfigError:
        assert files(folder) == set()


def assert_inside(store: Store, folder: Path, key: str) -> None:
    store.objects.put(key, b"x")
    root = Path(store.objects.place.root)
    assert files(folder) == {str(root.relative_to(folder) / key)}
    path = store.objects.local_path(key)
    assert path is not None
    assert path.read_bytes() == b"x"
    assert [info.key for info in store.objects.list("")] == [key]
    store.objects.delete([key])
    assert files(folder) == set()


def test_a_part_that_no_file_system_takes_is_an_error_that_says_so(store: Store) -> None:
    with pytest.raises(StoreError, match=r"cannot put .*xxx.* Unable to open file"):
        store.objects.put("x" * 300, b"x")


@pytest.mark.parametrize(
    "text", ["../../x", "/etc/passwd", "a\0b", "a\nb", "a\\b", "é", "", "a" * 300]
)
def test_names_kinds_tasks_and_fingerprints_are_refused_alike(store: Store, text: str) -> None:
    for use in (
        lambda: store.name(text, "0" * 32),
        lambda: store.dataset(text),
        lambda: store.write_json(text, {}),
        lambda: store.write_record("0" * 32, text, {}),
        lambda: store.read_record("0" * 32, text),
        lambda: store.write_record(text, "task", {}),
        lambda: store.manifest(text),
        lambda: store.list_records(text),
    ):
        with pytest.raises(ConfigError):
            use()
    assert not Path(store.objects.place.root).exists()


@pytest.mark.parametrize("task", ["..", "a/../../../x", "/x", "a//b", "./a"])
def test_a_task_key_of_plain_letters_cannot_climb(store: Store, task: str) -> None:
    with pytest.raises(ConfigError):
        store.write_record("0" * 32, f"{task}/x", {})
    with pytest.raises(ConfigError):
        store.read_record("0" * 32, f"{task}/x")


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket/../other", "s3://bucket/a\\..\\b", "s3://bucket/a\nb", "s3://../x", "s3://b\0b/x",
     "s3://bucket/x?prefix=/", "memory://../x", "file://host/etc", "file:///a%00b", "a\0b",
     "s3://" + "b" * 64, "s3://bucket/" + "x" * 1025],
)  # fmt: skip
def test_an_address_that_hides_something_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        open_store(uri)


# -- ids are data ----------------------------------------------------------------------------------

IDS = ["../../etc/passwd", "/etc/passwd", "a\0b", "\x1b]0;owned\x07", "[red]rich[/red]", "a\nb", "",
       "<script>alert(1)</script>", "`|`", "'; DROP TABLE x; --", "=1+1", "\u202egnp.exe", "C:\\x",
       "x" * 3000]  # fmt: skip


def test_ids_may_say_anything_and_are_shown_without_taking_effect(tmp_path: Path) -> None:
    names = [*IDS, *(f"id-{row}" for row in range(120))]
    rng = np.random.default_rng(0)
    flat = pa.array(rng.standard_normal(len(names) * 4).astype(np.float32))
    table = pa.table({"name": names, "v": pa.FixedSizeListArray.from_arrays(flat, 4)})
    pq.write_table(table, tmp_path / "ids.parquet")
    before = files(tmp_path)
    shown = [name for name in IDS if name]  # an empty example is refused by the config
    config = {
        "name": "ids",
        "store": str(tmp_path / "store"),
        "engine": {"kind": "local", "workers": 1},
        "inputs": {"ids": {"path": str(tmp_path / "ids.parquet"), "id": "name", "vector": "v"}},
        "steps": {"graph": {"stage": "knn_graph", "of": "ids", "k": 3, "method": "exact"}},
        "examples": shown,
    }
    (tmp_path / "ids.yaml").write_text(json.dumps(config))
    before |= {"ids.yaml"}
    printed = ""
    for pair in (shown[2:4], shown[4:6], shown[10:12]):  # side by side, more would be cut
        few = f"examples={json.dumps(pair)}"
        result = CliRunner().invoke(app, ["run", str(tmp_path / "ids.yaml"), "--set", few])
        assert result.exit_code == 0, result.output
        printed += result.stdout + result.stderr
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", printed)
    assert all(
        told in printed for told in ("[red]rich[/red]", r"a\x00b", r"\u202egnp.exe", r"a\nb")
    )
    as_json = CliRunner().invoke(app, ["run", str(tmp_path / "ids.yaml"), "--json"]).stdout
    told = json.loads(as_json.splitlines()[-1])
    assert [near["id"] for near in told["neighbors"]] == shown
    assert {name for name in files(tmp_path) if not name.startswith("store/")} == before
    store = open_store(tmp_path / "store")
    kept = store.read_table(store.dataset("ids.graph").shards[0].objects["graph"])
    assert sorted(kept["id"].to_pylist()) == sorted(names)
    keys = "".join(info.key for info in store.objects.list(""))
    assert not any(name in keys for name in shown)


def test_ids_stay_in_their_cell_of_a_markdown_table(tmp_path: Path) -> None:
    from simdist.report.markdown import _code

    for name in IDS:
        cell = _code(name)
        assert re.fullmatch(r"`([^`|\n]|\\\|)*`", cell), cell


# -- links -----------------------------------------------------------------------------------------


def test_a_link_in_a_folder_is_followed_when_read_and_replaced_when_written(
    store: Store, tmp_path: Path
) -> None:
    """An owner may move objects to another disk; no write or delete reaches through a link."""
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"mine")
    root = Path(store.objects.place.root)
    (root / "data").mkdir(parents=True)
    link = root / "data" / "link"
    link.symlink_to(outside)
    assert store.objects.get("data/link") == b"mine"
    assert store.objects.put_once("data/link", b"theirs") == b"mine"
    store.objects.put("data/link", b"theirs")
    assert not link.is_symlink()
    link.unlink()
    link.symlink_to(outside)
    store.objects.delete(["data/link"])
    assert not link.exists()
    assert outside.read_bytes() == b"mine"


def test_what_a_link_points_to_is_checked_like_any_object(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a password")
    ref = store.write_array("vectors", np.zeros(3))
    path = Path(store.objects.place.root, ref.key)
    path.unlink()
    path.symlink_to(tmp_path / "secret.txt")
    with pytest.raises(IntegrityError, match="is damaged") as error:
        store.read_array(ref)
    assert "a password" not in str(error.value)


def test_gc_removes_a_link_and_not_what_it_points_to(store: Store, tmp_path: Path) -> None:
    from datetime import timedelta

    outside = tmp_path / "outside.npy"
    outside.write_bytes(b"mine")
    ref = store.write_array("vectors", np.zeros(3))
    path = Path(store.objects.place.root, ref.key)
    path.unlink()
    path.symlink_to(outside)
    os.utime(outside, (0, 0))
    gc(store, delete=True, older_than=timedelta(0))
    assert not path.is_symlink()
    assert outside.read_bytes() == b"mine"


# -- what lies in a store may have been put there by somebody else ---------------------------------

FINGERPRINT = "a" * 32


def manifest_with(**ref: Any) -> dict[str, Any]:
    plain = {"key": "data/x-1.npy", "sha256": "0" * 64, "nbytes": 1}
    shard = Shard(1, {"vectors": ObjectRef(**plain)})  # type: ignore[arg-type]
    value = Manifest(FINGERPRINT, "import_vectors", 1, {}, {}, 1, (shard,)).to_json()
    value["shards"][0]["objects"]["vectors"] |= ref
    return value


@pytest.mark.parametrize(
    "ref",
    [
        {"key": "../../../etc/passwd"},
        {"key": "/etc/passwd"},
        {"key": "data/..\\..\\x"},
        {"key": "data/a\0b"},
        {"key": ["data"]},
        {"sha256": "../../../../home/me/x"},
        {"sha256": "ab/../../x"},
        {"sha256": None},
        {"nbytes": -1},
        {"nbytes": "12"},
        {"nbytes": 1e400},
        {"nbytes": True},
    ],
    ids=str,
)
def test_a_manifest_that_points_outside_is_refused_when_it_is_read(
    store: Store, ref: dict[str, Any]
) -> None:
    key = f"manifests/{FINGERPRINT}.json"
    value = manifest_with(**ref)
    if value["shards"][0]["objects"]["vectors"]["nbytes"] == 1e400:
        data = json.dumps(value).encode()
    else:
        data = seal(value, what="a hostile manifest")
    store.objects.put(key, data)
    with pytest.raises(IntegrityError, match=FINGERPRINT):
        store.manifest(FINGERPRINT)
    for verb in (["verify", f"{store.uri}/{key}"], ["show", f"{store.uri}/{key}"],
                 ["gc", store.uri, "--delete", "--older-than", "0s"]):  # fmt: skip
        result = CliRunner().invoke(app, verb)
        assert result.exit_code == 5, result.output


def test_a_record_that_points_outside_is_refused_when_it_is_read() -> None:
    for ref in ({"sha256": "ab/../../x"}, {"nbytes": -1}, {"key": 7}):
        objects = {"part": {"key": "data/x", "sha256": "0" * 64, "nbytes": 1, **ref}}
        with pytest.raises(IntegrityError, match="a record in the store"):
            Record.from_json({"task": "t", "objects": objects, "facts": {}})


def hostile_texts() -> dict[str, bytes]:
    whole = json.dumps(manifest_with()).encode()
    return {
        "deep": b"[" * 200_000 + b"]" * 200_000,
        "deep objects": b'{"format":' * 100_000 + b"1" + b"}" * 100_000,
        "deep within": whole[:-1] + b', "metrics": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
        "nan": whole.replace(b'"rows": 1', b'"rows": NaN'),
        "infinite": whole.replace(b'"rows": 1', b'"rows": 1e999'),
        "huge number": whole.replace(b'"rows": 1', b'"rows": ' + b"9" * 10_000),
        "twice": whole[:-1] + b', "rows": 7}',
        "a list": b"[]",
        "a pickle": pickle.dumps({"format": 1}),
        "no text": b"\xff\xfe\x00",
        "empty": b"",
    }


@pytest.mark.parametrize("name", hostile_texts())
def test_hostile_json_is_an_integrity_error_wherever_it_is_read(store: Store, name: str) -> None:
    data = hostile_texts()[name]
    store.objects.put(f"manifests/{FINGERPRINT}.json", data)
    store.objects.put(f"records/{FINGERPRINT}/task.json", data)
    store.objects.put("names/graph/00000001.json", data)
    for use in (
        lambda: store.manifest(FINGERPRINT),
        lambda: store.read_record(FINGERPRINT, "task"),
        lambda: store.dataset("graph"),
    ):
        with pytest.raises(IntegrityError):
            use()
    assert CliRunner().invoke(app, ["gc", store.uri]).exit_code == 5
    if name in ("deep", "deep objects", "a pickle", "no text", "empty"):
        with pytest.raises(IntegrityError, match="cannot be read"):
            store.read_json(vouched(store, "x.json", data))


def vouched(store: Store, name: str, data: bytes) -> ObjectRef:
    """An object with its true sha256, as whoever can write manifests can make one."""
    sha256 = hashlib.sha256(data).hexdigest()
    store.objects.put(f"data/{name}", data)
    return ObjectRef(f"data/{name}", sha256, len(data))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def npy(descr: str, shape: str = "(1,)", body: bytes = b"\0" * 64) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body


def hostile_arrays(bomb: Path) -> dict[str, bytes]:
    return {
        "pickled objects": npy("'|O'", body=pickle.dumps([Bomb(bomb)])),
        "pointers": npy("'|O'", body=b"\x41" * 64),
        "pointers of a size": npy("'O8'", body=b"\x41" * 64),
        "fields": npy("[('a', '|O')]"),
        "code": npy("__import__('os').mkdir('x')"),
        "text": npy("'<U4'"),
        "void": npy("'|V8'"),
        "dates": npy("'<M8'"),
        "too short": npy("'<f8'", shape="(1000000000,)"),
        "too large": npy("'<f8'", shape=f"({10**30},)"),
        "empty and too large": npy("'<f8'", shape=f"(0, {10**30})"),
        "a pickle": pickle.dumps(Bomb(bomb)),
        "nothing": b"",
    }


@pytest.mark.parametrize("name", hostile_arrays(Path("x")))
@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_an_array_that_is_none_is_refused_and_runs_nothing(
    tmp_path: Path, scheme: str, name: str
) -> None:
    store = open_store(tmp_path / "store" if scheme == "file" else f"memory://{tmp_path.name}")
    data = hostile_arrays(tmp_path / "bomb")[name]
    ref = vouched(store, "x.npy", data)
    with pytest.raises(IntegrityError, match="cannot be read"):
        store.read_array(ref)
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(SimdistError) as error:
        sd.import_vectors(str(tmp_path / "x.npy"), store=open_store(tmp_path / "import"))
    assert isinstance(error.value, InputError), repr(error.value)
    assert not (tmp_path / "bomb").exists()


def test_a_table_with_pickles_in_its_metadata_runs_nothing(tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "bomb"))
    extension = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": bomb,
    }
    flat = pa.array(np.arange(80, dtype=np.float32))
    fields = [
        pa.field("id", pa.int64(), metadata=extension),
        pa.field("vector", pa.list_(pa.float32(), 8), metadata=extension),
    ]
    arrays = [pa.array(range(10)), pa.FixedSizeListArray.from_arrays(flat, 8)]
    schema = pa.schema(fields, metadata={b"pandas": bomb, b"huggingface": bomb})
    path = tmp_path / "table.parquet"
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)
    store = open_store(tmp_path / "store")
    assert store.read_table(vouched(store, "x.parquet", path.read_bytes())).num_rows == 10
    assert sd.import_vectors(str(path), id="id", vector="vector", store=store).rows == 10
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", pickle.dumps([1]), b"PAR1" + b"\xff" * 100 + b"PAR1"]
)
def test_a_table_that_is_none_is_refused(store: Store, data: bytes) -> None:
    with pytest.raises(IntegrityError, match="cannot be read"):
        store.read_table(vouched(store, "x.parquet", data))


def test_pickles_are_read_from_the_engines_wire_and_nowhere_else() -> None:
    """A store, a cache or an input that were unpickled would be a way to run code on a cluster."""
    loads = re.compile(
        r"\b(?:cloud)?pickle\.(?:loads?|Unpickler)\b|allow_pickle\s*=\s*True"
        r"|\b(?:marshal|shelve|dill|joblib)\b|yaml\.(?:unsafe_)?load\(|\beval\(|\bexec\("
    )
    found = {
        str(path.relative_to(ROOT))
        for folder in ("simdist", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        if loads.search(path.read_text())
    }
    shipped_tests = {name for name in found if name.startswith("simdist/testing/")}
    assert found - shipped_tests == {"simdist/engine/task.py"}


def test_a_manifest_survives_being_read_by_who_checks_it(store: Store) -> None:
    ref = store.write_array("vectors", np.zeros(3))
    made = Manifest(FINGERPRINT, "stage", 1, {}, {}, 3, (Shard(3, {"vectors": ref}),))
    assert store.commit(made) == made
    assert store.manifest(FINGERPRINT) == made
    assert replace(made, rows=4) != made
