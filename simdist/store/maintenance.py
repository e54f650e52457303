"""Keeping a store honest and small: `verify` reads everything, `gc` takes what nothing references.

roots of gc:  manifests ── refs ──> data, arrays   kept
              records of unfinished jobs ─────> data, arrays, records   kept, for the resume
              neither, and older than a day                     goes
              neither, and younger                              goes where asked, while nobody works
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from simdist.errors import IntegrityError, StoreError
from simdist.store import leases
from simdist.store.objects import ObjectInfo
from simdist.store.sealed import fetch, unseal
from simdist.types import Json, ObjectRef

if TYPE_CHECKING:
    from simdist.store.datasets import Dataset
    from simdist.store.store import Store

__all__ = ["GRACE", "Damage", "GcReport", "VerifyReport", "abandon", "gc", "verify"]

GRACE = timedelta(hours=24)  # a task may write for hours before it records what it wrote
AT_ONCE = 1000  # deletions between two looks at what they would delete
STAGED = re.compile(r"#\d+$")  # no object's key has a '#'


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
    why: for people, a line for each reason why something stays.
    """

    kept: int
    kept_nbytes: int
    young: int
    young_nbytes: int
    keys: tuple[str, ...]
    nbytes: int
    deleted: bool
    why: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return {
            "kept": {"objects": self.kept, "nbytes": self.kept_nbytes},
            "young": {"objects": self.young, "nbytes": self.young_nbytes},
            "garbage": {"objects": len(self.keys), "nbytes": self.nbytes, "keys": list(self.keys)},
            "deleted": self.deleted,
            "why": list(self.why),
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
    yet. While a driver is at work on the store (see `leases`) nothing younger than a day goes,
    whatever is asked for; drivers that start while this removes wait until it has ended. Only who
    writes to a store without a driver has to keep older_than above the time that takes.

    Records of jobs that are committed go too: their manifest says all. Names, memos and manifests
    stay. Files that killed writers left beside objects of a file:// store go as well; what they
    left unseen on S3 (parts of large objects) is for a rule of the bucket. Raises IntegrityError,
    before anything goes, where a manifest or record cannot be read: what it references would be
    taken for garbage; ConflictError where another gc is removing.
    """
    if not delete:
        return _gc(store, datetime.now(UTC), older_than, delete=False)
    with leases.sweeping(store.objects) as now:
        return _gc(store, now, older_than, delete=True)


def _gc(store: Store, now: datetime, older_than: timedelta, *, delete: bool) -> GcReport:
    drivers = leases.alive(store.objects, now)
    horizon = now - (max(older_than, GRACE) if drivers else older_than)
    # Candidates are listed before the roots are read, so that what a run records meanwhile counts.
    folders = ("data", "arrays", "leases")
    candidates = [info for folder in folders for info in store.objects.list(folder)]
    at_work = {leases.SWEEP, *(lease.key for lease in drivers)}
    candidates = [info for info in candidates if info.key not in at_work]
    roots, finished = _mark(store)
    kept = [info for info in candidates if info.key in roots]
    loose = [info for info in candidates if info.key not in roots] + finished + _staged(store)
    young = [info for info in loose if info.modified > horizon]
    garbage = sorted(
        (info for info in loose if info.modified <= horizon), key=lambda info: info.key
    )
    why = _why(kept, roots, young, drivers, now, older_than)
    if delete:
        garbage = sorted(_sweep(store, garbage, horizon), key=lambda info: info.key)
    return GcReport(
        kept=len(kept),
        kept_nbytes=_nbytes(kept),
        young=len(young),
        young_nbytes=_nbytes(young),
        keys=tuple(info.key for info in garbage),
        nbytes=_nbytes(garbage),
        deleted=delete,
        why=why,
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


def _mark(store: Store) -> tuple[dict[str, str], list[ObjectInfo]]:
    """Keys of data that something references, each with the unfinished job that does so ("" where a
    dataset does), and the records of committed jobs."""
    roots: dict[str, str] = {}
    committed: set[str] = set()
    for info in store.objects.list("manifests"):
        fingerprint = info.key.removeprefix("manifests/").removesuffix(".json")
        manifest = store.manifest(fingerprint)
        if manifest is None:  # a listing damaged on its way would cost a dataset its data
            raise StoreError(
                f"{store.uri}/{info.key} was listed and does not exist, so what is referenced is"
                " not known and nothing was removed. If it was just deleted, run gc again."
            )
        committed.add(fingerprint)
        roots.update(dict.fromkeys(_keys(manifest.to_json()), ""))
    finished: list[ObjectInfo] = []
    jobs: dict[str, bool] = {}
    for info in store.objects.list("records"):
        job = info.key.split("/")[1]
        if job not in jobs:
            jobs[job] = job in committed or _content(store, job) in committed
        if jobs[job]:
            finished.append(info)
        else:
            for key in _keys(_read(store, info.key)):
                roots.setdefault(key, job)
    return roots, finished


def _staged(store: Store) -> list[ObjectInfo]:
    """Files of a file:// store that became no object because their writer was killed: the client
    writes `{object}#{number}` first, and no listing shows it."""
    root = _root(store)
    if root is None:
        return []
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if STAGED.search(name) and (stat := _stat(path)) is not None:
                key = path.relative_to(root).as_posix()
                modified = datetime.fromtimestamp(stat.st_mtime, UTC)
                found.append(ObjectInfo(key, stat.st_size, None, modified))
    return found


def _why(
    kept: list[ObjectInfo],
    roots: Mapping[str, str],
    young: list[ObjectInfo],
    drivers: Sequence[leases.Lease],
    now: datetime,
    older_than: timedelta,
) -> tuple[str, ...]:
    """For each reason why objects stay, how many do."""
    by_job: dict[str, list[ObjectInfo]] = {}
    for info in kept:
        by_job.setdefault(roots[info.key], []).append(info)
    lines = []
    for job, infos in sorted(by_job.items()):
        lines.append(f"{_size(infos)}: {_needed_by(job)}")
    least = now - older_than
    if recent := [info for info in young if info.modified > least]:
        lines.append(f"{_size(recent)}: younger than {_age(older_than)}")
    if held := [info for info in young if info.modified <= least]:
        lines.append(f"{_size(held)}: younger than a day, and a driver is at work")
    for lease in drivers:
        lines.append(
            f"a driver is at work on {lease.stage} {lease.fingerprint}, last heard of"
            f" {max(0, (now - lease.renewed).seconds)} s ago; if it was killed, it stops counting"
            f" at {lease.renewed + leases.LIVES:%H:%M:%S} UTC"
        )
    return tuple(lines)


def _needed_by(job: str) -> str:
    if not job:
        return "in use by datasets"
    return (
        f"of the unfinished job {job}: run its flow again to finish it, or give it up with"
        f" --abandon {job}"
    )


def _content(store: Store, job: str) -> str | None:
    """The fingerprint under which a job was committed whose identity follows from its content."""
    memo = store.memo(job)
    return memo.get("fingerprint") if isinstance(memo, Mapping) else None


def _read(store: Store, key: str) -> Json:
    try:
        return unseal(fetch(store.objects, key), where=f"{store.uri}/{key}")
    except IntegrityError as error:
        raise IntegrityError(
            f"{store.uri}/{key} is damaged, so what it references is unknown and nothing"
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
    gone = [info for info in garbage if STAGED.search(info.key) and _unlinked(store, info, horizon)]
    garbage = [info for info in garbage if not STAGED.search(info.key)]
    for start in range(0, len(garbage), AT_ONCE):
        batch = [
            info
            for info in garbage[start : start + AT_ONCE]
            if (now := store.objects.head(info.key)) is not None and now.modified <= horizon
        ]
        store.objects.delete(info.key for info in batch)
        gone.extend(batch)
    return gone


def _unlinked(store: Store, info: ObjectInfo, horizon: datetime) -> bool:
    """Whether the staged file went: not one that is being written again, or became its object."""
    root = _root(store)
    assert root is not None  # only a file:// store has staged files
    path = root / info.key
    stat = _stat(path)
    if stat is None or datetime.fromtimestamp(stat.st_mtime, UTC) > horizon:
        return False
    path.unlink(missing_ok=True)
    return True


def _root(store: Store) -> Path | None:
    """The folder of a file:// store."""
    data = store.objects.local_path("data")
    return None if data is None else data.parent


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _nbytes(infos: list[ObjectInfo]) -> int:
    return sum(info.nbytes for info in infos)


def _age(age: timedelta) -> str:
    for unit, seconds in (("h", 3600), ("min", 60)):
        if age.total_seconds() >= seconds:
            return f"{age.total_seconds() / seconds:g} {unit}"
    return f"{age.total_seconds():g} s"


def _size(infos: list[ObjectInfo]) -> str:
    nbytes = _nbytes(infos)
    size = f"{nbytes / 2**20:.1f} MiB" if nbytes >= 2**20 else f"{nbytes / 2**10:.1f} KiB"
    return f"{len(infos):,} object{'' if len(infos) == 1 else 's'}, {size}"
