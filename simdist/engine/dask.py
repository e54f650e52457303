"""Tasks on Dask workers: an own cluster of processes on this machine, or a scheduler's address.

    submit ──payload (pickled here)──> scheduler ──> worker: task.run_packed ──> packed end
    Ref.handle ── Future, watched by a callback ──> Completion

Own workers are processes with one thread each on 127.0.0.1, unlimited by the nanny: memory is
planned before a task runs, and pages of mapped files would be counted against it. The scheduler
gets unique keys that begin with the task's name, so dashboards group them and nothing is
deduplicated. Dropping the last Ref releases the worker's copy of a result.
"""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import cloudpickle  # type: ignore[import-untyped]
import dask.config
import distributed
from distributed.client import FutureCancelledError
from distributed.versions import VersionMismatchWarning

from simdist.engine import threads
from simdist.engine.base import Engine, Ref, Scratch, no_timely_end, refuse_nested
from simdist.engine.completion import Completion, in_order_of_end
from simdist.engine.environment import keep
from simdist.engine.flags import Flags
from simdist.engine.scratch import FileScratch
from simdist.engine.task import Failure, Stored, Work, encode, import_all, run_packed, unpack
from simdist.engine.versions import probe, refuse_differences
from simdist.engine.waiting import (
    LOOK_SECONDS,
    PATIENCE,
    Deadline,
    Patience,
    Watch,
    bounded,
)
from simdist.errors import Cancelled, ConfigError, EngineError, TaskFailed
from simdist.types import Array

__all__ = ["DaskEngine"]

T = TypeVar("T")

START_SECONDS = 60.0
CLOSE_SECONDS = 20.0

