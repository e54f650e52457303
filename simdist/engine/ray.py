"""Tasks on Ray workers: an own cluster on this machine, or an address.

    submit ──payload (pickled here)──> raylet ──> worker: task.run_packed ──> packed end
    Ref.handle ── ObjectRef, waited for with `ray.wait`

One process has one Ray: an own cluster cannot be opened while another is connected. The own cluster
listens on 127.0.0.1 only, behind a token, without dashboard, usage statistics or worker logs, and
with a small object store: large things travel through the store, not through Ray.
"""

from __future__ import annotations

import logging
import os
import signal
import threading as std_threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from simdist.engine import threads
from simdist.engine.base import Engine, Ref, Scratch, no_timely_end, refuse_nested
from simdist.engine.environment import keep
from simdist.engine.flags import Flags
from simdist.engine.ray_machine import (
    as_raised,
    child_pids,
    empty,
    end_all,
    is_loopback,
    knock,
    own_environment,
    processes_of_ray,
    protect,
    sigterm_stays,
    temporary_folder,
)
from simdist.engine.scratch import FileScratch
from simdist.engine.task import Failure, Stored, Work, encode, import_all, run_packed, unpack
from simdist.engine.versions import probe, refuse_differences
from simdist.engine.waiting import PATIENCE, Deadline, Patience, Watch, bounded
from simdist.errors import Cancelled, ConfigError, EngineError
from simdist.types import Array

protect()  # before Ray is imported: it remembers what it reads then

import ray  # noqa: E402
from ray import cloudpickle  # noqa: E402
from ray import exceptions as failures  # noqa: E402
from ray._private import ray_constants  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

__all__ = ["RayEngine"]

START_SECONDS = 60.0
CLOSE_SECONDS = 20.0
OBJECT_STORE_NBYTES = 80 << 20  # little above the least that Ray accepts

# Memory is planned before a task runs. Ray's monitor looks at the whole machine, and would kill a
# task for what others hold.
SETTINGS = {"memory_monitor_refresh_ms": 0}
JOIN_ATTEMPTS = 3
TOO_BUSY = "Starting Ray client server failed"  # says a head in whose patience none came up


