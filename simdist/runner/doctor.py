"""Are this store and this engine fit for each other? Tasks read what the driver wrote, and answer.

driver ── object ──> store ──> task on every worker ── object ──> store ──> driver
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simdist.engine import Engine
from simdist.engine.doctor import HOLD_SECONDS, everywhere
from simdist.engine.memory import format_nbytes
from simdist.errors import ConfigError, ObjectMissing, SimdistError
from simdist.store.cache import worker_cache
from simdist.store.doctor.room import Room
from simdist.store.objects import Objects
from simdist.store.store import Store
from simdist.types import Finding

__all__ = ["Visit", "examine", "judge"]

GREETING = b"from the driver"
LITTLE_ROOM = 1 << 30  # bytes of a worker's cache


@dataclass(frozen=True, slots=True)
class Visit:
    """What a task found where it ran. problem: why it could not read or write, or empty.

    answer: the key of what it wrote. cache: the worker's cache directory; cache_nbytes: what it may
    hold; cache_problem: why it cannot be written, or empty.
    """

    host: str
    pid: int
    problem: str
    answer: str
    cache: str
    cache_nbytes: int
    cache_problem: str


def examine(store: Store, engine: Engine) -> Iterator[Finding]:
    """Findings about a store and an engine that is open. Leaves nothing behind in the store."""
    if engine.remote and not store.shared:
        found = f"workers of {engine.where} are other processes, which cannot see {store.uri}"
        advice = "Use a folder that all workers see, or s3://."
        yield Finding("store seen by workers", "unfit", found, advice)
        return
    with Room(store.objects) as room:
        key = room.key("greeting")
        store.objects.put(key, GREETING)
        answers = room.folder + "/answers"
        visits = everywhere(
            engine, _visit, (store.objects, key, answers), name="doctor-visit", who=_who
        )
        for visit in visits:
            room.key(visit.answer.removeprefix(f"{room.folder}/"))
        yield from judge(visits, unread=_unread(store.objects, visits))
        if store.objects.place.scheme == "s3":
            yield _told_cache(visits)
        for info in store.objects.list(answers):  # of tasks that met a worker seen already
            room.key(info.key.removeprefix(f"{room.folder}/"))


def judge(visits: Sequence[Visit], *, unread: Sequence[Visit]) -> Iterator[Finding]:
    """What the visits mean. unread: visits whose answer the driver does not find in the store."""
    check = "store seen by workers"
    failed = [visit for visit in visits if visit.problem]
    if failed:
        first = failed[0]
        found = f"{len(failed)} of {len(visits)} workers do not: on {first.host}, {first.problem}"
        advice = "Use a store that every worker reaches with its own settings and credentials."
        yield Finding(check, "unfit", found, advice)
    elif unread:
        found = (
            f"{len(unread)} of {len(visits)} workers wrote what this process does not see, for"
            f" example on {unread[0].host}"
        )
        advice = "Driver and workers look at different places under one address: mount the same."
        yield Finding(check, "unfit", found, advice)
    else:
        found = f"{len(visits)} of {len(visits)} read what the driver wrote, and wrote back"
        yield Finding(check, "ok", found)


def _told_cache(visits: Sequence[Visit]) -> Finding:
    check = "cache of workers"
    for visit in visits:
        if visit.cache_problem:
            found = f"{visit.cache} on {visit.host}: {visit.cache_problem}"
            advice = "Set SIMDIST_CACHE_DIR on the workers to a directory on a local disk."
            return Finding(check, "unfit", found, advice)
    least = min(visits, key=lambda visit: visit.cache_nbytes)
    found = f"{least.cache} may hold {format_nbytes(least.cache_nbytes)}"
    if least.cache_nbytes < LITTLE_ROOM:
        advice = "Objects would be fetched again and again: make room, or set SIMDIST_CACHE_DIR."
        return Finding(check, "warning", f"{found} on {least.host}", advice)
    return Finding(check, "ok", found)


def _visit(objects: Objects, key: str, answers: str, number: int) -> Visit:
    """Runs as a task."""
    time.sleep(HOLD_SECONDS)
    answer = f"{answers}/{socket.gethostname()}-{os.getpid()}-{number}"
    problem = ""
    try:
        if objects.get(key) != GREETING:  # before writing: a wrong folder is not to be created
            problem = f"{objects.uri} holds something else than what the driver wrote"
        else:
            objects.put(answer, GREETING)
    except SimdistError as error:
        problem = str(error)
    folder, nbytes, cache_problem = _cache()
    return Visit(socket.gethostname(), os.getpid(), problem, answer, folder, nbytes, cache_problem)


def _cache() -> tuple[str, int, str]:
    """(directory, bytes it may hold, why it cannot be written or empty)."""
    try:
        cache = worker_cache()
    except ConfigError as error:
        return "the worker's cache", 0, str(error)
    there = next(folder for folder in (cache.root, *cache.root.parents) if folder.exists())
    try:
        # Nameless, where the cache is or would be made: workers that look together leave nothing.
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
        free = shutil.disk_usage(there).free
    except OSError as error:
        return str(cache.root), 0, f"cannot be written ({error.strerror})"
    return str(cache.root), min(cache.nbytes, free), ""


def _unread(objects: Objects, visits: Sequence[Visit]) -> list[Visit]:
    return [visit for visit in visits if not visit.problem and not _is_there(objects, visit.answer)]


def _is_there(objects: Objects, key: str) -> bool:
    try:
        return objects.get(key) == GREETING
    except ObjectMissing:
        return False


def _who(visit: Visit) -> object:
    return visit.host, visit.pid
