"""The one loop: what is done, what is next, records, rounds, commit."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from simdist.engine.base import Engine
from simdist.engine.ops import Call, map_window
from simdist.errors import ConfigError, PlanTooLarge, SimdistError, TaskFailed
from simdist.runner.context import Context, JobSpec
from simdist.runner.events import (
    Event,
    Listener,
    RecordLost,
    RoundDone,
    RoundStarted,
    StageDone,
    StageStarted,
    TaskDone,
)
from simdist.runner.plan import Commit, Job, Record, Round, Task
from simdist.store.datasets import Dataset, Manifest
from simdist.store.store import Store
from simdist.types import ObjectRef

__all__ = ["committed", "run"]

TASK_TIMEOUT = 3600.0  # seconds without any task ending: a cluster this silent is not coming back


def run(
    job: Job,
    *,
    store: Store,
    engine: Engine,
    name: str = "",
    listeners: Sequence[Listener] = (),
    timeout: float = TASK_TIMEOUT,
) -> Dataset:
    """Bring a job to its committed dataset, doing only what has no record yet.

    name: what people call this job in events. timeout: seconds without any task ending.
    Raises the original error of a task that failed for a reason simdist knows (InputError,
    StoreError, ...), TaskFailed otherwise; what was recorded stays, and running again resumes.
    """
    _refuse_unreachable(store, engine)
    started = time.monotonic()
    fingerprint = job.fingerprint
    tell = _Teller(listeners)
    tell(StageStarted(job.stage.name, name, fingerprint))
    dataset = committed(job, store)
    reused = dataset is not None
    if dataset is None:
        dataset = _carry_out(job, fingerprint, store, engine, tell, timeout)
    seconds = time.monotonic() - started
    metrics = dataset.manifest.metrics
    tell(
        StageDone(job.stage.name, name, dataset.fingerprint, dataset.rows, seconds, reused, metrics)
    )
    return dataset


def committed(job: Job, store: Store) -> Dataset | None:
    """The job's dataset where its manifest stands already, else None. Reads at most two objects."""
    fingerprint = job.fingerprint
    manifest = store.manifest(fingerprint)
    if manifest is None:
        memo = store.memo(fingerprint)  # content known from an earlier reading of the same sources
        manifest = None if memo is None else store.manifest(memo["fingerprint"])
    return None if manifest is None else Dataset(store, manifest)


def _carry_out(
    job: Job, fingerprint: str, store: Store, engine: Engine, tell: _Teller, timeout: float
) -> Dataset:
    """Rounds until the stage says commit; a driver that fails cancels its own running tasks."""
    spec = JobSpec(
        stage=job.stage,
        config=job.config,
        store=store,
        fingerprint=fingerprint,
        run_id=uuid.uuid4().hex,
        inputs={role: (data.store, data.fingerprint) for role, data in job.inputs.items()},
    )
    store.lease(spec.run_id, {"fingerprint": fingerprint, "stage": job.stage.name})
    try:
        rounds: dict[str, Sequence[Record]] = {}
        known = store.list_records(fingerprint)
        while isinstance(step := job.stage.next(job, rounds, Context(spec)), Round):
            if step.name in rounds:
                raise ConfigError(f"stage {job.stage.name} asked for round {step.name!r} twice")
            records, ref = _round(step, spec, known, engine, tell, timeout)
            rounds[step.name] = records
            spec = replace(spec, rounds={**spec.rounds, step.name: ref})
        return _commit(job, step, fingerprint, store)
    except BaseException:
        store.cancel(spec.run_id)
        raise
    finally:
        store.release(spec.run_id)


