"""What the objects of every store promise: the half of `StoreContract` that knows only bytes."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from simdist.errors import ConfigError, ObjectMissing
from simdist.store import Store

__all__ = ["ObjectsContract", "processes", "race"]

WIDE = 16  # of a race
LARGE = (8 << 20) + 12_345  # bytes: more than one part of a transfer


class ObjectsContract:
    """Bytes by key: seen whole or not at all, created once, never outside the store.

    Inherited through `StoreContract`, whose fixture `store` it uses.
    """

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("a class that inherits StoreContract gives the fixture `store`")

    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SIMDIST_CACHE_DIR", str(tmp_path / "cache"))

    # -- objects --

    @pytest.mark.parametrize("nbytes", [0, 1, LARGE])
    def test_what_is_put_is_got(self, store: Store, nbytes: int) -> None:
        data = np.random.default_rng(nbytes).bytes(nbytes)
        store.objects.put("a/b c/ü.bin", data)
        assert store.objects.get("a/b c/ü.bin") == data
        assert store.objects.digest("a/b c/ü.bin") == (hashlib.sha256(data).hexdigest(), nbytes)
        info = store.objects.head("a/b c/ü.bin")
        assert info is not None
        assert (info.key, info.nbytes) == ("a/b c/ü.bin", nbytes)

    def test_pieces_are_laid_end_to_end(self, store: Store) -> None:
        pieces: list[bytes | memoryview] = [b"head", memoryview(bytes(LARGE)), b"tail"]
        store.objects.put("pieces", pieces)
        assert store.objects.get("pieces") == b"".join(pieces)

    def test_a_put_over_an_object_replaces_it(self, store: Store) -> None:
        store.objects.put("a", b"first, and longer")
        store.objects.put("a", b"second")
        assert store.objects.get("a") == b"second"

    @pytest.mark.parametrize("ask", ["get", "buffer", "open", "digest"])
    def test_an_absent_object_is_missing_and_named(self, store: Store, ask: str) -> None:
        with pytest.raises(ObjectMissing, match=r"/no/such does not exist"):
            getattr(store.objects, ask)("no/such")
        with pytest.raises(ObjectMissing, match=r"/no/such does not exist"):
            store.objects.get_range("no/such", 0, 1)
        assert store.objects.head("no/such") is None

    def test_a_range_reads_what_is_there(self, store: Store) -> None:
        store.objects.put("digits", b"0123456789")
        assert store.objects.get_range("digits", 3, 4) == b"3456"
        assert store.objects.get_range("digits", 8, 100) == b"89"
        assert store.objects.get_range("digits", 8, 0) == b""

    def test_an_opened_object_seeks_like_a_file(self, store: Store) -> None:
        data = np.random.default_rng(1).bytes(300_000)
        store.objects.put("file", data)
        with store.objects.open("file") as file:
            assert file.seek(-5, io.SEEK_END) == len(data) - 5
            assert file.read() == data[-5:]
            file.seek(100_000)
            assert file.read(70_000) == data[100_000:170_000]
            assert file.tell() == 170_000

    def test_a_listing_is_of_whole_folders(self, store: Store) -> None:
        for key in ("data/x", "data/y/z", "database", "other/x"):
            store.objects.put(key, key.encode())
        assert {info.key: info.nbytes for info in store.objects.list("data")} == {
            "data/x": 6,
            "data/y/z": 8,
        }
        assert len(list(store.objects.list(""))) == 4
        assert list(store.objects.list("nothing")) == []

    def test_deleting_what_is_absent_is_no_error(self, store: Store) -> None:
        store.objects.put("a", b"1")
        store.objects.put("b", b"2")
        store.objects.delete(["absent", "a", "b"])
        store.objects.delete(["a"])
        store.objects.delete([])
        assert list(store.objects.list("")) == []

    @pytest.mark.parametrize(
        "key", ["", "/etc/passwd", "a/../../b", "..", "./a", "a//b", "a/", "a\nb", "a\0b", "a#1"]
    )
    def test_a_key_cannot_leave_its_store(self, store: Store, key: str) -> None:
        for use in (store.objects.get, store.objects.head, store.objects.local_path):
            with pytest.raises(ConfigError, match="object key"):
                use(key)
        with pytest.raises(ConfigError, match="object key"):
            store.objects.put(key, b"")
        with pytest.raises(ConfigError, match="object key"):
            store.objects.put_once(key, b"")

    def test_the_first_put_once_stands(self, store: Store) -> None:
        assert store.objects.put_once("once", b"first") == b"first"
        assert store.objects.put_once("once", b"second") == b"first"
        assert store.objects.get("once") == b"first"

    def test_a_race_of_threads_has_one_winner(self, store: Store) -> None:
        seen = race(lambda i: store.objects.put_once("race", b"%d" % i))
        assert set(seen) == {store.objects.get("race")}

    def test_a_race_of_processes_has_one_winner(self, store: Store) -> None:
        if not store.shared:
            with pytest.raises(ConfigError, match="lives in this process"):
                pickle.dumps(store)
            return
        with processes() as pool:
            answers = [future.result(120) for future in [pool.submit(_rush, store, n)
                       for n in range(4)]]  # fmt: skip
        seen = {answer for several in answers for answer in several}
        assert sum(map(len, answers)) == WIDE
        assert seen == {store.objects.get("race")}


def race(run: Callable[[int], Any]) -> list[Any]:
    """What `run(0) ... run(15)` return when they start at the same moment."""
    start = Barrier(WIDE)

    def one(i: int) -> Any:
        start.wait(60)
        return run(i)

    with ThreadPoolExecutor(WIDE) as pool:
        return list(pool.map(one, range(WIDE), timeout=120))


def processes(count: int = 4) -> ProcessPoolExecutor:
    """Fresh processes: spawned, because a forked one inherits the client without its threads."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def _rush(store: Store, process: int) -> list[bytes]:
    names = [b"%d" % (4 * process + thread) for thread in range(4)]
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda name: store.objects.put_once("race", name), names))
