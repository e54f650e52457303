"""What trials share: the data, an undisturbed run, the nursery, clusters, an S3 server, a disk."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from simdist.store import Store, leases, maintenance, open_store
from tests.chaos.clusters import Cluster
from tests.chaos.driver import Drive, Driver, Nursery
from tests.chaos.flow import write_data
from tests.s3_server import RunningServer, running

__all__ = ["Reference", "World", "keys_of", "same_manifests", "staged", "sweep"]

DISK_NBYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Reference:
    """What an undisturbed run leaves.

    manifests: their bytes by key. keys: of all objects; swept: after `gc`. tasks: of each job, by
    fingerprint. rounds: how many tasks each has.
    """

    manifests: Mapping[str, bytes]
    keys: frozenset[str]
    swept: frozenset[str]
    tasks: frozenset[tuple[str, str]]
    rounds: Mapping[str, int]


class World:
    """Started as trials need it; `close` ends it all."""

    def __init__(self, folder: Path, flow: str = "main") -> None:
        self.folder, self.flow = folder, flow
        self.data = folder / "data"
        write_data(self.data)
        self._closing = ExitStack()
        self.nursery = Nursery()
        self._closing.callback(self.nursery.close)
        self._clusters: dict[str, Cluster] = {}
        self._server: RunningServer | None = None
        self._disk: Path | None = None
        self.reference = self._undisturbed()

    def cluster(self, kind: str) -> Cluster | None:
        """The cluster of an engine; None for local."""
        if kind == "local":
            return None
        if kind not in self._clusters:
            self._clusters[kind] = Cluster(kind, self.folder)
        return self._clusters[kind]

    def repair(self, kind: str) -> None:
        """Back to two workers; where that fails, the next trial gets a new cluster."""
        if kind in self._clusters:
            try:
                self._clusters[kind].repair()
            except RuntimeError:
                self.forget(kind)

    def forget(self, kind: str) -> None:
        """End a cluster that may be broken: the next trial gets a new one."""
        if kind in self._clusters:
            self._clusters.pop(kind).close()

    def engine(self, kind: str) -> dict[str, Any]:
        """As `open_engine` takes it."""
        cluster = self.cluster(kind)
        return {"kind": "local", "workers": 2} if cluster is None else cluster.engine

    def start(
        self, folder: Path, *, run: str = "first", engine: dict[str, Any] | None = None, k: int = 10
    ) -> Driver:
        """A driver at work on the store of a trial's folder."""
        (folder / "ran").mkdir(parents=True, exist_ok=True)
        engine = engine or self.engine("local")
        return self.nursery.start(
            Drive(
                str(self.data), str(folder), run, str(folder / "store"), engine, k=k, flow=self.flow
            )
        )

    @property
    def server(self) -> RunningServer:
        if self._server is None:
            self._server = self._closing.enter_context(running(self.folder / "s3"))
        return self._server

    @property
    def disk(self) -> Path:
        """A small tmpfs, seen by this process and those it starts. Needs `private_mounts`."""
        if self._disk is None:
            self._disk = self.folder / "disk"
            self._disk.mkdir()
            size = f"size={DISK_NBYTES}"
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", size, "simdist-chaos", str(self._disk)], check=True
            )
            self._closing.callback(subprocess.run, ["umount", "-l", str(self._disk)], check=False)
        return self._disk

    def close(self) -> None:
        for kind in list(self._clusters):
            self.forget(kind)
        self._closing.close()

    def _undisturbed(self) -> Reference:
        folder = self.folder / "reference"
        driver = self.start(folder)
        if driver.wait() != 0:
            raise RuntimeError(f"the undisturbed run failed:\n{driver.said}")
        store = open_store(folder / "store")
        keys = keys_of(store)
        sweep(store)
        return Reference(
            manifests={key: store.objects.get(key) for key in keys if key.startswith("manifests/")},
            keys=keys,
            swept=keys_of(store),
            tasks=frozenset(computed(folder)),
            rounds=Counter({e["round"]: e["tasks"] for e in driver.events()
                            if e["event"] == "round_done"}),
        )  # fmt: skip


def keys_of(store: Store) -> frozenset[str]:
    """All objects but leases, which come and go, and journals, one of each run."""
    return frozenset(
        info.key for info in store.objects.list("") if not info.key.startswith(("leases/", "runs/"))
    )


def same_manifests(store: Store, reference: Reference) -> bool:
    """Whether the store's manifests are the reference's, byte for byte, and no others."""
    keys = [info.key for info in store.objects.list("manifests")]
    return {key: store.objects.get(key) for key in keys} == reference.manifests


def sweep(store: Store) -> None:
    """gc of all that nobody needs, as if the leases of killed drivers had expired."""
    with patch.object(leases, "LIVES", timedelta(seconds=-1)):
        maintenance.gc(store, delete=True, older_than=timedelta(0))
    left = list(store.objects.list("leases"))
    if left:
        raise RuntimeError(f"gc left {[info.key for info in left]}")


def staged(store: Store) -> list[Path]:
    """Files that killed writers left beside objects, which no listing shows."""
    root = Path(store.objects.place.root)
    return [path for path in root.rglob("*#*") if path.is_file()] if root.is_dir() else []


def computed(folder: Path) -> list[tuple[str, str]]:
    """(fingerprint, task) for each time one was begun."""
    return [(entry.fingerprint, entry.task) for entry in journal(folder)]


@dataclass(frozen=True, slots=True)
class Begun:
    """A task begun by a process. at: nanoseconds."""

    run: str
    pid: int
    fingerprint: str
    task: str
    at: int


def journal(folder: Path) -> list[Begun]:
    """Every time a task was begun, in no order."""
    begun = []
    for path in (folder / "ran").iterdir():
        run, pid, fingerprint, task, _ = path.name.split("~")
        begun.append(Begun(run, int(pid), fingerprint, task, path.stat().st_mtime_ns))
    return begun


@contextmanager
def filled(disk: Path, *, left: int) -> Iterator[None]:
    """While this lasts, the disk has `left` bytes free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        while (more := _free(disk) - left) > 0:
            with suppress(OSError):  # somebody wrote meanwhile: there is less
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), more)
    try:
        yield
    finally:
        ballast.unlink()


def _free(disk: Path) -> int:
    """Bytes, in whole blocks."""
    space = os.statvfs(disk)
    return space.f_bavail * space.f_frsize
