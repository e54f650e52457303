"""A config's links in order, each as one Prefect task, and how far they have come."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import count
from typing import Any

from prefect import get_run_logger, tags, task
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from pipelines.places import Places
from pipelines.progress import ProgressArtifact
from pipelines.settings import StageOptions
from simdist.config import EngineConfig, links
from simdist.engine import Engine
from simdist.models.chain import Link, job_of, run_link
from simdist.report import Summary, Timings, summarize
from simdist.report.progress import LineProgress
from simdist.runner import Event, Listener, committed
from simdist.runner.events import RoundStarted, StageDone, StageStarted, TaskDone
from simdist.store import Dataset, Store

__all__ = ["Engines", "Walk", "artifact_key"]


def artifact_key(*parts: str) -> str:
    """As Prefect wants keys: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


class Engines:
    """The engine of a run, for `with`: opened when a stage first needs it, and opened afresh for a
    stage that is tried again, because it may have been the engine that broke."""

    def __init__(self) -> None:
        self._open: Engine | None = None

    def open(self, config: EngineConfig, store: Store, *, fresh: bool) -> Engine:
        """The engine that is open, or another one."""
        if fresh:
            self.close()
        if self._open is None:
            self._open = config.open(store)
        return self._open

    def close(self) -> None:
        """Release what is open."""
        engine, self._open = self._open, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Walk:
    """One run of a flow. done, left: what it has committed and what it has not, by step.

    recorded, attempts: tasks that the step under way has records of, and how often it was tried.
    """

    def __init__(
        self,
        places: Places,
        options: StageOptions,
        *,
        engines: Engines,
        listeners: Sequence[Listener],
    ) -> None:
        self.settings, self.store = places.settings, places.store
        self.options = options
        self.done: dict[str, Dataset] = {}
        self.left: list[str] = []
        self._then: Sequence[Link] = ()
        self.attempts = 1
        self._engines = engines
        self._timings = Timings()
        self._recorded: dict[str, int] = {}
        self._listeners: tuple[Listener, ...] = (
            self._timings,
            self._count,
            LineProgress(_log),
            *listeners,
        )

    @property
    def recorded(self) -> int:
        return sum(self._recorded.values())

    def carry_out(self) -> Summary:
        """Run what is not committed yet, naming each dataset as it stands."""
        chain = links(self.settings, store=self.store)
        self.left = [link.name for link in chain]
        names: dict[str, str] = {}
        marks = {f"flow:{self.settings.name}", f"engine:{_kind(self.settings.engine)}"}
        _tag_run(marks)
        with tags(*marks):
            for place, link in enumerate(chain, 1):
                self._then = chain[place:]
                dataset = self.store.dataset(self._task(link)())
                self.done[link.name] = dataset
                self.left.remove(link.name)
                if link.name not in self._timings.done:  # answered from Prefect's cache
                    self._tell_reused(link, dataset)
                name = f"{self.settings.name}.{link.name}"
                names[link.name] = f"{name}@{self.store.name(name, dataset.fingerprint)}"
        examples = self.settings.examples
        return summarize(
            self.settings.name, self.done, self._timings, names=names, examples=examples
        )

    def _task(self, link: Link) -> Any:
        """One link as a Prefect task that returns the dataset's uri."""
        job = job_of(link, self.done)
        key = hashlib.sha256(f"{self.store.uri} {job.fingerprint}".encode()).hexdigest()
        words = link.stage.name.replace("_", " ")
        attempts = count(1)
        self.attempts = 1
        shown = ProgressArtifact(
            artifact_key(self.settings.name, link.name, "progress"), complain=_log
        )

        @task(
            name=words,
            task_run_name=f"{words} · {link.name}",
            tags=[f"stage:{link.stage.name}"],
            cache_key_fn=lambda *_: key,
            refresh_cache=committed(job, self.store) is None,
            persist_result=True,
            **self.options.task_options,
        )
        def stage() -> str:
            self.attempts = next(attempts)
            with shown:
                return self._run(link, shown).uri

        return stage

    def _run(self, link: Link, shown: Listener) -> Dataset:
        """Inside of the link's task run."""
        engine = self._engines.open(self.settings.engine, self.store, fresh=self.attempts > 1)
        listeners = (*self._listeners, shown)
        return run_link(
            link,
            self.done,
            store=self.store,
            engine=engine,
            then=self._then,
            listeners=listeners,
        )

    def _count(self, event: Event) -> None:
        match event:
            case StageStarted() | StageDone():
                self._recorded.clear()
            case RoundStarted() | TaskDone():
                self._recorded[event.round] = event.done

    def _tell_reused(self, link: Link, dataset: Dataset) -> None:
        event = StageDone(
            stage=link.stage.name,
            name=link.name,
            fingerprint=dataset.fingerprint,
            rows=dataset.rows,
            seconds=0.0,
            reused=True,
            metrics=dataset.metrics,
        )
        for listener in self._listeners:
            listener(event)


def _kind(engine: EngineConfig) -> str:
    if engine.kind is not None or engine.address is None:
        return engine.kind or "local"
    return "ray" if engine.address.startswith("ray://") else "dask"


def _tag_run(marks: set[str]) -> None:
    """What to find the run by, beside the tags of its deployment."""
    client = get_client(sync_client=True)
    client.update_flow_run(flow_run.id, tags=sorted({*flow_run.tags, *marks}))


def _log(line: str) -> None:
    get_run_logger().info(line)
