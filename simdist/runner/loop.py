"""The one loop: what is done, what is next, records, rounds, commit."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from simdist.engine.base import Engine
from simdist.engine.ops import Call, map_window
from simdist.engine.threads import limited
from simdist.errors import (
    ConfigError,
    SimdistError,
    StoreError,
    TaskFailed,
)
from simdist.runner.context import Context, JobSpec
from simdist.runner.events import (
    Listener,
    RoundDone,
    RoundStarted,
    StageDone,
    StageStarted,
    TaskDone,
    Teller,
)
from simdist.runner.journal import RoundRun, keep
from simdist.runner.plan import Commit, Job, Record, Round, Task
from simdist.runner.refusals import refuse_too_large, refuse_twice, refuse_unreachable
from simdist.runner.resident import within
from simdist.runner.standing import complete, recorded, refuse_lost, standing
from simdist.store.datasets import Dataset, Manifest
from simdist.store.store import Store
from simdist.types import ObjectRef

__all__ = ["committed", "run"]


def run(
    job: Job,
    *,
    store: Store,
    engine: Engine,
    name: str = "",
    listeners: Sequence[Listener] = (),
    timeout: float | None = None,
) -> Dataset:
    """Bring a job to its committed dataset, doing only what has no record yet.

    name: what people call this job in events. timeout: seconds without any task ending; by
        default the engine's.
    listeners: told each event, in order, by the thread that called. One that raises is told no
        more, with a RuntimeWarning: what shows a run must not be able to end it.
    Raises the original error of a task that failed for a reason simdist knows (InputError,
    StoreError, ...), TaskFailed otherwise; what was recorded stays, and running again resumes.
    """
    refuse_unreachable([store, *(data.store for data in job.inputs.values())], engine)
    started = time.monotonic()
    fingerprint = job.fingerprint
    tell = Teller(listeners)
    tell(StageStarted(job.stage.name, name, fingerprint))
    dataset = committed(job, store)
    reused = dataset is not None and complete(dataset, tell)
    if dataset is None or not reused:
        dataset = _carry_out(job, store, engine, tell, timeout)
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
    job: Job, store: Store, engine: Engine, tell: Teller, timeout: float | None
) -> Dataset:
    """The rounds, under a lease; a driver that fails cancels its own running tasks."""
    fingerprint = job.fingerprint
    spec = JobSpec(
        stage=job.stage,
        config=job.config,
        store=store,
        fingerprint=fingerprint,
        run_id=uuid.uuid4().hex,
        inputs={role: (data.store, data.fingerprint) for role, data in job.inputs.items()},
        memory=engine.memory,
    )
    with store.lease(spec.run_id, {"fingerprint": fingerprint, "stage": job.stage.name}):
        try:
            return _rounds(job, spec, engine, tell, timeout=timeout)
        except BaseException as error:
            _give_up(spec, error)
            raise


def _rounds(
    job: Job, spec: JobSpec, engine: Engine, tell: Teller, *, timeout: float | None
) -> Dataset:
    """Rounds until the stage says commit."""
    started = time.monotonic()
    rounds: dict[str, Sequence[Record]] = {}
    took: list[RoundRun] = []
    known = spec.store.list_records(spec.fingerprint)
    keys: set[str] = set()
    while isinstance(step := job.stage.next(job, rounds, Context(spec)), Round):
        if step.name in rounds:
            raise ConfigError(f"stage {job.stage.name} asked for round {step.name!r} twice")
        refuse_twice(step, keys, job.stage.name)
        records, ref, run = _round(step, spec, known, engine, tell, timeout=timeout)
        rounds[step.name] = records
        took.append(run)
        spec = replace(spec, rounds={**spec.rounds, step.name: ref})
    dataset = _commit(job, step, spec.fingerprint, spec.store)
    seconds = time.monotonic() - started
    keep(job, dataset, took, run_id=spec.run_id, engine=engine, seconds=seconds)
    return dataset


def _give_up(spec: JobSpec, error: BaseException) -> None:
    """Tell this run's tasks to stop; `error`, which ended it, stays the one that people see."""
    try:
        spec.store.cancel(spec.run_id)
    except StoreError as failed:
        error.add_note(f"Tasks still running could not be told to stop: {failed}")


