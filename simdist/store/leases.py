"""Who is at work on a store: drivers, and `gc` that removes. Every clock here is the store's own.

    driver:  put leases/{run}/driver.json ──> is leases/gc.json alive?  then wait until it is not
    gc:      put leases/gc.json ──> is any driver's lease alive?  then take only what is a day old

Each writes its own object before it looks for the other's, so that one of the two sees the other,
whatever the timing: no compare-and-swap is needed, only that what was put is seen by the next head
and listing. A lease is renewed by writing it again, and alive while its last renewal is less than
LIVES ago: one whose owner was killed ends by itself.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from simdist.errors import ConflictError, ObjectMissing, StoreError
from simdist.store.formats import json_bytes
from simdist.store.objects import Objects
from simdist.types import Json

__all__ = ["LIVES", "Lease", "alive", "driving", "sweeping"]

LIVES = timedelta(minutes=5)  # since the last renewal
RENEW_SECONDS = 20.0
LOOK_SECONDS = 1.0  # while a driver waits for gc to end
SWEEP_SECONDS = 3600.0  # that a driver waits for gc at most
JOIN_SECONDS = 5.0

SWEEP = "leases/gc.json"


@dataclass(frozen=True, slots=True)
class Lease:
    """A driver at work: what it said of itself, and when it last said so, by the store's clock.
    key: of the object that says it."""

    key: str
    stage: str
    fingerprint: str
    renewed: datetime


@contextmanager
def driving(objects: Objects, run_id: str, payload: dict[str, Json]) -> Iterator[None]:
    """A driver's lease while this lasts. Waits first while `gc` is removing; StoreError where that
    takes longer than an hour."""
    key = f"leases/{run_id}/driver.json"
    data = json_bytes(payload, what="the lease")
    objects.put(key, data)
    with _renewed(objects, key, data):
        _wait_for_sweep(objects, key, data)
        yield


@contextmanager
def sweeping(objects: Objects) -> Iterator[datetime]:
    """gc's lease while this lasts; the time now, as the store has it. New drivers wait.

    Raises ConflictError where another gc is at work.
    """
    data = json_bytes({"gc": uuid.uuid4().hex}, what="the lease of gc")
    stands = objects.put_once(SWEEP, data)
    if stands != data:
        _refuse_second(objects)
        objects.put(SWEEP, data)  # of one that was killed
    now = _modified(objects, SWEEP)
    if now is None:
        raise StoreError(f"{objects.uri}/{SWEEP} was removed while gc was starting: run gc again")
    with _renewed(objects, SWEEP, data):
        yield now


def alive(objects: Objects, now: datetime) -> list[Lease]:
    """Drivers whose leases are alive, the longest silent first."""
    found = []
    for info in objects.list("leases"):
        _, _, name = info.key.rpartition("/")
        if name != "driver.json" or now - info.modified > LIVES:
            continue
        try:
            said = json.loads(objects.get(info.key))
        except (ObjectMissing, ValueError):  # it has just ended; or is damaged, and expires
            said = {}
        stage, fingerprint = str(said.get("stage", "?")), str(said.get("fingerprint", "?"))
        found.append(Lease(info.key, stage, fingerprint, info.modified))
    return sorted(found, key=lambda lease: lease.renewed)


@contextmanager
def _renewed(objects: Objects, key: str, data: bytes) -> Iterator[None]:
    """Writes the object again and again while this lasts, and removes it at the end."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_SECONDS):
            try:
                objects.put(key, data)
            except StoreError:
                continue  # the store is away: who works on it finds out, and this tries again

    thread = threading.Thread(target=renew, name="simdist-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(JOIN_SECONDS)  # not for ever: a put that hangs must not keep Ctrl-C waiting
        with suppress(StoreError):  # it expires by itself, and no work depends on it
            objects.delete([key])


def _wait_for_sweep(objects: Objects, mine: str, data: bytes) -> None:
    """Until the gc that was at work when this lease was put has ended, or was killed. One that
    began later has seen the lease."""
    began = time.monotonic()
    first = _content(objects)
    while first is not None and _content(objects) == first:
        renewed, now = _modified(objects, SWEEP), _modified(objects, mine)
        if renewed is None or now is None or now - renewed > LIVES:
            return
        if time.monotonic() - began > SWEEP_SECONDS:
            raise StoreError(
                f"gc has been removing objects from {objects.uri} for {SWEEP_SECONDS / 60:.0f}"
                " minutes, and nothing can be written beside it. Run again when it has ended; if"
                f" none is at work, delete {objects.uri}/{SWEEP}"
            )
        time.sleep(LOOK_SECONDS)
        objects.put(mine, data)  # which moves the store's clock


def _refuse_second(objects: Objects) -> None:
    before = _modified(objects, SWEEP)
    probe = f"leases/{uuid.uuid4().hex}/clock"
    objects.put(probe, b"")
    now = _modified(objects, probe)
    objects.delete([probe])
    if before is not None and now is not None and now - before <= LIVES:
        raise ConflictError(
            f"another gc is at work on {objects.uri} (renewed {(now - before).seconds} s ago): run"
            f" this one when it has ended. One that was killed stops counting"
            f" {LIVES.seconds // 60} minutes after its last renewal"
        )


def _content(objects: Objects) -> bytes | None:
    """Which gc is at work: what it wrote is its own."""
    try:
        return objects.get(SWEEP)
    except ObjectMissing:
        return None


def _modified(objects: Objects, key: str) -> datetime | None:
    info = objects.head(key)
    return None if info is None else info.modified
