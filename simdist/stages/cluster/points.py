"""Rows as they are clustered: which ones, in which coordinates, panel by panel.

    embedding   vectors [n, d] ── columns that speak of the rows ──┐
                degrees [n] ──┐                                    ├──> [m, c + q] float64,
    components  labels [n] ───┴── c null vectors D^1/2 1_C / |.| ──┘     scaled to length 1 if asked

A spectral embedding leaves the Laplacian's null vectors out: one for each component, known without
solving. They are put back here, for the components that are large enough to be cut. The rows of the
others take no part: each small component is a cluster of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simdist.panels import rows_between
from simdist.partitions import block_rows
from simdist.store.datasets import Dataset
from simdist.types import Bools, Float64, Ids, Json

__all__ = ["Coordinates", "Mass", "Points", "large_components", "mass_of"]


def large_components(components: Dataset, clusters: int, smallest: int) -> tuple[int, ...]:
    """Components of at least `smallest` rows, the largest ones where they are more than clusters;
    ascending. The largest of all is always among them."""
    listed = [(int(number), int(size)) for number, size in components.metrics["largest"]]
    fit = [number for number, size in listed if size >= smallest] or [listed[0][0]]
    return tuple(sorted(fit[:clusters]))


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Columns of the embedding that are used, and the large components with their volumes; none of
    plain vectors, where every row takes part. walk: the embedding is the random walk's, so
    that null vectors are constant on a component."""

    columns: tuple[int, ...]
    large: tuple[int, ...] = ()
    volumes: tuple[float, ...] = ()
    walk: bool = False

    @property
    def dim(self) -> int:
        return len(self.large) + len(self.columns)

    def to_json(self) -> dict[str, Json]:
        return {
            "columns": list(self.columns),
            "large": list(self.large),
            "volumes": list(self.volumes),
            "walk": self.walk,
        }

    @classmethod
    def from_json(cls, value: dict[str, Json]) -> Coordinates:
        columns, large, volumes = (tuple(value[name]) for name in ("columns", "large", "volumes"))
        return cls(columns, large, volumes, value["walk"])


@dataclass(frozen=True, slots=True)
class Mass:
    """What a panel says of the rows that are to be clustered.

    rows, volumes: [c] rows and degrees by large component. inside, total: [d] squares of the
    embedding's columns on these rows, and on all.
    """

    rows: Ids
    volumes: Float64
    inside: Float64
    total: Float64


@dataclass(frozen=True)
class Points:
    """Read access to the rows, by panel: runs of consecutive rows, cut by n and d alone."""

    embedding: Dataset
    components: Dataset | None

    @property
    def rows(self) -> int:
        return self.embedding.rows

    @property
    def dim(self) -> int:
        return int(self.embedding.metrics["dim"])

    @cached_property
    def panel_rows(self) -> int:
        return block_rows(self.rows, max(self.dim, 8))

    @property
    def panels(self) -> int:
        return -(-self.rows // self.panel_rows)

    def span(self, panel: int) -> tuple[int, int]:
        first = panel * self.panel_rows
        return first, min(first + self.panel_rows, self.rows)

    def component_of(self, panel: int) -> Ids:
        """[m] component of each row of a panel."""
        assert self.components is not None, "asked only where components are an input"
        return np.asarray(rows_between(self.components, "labels", *self.span(panel)))

    def block(self, panel: int, at: Coordinates, *, normalize: bool) -> tuple[Ids, Float64]:
        """(rows [m] global, coordinates [m, c + q] float64) of a panel's rows that take part."""
        first, last = self.span(panel)
        rows = np.arange(first, last)
        X = self.columns(panel, at.columns)
        if at.large:
            place, inside = _places(self.component_of(panel), at.large)
            scale = np.ones(len(rows)) if at.walk else np.sqrt(self.degrees(panel))
            null = np.zeros((len(rows), len(at.large)))
            null[np.flatnonzero(inside), place[inside]] = scale[inside]
            null /= np.sqrt(np.asarray(at.volumes))
            rows, X = rows[inside], np.concatenate([null, X], axis=1)[inside]
        if normalize:
            lengths = np.sqrt(np.einsum("md,md->m", X, X))
            X = X / np.where(lengths > 0, lengths, 1.0)[:, None]
        return rows, np.ascontiguousarray(X)

    def degrees(self, panel: int) -> Float64:
        """[m] degrees of a panel's rows in the graph that was embedded."""
        return np.asarray(rows_between(self.embedding, "degrees", *self.span(panel)))

    def columns(self, panel: int, columns: Sequence[int]) -> Float64:
        """Some columns of a panel's rows, as they are."""
        rows = rows_between(self.embedding, "vectors", *self.span(panel))
        return rows[:, list(columns)].astype(np.float64)


def mass_of(points: Points, panel: int, large: Sequence[int]) -> Mass:
    """Rows and degrees by large component, and how much of each column lies on them."""
    place, inside = _places(points.component_of(panel), large)
    degrees = points.degrees(panel)
    squares = points.columns(panel, range(points.dim)) ** 2
    c = len(large)
    return Mass(
        np.bincount(place[inside], minlength=c),
        np.bincount(place[inside], weights=degrees[inside], minlength=c).astype(np.float64),
        squares[inside].sum(axis=0),
        squares.sum(axis=0),
    )


def _places(component: Ids, large: Sequence[int]) -> tuple[Ids, Bools]:
    """Where each component stands among the large ones (ascending), and whether it does at all."""
    wanted = np.asarray(large, np.int64)
    place = np.searchsorted(wanted, component).clip(0, max(len(wanted) - 1, 0))
    return place, wanted[place] == component
