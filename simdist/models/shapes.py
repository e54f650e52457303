"""How large the datasets of a chain will be, before any of them is made.

    Shape of the inputs ──> after(stage, config, ...) ──> Shape of the result ──> expected(...)

A stage on the edges of a graph has `on_edges = True` and is asked `forecast(..., entries=...)`; how
many edges a k-NN graph leaves when it is made symmetric is an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simdist.runner.plan import Forecast, Stage
    from simdist.store.datasets import Dataset

__all__ = ["Shape", "after", "expected", "on_edges", "shape_of"]

# Entries of the symmetric graph for each of the lists: 1.48 and 1.47 of 12,000 and 63,666 packages,
# 1.75 of neighbours drawn at random; mutual, 0.51 of 12,000 packages.
UNION, MUTUAL = 1.7, 0.6


@dataclass(frozen=True, slots=True)
class Shape:
    """rows: 0 where nobody knows. dim: of the vectors it was made from, 0 where there are none.
    entries: of k-NN lists or a graph, None where there are none or nobody knows."""

    rows: int
    dim: int
    entries: int | None = None


def on_edges(stage: Stage) -> bool:
    """Whether the stage's forecast takes the entries of its graph."""
    return bool(getattr(stage, "on_edges", False))


def shape_of(dataset: Dataset) -> Shape | None:
    """Of a committed dataset: vectors, k-NN lists or a graph; None of any other."""
    metrics = dataset.metrics
    if "dim" in metrics:
        return Shape(dataset.rows, int(metrics["dim"]))
    if "edges" in metrics and "vectors" in dataset.manifest.inputs:
        vectors = dataset.store.manifest(dataset.manifest.inputs["vectors"])
        dim = 0 if vectors is None else int(vectors.metrics.get("dim", 0))
        return Shape(dataset.rows, dim, int(metrics["edges"]))
    if "entries" in metrics:
        return Shape(dataset.rows, 0, int(metrics["entries"]))
    return None


def after(stage: Stage, config: Any, of: Shape) -> Shape:
    """What a stage makes of such an input."""
    match stage.name:
        case "knn_graph":
            return replace(of, entries=of.rows * int(config.k))
        case "similarity_graph" if of.entries is not None:
            share = UNION if config.symmetrize == "union" else MUTUAL
            return replace(of, entries=round(share * of.entries))
        case "neighbor_gp_sample":
            return Shape(min(of.rows, int(config.rows)), of.dim)
        case "spectral_embedding":
            return Shape(of.rows, int(config.dim))
        case "map_features":
            return Shape(of.rows, int(config.components))
    return of


def expected(stage: Any, config: Any, of: Shape, **others: int) -> Forecast | None:
    """The stage's forecast; None where it has none, or where it depends on edges nobody counted.
    others: rows of further inputs, by role."""
    if not hasattr(stage, "forecast"):
        return None
    if on_edges(stage):
        if not of.rows or of.entries is None:
            return None
        others = {"entries": of.entries}
    found: Forecast = stage.forecast(config, of.rows, of.dim, **others)
    return found
