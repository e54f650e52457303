"""What runs rely on, asked of the store one promise at a time."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from simdist.errors import ObjectMissing, StoreError
from simdist.store.doctor.room import Room
from simdist.store.objects import PART
from simdist.types import Finding

__all__ = [
    "conditional_put",
    "deletion",
    "faithful_bytes",
    "keys",
    "large_objects",
    "listing",
    "raced_put",
    "ranges",
    "visibility",
]

ROUNDS, WIDE = 4, 6  # races, and how many threads take part in each
TRIES = 20  # of what a store may get right by chance
KEYS = 1100  # more than a page of any listing
LISTING_SECONDS = 15.0  # a late listing is worth a warning, one that never comes is not a listing
NEEDS_CONDITIONS = (
    "A store that cannot create an object once lets two runs overwrite each other's commits. Use"
    " one that honours `If-None-Match: *` on puts, or switch it on in the server or gateway."
)
OTHER_BYTES = "Look for a proxy or a cache in between, and for a failing disk; do not use it before"


def conditional_put(room: Room) -> Iterator[Finding]:
    """A second create of the same object is refused."""
    check, objects, key = "conditional put", room.objects, room.key("once")
    try:
        answers = [objects.put_once(key, b"first"), objects.put_once(key, b"second")]
        stands = objects.get(key)
    except StoreError as error:
        yield Finding(check, "unfit", str(error), NEEDS_CONDITIONS)
        return
    if answers == [b"first", b"first"] and stands == b"first":
        yield Finding(check, "ok", "a second create of an object was refused")
        return
    found = "a second create of an object was accepted: the store ignores If-None-Match"
    if stands == b"first":
        found = "a second create of an object was answered as if it had been accepted"
    yield Finding(check, "unfit", found, NEEDS_CONDITIONS)


def raced_put(room: Room) -> Iterator[Finding]:
    """Of many threads that create the same object at once, one wins, and all read its bytes."""
    check = "raced by threads"
    lost = 0
    most = 1
    for number in range(ROUNDS):
        key = room.key(f"race-{number}")
        answers = _race(room, key)
        most = max(most, len(set(answers)))
        lost += set(answers) != {room.objects.get(key)}
    if lost:
        found = f"{lost} of {ROUNDS} races of {WIDE} threads had up to {most} winners"
        yield Finding(check, "unfit", found, NEEDS_CONDITIONS)
    else:
        yield Finding(check, "ok", f"{ROUNDS} races of {WIDE} threads had one winner each")


def _race(room: Room, key: str) -> list[bytes]:
    """What each thread was told stands, after all began at the same moment."""
    together = threading.Barrier(WIDE, timeout=60)

    def create(mine: int) -> bytes:
        together.wait()
        return room.objects.put_once(key, f"thread {mine}".encode())

    with ThreadPoolExecutor(WIDE, thread_name_prefix="simdist-doctor") as pool:
        return list(pool.map(create, range(WIDE)))


def visibility(room: Room) -> Iterator[Finding]:
    """What was written is there at once, also where its absence had been seen a moment before."""
    objects = room.objects
    unseen = stale = lingering = 0
    for number in range(TRIES):
        key = room.key(f"seen/{number}")
        objects.head(key)  # a store may remember that there was nothing
        objects.put(key, b"old")
        unseen += _read(room, key) != b"old"
        objects.put(key, b"newer")
        info = objects.head(key)
        stale += _read(room, key) != b"newer" or info is None or info.nbytes != len(b"newer")
        objects.delete([key])
        lingering += _read(room, key) is not None
    check = "read after write"
    if unseen:
        found = f"{unseen} of {TRIES} objects were not there right after they were written"
        advice = "Tasks would not find what others just wrote. Switch off caches in front of it."
        yield Finding(check, "unfit", found, advice)
    elif stale or lingering:
        found = (
            f"of {TRIES} objects, {stale} were still the old ones after they were overwritten and"
            f" {lingering} were still there after they were deleted"
        )
        advice = "Cancelling and removing take effect late. Switch off caches in front of the store"
        yield Finding(check, "warning", found, advice + ".")
    else:
        yield Finding(check, "ok", "objects are there, changed and gone at once")


def _read(room: Room, key: str) -> bytes | None:
    try:
        return room.objects.get(key)
    except ObjectMissing:
        return None


def faithful_bytes(room: Room) -> Iterator[Finding]:
    """What is read is what was written, for objects of every size up to one request."""
    rng = np.random.default_rng(0)
    sizes = [0, 1, 13, 4095, 4096, 65_537, 1 << 20, *range(1_000, 14_000, 1_000)]
    written = {room.key(f"bytes/{place}"): rng.bytes(size) for place, size in enumerate(sizes)}
    for key, data in written.items():
        room.objects.put(key, data)
    wrong = [len(data) for key, data in written.items() if _read(room, key) != data]
    if wrong:
        found = f"{len(wrong)} of {len(sizes)} objects came back with other bytes than were written"
        yield Finding("bytes", "unfit", found, f"{OTHER_BYTES} this passes.")
    else:
        yield Finding("bytes", "ok", f"{len(sizes)} objects came back as they were written")


def ranges(room: Room) -> Iterator[Finding]:
    """A part of an object is that part: in the middle, over the end, beyond it, and none."""
    data = np.random.default_rng(1).bytes(1 << 20)
    size, key, objects = len(data), room.key("ranges"), room.objects
    objects.put(key, data)
    wrong = []
    for name, start, length in (
        ("the beginning", 0, 4096),
        ("the middle", size // 2 - 7, 70_000),
        ("over the end", size - 10, 100),
        ("nothing", 5, 0),
    ):
        if objects.get_range(key, start, length) != data[start : start + length]:
            wrong.append(name)
    if wrong:
        found = f"a range read gave other bytes: {', '.join(wrong)}"
        yield Finding("range reads", "unfit", found, f"{OTHER_BYTES} this passes.")
        return
    try:
        beyond = objects.get_range(key, size + 10, 10)
    except StoreError:
        beyond = b""
    if beyond:
        found = f"a read beyond the end gave {len(beyond)} bytes instead of an error"
        yield Finding("range reads", "warning", found, "Damaged sizes would be noticed late.")
    else:
        yield Finding("range reads", "ok", "beginning, middle, over the end and beyond it")


def large_objects(room: Room) -> Iterator[Finding]:
    """An object of several parts goes up in parts and comes back whole."""
    data = np.random.default_rng(2).bytes(2 * PART + 12_345)
    key = room.key("large")
    room.objects.put(key, data)
    sha256, nbytes = room.objects.digest(key)
    what = f"{len(data) >> 20} MiB in {-(-len(data) // PART)} parts"
    if (sha256, nbytes) == (hashlib.sha256(data).hexdigest(), len(data)):
        yield Finding("large objects", "ok", what)
    else:
        found = f"{what} came back as {nbytes:,} bytes that are not what was written"
        yield Finding("large objects", "unfit", found, f"{OTHER_BYTES} this passes.")


def listing(room: Room) -> Iterator[Finding]:
    """A listing holds all of a folder, over several pages, and nothing from beside it."""
    folder = f"{room.folder}/many/here"
    wanted = {room.key(f"many/here/{number:04d}") for number in range(KEYS)}
    beside = [room.key("many/here.txt"), room.key("many/here-too/0001")]
    began = time.monotonic()
    room.many(lambda key: room.objects.put(key, b"x"), [*wanted, *beside])
    listed = [info.key for info in room.objects.list(folder)]
    late = not wanted <= set(listed)
    while not wanted <= set(listed) and time.monotonic() - began < LISTING_SECONDS:
        time.sleep(0.5)
        listed = [info.key for info in room.objects.list(folder)]
    missing, extra = wanted - set(listed), set(listed) - wanted
    twice = len(listed) - len(set(listed))
    if missing or extra or twice:
        found = (
            f"of {KEYS:,} objects in a folder, {len(missing):,} are missing from its listing;"
            f" {len(extra):,} from elsewhere and {twice:,} told twice are in it"
        )
        advice = "`simdist gc` would take for garbage what a dataset needs: do not run it here."
        yield Finding("listing", "unfit", found, advice)
    elif late:
        found = f"a listing of {KEYS:,} objects was complete only some seconds after the last write"
        advice = "Runs do not mind. Wait a minute between a run and `simdist gc`."
        yield Finding("listing", "warning", found, advice)
    else:
        yield Finding("listing", "ok", f"{KEYS:,} objects just written, over several pages")


def deletion(room: Room) -> Iterator[Finding]:
    """Objects go, many at once; deleting what is not there is no error."""
    keys = [room.key(f"deleted/{number}") for number in range(TRIES)]
    for key in keys[1:]:
        room.objects.put(key, b"x")
    room.objects.delete([room.key("deleted/never-was")])
    room.objects.delete(keys)  # the first one is absent
    left = [key for key in keys if _read(room, key) is not None]
    if left:
        found = f"{len(left)} of {TRIES} deleted objects can still be read"
        advice = "`simdist gc --delete` would free nothing. Check retention rules and rights."
        yield Finding("deletion", "warning", found, advice)
    else:
        yield Finding("deletion", "ok", f"{TRIES} objects at once, and ones that were not there")


def keys(room: Room) -> Iterator[Finding]:
    """Keys with every character that simdist uses, long ones, and ones that differ by case."""
    objects = room.objects
    names = [
        "keys/round-0.of_1=a@b+c-d.json",
        "keys/%2e%2e/percent",
        f"keys/{'long-' * 40}end.json",
        f"keys/{'deep/' * 20}end",
    ]
    for place, key in enumerate(room.key(name) for name in names):
        objects.put(key, str(place).encode())
    made = [f"{room.folder}/{name}" for name in names]
    listed = {info.key for info in objects.list(f"{room.folder}/keys")}
    wrong = [
        name
        for place, (name, key) in enumerate(zip(names, made, strict=True))
        if _read(room, key) != str(place).encode() or key not in listed
    ]
    if wrong:
        found = f"an object was written as {wrong[0]!r} and is not read or listed under that key"
        yield Finding("keys", "unfit", found, "A gateway in between may rewrite keys: go past it.")
        return
    objects.put(room.key("case/Name"), b"large")
    objects.put(room.key("case/name"), b"small")
    if _read(room, f"{room.folder}/case/Name") != b"large":
        found = "keys that differ by case only are one object"
        advice = "Do not give two datasets names that differ by case only."
        yield Finding("keys", "warning", found, advice)
    else:
        yield Finding("keys", "ok", "all characters that simdist uses, long, deep, and by case")
