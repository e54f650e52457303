"""How well the store does what it does: its clock, its failures, its pace. Rough figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np

from simdist.errors import StoreError
from simdist.store.doctor.room import Room
from simdist.store.objects import PART, Objects
from simdist.types import Finding

__all__ = ["clock", "failed_requests", "speed", "told_clock"]

SKEW_WORTH_A_WORD = timedelta(minutes=2)
SKEW_TOO_LARGE = timedelta(hours=6)  # half of the age at which what a run wrote counts as old
REQUESTS = 100  # made without a retry
SLOW_SECONDS = 1.0  # for a small object
SAMPLES = 20


def clock(room: Room) -> Iterator[Finding]:
    """The store's clock against this machine's: `gc` trusts the age of objects."""
    key = room.key("clock")
    before = datetime.now(UTC)
    room.objects.put(key, b"what time is it?")
    between = before + (datetime.now(UTC) - before) / 2
    info = room.objects.head(key)
    if info is not None:
        yield told_clock(info.modified - between)


def told_clock(ahead: timedelta) -> Finding:
    """ahead: the store's clock minus this machine's."""
    skew = abs(ahead)
    way = "ahead of" if ahead > timedelta(0) else "behind"
    found = f"the store is {_span(skew)} {way} this machine"
    if skew < timedelta(seconds=5):  # many stores tell whole seconds
        return Finding("clock", "ok", "the store and this machine agree within 5 s")
    if skew < SKEW_WORTH_A_WORD:
        return Finding("clock", "ok", found)
    if skew < SKEW_TOO_LARGE:
        advice = "Set both by NTP; until then keep `simdist gc --older-than` well above the gap."
        return Finding("clock", "warning", found, advice)
    advice = "`simdist gc` would take what a run has just written for old: set both clocks by NTP."
    return Finding("clock", "unfit", found, advice)


def failed_requests(room: Room) -> Iterator[Finding]:
    """How many requests fail when they are made once. Runs try again, and say nothing."""
    if room.objects.place.scheme != "s3":
        return
    once = Objects(room.objects.place, retries=0)

    def ask(number: int) -> str | None:
        key = room.key(f"failed/{number}")
        try:
            once.put(key, b"x")
            once.get(key)
        except StoreError as error:
            return str(error)
        return None

    failed = [told for told in room.many(ask, range(REQUESTS // 2)) if told is not None]
    if not failed:
        yield Finding("failed requests", "ok", f"none of {REQUESTS}, made once each")
        return
    found = f"{len(failed)} of {REQUESTS} failed when made once, the first with: {failed[0]}"
    advice = "Runs try again and get through, slower. Look at the server's log and its load."
    yield Finding("failed requests", "warning", found, advice)


def speed(room: Room) -> Iterator[Finding]:
    """Milliseconds of a small object, megabytes a second of a large one."""
    objects, small = room.objects, room.key("small")
    write = _median(lambda: objects.put(small, b"x" * 100))
    read = _median(lambda: objects.get(small))
    data, large = np.random.default_rng(3).bytes(2 * PART), room.key("pace")
    up = _seconds(lambda: objects.put(large, data))
    down = _seconds(lambda: objects.digest(large))
    size = len(data) / 1e6
    found = (
        f"a small object takes {_ms(write)} to write and {_ms(read)} to read; a large one goes up"
        f" at {size / up:.0f} MB/s and down at {size / down:.0f} MB/s"
    )
    if max(write, read) < SLOW_SECONDS:
        yield Finding("pace", "ok", found)
    else:
        advice = "Tasks will wait for it. Use a store in the same region, or a local cache."
        yield Finding("pace", "warning", found, advice)


def _median(ask: Callable[[], object]) -> float:
    return statistics.median(_seconds(ask) for _ in range(SAMPLES))


def _seconds(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
