"""What a graph was built on, found again through its manifest: vectors, cells, what it promised."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from simdist.errors import InputError, ObjectMissing
from simdist.store.datasets import Dataset
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.store.store import Store

__all__ = [
    "GROWN",
    "Promise",
    "origin",
    "partition_of",
    "promise_of",
    "refuse_other",
    "segments_of",
    "vectors_of",
]

GROWN = ("append", "delete")  # stages whose graph is another one with changes laid over it
GRAPHS = ("knn_graph", "compact", *GROWN)


@dataclass(frozen=True, slots=True)
class Promise:
    """What a graph was asked for, and what all that is made of it has to keep.

    measure: its spec. recall: of the lower end of the interval, None where nothing was asked.
    """

    k: int
    measure: Json
    method: str
    recall: float | None
    seed: int

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


def promise_of(graph: Dataset) -> Promise:
    """What the graph was asked for, by whoever built it."""
    refuse_other(graph)
    said = graph.manifest.config
    return Promise(
        k=int(said["k"]),
        measure=said["measure"],
        method=said["method"],
        recall=said.get("recall"),
        seed=int(said.get("seed", 0)),
    )


def refuse_other(graph: Dataset) -> None:
    """InputError where the dataset is no k-NN graph of one set of vectors."""
    if graph.stage not in GRAPHS or "vectors" not in graph.manifest.inputs:
        raise InputError(
            f"{graph.uri} was made by stage {graph.stage}: only a graph that knn_graph, append,"
            " delete or compact made can be grown"
        )


def vectors_of(graph: Dataset) -> Dataset:
    """The vectors whose rows the graph's rows are."""
    refuse_other(graph)
    return origin(graph, "vectors")


def partition_of(graph: Dataset) -> Dataset | None:
    """The partition the graph was built on; None where every pair was looked at instead."""
    base = _base(graph)
    return origin(base, "partition") if "partition" in base.manifest.inputs else None


def segments_of(graph: Dataset) -> tuple[Dataset, ...]:
    """The cells of rows appended since the graph was built, oldest first."""
    found = []
    while graph.stage in GROWN:
        if "segment" in graph.manifest.inputs:
            found.append(origin(graph, "segment"))
        graph = origin(graph, "graph")
    return tuple(reversed(found))


def origin(dataset: Dataset, role: str) -> Dataset:
    """The dataset that played a role; ObjectMissing, with what to do, where it is gone."""
    fingerprint = dataset.manifest.inputs[role]
    found = _dataset(dataset.store, fingerprint)
    if found is None:
        raise ObjectMissing(
            f"{dataset.uri} was made from {role} {fingerprint}, and {dataset.store.uri} has no such"
            f" dataset: it was removed, or lies in another store. Import the same vectors into"
            " this store and build the graph there again (steps that are still committed are"
            " reused), then run this again."
        )
    return found


def _base(graph: Dataset) -> Dataset:
    """The plain graph under all changes."""
    while graph.stage in GROWN:
        graph = origin(graph, "graph")
    return graph


def _dataset(store: Store, fingerprint: str) -> Dataset | None:
    try:
        return _committed(store, fingerprint)
    except ObjectMissing:
        return None


@lru_cache(maxsize=128)
def _committed(store: Store, fingerprint: str) -> Dataset:
    """A committed dataset never changes; that there is none is not remembered."""
    manifest = store.manifest(fingerprint)
    if manifest is None:
        raise ObjectMissing(fingerprint)
    return Dataset(store, manifest)
