"""Keeping a store honest and small: `verify` reads everything, `gc` takes what nothing references.

roots of gc:  manifests ── refs ──> data        kept
              records of unfinished jobs ─────> data, records   kept, for the resume
              neither, and older than a day                     goes
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from simdist.errors import IntegrityError, StoreError
from simdist.types import Json, ObjectRef

if TYPE_CHECKING:
    from simdist.store.datasets import Dataset
    from simdist.store.objects import ObjectInfo
    from simdist.store.store import Store

__all__ = ["GRACE", "Damage", "GcReport", "VerifyReport", "abandon", "gc", "verify"]

GRACE = timedelta(hours=24)  # a task may write for hours before it records what it wrote
AT_ONCE = 1000  # deletions between two looks at what they would delete


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that is not what its manifest vouches for, and in what way."""

    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` read, and every damaged object it found."""

    objects: int
    nbytes: int
    damaged: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        return not self.damaged

    def to_json(self) -> dict[str, Json]:
        damaged = [{"key": item.key, "problem": item.problem} for item in self.damaged]
        return {"objects": self.objects, "nbytes": self.nbytes, "damaged": damaged}


@dataclass(frozen=True, slots=True)
class GcReport:
    """What `gc` found: objects kept, objects too young to judge, and what goes (or went).

    keys: what goes, sorted. deleted: whether it went, or this was a dry run.
    """

    kept: int
    kept_nbytes: int
    young: int
    young_nbytes: int
    keys: tuple[str, ...]
    nbytes: int
    deleted: bool

    def to_json(self) -> dict[str, Json]:
        return {
            "kept": {"objects": self.kept, "nbytes": self.kept_nbytes},
            "young": {"objects": self.young, "nbytes": self.young_nbytes},
            "garbage": {"objects": len(self.keys), "nbytes": self.nbytes, "keys": list(self.keys)},
            "deleted": self.deleted,
        }


def verify(store: Store, dataset: Dataset) -> VerifyReport:
    """Read every object of a dataset from the store itself and compare it with its sha256.

    Goes on past damage, so that the report is complete. Bypasses the worker's cache.
    """
    refs = {ref.key: ref for ref in dataset.manifest.refs()}
    found = [
        Damage(key, problem) for key, ref in sorted(refs.items()) if (problem := _wrong(store, ref))
    ]
    return VerifyReport(len(refs), sum(ref.nbytes for ref in refs.values()), tuple(found))


def gc(store: Store, *, delete: bool = False, older_than: timedelta = GRACE) -> GcReport:
    """Find, and with `delete` remove, what neither a manifest nor an unfinished job references.

    older_than: objects younger than this stay, because a run at work may not have recorded them
    yet. Records of jobs that are committed go too: their manifest says all. Names, memos and
    manifests stay. Raises IntegrityError, before anything goes, where a manifest or record cannot
    be read: what it references would be taken for garbage.
    """
    horizon = datetime.now(UTC) - older_than
    # Candidates are listed before the roots are read, so that what a run records meanwhile counts.
    candidates = [*store.objects.list("data"), *store.objects.list("leases")]
    roots, finished = _mark(store)
    kept = [info for info in candidates if info.key in roots]
    loose = [info for info in candidates if info.key not in roots] + finished
    young = [info for info in loose if info.modified > horizon]
    garbage = sorted(
        (info for info in loose if info.modified <= horizon), key=lambda info: info.key
    )
    if delete:
        garbage = _sweep(store, garbage, horizon)
    return GcReport(
        kept=len(kept),
        kept_nbytes=_nbytes(kept),
        young=len(young),
        young_nbytes=_nbytes(young),
        keys=tuple(info.key for info in garbage),
        nbytes=_nbytes(garbage),
        deleted=delete,
    )


def abandon(store: Store, fingerprint: str) -> int:
    """Give up an unfinished job: forget its records, so that `gc` may take what they reference.

    Returns the number of records. The job can still be run; it then starts from the beginning.
    Raises StoreError where the job is committed: there is nothing to give up.
    """
    if store.manifest(fingerprint) is not None:
        raise StoreError(
            f"job {fingerprint} in {store.uri} is committed, not unfinished; nothing was abandoned."
            " `simdist gc` takes the records of committed jobs by itself."
        )
    tasks = store.list_records(fingerprint)
    store.objects.delete(f"records/{fingerprint}/{task}.json" for task in sorted(tasks))
    return len(tasks)


def _wrong(store: Store, ref: ObjectRef) -> str | None:
    try:
        sha256, nbytes = store.objects.digest(ref.key)
    except StoreError as error:
        return str(error)
    if sha256 == ref.sha256:
        return None
    return (
        f"expected sha256 {ref.sha256} ({ref.nbytes} bytes), got {sha256} ({nbytes} bytes);"
        " delete it and run the job again"
    )


def _mark(store: Store) -> tuple[set[str], list[ObjectInfo]]:
    """Keys of data that something references, and the records of committed jobs."""
    roots: set[str] = set()
    committed: set[str] = set()
    for info in store.objects.list("manifests"):
        fingerprint = info.key.removeprefix("manifests/").removesuffix(".json")
        manifest = store.manifest(fingerprint)
        if manifest is not None:
            committed.add(fingerprint)
            roots.update(_keys(manifest.to_json()))
    finished: list[ObjectInfo] = []
    jobs: dict[str, bool] = {}
    for info in store.objects.list("records"):
        job = info.key.split("/")[1]
        if job not in jobs:
            jobs[job] = job in committed or _content(store, job) in committed
        if jobs[job]:
            finished.append(info)
        else:
            roots.update(_keys(_read(store, info.key)))
    return roots, finished


def _content(store: Store, job: str) -> str | None:
    """The fingerprint under which a job was committed whose identity follows from its content."""
    memo = store.memo(job)
    return memo.get("fingerprint") if isinstance(memo, Mapping) else None


def _read(store: Store, key: str) -> Json:
    data = store.objects.get(key)
    try:
        return json.loads(data)
    except ValueError as error:
        raise IntegrityError(
            f"{store.uri}/{key} is no JSON ({error}), so what it references is unknown and nothing"
            " was removed. Delete it, or abandon its job, then run gc again."
        ) from error


def _keys(value: Json) -> Iterator[str]:
    """Keys of all object references anywhere in a JSON value: facts and metrics may hold some."""
    if isinstance(value, Mapping):
        if value.keys() >= {"key", "sha256", "nbytes"}:
            yield value["key"]
        for item in value.values():
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)


def _sweep(store: Store, garbage: list[ObjectInfo], horizon: datetime) -> list[ObjectInfo]:
    """Delete what is still old: an object written again meanwhile is about to be referenced."""
    gone: list[ObjectInfo] = []
    for start in range(0, len(garbage), AT_ONCE):
        batch = [
            info
            for info in garbage[start : start + AT_ONCE]
            if (now := store.objects.head(info.key)) is not None and now.modified <= horizon
        ]
        store.objects.delete(info.key for info in batch)
        gone.extend(batch)
    return gone


def _nbytes(infos: list[ObjectInfo]) -> int:
    return sum(info.nbytes for info in infos)