def _round(
    step: Round,
    spec: JobSpec,
    known: set[str],
    engine: Engine,
    tell: Teller,
    *,
    timeout: float | None,
) -> tuple[list[Record], ObjectRef, RoundRun]:
    """Records of a round in plan order, the object that lists them for later rounds, and what the
    round took."""
    started = time.monotonic()
    stage = spec.stage.name
    index = f"round-{step.name}"
    done = recorded(step, spec, known, tell)
    tell(RoundStarted(stage, step.name, len(step.tasks), len(done)))
    todo = [task for task in step.tasks if task.key not in done]
    if todo:
        refuse_too_large(todo, stage, engine)
    failed: Exception | None = None
    took: list[TaskResult] = []
    try:
        # Closed here, not when somebody collects it: after a Ctrl-C nothing more may start.
        calls = _calls(spec, todo, alone=engine.cpus_alone if len(step.tasks) == 1 else 1)
        with closing(map_window(engine, calls, timeout=timeout)) as ended:
            for _, result in ended:
                key = result.record.task
                done[key] = result.record
                took.append(result)
                tell(
                    TaskDone(
                        stage,
                        step.name,
                        key,
                        result.seconds,
                        len(done),
                        len(step.tasks),
                        cpu_seconds=result.cpu_seconds,
                    )
                )
    except TaskFailed as failure:
        failed = _explained(failure)
    if failed is not None:
        raise failed  # outside of the except: its own cause and context stay as the task made them
    records = [done[task.key] for task in step.tasks]
    ref = spec.store.write_json("round", [record.to_json() for record in records])
    if index not in known:
        spec.store.write_record(spec.fingerprint, index, {"records": ref.to_json()})
    seconds = time.monotonic() - started
    tell(RoundDone(stage, step.name, len(step.tasks), seconds))
    return records, ref, RoundRun.of(step.name, records, took, seconds)


def _calls(spec: JobSpec, tasks: Iterable[Task], *, alone: int) -> Iterator[Call]:
    """alone: cpus that are there for a task whose work spreads."""
    for task in tasks:
        key = f"{spec.fingerprint[:8]}-{task.key}"
        cpus = max(task.cpus, alone) if task.spreads else task.cpus
        lent = replace(spec, cpus=cpus)
        yield Call(key, run_task, (lent, task), nbytes=task.nbytes, cpus=cpus)


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
    cpu_seconds: float  # of the task's own thread and those of its pieces


def run_task(spec: JobSpec, task: Task) -> TaskResult:
    """On a worker: compute the task and create its record once; the first record stands.

    What has a record by now is not computed: the engine submits again what a worker had recorded
    before it died, and a second driver may be faster.
    """
    started, cpu = time.monotonic(), time.thread_time()
    context = Context(spec)
    context.check()
    found = standing(spec, task)
    if found is not None:
        return TaskResult(found, time.monotonic() - started, time.thread_time() - cpu)
    # The engine counts cpus that were lent; native code keeps to those that the task asked for.
    with within(spec.memory, task.nbytes, run_id=spec.run_id), limited(task.cpus):
        record = spec.stage.compute(context, task)
    stands = Record.from_json(spec.store.write_record(spec.fingerprint, task.key, record.to_json()))
    if stands.objects != record.objects:
        refuse_lost(spec, stands)
    cpu = time.thread_time() - cpu + context.seconds_of_pieces
    return TaskResult(stands, time.monotonic() - started, cpu)


def _explained(failure: TaskFailed) -> Exception:
    """The task's own error where simdist raised it on purpose, else the failure as it is."""
    cause = failure.cause
    if not isinstance(cause, SimdistError):
        return failure
    cause.add_note(f"in task {failure.key}")
    if cause.__traceback__ is None:  # it came from another process, which kept the frames
        cause.__cause__ = _Trace(failure.trace)
    return cause


class _Trace(Exception):
    """Where in another process an error was raised, for tracebacks; not part of its message."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"
