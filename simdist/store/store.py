"""The layout of a store: what lies under which key, and which writes happen once."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from simdist.errors import ConfigError, ConflictError, IntegrityError, ObjectMissing
from simdist.npy import HEADER_NBYTES, read_header
from simdist.store import leases, names, sealed
from simdist.store.cache import checked_once, damaged, unreadable, worker_cache, written
from simdist.store.datasets import Dataset, Manifest
from simdist.store.formats import Buffer, json_bytes, npy_pieces, npy_view, parquet_buffer
from simdist.store.objects import ObjectInfo, Objects
from simdist.store.pages import map_file
from simdist.store.place import Place, hidden
from simdist.types import Array, Json, ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ScratchArray", "Store", "StoreScratch", "open_store"]

# Half of what `gc` waits before it takes an unreferenced object: an older one that is about to be
# referenced is written again, which makes it young.
TRUSTED_AGE = timedelta(hours=12)

T = TypeVar("T")


def open_store(uri: str | os.PathLike[str], **options: Any) -> Store:
    """Open the store at a path, `file:///abs`, `s3://bucket/prefix` or `memory://name`.

    Nothing is read or written yet. Options, for s3:// only: `endpoint`, `region`, `profile`,
    `access_key_id`, `secret_access_key`, `session_token`, `anonymous`, `checksums`, `patience` (see
    `Options`); by default the environment
    (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID, ...) and the
    standard AWS files. With an endpoint, buckets are addressed path-style; plain http is spoken
    only where the endpoint says http://. Raises ConfigError for a uri or option it does not know.
    """
    options = hidden(options)  # before anything fails: crash reporters show a frame's variables
    return Store(Objects(Place.parse(uri, options)))


class Store:
    """Datasets, records and names over a store's objects. Pickles; safe for threads.

    data/{kind}-{sha256}.npy|parquet|json     immutable, named by content
    arrays/{fingerprint}/...                  Zarr arrays, whose format names the objects
    records/{fingerprint}/{task}.json         what a task left behind; created once
    manifests/{fingerprint}.json              a committed dataset; created once
    names/{name}/{number}.json                see `names`
    memos/{sha256 of key}.json                what was learnt once and need not be read again
    runs/{fingerprint}/{run}.json             what a run took that committed a dataset
    leases/{run}/driver.json, cancelled       a driver at work, and its wish to stop; gc.json
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    @property
    def uri(self) -> str:
        """Where the store lies, without credentials."""
        return self.objects.uri

    @property
    def shared(self) -> bool:
        """Whether another process sees the same store: False for memory://."""
        return self.objects.shared

    # -- data: immutable, named by content --

    def write_array(self, kind: str, array: Array) -> ObjectRef:
        """Keep an array of numbers as .npy (C order, little endian); equal arrays are one object.

        kind: what it is ("vectors", "centres"), part of the key. An array that is contiguous and
        little endian is not copied. Raises ConfigError for dtypes that are no numbers.
        """
        return self._write(kind, "npy", npy_pieces(array))

    def write_table(self, kind: str, table: pa.Table) -> ObjectRef:
        """Keep a table as Parquet; equal tables, however chunked, are one object."""
        return self._write(kind, "parquet", [memoryview(parquet_buffer(table)).cast("B")])

    def write_json(self, kind: str, value: Json) -> ObjectRef:
        """Keep a JSON value, sorted and compact; InputError where it is none (NaN, numpy)."""
        return self._write(kind, "json", [json_bytes(value, what=f"the value of {kind}")])

    def write_at(self, key: str, data: bytes, *, vouched: ObjectRef | None = None) -> ObjectRef:
        """Keep bytes under a key that their format prescribes; returns what stands there then.

        Whoever writes it must write the same bytes: unlike `data`, the key does not follow from
        them. vouched: what a record says of the object already; where that is whole, it stays.
        """
        if vouched is not None and self.whole(vouched):
            return vouched
        self.objects.put(key, data)
        return ObjectRef(key, hashlib.sha256(data).hexdigest(), len(data))

    def read_bytes(self, ref: ObjectRef) -> bytes:
        """An object as it was written; checked every time. Raises ObjectMissing, IntegrityError."""
        return bytes(self._checked_buffer(ref))

    def read_range(self, ref: ObjectRef, start: int, nbytes: int) -> bytes:
        """A part of an object, which its sha256 cannot vouch for. Raises ObjectMissing."""
        try:
            return self.objects.get_range(ref.key, start, nbytes)
        except ObjectMissing:
            raise self._lost(ref) from None

    def read_array(self, ref: ObjectRef) -> Array:
        """An array as it was written, read-only; mapped from disk, except on memory://.

        Checked against its sha256 once per process. Raises ObjectMissing and IntegrityError.
        """
        try:
            if not self.shared:
                return npy_view(self._checked_buffer(ref))
            return self._use(ref, _map_npy)
        except (ValueError, TypeError, OverflowError) as error:
            raise unreadable(self._where(ref), error) from None

    def read_table(self, ref: ObjectRef, columns: list[str] | None = None) -> pa.Table:
        """A table as it was written, or some of its columns; checked as `read_array` does."""
        import pyarrow as pa  # noqa: PLC0415 - 0.3 s that a reader of manifests does not need
        import pyarrow.parquet as pq  # noqa: PLC0415

        if not self.shared:
            source: Any = pa.BufferReader(pa.py_buffer(self._checked_buffer(ref)))
        else:
            source = self._use(ref, lambda path: pa.memory_map(str(path)))
        try:
            with source, pq.ParquetFile(source) as file:
                # Threads belong to the engine: a task may not take all cores to decode.
                return file.read(columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self._where(ref), error) from None

    def read_json(self, ref: ObjectRef) -> Json:
        """A JSON value as it was written; checked every time, because it is small."""
        try:
            return json.loads(bytes(self._checked_buffer(ref)))
        except (ValueError, RecursionError) as error:
            raise unreadable(self._where(ref), error) from None

    def whole(self, ref: ObjectRef) -> bool:
        """Whether the object is there and undamaged: hashed where it is local, else by its size.

        What a remote store damages behind an unchanged size is found when it is read.
        """
        info = self.objects.head(ref.key)
        return info is not None and self._unchanged(ref, info)

    def holds(self, ref: ObjectRef) -> bool:
        """Whether an object lies in this process's memory anyhow, and reading it copies nothing."""
        return False

    def has_room(self, nbytes: int) -> bool:
        """Whether arrays of so many bytes in all would be held in this process's memory."""
        return False

    def release(self, refs: Iterable[ObjectRef]) -> None:
        """Told what nobody will read again in this run. Kept all the same, for who resumes it; only
        a store that goes with its call lets go."""

    def scratch(self) -> StoreScratch:
        """Arrays by picklable handle, for engines; `gc` takes them when they have aged."""
        return StoreScratch(self)

    # -- records: created once --

    def write_record(self, fingerprint: str, task: str, value: dict[str, Json]) -> dict[str, Json]:
        """Record what a task left behind, unless it is recorded; returns the record that stands."""
        return self._create(_record_key(fingerprint, task), value, f"the record of {task}")

    def read_record(self, fingerprint: str, task: str) -> dict[str, Json] | None:
        """The record of a task, or None."""
        return self._read_small(_record_key(fingerprint, task))

    def list_records(self, fingerprint: str) -> set[str]:
        """Tasks that seem to have a record. From a listing, so a hint: read the record itself."""
        folder = f"records/{_fingerprint(fingerprint)}/"
        keys = (info.key for info in self.objects.list(folder))
        return {key[len(folder) :].removesuffix(".json") for key in keys}

    # -- manifests: created once --

    def commit(self, manifest: Manifest) -> Manifest:
        """Create the manifest, which is what makes a dataset exist; returns it.

        Committing the same manifest again is no error: drivers may race, and answers get lost.
        Raises ConflictError where another manifest stands under this fingerprint.
        """
        key = _manifest_key(manifest.fingerprint)
        data = manifest.to_bytes()
        stands = sealed.create(self.objects, key, data)
        if stands == data:
            return manifest
        other = Manifest.from_bytes(stands, where=f"{self.uri}/{key}").to_json()
        mine = manifest.to_json()
        differs = [name for name in mine if json.dumps(mine[name]) != json.dumps(other[name])]
        raise ConflictError(
            f"{self.uri}/{key} was committed by another run and differs in {', '.join(differs)}:"
            " the first one stands. The stage is not deterministic, or ran with other package"
            " versions; read what stands, or raise the stage's VERSION and run again."
        )

    def manifest(self, fingerprint: str) -> Manifest | None:
        """The manifest committed under a fingerprint, or None."""
        key = _manifest_key(fingerprint)
        try:
            data = sealed.fetch(self.objects, key)
        except ObjectMissing:
            return None
        return Manifest.from_bytes(data, where=f"{self.uri}/{key}")

    def dataset(self, name: str) -> Dataset:
        """The dataset called "graph", "graph@latest" or "graph@3", or by fingerprint or full uri.

        Raises ObjectMissing saying how far the run that would make it has come.
        """
        fingerprint = self._fingerprint_of(name)
        manifest = self.manifest(fingerprint)
        if manifest is None:
            recorded = len(self.list_records(fingerprint))
            raise ObjectMissing(
                f"dataset {name} is not complete: {self.uri}/{_manifest_key(fingerprint)} does not"
                f" exist, {recorded} task records do. Run its job (again) to finish it."
            )
        return Dataset(self, manifest)

    def name(self, name: str, fingerprint: str) -> int:
        """Give a dataset a name; returns its number. What is named so already gets no new one."""
        return names.point(self.objects, name, _fingerprint(fingerprint))

    # -- memos, runs, leases --

    def memo(self, key: str) -> Json | None:
        """What `write_memo` kept under any string, or None."""
        found = self._read_small(_memo_key(key))
        return None if found is None else found["value"]

    def write_memo(self, key: str, value: Json) -> Json:
        """Keep a JSON value under any string, once; returns the one that stands."""
        kept = {"key": key, "value": value}
        return self._create(_memo_key(key), kept, f"the memo of {key}")["value"]

    def write_run(self, fingerprint: str, run_id: str, value: dict[str, Json]) -> None:
        """Keep what a run took that committed a dataset; nothing refers to it."""
        key = f"runs/{_fingerprint(fingerprint)}/{run_id}.json"
        self._create(key, value, f"the journal of run {run_id}")

    def last_run(self, fingerprint: str) -> dict[str, Json] | None:
        """What `write_run` kept latest, by the store's clock, or None."""
        kept = list(self.objects.list(f"runs/{_fingerprint(fingerprint)}"))
        if not kept:
            return None
        return self._read_small(max(kept, key=lambda info: (info.modified, info.key)).key)

    def lease(self, run_id: str, payload: dict[str, Json]) -> AbstractContextManager[None]:
        """While this lasts, a driver is at work on this run, and on what; `gc` heeds it.

        A cancellation outlasts it: tasks may still be running. Waits while gc is removing.
        """
        return leases.driving(self.objects, run_id, payload)

    def cancel(self, run_id: str) -> None:
        """Ask the tasks of one run, and no other's, to stop."""
        self.objects.put(f"leases/{run_id}/cancelled", b"")

    def cancelled(self, run_id: str) -> bool:
        """Whether the run was cancelled."""
        return self.objects.head(f"leases/{run_id}/cancelled") is not None

    # -- identity --

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and other.objects == self.objects

    def __hash__(self) -> int:
        return hash(self.objects)

    # -- helpers --

    def _write(
        self, kind: str, suffix: str, pieces: tuple[Buffer, ...] | list[Buffer]
    ) -> ObjectRef:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,99}", kind):
            raise ConfigError(
                f"{kind!r} is no kind of object; expected small letters, digits, '_' or '-'"
            )
        sha = hashlib.sha256()
        for piece in pieces:
            sha.update(piece)
        digest = sha.hexdigest()
        nbytes = sum(len(piece) for piece in pieces)
        ref = ObjectRef(f"data/{kind}-{digest}.{suffix}", digest, nbytes)
        info = self.objects.head(ref.key)
        fresh = info is not None and datetime.now(UTC) - info.modified < TRUSTED_AGE
        if info is None or not (fresh and self._unchanged(ref, info)):
            self.objects.put(ref.key, pieces)
            path = self.objects.local_path(ref.key)
            if path is not None:
                written(path, ref)
        return ref

    def _unchanged(self, ref: ObjectRef, info: ObjectInfo) -> bool:
        path = self.objects.local_path(ref.key)
        if path is None or info.nbytes != ref.nbytes:
            return info.nbytes == ref.nbytes
        try:
            checked_once(path, ref, where=self._where(ref))
        except (FileNotFoundError, IntegrityError):
            return False
        return True

    def _use(self, ref: ObjectRef, read: Callable[[Path], T]) -> T:
        """`read` of a checked local file: the object's own, or the worker cache's."""
        path = self.objects.local_path(ref.key)
        if path is None:
            return worker_cache().use(
                ref,
                where=self._where(ref),
                fetch=lambda fd: self._fetch(ref, fd),
                read=read,
            )
        try:
            checked_once(path, ref, where=self._where(ref))
            return read(path)
        except FileNotFoundError:
            raise self._lost(ref) from None

    def _fetch(self, ref: ObjectRef, fd: int) -> None:
        try:
            info = self.objects.head(ref.key)
            if info is None:
                raise self._lost(ref)
            self.objects.download(ref.key, info.nbytes, fd)
        except ObjectMissing:
            raise self._lost(ref) from None

    def _checked_buffer(self, ref: ObjectRef) -> memoryview:
        for _ in range(sealed.READS):  # what was damaged on its way is whole the next time
            try:
                data = self.objects.buffer(ref.key)
            except ObjectMissing:
                raise self._lost(ref) from None
            got = hashlib.sha256(data).hexdigest()
            if got == ref.sha256:
                return data
        raise damaged(self._where(ref), ref, got, len(data))

    def _lost(self, ref: ObjectRef) -> ObjectMissing:
        return ObjectMissing(
            f"{self._where(ref)} does not exist, though a manifest or record vouches for it"
            f" ({ref.nbytes} bytes, sha256 {ref.sha256}). Run the job that made it again."
        )

    def _where(self, ref: ObjectRef) -> str:
        return f"{self.uri}/{ref.key}"

    def _create(self, key: str, value: dict[str, Json], what: str) -> dict[str, Json]:
        stands = sealed.create(self.objects, key, sealed.seal(value, what=what))
        return sealed.unseal(stands, where=f"{self.uri}/{key}")

    def _read_small(self, key: str) -> dict[str, Json] | None:
        try:
            data = sealed.fetch(self.objects, key)
        except ObjectMissing:
            return None
        return sealed.unseal(data, where=f"{self.uri}/{key}")

    def _fingerprint_of(self, name: str) -> str:
        if "://" in name:
            match = re.fullmatch(
                re.escape(f"{self.uri}/manifests/") + r"([0-9a-f]{32})\.json", name
            )
            if match is None:
                raise ConfigError(
                    f"{name!r} is no dataset of store {self.uri}; expected"
                    f" {self.uri}/manifests/<fingerprint>.json, a name or a fingerprint"
                )
            return match[1]
        return name if names.is_fingerprint(name) else names.resolve(self.objects, name)