class RayEngine(Engine):
    """A Ray cluster. See `open_engine` for the options.

    workers: cpus of all nodes together; a task of `cpus` holds as many.
    address: "ray://host:10001" (needs ray[client]), "host:6379", or "auto".
    """

    kind: ClassVar[str] = "ray"
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
    ) -> None:
        began = time.perf_counter()
        self.timeout = patience.timeout
        self._patience = patience
        self.memory = memory
        self._scratch = scratch
        self._retries = retries
        self._counter = count()
        self._closing = ExitStack()
        self._closed = False
        self._flags: Flags | None = None
        self._own = address is None
        self._address = address or "127.0.0.1"
        try:
            if address is None:
                self._start(workers or threads.cpus_here())
            else:
                self._connect(address)
            self._watch = Watch(self._look, patience=patience, where=self.where)
            self._meet()
            self._run = ray.remote(max_retries=retries, retry_exceptions=False)(_on_worker)
            self.warm("simdist.engine.task", "numpy", "threadpoolctl")
        except BaseException:
            self._closing.close()
            raise
        self.started_seconds = time.perf_counter() - began

    def submit(
        self, fn: Callable[..., Any], *args: Any, key: str, nbytes: int = 0, cpus: int = 1
    ) -> Ref:
        refuse_nested(key, args)
        self._refuse_too_large(f"task {key}", nbytes=nbytes, cpus=cpus, most_cpus=max(self._nodes))
        self._refuse_closed(f"task {key}")
        flag = self._flags.new() if self._flags else None
        work = Work(fn, args, key, cpus, self._retries, flag)
        payload, upstream = encode(work, dumps=cloudpickle.dumps)
        options = self._run.options(name=key, num_cpus=cpus)
        return Ref(key, _Pending(options.remote(payload, *(up.ref for up in upstream)), flag))

    def put(self, array: Array) -> Ref:
        if self._scratch is None:
            raise ConfigError(
                f"workers of {self._address} cannot see this machine's files: name a store that "
                "they see, open_engine(..., scratch=store.scratch())"
            )
        return Ref(f"put-{next(self._counter)}", Stored(self._scratch.save(array)))

    def as_completed(self, refs: Iterable[Ref], *, timeout: float | None = None) -> Iterator[Ref]:
        unique = {id(ref): ref for ref in refs}.values()
        already = [ref for ref in unique if _ended(ref)]
        yield from already
        pending = {ref.handle.ref: ref for ref in unique if not _ended(ref)}
        while pending:
            self._refuse_closed("as_completed")
            for handle in self._some(pending, self.timeout if timeout is None else timeout):
                yield pending.pop(handle)

    def get(self, ref: Ref, *, timeout: float | None = None) -> Any:
        if isinstance(ref.handle, Stored):
            return ref.handle.handle.load()
        if ref.handle.cancelled:
            raise Cancelled(f"task {ref.key} was cancelled")
        self._refuse_closed(f"task {ref.key}")
        outcome = unpack(self._fetch(ref, self.timeout if timeout is None else timeout))
        if isinstance(outcome, Failure):
            raise outcome.error()
        return outcome

    def cancel(self, refs: Sequence[Ref]) -> None:
        for ref in refs:
            if not _ended(ref):
                ref.handle.cancelled = True
                # Never `ray.cancel`: see flags.py. On other machines tasks end at their own check.
                if ref.handle.flag is not None and not self._closed:
                    Path(ref.handle.flag).touch()

    def slots(self, *, nbytes: int = 0, cpus: int = 1) -> int:
        self._refuse_too_large("such a task", nbytes=nbytes, cpus=cpus, most_cpus=max(self._nodes))
        if not self._own:
            self._watch.check()  # nodes come and go
        return max(1, sum(node // cpus for node in self._nodes))

    def warm(self, *modules: str) -> float:
        began = time.perf_counter()
        self._refuse_closed("warm")
        run = ray.remote(num_cpus=1)(_warm)
        seen: set[int] = set()
        for _ in range(3):  # a quick worker may have taken two of the tasks
            seen.update(self._collect([run.remote(modules) for _ in range(self.workers)]))
            if len(seen) >= self.workers:
                break
        return time.perf_counter() - began

    def close(self) -> None:
        self._closed = True
        self._closing.close()

    @property
    def where(self) -> str:
        return self._address

    def _some(self, pending: Mapping[Any, Ref], timeout: float) -> list[Any]:
        """Handles of tasks that have ended: at least one, or EngineError."""
        deadline = Deadline(timeout)
        done: list[Any] = []
        with self._lost_connection(), as_raised():
            while not done:
                done, _ = ray.wait(
                    list(pending), num_returns=1, timeout=deadline.piece(), fetch_local=False
                )
                if not done:
                    self._watch.check()
                    if deadline.passed:
                        raise no_timely_end(list(pending.values()), timeout, self.where)
            # What else has ended by now, at once: a wait per task would look at all of them again.
            more, _ = ray.wait(
                list(pending), num_returns=len(pending), timeout=0, fetch_local=False
            )
        return list(dict.fromkeys([*done, *more]))

    def _fetch(self, ref: Ref, timeout: float) -> bytes:
        """The packed end of a task."""
        deadline = Deadline(timeout)
        while True:
            try:
                with self._lost_connection(), as_raised():
                    packed: bytes = ray.get(ref.handle.ref, timeout=deadline.piece())
            except failures.GetTimeoutError as error:
                self._watch.check()
                if deadline.passed:
                    raise no_timely_end([ref], timeout, self.where) from error
            except failures.RayError as error:
                raise self._broken(ref, error) from error
            else:
                return packed

    @contextmanager
    def _lost_connection(self) -> Iterator[None]:
        """The errors with which Ray's client tells that its server is gone, as one that helps."""
        try:
            yield
        except ConnectionError as error:
            raise EngineError(
                f"the connection to {self.where} is lost: {error}. What has been recorded is kept: "
                "bring the cluster back, and run again"
            ) from error

    def _look(self) -> int:
        """Cpus of the nodes that live; what `workers` and `slots` say from then on."""
        # A head that is gone would keep Ray asking for a minute, and then end this process.
        knock(self._head)
        nodes = _living_cpus()
        if nodes:
            self._nodes = list(nodes.values())
            self.workers = sum(self._nodes)
        return sum(nodes.values())

    def _start(self, workers: int) -> None:
        if ray.is_initialized():
            raise EngineError(
                "Ray is already connected in this process, and a process has one Ray: close the "
                "other engine first, or give address='auto' to use what is there"
            )
        folder = temporary_folder()
        self._closing.callback(empty, folder)
        before = child_pids()
        self._keep_sigterm()
        self._closing.callback(_shut_down, before)
        own = own_environment()
        with keep(own), _loopback_only(), sigterm_stays():
            os.environ.update(own)
            try:
                ray.init(
                    address="local",  # not what RAY_ADDRESS says
                    num_cpus=workers,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,  # what matters is raised, with the task's name
                    object_store_memory=OBJECT_STORE_NBYTES,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,
                    _system_config=SETTINGS,
                )
            except Exception as error:
                raise EngineError(f"could not start Ray with {workers} cpus: {error}") from error

    def _connect(self, address: str) -> None:
        if address.startswith("ray://") and find_spec("grpc") is None:
            raise ConfigError(f"{address} needs Ray's client: pip install 'ray[client]'")
        if ray.is_initialized():
            return  # the user's own connection, which stays theirs to shut down
        self._keep_sigterm()
        # A cluster that listens on this machine only is not found under the public address.
        switch = _loopback_only() if is_loopback(address) else nullcontext()
        try:
            knock(address)  # Ray itself would try for minutes
            with switch, sigterm_stays():
                _join(address)
        except Exception as error:
            raise EngineError(
                f"no Ray cluster could be joined at {address}: {error}. Check the address, that "
                "Ray and Python have the same versions on both sides, and the token (engine.token, "
                "RAY_AUTH_MODE)"
            ) from error
        self._closing.callback(_disconnect)

    def _keep_sigterm(self) -> None:
        """`ray.init` takes SIGTERM for itself; `close` gives it back. See `sigterm_stays`."""
        if std_threading.current_thread() is std_threading.main_thread():
            self._closing.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))

    def _meet(self) -> None:
        """Wait for a node with cpus, and see what every node's workers are like."""
        via_client = self._address.startswith("ray://")
        self._head = self._address if via_client else ray.get_runtime_context().gcs_address
        deadline = Deadline(self._patience.workers)
        while not self._look():
            if deadline.passed:
                raise EngineError(
                    f"{self.where} had no node with cpus within {self._patience.workers:g} s: "
                    "start Ray with --num-cpus, add nodes, or raise engine.wait_for_workers"
                )
            time.sleep(deadline.piece(1.0))
        cpus = _living_cpus()
        flags = Flags()
        self._closing.callback(flags.close)
        look = probe(str(flags.folder))
        ask = ray.remote(num_cpus=0)(look)
        answers = self._collect(
            [
                ask.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
                ).remote()
                for node in cpus
            ]
        )
        versions = {node: found for node, (found, _) in zip(cpus, answers, strict=True)}
        refuse_differences(look()[0], versions)
        if all(sees for _, sees in answers):
            self._use_this_machine(flags)

    def _collect(self, handles: list[Any]) -> list[Any]:
        try:
            found: list[Any] = ray.get(handles, timeout=START_SECONDS)
        except failures.GetTimeoutError as error:
            raise EngineError(
                f"{self.where} did not answer within {START_SECONDS:g} s: it may be busy with "
                "other work, or its workers cannot start; look at its logs"
            ) from error
        except failures.RayError as error:
            raise EngineError(f"workers of {self.where} cannot run simdist: {error}") from error
        return found

    def _use_this_machine(self, flags: Flags) -> None:
        """Workers see this machine's files: tasks may be cancelled and arrays put by files."""
        self._flags = flags
        if self._scratch is None:
            own = FileScratch()
            self._closing.callback(own.close)
            self._scratch = own

    def _refuse_closed(self, what: str) -> None:
        if self._closed:
            raise EngineError(f"{what}: the engine on {self.where} is closed")

    def _broken(self, ref: Ref, error: failures.RayError) -> EngineError:
        reason = getattr(error, "cause", None) or error
        if isinstance(reason, (failures.WorkerCrashedError, failures.NodeDiedError)):
            return Failure.deadly(ref.key, times=self._retries + 1).error()
        return Failure.of(ref.key, error).error()