# Two deaths within seconds of each other can leave a cluster with no nanny and tasks queued for
# ever: give up on a lost worker late. The scheduler blames a death on every task that was sent to
# the worker, running or not, so it has to be lenient: how often a task may take its worker along is
# counted where it starts (`flags.py`).
SETTINGS = {
    "distributed.deploy.lost-worker-timeout": "1h",
    "distributed.scheduler.allowed-failures": 10,
    "distributed.nanny.environ": threads.environment(1),
    # Stack samples, event loop ticks and machine readings for a dashboard that is not there: idle,
    # they take a tenth of a cpu.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


class DaskEngine(Engine):
    """A Dask cluster. See `open_engine` for the options.

    workers: threads of all workers together (an own cluster: processes).
    """

    kind: ClassVar[str] = "dask"
    remote: ClassVar[bool] = True

    def __init__(
        self,
        *,
        workers: int | None = None,
        address: str | None = None,
        memory: int = 2 << 30,
        scratch: Scratch | None = None,
        retries: int = 2,
        patience: Patience = PATIENCE,
        tls: Mapping[str, str] | None = None,
    ) -> None:
        began = time.perf_counter()
        self.timeout = patience.timeout
        self._patience = patience
        self._own = address is None
        self._security = _security(tls) if tls else None
        self.memory = memory
        self._retries = retries
        self._scratch = scratch
        self._counter = count()
        self._tag = uuid4().hex[:8]  # two engines on one scheduler must not share keys
        self._closing = ExitStack()
        self._closed = False
        self._flags: Flags | None = None
        try:
            self._address = address or self._start(workers or threads.cpus_here())
            self._client = self._connect()
            self._watch = Watch(self._look, patience=patience, where=self.where)
            self.workers = self._meet(1 if workers is None or address else workers)
            if self._own:
                self._register("ignore-interrupt", _IgnoreInterrupt())
            self.warm("simdist.engine.task", "numpy", "threadpoolctl")
        except BaseException:
            self._closing.close()
            raise
        self.started_seconds = time.perf_counter() - began

    def submit(
        self, fn: Callable[..., Any], *args: Any, key: str, nbytes: int = 0, cpus: int = 1
    ) -> Ref:
        refuse_nested(key, args)
        self._refuse_too_large(f"task {key}", nbytes=nbytes, cpus=cpus, most_cpus=1)
        self._refuse_closed(f"task {key}")
        flag = self._flags.new() if self._flags else None
        work = Work(fn, args, key, cpus, self._retries, flag)
        payload, upstream = encode(work, dumps=cloudpickle.dumps)
        future = self._client.submit(
            _on_worker,
            payload,
            *(pending.future for pending in upstream),
            key=f"{key}-{self._tag}-{next(self._counter)}",
            pure=False,
        )
        return Ref(key, _Pending(future, flag))

    def put(self, array: Array) -> Ref:
        key = f"put-{next(self._counter)}"
        if self._scratch is None:
            raise ConfigError(
                f"workers of {self._address} cannot see this machine's files: name a store that "
                "they see, open_engine(..., scratch=store.scratch())"
            )
        return Ref(key, Stored(self._scratch.save(array)))

    def as_completed(self, refs: Iterable[Ref], *, timeout: float | None = None) -> Iterator[Ref]:
        return in_order_of_end(
            refs,
            _completion,
            timeout=self.timeout if timeout is None else timeout,
            where=self.where,
            check=self._watch.check,
        )

    def get(self, ref: Ref, *, timeout: float | None = None) -> Any:
        if isinstance(ref.handle, Stored):
            return ref.handle.handle.load()
        if ref.handle.cancelled:
            raise Cancelled(f"task {ref.key} was cancelled")
        for _ in self.as_completed([ref], timeout=timeout):
            pass
        try:
            packed = self._fetch(ref, self.timeout if timeout is None else timeout)
        except FutureCancelledError as error:
            if self._client.status != "running":
                raise EngineError(
                    f"task {ref.key}: the connection to {self.where} is lost. Run again: what has "
                    "been committed is kept"
                ) from error
            raise Cancelled(f"task {ref.key} was cancelled, or one it needs") from error
        except Exception as error:  # a worker's death, or a worker that cannot even run a task
            raise self._broken(ref, error) from error
        outcome = unpack(packed)
        if isinstance(outcome, Failure):
            raise outcome.error()
        return outcome

    def cancel(self, refs: Sequence[Ref]) -> None:
        live = [r.handle for r in refs if isinstance(r.handle, _Pending) and not r.handle.ended]
        for pending in live:
            pending.cancelled = True
            if pending.flag is not None:
                Path(pending.flag).touch()
        if live and self._client.status == "running":
            self._client.cancel([pending.future for pending in live])
        for pending in live:
            pending.end()

    def slots(self, *, nbytes: int = 0, cpus: int = 1) -> int:
        self._refuse_too_large("such a task", nbytes=nbytes, cpus=cpus, most_cpus=1)
        if not self._own:
            self._watch.check()  # workers come and go
        return self.workers

    def warm(self, *modules: str) -> float:
        began = time.perf_counter()
        self._refuse_closed("warm")
        # A plugin, so that a worker that replaces a dead one is warm as well.
        self._register("-".join(("warm", *modules)), _Warm(modules))
        return time.perf_counter() - began

    def close(self) -> None:
        self._closed = True
        self._closing.close()

    @property
    def where(self) -> str:
        return self._address

    def _start(self, workers: int) -> str:
        """Start an own cluster; its address."""
        _refuse_without_main_guard()
        folder = tempfile.mkdtemp(prefix="simdist-dask-")
        self._closing.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = {
            **SETTINGS,
            "distributed.scheduler.no-workers-timeout": f"{self._patience.workers}s",
            "temporary-directory": folder,
        }
        self._closing.enter_context(dask.config.set(settings))  # some are read while it runs
        # A nanny sets these here for its worker to inherit, and leaves them: at every restart.
        inherited = [*dask.config.get("distributed.nanny.pre-spawn-environ"), "PYTHONHASHSEED"]
        self._closing.enter_context(keep(inherited))
        try:
            with keep(inherited):
                cluster = distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    scheduler_kwargs={"dashboard": False},
                    memory_limit=0,
                    silence_logs=logging.CRITICAL,  # what matters is raised, with the task's name
                    local_directory=folder,
                )
        except Exception as error:
            raise EngineError(
                f"could not start {workers} Dask workers: {error}. They import the main script: it "
                'must be a file, with what runs under `if __name__ == "__main__":`'
            ) from error
        self._closing.callback(cluster.close, timeout=CLOSE_SECONDS)
        return str(cluster.scheduler_address)

    def _connect(self) -> distributed.Client:
        security = self._security or distributed.Security()  # or what Dask's configuration names
        # Dask would fail as well, and then wait for two minutes at exit.
        if self._address.startswith("tls://") and not _certificates(security):
            raise ConfigError(
                f"{self._address} needs certificates: give engine.tls: {{ca: FILE, cert: FILE, "
                "key: FILE}, or name them in Dask's own configuration (distributed.comm.tls)"
            )
        try:
            with warnings.catch_warnings():
                # A warning, also where warnings are errors: `_meet` refuses what matters.
                warnings.simplefilter("default", VersionMismatchWarning)
                client = distributed.Client(
                    self._address,
                    timeout=START_SECONDS,
                    set_as_default=False,
                    name="simdist",
                    security=security,
                )
        except Exception as error:
            raise EngineError(
                f"no Dask scheduler could be joined at {self._address}: {_reasons(error)}. Check "
                "the address, that the scheduler runs, and that both sides use TLS (tls://, "
                "engine.tls) with certificates of one authority, or neither"
            ) from error
        self._closing.callback(client.close, timeout=CLOSE_SECONDS)
        return client

    def _meet(self, expected: int) -> int:
        """Wait for the workers, see what they are like; how many tasks they run at once."""
        try:
            self._client.wait_for_workers(expected, timeout=self._patience.workers)
        except TimeoutError as error:
            raise EngineError(
                f"{self.where} had no {expected} workers within {self._patience.workers:g} s: "
                "start workers, look at their logs, or raise engine.wait_for_workers"
            ) from error
        flags = Flags()
        self._closing.callback(flags.close)
        look = probe(str(flags.folder))
        answers = self._ask_workers(lambda: self._client.run(look))
        refuse_differences(look()[0], {name: found for name, (found, _) in answers.items()})
        if all(sees for _, sees in answers.values()):
            self._use_this_machine(flags)
        self._look()
        return self.workers

    def _look(self) -> int:
        """Threads of the workers that take tasks now; what `workers` says from then on."""
        if self._client.status != "running":
            raise ConnectionRefusedError(f"the connection is {self._client.status}")
        found = self._client.scheduler_info(n_workers=-1)["workers"].values()
        threads_now = sum(int(w["nthreads"]) for w in found if w["status"] == "running")
        if threads_now:
            self.workers = threads_now
        return threads_now

    def _register(self, name: str, plugin: distributed.WorkerPlugin) -> None:
        """On every worker, those that come later included, as long as this engine is open."""
        name = f"simdist-{name}-{self._tag}"
        if not self._own:
            self._closing.callback(self._unregister, name)
        self._ask_workers(lambda: self._client.register_plugin(plugin, name=name))

    def _unregister(self, name: str) -> None:
        """A scheduler keeps plugins for ever, and a worker without simdist could not even start."""
        if self._client.status == "running":
            with suppress(Exception):  # the cluster is going, or a worker is: so does the plugin
                bounded(lambda: self._client.unregister_worker_plugin(name), seconds=CLOSE_SECONDS)

    def _ask_workers(self, question: Callable[[], T]) -> T:
        """Something that each worker has to answer; Dask itself would wait for ever."""
        try:
            return bounded(question, seconds=START_SECONDS)
        except TimeoutError as error:
            raise EngineError(
                f"not all workers of {self.where} answered within {START_SECONDS:g} s: one may be "
                "stopped or out of memory. Look at the cluster, and remove it"
            ) from error

    def _fetch(self, ref: Ref, timeout: float) -> bytes:
        """The packed end of a task that has ended; computed again where its worker just died."""
        deadline, longest = Deadline(timeout), LOOK_SECONDS
        while True:
            try:
                packed: bytes = ref.handle.future.result(timeout=deadline.piece(longest))
            except TimeoutError as error:
                if ref.handle.future.status == "error":
                    raise
                self._watch.check()
                if deadline.passed:
                    raise no_timely_end([ref], timeout, self.where) from error
                longest *= 2  # a large result starts again with each piece
            else:
                return packed

    def _use_this_machine(self, flags: Flags) -> None:
        """Workers see this machine's files: tasks may be cancelled and arrays put by files."""
        self._flags = flags
        if self._scratch is None:
            own = FileScratch()
            self._closing.callback(own.close)
            self._scratch = own

    def _refuse_closed(self, what: str) -> None:
        if self._closed:
            raise EngineError(f"{what}: the engine on {self._address} is closed")

    def _broken(self, ref: Ref, error: Exception) -> TaskFailed:
        if isinstance(error, distributed.KilledWorker):
            key = str(error.task).rsplit("-", 2)[0]
            failure = Failure.deadly(key, times=error.allowed_failures + 1)
        else:
            failure = Failure.of(ref.key, error)
        return failure.error()  # type: ignore[return-value]


