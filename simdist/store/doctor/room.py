"""Where checks write: a folder of its own in the store, gone when the examination ends."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from simdist.errors import StoreError
from simdist.store.objects import Objects

__all__ = ["Room"]

RETRIES = 2  # of each request when cleaning up: whoever examines a broken store waits for it
AT_ONCE = 16  # requests side by side: what a busy driver has

A = TypeVar("A")
B = TypeVar("B")


class Room:
    """A folder `doctor/{uuid}` of a store. Leaving it removes every key that was handed out.

    Keys are remembered, not listed: a store whose listing is wrong is cleaned all the same.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.folder = f"doctor/{uuid.uuid4().hex}"
        self._keys: list[str] = []
        self._new = not self._root_exists()

    def key(self, name: str) -> str:
        """A key in the folder, to be removed at the end."""
        key = f"{self.folder}/{name}"
        self._keys.append(key)
        return key

    def many(self, ask: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """`ask` of each item, some at once; the answers in order."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="simdist-doctor") as pool:
            return list(pool.map(ask, items))

    def __enter__(self) -> Room:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._root_exists():
            with suppress(StoreError):  # the store is gone: nothing can be removed
                self._empty(Objects(self.objects.place, retries=RETRIES))
            self._remove_folders()

    def _empty(self, objects: Objects) -> None:
        """Delete what was written: at once, else what a listing shows one by one."""
        try:
            objects.delete(self._keys)
        except StoreError:
            for info in objects.list(self.folder):
                objects.delete([info.key])

    def _root_exists(self) -> bool:
        place = self.objects.place
        return place.scheme != "file" or Path(place.root).is_dir()

    def _remove_folders(self) -> None:
        """Of a file:// store: deleting files leaves folders, and the store may have been new."""
        place = self.objects.place
        if place.scheme != "file":
            return
        root = Path(place.root)
        shutil.rmtree(root / self.folder, ignore_errors=True)
        with suppress(OSError):  # not empty: somebody else's
            (root / "doctor").rmdir()
            if self._new:
                root.rmdir()
