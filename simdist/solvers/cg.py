"""Conjugate gradients for several right-hand sides, each with a preconditioner of its own.

    q = product(p)          one pass over the data, all columns at once
    x, r += along p         `cg_step`; then p turns conjugate to what came before

The state is four arrays: whoever commits it goes on from there. Source: Hestenes and Stiefel 1952;
preconditioned as in Golub and Van Loan, Matrix Computations, 11.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from simdist.types import Float64

__all__ = ["CgState", "Precondition", "cg_start", "cg_step", "conjugate_gradients", "relative"]

Precondition: TypeAlias = Callable[[Float64], Float64]  # [m, c] -> M^-1 times it, column by column


class CgState(NamedTuple):
    """x: [m, c] the solutions so far. r: [m, c] b - A x. p: [m, c] where to go next. rho: [c]
    products of r with M^-1 r. size: [c] lengths of b."""

    x: Float64
    r: Float64
    p: Float64
    rho: Float64
    size: Float64


def cg_start(b: Float64, precondition: Precondition) -> CgState:
    """From x = 0. b: [m, c]."""
    b = np.ascontiguousarray(b)  # as a state that was kept comes back: the same bits from there on
    z = np.ascontiguousarray(precondition(b))
    return CgState(np.zeros_like(b), b, z, _dots(b, z), np.sqrt(_dots(b, b)))


def cg_step(state: CgState, q: Float64, precondition: Precondition) -> CgState:
    """The next state. q: [m, c] A p. A column that has arrived stays where it is."""
    q = np.ascontiguousarray(q)
    step = _over(state.rho, _dots(state.p, q))
    x, r = state.x + step * state.p, state.r - step * q
    z = np.ascontiguousarray(precondition(r))
    rho = _dots(r, z)
    return CgState(x, r, z + _over(rho, state.rho) * state.p, rho, state.size)


def relative(state: CgState) -> Float64:
    """[c] lengths of the residuals over those of b; 0 where b is 0."""
    return _over(np.sqrt(_dots(state.r, state.r)), state.size)


def conjugate_gradients(
    product: Callable[[Float64], Float64],
    b: Float64,
    *,
    precondition: Precondition = lambda r: r,
    tolerance: float = 1e-7,
    max_steps: int = 100,
    check: Callable[[], None] = lambda: None,
) -> CgState:
    """Solves A x = b for a symmetric positive definite A, in memory.

    product: [m, c] -> A times it. b: [m, c]. tolerance: of all columns' `relative` residuals; look
    at them, it ends after `max_steps` too. check: called before each step.
    """
    state = cg_start(b, precondition)
    for _ in range(max_steps):
        if relative(state).max(initial=0.0) <= tolerance:
            break
        check()
        state = cg_step(state, product(state.p), precondition)
    return state


def _dots(a: Float64, b: Float64) -> Float64:
    return np.asarray(np.einsum("ij,ij->j", a, b))


def _over(a: Float64, b: Float64) -> Float64:
    """a / b, 0 where b is not positive: such a column has nothing left to do."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
