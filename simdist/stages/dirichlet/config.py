"""What is asked of a Dirichlet classifier."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from simdist.errors import ConfigError
from simdist.measures.kernels import Kernel, Scale, resolve
from simdist.types import Json, ObjectRef

__all__ = ["DirichletConfig", "Labels", "PlainConfig", "prepared_kernel"]


@dataclass(frozen=True, slots=True)
class Labels:
    """Where labels lie: in a kept column, or in an array [n] of codes of `classes`. One of them."""

    column: str | None = None
    array: ObjectRef | None = None
    classes: tuple[Json, ...] = ()

    def __post_init__(self) -> None:
        if (self.column is None) == (self.array is None):
            raise ConfigError("labels are a kept column or an array, one of them: give y")

    def to_json(self) -> Json:
        array = None if self.array is None else self.array.sha256
        return {"column": self.column, "array": array, "classes": list(self.classes)}


@dataclass(frozen=True, slots=True)
class DirichletConfig:
    """inducing: points m. subset: rows of which the kernel is learned, in so many iterations of
    L-BFGS; 0 takes it as given. held_out: share of the rows that choose softness, scale and
    temperature, at most 5,000. seed: draws all of these."""

    labels: Labels
    kernel: Json
    inducing: int = 1024
    subset: int = 2000
    iterations: int = 15
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.inducing < 1 or self.subset < 1:
            raise ConfigError(
                f"inducing={self.inducing}, subset={self.subset}: expected at least 1 of each"
            )
        if self.iterations < 0:
            raise ConfigError(f"iterations={self.iterations}: expected 0 (none) or more")
        if not 0.0 <= self.held_out < 1.0:
            raise ConfigError(f"held_out={self.held_out}: expected a share from 0 to below 1")

    def to_json(self) -> Json:
        return {**asdict(self), "labels": self.labels.to_json()}


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """Nothing to choose."""

    def to_json(self) -> Json:
        return {}


def prepared_kernel(spec: Json, d: int) -> Kernel:
    """The kernel to start with, for rows of d columns; one without a variance of its own gets one.

    Raises ConfigError for White noise: labels bring their own.
    """
    kernel = resolve(spec).for_dim(d)
    if kernel.noiseless() != kernel:
        raise ConfigError(
            f"{kernel} has White noise, and Dirichlet targets bring their own: leave it out"
        )
    if not isinstance(kernel, Scale) and not any("scale.variance" in n for n in kernel.names):
        kernel = Scale(kernel, 1.0)
    return kernel
