"""Steps on the density of vectors, as a flow writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from simdist.config.fields import Count, Name, Positive, Seed, Text
from simdist.config.steps import Step

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = [
    "DenoiseStep",
    "KernelDensityStep",
    "KernelRegressionStep",
    "MeanShiftStep",
    "OutlierScoresStep",
    "ScoreFieldStep",
]

Bandwidth: TypeAlias = (
    Positive | tuple[Positive, ...] | Literal["scott", "silverman", "knn", "likelihood"]
)
Precision: TypeAlias = Literal["auto", "float32", "float64"]


class DensityStep(Step):
    """What steps of this family share: how the bandwidth is chosen."""

    takes: ClassVar[str] = "vectors"

    bandwidth: Bandwidth = "scott"
    scale: Literal["dataset", "feature"] = "dataset"
    neighbor: Count = 10
    sample: Count = 1000
    seed: Seed = 0
    precision: Precision = "auto"

    @property
    def options(self) -> dict[str, Any]:
        """As the links take them."""
        return {
            "bandwidth": self.bandwidth,
            "scale": self.scale,
            "neighbor": self.neighbor,
            "sample": self.sample,
            "seed": self.seed,
            "precision": self.precision,
        }


class KernelDensityStep(DensityStep):
    """The log density of rows, each left out of its own; or of the rows of `at`."""

    gives: ClassVar[str] = "kernel_density"

    stage: Literal["kernel_density"]
    at: Name | None = None

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, **({} if self.at is None else {"at": self.at})}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.density import density_links  # noqa: PLC0415 - config stays light

        return density_links(name, self.of, self.at, **self.options)


class OutlierScoresStep(DensityStep):
    """How far out each row lies."""

    gives: ClassVar[str] = "outlier_scores"

    stage: Literal["outlier_scores"]
    method: Literal["density", "relative"] = "density"

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.density import outlier_links  # noqa: PLC0415 - config stays light

        return outlier_links(name, self.of, method=self.method, **self.options)


class MeanShiftStep(DensityStep):
    """Rows in clusters around the modes of their density."""

    gives: ClassVar[str] = "labelling"

    stage: Literal["mean_shift"]
    bandwidth: Bandwidth
    kernel: Literal["flat", "gaussian"] = "flat"
    seeds: Literal["auto", "all", "bins", "cover"] = "auto"
    least: Count = 1
    turns: Count = 300
    tolerance: Positive = 1e-3
    merge: Positive | None = None
    everyone: bool = True

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.mean_shift import mean_shift_links  # noqa: PLC0415

        return mean_shift_links(
            name,
            self.of,
            kernel=self.kernel,
            seeds=self.seeds,
            least=self.least,
            turns=self.turns,
            tolerance=self.tolerance,
            merge=self.merge,
            everyone=self.everyone,
            **self.options,
        )


class KernelRegressionStep(DensityStep):
    """Kept columns of rows, averaged near each row, left out of its own; or near the rows of
    `at`."""

    gives: ClassVar[str] = "kernel_regression"

    stage: Literal["kernel_regression"]
    columns: tuple[Text, ...] | Text
    bandwidth: Bandwidth | Literal["leave_one_out"] = "leave_one_out"  # type: ignore[assignment]
    at: Name | None = None

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, **({} if self.at is None else {"at": self.at})}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.kernel_regression import regression_links  # noqa: PLC0415

        columns = (self.columns,) if isinstance(self.columns, str) else self.columns
        return regression_links(name, self.of, self.of, self.at, columns=columns, **self.options)


class ScoreFieldStep(Step):
    """The gradient of the log density at the rows of `at`."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "score_field"

    stage: Literal["score_field"]
    at: Name
    sigma: Positive
    precision: Precision = "auto"

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "at": self.at}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.denoise import score_links  # noqa: PLC0415 - config stays light

        return score_links(name, self.of, self.at, self.sigma, precision=self.precision)


class DenoiseStep(Step):
    """Noisy rows, `of`, freed of noise by the rows of `data`: vectors again."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "vectors"

    stage: Literal["denoise"]
    data: Name
    sigma: Positive
    steps: Count = 1
    last: Positive | None = None
    precision: Precision = "auto"

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "data": self.data}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.denoise import denoise_links  # noqa: PLC0415 - config stays light

        return denoise_links(
            name,
            self.of,
            self.data,
            self.sigma,
            steps=self.steps,
            last=self.last,
            precision=self.precision,
        )
