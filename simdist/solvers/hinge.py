"""Large-margin classifiers on explicit features, by Newton's method in the primal.

    minimise 1/2 |w|^2 + sum_i c_i loss(y_i (w . a_i + b))       one column (w, b) for each class

    squared_hinge   max(0, 1 - z)^2
    hinge           max(0, 1 - z), its corner rounded over a width h that shrinks in turn:
                    (1 - z)^2 / 2h where 0 < 1 - z <= h, and 1 - z - h/2 beyond

    HingeState(W, D) ──> `hinge_sums`, added over rows ──> `advance` ──> HingeState(W', D')
                 losses along D, gradient and curvature at W + D

A look at the rows serves twice: it says how far to go along D, and, because a whole step is nearly
always right, it has the gradient and the curvature of the point a whole step away. Only rows inside
the margin have curvature (Keerthi and DeCoste, JMLR 6, 2005). Sums add up over rows, so shards do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from simdist.solvers.cg import Precondition, conjugate_gradients
from simdist.types import Bools, Float64, Ids

__all__ = [
    "STEPS",
    "WIDTHS",
    "HingeState",
    "HingeSums",
    "Loss",
    "advance",
    "dense_direction",
    "hinge_start",
    "hinge_sums",
    "minimise",
    "product_direction",
    "shared_inverse",
]

Loss: TypeAlias = Literal["squared_hinge", "hinge"]
Rows: TypeAlias = tuple[Float64, Float64, Float64]  # A [r, M], signs [r, K], weights [r]

STEPS = (1.0, *(0.5**k for k in range(1, 13)), 0.0)  # along D, as losses are looked at
WIDTHS = tuple(0.25**k for k in range(7))  # of the rounded corner: 1 ... 2.4e-4
ARMIJO = 1e-4  # of the fall that the slope promises: a whole step with less is cut
FLAT = 1e-3  # of all weight: curvature that the intercept is given where fewer rows have any
FORCING = (
    1e-2  # of the gradient, and of its share of that at 0: residual of a step found by products
)
DENSE = 512  # features up to which curvature is made where rows are in memory: it is exact
DECREMENT = 1e-15  # of the objective: what a step may still gain, below which it is rounding


@dataclass(frozen=True, slots=True)
class HingeState:
    """Where every class stands. M: features, and one more for the intercept where there is one.

    W: [M, K] the point. D: [M, K] the step that is tried next, 0 where W itself is looked at.
    stage: [K] places in WIDTHS. zone: [K] likewise: behind `stage` where a corner has just shrunk,
    and its next look takes the same rows to be inside it as before, which as corners get small they
    are: then one step lands on the minimum (a rounded corner is followed, not found again).
    scale: [K] length of the gradient at 0. gradient: [K] its length, of scale. objective: [K], of
    the rounded hinge. settled: [K]. looks: passes so far.
    """

    W: Float64
    D: Float64
    stage: Float64
    zone: Float64
    scale: Float64
    gradient: Float64
    objective: Float64
    settled: Bools
    looks: int

    @property
    def widths(self) -> Float64:
        """[K] of the corners."""
        return np.asarray(WIDTHS)[self.stage.astype(np.int64)]

    @property
    def zones(self) -> Float64:
        """[K] how far inside the margin rows have curvature."""
        return np.asarray(WIDTHS)[self.zone.astype(np.int64)]


@dataclass(frozen=True, slots=True)
class HingeSums:
    """What rows say of some classes. losses: [steps, K] at W + step D, over STEPS. gradient: [M, K]
    and curvature: [K, M, M] of the loss at W + D; [1, M, M] where all classes share one; [0, M, M]
    where none was asked for. weight: sum of c."""

    losses: Float64
    gradient: Float64
    curvature: Float64
    weight: float

    def __add__(self, other: HingeSums) -> HingeSums:
        return HingeSums(
            self.losses + other.losses,
            self.gradient + other.gradient,
            self.curvature + other.curvature,
            self.weight + other.weight,
        )


def hinge_start(features: int, classes: int) -> HingeState:
    """From 0."""
    zeros, ones = np.zeros((features, classes)), np.ones(classes)
    return HingeState(
        zeros, zeros, 0 * ones, 0 * ones, 0 * ones, ones, 0 * ones, np.zeros(classes, np.bool_), 0
    )


def hinge_sums(
    A: Float64,
    signs: Float64,
    weights: Float64,
    state: HingeState,
    loss: Loss,
    *,
    curvature: bool = True,
) -> HingeSums:
    """Sums over some rows, for all classes of `state`.

    A: [r, M] features, a column of ones last where there is an intercept. signs: [r, K] of -1 and
    1. weights: [r], C times those of the rows. curvature: False leaves it out.
    Cost: 4 r M K flops, and M^2 for each class and row inside its margin.
    """
    at, along = signs * (A @ state.W), signs * (A @ state.D)
    widths, zones = state.widths, state.zones
    steps = [weights @ _loss(at + step * along, widths, loss) for step in STEPS]
    z = at + along
    gradient = A.T @ (weights[:, None] * signs * _slope(z, widths, zones, loss))
    M, K = state.W.shape
    if not curvature:
        found = np.zeros((0, M, M))
    elif state.looks == 0:  # at 0 every row is inside every margin
        found = _gram(A, weights * _curvature(z[:, :1], widths[:1], zones[:1], loss)[:, 0])[None]
    else:
        bent = weights[:, None] * _curvature(z, widths, zones, loss)
        found = np.stack([_gram(A, bent[:, k]) for k in range(K)])
    return HingeSums(np.stack(steps), gradient, found, float(weights.sum()))


Direction: TypeAlias = Callable[[Ids, Float64], Float64]  # classes [q], gradients [M, q] -> steps


def advance(
    state: HingeState,
    sums: HingeSums,
    loss: Loss,
    *,
    intercept: bool,
    tolerance: float,
    direction: Direction,
) -> HingeState:
    """Each class to its next point: as far along D as pays, then a Newton step from there.

    tolerance: length of the gradient, of that at 0, at which a class is settled.
    direction: the steps that solve (curvature + I) d = -gradient for some classes.
    """
    W, D = state.W.copy(), np.zeros_like(state.D)
    stage, zone, settled = state.stage.copy(), state.stage.copy(), state.settled.copy()
    scale, length = state.scale.copy(), state.gradient.copy()
    objective = state.objective.copy()
    penalised = np.ones(len(W))
    if intercept:
        penalised[-1] = 0.0
    last = len(WIDTHS) - 1 if loss == "hinge" else 0
    slopes, going = np.zeros_like(W), list[int]()
    for k in np.flatnonzero(~state.settled).tolist():
        d = state.D[:, k]
        totals = np.array(
            [
                0.5 * np.sum(penalised * np.square(state.W[:, k] + step * d)) + fell
                for step, fell in zip(STEPS, sums.losses[:, k], strict=True)
            ]
        )
        if d.any() and not _falls(totals):
            best = int(np.argmin(totals))
            W[:, k] += STEPS[best] * d
            objective[k] = totals[best]
            settled[k] = STEPS[best] == 0.0  # no step gains anything: this is rounding
            continue
        W[:, k] += d
        objective[k] = totals[0]
        slope = penalised * W[:, k] + sums.gradient[:, k]
        if state.looks == 0:
            scale[k] = np.linalg.norm(slope)
        length[k] = np.linalg.norm(slope) / scale[k] if scale[k] > 0 else 0.0
        if length[k] <= tolerance and state.zone[k] == state.stage[k]:
            _narrow(k, stage, settled, last)
        else:
            going.append(k)
            slopes[:, k] = slope
    if going:
        steps = direction(np.array(going), slopes[:, going])
        for k, step in zip(going, steps.T, strict=True):
            if -0.5 * float(slopes[:, k] @ step) <= DECREMENT * abs(objective[k]):
                _narrow(k, stage, settled, last)
            else:
                D[:, k] = step
    return replace(
        state,
        W=W,
        D=D,
        stage=stage,
        zone=zone,
        scale=scale,
        gradient=length,
        objective=objective,
        settled=settled,
        looks=state.looks + 1,
    )


def _narrow(k: int, stage: Float64, settled: Bools, last: int) -> None:
    """A class at the minimum of its corner: the next corner, or settled."""
    settled[k] = stage[k] >= last
    stage[k] = min(stage[k] + 1, last)


def dense_direction(sums: HingeSums, *, intercept: bool) -> Direction:
    """Newton's steps by Cholesky factors of the curvature that the sums have."""

    def solve(classes: Ids, gradients: Float64) -> Float64:
        if len(sums.curvature) == 1:
            return -shared_inverse(sums, intercept=intercept)(gradients)
        steps = np.empty_like(gradients)
        for place, k in enumerate(classes):
            inverse = _inverse(sums.curvature[k], sums.weight, intercept=intercept)
            steps[:, place] = -inverse(gradients[:, place : place + 1])[:, 0]
        return steps

    return solve


