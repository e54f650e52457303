"""What is asked of a Gaussian process from neighbours."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from simdist.errors import ConfigError
from simdist.measures.kernels import Kernel, Scale, resolve
from simdist.stages.neighbor_gp.space import inverse_lengthscales
from simdist.stages.neighbor_gp.targets import Targets
from simdist.types import Json

__all__ = [
    "ModelConfig",
    "ParametersConfig",
    "PlainConfig",
    "PredictConfig",
    "SampleConfig",
    "prepared_kernel",
]


@dataclass(frozen=True, slots=True)
class ParametersConfig:
    """kernel, noise: where to start, or as they stay where iterations is 0; noise in units of the
    targets' variance. subset: rows of each of so many subsets. seed: draws them."""

    targets: Targets
    kernel: Json
    noise: float = 0.1
    subset: int = 1500
    subsets: int = 1
    iterations: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        if self.subset < 2 or self.subsets < 1:
            raise ConfigError(
                f"subset={self.subset}, subsets={self.subsets}: expected at least 2 rows in at"
                " least 1 subset; 1500 in 1 are usual"
            )
        if not 0.0 < self.noise < np.inf:
            raise ConfigError(
                f"noise={self.noise}: expected a positive variance, a share of that of y"
            )
        if self.iterations < 0:
            raise ConfigError(f"iterations={self.iterations}: expected 0 (none) or more")

    def to_json(self) -> Json:
        return {**asdict(self), "targets": self.targets.to_json()}


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """Nothing to choose."""

    def to_json(self) -> Json:
        return {}


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """rows: how many are drawn, all where there are no more. seed: draws them."""

    rows: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows < 2:
            raise ConfigError(f"calibration={self.rows}: expected at least 2 rows")

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """neighbors: k, of which every prediction is made. method, recall: how they are found."""

    neighbors: int
    method: str = "exact"
    recall: float | None = None

    def __post_init__(self) -> None:
        if self.neighbors < 1:
            raise ConfigError(f"neighbors={self.neighbors}: expected at least 1; 64 to 400 serve")

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PredictConfig:
    """neighbors: k of every prediction. exclude_self: rows are the training rows, and each is
    predicted without itself."""

    neighbors: int
    exclude_self: bool = False

    def to_json(self) -> Json:
        return asdict(self)


def prepared_kernel(spec: Json, noise: float, d: int) -> tuple[Kernel, float]:
    """The kernel to start with, for rows of d columns and without White, whose variance is the
    noise then; a kernel without a variance of its own gets one.

    Raises ConfigError for a kernel that has no neighbours, or is nothing but noise.
    """
    given = resolve(spec).for_dim(d)
    kernel = given.noiseless()
    if kernel is None:
        raise ConfigError(f"{given} is nothing but noise: add a kernel such as Matern52(ard=True)")
    if kernel != given:
        origin = np.zeros((1, d))
        noise = float(given.diagonal(origin)[0] - kernel.diagonal(origin)[0])
    inverse_lengthscales(kernel, d)  # refuses what has none
    if not isinstance(kernel, Scale) and not any("scale.variance" in n for n in kernel.names):
        kernel = Scale(kernel, 1.0)
    return kernel, noise
