"""Drivers and gc at once: who sees whom, who waits, and what a killed one leaves."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from simdist.errors import ConflictError, StoreError
from simdist.store import Store, leases, maintenance, open_store
from simdist.types import ObjectRef

NOW = timedelta(0)
DEADLINE_SECONDS = 60.0
PAYLOAD = {"stage": "knn_graph", "fingerprint": "f" * 32}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def loose(store: Store, number: int = 0) -> ObjectRef:
    """Data that nothing references."""
    return store.write_array("loose", np.full(100, number))


def sweep(store: Store) -> maintenance.GcReport:
    return maintenance.gc(store, delete=True, older_than=NOW)


def aged(store: Store, key: str, age: timedelta) -> None:
    """As if it had last been written so long ago."""
    path = store.objects.local_path(key)
    assert path is not None
    then = (datetime.now(UTC) - age).timestamp()
    os.utime(path, (then, then))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_driver_at_work_keeps_whatever_is_younger_than_a_day(store: Store) -> None:
    before = loose(store, 1)  # of a run that was killed; the driver's tasks may build on it
    with store.lease("run", PAYLOAD):
        during = loose(store, 2)
        report = sweep(store)
        assert report.keys == ()
        assert [store.whole(ref) for ref in (before, during)] == [True, True]
    why = "\n".join(report.why)
    assert "2 objects" in why
    assert f"driver is at work on knn_graph {'f' * 32}" in why
    assert "stops counting at" in why
    assert set(sweep(store).keys) == {before.key, during.key}  # it has ended


def test_what_is_older_than_a_day_goes_beside_a_driver(store: Store) -> None:
    old, young = loose(store, 1), loose(store, 2)
    aged(store, old.key, timedelta(hours=25))
    with store.lease("run", PAYLOAD):
        assert sweep(store).keys == (old.key,)
    assert store.whole(young)


def test_a_dry_run_says_what_a_driver_at_work_keeps(store: Store) -> None:
    loose(store)
    with store.lease("run", PAYLOAD):
        report = maintenance.gc(store, older_than=NOW)
        assert (report.keys, report.deleted) == ((), False)
        assert any("a driver is at work" in line for line in report.why)
    assert len(maintenance.gc(store, older_than=NOW).keys) == 1


def test_the_lease_of_a_killed_driver_ends_by_itself(store: Store) -> None:
    ref = loose(store)
    lease = "leases/killed/driver.json"
    store.objects.put(lease, b'{"fingerprint": "x", "stage": "knn_graph"}')
    assert sweep(store).keys == ()
    aged(store, lease, leases.LIVES + timedelta(seconds=1))
    assert set(sweep(store).keys) == {ref.key, lease}


def test_a_lease_that_cannot_be_read_counts_until_it_ends(store: Store) -> None:
    loose(store)
    store.objects.put("leases/odd/driver.json", b"{")
    report = sweep(store)
    assert report.keys == ()
    assert any("a driver is at work on ?" in line for line in report.why)


def test_a_driver_renews_its_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    key = "leases/run/driver.json"
    with store.lease("run", PAYLOAD):
        aged(store, key, timedelta(hours=1))

        def renewed() -> bool:
            info = store.objects.head(key)
            return info is not None and datetime.now(UTC) - info.modified < leases.LIVES

        wait_for(renewed)
    assert store.objects.head(key) is None


def test_a_driver_waits_until_gc_has_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.01)
    driving = threading.Event()

    def drive() -> None:
        with store.lease("run", PAYLOAD):
            driving.set()

    driver = threading.Thread(target=drive)
    with leases.sweeping(store.objects):
        driver.start()
        wait_for(lambda: store.objects.head("leases/run/driver.json") is not None)
        assert not driving.wait(0.3)
    assert driving.wait(DEADLINE_SECONDS)
    driver.join(DEADLINE_SECONDS)


def test_a_driver_does_not_wait_for_a_gc_that_began_after_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one gc after another would keep it waiting for ever."""

    def another(_: float) -> None:
        store.objects.put(leases.SWEEP, b'{"gc": "later"}')

    monkeypatch.setattr(leases.time, "sleep", another)
    store.objects.put(leases.SWEEP, b'{"gc": "earlier"}')
    with store.lease("run", PAYLOAD):
        assert store.objects.get(leases.SWEEP) == b'{"gc": "later"}'


def test_a_driver_does_not_wait_for_a_gc_that_was_killed(store: Store) -> None:
    store.objects.put(leases.SWEEP, b"{}")
    aged(store, leases.SWEEP, leases.LIVES + timedelta(seconds=1))
    with store.lease("run", PAYLOAD):
        pass


def test_a_driver_says_so_when_gc_does_not_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SWEEP_SECONDS", -1.0)
    with (
        leases.sweeping(store.objects),
        pytest.raises(StoreError, match=r"Run again .* delete file://.*leases/gc.json"),
        store.lease("run", PAYLOAD),
    ):
        pass
    assert list(store.objects.list("leases")) == []  # it holds no lease while it does not work


def test_one_gc_at_a_time_and_a_killed_one_does_not_count(store: Store) -> None:
    loose(store)
    with leases.sweeping(store.objects), pytest.raises(ConflictError, match="another gc is at"):
        sweep(store)
    store.objects.put(leases.SWEEP, b"{}")  # of one that was killed
    aged(store, leases.SWEEP, leases.LIVES + timedelta(seconds=1))
    assert len(sweep(store).keys) == 1
    assert list(store.objects.list("leases")) == []


def test_staged_files_of_killed_writers_go_once_they_are_old(store: Store) -> None:
    ref = loose(store)
    left = store.objects.local_path(ref.key)
    assert left is not None
    left = left.with_name(f"{left.name}#1")
    left.write_bytes(b"half of it")
    assert maintenance.gc(store, delete=True).keys == ()  # it may be at work
    aged(store, ref.key, timedelta(hours=25))
    os.utime(left, (0, 0))
    assert maintenance.gc(store).keys == (ref.key, f"{ref.key}#1")
    assert left.exists()
    assert maintenance.gc(store, delete=True).keys == (ref.key, f"{ref.key}#1")
    assert not left.exists()


def test_gc_says_what_it_keeps_for_whom(store: Store) -> None:
    kept, other = loose(store, 1), loose(store, 2)
    job = "a" * 32
    store.write_record(job, "part", {"objects": {"v": kept.to_json()}, "facts": {}})
    why = maintenance.gc(store).why
    assert why == (
        f"1 object, {kept.nbytes / 1024:.1f} KiB: of the unfinished job {job}: run its flow again"
        f" to finish it, or give it up with --abandon {job}",
        f"1 object, {other.nbytes / 1024:.1f} KiB: younger than 24 h",
    )