def shared_inverse(sums: HingeSums, *, intercept: bool) -> Precondition:
    """(curvature + I)^-1 of a look at 0, which all classes share."""
    return _inverse(sums.curvature[0], sums.weight, intercept=intercept)


def _inverse(curvature: Float64, weight: float, *, intercept: bool) -> Precondition:
    from scipy.linalg import cho_factor, cho_solve  # noqa: PLC0415 - only where something is fitted

    H = curvature.copy()
    damped(H, weight, intercept=intercept)
    factor = cho_factor(H, lower=True, overwrite_a=True, check_finite=False)
    return lambda columns: np.asarray(cho_solve(factor, columns, check_finite=False))


def damped(H: Float64, weight: float, *, intercept: bool) -> None:
    """Adds the penalty's curvature, in place; an intercept has none, and gets a little where no
    more than a few rows are inside the margin."""
    inner = len(H) - intercept
    H.flat[: inner * len(H) : len(H) + 1] += 1.0
    if intercept:
        H[-1, -1] = max(H[-1, -1], FLAT * weight) + DECREMENT * weight


def product_direction(
    blocks: Sequence[Rows],
    state: HingeState,
    loss: Loss,
    *,
    intercept: bool,
    precondition: Precondition,
) -> Direction:
    """Newton's steps by conjugate gradients, all classes side by side, where all features are in
    memory: curvature costs M^2 a row and class, a product M."""

    def solve(classes: Ids, gradients: Float64) -> Float64:
        point = state.W[:, classes] + state.D[:, classes]
        widths, zones = state.widths[classes], state.zones[classes]
        bent = [
            weights[:, None] * _curvature(signs[:, classes] * (A @ point), widths, zones, loss)
            for A, signs, weights in blocks
        ]
        extra = np.ones_like(gradients)
        if intercept:
            weight = sum(float(weights.sum()) for _, _, weights in blocks)
            own = np.sum([b.sum(axis=0) for b in bent], axis=0)
            extra[-1] = np.maximum(FLAT * weight - own, 0.0) + DECREMENT * weight

        def product(p: Float64) -> Float64:
            out = extra * p
            for (A, _, _), b in zip(blocks, bent, strict=True):
                out += A.T @ (b * (A @ p))
            return out

        lengths = np.linalg.norm(gradients, axis=0)
        share = np.divide(
            lengths, state.scale[classes], out=np.ones_like(lengths), where=lengths > 0
        )
        found = conjugate_gradients(
            product,
            -gradients,
            precondition=precondition,
            tolerance=min(FORCING, float(share.max())),
            max_steps=2 * len(gradients),
        )
        return found.x

    return solve


