"""A private Prefect API on 127.0.0.1 that starts and stops quietly, for runs without a server.

    this process ── stdin pipe ──> child: prefect server, sqlite in its own home
         │                           │ ends when the pipe closes, however this process ended
         └── http://127.0.0.1:PORT/api

Prefect's own embedded server prints what it does, gives up after 20 seconds of a busy machine and
leaves tracebacks of cancelled tasks on the terminal; a child keeps all of that in a log file.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from simdist.errors import SimdistError

__all__ = ["PrivateApi", "ServerError", "private_api"]

STARTUP_SECONDS = 240.0  # a fresh database takes 15 on two cores, a busy machine several times that
STOP_SECONDS = 10.0

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",  # nothing is scheduled here
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
}


class ServerError(SimdistError):
    """The private Prefect API did not start, or ended too soon."""


@dataclass(frozen=True, slots=True)
class PrivateApi:
    """A server that is starting. `environment` points Prefect at it: set it before importing."""

    url: str
    home: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> Mapping[str, str]:
        return {**QUIET, "PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.home)}

    def wait(self) -> None:
        """Return when the API answers; ServerError with the end of its log where it does not."""
        ends = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < ends:
            with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        code = self.process.poll()
        ended = f"ended with code {code}" if code is not None else "did not answer"
        last = self.log.read_text(errors="replace").strip().splitlines()[-15:]
        raise ServerError(
            f"the private Prefect API {ended} within {STARTUP_SECONDS:.0f} s. Set PREFECT_API_URL"
            " to use a server of your own, or use `simdist run`, which needs none. Last words:\n"
            + "\n".join(f"  {line}" for line in last)
        )


@contextmanager
def private_api() -> Iterator[PrivateApi]:
    """Start a Prefect API for as long as this context lasts; `wait` says when it is up."""
    with ExitStack() as stack:
        home = stack.enter_context(_home())
        log = home / "server.log"
        port = _free_port()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.server", str(port)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **QUIET, "PREFECT_HOME": str(home)},
                start_new_session=True,  # Ctrl-C is for the flow, which still has to tell the API
            )
        stack.callback(_stop, process)
        yield PrivateApi(f"http://127.0.0.1:{port}/api", home, log, process)


def serve(port: int) -> None:
    """In the child: `prefect server start`, until stdin closes."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    sys.argv = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _home() -> Iterator[Path]:
    """A home for Prefect that keeps its history, where no other run is using it; else a fresh one.

    Keeping it spares the ten seconds that making the database takes.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    kept = cache / "simdist" / f"prefect-{version('prefect')}"
    with ExitStack() as stack:
        try:
            kept.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(kept / "in-use"))
        except (OSError, ImportError):  # another run has it, or it cannot be written
            kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="simdist-prefect-")))
        yield kept


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process; BlockingIOError where another process holds it."""
    import fcntl  # noqa: PLC0415 - not on every system; without it every run has a fresh home

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
