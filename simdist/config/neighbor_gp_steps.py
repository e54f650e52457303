"""Steps that fit Gaussian processes from neighbours and Dirichlet classifiers, as a flow writes
them, and predict with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from simdist.config.fields import Count, Fraction, Name, Positive, Seed, Text
from simdist.config.steps import Step
from simdist.errors import ConfigError

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = ["DirichletGPStep", "DirichletPredictStep", "NeighborGPStep", "NeighborPredictStep"]

Method = Literal["approximate", "exact"]


def _kernel(spec: str | dict[str, Any]) -> str | dict[str, Any]:
    """A kernel that can be resolved, with pydantic's kind of error where it cannot."""
    from simdist.measures.kernels import resolve  # noqa: PLC0415 - config stays light

    try:
        resolve(spec)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return spec


KernelSpec = Annotated[Text | dict[str, Any], AfterValidator(_kernel)]
Least = Annotated[int, Field(strict=True, ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class NeighborGPStep(Step):
    """Gaussian process regression from nearest neighbours. `target`: a column that the vectors
    keep."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "neighbor_gp"

    stage: Literal["neighbor_gp"]
    target: Text
    kernel: KernelSpec = "Matern52(ard=True)"
    neighbors: Count = 200
    noise: Positive = 0.1
    subset: Count = 1500
    subsets: Count = 1
    iterations: Least = 30
    calibration: Count = 2000
    method: Method = "exact"
    recall: Fraction = 0.95
    seed: Seed = 0

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.measures.kernels import resolve  # noqa: PLC0415 - config stays light
        from simdist.models.neighbor_links import neighbor_gp_links  # noqa: PLC0415
        from simdist.stages.neighbor_gp import ParametersConfig, Targets  # noqa: PLC0415

        config = ParametersConfig(
            Targets(column=self.target),
            resolve(self.kernel).spec(),
            self.noise,
            self.subset,
            self.subsets,
            self.iterations,
            self.seed,
        )
        return neighbor_gp_links(
            name,
            self.of,
            config,
            neighbors=self.neighbors,
            calibration=self.calibration,
            method=self.method,
            recall=self.recall,
        )


class NeighborPredictStep(Step):
    """Means and variances of rows, by the model of a `neighbor_gp` step. neighbors, method, recall:
    as that step has them."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "gp_predictions"

    stage: Literal["neighbor_gp_predict"]
    model: Name
    neighbors: Count = 200
    method: Method = "exact"
    recall: Fraction = 0.95
    seed: Seed = 0

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "model": self.model}

    def kinds(self) -> Mapping[str, str]:
        return {"of": self.takes, "model": "neighbor_gp"}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.neighbor_links import neighbor_predict_links  # noqa: PLC0415

        return neighbor_predict_links(
            name,
            self.of,
            self.model,
            neighbors=self.neighbors,
            method=self.method,
            recall=self.recall,
            seed=self.seed,
        )


class DirichletGPStep(Step):
    """Gaussian process classification. `label`: a column that the vectors keep: integers, booleans
    or strings."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "dirichlet_gp"

    stage: Literal["dirichlet_gp"]
    label: Text
    kernel: KernelSpec = "RBF()"
    inducing: Count = 1024
    subset: Count = 2000
    iterations: Least = 15
    held_out: Share = 0.1
    seed: Seed = 0

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.measures.kernels import resolve  # noqa: PLC0415 - config stays light
        from simdist.models.dirichlet_links import dirichlet_links  # noqa: PLC0415
        from simdist.stages.dirichlet import DirichletConfig, Labels  # noqa: PLC0415

        config = DirichletConfig(
            Labels(column=self.label),
            resolve(self.kernel).spec(),
            self.inducing,
            self.subset,
            self.iterations,
            self.held_out,
            self.seed,
        )
        return dirichlet_links(name, self.of, config)


class DirichletPredictStep(Step):
    """Class probabilities of rows, by the model of a `dirichlet_gp` step."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "class_probabilities"

    stage: Literal["dirichlet_gp_predict"]
    model: Name

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "model": self.model}

    def kinds(self) -> Mapping[str, str]:
        return {"of": self.takes, "model": "dirichlet_gp"}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.dirichlet_links import dirichlet_predict_links  # noqa: PLC0415

        return dirichlet_predict_links(name, self.of, self.model)
