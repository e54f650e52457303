"""A real S3 server behind a proxy that misbehaves: right bytes, or an error that names the object.

Faults are injected by count, on every operation of `Objects` and `Store`.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from s3_server import S3Server

from simdist.errors import ConflictError, IntegrityError, ObjectMissing, StoreError
from simdist.store import Manifest, ObjectInfo, Objects, Shard, Store, open_store
from simdist.store.maintenance import gc, verify
from simdist.testing.fault_proxy import (
    Corrupt,
    Fault,
    FaultProxy,
    Hold,
    IgnoreChecksums,
    IgnoreConditions,
    LostAnswer,
    ResetInBody,
    Rule,
    Slow,
    Status,
    Truncated,
)

pytestmark = pytest.mark.s3

SECONDS = 60.0
FINGERPRINT = "0123456789abcdef" * 2
SMALL = b"a small object of 31 bytes, whole"
LARGE = np.random.default_rng(3).bytes((8 << 20) + 4321)  # two parts

FAULTS: tuple[Fault, ...] = (
    Status(500),
    Status(503),
    Status(429),
    Slow(0.05),
    ResetInBody(),
    ResetInBody(side="answer"),
    Truncated(),
    Truncated(side="answer"),
    LostAnswer(),
)


@pytest.fixture(autouse=True)
def _wait_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults come by count here: nothing gets better while one waits."""
    monkeypatch.setattr("simdist.store.client.FIRST_WAIT", 0.01)


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(upstream=s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy, s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store behind the proxy."""
    monkeypatch.setenv("SIMDIST_CACHE_DIR", str(tmp_path / "cache"))
    return open_store(s3_uri, endpoint=proxy.endpoint)


@pytest.fixture
def direct(store: Store, s3_server: S3Server) -> Store:
    """The same store, past the proxy."""
    return open_store(store.uri, endpoint=s3_server.endpoint)


def impatient(store: Store) -> Store:
    """The same store, given up soon."""
    return open_store(store.uri, endpoint=store.objects.place.options.endpoint, patience=0.2)


# -- every fault, once, at every request of every operation --

Act = Callable[[Objects, Objects], None]


def _put(objects: Objects, direct: Objects) -> None:
    objects.put("new/small", [SMALL[:9], SMALL[9:]])
    assert direct.get("new/small") == SMALL


def _put_large(objects: Objects, direct: Objects) -> None:
    objects.put("new/large", LARGE)
    assert direct.digest("new/large") == (hashlib.sha256(LARGE).hexdigest(), len(LARGE))


def _put_once(objects: Objects, direct: Objects) -> None:
    assert objects.put_once("new/once", b"ours") == b"ours"
    assert direct.put_once("new/once", b"theirs") == b"ours"


def _lose_put_once(objects: Objects, direct: Objects) -> None:
    assert objects.put_once("kept/small", b"ours") == SMALL


def _head(objects: Objects, direct: Objects) -> None:
    info = objects.head("kept/small")
    assert info is not None
    assert info.nbytes == len(SMALL)
    assert objects.head("kept/absent") is None


def _list(objects: Objects, direct: Objects) -> None:
    assert {info.key: info.nbytes for info in objects.list("kept")} == {
        "kept/small": len(SMALL),
        "kept/large": len(LARGE),
    }


def _delete(objects: Objects, direct: Objects) -> None:
    direct.put("new/goes", b"1")
    objects.delete(["new/goes", "kept/absent"])
    assert direct.head("new/goes") is None


def _get(objects: Objects, direct: Objects) -> None:
    assert objects.get("kept/small") == SMALL
    with pytest.raises(ObjectMissing):
        objects.get("kept/absent")


def _get_range(objects: Objects, direct: Objects) -> None:
    assert objects.get_range("kept/large", 8 << 20, 99) == LARGE[8 << 20 :][:99]


def _open(objects: Objects, direct: Objects) -> None:
    with objects.open("kept/large") as file:
        assert file.read() == LARGE


READS: dict[str, Act] = {"get": _get, "get_range": _get_range, "open": _open, "list": _list}
OTHERS: dict[str, Act] = {
    "put": _put,
    "put of parts": _put_large,
    "put_once": _put_once,
    "put_once behind another": _lose_put_once,
    "head": _head,
    "delete": _delete,
}
HEAVY = ("put of parts", "open")  # megabytes each time


@pytest.mark.parametrize("operation", [*OTHERS, *READS])
def test_one_fault_at_any_request_changes_nothing(
    store: Store, direct: Store, proxy: FaultProxy, operation: str
) -> None:
    act = (OTHERS | READS)[operation]
    direct.objects.put("kept/small", SMALL)
    direct.objects.put("kept/large", LARGE)
    faults = FAULTS if operation not in HEAVY else (Status(503), ResetInBody(), LostAnswer())
    for fault in faults:
        for after in range(20):
            seen = len(proxy.log)
            proxy.rules = [Rule(fault, after=after, times=1)]
            act(store.objects, direct.objects)
            new = [info.key for info in direct.objects.list("new")]
            direct.objects.delete(new)
            if not any(entry.fault for entry in proxy.log[seen:]):
                assert after > 0
                break


@pytest.mark.parametrize("operation", ["put", "put of parts", "put_once"])
def test_a_body_damaged_on_its_way_in_is_refused_and_sent_again(
    store: Store, direct: Store, proxy: FaultProxy, operation: str
) -> None:
    proxy.rules = [Rule(Corrupt(), methods=("PUT",), times=1)]
    OTHERS[operation](store.objects, direct.objects)
    assert 400 in [entry.status for entry in proxy.log]


def test_a_store_that_lists_many_pages_is_listed_whole_whichever_page_fails(
    store: Store, direct: Store, proxy: FaultProxy
) -> None:
    keys = {f"many/{i:05d}" for i in range(1050)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: direct.objects.put(key, b"1"), keys))
    for fault in (Truncated(), Status(503)):
        for after in (0, 1):
            proxy.rules = [Rule(fault, after=after, times=1)]
            found = [info.key for info in store.objects.list("many")]
            assert len(found) == len(keys)
            assert set(found) == keys


# -- a store that stays broken --


@pytest.mark.parametrize("fault", [Status(503), Status(500), LostAnswer(), Truncated(), Corrupt()])
def test_a_write_that_never_gets_through_names_object_and_attempts(
    store: Store, proxy: FaultProxy, s3_server: S3Server, fault: Fault
) -> None:
    objects = impatient(store).objects
    proxy.rules = [Rule(fault)]
    uses = [lambda: objects.put("new/a", SMALL), lambda: objects.put_once("new/b", SMALL)]
    if fault != Corrupt():  # a delete that is damaged is not noticed by every server
        uses.append(lambda: objects.delete(["new/a"]))
    assert_fails(uses, objects, s3_server)


@pytest.mark.parametrize("fault", [Status(429), ResetInBody(), Truncated()])
def test_a_read_that_never_gets_through_names_object_and_attempts(
    store: Store, direct: Store, proxy: FaultProxy, s3_server: S3Server, fault: Fault
) -> None:
    direct.objects.put("new/a", SMALL)
    objects = impatient(store).objects
    proxy.rules = [Rule(fault)]
    assert_fails(
        [
            lambda: objects.get("new/a"),
            lambda: objects.get_range("new/a", 1, 2),
            lambda: objects.head("new/a"),
            lambda: list(objects.list("new/a")),
        ],
        objects,
        s3_server,
    )


def test_a_store_that_is_gone_is_an_error_that_says_how_long_it_was_tried(
    s3_uri: str, s3_server: S3Server
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    objects = open_store(s3_uri, endpoint=f"http://127.0.0.1:{port}", patience=0.2).objects
    uses = [
        lambda: objects.get("new/a"),
        lambda: objects.put_once("new/a", SMALL),
        lambda: objects.put("new/a", LARGE),
    ]
    assert_fails(uses, objects, s3_server)


def assert_fails(uses: Sequence[Callable[[], Any]], objects: Objects, server: S3Server) -> None:
    for use in uses:
        with pytest.raises(StoreError) as error:
            use()
        told = "".join(traceback.format_exception(error.value))
        assert re.search(rf"cannot .*{objects.uri}/new/[ab] after \d+ attempts? in \d", told)
        for secret in (server.access_key, server.secret_key, "Signature=", "Credential="):
            assert secret not in told


def test_a_wrong_request_is_not_repeated_for_a_minute(store: Store, proxy: FaultProxy) -> None:
    store.objects.put("new/a", SMALL)
    with pytest.raises(StoreError, match="416"):
        store.objects.get_range("new/a", 1000, 5)
    assert len(proxy.log) <= 1 + 4


# -- bodies that are damaged --


def contents(store: Store) -> dict[str, Callable[[], Any]]:
    """One of everything a store keeps, and how to read it again as plain values."""
    array = store.write_array("a", np.arange(50_000.0))
    table = store.write_table("t", pa.table({"x": list(range(999))}))
    value = store.write_json("j", {"x": [1, 2, 3]})
    store.write_record(FINGERPRINT, "part-1", {"rows": 12345})
    store.commit(manifest(rows=7, shards=(Shard(7, {"x": array}),)))
    store.name("graph", FINGERPRINT)
    store.write_memo("some key", {"x": 1})
    return {
        "array": lambda: store.read_array(array).tolist(),
        "table": lambda: store.read_table(table).to_pylist(),
        "json": lambda: store.read_json(value),
        "record": lambda: store.read_record(FINGERPRINT, "part-1"),
        "manifest": lambda: store.dataset(FINGERPRINT).manifest,
        "name": lambda: store.dataset("graph").rows,
        "memo": lambda: store.memo("some key"),
    }


def manifest(rows: int, shards: tuple[Shard, ...] = ()) -> Manifest:
    return Manifest(FINGERPRINT, "faulty", 1, {"k": 15}, {}, rows, shards)


def test_what_is_damaged_on_its_way_out_is_read_again_or_refused(
    store: Store, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {}
    for kind, read in contents(store).items():
        monkeypatch.setenv("SIMDIST_CACHE_DIR", str(tmp_path / f"{kind}-first"))
        expected[kind] = read()
    for kind, read in contents(store).items():
        proxy.rules = [Rule(Corrupt(side="answer"), methods=("GET",), times=1)]
        monkeypatch.setenv("SIMDIST_CACHE_DIR", str(tmp_path / f"{kind}-once"))
        assert read() == expected[kind]
        assert any(entry.fault for entry in proxy.log)
        proxy.rules = [Rule(Corrupt(side="answer"), methods=("GET",))]
        monkeypatch.setenv("SIMDIST_CACHE_DIR", str(tmp_path / f"{kind}-always"))
        with pytest.raises(IntegrityError, match=store.uri):
            read()


def test_a_store_that_checks_no_sums_cannot_pass_off_what_it_damaged(
    store: Store, proxy: FaultProxy
) -> None:
    proxy.rules = [Rule(IgnoreChecksums()), Rule(Corrupt(), methods=("PUT",))]
    reads = contents(store)
    proxy.rules = []
    for read in reads.values():
        with pytest.raises(IntegrityError, match=store.uri):
            read()


def test_every_byte_of_a_sealed_object_is_vouched_for(store: Store) -> None:
    """Any flipped bit, and any cut but that of white space, is found."""
    store.commit(manifest(rows=7))
    key = f"manifests/{FINGERPRINT}.json"
    data = store.objects.get(key)
    for i in range(len(data)):
        for wrong in (data[:i], data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]):
            with suppress(IntegrityError):
                assert Manifest.from_bytes(wrong, where=key) == manifest(rows=7)


def test_gc_takes_nothing_on_the_word_of_a_listing_that_was_damaged(
    store: Store, direct: Store, proxy: FaultProxy
) -> None:
    ref = direct.write_array("a", np.arange(10.0))
    direct.commit(manifest(rows=1, shards=(Shard(1, {"x": ref}),)))
    listing = direct.objects.list

    def damaged(prefix: str) -> Iterator[ObjectInfo]:
        for info in listing(prefix):
            yield replace(info, key=info.key.replace("0123", "0133"))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(direct.objects), "list", lambda _, prefix: damaged(prefix))
        with pytest.raises(StoreError, match="listed and does not exist"):
            gc(direct, delete=True, older_than=timedelta(seconds=-60))
    assert direct.whole(ref)


# -- records, commits --


def test_the_lost_answer_of_a_commit_is_read_back_as_one_s_own(
    store: Store, proxy: FaultProxy
) -> None:
    proxy.rules = [Rule(LostAnswer(), methods=("PUT",), times=4)]
    assert store.write_record(FINGERPRINT, "part-1", {"rows": 1}) == {"rows": 1}
    assert store.commit(manifest(rows=1)) == manifest(rows=1)
    assert store.name("graph", FINGERPRINT) == 1
    assert store.write_memo("k", 5) == 5
    lost = [entry for entry in proxy.log if entry.fault is not None]
    assert [entry.upstream for entry in lost] == [200] * 4
    assert store.name("graph", FINGERPRINT) == 1
    with pytest.raises(ConflictError, match="differs in rows"):
        store.commit(manifest(rows=2))


def test_a_damaged_answer_does_not_turn_one_s_own_commit_into_a_conflict(
    store: Store, proxy: FaultProxy
) -> None:
    store.commit(manifest(rows=1))
    proxy.rules = [Rule(Corrupt(side="answer"), methods=("GET",), times=1)]
    assert store.commit(manifest(rows=1)) == manifest(rows=1)
    assert proxy.log[-1].status == 200


def test_a_store_without_conditions_lets_the_last_writer_win(
    store: Store, proxy: FaultProxy
) -> None:
    """What `simdist doctor` warns of, shown: nothing on the client's side can make up for it."""
    proxy.rules = [Rule(IgnoreConditions())]
    assert store.objects.put_once("new/a", b"first") == b"first"
    assert store.objects.put_once("new/a", b"second") == b"second"


def test_readers_see_nothing_of_a_commit_that_is_under_way(
    store: Store, direct: Store, proxy: FaultProxy
) -> None:
    hold = Hold(threading.Event())
    proxy.rules = [Rule(hold, methods=("PUT",), path="/manifests/", times=1)]
    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(store.commit, manifest(rows=1))
        assert hold.reached.wait(SECONDS)
        assert direct.manifest(FINGERPRINT) is None
        assert direct.commit(manifest(rows=1)) == manifest(rows=1)  # another driver, meanwhile
        hold.release.set()
        assert committing.result(SECONDS) == manifest(rows=1)


def test_verify_through_a_faulty_store_finds_no_damage_where_there_is_none(
    store: Store, proxy: FaultProxy
) -> None:
    contents(store)
    proxy.rules = [Rule(fault, probability=0.05) for fault in FAULTS]
    assert verify(store, store.dataset(FINGERPRINT)).ok


def test_a_store_that_knows_no_sums_is_spared_them(
    proxy: FaultProxy, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sums_sent(open_store(s3_uri, endpoint=proxy.endpoint), proxy)
    assert not sums_sent(open_store(s3_uri, endpoint=proxy.endpoint, checksums=False), proxy)
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    assert not sums_sent(open_store(s3_uri, endpoint=proxy.endpoint), proxy)


def sums_sent(store: Store, proxy: FaultProxy) -> bool:
    """Whether a damaged upload is refused."""
    proxy.rules = [Rule(Corrupt(), methods=("PUT",), times=1)]
    store.objects.put("new/a", SMALL)
    return store.objects.get("new/a") == SMALL
