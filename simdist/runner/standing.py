"""What earlier runs left, and whether it still stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from simdist.errors import ConflictError
from simdist.runner.context import JobSpec
from simdist.runner.events import Listener, RecordLost
from simdist.runner.plan import Record, Round, Task
from simdist.store.datasets import Dataset
from simdist.store.store import Store
from simdist.types import ObjectRef

__all__ = ["complete", "recorded", "refuse_lost", "standing"]

LOOKS_AT_ONCE = 16  # objects looked for side by side: on S3 the driver only waits

T = TypeVar("T")
R = TypeVar("R")


def complete(dataset: Dataset, tell: Listener) -> bool:
    """Whether a committed dataset's objects are all there, by their sizes: what was deleted, by
    hand or because `simdist verify` found it damaged, is computed again under the same manifest."""
    objects = dataset.store.objects

    def gone(ref: ObjectRef) -> bool:
        info = objects.head(ref.key)
        return info is None or info.nbytes != ref.nbytes

    refs = list(dataset.manifest.refs())
    for ref, lost in zip(refs, _side_by_side(gone, refs), strict=True):
        if lost:
            tell(RecordLost(dataset.stage, "manifest", ref.key))
            return False
    return True


def recorded(step: Round, spec: JobSpec, known: set[str], tell: Listener) -> dict[str, Record]:
    """Tasks of the round that an earlier run finished and whose objects are still whole."""

    found: dict[str, Record] = {}
    tasks = [task for task in step.tasks if task.key in known]
    for seen in _side_by_side(lambda task: _look(spec, task), tasks):
        if seen is None:
            continue
        record, lost = seen
        if lost is None:
            found[record.task] = record
        else:
            tell(RecordLost(spec.stage.name, record.task, lost.key))
    return found


def standing(spec: JobSpec, task: Task) -> Record | None:
    """The task's record, where it has one and its objects are whole. Costs one question to the
    store where it has none."""
    seen = _look(spec, task)
    return None if seen is None or seen[1] is not None else seen[0]


def refuse_lost(spec: JobSpec, stands: Record) -> None:
    """ConflictError where an earlier record stands, what it names is lost, and computing the task
    again gave something else, so that the lost object does not come back."""
    lost = _first_lost(spec.store, stands)
    if lost is not None:
        raise ConflictError(
            f"{spec.store.uri}/{lost.key} is lost, and computing task {stands.task} of stage"
            f" {spec.stage.name} again gave other bytes than its record vouches for: the stage is"
            " not deterministic, or ran with other package versions. Abandon the job (delete"
            f" {spec.store.uri}/records/{spec.fingerprint}/) and run it again."
        )


def _look(spec: JobSpec, task: Task) -> tuple[Record, ObjectRef | None] | None:
    """A task's record, and the first of its objects that is lost."""
    value = spec.store.read_record(spec.fingerprint, task.key)
    if value is None:
        return None
    record = Record.from_json(value)
    return record, _first_lost(spec.store, record)


def _first_lost(store: Store, record: Record) -> ObjectRef | None:
    return next((ref for ref in record.objects.values() if not store.whole(ref)), None)


def _side_by_side(look: Callable[[T], R], things: Sequence[T]) -> Iterator[R]:
    """`look(thing)` of each, in order."""
    with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="simdist-look") as pool:
        yield from pool.map(look, things)
