"""What was measured, as JSON lines: a table can be made again, and a long run taken up again.

A line is the key (data, rows, k, contender, threads, round, and which build of the library it
was), the run, and the machine. simdist's build is the sha256 of its source, so that what was
measured before a change is not taken for what is there now.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil

import simdist
from tests.bench.alone import Run
from tests.bench.contenders import Contender, builds
from tests.bench.curves import Point
from tests.bench.datasets import DataSet

__all__ = ["Key", "Ledger", "cpu_seconds", "machine", "points", "wall_seconds"]


class Key(NamedTuple):
    """What a run was of."""

    data: str
    n: int
    d: int
    k: int
    family: str
    label: str
    build: str
    threads: int
    round: int
    fresh: bool

    @classmethod
    def of(
        cls, data: DataSet, contender: Contender, *, threads: int, round: int, fresh: bool = False
    ) -> Key:
        """fresh: whether the process had built nothing before but the warm-up."""
        return cls(
            data.name,
            data.n,
            data.d,
            data.k,
            contender.family,
            contender.label,
            build_of(contender.family),
            threads,
            round,
            fresh,
        )


class Ledger:
    """A file of runs. resume: whether what it holds counts; new runs are appended either way."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self.runs: dict[Key, Run] = {}
        if resume and path.exists():
            for line in path.read_text().splitlines():
                told = json.loads(line)
                key = Key(**told["key"])
                self.runs.pop(key, None)  # the order is that of the lines
                self.runs[key] = Run(**told["run"])

    def add(self, key: Key, run: Run) -> None:
        self.runs[key] = run
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = {"key": key._asdict(), "run": asdict(run), "machine": machine()}
        with self._path.open("a") as lines:
            lines.write(json.dumps(line) + "\n")

    def of(self, data: DataSet, *, threads: int, fresh: bool = False) -> dict[str, list[Run]]:
        """The runs of a set by label; where a library was measured in several builds, those of the
        build that was measured last."""

        def here(key: Key) -> bool:
            shape = (key.data, key.n, key.d, key.k) == (data.name, data.n, data.d, data.k)
            return shape and (key.threads, key.fresh) == (threads, fresh)

        last = {key.family: key.build for key in self.runs if here(key)}
        found: dict[str, list[Run]] = {}
        for key, run in sorted(self.runs.items(), key=lambda pair: pair[0]):
            if here(key) and key.build == last[key.family]:
                found.setdefault(key.label, []).append(run)
        return found


def wall_seconds(run: Run) -> float:
    """Of a build: the library's check of its own recall left out, which no peer does."""
    return run.wall - run.check


def cpu_seconds(run: Run) -> float:
    """As `wall_seconds`."""
    return run.cpu - run.check_cpu


def points(
    runs: Mapping[str, Sequence[Run]], of: Callable[[Run], float] = wall_seconds
) -> dict[str, list[Point]]:
    """A point per family and recall: median cost of all runs with that recall. Settings that make
    the same graph count as one, or the luckiest of them would stand for it."""
    pooled: dict[str, dict[float, list[float]]] = {}
    for label, own in runs.items():
        recall = statistics.median(run.recall for run in own)
        pooled.setdefault(label.split()[0], {}).setdefault(recall, []).extend(map(of, own))
    return {
        family: [Point(recall, statistics.median(costs)) for recall, costs in by_recall.items()]
        for family, by_recall in pooled.items()
    }


def build_of(family: str) -> str:
    """Which build of a library is here."""
    return f"simdist {_source()}" if family.startswith("simdist") else builds(family)


@cache
def _source() -> str:
    """sha256 over simdist's modules, shortened."""
    digest = hashlib.sha256()
    root = Path(simdist.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def machine() -> dict[str, Any]:
    """The machine in a few words."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            model = next((x.split(":")[1].strip() for x in lines if "model name" in x), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
    }
