"""Clusters as other people run them, started by their own command lines on 127.0.0.1.

Ports are free ones below the ephemeral range and outside 10002-19999, which Ray takes. Each server
runs in a session of its own and ends with what started it, even a test that is killed: its parent
is a shell that waits for the end of its input, and takes the whole session along.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import psutil

STARTS = 3
DASK = {"DASK_CONFIG": str(Path(__file__).parents[2] / "deploy" / "dask.yaml")}
START_SECONDS = 120.0
STOP_SECONDS = 30.0

# Runs "$@" until the input ends; then it and all it started are asked to end, and made to.
KEEPER = """
trap : TERM
"$@" </dev/null & server=$!
cat >/dev/null
kill $server 2>/dev/null
tries=0
while kill -0 $server 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL 0
"""


class NotUpError(Exception):
    """A server did not come up: its port was taken, or the machine is very busy."""


@dataclass(frozen=True, slots=True)
class Server:
    """A command line that runs. `process` is its keeper, the leader of its session."""

    process: subprocess.Popen[bytes]
    log: Path

    def pids(self, *words: str) -> list[int]:
        """Processes of this server's session whose command line holds all `words`."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            with suppress(psutil.Error, ProcessLookupError):
                line = " ".join(process.info["cmdline"] or [])  # a zombie has none
                mine = bool(line) and os.getsid(process.pid) == self.process.pid
                if mine and process.pid != self.process.pid and all(word in line for word in words):
                    found.append(process.pid)
        return found

    def kill(self) -> None:
        """SIGKILL to the whole session, as when a machine goes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait(timeout=STOP_SECONDS)
        for pid in self.pids():  # what left the process group and not the session
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


def start(command: Sequence[str], log: Path, env: Mapping[str, str] = {}) -> Server:
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "keeper", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env={**environment(), **env},
            start_new_session=True,
        )
    return Server(process, log)


def environment() -> dict[str, str]:
    """This process's, with modules found where it finds them, and no Ray of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = os.pathsep.join(folder for folder in sys.path if folder)
    return kept | {"PYTHONPATH": path, "NO_PROXY": "127.0.0.1"}


def free_ports(number: int) -> list[int]:
    chosen: list[int] = []
    for port in random.SystemRandom().sample(range(23_000, 32_700), 1000):
        if _free(port):
            chosen.append(port)
            if len(chosen) == number:
                return chosen
    raise RuntimeError(f"no {number} free ports between 23000 and 32699")


