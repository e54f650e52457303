"""Chains of stages that meet through datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simdist.engine.base import Engine
from simdist.errors import ConfigError
from simdist.runner import Job, Listener, Stage, run
from simdist.store.datasets import Dataset
from simdist.store.store import Store

__all__ = ["Link", "job_of", "run_link", "run_links"]


@dataclass(frozen=True, slots=True)
class Link:
    """One stage of a chain. inputs: role -> name of an earlier link (or a dataset given)."""

    name: str
    stage: Stage
    config: Any
    inputs: Mapping[str, str]


def job_of(link: Link, datasets: Mapping[str, Dataset]) -> Job:
    """The link with its inputs found; ConfigError where one is missing."""
    missing = sorted(set(link.inputs.values()) - set(datasets))
    if missing:
        raise ConfigError(
            f"step {link.name} needs {', '.join(missing)}; known so far: {', '.join(datasets)}"
        )
    inputs = {role: datasets[name] for role, name in link.inputs.items()}
    return Job(link.stage, link.config, inputs)


def run_link(
    link: Link,
    datasets: Mapping[str, Dataset],
    *,
    store: Store,
    engine: Engine,
    listeners: Sequence[Listener] = (),
) -> Dataset:
    """Bring one link to its committed dataset. datasets: by the names its inputs use."""
    return run(
        job_of(link, datasets), store=store, engine=engine, name=link.name, listeners=listeners
    )


def run_links(
    links: Sequence[Link],
    datasets: Mapping[str, Dataset],
    *,
    store: Store,
    engine: Engine,
    listeners: Sequence[Listener] = (),
) -> dict[str, Dataset]:
    """All links in order; the datasets given and made, by name."""
    found = dict(datasets)
    for link in links:
        found[link.name] = run_link(link, found, store=store, engine=engine, listeners=listeners)
    return found
