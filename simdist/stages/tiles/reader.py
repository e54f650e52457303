"""A committed array as zarr sees it: what the manifest lists, and nothing else.

Plain zarr takes a shard that is gone for one that was never written, and reads fill values. Read
through the manifest, it is an error that names the object. Importing this module imports zarr.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)

from simdist.types import ObjectRef

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

    from simdist.store.datasets import Dataset

__all__ = ["ManifestStore"]


class ManifestStore(Store):
    """A read-only zarr store over the objects of a committed `similarity_tiles` dataset.

    Whole objects are checked against their sha256; parts of shards by the checksums that are in
    them (crc32c of the index, zstd's of each chunk). Pickles as its dataset. Works on every store
    of simdist, with its endpoint, credentials and retries.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(read_only=True)
        self.dataset = dataset

    @cached_property
    def refs(self) -> Mapping[str, ObjectRef]:
        """What the manifest vouches for, by its key within the array's folder."""
        folder = f"{self.dataset.metrics['array']}/"
        return {ref.key.removeprefix(folder): ref for ref in self.dataset.manifest.refs()}

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object or a part of it; None for what the array does not have, ObjectMissing for what
        it should have."""
        ref = self.refs.get(key)
        if ref is None:
            return None
        data = await asyncio.to_thread(self._read, ref, byte_range)
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        return key in self.refs

    async def list(self) -> AsyncIterator[str]:
        for key in self.refs:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in self.refs:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        names = (key[len(folder) :].split("/")[0] for key in self.refs if key.startswith(folder))
        for name in dict.fromkeys(names):
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ManifestStore) and other.dataset == self.dataset

    def __hash__(self) -> int:
        return hash((self.dataset.store, self.dataset.fingerprint))

    def __str__(self) -> str:
        return f"{self.dataset.store.uri}/{self.dataset.metrics['array']}"

    def __repr__(self) -> str:
        return f"ManifestStore({str(self)!r})"

    def _read(self, ref: ObjectRef, part: ByteRequest | None) -> bytes:
        store = self.dataset.store
        match part:
            case None:
                return store.read_bytes(ref)
            case RangeByteRequest(start, end):
                first, last = start, end
            case OffsetByteRequest(offset):
                first, last = offset, ref.nbytes
            case SuffixByteRequest(suffix):
                first, last = max(ref.nbytes - suffix, 0), ref.nbytes
        return store.read_range(ref, first, min(last, ref.nbytes) - first)
