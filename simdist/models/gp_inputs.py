"""What a Gaussian process is given in memory, checked: targets, inducing points, a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.models.machines import BadRow, checked_numbers

if TYPE_CHECKING:
    from simdist.types import Float64

__all__ = ["given_points", "refuse_not_finite", "seed_of", "targets_of"]


def targets_of(y: Any, rows: int) -> Float64:
    """[n, t] float64, finite; BadRow with the row of what is not."""
    Y = checked_numbers(y, "y", rows=rows)
    if Y.ndim not in (1, 2):
        raise BadRow(f"y has shape {Y.shape}: expected [n] or [n, t]")
    return Y[:, None] if Y.ndim == 1 else Y


def refuse_not_finite(y: Any) -> None:
    """BadRow with the row of a NaN or infinity; what is no array of numbers is checked later."""
    found = np.asarray(y)
    if found.dtype.kind in "biuf" and found.ndim in (1, 2) and found.size:
        checked_numbers(found, "y", rows=len(found))


def given_points(inducing: Any, dim: int) -> Float64 | None:
    """Inducing points [m, d] float64 where they are given; None where their number is."""
    if isinstance(inducing, int | np.integer) and not isinstance(inducing, bool):
        return None
    points = np.ascontiguousarray(inducing, np.float64)
    if points.ndim != 2 or not points.size or not np.isfinite(points).all():
        raise ConfigError(
            f"inducing has shape {np.shape(inducing)}: expected a number, or finite points [m, d]"
        )
    if points.shape[1] != dim:
        raise InputError(f"inducing points have {points.shape[1]} columns, the rows {dim}")
    return points


def seed_of(random_state: Any) -> int:
    """An integer of at least 0; ConfigError for anything else."""
    if isinstance(random_state, int | np.integer) and random_state >= 0:
        return int(random_state)
    raise ConfigError(f"random_state={random_state!r}: expected an integer of at least 0")
