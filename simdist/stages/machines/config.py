"""What is asked of a kernel machine."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from simdist.errors import ConfigError
from simdist.solvers.hinge import Loss
from simdist.types import Json, ObjectRef

__all__ = ["Choice", "PcaConfig", "RidgeConfig", "Solver", "SvmConfig"]

Choice: TypeAlias = Literal["leave_one_out", "held_out"]
Solver: TypeAlias = Literal["auto", "direct", "cg"]

DIRECT_CENTERS = (
    8192  # up to which P is made: 512 MiB of it, and a Cholesky factor in half a minute
)


@dataclass(frozen=True, slots=True)
class Centers:
    """Which rows stand for all. count: at most so many, drawn by `seed`; all rows where there are
    no more. given: [m, d] points of one's own, in the store; count is then their number."""

    count: int
    seed: int = 0
    given: ObjectRef | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"centers={self.count}: expected at least 1 row to compare with")

    def to_json(self) -> Json:
        given = None if self.given is None else self.given.sha256
        return {"count": self.count, "seed": self.seed, "given": given}


@dataclass(frozen=True, slots=True)
class RidgeConfig:
    """kernel: its spec; None: an RBF as wide as the centres lie apart. targets: kept columns.

    alphas: penalties, at least one. choice: how one of several is chosen. held_out: share of rows
    that choose it. weights: a kept column, or None. intercept: whether a constant is fitted.
    solver: see `taken`. tolerance, max_steps: of conjugate gradients.
    """

    kernel: Json
    targets: tuple[str, ...]
    centers: Centers
    alphas: tuple[float, ...] = (1.0,)
    choice: Choice = "leave_one_out"
    held_out: float = 0.2
    weights: str | None = None
    intercept: bool = False
    solver: Solver = "auto"
    tolerance: float = 1e-5
    max_steps: int = 100

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConfigError("targets is empty: name a kept column of the vectors to be learned")
        if not self.alphas or not all(0.0 <= a < math.inf for a in self.alphas):
            raise ConfigError(f"alphas={self.alphas}: expected penalties of at least 0, at least 1")
        if self.choice not in ("leave_one_out", "held_out"):
            raise ConfigError(
                f"choice={self.choice!r}: expected 'leave_one_out' or 'held_out', by which one of"
                " several alphas is chosen"
            )
        if not 0.0 < self.held_out < 1.0:
            raise ConfigError(f"held_out={self.held_out}: expected a share between 0 and 1")
        if self.solver not in ("auto", "direct", "cg"):
            raise ConfigError(f"solver={self.solver!r}: expected 'auto', 'direct' or 'cg'")
        if not 0.0 < self.tolerance < 1.0 or self.max_steps < 1:
            raise ConfigError(
                f"tolerance={self.tolerance}, max_steps={self.max_steps}: expected a residual"
                " between 0 and 1, and at least 1 step"
            )
        if self.taken == "cg" and len(self.alphas) > 1 and self.choice == "leave_one_out":
            raise ConfigError(
                f"conjugate gradients (centers={self.centers.count}, solver={self.solver!r}) cannot"
                " leave rows out one by one; choose one of several alphas with choice='held_out'"
            )

    @property
    def seed(self) -> int:
        return self.centers.seed

    @property
    def taken(self) -> Literal["direct", "cg"]:
        """What "auto" stands for: a matrix of all products up to 8192 centres, then none."""
        if self.solver != "auto":
            return self.solver
        return "direct" if self.centers.count <= DIRECT_CENTERS else "cg"

    @property
    def chooses(self) -> bool:
        return len(self.alphas) > 1

    def to_json(self) -> Json:
        return {**asdict(self), "centers": self.centers.to_json()}


@dataclass(frozen=True, slots=True)
class PcaConfig:
    """kernel: as for ridge. components: None for all that have a variance."""

    kernel: Json
    centers: Centers
    components: int | None = None

    def __post_init__(self) -> None:
        if self.components is not None and self.components < 1:
            raise ConfigError(f"n_components={self.components}: expected at least 1, or None")

    @property
    def seed(self) -> int:
        return self.centers.seed

    def to_json(self) -> Json:
        return {**asdict(self), "centers": self.centers.to_json()}


@dataclass(frozen=True, slots=True)
class SvmConfig:
    """kernel, centers, weights: as for ridge. target: a kept column of integers or strings.

    C: weight of the loss, as scikit-learn's. tolerance: of the gradient, of that at 0.
    """

    kernel: Json
    target: str
    centers: Centers
    C: float = 1.0
    loss: Loss = "squared_hinge"
    weights: str | None = None
    intercept: bool = True
    tolerance: float = 1e-6
    max_steps: int = 200

    def __post_init__(self) -> None:
        if not 0.0 < self.C < math.inf:
            raise ConfigError(f"C={self.C}: expected a positive number")
        if self.loss not in ("squared_hinge", "hinge"):
            raise ConfigError(f"loss={self.loss!r}: expected 'squared_hinge' or 'hinge'")
        if not 0.0 < self.tolerance < 1.0 or self.max_steps < 1:
            raise ConfigError(
                f"tol={self.tolerance}, max_iter={self.max_steps}: expected a gradient between 0"
                " and 1, and at least 1 look at the rows"
            )

    @property
    def seed(self) -> int:
        return self.centers.seed

    def to_json(self) -> Json:
        return {**asdict(self), "centers": self.centers.to_json()}
