"""Chains of stages that meet through datasets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from simdist.engine.base import Engine
from simdist.engine.memory import format_nbytes
from simdist.errors import ConfigError, PlanTooLarge
from simdist.models.shapes import Shape, after, expected, on_edges, shape_of
from simdist.runner import Job, Listener, Stage, committed, run
from simdist.store.datasets import Dataset
from simdist.store.store import Store

__all__ = ["Link", "job_of", "refuse_too_large", "run_link", "run_links"]


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


def refuse_too_large(
    links: Sequence[Link], datasets: Mapping[str, Dataset], *, store: Store, engine: Engine
) -> None:
    """PlanTooLarge before the first task, where a worker cannot hold the largest of any link's.

    datasets: by the names that inputs use. What is committed already needs no memory. An import
    knows its rows only when it has looked at its files: its tasks are refused then.
    """
    known = dict(datasets)
    shapes: dict[str, Shape] = {}
    for link in links:
        for name in set(link.inputs.values()) & set(known):
            shape = shape_of(known[name])
            if shape is not None and (shape.entries is None or on_edges(link.stage)):
                shapes[name] = shape
        stands = None
        if set(link.inputs.values()) <= set(known):
            stands = committed(job_of(link, known), store)
        if stands is not None:
            known[link.name] = stands
            continue
        inputs = [shapes[name] for name in link.inputs.values() if name in shapes]
        if not inputs:
            continue
        of = max(inputs, key=lambda shape: (shape.rows, shape.dim))
        others: dict[str, int] = {}
        sets = [shapes.get(link.inputs.get(role, "")) for role in ("queries", "corpus")]
        if sets[0] and sets[1] and _asks_for(link.stage, "corpus"):  # a few rows among many
            of, others = sets[0], {"corpus": sets[1].rows}
        shapes[link.name] = after(link.stage, link.config, of)
        forecast = expected(link.stage, link.config, of, **others)
        nbytes = 0 if forecast is None else forecast.nbytes
        if nbytes > engine.memory:
            size = f"{of.rows} rows of {of.dim} dimensions"
            if on_edges(link.stage):
                size = f"{of.rows} rows and about {of.entries} entries"
            raise PlanTooLarge(
                f"{link.stage.name} of {size} needs"
                f" {format_nbytes(nbytes)} for its largest task; a worker of the {engine.kind}"
                f" engine has {format_nbytes(engine.memory)}. Raise engine.memory to at least"
                f" {math.ceil(nbytes / 2**20)}MiB; none of its tasks has run."
            )


def _asks_for(stage: Stage, role: str) -> bool:
    """Whether a stage's forecast takes the rows of such an input."""
    forecast = getattr(stage, "forecast", None)
    return forecast is not None and role in signature(forecast).parameters


def run_link(
    link: Link,
    datasets: Mapping[str, Dataset],
    *,
    store: Store,
    engine: Engine,
    then: Sequence[Link] = (),
    listeners: Sequence[Listener] = (),
) -> Dataset:
    """Bring one link to its committed dataset. datasets: by the names its inputs use.

    then: the links that are to follow it. Raises PlanTooLarge before the first task where a worker
    cannot hold the largest of this link, or of one that follows.
    """
    refuse_too_large([link, *then], datasets, store=store, engine=engine)
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
    for place, link in enumerate(links, 1):
        found[link.name] = run_link(
            link, found, store=store, engine=engine, then=links[place:], listeners=listeners
        )
    return found