class _Pending:
    """A Ray ObjectRef, and whether it was cancelled here."""

    __slots__ = ("cancelled", "flag", "ref")

    def __init__(self, ref: Any, flag: str | None) -> None:
        self.cancelled = False
        self.flag = flag
        self.ref = ref


def _on_worker(payload: bytes, *upstream: bytes) -> bytes:
    return run_packed(payload, upstream, dumps=cloudpickle.dumps)


def _warm(modules: Sequence[str]) -> int:
    """Import, and hold the worker long enough for its siblings to get a task each; its pid."""
    time.sleep(max(0.0, 0.1 - import_all(modules)))
    return os.getpid()


def _ended(ref: Ref) -> bool:
    """Known here to have ended, without asking Ray."""
    return isinstance(ref.handle, Stored) or bool(ref.handle.cancelled)


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Ray replaces 127.0.0.1 by the machine's public address, and then listens on all interfaces,
    unless clusters over several machines are off. That switch has no public name on Linux: Ray's
    processes take it from their environment, this process has read it at import."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _shut_down(before: set[int]) -> None:
    """Ray's processes end on their own a moment after shutdown; those that do not are ended.

    They are listed first: once their parent is gone they are nobody's children.
    """
    mine = processes_of_ray(before)
    _disconnect()
    end_all(mine, seconds=CLOSE_SECONDS)


def _disconnect() -> None:
    """`ray.shutdown`, which does not come back where the head is gone."""
    with suppress(TimeoutError):
        bounded(ray.shutdown, seconds=CLOSE_SECONDS)


def _living_cpus() -> dict[str, int]:
    """Cpus of each node that has some, by its id."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    cpus = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}
    return {node: number for node, number in cpus.items() if number}


def _join(address: str) -> None:
    """Join a cluster. A head starts a server for each `ray://` client and gives it some seconds: a
    head that was too busy is asked again."""
    for attempt in range(1, JOIN_ATTEMPTS + 1):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
            return
        except Exception as error:
            if attempt == JOIN_ATTEMPTS or TOO_BUSY not in str(error):
                raise
            with suppress(Exception):
                ray.shutdown()
