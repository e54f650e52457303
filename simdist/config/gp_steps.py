"""Steps that fit a sparse Gaussian process and predict with it, as a flow writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from simdist.config.fields import Count, Name, Positive, Seed, Text
from simdist.config.steps import Step
from simdist.errors import ConfigError

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = ["GPPredictStep", "SparseGPStep"]


def _kernel(spec: str | dict[str, Any]) -> str | dict[str, Any]:
    """A kernel that can be resolved, with pydantic's kind of error where it cannot."""
    from simdist.models.gp_links import regression_kernel  # noqa: PLC0415 - config stays light

    try:
        regression_kernel(spec)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return spec


KernelSpec = Annotated[Text | dict[str, Any], AfterValidator(_kernel)]
Share = Annotated[float, Field(ge=0, le=0.9)]
Least = Annotated[int, Field(strict=True, ge=0)]


class SparseGPStep(Step):
    """Gaussian process regression by inducing points. `target`: a column that the vectors keep, or
    several."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "sparse_gp"

    stage: Literal["sparse_gp"]
    target: Text | Annotated[tuple[Text, ...], Field(min_length=1)]
    kernel: KernelSpec = "1.0 * RBF(ard=True)"
    inducing: Count = 512
    select: Literal["greedy", "kmeans"] = "greedy"
    optimize: bool = True
    optimize_inducing: bool = True
    start: Literal["data", "kernel"] = "data"
    noise: Positive = 0.1
    noise_floor: Positive = 1e-6
    noise_column: Text | None = None
    held_out: Share = 0.1
    evaluations: Count = 128
    tolerance: Positive = 1e-5
    mini_rows: Least = 4096
    mini_evaluations: Least = 30
    reselections: Least = 1
    calibrate: bool = True
    jitter: Positive = 1e-8
    seed: Seed = 0

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.gp_links import sparse_gp_links  # noqa: PLC0415 - config stays light

        settings = self.model_dump(exclude={"stage", "of", "target", "kernel"})
        targets = (self.target,) if isinstance(self.target, str) else self.target
        return sparse_gp_links(name, self.of, kernel=self.kernel, targets=targets, **settings)


class GPPredictStep(Step):
    """Means and variances of rows, by the model of a `sparse_gp` step."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "gp_predictions"

    stage: Literal["gp_predict"]
    model: Name

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "model": self.model}

    def kinds(self) -> Mapping[str, str]:
        return {"of": self.takes, "model": "sparse_gp"}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.gp_links import predict_links  # noqa: PLC0415 - config stays light

        return predict_links(name, self.of, self.model)
