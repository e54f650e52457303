"""Steps on similarity graphs, as a flow writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from simdist.config.fields import Count, Fraction, Name, Number, Positive, Seed, Text
from simdist.config.steps import Step

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = [
    "AffinityPropagationStep",
    "ColumnLabelsStep",
    "ConnectedComponentsStep",
    "CorrectAndSmoothStep",
    "DiffusionMapStep",
    "LabelPropagationStep",
    "NormalizedCutStep",
    "PropagateStep",
    "SimilarityGraphStep",
    "SpectralClustersStep",
    "SpectralEmbeddingStep",
]


class SimilarityGraphStep(Step):
    """The symmetric weighted graph of a k-NN graph."""

    takes: ClassVar[str] = "knn_graph"
    gives: ClassVar[str] = "similarity_graph"

    stage: Literal["similarity_graph"]
    symmetrize: Literal["union", "mutual"] = "union"
    weights: Literal["value", "binary", "self_tuning", "umap"] = "value"
    scale_neighbor: Count = 7

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.similarity import similarity_links  # noqa: PLC0415

        return similarity_links(
            name,
            self.of,
            symmetrize=self.symmetrize,
            weights=self.weights,
            scale_neighbor=self.scale_neighbor,
        )


class ConnectedComponentsStep(Step):
    """Which nodes of a graph are connected."""

    takes: ClassVar[str] = "similarity_graph"
    gives: ClassVar[str] = "labelling"

    stage: Literal["connected_components"]

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.components import components_links  # noqa: PLC0415

        return components_links(name, self.of)


class _EigenvectorsStep(Step):
    """What both steps on a graph's eigenvectors have."""

    takes: ClassVar[str] = "similarity_graph"
    gives: ClassVar[str] = "spectral_embedding"

    dim: Count
    tolerance: Positive = 1e-3
    solver: Literal["auto", "direct", "lobpcg", "chebyshev"] = "auto"
    max_passes: Count = 1000
    seed: Seed = 0

    def _links(self, name: str, **more: Any) -> tuple[Link, ...]:
        from simdist.models.spectral import spectral_links  # noqa: PLC0415 - config stays light

        return spectral_links(
            name,
            self.of,
            dim=self.dim,
            tolerance=self.tolerance,
            solver=self.solver,
            max_passes=self.max_passes,
            seed=self.seed,
            **more,
        )


class SpectralEmbeddingStep(_EigenvectorsStep):
    """Eigenvectors of a graph's normalised Laplacian."""

    stage: Literal["spectral_embedding"]
    laplacian: Literal["symmetric", "random_walk"] = "symmetric"

    def links(self, name: str) -> tuple[Link, ...]:
        return self._links(name, laplacian=self.laplacian)


class DiffusionMapStep(_EigenvectorsStep):
    """Coordinates in which distances are those of a random walk of `time` steps."""

    stage: Literal["diffusion_map"]
    time: Annotated[int, Field(strict=True, ge=0)] = 1
    alpha: Number = 1.0

    def links(self, name: str) -> tuple[Link, ...]:
        return self._links(name, laplacian="random_walk", time=self.time, alpha=self.alpha)


class SpectralClustersStep(Step):
    """A graph's rows in clusters: embedded first, then by k-means or cluster_qr."""

    takes: ClassVar[str] = "similarity_graph"
    gives: ClassVar[str] = "labelling"

    stage: Literal["spectral_clusters"]
    clusters: Count | Literal["auto"]
    method: Literal["kmeans", "cluster_qr"] = "kmeans"
    most: Count = 16
    residual: Positive = 1e-3
    restarts: Count = 10
    iterations: Count = 300
    smallest: Count | None = None
    central: Count = 5
    seed: Seed = 0

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.clusters import graph_cluster_links  # noqa: PLC0415

        return graph_cluster_links(
            name,
            self.of,
            self.clusters,
            method=self.method,
            most=self.most,
            residual=self.residual,
            restarts=self.restarts,
            iterations=self.iterations,
            smallest=self.smallest,
            central=self.central,
            seed=self.seed,
        )


