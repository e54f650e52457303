"""Steps on similarity graphs, as a flow writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from simdist.config.fields import Count, Fraction, Name, Number, Positive, Seed
from simdist.config.steps import Step

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = [
    "AffinityPropagationStep",
    "ConnectedComponentsStep",
    "DiffusionMapStep",
    "NormalizedCutStep",
    "PropagateStep",
    "SimilarityGraphStep",
    "SpectralClustersStep",
    "SpectralEmbeddingStep",
]

Solver = Literal["auto", "direct", "lobpcg", "chebyshev"]


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


class SpectralEmbeddingStep(Step):
    """Eigenvectors of a graph's normalised Laplacian."""

    takes: ClassVar[str] = "similarity_graph"
    gives: ClassVar[str] = "spectral_embedding"

    stage: Literal["spectral_embedding"]
    dim: Count
    laplacian: Literal["symmetric", "random_walk"] = "symmetric"
    tolerance: Positive = 1e-3
    solver: Solver = "auto"
    max_passes: Count = 1000
    seed: Seed = 0

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.spectral import spectral_links  # noqa: PLC0415 - config stays light

        return spectral_links(
            name,
            self.of,
            dim=self.dim,
            laplacian=self.laplacian,
            tolerance=self.tolerance,
            solver=self.solver,
            max_passes=self.max_passes,
            seed=self.seed,
        )


class DiffusionMapStep(Step):
    """Coordinates in which distances are those of a random walk of `time` steps."""

    takes: ClassVar[str] = "similarity_graph"
    gives: ClassVar[str] = "spectral_embedding"

    stage: Literal["diffusion_map"]
    dim: Count
    time: Annotated[int, Field(strict=True, ge=0)] = 1
    alpha: Number = 1.0
    tolerance: Positive = 1e-3
    solver: Solver = "auto"
    max_passes: Count = 1000
    seed: Seed = 0

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.spectral import spectral_links  # noqa: PLC0415 - config stays light

        return spectral_links(
            name,
            self.of,
            dim=self.dim,
            laplacian="random_walk",
            tolerance=self.tolerance,
            solver=self.solver,
            max_passes=self.max_passes,
            seed=self.seed,
            alpha=self.alpha,
            time=self.time,
        )


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
