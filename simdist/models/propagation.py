"""Message passing on graphs: features walked, labels handed on, predictions mended.

    graph ──┬── propagate(features) ───────────────> features of the same rows, vectors again
            ├── label_propagation(labels) ─────────> a label and scores for every row
            └── correct_and_smooth(predictions, labels) ──> the same

A graph in memory gives arrays; a stored graph gives a dataset beside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from simdist.errors import InputError
from simdist.models.chain import Link, run_link, run_links
from simdist.models.links import Graph, Linked, linked
from simdist.models.places import PlaceOptions
from simdist.models.vectors import import_array
from simdist.panels import rows_between
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.models.links import SimilarityGraph
    from simdist.runner import Listener
    from simdist.stages.propagate.config import Kind, LabelKind
    from simdist.store.store import Store
    from simdist.types import Array, Float32, Float64, Ids

__all__ = [
    "Labels",
    "LabelsDataset",
    "column_link",
    "correct_and_smooth",
    "correct_links",
    "label_links",
    "label_propagation",
    "labels_of",
    "propagate",
    "propagate_links",
]


@dataclass(frozen=True, slots=True)
class Labels:
    """A label for every row, and what it was chosen by.

    labels: [n] int64, -1 where no known label reaches the row. scores: [n, c] float64, a column a
    class. classes: [c] int64, the label of every column. steps: how many were done. change: the
    largest move of a score in the last one. state: "converged" or "unconverged", by the tolerance;
    "done" where a fixed number of steps is the method.
    """

    labels: Ids
    scores: Float64
    classes: Ids
    steps: int
    change: float
    state: str

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return (
            f"Labels({len(self)} rows, {len(self.classes)} classes,"
            f" {int(np.sum(self.labels < 0))} unreached, {self.steps} steps, {self.state})"
        )


@dataclass(frozen=True, slots=True)
class LabelsDataset(Dataset):
    """Committed labels: see `Dataset`; a shard has "labels" and "scores" as .npy and the Parquet
    table (row, label, score). `open` reads them into arrays."""

    def open(self) -> Labels:
        """All labels and scores in memory, 8 n (c + 1) bytes."""
        metrics = self.metrics
        return Labels(
            np.array(rows_between(self, "labels", 0, self.rows)),
            np.array(rows_between(self, "scores", 0, self.rows)),
            np.array(metrics["classes"], np.int64),
            int(metrics["steps"]),
            float(metrics["change"]),
            str(metrics["state"]),
        )


def propagate_links(
    name: str,
    of: str,
    features: str,
    *,
    kind: Kind = "sgc",
    steps: int | None = None,
    alpha: float | None = None,
    self_loops: float | None = None,
    tolerance: float | None = None,
) -> tuple[Link, ...]:
    """The step that walks the vectors called `features` over the graph called `of`."""
    from simdist.stages.propagate import PropagateConfig, PropagateStage  # noqa: PLC0415

    config = PropagateConfig(kind, steps, alpha, self_loops, tolerance)
    return (Link(name, PropagateStage(), config, {"graph": of, "features": features}),)


def label_links(
    name: str,
    of: str,
    labels: str,
    *,
    kind: LabelKind = "clamped",
    alpha: float | None = None,
    steps: int = 1000,
    tolerance: float = 1e-4,
) -> tuple[Link, ...]:
    """The step that hands the labels called `labels` on over the graph called `of`."""
    from simdist.stages.propagate import LabelConfig, LabelPropagationStage  # noqa: PLC0415

    config = LabelConfig(kind, alpha, steps, tolerance)
    return (Link(name, LabelPropagationStage(), config, {"graph": of, "labels": labels}),)


def column_link(name: str, of: str, column: str) -> Link:
    """The step that numbers the values of a column kept with the vectors called `of`."""
    from simdist.stages.propagate import ColumnConfig, ColumnLabels  # noqa: PLC0415

    return Link(name, ColumnLabels(), ColumnConfig(column), {"vectors": of})


def correct_links(
    name: str,
    of: str,
    predictions: str,
    labels: str,
    *,
    correct: float = 0.8,
    smooth: float = 0.8,
    steps: int = 50,
    scale: float | None = None,
) -> tuple[Link, ...]:
    """The step that mends the predictions called `predictions` by `labels` over the graph `of`."""
    from simdist.stages.propagate import CorrectAndSmoothStage, CorrectConfig  # noqa: PLC0415

    config = CorrectConfig(correct, smooth, steps, scale)
    inputs = {"graph": of, "predictions": predictions, "labels": labels}
    return (Link(name, CorrectAndSmoothStage(), config, inputs),)


class PropagateOptions(PlaceOptions, total=False):
    """Keyword options of `propagate`, for its typed overloads."""

    kind: Kind
    steps: int | None
    alpha: float | None
    self_loops: float | None
    tolerance: float | None


@overload
def propagate(
    graph: Dataset, features: Array | Dataset, **options: Unpack[PropagateOptions]
) -> Dataset: ...
@overload
def propagate(
    graph: SimilarityGraph | Any, features: Array | Dataset, **options: Unpack[PropagateOptions]
) -> Float32: ...
def propagate(
    graph: Graph,
    features: Array | Dataset,
    *,
    kind: Kind = "sgc",
    steps: int | None = None,
    alpha: float | None = None,
    self_loops: float | None = None,
    tolerance: float | None = None,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Float32 | Dataset:
    """Features averaged over the graph, step after step: neighbours brought to a linear head.

    graph: SimilarityGraph or symmetric scipy matrix -> [n, d] float32; links dataset -> a vectors
        dataset under the ids of the features, which knn_graph and all others take.
    features: [n, d] array or vectors dataset, a row a node. d may be larger than memory: columns
        are walked in blocks.
    kind, and what it takes by default, as published; S = D^-1/2 (A + l I) D^-1/2:
        "sgc"       S^steps X                               steps 2, self-loops l = 1
        "appnp"     Z' = (1 - alpha) S Z + alpha X          steps 10, alpha 0.1, l = 1
        "ppr"       Z' = (1 - alpha) A D^-1 Z + alpha X     alpha 0.15, l = 0, until no value moves
                    by more than 1e-6, at most 100 steps; columns keep their sums
        "lightgcn"  (X + S X + ... + S^steps X)/(steps + 1) steps 3, l = 0
    steps, alpha, self_loops: instead of these. tolerance: of appnp and ppr, stop before.
    store: where a stored graph's result is committed, by default beside it.
    scratch: where the data of a graph in memory goes, by default memory and a temporary
        folder.
    engine: None or "local", "dask", "ray", an address, or an open Engine.

    A node without edges keeps its row; in "lightgcn" a share 1 / (steps + 1) of it.
    Errors: InputError for another number of rows, ConfigError for settings without a meaning; a
    RuntimeWarning, and `state: unconverged` in the manifest, where ppr ends before it converges.
    Cost: per step one pass, 2 d flops an entry, n d values written to the store; sums in float64,
    values kept as float32 between steps.
    Sources: Wu et al., SGC (ICML 2019); Gasteiger et al., APPNP (ICLR 2019); Page et al. (1999);
    He et al., LightGCN (SIGIR 2020).
    """
    links = propagate_links(
        "propagated",
        "graph",
        "features",
        kind=kind,
        steps=steps,
        alpha=alpha,
        self_loops=self_loops,
        tolerance=tolerance,
    )
    with linked(graph, store=store, scratch=scratch, engine=engine, listeners=listeners) as at:
        given = {"graph": at.links, "features": _vectors_of(features, at, listeners)}
        made = run_links(links, given, store=at.store, engine=at.engine, listeners=listeners)
        found = made["propagated"]
        _warn_unconverged(found)
        if isinstance(graph, Dataset):
            return found
        return np.array(rows_between(found, "vectors", 0, found.rows))


class LabelOptions(PlaceOptions, total=False):
    """Keyword options of `label_propagation`, for its typed overloads."""

    kind: LabelKind
    alpha: float | None
    steps: int
    tolerance: float


@overload
def label_propagation(
    graph: Dataset, labels: Array | Dataset, **options: Unpack[LabelOptions]
) -> LabelsDataset: ...
@overload
def label_propagation(
    graph: SimilarityGraph | Any, labels: Array | Dataset, **options: Unpack[LabelOptions]
) -> Labels: ...
def label_propagation(
    graph: Graph,
    labels: Array | Dataset,
    *,
    kind: LabelKind = "clamped",
    alpha: float | None = None,
    steps: int = 1000,
    tolerance: float = 1e-4,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Labels | LabelsDataset:
    """Labels of a few rows handed on to all others along the edges.

    graph: SimilarityGraph or symmetric scipy matrix -> Labels; links dataset -> LabelsDataset.
    labels: [n] integers, -1 for a row without one; or a dataset with "labels".
    kind:
        "clamped"    X' = D^-1 A X, known rows set back after each step: the probability that a
                     random walk from a row ends at each class. Known labels stand.
        "spreading"  X' = alpha D^-1/2 A D^-1/2 X + (1 - alpha) X0, alpha 0.9: known labels may give
                     way to their surroundings.
    steps: at most; tolerance: stop once no score moves by more, in units of what a labelled row is
        given in a step.
    store, scratch, engine: as for `propagate`.

    A row that no known label reaches (isolated, or in a component without any) has -1 and scores of
    0; `unreached` in the metrics counts them. Self-loops would change the answer; graphs have none.
    Errors: InputError where no row has a label, for more than 10,000 classes, another number of
    rows; a RuntimeWarning, and `state: unconverged`, where the steps did not suffice.
    Cost: a pass a step, n c float64 values written; a graph of one shard takes many steps at once.
    Sources: Zhu and Ghahramani, CMU-CALD-02-107 (2002); Zhou et al., NIPS 2003.
    """
    links = label_links(
        "labelled", "graph", "labels", kind=kind, alpha=alpha, steps=steps, tolerance=tolerance
    )
    with linked(graph, store=store, scratch=scratch, engine=engine, listeners=listeners) as at:
        given = {"graph": at.links, "labels": labels_of(labels, at, listeners)}
        made = run_links(links, given, store=at.store, engine=at.engine, listeners=listeners)
        return _labels_as(graph, LabelsDataset.of(made["labelled"]))


class CorrectOptions(PlaceOptions, total=False):
    """Keyword options of `correct_and_smooth`, for its typed overloads."""

    correct: float
    smooth: float
    steps: int
    scale: float | None


@overload
def correct_and_smooth(
    graph: Dataset,
    predictions: Array | Dataset,
    labels: Array | Dataset,
    **options: Unpack[CorrectOptions],
) -> LabelsDataset: ...
@overload
def correct_and_smooth(
    graph: SimilarityGraph | Any,
    predictions: Array | Dataset,
    labels: Array | Dataset,
    **options: Unpack[CorrectOptions],
) -> Labels: ...
def correct_and_smooth(
    graph: Graph,
    predictions: Array | Dataset,
    labels: Array | Dataset,
    *,
    correct: float = 0.8,
    smooth: float = 0.8,
    steps: int = 50,
    scale: float | None = None,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Labels | LabelsDataset:
    """Predictions of a model that saw no edges, mended by the labels that are known.

    graph: SimilarityGraph or symmetric scipy matrix -> Labels; links dataset -> LabelsDataset.
    predictions: [n, c] probabilities, a row a node, a column a class from 0 on; or vectors.
    labels: [n] integers below c, -1 for a row without one: those the model was fitted on.
    correct, smooth: alpha of the two walks, how far errors and then labels are spread.
    steps: of either walk, all of them are done. scale: of the spread errors that are added; None
        gives each row's the size that errors have where they are known (autoscale).
    store, scratch, engine: as for `propagate`.

    Errors: InputError where no row has a label, or one without a column. Cost: 2 steps passes.
    Source: Huang et al., ICLR 2021 (arXiv 2010.13993), in the order of the authors' code.
    """
    links = correct_links(
        "mended",
        "graph",
        "predictions",
        "labels",
        correct=correct,
        smooth=smooth,
        steps=steps,
        scale=scale,
    )
    with linked(graph, store=store, scratch=scratch, engine=engine, listeners=listeners) as at:
        given = {
            "graph": at.links,
            "predictions": _vectors_of(predictions, at, listeners),
            "labels": labels_of(labels, at, listeners),
        }
        made = run_links(links, given, store=at.store, engine=at.engine, listeners=listeners)
        return _labels_as(graph, LabelsDataset.of(made["mended"]))


def labels_of(labels: Array | Dataset, at: Linked, listeners: Sequence[Listener] = ()) -> Dataset:
    """Labels as a dataset: an array is written beside the graph; a dataset with "labels" is as it
    is. Raises InputError for anything else."""
    from simdist.stages.propagate import GivenLabels, write_labels  # noqa: PLC0415

    if isinstance(labels, Dataset):
        if any("labels" not in shard.objects for shard in labels.shards):
            raise InputError(
                f"{labels.uri} was made by stage {labels.stage} and has no labels: give an array,"
                " or what connected_components, spectral_clusters or label_propagation committed"
            )
        return labels
    link = Link("labels", GivenLabels(), write_labels(labels, at.store), {})
    return run_link(link, {}, store=at.store, engine=at.engine, listeners=listeners)


def _vectors_of(rows: Array | Dataset, at: Linked, listeners: Sequence[Listener]) -> Dataset:
    """Vectors as a dataset: an array is imported beside the graph."""
    if not isinstance(rows, Dataset):
        return import_array(rows, store=at.store, engine=at.engine, listeners=listeners)
    if "dim" not in rows.metrics or any("vectors" not in shard.objects for shard in rows.shards):
        raise InputError(
            f"{rows.uri} was made by stage {rows.stage} and has no vectors: give an array, or what"
            " import_vectors, spectral_embedding or propagate committed"
        )
    return rows


def _labels_as(graph: Graph, found: LabelsDataset) -> Labels | LabelsDataset:
    """Arrays for a graph in memory, the dataset for a stored one."""
    _warn_unconverged(found)
    return found if isinstance(graph, Dataset) else found.open()


def _warn_unconverged(found: Dataset) -> None:
    metrics = found.metrics
    if metrics["state"] == "unconverged":
        warnings.warn(
            f"{found.stage} has not converged: after {metrics['steps']} steps values still move by"
            f" {metrics['change']:.1e}. Allow more steps, or a larger tolerance.",
            RuntimeWarning,
            stacklevel=3,
        )
