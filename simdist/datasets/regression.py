"""Rows with a number to predict, made by formula: the same for the same seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simdist.errors import ConfigError
from simdist.types import Float32, Float64

__all__ = ["Regression", "friedman"]

COLUMNS = 5  # that y depends on


class Regression(NamedTuple):
    """Rows [n, d], what is observed of them [n], and what it is without noise [n]."""

    rows: Float32
    y: Float64
    truth: Float64


def friedman(n: int, d: int = 10, *, seed: int = 0, noise: float = 1.0) -> Regression:
    """Friedman's first problem: five columns matter, the others do not.

        x ~ U[0, 1]^d,  truth = 10 sin(pi x0 x1) + 20 (x2 - 1/2)^2 + 10 x3 + 5 x4
        y = truth + noise * N(0, 1)

    The standard deviation of the truth is about 4.9. Raises ConfigError unless d >= 5.
    Source: Friedman, Multivariate adaptive regression splines, Annals of Statistics 1991.
    """
    if d < COLUMNS:
        raise ConfigError(f"friedman needs at least {COLUMNS} columns, got d={d}")
    rng = np.random.default_rng([seed, n, d])
    rows = rng.random((n, d), dtype=np.float32)
    x = rows[:, :COLUMNS].astype(np.float64)
    truth = 10.0 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20.0 * (x[:, 2] - 0.5) ** 2
    truth += 10.0 * x[:, 3] + 5.0 * x[:, 4]
    return Regression(rows, truth + noise * rng.standard_normal(n), truth)
