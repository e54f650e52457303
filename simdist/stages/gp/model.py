"""A fitted model as arrays: what it predicts, and how it does on rows that it has not seen.

    a = L^-1 k(Z, x)      mean a^T alpha      latent variance k(x, x) - a^T a + |L_B^-1 a|^2

All in units of the targets: standardised values times `scale`, plus `mean`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from simdist.grams import GramStatistics, Whitening
from simdist.measures.kernels import Kernel
from simdist.solvers.cholesky import solve_lower
from simdist.stages.gp.bound import posterior
from simdist.stages.gp.space import Trial
from simdist.stages.gp.table import Part, Scale
from simdist.types import Array, Float64, Json

__all__ = ["COVERED", "Fitted", "Scores", "assess", "calibrated", "fitted"]

BLOCK_NBYTES = 16 << 20  # of whitened rows
LEAST_OWN = (
    1e-6  # of a row's weight in its own prediction that is not its own: g < 1 up to rounding
)
CALIBRATED = (1e-3, 1e3)  # beyond, squared errors tell of something else than scale

# Share of a normal distribution, and the deviation that it lies within.
COVERED = {
    "50": 0.6744897501960817,
    "90": 1.6448536269514722,
    "95": 1.959963984540054,
}


@dataclass(frozen=True, eq=False, slots=True)
class Fitted:
    """kernel, Z [m, d], L [m, m]: see `simdist.grams.Whitening`. alpha [m, t], factors [t, m, m]:
    see `Posterior`. noise [t]: variances of standardised targets. mean, scale [t]. jitter.
    calibration [t]: what all variances are multiplied by."""

    kernel: Kernel
    Z: Float64
    L: Float64
    alpha: Float64
    factors: Float64
    noise: Float64
    mean: Float64
    scale: Float64
    calibration: Float64
    jitter: float

    @property
    def outputs(self) -> int:
        return int(self.alpha.shape[1])

    @property
    def whitening(self) -> Whitening:
        return Whitening(self.kernel, self.Z, self.L, self.jitter)

    def means(self, X: Array, *, check: Callable[[], None] | None = None) -> Float64:
        """[r, t]. X: [r, d]."""
        out = np.empty((len(X), self.outputs))
        for rows in self.blocks(len(X)):
            if check is not None:
                check()
            # L^-T alpha would spare the solve, and lose digits where K_uu is near singular.
            out[rows] = self.whitening.columns(X[rows]).T @ self.alpha
        return out * self.scale + self.mean

    def moments(
        self, X: Array, *, check: Callable[[], None] | None = None
    ) -> tuple[Float64, Float64]:
        """Means and latent variances, [r, t] each; a variance is at least 0."""
        mean, latent = np.empty((len(X), self.outputs)), np.empty((len(X), self.outputs))
        for rows in self.blocks(len(X)):
            if check is not None:
                check()
            A = self.whitening.columns(X[rows])
            mean[rows] = A.T @ self.alpha
            left = self.kernel.diagonal(X[rows]) - np.einsum("ij,ij->j", A, A)
            np.maximum(left, 0.0, out=left)
            for j in range(self.outputs):
                C = solve_lower(self._factor(j), A)
                latent[rows, j] = left + np.einsum("ij,ij->j", C, C)
        return mean * self.scale + self.mean, latent * (self.calibration * self.scale**2)

    def covariance(self, X: Array, output: int) -> Float64:
        """[r, r] of one output's latent function, in its units squared."""
        A = self.whitening.columns(X)
        C = solve_lower(self._factor(output), A)
        K = np.asarray(self.kernel.matrix(X, X), np.float64)
        made = 0.5 * (K + K.T) - A.T @ A + C.T @ C
        return np.asarray(made * (self.calibration[output] * self.scale[output] ** 2))

    @property
    def noise_variance(self) -> Float64:
        """[t] that predictions have, in the targets' units squared, of a row with noise 1."""
        return np.asarray(self.calibration * self.noise * self.scale**2)

    def arrays(self) -> dict[str, Float64]:
        """For a store, beside `facts`."""
        names = ("Z", "L", "alpha", "factors", "noise", "mean", "scale", "calibration")
        return {name: getattr(self, name) for name in names}

    def facts(self) -> dict[str, Json]:
        return {"kernel": self.kernel.spec(), "jitter": self.jitter}

    @classmethod
    def of(cls, facts: Mapping[str, Json], arrays: Mapping[str, Array]) -> Fitted:
        """What `facts` and `arrays` gave."""
        from simdist.measures.kernels import resolve  # noqa: PLC0415

        own = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
        own["L"] = np.asfortranarray(own["L"])
        return cls(kernel=resolve(facts["kernel"]), jitter=facts["jitter"], **own)

    def _factor(self, output: int) -> Float64:
        return np.asfortranarray(self.factors[output])

    def blocks(self, n: int) -> list[slice]:
        """Rows that are whitened together."""
        size = max(256, BLOCK_NBYTES // (8 * len(self.Z)))
        return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def fitted(trial: Trial, whitening: Whitening, statistics: GramStatistics, scale: Scale) -> Fitted:
    """The model at a trial, from the sums of all rows."""
    found = posterior(statistics, trial.noise)
    return Fitted(
        kernel=trial.kernel,
        Z=whitening.Z,
        L=whitening.L,
        alpha=found.alpha,
        factors=found.factors,
        noise=trial.noise,
        mean=scale.mean,
        scale=scale.scale,
        calibration=np.ones(len(trial.noise)),
        jitter=whitening.jitter,
    )


def calibrated(model: Fitted, part: Part, *, check: Callable[[], None] | None = None) -> Fitted:
    """The model with variances that agree with its errors on rows that it has learned from, each
    left out in turn: their mean z^2 becomes 1. part: raw, some or all of those rows.

    The collapsed bound pays for what inducing points do not explain with noise, which is too wide
    for predictions. Left out of the Gaussian model with covariance A^T A + noise, a row has
    error e / (1 - g) and variance noise / (1 - g), g = |L_B^-1 a|^2 / noise.
    """
    n, sums = len(part.Y), np.zeros(model.outputs)
    for rows in model.blocks(n):
        if check is not None:
            check()
        A = model.whitening.columns(part.X[rows])
        error = (part.Y[rows] - model.mean) / model.scale - A.T @ model.alpha
        gap = model.kernel.diagonal(part.X[rows]) - np.einsum("ij,ij->j", A, A)
        np.maximum(gap, 0.0, out=gap)
        weights = 1.0 if part.weights is None else part.weights[rows]
        for j, noise in enumerate(model.noise):
            C = solve_lower(np.asfortranarray(model.factors[j]), A)
            own = np.maximum(1.0 - weights * np.einsum("ij,ij->j", C, C) / noise, LEAST_OWN)
            variance = noise / (weights * own) + gap
            sums[j] += float(np.sum((error[:, j] / own) ** 2 / variance))
    return replace(model, calibration=np.clip(sums / n, *CALIBRATED))


@dataclass(frozen=True, eq=False, slots=True)
class Scores:
    """Sums over rows that were held out, per output [t], in the targets' units. `+` adds.

    n: rows. squares: of errors. nlpd: negative log predictive density. z2: squared errors over
    predicted variances. within: [3, t] rows inside the central 50, 90 and 95 % intervals.
    y, yy: of targets (less `mean` of the model) and their squares, for R^2.
    """

    n: int
    squares: Float64
    nlpd: Float64
    z2: Float64
    within: Float64
    y: Float64
    yy: Float64

    def __add__(self, other: Scores) -> Scores:
        return Scores(
            self.n + other.n,
            self.squares + other.squares,
            self.nlpd + other.nlpd,
            self.z2 + other.z2,
            self.within + other.within,
            self.y + other.y,
            self.yy + other.yy,
        )

    def to_json(self) -> dict[str, Json]:
        return {name: np.asarray(getattr(self, name)).tolist() for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Scores:
        arrays = {name: np.array(value[name]) for name in cls.__slots__ if name != "n"}
        return cls(n=value["n"], **arrays)

    def report(self) -> dict[str, Json]:
        """RMSE, NLPD, coverage, mean z^2 and R^2; a list where there are several outputs."""
        n = self.n
        around = self.yy - self.y**2 / n
        r2 = 1.0 - self.squares / np.where(around > 0, around, np.nan)
        found = {
            "rmse": np.sqrt(self.squares / n),
            "nlpd": self.nlpd / n,
            "mean_z2": self.z2 / n,
            "r2": r2,
        }
        found |= {f"coverage_{name}": self.within[i] / n for i, name in enumerate(COVERED)}
        return {name: _told(values) for name, values in found.items()}


def assess(model: Fitted, part: Part, *, check: Callable[[], None] | None = None) -> Scores:
    """Scores of some rows. part: raw, with its weights."""
    mean, latent = model.moments(part.X, check=check)
    share = 1.0 if part.weights is None else 1.0 / part.weights[:, None]
    variance = latent + model.noise_variance * share
    error = part.Y - mean
    z2 = error**2 / variance
    y = part.Y - model.mean
    return Scores(
        n=len(error),
        squares=(error**2).sum(axis=0),
        nlpd=0.5 * (np.log(2.0 * np.pi * variance) + z2).sum(axis=0),
        z2=z2.sum(axis=0),
        within=np.stack([(z2 <= edge**2).sum(axis=0) for edge in COVERED.values()]).astype(float),
        y=y.sum(axis=0),
        yy=(y**2).sum(axis=0),
    )


def _told(values: Float64) -> Json:
    """A number where there is one output, else a list; None for what is not finite."""
    found = [float(value) if np.isfinite(value) else None for value in values]
    return found[0] if len(found) == 1 else found
