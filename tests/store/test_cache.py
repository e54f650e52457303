"""The worker's cache: bounded, checked, shared by processes."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from simdist.errors import ConfigError, IntegrityError
from simdist.store import Store, cache, open_store
from simdist.store.cache import WorkerCache, worker_cache
from simdist.testing.objects_contract import processes, race
from simdist.types import ObjectRef


class Source:
    """Objects to fetch, counting how often they were asked for."""

    def __init__(self) -> None:
        self.fetched = 0

    def ref(self, i: int, nbytes: int = 1000) -> tuple[ObjectRef, bytes]:
        data = np.random.default_rng(i).bytes(nbytes)
        sha = hashlib.sha256(data).hexdigest()
        return ObjectRef(f"data/x-{sha}.npy", sha, nbytes), data

    def use(self, where: WorkerCache, i: int, nbytes: int = 1000) -> bytes:
        ref, data = self.ref(i, nbytes)

        def fetch(fd: int) -> None:
            self.fetched += 1
            os.write(fd, data)

        return where.use(ref, where=ref.key, fetch=fetch, read=Path.read_bytes)


def size(where: WorkerCache) -> int:
    return sum(path.stat().st_size for path in where.root.iterdir())


def test_an_object_is_fetched_once(tmp_path: Path) -> None:
    source, where = Source(), WorkerCache(tmp_path / "cache", 10_000)
    assert [source.use(where, 1) for _ in range(3)] == [source.ref(1)[1]] * 3
    assert source.fetched == 1


def test_many_threads_fetch_an_object_once(tmp_path: Path) -> None:
    source, where = Source(), WorkerCache(tmp_path, 10_000)
    assert set(race(lambda _: source.use(where, 1))) == {source.ref(1)[1]}
    assert source.fetched == 1


def test_the_least_recently_used_go_first_and_the_bound_holds(tmp_path: Path) -> None:
    source, where = Source(), WorkerCache(tmp_path, 3500)
    for i in (1, 2, 3, 1, 4, 5):
        source.use(where, i)
        assert size(where) <= 3500
    assert {path.stem for path in tmp_path.iterdir()} == {
        source.ref(i)[0].sha256 for i in (1, 4, 5)
    }


def test_an_object_larger_than_the_bound_is_still_read(tmp_path: Path) -> None:
    source, where = Source(), WorkerCache(tmp_path, 10)
    source.use(where, 1)
    assert source.use(where, 2, nbytes=5000) == source.ref(2, 5000)[1]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_cached_file_is_fetched_again(tmp_path: Path) -> None:
    source, where = Source(), WorkerCache(tmp_path, 10_000)
    source.use(where, 1)
    next(tmp_path.iterdir()).write_bytes(b"x" * 1000)
    assert source.use(where, 1) == source.ref(1)[1]
    assert source.fetched == 2


def test_a_fetch_cut_short_once_is_fetched_again_and_twice_is_an_error(tmp_path: Path) -> None:
    where = WorkerCache(tmp_path, 10_000)
    ref, data = Source().ref(1)
    answers = [data[:10], data]
    got = where.use(ref, where="it", fetch=lambda fd: put(fd, answers.pop(0)), read=Path.read_bytes)
    assert got == data
    other, data = Source().ref(2)
    with pytest.raises(IntegrityError, match="it is damaged"):
        where.use(other, where="it", fetch=lambda fd: put(fd, data[:10]), read=Path.read_bytes)
    assert [path.stem for path in tmp_path.iterdir()] == [ref.sha256]


def put(fd: int, data: bytes) -> None:
    os.write(fd, data)


def test_what_a_dead_process_left_is_cleared_and_what_a_live_one_writes_is_not(
    tmp_path: Path,
) -> None:
    source, where = Source(), WorkerCache(tmp_path, 10_000)
    old, new = tmp_path / "tmp-1-a", tmp_path / "tmp-2-b"
    old.write_bytes(b"1")
    new.write_bytes(b"2")
    os.utime(old, (0, 0))
    source.use(where, 1)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_hash_is_computed_once_per_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    ref = store.write_array("vectors", np.zeros(1000))
    monkeypatch.setattr(cache, "_checked", OrderedDict())  # as in a process that did not write it
    digest, calls = hashlib.file_digest, []
    monkeypatch.setattr(
        cache.hashlib, "file_digest", lambda *args: calls.append(1) or digest(*args)
    )
    for _ in range(3):
        open_store(tmp_path).read_array(ref)
    assert len(calls) == 1
    path = store.objects.local_path(ref.key)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(IntegrityError):
        store.read_array(ref)


def test_the_environment_says_where_and_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMDIST_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("SIMDIST_CACHE_BYTES", "12345")
    assert (worker_cache().root, worker_cache().nbytes) == (tmp_path, 12345)
    assert worker_cache() is worker_cache()
    monkeypatch.setenv("SIMDIST_CACHE_BYTES", "a lot")
    with pytest.raises(ConfigError, match="SIMDIST_CACHE_BYTES is 'a lot'"):
        worker_cache()
    monkeypatch.delenv("SIMDIST_CACHE_BYTES")
    monkeypatch.delenv("SIMDIST_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert worker_cache().root == tmp_path / "xdg" / "simdist"
    assert worker_cache().nbytes > 0


@pytest.mark.s3
def test_processes_with_too_small_a_cache_still_read_right(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMDIST_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("SIMDIST_CACHE_BYTES", str(100_000))
    store = open_store(s3_uri)
    refs = [store.write_array("vectors", np.full(5_000, i, np.float64)) for i in range(6)]
    with processes(2) as pool:
        sums = list(pool.map(read_all, [store] * 4, [refs] * 4, timeout=120))
    assert sums == [[5_000.0 * i for i in range(6)] * 5] * 4
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200_000


def read_all(store: Store, refs: list[ObjectRef]) -> list[float]:
    return [float(store.read_array(ref).sum()) for _ in range(5) for ref in refs]
