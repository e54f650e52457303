"""A scratch store for the length of a call: arrays stay where they were made.

    write_array, write_table ─┬─ room left ──> kept by reference, under a name drawn, not hashed
                              └─ no room ────> files in a temporary folder
    records, manifests, JSON ────────────────> memory://

Nobody but this process ever sees it, and nothing outlives it: there is no one to prove bytes to, so
nothing is hashed, encoded, written or read again. What is alike may be two objects here.
"""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from simdist.store.client import drop_memory
from simdist.store.formats import npy_pieces, parquet_buffer, plain_array
from simdist.store.objects import ObjectInfo, Objects
from simdist.store.place import Place
from simdist.store.store import Store, open_store
from simdist.types import Array, ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["HeldStore"]


class HeldStore(Store):
    """See the module docstring. limit: bytes of arrays and tables that are held; what comes after
    goes to files. To be closed.

    What is written is not copied: it must not change afterwards.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._name = f"held-{uuid.uuid4().hex}"
        self._numbers = count()
        self._lock = threading.Lock()
        self._nbytes = 0  # changed with the lock held
        self._held: dict[str, Any] = {}  # by key
        self._folder = tempfile.TemporaryDirectory(prefix="simdist-")
        self._files = open_store(self._folder.name)
        super().__init__(_HeldObjects(self._held, self._files.objects, self._name))

    def close(self) -> None:
        """Let go of everything."""
        self._held.clear()
        drop_memory(self._name)
        self._folder.cleanup()

    def write_array(self, kind: str, array: Array) -> ObjectRef:
        view = plain_array(array).view()
        view.flags.writeable = False
        return self._hold(kind, "npy", view) or self._files.write_array(kind, array)

    def write_table(self, kind: str, table: pa.Table) -> ObjectRef:
        return self._hold(kind, "parquet", table) or self._files.write_table(kind, table)

    def read_array(self, ref: ObjectRef) -> Array:
        held = self._held.get(ref.key)
        return self._files.read_array(ref) if held is None else held

    def read_table(self, ref: ObjectRef, columns: list[str] | None = None) -> pa.Table:
        held = self._held.get(ref.key)
        if held is None:
            return self._files.read_table(ref, columns)
        return held if columns is None else held.select(columns)

    def read_bytes(self, ref: ObjectRef) -> bytes:
        return self.objects.get(ref.key) if ref.key in self._held else super().read_bytes(ref)

    def whole(self, ref: ObjectRef) -> bool:
        return ref.key in self._held or self._files.whole(ref) or super().whole(ref)

    def holds(self, ref: ObjectRef) -> bool:
        return ref.key in self._held

    def has_room(self, nbytes: int) -> bool:
        with self._lock:
            return self._nbytes + nbytes <= self._limit

    def release(self, refs: Iterable[ObjectRef]) -> None:
        for ref in refs:
            if self._held.pop(ref.key, None) is not None:
                with self._lock:
                    self._nbytes -= ref.nbytes

    def _hold(self, kind: str, suffix: str, value: Any) -> ObjectRef | None:
        """Keep a value by reference; None where there is no room."""
        nbytes = int(value.nbytes)
        with self._lock:
            if self._nbytes + nbytes > self._limit:
                return None
            self._nbytes += nbytes
            digest = f"{next(self._numbers):032x}{self._name[-32:]}"
        ref = ObjectRef(f"data/{kind}-{digest}.{suffix}", digest, nbytes)
        self._held[ref.key] = value
        return ref


class _HeldObjects(Objects):
    """What a `HeldStore` has, as bytes: what is held is encoded each time it is asked for."""

    def __init__(self, held: dict[str, Any], files: Objects, name: str) -> None:
        super().__init__(Place.parse(f"memory://{name}", {}))
        self._held, self._files = held, files

    def head(self, key: str) -> ObjectInfo | None:
        held = self._held.get(key)
        if held is not None:
            return ObjectInfo(key, int(held.nbytes), None, datetime.now(UTC))
        return super().head(key) or self._files.head(key)

    def buffer(self, key: str) -> memoryview:
        held = self._held.get(key)
        if held is None:
            in_files = super().head(key) is None and self._files.head(key) is not None
            return self._files.buffer(key) if in_files else super().buffer(key)
        if key.endswith(".npy"):
            return memoryview(b"".join(npy_pieces(held)))
        return memoryview(parquet_buffer(held)).cast("B")
