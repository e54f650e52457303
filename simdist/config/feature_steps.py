"""Steps that make features of a kernel, as a flow writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from simdist.config.fields import Count, KernelSpec, Seed
from simdist.config.steps import Step

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = ["NystroemStep", "RandomFeaturesStep"]


class NystroemStep(Step):
    """Features from a kernel's values with a few rows that stand for all: vectors again.

    kernel: `rbf`, `{name: rbf, ard: true}`, or a formula such as `2.0 * RBF(0.5) + Linear()`.
    """

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "vectors"

    stage: Literal["nystroem"]
    kernel: KernelSpec | None = None
    components: Count = 100
    centers: Literal["random", "kmeans++", "pivots", "greedy"] = "kmeans++"
    seed: Seed = 0

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.features import feature_links  # noqa: PLC0415 - config stays light

        return feature_links(
            name,
            self.of,
            "nystroem",
            kernel=self.kernel,
            components=self.components,
            centers=self.centers,
            seed=self.seed,
        )


class RandomFeaturesStep(Step):
    """Features of a kernel drawn at random: vectors again."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "vectors"

    stage: Literal["random_features"]
    kernel: KernelSpec | None = None
    components: Count = 100
    orthogonal: bool = True
    seed: Seed = 0

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.features import feature_links  # noqa: PLC0415 - config stays light

        return feature_links(
            name,
            self.of,
            "random_features",
            kernel=self.kernel,
            components=self.components,
            orthogonal=self.orthogonal,
            seed=self.seed,
        )