def wait_until(there: Callable[[], object], *, what: str, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            raise NotUpError(f"{what} within {seconds:g} s")
        time.sleep(0.05)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class RayHead:
    """`ray start --head`. address: of the GCS; jobs: of the job server; client: of ray://."""

    server: Server
    address: str
    jobs: str
    client: str
    env: Mapping[str, str]


@contextmanager
def ray_head(folder: Path, *, cpus: int = 2, env: Mapping[str, str]) -> Iterator[RayHead]:
    """A head with `cpus` on 127.0.0.1, its sockets in `folder` (which must have a short name).

    env: RAY_AUTH_MODE, and RAY_AUTH_TOKEN_PATH where that is "token".
    """
    with ExitStack() as stack:
        for attempt in range(1, STARTS + 1):
            head = _start_head(folder / f"start-{attempt}", cpus, env)
            stack.callback(head.server.stop)
            try:
                wait_until(
                    lambda: _is_up(head),  # noqa: B023
                    what="the Ray head did not come up",
                )
            except NotUpError:
                if attempt == STARTS:
                    raise RuntimeError(f"no Ray head; it said:\n{head.server.said()}") from None
                stack.pop_all().close()
                continue
            yield head
            return


def _start_head(folder: Path, cpus: int, env: Mapping[str, str]) -> RayHead:
    folder.mkdir(parents=True)
    gcs, jobs, client, nodes, objects, agent, grpc, envs, metrics, *workers = free_ports(9 + 24)
    env = {
        **env,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else it listens on all interfaces
        "RAY_memory_monitor_refresh_ms": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [
        *[sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"],
        *["--node-ip-address=127.0.0.1", f"--port={gcs}", f"--num-cpus={cpus}"],
        *["--dashboard-host=127.0.0.1", f"--dashboard-port={jobs}"],
        *[f"--ray-client-server-port={client}", f"--node-manager-port={nodes}"],
        *[f"--object-manager-port={objects}", f"--dashboard-agent-listen-port={agent}"],
        *[f"--dashboard-agent-grpc-port={grpc}", f"--runtime-env-agent-port={envs}"],
        *[f"--metrics-export-port={metrics}", "--worker-port-list=" + ",".join(map(str, workers))],
        *[f"--temp-dir={folder}", f"--object-store-memory={80 << 20}"],
    ]
    server = start(command, folder / "head.log", env)
    local = "127.0.0.1"
    return RayHead(
        server, f"{local}:{gcs}", f"http://{local}:{jobs}", f"ray://{local}:{client}", env
    )


def _is_up(head: RayHead) -> bool:
    if head.server.process.poll() is not None:
        raise NotUpError("the head ended")
    headers = {}
    if path := head.env.get("RAY_AUTH_TOKEN_PATH"):
        headers["Authorization"] = f"Bearer {Path(path).read_text()}"
    ask = build_opener(ProxyHandler({})).open
    try:
        with ask(Request(f"{head.jobs}/api/jobs/", headers=headers), timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class DaskCluster:
    """`dask scheduler` and `dask worker`. files: TLS, as `engine.tls` names it, or nothing."""

    scheduler: Server
    workers: Server
    address: str
    files: Mapping[str, str]
    folder: Path


@contextmanager
def dask_cluster(
    folder: Path,
    *,
    workers: int = 2,
    files: Mapping[str, str] = {},
) -> Iterator[DaskCluster]:
    """A scheduler and worker processes with one thread each, as two command lines."""
    with ExitStack() as stack:
        for attempt in range(1, STARTS + 1):
            place = folder / f"start-{attempt}"
            place.mkdir(parents=True)
            (port,) = free_ports(1)
            address = f"{'tls' if files else 'tcp'}://127.0.0.1:{port}"
            command = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
            log = place / "scheduler.log"
            scheduler = start([*_dask(), *command, *_tls(files)], log, DASK)
            stack.callback(scheduler.stop)
            try:
                wait_until(lambda: _listens(scheduler, port), what="no scheduler listened")  # noqa: B023
            except NotUpError:
                if attempt == STARTS:
                    raise RuntimeError(f"no scheduler; it said:\n{scheduler.said()}") from None
                stack.pop_all().close()
                continue
            group = dask_workers(address, place, number=workers, files=files)
            stack.callback(group.stop)
            _wait_for_workers(address, workers, files)
            yield DaskCluster(scheduler, group, address, files, place)
            return


def dask_workers(
    address: str,
    folder: Path,
    *,
    number: int,
    files: Mapping[str, str] = {},
    env: Mapping[str, str] = {},
) -> Server:
    """`dask worker`: that many processes, each with a nanny, in one session."""
    size = ["--nworkers", str(number), "--nthreads", "1", "--memory-limit", "0"]
    place = ["--host", "127.0.0.1", "--local-directory", str(folder), "--no-dashboard"]
    log = folder / f"workers-{len(list(folder.glob('workers-*')))}.log"
    return start([*_dask(), "worker", address, *size, *place, *_tls(files)], log, {**DASK, **env})


def _wait_for_workers(address: str, number: int, files: Mapping[str, str]) -> None:
    from distributed import Client, Security

    names = {"ca": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}
    security = Security(**{names[key]: path for key, path in files.items()})
    with Client(address, security=security, set_as_default=False) as client:
        client.wait_for_workers(number, timeout=START_SECONDS)


def _dask() -> list[str]:
    return [sys.executable, "-m", "dask"]


def _tls(files: Mapping[str, str]) -> list[str]:
    if not files:
        return []
    named = {"--tls-ca-file": "ca", "--tls-cert": "cert", "--tls-key": "key"}
    return [word for flag, key in named.items() for word in (flag, files[key])]


def _listens(server: Server, port: int) -> bool:
    if server.process.poll() is not None:
        raise NotUpError("the scheduler ended")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def certificates(folder: Path) -> dict[str, str]:
    """A new authority, and a certificate of its for all: files, as `engine.tls` names them."""
    from distributed import Security

    made = Security.temporary()
    texts = {
        "ca": made.tls_ca_file,
        "cert": made.tls_client_cert,
        "key": made.tls_client_key,
    }
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / f"{name}.pem").write_text(text)
    return {name: str(folder / f"{name}.pem") for name in texts}


def other_numpy(folder: Path) -> dict[str, str]:
    """An environment whose numpy says that it is 9.9.9."""
    about = folder / "other" / "numpy-9.9.9.dist-info" / "METADATA"
    about.parent.mkdir(parents=True)
    about.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 9.9.9\n")
    return {"PYTHONPATH": os.pathsep.join([str(about.parent.parent), environment()["PYTHONPATH"]])}