class AffinityPropagationStep(Step):
    """Rows that stand for others, found by messages along a graph's edges."""

    takes: ClassVar[str] = "similarity_graph"
    gives: ClassVar[str] = "labelling"

    stage: Literal["affinity_propagation"]
    preference: Number | Literal["median"] = "median"
    damping: Fraction = 0.7
    turns: Count = 200
    patience: Count = 15
    rounds: Literal[1, 2] = 1
    seed: Seed = 0

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.affinity import affinity_links  # noqa: PLC0415 - config stays light

        return affinity_links(
            name,
            self.of,
            preference=self.preference,
            damping=self.damping,
            turns=self.turns,
            patience=self.patience,
            rounds=self.rounds,
            seed=self.seed,
        )


class NormalizedCutStep(Step):
    """What a labelling of a graph's nodes cuts, and the rows with the most weight inside each
    cluster."""

    takes: ClassVar[str] = "similarity_graph"
    gives: ClassVar[str] = "normalized_cut"

    stage: Literal["normalized_cut"]
    labels: Name
    central: Count = 5

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "labels": self.labels}

    def kinds(self) -> Mapping[str, str]:
        return {"of": self.takes, "labels": "labelling"}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.clusters import cut_links  # noqa: PLC0415 - config stays light

        return cut_links(name, self.of, self.labels, central=self.central)


class PropagateStep(Step):
    """Features of rows, walked over a graph: vectors again."""

    takes: ClassVar[str] = "similarity_graph"
    gives: ClassVar[str] = "vectors"

    stage: Literal["propagate"]
    features: Name
    kind: Literal["sgc", "appnp", "ppr", "lightgcn"] = "sgc"
    steps: Count | None = None
    alpha: Number | None = None
    self_loops: Number | None = None
    tolerance: Positive | None = None

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "features": self.features}

    def kinds(self) -> Mapping[str, str]:
        return {"of": self.takes, "features": "vectors"}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.propagation import propagate_links  # noqa: PLC0415

        return propagate_links(
            name,
            self.of,
            self.features,
            kind=self.kind,
            steps=self.steps,
            alpha=self.alpha,
            self_loops=self.self_loops,
            tolerance=self.tolerance,
        )


class ColumnLabelsStep(Step):
    """Values of a column kept with vectors, numbered as classes; an empty one is no label."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "labelling"

    stage: Literal["column_labels"]
    column: Text

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.propagation import column_link  # noqa: PLC0415 - config stays light

        return (column_link(name, self.of, self.column),)


class LabelPropagationStep(Step):
    """Labels of some nodes handed on to all others."""

    takes: ClassVar[str] = "similarity_graph"
    gives: ClassVar[str] = "labelling"

    stage: Literal["label_propagation"]
    labels: Name
    kind: Literal["clamped", "spreading"] = "clamped"
    alpha: Number | None = None
    steps: Count = 1000
    tolerance: Positive = 1e-4

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "labels": self.labels}

    def kinds(self) -> Mapping[str, str]:
        return {"of": self.takes, "labels": "labelling"}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.propagation import label_links  # noqa: PLC0415 - config stays light

        return label_links(
            name,
            self.of,
            self.labels,
            kind=self.kind,
            alpha=self.alpha,
            steps=self.steps,
            tolerance=self.tolerance,
        )


class CorrectAndSmoothStep(Step):
    """Predictions, a column a class, mended by the labels that are known."""

    takes: ClassVar[str] = "similarity_graph"
    gives: ClassVar[str] = "labelling"

    stage: Literal["correct_and_smooth"]
    predictions: Name
    labels: Name
    correct: Fraction = 0.8
    smooth: Fraction = 0.8
    steps: Count = 50
    scale: Number | None = None

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "predictions": self.predictions, "labels": self.labels}

    def kinds(self) -> Mapping[str, str]:
        return {"of": self.takes, "predictions": "vectors", "labels": "labelling"}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.propagation import correct_links  # noqa: PLC0415 - config stays light

        return correct_links(
            name,
            self.of,
            self.predictions,
            self.labels,
            correct=self.correct,
            smooth=self.smooth,
            steps=self.steps,
            scale=self.scale,
        )
