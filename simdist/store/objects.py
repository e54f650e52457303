"""Bytes by key: one client, obstore, for files, S3 and memory.

What holds on every backend: a put is seen whole or not at all; `put_once` has one winner among any
number of processes; a deleted or absent key is `ObjectMissing`; keys cannot leave the store.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

from simdist.errors import ConfigError, ObjectMissing, StoreError
from simdist.store.client import RETRIES, cause, connect, failures, hopeless
from simdist.store.formats import Buffer
from simdist.store.patience import Attempts
from simdist.store.place import Place, check_key

__all__ = ["ObjectInfo", "Objects"]

PART = 8 << 20  # bytes of one request; larger objects go up and come down in parts
PARTS_AT_ONCE = 4  # so that a transfer holds 32 MiB, whatever the object's size
MAX_PARTS = 9_000  # S3 allows 10,000
CONFLICTS = 6  # attempts of a conditional put where a store is not tried by time

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object. `modified` is the store's clock, in UTC."""

    key: str
    nbytes: int
    etag: str | None
    modified: datetime


class Objects:
    """The objects of one store. Safe for threads; pickles as its address and reopens lazily.

    uri: file:///abs/path, s3://bucket/prefix or memory://name, without credentials.
    shared: whether another process sees the same objects.
    Every method raises ConfigError for a key outside the store, and StoreError, naming the object,
    the attempts and the cause without credentials, when an s3:// store has failed for as long as
    its option `patience` says (and one request more: what is not answered at all ends after 120 s).
    retries: asks a store that often instead, as for a first look at one.
    Opened lazily because the client's threads do not survive a fork.
    """

    def __init__(self, place: Place, *, retries: int | None = None) -> None:
        self.place = place
        self._retries = retries
        self._client: Any = None
        self._opening = threading.Lock()

    @property
    def uri(self) -> str:
        return self.place.uri

    @property
    def shared(self) -> bool:
        return self.place.scheme != "memory"

    # -- whole objects --

    def get(self, key: str) -> bytes:
        """All bytes of an object; ObjectMissing."""
        return bytes(self.buffer(key))

    def buffer(self, key: str) -> memoryview:
        """All bytes of an object without a copy into a Python object; ObjectMissing."""
        return memoryview(self._call("get", key, lambda obs, client: obs.get(client, key).bytes()))

    def put(self, key: str, data: Buffer | Sequence[Buffer]) -> None:
        """Write an object, or write over it; pieces are laid end to end without joining them."""
        pieces = [data] if isinstance(data, bytes | memoryview) else list(data)
        nbytes = sum(len(piece) for piece in pieces)
        if nbytes <= PART:
            whole = b"".join(pieces)
            self._call("put", key, lambda obs, client: obs.put(client, key, whole), writes=True)
            return
        part = max(PART, -(-nbytes // MAX_PARTS))
        self._call(
            "put",
            key,
            lambda obs, client: obs.put(
                client,
                key,
                _cut(pieces, part),
                use_multipart=True,
                chunk_size=part,
                max_concurrency=PARTS_AT_ONCE,
            ),
            writes=True,
        )

    def put_once(self, key: str, data: bytes) -> bytes:
        """Create an object unless it exists; returns the bytes that stand, ours or the winner's.

        A put whose answer was lost may have landed: whatever goes wrong, what stands is read back
        before trying again, so our own write is never taken for a conflict. Small objects only.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415

        check_key(key)
        attempts = self._attempts(most=CONFLICTS)
        while True:
            try:
                obs, client = self._open(writes=True)
                obs.put(client, key, data, mode="create", use_multipart=False)
                return data
            except (AlreadyExistsError, PreconditionError) as error:
                failure: Exception = error  # 412: it stands; 409: being written, or just deleted
            except failures() as error:
                if (hopeless(error) or attempts.over) and not attempts.another(error):
                    self._fail("create", key, error, attempts)
                failure = error
            try:
                return bytes(self._open()[1].get(key).bytes())
            except FileNotFoundError:
                pass
            except failures() as error:
                failure = error
            if not attempts.another(failure):
                self._fail("create", key, failure, attempts)

    def head(self, key: str) -> ObjectInfo | None:
        """Size and age of an object, or None where there is none."""
        try:
            meta = self._call("head", key, lambda obs, client: obs.head(client, key))
        except ObjectMissing:
            return None
        return _info(meta)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects in a folder and the folders below it, in no order ("" lists all).

        A listing is a hint: it may miss what was just written, and nothing is read on its word.
        """
        folder = prefix.rstrip("/")
        if folder:
            check_key(folder)
        attempts, last, ordered = self._attempts(), "", True
        while True:
            try:
                obs, client = self._open()
                for batch in obs.list(client, folder or None, offset=last or None, chunk_size=1000):
                    for meta in batch:
                        ordered = ordered and meta["path"] > last
                        last = meta["path"]
                        yield _info(meta)
                return
            except FileNotFoundError:
                return  # a local store nobody has written to
            except failures() as error:
                # S3 lists in the order of keys, so that a listing goes on behind the last one.
                if not (ordered and attempts.another(error)):
                    self._fail("list", folder or "(all)", error, attempts)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; absent ones are no error."""
        names = list(keys)
        for key in names:
            check_key(key)
        for start in range(0, len(names), 1000):
            batch = names[start : start + 1000]
            try:
                self._delete(batch)
            except ObjectMissing:  # local stores stop at the first absent file
                for key in batch:
                    with suppress(ObjectMissing):
                        self._delete([key])

    # -- parts of objects --

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer where the object ends before; ObjectMissing.

        Raises StoreError where `start` lies past the end.
        """
        if start < 0 or length < 0:
            raise ConfigError(f"range of {key!r} must not be negative: start {start}, {length=}")
        if length == 0:
            return b""
        return bytes(
            self._call(
                "get range of",
                key,
                lambda obs, client: obs.get_range(client, key, start=start, length=length),
            )
        )

    def open(self, key: str) -> BinaryIO:
        """A seekable file over range reads, for pyarrow; ObjectMissing."""
        path = self.local_path(key)
        if path is not None:
            try:
                return path.open("rb")
            except FileNotFoundError:
                self._missing(key)
        info = self.head(key)
        if info is None:
            self._missing(key)
        return io.BufferedReader(_RangeFile(self, key, info.nbytes), buffer_size=1 << 16)

    def download(self, key: str, nbytes: int, fd: int) -> None:
        """Write the object's first `nbytes` into an open file, a few parts at a time."""

        def fetch(start: int) -> None:
            os.pwrite(fd, self.get_range(key, start, min(PART, nbytes - start)), start)

        if nbytes <= PART:
            fetch(0)
            return
        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="simdist-fetch") as pool:
            list(pool.map(fetch, range(0, nbytes, PART)))

    def digest(self, key: str) -> tuple[str, int]:
        """(sha256 in hex, bytes) of what the store holds now, read in parts; ObjectMissing."""
        sha, nbytes = hashlib.sha256(), 0
        with self.open(key) as file:
            while piece := file.read(PART if self.place.scheme == "s3" else 1 << 20):
                sha.update(piece)
                nbytes += len(piece)
        return sha.hexdigest(), nbytes

    def local_path(self, key: str) -> Path | None:
        """Where a file:// object lies; None on other stores, where it must be fetched."""
        check_key(key)
        return Path(self.place.root, key) if self.place.scheme == "file" else None

    # -- identity --

    def __reduce__(self) -> tuple[type[Objects], tuple[Place]]:
        if not self.shared:
            raise ConfigError(
                f"store {self.uri} lives in this process and cannot be sent to another: the dask"
                " and ray engines need a file:// store on a disk all workers see, or s3://; the"
                " local engine works with memory://"
            )
        return Objects, (self.place,)

    def __repr__(self) -> str:
        return f"Objects({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Objects) and other.place == self.place

    def __hash__(self) -> int:
        return hash(self.place)

    # -- the client, and what its failures mean --

    def _open(self, *, writes: bool = False) -> tuple[Any, Any]:
        import obstore  # noqa: PLC0415 - kept out of `import simdist`

        with self._opening:
            if self._client is None:
                retries = RETRIES if self._retries is None else self._retries
                self._client = connect(self.place, create=writes, retries=retries)
        return obstore, self._client

    def _call(
        self, verb: str, key: str, ask: Callable[[Any, Any], T], *, writes: bool = False
    ) -> T:
        check_key(key)
        attempts = self._attempts()
        while True:
            try:
                return ask(*self._open(writes=writes))
            except failures() as error:
                if isinstance(error, FileNotFoundError) and not writes:
                    self._missing(key)
                if not attempts.another(error):
                    self._fail(verb, key, error, attempts)

    def _delete(self, keys: Sequence[str]) -> None:
        self._call("delete", keys[0], lambda obs, client: obs.delete(client, keys))

    def _missing(self, key: str) -> NoReturn:
        raise ObjectMissing(f"{self.uri}/{key} does not exist") from None

    def _attempts(self, *, most: int = 1) -> Attempts:
        """By time on s3://; `most` attempts elsewhere, where what failed fails again."""
        patient = self.place.scheme == "s3" and self._retries is None
        return Attempts(seconds=self.place.options.patience, most=None if patient else most)

    def _fail(self, verb: str, key: str, error: Exception, attempts: Attempts) -> NoReturn:
        # `from None`: the client's own text quotes requests and server answers in full, and a
        # traceback would print it beside ours.
        raise StoreError(
            f"cannot {verb} {self.uri}/{key}{attempts}: {cause(error, self.place.options)}"
        ) from None


class _RangeFile(io.RawIOBase):
    """An object as a raw file; wrapped in a BufferedReader, large reads become one request each."""

    def __init__(self, objects: Objects, key: str, nbytes: int) -> None:
        super().__init__()
        self._objects, self._key, self._nbytes, self._at = objects, key, nbytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._nbytes}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset} in {self._key}: before its start")
        self._at = base + offset
        return self._at

    def readinto(self, target: Any, /) -> int:
        view = memoryview(target).cast("B")
        length = min(len(view), self._nbytes - self._at)
        if length <= 0:
            return 0
        data = self._objects.get_range(self._key, self._at, length)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        """The rest in parts; the inherited one would ask for every 8 KiB."""
        pieces = []
        while self._at < self._nbytes:
            pieces.append(self.read(PART) or b"")
            if not pieces[-1]:
                break
        return b"".join(pieces)


def _cut(pieces: Iterable[Buffer], nbytes: int) -> Iterator[memoryview]:
    """Views of at most `nbytes` each, end to end; equal parts are made by the client."""
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), nbytes):
            yield view[start : start + nbytes]


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"])
