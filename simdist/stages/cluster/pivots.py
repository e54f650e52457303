"""cluster_qr: clusters from the pivots of a QR factorisation, without random starts. Pure.

    rows X [n, k] ── k pivots, one row a step: the row furthest from the span of those before ──>
    P [k, k] ── polar factor of P^T ──> rotation R [k, k] ── argmax |x R| ──> cluster of row x

In the basis R the rows of a cluster point along one axis. The label of a row does not depend on its
length; which rows become pivots does.

Source: Damle, Minden, Ying, Simple, direct and efficient multi-way spectral clustering (Information
and Inference 8, 2019), Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simdist.errors import InputError
from simdist.types import Float64, Ids

__all__ = ["Pivot", "chosen", "farthest", "rotated", "rotation"]

SLICE = 8192
CLOSE = 1.0 - 1e-9  # lengths that near each other are equal, so that rounding chooses no pivot


@dataclass(frozen=True, slots=True)
class Pivot:
    """A row that a run offers: the squared length of what the earlier pivots leave of it, where it
    lies in the run, and the row itself, [k]."""

    length: float
    row: int
    point: Float64


def farthest(X: Float64, before: Float64) -> Pivot | None:
    """The run's row furthest from the span of the rows `before` [j, k]; the first of equals.

    X: [m, k] float64. None where the run is empty.
    """
    if not len(X):
        return None
    basis = np.linalg.qr(before.T)[0] if len(before) else np.empty((X.shape[1], 0))
    lengths = np.empty(len(X))
    for first in range(0, len(X), SLICE):
        rest = X[first : first + SLICE]
        for _ in range(2):  # once more: what is left may be as small as the rounding of the first
            rest = rest - (rest @ basis) @ basis.T
        lengths[first : first + SLICE] = np.einsum("mk,mk->m", rest, rest)
    row = int(np.argmax(lengths >= CLOSE * lengths.max()))
    return Pivot(float(lengths[row]), row, np.array(X[row]))


def chosen(offers: list[Pivot | None]) -> int:
    """Which run's offer is the pivot: the longest, the first of equals."""
    lengths = np.array([-1.0 if offer is None else offer.length for offer in offers])
    return int(np.argmax(lengths >= CLOSE * lengths.max()))


def rotation(pivots: Float64) -> Float64:
    """The polar factor of P^T, [k, k], that turns pivots [k, k] towards the axes.

    Raises InputError where the pivots are linearly dependent: the rows have fewer directions.
    """
    left, sizes, right = np.linalg.svd(pivots.T)
    found = int(np.sum(sizes > 1e-10 * sizes[0])) if sizes[0] > 0 else 0
    if found < len(pivots):
        raise InputError(
            f"the rows point in {found} directions only; {len(pivots)} clusters need as many. Ask"
            f" for clusters={max(found, 1)}."
        )
    return np.asarray(left @ right)


def rotated(X: Float64, turn: Float64) -> tuple[Ids, Float64]:
    """Cluster of every row, the lowest of equals, and how far the row reaches along its axis."""
    labels, reach = np.empty(len(X), np.int64), np.empty(len(X))
    for first in range(0, len(X), SLICE):
        along = np.abs(X[first : first + SLICE] @ turn)
        best = along.argmax(axis=1)
        labels[first : first + SLICE] = best
        reach[first : first + SLICE] = along[np.arange(len(best)), best]
    return labels, reach