def minimise(
    rows: Callable[[], Iterable[Rows]],
    state: HingeState,
    loss: Loss,
    *,
    intercept: bool = True,
    tolerance: float = 1e-6,
    max_looks: int = 200,
    held: bool = True,
    check: Callable[[], None] = lambda: None,
) -> HingeState:
    """All classes to their minimum. rows: yields (A, signs, weights) as `hinge_sums` takes them,
    block by block, anew each time it is called. `settled` says whether max_looks was enough.
    held: all blocks fit in memory, and are asked for once."""
    blocks = list(rows()) if held else []
    products, inverse = held and len(state.W) > DENSE, None
    while not state.settled.all() and state.looks < max_looks:
        sums: HingeSums | None = None
        for A, signs, weights in blocks or rows():
            check()
            bent = not products or inverse is None
            part = hinge_sums(A, signs, weights, state, loss, curvature=bent)
            sums = part if sums is None else sums + part
        if sums is None:
            break
        if products and inverse is not None:
            direction = product_direction(
                blocks, state, loss, intercept=intercept, precondition=inverse
            )
        else:
            direction = dense_direction(sums, intercept=intercept)
            inverse = shared_inverse(sums, intercept=intercept) if products else None
        state = advance(
            state, sums, loss, intercept=intercept, tolerance=tolerance, direction=direction
        )
    return state


def _falls(totals: Float64) -> bool:
    """Whether a whole step falls by a share of what the slope at W promises, which the smallest
    step that was looked at tells."""
    promised = (totals[-2] - totals[-1]) / STEPS[-2]
    return bool(totals[0] <= totals[-1] + ARMIJO * min(promised, 0.0))


def _loss(z: Float64, widths: Float64, loss: Loss) -> Float64:
    short = np.maximum(1.0 - z, 0.0)
    if loss == "squared_hinge":
        return np.asarray(np.square(short))
    inside = np.minimum(short, widths)
    return np.asarray(inside * (short - 0.5 * inside) / widths)


def _slope(z: Float64, widths: Float64, zones: Float64, loss: Loss) -> Float64:
    short = np.maximum(1.0 - z, 0.0)
    if loss == "squared_hinge":
        return np.asarray(-2.0 * short)
    return np.where(short <= zones, -short / widths, -1.0)


def _curvature(z: Float64, widths: Float64, zones: Float64, loss: Loss) -> Float64:
    short = 1.0 - z
    if loss == "squared_hinge":
        return np.asarray(2.0 * (short > 0))
    return np.asarray(((short > 0) & (short <= zones)) / widths)


def _gram(A: Float64, weights: Float64) -> Float64:
    """A^T diag(weights) A, rows of weight 0 left out; one array on both sides, so BLAS does half
    of the work."""
    there = np.flatnonzero(weights)
    scaled = A[there] * np.sqrt(weights[there])[:, None]
    return np.asarray(scaled.T @ scaled)
