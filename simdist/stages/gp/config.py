"""What is asked of a sparse Gaussian process, and the sizes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from simdist.errors import ConfigError
from simdist.solvers.cholesky import JITTER
from simdist.types import Json, ObjectRef

if TYPE_CHECKING:
    from simdist.measures.kernels import Kernel

__all__ = ["Select", "SparseGPConfig", "Start"]

Select: TypeAlias = Literal["greedy", "kmeans", "given"]
Start: TypeAlias = Literal["data", "kernel"]

NOISE_START = 0.1  # of a target's variance
SAMPLE_NBYTES = 128 << 20  # of the factor that choosing inducing points holds
MOST_SAMPLE = 50_000


@dataclass(frozen=True, slots=True)
class SparseGPConfig:
    """kernel: with its starting hyper-parameters, for rows of d columns, without White parts.

    targets: columns of y. noise_column: relative noise variances of rows, or None.
    inducing: how many; `given` holds them, [inducing, d], where select is "given".
    select: how inducing points are chosen from a sample: "greedy" by conditional variance,
        "kmeans" centres, "given". optimize_inducing: whether they are moved by gradient.
    optimize: whether hyper-parameters are fitted; else the kernel's and `noise` stay.
    start: lengthscales begin in units of the columns' spread ("data") or as they are ("kernel").
    noise: variance to begin with, and floor below which it never falls, both as shares of each
        target's variance.
    held_out: share of the rows that are kept for the report.
    evaluations: of the bound and its gradient on all rows, at most; tolerance: relative gain of
        three steps below which the fit ends.
    mini_rows, mini_evaluations: the fit on a sample that goes before; 0: none.
    reselections: how often inducing points that are not moved are chosen anew with the
        hyper-parameters found.
    calibrate: whether variances of a fitted model are multiplied by the number that makes its
        squared leave-one-out errors agree with them.
    jitter: relative to the mean of K_uu's diagonal.
    """

    kernel: Kernel
    targets: tuple[str, ...]
    inducing: int = 512
    select: Select = "greedy"
    given: ObjectRef | None = None
    noise_column: str | None = None
    optimize: bool = True
    optimize_inducing: bool = True
    start: Start = "data"
    noise: float = NOISE_START
    noise_floor: float = 1e-6
    held_out: float = 0.1
    evaluations: int = 128
    tolerance: float = 1e-5
    mini_rows: int = 4096
    mini_evaluations: int = 30
    reselections: int = 1
    calibrate: bool = True
    jitter: float = JITTER
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConfigError("targets is empty: name at least one column")
        if self.select not in ("greedy", "kmeans", "given"):
            raise ConfigError(f"select={self.select!r}: expected 'greedy', 'kmeans' or 'given'")
        if self.start not in ("data", "kernel"):
            raise ConfigError(f"start={self.start!r}: expected 'data' or 'kernel'")
        for name, low in (("inducing", 1), ("evaluations", 1), ("mini_rows", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least {low}")
        for name in ("mini_evaluations", "reselections", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least 0")
        if not 0.0 <= self.held_out <= 0.9:
            raise ConfigError(f"held_out={self.held_out}: expected a share from 0 to 0.9")
        if not 0.0 < self.noise_floor < 1.0:
            raise ConfigError(
                f"noise_floor={self.noise_floor}: expected a share of the target's variance"
                " between 0 and 1; 1e-6 is usual, without one no Cholesky factor is safe"
            )
        if not self.noise_floor <= self.noise < 1e6:
            raise ConfigError(
                f"noise={self.noise}: expected a share of the target's variance, at least"
                f" noise_floor={self.noise_floor:g}"
            )
        if not 0.0 < self.jitter <= 1e-2 or not 0.0 < self.tolerance < 1.0:
            raise ConfigError(
                f"jitter={self.jitter}, tolerance={self.tolerance}: expected a jitter from above 0"
                " to 1e-2 (1e-8 is usual) and a tolerance between 0 and 1"
            )

    def to_json(self) -> Json:
        found = {name: getattr(self, name) for name in self.__slots__}
        found["kernel"] = self.kernel.spec()
        found["targets"] = list(self.targets)
        found["given"] = None if self.given is None else self.given.sha256
        return found

    @property
    def outputs(self) -> int:
        return len(self.targets)

    def sample_rows(self, n: int) -> int:
        """Rows from which inducing points are chosen: at most 50,000, and as many as their factor
        in 128 MiB allows, but never fewer than twice the inducing points."""
        fits = SAMPLE_NBYTES // (8 * self.inducing)
        return min(n, max(min(MOST_SAMPLE, fits), 2 * self.inducing, self.mini_rows))
