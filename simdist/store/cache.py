"""The worker's cache: objects read whole, checked once, then mapped from local disk.

    file://    the file itself is mapped; nothing is copied
    s3://      parts ──> temporary file ──> sha256 ──> rename to {sha256}.{suffix} ──> mapped

The cache is a directory that processes share, named by content, so that any store's objects may lie
in it side by side. It is bounded in bytes; the least recently used go first, and a file that is
still mapped lives on until its reader lets go. SIMDIST_CACHE_DIR says where (default:
~/.cache/simdist), SIMDIST_CACHE_BYTES how much (default: a fifth of the disk's free space).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar

from simdist.errors import ConfigError, IntegrityError
from simdist.types import ObjectRef

__all__ = ["WorkerCache", "checked_once", "damaged", "unreadable", "worker_cache", "written"]

FRACTION_OF_FREE = 0.2
STALE_SECONDS = 86_400  # a temporary file this old was left by a process that died
CHECKS_REMEMBERED = 100_000
ATTEMPTS = 3

T = TypeVar("T")


class WorkerCache:
    """A directory of checked objects, bounded in bytes; the newest is kept whatever its size."""

    def __init__(self, root: Path, nbytes: int) -> None:
        self.root = root
        self.nbytes = nbytes
        self._locks = [threading.Lock() for _ in range(256)]  # by the first byte of the sha256

    def use(
        self, ref: ObjectRef, *, where: str, fetch: Callable[[int], None], read: Callable[[Path], T]
    ) -> T:
        """`read` (quick: it holds a lock) of a local file with the object, fetched if not here yet.

        fetch: writes the object into an open file. where: names the object in errors.
        Raises IntegrityError where what was fetched twice is not what `ref` vouches for.
        """
        path = self.root / (ref.sha256 + Path(ref.key).suffix)
        with self._locks[int(ref.sha256[:2], 16)]:
            for attempt in range(1, ATTEMPTS + 1):
                if not self._holds(path, ref):
                    self._fill(path, ref, where, fetch, last=attempt > 1)
                try:
                    # Access time orders eviction; the modification time is part of `checked_once`.
                    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
                    return read(path)
                except FileNotFoundError:  # another process made room between fill and read
                    if attempt == ATTEMPTS:
                        raise ConfigError(
                            f"{where} was evicted from {self.root} before it could be read,"
                            f" {ATTEMPTS} times: raise SIMDIST_CACHE_BYTES (now {self.nbytes})"
                        ) from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _holds(self, path: Path, ref: ObjectRef) -> bool:
        """Whether the cached file is there and whole; a damaged one is thrown away."""
        try:
            checked_once(path, ref, where=str(path))
        except FileNotFoundError:
            return False
        except IntegrityError:
            path.unlink(missing_ok=True)
            return False
        return True

    def _fill(
        self, path: Path, ref: ObjectRef, where: str, fetch: Callable[[int], None], *, last: bool
    ) -> None:
        temporary = self.root / f"tmp-{os.getpid()}-{uuid.uuid4().hex}"
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                fetch(file.fileno())
            checked_once(temporary, ref, where=where, remember_as=path)
            temporary.replace(path)
        except IntegrityError:
            if last:
                raise
        except PermissionError as error:
            raise ConfigError(
                f"the worker cache {self.root} cannot be written ({error.strerror}): set"
                " SIMDIST_CACHE_DIR to a directory on a local disk"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        self._make_room(keep=path)

    def _make_room(self, keep: Path) -> None:
        files, total = [], 0
        for entry in os.scandir(self.root):
            try:
                stat = entry.stat()
            except FileNotFoundError:
                continue
            if entry.name.startswith("tmp-") and time.time() - stat.st_mtime > STALE_SECONDS:
                Path(entry.path).unlink(missing_ok=True)
                continue
            total += stat.st_size
            if not entry.name.startswith("tmp-") and entry.name != keep.name:
                files.append((stat.st_atime_ns, stat.st_size, entry.path))
        for _, nbytes, path in sorted(files):
            if total <= self.nbytes:
                return
            Path(path).unlink(missing_ok=True)
            total -= nbytes


def worker_cache() -> WorkerCache:
    """The cache that the environment describes; one object per description and process."""
    folder, nbytes = os.environ.get("SIMDIST_CACHE_DIR"), os.environ.get("SIMDIST_CACHE_BYTES")
    description = (folder, nbytes, os.environ.get("XDG_CACHE_HOME"))
    with _guard:
        if description not in _caches:
            _caches[description] = _described(folder, nbytes)
        return _caches[description]


def checked_once(
    path: Path, ref: ObjectRef, *, where: str, remember_as: Path | None = None
) -> None:
    """IntegrityError unless the file holds what `ref` vouches for; hashed once per process.

    A file is known by inode, size and time, so one that was replaced or changed is hashed again.
    remember_as: the name the file is about to be given. Raises FileNotFoundError.
    """
    stat = path.stat()
    identity = (str(remember_as or path), ref.sha256, stat.st_ino, stat.st_size)
    with _guard:
        if _checked.get(identity) == stat.st_mtime_ns:
            _checked.move_to_end(identity)
            return
    got = ""
    if stat.st_size == ref.nbytes:
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != ref.sha256:
        raise damaged(where, ref, got or "not read", stat.st_size)
    _remember(identity, stat.st_mtime_ns)


def written(path: Path, ref: ObjectRef) -> None:
    """This process has just written the file from bytes that it hashed: as good as checked, until
    somebody changes or replaces it."""
    try:
        stat = path.stat()
    except FileNotFoundError:  # removed already; whoever reads it will say so
        return
    if stat.st_size == ref.nbytes:
        _remember((str(path), ref.sha256, stat.st_ino, stat.st_size), stat.st_mtime_ns)


def _remember(identity: Hashable, mtime_ns: int) -> None:
    with _guard:
        _checked[identity] = mtime_ns
        while len(_checked) > CHECKS_REMEMBERED:
            _checked.popitem(last=False)


def damaged(where: str, ref: ObjectRef, sha256: str, nbytes: int) -> IntegrityError:
    """The error for an object whose bytes are not the ones its manifest or record vouches for."""
    return IntegrityError(
        f"{where} is damaged: expected sha256 {ref.sha256} ({ref.nbytes} bytes), got {sha256}"
        f" ({nbytes} bytes). Delete the object and run the job that made it again; `simdist verify`"
        " lists all damaged objects of a dataset."
    )


def unreadable(where: str, error: Exception) -> IntegrityError:
    """The error for an object that is as it was vouched for, and still not what simdist writes."""
    return IntegrityError(
        f"{where} has the sha256 that is vouched for, and cannot be read: {error}. simdist did not"
        " write it: do not trust the store, or delete the object and run its job again."
    )


_guard = threading.Lock()
_caches: dict[tuple[str | None, ...], WorkerCache] = {}
_checked: OrderedDict[Hashable, int] = OrderedDict()


def _described(directory: str | None, nbytes: str | None) -> WorkerCache:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(directory).expanduser().resolve() if directory else base / "simdist"
    if nbytes is None:
        disk = next(parent for parent in (root, *root.parents) if parent.exists())
        return WorkerCache(root, int(shutil.disk_usage(disk).free * FRACTION_OF_FREE))
    if not nbytes.isdecimal():
        raise ConfigError(f"SIMDIST_CACHE_BYTES is {nbytes!r}; expected a number of bytes")
    return WorkerCache(root, int(nbytes))