class StoreScratch:
    """Where an engine's `put` leaves arrays: as objects of a store, which outlive any worker."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def save(self, array: Array) -> ScratchArray:
        """Write the array; equal arrays are written once."""
        return ScratchArray(self.store, self.store.write_array("scratch", array))


class ScratchArray:
    """A small picklable name for an array at rest."""

    def __init__(self, store: Store, ref: ObjectRef) -> None:
        self.store, self.ref = store, ref

    def load(self) -> Array:
        """The array, read-only, through the worker's cache."""
        return self.store.read_array(self.ref)


def _map_npy(path: Path) -> Array:
    with path.open("rb") as file:
        shape, dtype, _, begin = read_header(file.read(HEADER_NBYTES))
        if 0 in shape:
            empty = np.empty(shape, dtype)
            empty.flags.writeable = False
            return empty
        return np.ndarray(shape, dtype, buffer=map_file(file), offset=begin)


def _fingerprint(text: str) -> str:
    if not names.is_fingerprint(text):
        raise ConfigError(f"{text!r} is no fingerprint; expected 32 hexadecimal digits")
    return text


def _manifest_key(fingerprint: str) -> str:
    return f"manifests/{_fingerprint(fingerprint)}.json"


def _record_key(fingerprint: str, task: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._=@+/-]{1,200}", task):
        raise ConfigError(f"{task!r} is no task key; expected letters, digits and . _ = @ + - /")
    return f"records/{_fingerprint(fingerprint)}/{task}.json"


def _memo_key(key: str) -> str:
    return f"memos/{hashlib.sha256(key.encode()).hexdigest()}.json"
