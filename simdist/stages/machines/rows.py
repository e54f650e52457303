"""Rows of a span with what is learned from them: of arrays, and of a stored dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simdist.errors import InputError
from simdist.panels import rows_between
from simdist.runner.plan import Task
from simdist.stages.machines.columns import held_rows, numbers_between, weights_between
from simdist.stages.machines.config import RidgeConfig
from simdist.types import Array, Float64

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["Rows", "refuse_no_weight", "rows_of", "rows_taken"]


class Rows(NamedTuple):
    """X: [r, d]. Y: [r, t] float64. weights: [r] above 0, or None for 1 each."""

    X: Array
    Y: Float64
    weights: Array | None

    @property
    def weight(self) -> float:
        """Sum of the weights."""
        return float(len(self.Y)) if self.weights is None else float(self.weights.sum())


def rows_of(rows: Rows, first: int, config: RidgeConfig, *, held: bool | None) -> Rows:
    """Those of some rows, from row `first` on, that take part: trained on (held=False), held out
    (True), or all (None). A row of weight 0 takes no part; where none is chosen by rows held out,
    all are trained on."""
    X, Y, weights = rows
    part = None
    if config.chooses and config.choice == "held_out" and held is not None:
        part = held_rows(first, first + len(Y), config.held_out, config.seed) == held
    if weights is not None and not weights.all():
        part = weights > 0 if part is None else part & (weights > 0)
    if part is None:
        return rows
    return Rows(X[part], Y[part], None if weights is None else weights[part])


def rows_taken(context: Context, task: Task, *, held: bool | None) -> Rows:
    """As `rows_of`, of the span that a task names, read where it lies."""
    vectors, config = context.inputs["vectors"], context.config
    first, last = task.args["first"], task.args["last"]
    rows = Rows(
        rows_between(vectors, "vectors", first, last),
        numbers_between(vectors, config.targets, first, last),
        weights_between(vectors, config.weights, first, last),
    )
    return rows_of(rows, first, config, held=held)


def refuse_no_weight(weight: float) -> None:
    """InputError where nothing is left to learn from."""
    if not weight > 0 or not np.isfinite(weight):
        raise InputError(
            "no row has a weight above 0, or all of them are held out: there is nothing to learn"
            " from. Look at the weights, or lower held_out."
        )
