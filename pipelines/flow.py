"""The flow `simdist-flow`: a config's links in order, each as one Prefect task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run

from simdist.config import FlowConfig, links, load
from simdist.engine import Engine
from simdist.models.chain import Link, job_of, run_link
from simdist.report import Summary, Timings, summarize
from simdist.report.markdown import markdown
from simdist.report.progress import LineProgress
from simdist.runner import Listener, committed
from simdist.runner.events import StageDone
from simdist.store import Dataset, Store

__all__ = ["simdist_flow", "watched_by"]

# Prefect keeps a flow's parameters as JSON, so listeners cannot be among them.
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("simdist_listeners", default=())


@contextmanager
def watched_by(*listeners: Listener) -> Iterator[None]:
    """Flows run from here also tell these listeners."""
    token = _listeners.set(listeners)
    try:
        yield
    finally:
        _listeners.reset(token)


def _run_name() -> str:
    return Path(flow_run.parameters["config"]).stem


@flow(name="simdist-flow", flow_run_name=_run_name)
def simdist_flow(config: str, overrides: Sequence[str] = ()) -> Summary:
    """Run the flow that the YAML file `config` describes; `overrides` as `--set` takes them."""
    settings = load(config, overrides=overrides)
    summary = _walk(settings)
    key = settings.name.lower().replace("_", "-")
    create_table_artifact(_metrics(summary), key=f"{key}-metrics", description="What was measured")
    create_markdown_artifact(markdown(summary), key=f"{key}-summary", description="What came of it")
    return summary


@dataclass(frozen=True, slots=True)
class _World:
    """What the tasks of one flow share. datasets: by link name, growing as tasks end."""

    store: Store
    engine: Engine
    listeners: tuple[Listener, ...]
    datasets: dict[str, Dataset] = field(default_factory=dict)


def _walk(settings: FlowConfig) -> Summary:
    chain = links(settings)
    store = settings.store.open()
    timings = Timings()
    names: dict[str, str] = {}
    with settings.engine.open(store) as engine:
        world = _World(store, engine, (timings, LineProgress(_log), *_listeners.get()))
        for link in chain:
            dataset = store.dataset(_task_of(link, world)())
            world.datasets[link.name] = dataset
            if link.name not in timings.done:  # answered from Prefect's cache
                _tell_reused(link, dataset, world.listeners)
            name = f"{settings.name}.{link.name}"
            names[link.name] = f"{name}@{store.name(name, dataset.fingerprint)}"
    return summarize(
        settings.name, world.datasets, timings, names=names, examples=settings.examples
    )


def _task_of(link: Link, world: _World) -> Any:
    """One link as a Prefect task that returns the dataset's uri."""
    job = job_of(link, world.datasets)
    key = hashlib.sha256(f"{world.store.uri} {job.fingerprint}".encode()).hexdigest()
    words = link.stage.name.replace("_", " ")

    @task(
        name=words,
        task_run_name=f"{words} · {link.name}",
        cache_key_fn=lambda *_: key,
        refresh_cache=committed(job, world.store) is None,
        persist_result=True,
    )
    def stage() -> str:
        dataset = run_link(
            link,
            world.datasets,
            store=world.store,
            engine=world.engine,
            listeners=world.listeners,
        )
        return dataset.uri

    return stage


def _tell_reused(link: Link, dataset: Dataset, listeners: Sequence[Listener]) -> None:
    event = StageDone(
        stage=link.stage.name,
        name=link.name,
        fingerprint=dataset.fingerprint,
        rows=dataset.rows,
        seconds=0.0,
        reused=True,
        metrics=dataset.metrics,
    )
    for listener in listeners:
        listener(event)


def _log(line: str) -> None:
    get_run_logger().info(line)


def _metrics(summary: Summary) -> list[dict[str, Any]]:
    """One row a measurement, as Prefect shows tables."""
    return [
        {"step": step.name, "metric": name, "value": json.dumps(value, ensure_ascii=False)}
        for step in summary.steps
        for name, value in {"seconds": round(step.seconds, 2), **step.metrics}.items()
    ]
