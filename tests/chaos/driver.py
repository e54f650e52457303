"""Drivers as processes of their own, forked from one that has everything imported.

    harness ──{"start": ...}──> nursery (imports, no threads, no clients) ──fork──> driver
            <──{"pid": ...}───
            ──{"poll": pid}───> waitpid ──> {"code": null | 0 | 3 | -9 ...}

A driver runs the flow as the command line does: link by link, each dataset named as it stands.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Drive", "Driver", "Nursery"]

END_SECONDS = 240.0
KILLED = -9
EARLY = (
    "distributed",
    "obstore.store",
    "pyarrow.compute",
    "pyarrow.dataset",
    "ray",
    "simdist.compiled.assign",
    "simdist.compiled.joins",
    "simdist.compiled.graph",
    "simdist.report.progress",
    "tests.chaos.flow",
    "threadpoolctl",
)


@dataclass(frozen=True, slots=True)
class Drive:
    """What one driver is to do. run: names it among the drivers of its trial."""

    data: str
    folder: str
    run: str
    uri: str
    engine: dict[str, Any]
    options: dict[str, str] = field(default_factory=dict)
    k: int = 10
    flow: str = "main"


class Driver:
    """A driver at work, as the harness sees it."""

    def __init__(self, drive: Drive, pid: int, ask: Callable[[dict[str, Any]], Any]) -> None:
        self.drive, self.pid = drive, pid
        self._ask = ask
        self.code: int | None = None

    def alive(self) -> bool:
        if self.code is None:
            self.code = self._ask({"poll": self.pid})["code"]
        return self.code is None

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        if self.alive():
            os.kill(self.pid, 9)
        self.wait()

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Its exit code, negative for a signal; TimeoutError."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                raise TimeoutError(f"driver {self.drive.run} did not end within {seconds:g} s")
            time.sleep(0.01)
        assert self.code is not None
        return self.code

    @property
    def said(self) -> str:
        """Everything it printed; its error, where it had one."""
        return Path(self.drive.folder, f"{self.drive.run}.log").read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """What the run told its listeners, so far."""
        path = Path(self.drive.folder, f"{self.drive.run}.jsonl")
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]


class Nursery:
    """The process that drivers are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, drive: Drive) -> Driver:
        return Driver(drive, self._ask({"start": asdict(drive)})["pid"], self._ask)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def _serve() -> None:
    for module in EARLY:  # before the fork, so that a driver starts in milliseconds
        importlib.import_module(module)
    ended: dict[int, int] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if "start" in question:
            drive = Drive(**question["start"])
            pid = os.fork()
            if pid == 0:
                _child(drive)
            answer: dict[str, Any] = {"pid": pid}
        else:
            pid = question["poll"]
            if pid not in ended:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = {"code": ended.get(pid)}
        print(json.dumps(answer), flush=True)


def _child(drive: Drive) -> None:
    """Never returns: what follows the fork belongs to the nursery."""
    code = 70
    try:
        os.setsid()
        log = os.open(Path(drive.folder, f"{drive.run}.log"), os.O_CREAT | os.O_WRONLY)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = run_drive(drive)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_drive(drive: Drive) -> int:
    """The flow, in this process; the exit code that the command line gives."""
    from simdist.engine import open_engine
    from simdist.errors import SimdistError
    from simdist.models.chain import run_link
    from simdist.report.progress import JsonProgress
    from tests.chaos.flow import HeldStore, links

    folder = Path(drive.folder)
    store = HeldStore.at(drive.uri, drive.options, folder)
    datasets: dict[str, Any] = {}
    try:
        with (
            (folder / f"{drive.run}.jsonl").open("a") as told,
            open_engine(drive.engine, scratch=store.scratch()) as engine,
        ):
            for link in links(drive.flow, Path(drive.data), folder, drive.run, drive.k):
                made = run_link(
                    link, datasets, store=store, engine=engine, listeners=[JsonProgress(told)]
                )
                datasets[link.name] = made
                store.name(f"chaos.{link.name}", made.fingerprint)
    except SimdistError as error:
        traceback.print_exc()
        return error.exit_code
    return 0


if __name__ == "__main__":
    _serve()