def _round(
    step: Round, spec: JobSpec, known: set[str], engine: Engine, tell: _Teller, timeout: float
) -> tuple[list[Record], ObjectRef]:
    """Records of a round in plan order, and the object that lists them for later rounds."""
    started = time.monotonic()
    stage = spec.stage.name
    index = f"round-{step.name}"
    done = _recorded(step, spec, known, tell)
    tell(RoundStarted(stage, step.name, len(step.tasks), len(done)))
    todo = [task for task in step.tasks if task.key not in done]
    if todo:
        _refuse_too_large(todo, stage, engine)
    calls = (
        Call(
            f"{spec.fingerprint[:8]}-{task.key}",
            run_task,
            (spec, task),
            nbytes=task.nbytes,
            cpus=task.cpus,
        )
        for task in todo
    )
    try:
        for _key, result in map_window(engine, calls, timeout=timeout):
            done[result.record.task] = result.record
            tell(
                TaskDone(
                    stage, step.name, result.record.task, result.seconds, len(done), len(step.tasks)
                )
            )
    except TaskFailed as failure:
        raise _explained(failure) from failure
    records = [done[task.key] for task in step.tasks]
    ref = spec.store.write_json("round", [record.to_json() for record in records])
    if index not in known:
        spec.store.write_record(spec.fingerprint, index, {"records": ref.to_json()})
    tell(RoundDone(stage, step.name, len(step.tasks), time.monotonic() - started))
    return records, ref


def _recorded(step: Round, spec: JobSpec, known: set[str], tell: _Teller) -> dict[str, Record]:
    """Tasks of the round that an earlier run finished and whose objects are still whole."""
    found: dict[str, Record] = {}
    for task in step.tasks:
        if task.key not in known:
            continue
        value = spec.store.read_record(spec.fingerprint, task.key)
        if value is None:
            continue
        record = Record.from_json(value)
        lost = next((ref for ref in record.objects.values() if not spec.store.whole(ref)), None)
        if lost is None:
            found[task.key] = record
        else:
            tell(RecordLost(spec.stage.name, task.key, lost.key))
    return found


def _commit(job: Job, step: Commit, fingerprint: str, store: Store) -> Dataset:
    content = step.fingerprint or fingerprint
    manifest = Manifest(
        fingerprint=content,
        stage=job.stage.name,
        version=job.stage.VERSION,
        config=job.config.to_json() if step.config is None else step.config,
        inputs={role: data.fingerprint for role, data in job.inputs.items()},
        rows=step.rows,
        shards=step.shards,
        metrics=step.metrics,
        objects=step.objects,
    )
    dataset = Dataset(store, store.commit(manifest))
    if content != fingerprint:
        store.write_memo(fingerprint, {"fingerprint": content})
    return dataset


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task's record and what it cost on the worker."""

    record: Record
    seconds: float


def run_task(spec: JobSpec, task: Task) -> TaskResult:
    """On a worker: compute the task and create its record once; the first record stands."""
    started = time.monotonic()
    context = Context(spec)
    context.check()
    record = spec.stage.compute(context, task)
    stands = spec.store.write_record(spec.fingerprint, task.key, record.to_json())
    return TaskResult(Record.from_json(stands), time.monotonic() - started)


def _explained(failure: TaskFailed) -> Exception:
    """The task's own error where simdist raised it on purpose, else the failure as it is."""
    if isinstance(failure.cause, SimdistError):
        failure.cause.add_note(f"in task {failure.key}")
        return failure.cause
    return failure


def _refuse_too_large(tasks: Sequence[Task], stage: str, engine: Engine) -> None:
    largest = max(tasks, key=lambda task: task.nbytes)
    if largest.nbytes > engine.memory:
        raise PlanTooLarge(
            f"{stage} task {largest.key} needs {largest.nbytes / 2**20:.0f} MiB; a worker of the"
            f" {engine.kind} engine has {engine.memory / 2**20:.0f} MiB. Raise engine.memory to at"
            f" least {largest.nbytes / 2**20:.0f}MiB."
        )


def _refuse_unreachable(store: Store, engine: Engine) -> None:
    if engine.remote and not store.shared:
        raise ConfigError(
            f"store {store.uri} lives in this process, but the {engine.kind} engine runs tasks in"
            " other processes. Use a file:// store all workers can reach, or s3://."
        )


class _Teller:
    """Sends each event to every listener."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = listeners

    def __call__(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
