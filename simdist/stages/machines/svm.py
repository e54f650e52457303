"""Support vector machines on the features of centres: the work, on arrays.

    1/2 |w|^2 + C sum_i c_i loss(y_i (w . a_i + b))      one against the rest, a column each

w . a(x) = f(x) in the space of the kernel that the centres span: where every row is a centre, this
is the kernel machine itself, solved in the primal (Chapelle 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simdist.errors import InputError
from simdist.grams import Whitening
from simdist.solvers.hinge import HingeState, HingeSums, hinge_start, hinge_sums, minimise
from simdist.stages.machines.centers import Chosen
from simdist.stages.machines.columns import Class, signs_of
from simdist.stages.machines.config import SvmConfig
from simdist.stages.machines.machine import Machine, unwhitened
from simdist.types import Array, Float64, Ids, Json

__all__ = [
    "HELD_NBYTES",
    "Labelled",
    "SvmFit",
    "features_nbytes",
    "fit_svm",
    "groups_of",
    "looked_at",
    "refuse_classes",
    "solved_in_one",
    "svm_machine",
    "svm_metrics",
]

HELD_NBYTES = 512 << 20  # of features: up to here one task holds them all, rule of n and m
GROUP_NBYTES = 96 << 20  # of curvature that one task adds up
BLOCK_NBYTES = 16 << 20


class Labelled(NamedTuple):
    """X: [r, d]. places: [r] of their classes. weights: [r] or None for 1 each."""

    X: Array
    places: Ids
    weights: Array | None

    def part(self, rows: slice) -> Labelled:
        """Some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return Labelled(self.X[rows], self.places[rows], weights)


@dataclass(frozen=True, eq=False, slots=True)
class SvmFit:
    """machine: rows to decision values, one column (two classes) or one for each. metrics: what a
    manifest says."""

    machine: Machine
    metrics: dict[str, Json]


def columns_of(classes: int) -> int:
    """Problems to solve: one of two classes, else one for each."""
    return classes if classes > 2 else 1


def features_nbytes(rows: int, m: int) -> int:
    """Of the features of all rows."""
    return 8 * rows * (m + 1)


def groups_of(classes: int, m: int) -> list[tuple[int, int]]:
    """Columns that one task works on, so that their curvature fits."""
    count = columns_of(classes)
    size = max(1, GROUP_NBYTES // (8 * (m + 1) ** 2))
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def refuse_classes(classes: list[Class]) -> None:
    """InputError where there is nothing to tell apart."""
    if len(classes) < 2:
        raise InputError(
            f"the target has 1 class ({classes[0]!r}): a classifier needs at least 2 classes. Look"
            " at the column, or at the rows that were left out."
            if classes
            else "no row has a class and a weight above 0: there is nothing to learn from"
        )


def features(whitening: Whitening, X: Array, *, intercept: bool) -> Float64:
    """[r, m], or [r, m + 1] with a column of ones."""
    A = whitening.columns(X).T
    return np.column_stack([A, np.ones(len(A))]) if intercept else A


def blocks(
    whitening: Whitening, rows: Labelled, columns: slice, classes: int, config: SvmConfig
) -> Iterator[tuple[Float64, Float64, Float64]]:
    """Features, signs and weights of some rows, block by block."""
    step = max(256, BLOCK_NBYTES // (8 * whitening.m))
    for first in range(0, len(rows.X), step):
        X, places, weights = rows.part(slice(first, first + step))
        c = np.full(len(X), config.C) if weights is None else config.C * weights
        yield (
            features(whitening, X, intercept=config.intercept),
            signs_of(places, classes)[:, columns],
            c,
        )


def looked_at(
    whitening: Whitening,
    rows: Labelled,
    state: HingeState,
    columns: slice,
    classes: int,
    config: SvmConfig,
    *,
    check: Callable[[], None] | None = None,
) -> HingeSums:
    """One look at some rows, for the classes of `state`, which are `columns` of all."""
    M, K = state.W.shape
    total = None
    for A, signs, weights in blocks(whitening, rows, columns, classes, config):
        if check is not None:
            check()
        part = hinge_sums(A, signs, weights, state, config.loss)
        total = part if total is None else total + part
    if total is not None:
        return total
    nothing = (np.zeros((0, M)), np.zeros((0, K)), np.zeros(0))
    return hinge_sums(*nothing, state, config.loss)


def solved_in_one(
    whitening: Whitening,
    rows: Labelled,
    classes: int,
    config: SvmConfig,
    check: Callable[[], None] | None = None,
) -> HingeState:
    """All classes, where the features of all rows fit in memory."""

    def all_rows() -> Iterator[tuple[Float64, Float64, Float64]]:
        return blocks(whitening, rows, slice(None), classes, config)

    M = whitening.m + config.intercept
    return minimise(
        all_rows,
        hinge_start(M, columns_of(classes)),
        config.loss,
        intercept=config.intercept,
        tolerance=config.tolerance,
        max_looks=config.max_steps,
        held=features_nbytes(len(rows.X), whitening.m) <= HELD_NBYTES,
        check=check or (lambda: None),
    )


def svm_machine(whitening: Whitening, W: Float64, *, intercept: bool) -> Machine:
    """The machine of W [M, K]."""
    v, offsets = (W[:-1], W[-1].copy()) if intercept else (W, np.zeros(W.shape[1]))
    return Machine(whitening.kernel, whitening.Z, unwhitened(whitening, v), offsets)


def svm_metrics(
    config: SvmConfig,
    chosen: dict[str, Json],
    classes: list[Class],
    state: HingeState,
    rows: int,
) -> dict[str, Json]:
    """What a manifest says of a fit."""
    return {
        **chosen,
        "classes": classes,
        "target": config.target,
        "C": config.C,
        "loss": config.loss,
        "objective": state.objective.tolist(),
        "gradient": float(state.gradient.max(initial=0.0)),
        "state": "converged" if bool(state.settled.all()) else "unconverged",
        "trained_rows": rows,
        "looks": state.looks,
    }


def fit_svm(
    rows: Labelled,
    classes: list[Class],
    chosen: Chosen,
    config: SvmConfig,
    *,
    check: Callable[[], None] | None = None,
) -> SvmFit:
    """A fit of arrays. places of rows count in `classes`."""
    refuse_classes(classes)
    state = solved_in_one(chosen.whitening, rows, len(classes), config, check)
    machine = svm_machine(chosen.whitening, state.W, intercept=config.intercept)
    return SvmFit(machine, svm_metrics(config, chosen.facts(), classes, state, len(rows.X)))
