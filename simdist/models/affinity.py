"""Affinity propagation: `affinity_propagation`, and its link."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np

from simdist.models.chain import Link, run_links
from simdist.models.links import Graph, linked
from simdist.models.places import PlaceOptions
from simdist.panels import rows_between
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.models.links import SimilarityGraph
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Ids

__all__ = ["Exemplars", "ExemplarsDataset", "affinity_links", "affinity_propagation"]


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Clusters, each named by one of its rows.

    labels: [n] int64, -1 where no exemplar has been found. exemplars: [k] int64 rows, ascending:
    that of row i is exemplars[labels[i]]. preference: what a row's own similarity was.
    turns: of messages. state: "converged", or "unconverged" where they were spent.
    """

    labels: Ids
    exemplars: Ids
    preference: float
    turns: int
    state: str

    def __len__(self) -> int:
        return len(self.exemplars)

    def __repr__(self) -> str:
        return (
            f"Exemplars({len(self)} of {len(self.labels)} rows, {self.turns} turns, {self.state})"
        )


@dataclass(frozen=True, slots=True)
class ExemplarsDataset(Dataset):
    """Committed exemplars: see `Dataset`; shards have "labels" as .npy and the Parquet table (row,
    cluster, exemplar). `open` reads them into arrays."""

    def open(self) -> Exemplars:
        """All labels in memory, 8 bytes a row."""
        metrics = self.metrics
        return Exemplars(
            np.array(rows_between(self, "labels", 0, self.rows)),
            np.array(self.store.read_array(self.manifest.objects["exemplars"])),
            float(metrics["preference"]),
            int(metrics["turns"]),
            str(metrics["state"]),
        )


def affinity_links(
    name: str,
    of: str,
    *,
    preference: float | Literal["median"] = "median",
    damping: float = 0.7,
    turns: int = 200,
    patience: int = 15,
    rounds: Literal[1, 2] = 1,
    seed: int = 0,
) -> tuple[Link, ...]:
    """The step that finds exemplars in the similarity graph called `of`."""
    from simdist.stages.affinity import AffinityConfig, AffinityPropagationStage  # noqa: PLC0415

    config = AffinityConfig(preference, damping, turns, patience, rounds, seed)
    return (Link(name, AffinityPropagationStage(), config, {"graph": of}),)


class AffinityOptions(PlaceOptions, total=False):
    """Keyword options of `affinity_propagation`, for its typed overloads."""

    preference: float | Literal["median"]
    damping: float
    turns: int
    patience: int
    rounds: Literal[1, 2]
    seed: int


@overload
def affinity_propagation(
    graph: Dataset, **options: Unpack[AffinityOptions]
) -> ExemplarsDataset: ...
@overload
def affinity_propagation(
    graph: SimilarityGraph | Any, **options: Unpack[AffinityOptions]
) -> Exemplars: ...
def affinity_propagation(
    graph: Graph,
    *,
    preference: float | Literal["median"] = "median",
    damping: float = 0.7,
    turns: int = 200,
    patience: int = 15,
    rounds: Literal[1, 2] = 1,
    seed: int = 0,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Exemplars | ExemplarsDataset:
    """Rows that stand for others, found by messages along the edges alone.

    graph: SimilarityGraph or symmetric scipy matrix -> Exemplars; links dataset ->
        ExemplarsDataset. Its weights are the similarities; what is no edge cannot be chosen.
    preference: similarity of a row to itself; higher gives more exemplars. "median": the median
        weight of the edges.
    damping: share of the old message in the new, 1/2 to less than 1; raise it where the state is
        unconverged. turns: at most; patience: turns without a change of exemplars that settle it.
    rounds: on a sparse graph clusters are no larger than neighbourhoods; 2 clusters the exemplars
        once more, by the weight between their clusters over the root of the volumes' product.
    seed: of the noise, 1e-9 of a weight, that parts ties. store, scratch, engine: as for
        `knn_graph`.

    A complete graph gives what scikit-learn's AffinityPropagation does. A row without an exemplar
    among its neighbours follows the nearest of them that has one; a node without edges is its own.
    Raises ConfigError for settings without a meaning; a RuntimeWarning, and `state: unconverged` in
    the manifest, where the turns did not suffice: labels are those of the last one.
    Cost: O(entries) a turn; two float64 an entry are written in each turn of a sharded graph.
    Source: Frey and Dueck, Science 315 (2007).
    """
    links = affinity_links(
        "exemplars",
        "graph",
        preference=preference,
        damping=damping,
        turns=turns,
        patience=patience,
        rounds=rounds,
        seed=seed,
    )
    with linked(graph, store=store, scratch=scratch, engine=engine, listeners=listeners) as at:
        made = run_links(
            links, {"graph": at.links}, store=at.store, engine=at.engine, listeners=listeners
        )
        found = ExemplarsDataset.of(made["exemplars"])
        if found.metrics["state"] == "unconverged":
            warnings.warn(
                f"affinity propagation has not converged in {found.metrics['turns']} turns:"
                " exemplars still change. Raise damping, or turns.",
                RuntimeWarning,
                stacklevel=2,
            )
        return found if isinstance(graph, Dataset) else found.open()
