"""What the tests of growing graphs share: grown graphs, the law they obey, the dense answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stages.graph.nasty import check_law, dense, recall_of
from stages.importing import fresh_store

from simdist.engine import Engine
from simdist.models.graphs import GraphDataset, KnnGraph
from simdist.models.grow import append
from simdist.models.knn import knn_graph
from simdist.models.vectors import import_array
from simdist.runner import Context, Record, Task
from simdist.stages.grow import AppendStage, DeleteStage
from simdist.store import Dataset, Store
from simdist.types import Array, Ids

K = 6


def built(x: Array, engine: Engine, *, store: Store | None = None, **options: Any) -> GraphDataset:
    """The graph of an array, in a store of its own."""
    place = store or fresh_store()
    options = {"k": K, **options}
    return knn_graph(import_array(x, store=place, engine=engine), engine=engine, **options)


def grown(
    x: Array, parts: Sequence[int], engine: Engine, *, store: Store | None = None, **options: Any
) -> GraphDataset:
    """The graph of the first parts[0] rows, and then so many more appended, each time."""
    graph = built(x[: parts[0]], engine, store=store, **options)
    first = parts[0]
    for count in parts[1:]:
        graph = append(graph, x[first : first + count], engine=engine)
        first += count
    return graph


def living(graph: KnnGraph) -> tuple[KnnGraph, Ids]:
    """The graph of the rows that are left, after a look at those that are gone."""
    assert (graph.indices[graph.deleted] == -1).all()
    assert np.isnan(graph.values[graph.deleted]).all()
    rest, rows = graph.living()
    assert not np.isin(graph.indices[rows], graph.deleted).any(), "a deleted row is listed"
    return rest, rows


def check(x: Array, graph: KnnGraph, measure: Any, k: int = K) -> float:
    """That living rows obey the law of every graph; their recall against all pairs."""
    rest, rows = living(graph)
    check_law(x[rows], rest, measure, k)
    return recall_of(rest.indices, dense(x[rows], measure, k)[0])


def chain(graph: Dataset) -> dict[str, bytes]:
    """The manifests of a graph and of all that it was made from, by fingerprint."""
    found, left = {}, [graph.fingerprint]
    while left:
        fingerprint = left.pop()
        manifest = graph.store.manifest(fingerprint)
        assert manifest is not None
        if fingerprint not in found:
            found[fingerprint] = manifest.to_bytes()
            left += manifest.inputs.values()
    return found


class InjectedError(Exception):
    """The failure that a test asked for."""


@dataclass(frozen=True)
class Disturbed:
    """Fails, or dies, the first time that it is to compute the task `fails_at`.

    folder: where each task leaves a file when it is computed, and the failure one.
    """

    fails_at: str
    folder: str
    dies: bool = False

    def compute(self, context: Context, task: Task) -> Record:
        failed = Path(self.folder) / f"failed-at-{task.key}"
        if task.key == self.fails_at and not failed.exists():
            failed.touch()
            if self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            raise InjectedError(task.key)
        with (Path(self.folder) / f"ran-{task.key}").open("a") as file:
            file.write("x")
        return super().compute(context, task)  # type: ignore[misc,no-any-return]


class DisturbedAppend(Disturbed, AppendStage):
    """An append that fails once."""


class DisturbedDelete(Disturbed, DeleteStage):
    """A delete that fails once."""


def computed(folder: Path) -> dict[str, int]:
    """How often each task was computed."""
    return {p.name.removeprefix("ran-"): len(p.read_text()) for p in folder.glob("ran-*")}
