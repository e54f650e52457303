"""The numbers of a block: `Measure.block`, tile by tile, and what a set against itself promises.

Of one set against itself the diagonal is the measure's own (exactly 1 for cosine, 0 for a
distance), and a symmetric measure's matrix is symmetric bit for bit: what lies below the diagonal
is copied from above it. A GEMM promises neither. Every other value is as precise as
`Measure.block`, whose module says how precise that is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simdist.errors import InputError
from simdist.measures import Measure, Prepared
from simdist.stages.tiles.grid import TILE
from simdist.tiles.shape import cuts
from simdist.types import Array, Float32

__all__ = ["between", "stored", "within"]

Check = Callable[[], None]


def between(measure: Measure, X: Prepared, Y: Prepared, check: Check) -> Float32:
    """Values of all pairs of two blocks. X: [n, d], Y: [m, d] -> [n, m]."""
    values = np.empty((len(X), len(Y)), np.float32)
    for i in cuts(0, len(X), TILE):
        for j in cuts(0, len(Y), TILE):
            check()
            values[i, j] = measure.block(X.take(i), Y.take(j))
    return values


def within(measure: Measure, X: Prepared, check: Check) -> Float32:
    """Values of a block against itself, each pair once where the measure is symmetric."""
    if measure.traits.symmetric:
        values = np.empty((len(X), len(X)), np.float32)
        for i in cuts(0, len(X), TILE):
            for j in cuts(i.start, len(X), TILE):
                check()
                values[i, j] = measure.block(X.take(i), X.take(j))
                if i == j:
                    _mirror(values[i, i])
                else:
                    values[j, i] = values[i, j].T
    else:
        values = between(measure, X, X, check)
    np.fill_diagonal(values, measure.diag(X))
    return values


def _mirror(tile: Float32) -> None:
    """Make what lies below the diagonal equal to what lies above it."""
    below = np.tri(len(tile), k=-1, dtype=np.bool_)
    tile[below] = tile.T[below]


def stored(values: Float32, dtype: str, *, corner: tuple[int, int], measure: str) -> Array:
    """Values as they are stored; InputError where one of them does not fit into `dtype`.

    corner: row and column of the first value, for the error. float16 keeps 11 bits of a value (it
    is off by 5e-4 of itself at most) down to 6e-5, and goes in steps of 6e-8 below that.
    """
    with np.errstate(over="ignore", under="ignore"):
        cast = values.astype(dtype, copy=False)
    if dtype == "float16":
        lost = np.isinf(cast)
        if lost.any() and (lost := lost & np.isfinite(values)).any():
            i, j = (int(place) for place in np.argwhere(lost)[0])
            raise InputError(
                f"the {measure} of row {corner[0] + i} and column {corner[1] + j} is"
                f" {values[i, j]:.6g}, and float16 ends at 65504: ask for dtype='float32', or scale"
                " the vectors down."
            )
    return cast
