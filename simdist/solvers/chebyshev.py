"""Chebyshev filters: a polynomial of the matrix that is large where eigenvalues are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simdist.types import Float64

__all__ = ["Filter", "Term"]

NARROWEST = 1e-8  # width of the damped interval, where `cut` is at its lower end


class Term(NamedTuple):
    """One step of the recurrence: Y_j = product * A Y_(j-1) + last * Y_(j-1) + before * Y_(j-2)."""

    product: float
    last: float
    before: float


@dataclass(frozen=True, slots=True)
class Filter:
    """p(t), a Chebyshev polynomial: at most about 1 / growth on [low, cut], 1 at `top`.

    low: a lower bound of the spectrum. cut: the largest eigenvalue that is not wanted.
    top: the largest that is; scaled by it, no block overflows.
    Source: the scaled three-term recurrence of Zhou and Saad, SIAM J. Matrix Anal. 29 (2007).
    """

    low: float
    cut: float
    top: float
    degree: int

    def terms(self) -> Iterator[Term]:
        """The steps j = 1 ... degree; Y_0 is what is filtered."""
        half = max((self.cut - self.low) / 2, NARROWEST)
        centre = self.low + half
        first = half / max(self.top - centre, half)
        yield Term(first / half, -first * centre / half, 0.0)
        scale = first
        for _ in range(1, self.degree):
            new = 1.0 / (2.0 / first - scale)
            yield Term(2 * new / half, -2 * new * centre / half, -scale * new)
            scale = new

    def at(self, values: Float64) -> Float64:
        """p(t) at some t."""
        before, last = np.zeros_like(values), np.ones_like(values)
        for term in self.terms():
            before, last = last, (term.product * values + term.last) * last + term.before * before
        return last
