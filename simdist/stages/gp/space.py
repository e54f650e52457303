"""What is fitted, as one vector for an optimiser, and where a fit stands.

    u = [kernel theta | log(noise - floor), one an output | Z in units of `unit`]

The gradient by one inducing point's coordinates is about 1/m of that by a lengthscale: with a unit
of sqrt(m) spreads a column, curvatures are alike, and L-BFGS needs fewer evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simdist.grams import KernelGradients
from simdist.measures.kernels import Kernel
from simdist.stages.gp.bound import Bound
from simdist.types import Float64

__all__ = ["Space", "Trial"]

FURTHEST = 230.0  # of a logarithm: 1e100, whose square is still a number


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """One point: a kernel, noise variances [t] of standardised targets, inducing points [m, d]."""

    kernel: Kernel
    noise: Float64
    Z: Float64


@dataclass(frozen=True, eq=False, slots=True)
class Space:
    """Which points there are. kernel: its structure. Z: [m, d] where inducing points stay, if they
    are not `moved`. unit: [d]. floor: of noise."""

    kernel: Kernel
    Z: Float64
    unit: Float64
    floor: float
    moved: bool

    @classmethod
    def around(cls, trial: Trial, spread: Float64, *, floor: float, moved: bool) -> Space:
        """The space in which a fit begins at `trial`. spread: [d] of the rows' columns."""
        unit = spread * np.sqrt(len(trial.Z))
        return cls(trial.kernel, trial.Z, unit, floor, moved)

    def vector(self, trial: Trial) -> Float64:
        """[q] a trial of this space."""
        log_noise = np.log(np.maximum(trial.noise - self.floor, 1e-3 * self.floor))
        parts = [trial.kernel.theta, log_noise]
        if self.moved:
            parts.append((trial.Z / self.unit).ravel())
        return np.concatenate(parts)

    def trial(self, u: Float64, t: int) -> Trial:
        """The point that u [q] names, with t outputs."""
        p = len(self.kernel.theta)
        logs = np.clip(u[: p + t], -FURTHEST, FURTHEST)
        noise = self.floor + np.exp(logs[p:])
        Z = u[p + t :].reshape(self.Z.shape) * self.unit if self.moved else self.Z
        return Trial(self.kernel.with_theta(logs[:p]), noise, Z)

    def slope(
        self, trial: Trial, bound: Bound, gradients: KernelGradients, n: int
    ) -> tuple[float, Float64]:
        """-F / (n t), which is minimised, and its gradient by u."""
        share = -1.0 / (n * len(trial.noise))
        parts = [gradients.theta, bound.noise * (trial.noise - self.floor)]
        if self.moved:
            assert gradients.Z is not None  # asked for, because Z is moved
            parts.append((gradients.Z * self.unit).ravel())
        return share * bound.value, share * np.concatenate(parts)