class _Pending(Completion):
    """A Dask future and its end, as seen from this process."""

    __slots__ = ("cancelled", "flag", "future")

    def __init__(self, future: distributed.Future, flag: str | None) -> None:
        super().__init__()
        self.cancelled = False
        self.flag = flag
        self.future = future
        future.add_done_callback(lambda _: self.end())


class _IgnoreInterrupt(distributed.WorkerPlugin):  # type: ignore[misc]
    """Ctrl-C reaches every process of a terminal: it is the driver's to answer, by closing."""

    def setup(self, worker: distributed.Worker) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Warm(distributed.WorkerPlugin):  # type: ignore[misc]
    """Imports modules on every worker, those that come later included."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = tuple(modules)

    def setup(self, worker: distributed.Worker) -> None:
        import_all(self._modules)


def _on_worker(payload: bytes, *upstream: bytes) -> bytes:
    return run_packed(payload, upstream, dumps=cloudpickle.dumps)


def _security(tls: Mapping[str, str]) -> distributed.Security:
    return distributed.Security(
        tls_ca_file=tls["ca"],
        tls_client_cert=tls["cert"],
        tls_client_key=tls["key"],
        require_encryption=True,
    )


def _certificates(security: distributed.Security) -> bool:
    return security.get_connection_args("client").get("ssl_context") is not None


def _reasons(error: BaseException | None) -> str:
    """An error and what caused it: Dask tells of the time that ran out, not of the certificate."""
    told: list[str] = []
    while error is not None:
        text = str(error) or type(error).__name__
        if not any(text in earlier for earlier in told):
            told.append(text)
        error = error.__cause__ or error.__context__
    return "; ".join(told)


def _completion(ref: Ref) -> Completion:
    return ref.handle if isinstance(ref.handle, _Pending) else _ALREADY


def _refuse_without_main_guard() -> None:
    """A spawned worker imports the script again; unguarded, it would start a cluster of its own."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            "Dask workers import this script when they start, and it opened an engine again: put "
            'what runs under `if __name__ == "__main__":`'
        )


_ALREADY = Completion()  # of arrays that were put
_ALREADY.end()
