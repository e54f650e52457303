"""How good predictions with variances are, and the factor that makes the variances right.

    z = (y - mean) / sqrt(variance)      calibration = mean z^2: times it, variances fit on average

Source of the recalibration: Allison et al., arXiv 2306.14731, section 4.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from simdist.types import Array, Float64, Json

__all__ = ["INTERVALS", "calibrated_report", "calibration_of", "report"]

INTERVALS = (0.50, 0.90, 0.95)
LEAST = 1e-12  # of a variance's own size: what a calibration may shrink it to


def calibration_of(y: Array, mean: Array, variance: Array) -> float:
    """Mean z^2 of held-out rows, at least 1e-12."""
    z2 = np.square(np.asarray(y) - mean) / variance
    return max(float(np.mean(z2)), LEAST)


def calibrated_report(y: Array, mean: Array, variance: Array) -> tuple[float, dict[str, Json]]:
    """The calibration by all rows, and scores in which each half of the rows has the calibration of
    the other half. Fewer than 4 rows have one calibration. y, mean, variance: [m]."""
    own = np.empty(len(y))
    halves = (slice(0, None, 2), slice(1, None, 2)) if len(y) >= 4 else (slice(None),) * 2
    for half, other in (halves, halves[::-1]):
        own[half] = calibration_of(y[other], mean[other], variance[other])
    return calibration_of(y, mean, variance), report(y, mean, own * variance)


def report(y: Array, mean: Float64, variance: Float64) -> dict[str, Json]:
    """Scores of held-out rows. y, mean: [m]; variance: [m] > 0 of y, noise included.

    rmse, in units of y. nlpd: mean -log p(y), nats. coverage: share of y within the central 50, 90
    and 95 % intervals. mean_z2: 1 where variances are right on average. r2: 1 - mse / variance of
    y; 0 where y does not vary.
    """
    gap = np.asarray(y, np.float64) - mean
    z2 = gap * gap / variance
    bounds = {share: NormalDist().inv_cdf(0.5 + share / 2) ** 2 for share in INTERVALS}
    spread, mse = float(np.var(y)), float(np.mean(gap * gap))
    return {
        "rows": len(gap),
        "rmse": mse**0.5,
        "nlpd": float(np.mean(0.5 * np.log(2.0 * np.pi * variance) + 0.5 * z2)),
        "coverage": {
            f"{share:.0%}": float(np.mean(z2 <= bound)) for share, bound in bounds.items()
        },
        "mean_z2": float(np.mean(z2)),
        "r2": 1.0 - mse / spread if spread > 0 else 0.0,
    }
