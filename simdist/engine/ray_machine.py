"""What an own Ray cluster is to this machine: a token, a folder, sockets, processes, signals.

Ray itself is met in ray.py alone. Nothing here imports it, and `protect` has to run before anything
does.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading as std_threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from simdist.engine import threads

__all__ = [
    "as_raised",
    "child_pids",
    "empty",
    "end_all",
    "is_loopback",
    "knock",
    "own_environment",
    "processes_of_ray",
    "protect",
    "sigterm_stays",
    "temporary_folder",
]

TOKEN_FILE = Path.home() / ".ray" / "auth_token"  # where Ray looks when no variable names a token
KNOCK_SECONDS = 10.0
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
LONGEST_FOLDER = 40  # Ray puts sockets under it, and a socket's path ends at 107 characters


def protect() -> None:
    """A token for the clusters of this process, and no usage statistics.

    Ray reads these when it is imported, remembers them, and hands them to all it starts, so they
    are set before and for good. A user's own choice stands, as does a Ray that is imported already.
    Token: other users of this machine reach 127.0.0.1 too, and Ray runs whatever it is sent. A
    cluster without authentication ignores it.
    """
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
        if not named and not TOKEN_FILE.exists():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def own_environment() -> dict[str, str]:
    """What an own cluster's processes inherit: threads, and modules found where this process does
    (as spawn would do)."""
    path = os.pathsep.join(folder for folder in sys.path if folder)
    return {**threads.environment(1), "PYTHONPATH": path, LOOPBACK_ONLY: "0"}


@contextmanager
def sigterm_stays() -> Iterator[None]:
    """What this program does on SIGTERM, where it does anything, it goes on doing while connected:
    Ray's exit would end a flow run that is being cancelled as one that crashed."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and std_threading.current_thread() is std_threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def as_raised() -> Iterator[None]:
    """What a signal's handler raised (Ctrl-C, a flow run's cancel) as it was raised: Ray's compiled
    `wait` and `get` make a SystemError of it, "returned a result with an exception set"."""
    try:
        yield
    except SystemError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


@cache
def temporary_folder() -> str:
    """For sockets, logs and spilled objects; one per process, since Ray remembers the first."""
    long = len(tempfile.gettempdir()) > LONGEST_FOLDER - len("/sd-ray-12345678")
    folder = tempfile.mkdtemp(prefix="sd-ray-", dir="/tmp" if long else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def empty(folder: str) -> None:
    """Remove what lies in a folder, as far as that goes."""
    for path in Path(folder).iterdir():
        shutil.rmtree(path, ignore_errors=True)  # what stays is tried again at exit


def child_pids() -> set[int]:
    """Processes that this one has started, and theirs."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def processes_of_ray(before: set[int]) -> list[psutil.Process]:
    """Ray's processes below this one, without those that were there before."""
    return [p for p in psutil.Process().children(recursive=True) if _is_ray(p, before)]


def end_all(processes: Sequence[psutil.Process], *, seconds: float) -> None:
    """Wait for processes to end, and end those that have not."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=seconds)


def _is_ray(process: psutil.Process, before: set[int]) -> bool:
    if process.pid in before:
        return False
    with suppress(psutil.Error):
        return "ray" in " ".join(process.cmdline()).lower()
    return False


def is_loopback(address: str) -> bool:
    """Whether an address names this machine to itself."""
    return _host(address)[0] in ("127.0.0.1", "localhost", "::1")


def knock(address: str) -> None:
    """OSError where nobody listens at the address; "auto" names none."""
    host, port = _host(address)
    if host is not None and port is not None:
        socket.create_connection((host, port), timeout=KNOCK_SECONDS).close()


def _host(address: str) -> tuple[str | None, int | None]:
    parts = urlsplit(address if "://" in address else f"//{address}")
    return parts.hostname, parts.port
