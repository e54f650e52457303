"""Sufficient statistics of a regression on m columns: K_mn K_nm, K_mn y and the traces.

One pass over the n x m matrix gives all an inducing-point Gaussian process (Titsias 2009), kernel
ridge regression or kernel PCA needs from the data; they are sums over rows, so shards add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from simdist.errors import ConfigError
from simdist.tiles.ids import as_ids, locate
from simdist.tiles.reducers import Reducer
from simdist.types import Array, Float32, Float64, Ids

__all__ = ["Gram", "GramState"]


class GramState(NamedTuple):
    """K_mm: [m, m] = K_mn K_nm. K_my: [m, t] = K_mn y. y_y: [t] sums of y squared.
    k_nn: [1] sum of the rows' own values k(x_i, x_i). seen: [1] rows. All float64."""

    K_mm: Float64
    K_my: Float64
    y_y: Float64
    k_nn: Float64
    seen: Float64


@dataclass(frozen=True, eq=False)
class Gram(Reducer[GramState]):
    """Sums over rows of products of a row's values, in float64 (Cholesky follows).

    inducing: m, the number of columns; every tile spans all of them, in one order.
    targets: [n] or [n, t] float, y of the rows.
    diagonal: [n] float, `measure.diag` of the rows; without it k_nn stays 0.
    ids: [n] global row ids of `targets` and `diagonal`; by default 0..n-1.
    """

    by_row: ClassVar[bool] = False
    whole_rows: ClassVar[bool] = True
    inducing: int
    targets: Array
    diagonal: Array | None = None
    ids: Ids | None = None

    def __post_init__(self) -> None:
        targets = np.asarray(self.targets, np.float64)
        targets = targets[:, None] if targets.ndim == 1 else targets
        if self.inducing < 1 or targets.ndim != 2:
            raise ConfigError(
                f"Gram: inducing={self.inducing}, targets of shape {np.shape(self.targets)}; "
                "give a positive number of columns and targets [rows] or [rows, outputs]"
            )
        if self.diagonal is not None and len(self.diagonal) != len(targets):
            raise ConfigError(
                f"Gram: {len(self.diagonal)} diagonal values for {len(targets)} targets; "
                "both need one per row"
            )
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "ids", as_ids(self.ids, len(targets), "Gram.ids"))

    def init(self, rows: Ids) -> GramState:
        m, t = self.inducing, self.targets.shape[1]
        return GramState(np.zeros((m, m)), np.zeros((m, t)), np.zeros(t), np.zeros(1), np.zeros(1))

    def update(self, state: GramState, tile: Float32, rows: Ids, columns: Ids) -> GramState:
        if tile.shape[1] != self.inducing:
            raise ConfigError(
                f"Gram: a tile of {tile.shape[1]} columns; every tile must span all "
                f"{self.inducing} inducing columns"
            )
        assert self.ids is not None  # set in __post_init__
        positions = locate(self.ids, rows, "Gram.targets")
        K_nm = np.asarray(tile, np.float64)
        y = self.targets[positions]
        k_nn = 0.0 if self.diagonal is None else np.sum(self.diagonal[positions], dtype=np.float64)
        return GramState(
            state.K_mm + K_nm.T @ K_nm,
            state.K_my + K_nm.T @ y,
            state.y_y + np.square(y).sum(axis=0),
            state.k_nn + k_nn,
            state.seen + len(rows),
        )

    def merge(self, a: GramState, b: GramState) -> GramState:
        return GramState(*(left + right for left, right in zip(a, b, strict=True)))

    def finalize(self, state: GramState) -> GramState:
        return state

    def nbytes(self, rows: int, columns: int) -> int:
        m, t = self.inducing, int(self.targets.shape[1])
        return 8 * (m * m + m * t + t + 2)

    def scratch_nbytes(self, rows: int, columns: int) -> int:
        # the tile in float64, and the product and the sum beside the old state
        m, t = self.inducing, int(self.targets.shape[1])
        return 8 * (rows * columns + 2 * m * m + 2 * m * t + rows * t)
