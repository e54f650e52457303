"""The order of the checks, and what becomes of one that fails where nobody expected it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from simdist.errors import ConfigError, StoreError
from simdist.store.doctor import disk, pace, promises, signed
from simdist.store.doctor.room import Room
from simdist.store.objects import Objects
from simdist.types import Finding

if TYPE_CHECKING:
    from simdist.store.store import Store

__all__ = ["examine"]

FIRST_RETRIES = 2  # of the first request: a store that is not there is told at once
RETRIES = 6  # of all others, some seconds: runs are more patient, for as long as a restart takes

Check: TypeAlias = Callable[[Room], Iterator[Finding]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("conditional put", promises.conditional_put),
    ("raced by threads", promises.raced_put),
    ("raced by processes", disk.raced_by_processes),
    ("read after write", promises.visibility),
    ("bytes", promises.faithful_bytes),
    ("range reads", promises.ranges),
    ("large objects", promises.large_objects),
    ("listing", promises.listing),
    ("deletion", promises.deletion),
    ("keys", promises.keys),
    ("signatures", signed.signatures),
    ("checksums", signed.checksums),
    ("file system", disk.file_system),
    ("clock", pace.clock),
    ("failed requests", pace.failed_requests),
    ("pace", pace.speed),
)


def examine(store: Store) -> Iterator[Finding]:
    """Findings about a store, one by one as they are made. Leaves nothing behind.

    The first is "reach"; where it is unfit, no other follows. Raises ConfigError where the store's
    settings make no sense (a profile that does not exist).
    """
    with Room(Objects(store.objects.place, retries=RETRIES)) as room:
        reached = _reach(room)
        yield reached
        if reached.verdict == "unfit":
            return
        for name, check in CHECKS:
            yield from _guarded(name, check, room)


def _reach(room: Room) -> Finding:
    objects = Objects(room.objects.place, retries=FIRST_RETRIES)
    key = room.key("reach")
    try:
        objects.put(key, b"simdist doctor")
        got = objects.get(key)
    except StoreError as error:
        return Finding("reach", "unfit", str(error), "Nothing else was checked.")
    if got != b"simdist doctor":
        found = f"wrote 14 bytes, read {len(got)} others back"
        return Finding("reach", "unfit", found, "Nothing else was checked: use another store.")
    options = objects.place.options
    how = "" if objects.place.scheme != "s3" else f" at {options.endpoint or 'Amazon S3'}"
    return Finding("reach", "ok", f"wrote and read an object{how}")


def _guarded(name: str, check: Check, room: Room) -> Iterator[Finding]:
    """A check's findings. What it did not foresee is a finding too: the store refused something."""
    try:
        yield from check(room)
    except ConfigError:
        raise
    except StoreError as error:
        yield Finding(
            name,
            "unfit",
            str(error),
            "Runs would fail in the same way. If the store is busy or restarting, ask again later.",
        )
