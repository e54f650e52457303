"""From latent Gaussians to probabilities, and how far these can be trusted.

    p_c  is proportional to  exp(t f_c / sqrt(1 + kappa v_c))       f: means, v: variances

The softmax of a Gaussian has no closed form: its mean is taken as a softmax of means that shrink
where the variance is large (MacKay 1992, kappa = pi / 8), no sampling. t is the temperature of
Guo et al., On Calibration of Modern Neural Networks, 2017; both are chosen by the log loss of
held-out rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simdist.types import Float64, Ids, Json

__all__ = ["Sharpness", "classification_report", "log_loss", "probabilities", "sharpness_of"]

KAPPAS = (0.0, np.pi / 32, np.pi / 8, np.pi / 2)
BINS = 15  # of confidence, for the ECE
LEAST = 1e-15  # of a probability whose logarithm is taken


@dataclass(frozen=True, slots=True)
class Sharpness:
    """t: what means are multiplied with. kappa: how much variances shrink them."""

    t: float = 1.0
    kappa: float = np.pi / 8


def probabilities(mean: Float64, variance: Float64, sharpness: Sharpness) -> Float64:
    """[r, c], rows sum to 1. mean, variance: [r, c]."""
    logits = sharpness.t * mean / np.sqrt(1.0 + sharpness.kappa * variance)
    logits -= logits.max(axis=1, keepdims=True)
    p: Float64 = np.exp(logits, out=logits)
    p /= p.sum(axis=1, keepdims=True)
    return p


def log_loss(p: Float64, codes: Ids) -> float:
    """Mean -log p of the true classes, nats. codes: [r] columns of p."""
    own = p[np.arange(len(codes)), codes]
    return float(-np.mean(np.log(np.maximum(own, LEAST))))


def sharpness_of(
    mean: Float64, variance: Float64, codes: Ids, *, kappas: Sequence[float] = KAPPAS
) -> Sharpness:
    """The temperature and kappa of least log loss. codes: [r] true columns, at least one."""
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - only where something is computed

    best, least = Sharpness(), np.inf
    for kappa in kappas:

        def loss(log_t: float, kappa: float = kappa) -> float:
            return log_loss(probabilities(mean, variance, Sharpness(np.exp(log_t), kappa)), codes)

        found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded")
        if found.fun < least:
            best, least = Sharpness(float(np.exp(found.x)), float(kappa)), float(found.fun)
    return best


def classification_report(p: Float64, codes: Ids) -> dict[str, Json]:
    """Scores of held-out rows. rows; accuracy; log_loss, nats; ece: expected calibration error, the
    mean gap between confidence and accuracy in 15 bins of confidence."""
    best = p.argmax(axis=1)
    right, confidence = best == codes, p.max(axis=1)
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    gaps = np.bincount(bins, confidence - right, BINS)
    return {
        "rows": len(codes),
        "accuracy": float(np.mean(right)),
        "log_loss": log_loss(p, codes),
        "ece": float(np.abs(gaps).sum() / counts.sum()),
    }
