"""Clusters that outlive drivers, each in a process of its own: Dask as simdist starts it, and Ray
with a node per worker.

    harness ──{"do": "workers"}──> cluster process ──> {"pids": [...]}

Its end ends the cluster. Ports are free ones, and everything listens on 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Cluster"]

STARTS = 4
START_SECONDS = 180.0
END_SECONDS = 60.0
WORKERS = 2

# A lost node is noticed within two seconds; Ray's own default is half a minute.
RAY_SYSTEM = {
    "memory_monitor_refresh_ms": 0,
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,  # a busy machine is no dead node
    "health_check_failure_threshold": 3,
}
OBJECT_STORE_NBYTES = 80 << 20


class Cluster:
    """A Dask or Ray cluster of two workers, as the harness sees it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._log = (folder / f"{kind}-cluster.log").open("a")
        for attempt in range(1, STARTS + 1):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.clusters", kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
            try:
                self.address: str = self._answer()["address"]
                return
            except RuntimeError:  # Ray gives its own start 30 s, which a busy machine may not
                self._process.stdin.close()
                self._process.stdout.close()
                self._process.wait(END_SECONDS)
                if attempt == STARTS:
                    raise

    @property
    def engine(self) -> dict[str, Any]:
        """As `open_engine` takes it."""
        return {"kind": self.kind, "address": self.address}

    def remove_node(self, pid: int | None) -> None:
        """Remove, at once, the Ray node that runs this process, or else any of those with cpus."""
        self._ask({"do": "remove", "pid": pid})

    def lose(self) -> None:
        """Kill all workers for good: nothing brings them back."""
        self._ask({"do": "lose"})

    def repair(self) -> None:
        """Bring it back to two workers."""
        self._ask({"do": "repair"})

    def worker_pids(self) -> list[int]:
        """Processes that run tasks, or could."""
        pids: list[int] = self._ask({"do": "workers"})["pids"]
        return pids

    def close(self) -> None:
        assert self._process.stdin is not None
        inside = []
        with suppress(psutil.NoSuchProcess):
            inside = psutil.Process(self._process.pid).children(recursive=True)
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_SECONDS)
        for process in inside:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(inside, END_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.kind} cluster ended; its log is {self._log.name}")
        return json.loads(line)


class _Dask:
    def __init__(self) -> None:
        from simdist.engine import open_engine

        self.engine = open_engine("dask", workers=WORKERS)
        self.address = self.engine.where

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        client = self.engine._client  # type: ignore[attr-defined]  # the harness's own engine
        if question["do"] == "lose":
            client.wait_for_workers(WORKERS, timeout=START_SECONDS)  # one may just be coming back
            client.run(_never_again, nanny=True)
            for pid in client.run(os.getpid).values():
                os.kill(pid, 9)
            return {}
        if question["do"] == "repair":
            client.wait_for_workers(WORKERS, timeout=START_SECONDS)
        return {"pids": sorted(client.run(os.getpid).values())}

    def close(self) -> None:
        self.engine.close()


def _never_again(dask_worker: Any) -> None:
    """On a nanny: its worker is not started again."""

    async def stays_away() -> Any:
        return dask_worker.status

    dask_worker.instantiate = stays_away


class _Ray:
    def __init__(self) -> None:
        from ray._private import ray_constants
        from ray.cluster_utils import Cluster as RayCluster

        ray_constants.ENABLE_RAY_CLUSTER = False  # see engine/ray.py: 127.0.0.1 and nothing else
        self.cluster = RayCluster(
            initialize_head=True,
            head_node_args={**_node(), "num_cpus": 0, "gcs_server_port": _free_port(),
                            "_system_config": RAY_SYSTEM},
        )  # fmt: skip
        self.nodes = [self.cluster.add_node(**_node(), num_cpus=1) for _ in range(WORKERS)]
        self.address = self.cluster.address

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "remove":
            node = next((n for n in self.nodes if question["pid"] in _below(n)), self.nodes[-1])
            self.nodes.remove(node)
            self.cluster.remove_node(node, allow_graceful=False)
        while question["do"] == "lose" and self.nodes:
            self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)
        if question["do"] == "repair":
            while len(self.nodes) < WORKERS:
                self.nodes.append(self.cluster.add_node(**_node(), num_cpus=1))
        return {"pids": sorted(pid for node in self.nodes for pid in _below(node))}

    def close(self) -> None:
        self.cluster.shutdown()


def _node() -> dict[str, Any]:
    return {
        "node_ip_address": "127.0.0.1",
        "object_store_memory": OBJECT_STORE_NBYTES,
        "include_dashboard": False,
    }


def _below(node: Any) -> list[int]:
    """Worker processes of a Ray node: Python children of its raylet."""
    (raylet,) = node.all_processes["raylet"]
    return [
        child.pid
        for child in psutil.Process(raylet.process.pid).children(recursive=True)
        if "ray::" in (child.cmdline() or [""])[0] or "default_worker" in " ".join(child.cmdline())
    ]


def _free_port() -> int:
    """Of the ephemeral range, and not one of those that Ray gives to workers by itself."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if not 10_002 <= port <= 19_999:
            return port


def _serve(kind: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray and Dask print is for the log
    cluster = _Dask() if kind == "dask" else _Ray()
    print(json.dumps({"address": cluster.address}), file=answers, flush=True)
    for line in sys.stdin:
        began = time.monotonic()
        answer = cluster.answer(json.loads(line))
        print(f"{line.strip()} {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        print(json.dumps(answer), file=answers, flush=True)
    cluster.close()


if __name__ == "__main__":
    _serve(sys.argv[1])
