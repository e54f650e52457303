"""file:// only: races between processes, the kind of file system, its room, and fsync."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from simdist.store.doctor.room import Room
from simdist.store.objects import Objects
from simdist.store.place import Place
from simdist.types import Finding

__all__ = ["contend", "file_system", "kind_of", "raced_by_processes", "told_kind"]

PROCESSES, RACES = 4, 25
START_SECONDS = 120.0
LITTLE_ROOM = 1 << 30  # bytes
SLOW_FSYNC = 0.5  # seconds

# Kinds of file systems that other machines write to at the same time, through caches of their own.
OVER_NETWORK = re.compile(r"nfs\d?|cifs|smb\w*|9p|ceph|lustre|gpfs|beegfs\w*|glusterfs|fuse\..+")
NETWORK = (
    "Machines that share it may see new files seconds late and race on locks. It serves a run on"
    " one machine; for a cluster use an object store."
)
SHORT_LIVED = {
    "tmpfs": "It is memory: gone when the machine restarts.",
    "ramfs": "It is memory: gone when the machine restarts.",
    "overlay": "It is a container's own layer: gone with the container. Mount a volume.",
}

# The child says that it is ready, waits for the others, races, and tells what it saw.
CHILD = "import sys; from simdist.store.doctor.disk import contend; contend(*sys.argv[1:])"


def raced_by_processes(room: Room) -> Iterator[Finding]:
    """Of several processes that create the same file at once, one wins, and all read its bytes."""
    if room.objects.place.scheme != "file":
        return
    check = "raced by processes"
    keys = [room.key(f"processes/{number}") for number in range(RACES)]
    saw = _run_race(room, f"{room.folder}/processes")
    if saw is None:
        found = f"could not be checked: {PROCESSES} processes did not start, race and end"
        yield Finding(check, "warning", found, "Try again on a machine with less to do.")
        return
    lost = sum(set(told) != {room.objects.get(key)} for key, *told in zip(keys, *saw, strict=True))
    if lost:
        found = f"{lost} of {RACES} races of {PROCESSES} processes had no single winner"
        advice = "This file system does not create files atomically: use another one."
        yield Finding(check, "unfit", found, advice)
    else:
        found = f"{RACES} races of {PROCESSES} processes had one winner each"
        yield Finding(check, "ok", found)


def contend(root: str, folder: str, mine: str) -> None:
    """What a child does: create each object as its own, tell on stdout what stands."""
    objects = Objects(Place("file", root))
    objects.head(f"{folder}/0")  # opens the client before the race
    print("ready", flush=True)
    sys.stdin.readline()
    stands = [
        objects.put_once(f"{folder}/{number}", mine.encode()).decode() for number in range(RACES)
    ]
    print(json.dumps(stands), flush=True)


def _run_race(room: Room, folder: str) -> list[list[bytes]] | None:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, room.objects.place.root, folder, f"process {number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        for number in range(PROCESSES)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            if child.stdout.readline() != "ready\n":
                return None
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        told = [child.communicate(timeout=START_SECONDS)[0] for child in children]
        return [[stands.encode() for stands in json.loads(text)] for text in told]
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    finally:
        for child in children:
            with suppress(OSError):
                child.kill()
            child.communicate()


def file_system(room: Room) -> Iterator[Finding]:
    """What kind of file system it is, how much room it has, and whether it syncs."""
    place = room.objects.place
    if place.scheme == "memory":
        found = "memory:// is part of this process, and ends with it"
        yield Finding("lifetime", "warning", found, "Use it to try things; keep runs elsewhere.")
    if place.scheme != "file":
        return
    root = Path(place.root)
    with suppress(OSError):  # no /proc: not Linux
        yield told_kind(kind_of(root, Path("/proc/self/mountinfo").read_text()))
    free = shutil.disk_usage(root).free
    if free < LITTLE_ROOM:
        found = f"{free / 2**20:,.0f} MiB are free"
        yield Finding("space", "warning", found, "Make room, or use another disk.")
    else:
        yield Finding("space", "ok", f"{free / 2**30:,.0f} GiB are free")
    yield _fsync(room)


def told_kind(kind: str) -> Finding:
    """What the kind of a file system means for a store."""
    if OVER_NETWORK.fullmatch(kind):
        return Finding("file system", "warning", f"{kind}, over the network", NETWORK)
    if kind in SHORT_LIVED:
        return Finding("file system", "warning", kind, SHORT_LIVED[kind])
    return Finding("file system", "ok", kind)


def kind_of(path: Path, mounts: str) -> str:
    """The kind of file system (`ext4`, `nfs4`) that `path` lies on.

    mounts: /proc/self/mountinfo. Of mounts over one another the last one counts.
    """
    kind, longest = "unknown", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        if path.is_relative_to(point) and len(point) >= longest:
            kind, longest = after.split()[0], len(point)
    return kind


def _fsync(room: Room) -> Finding:
    path = room.objects.local_path(room.key("synced"))
    assert path is not None
    began = time.perf_counter()
    try:
        with path.open("wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        advice = "What was written may be lost when the power fails. Check how it is mounted."
        return Finding("fsync", "warning", f"fsync failed: {error.strerror}", advice)
    seconds = time.perf_counter() - began
    if seconds > SLOW_FSYNC:
        found = f"takes {seconds:.1f} s"
        return Finding("fsync", "warning", found, "The disk is busy or slow: writes will wait.")
    return Finding("fsync", "ok", f"takes {seconds * 1000:.1f} ms")
