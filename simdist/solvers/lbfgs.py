"""L-BFGS as a value: it says where to look, is told what was found there, and says where next.

    state = Lbfgs.start(x)
    while state.running:
        f, g = evaluate(state.trial)       a pass over the data, by whoever has it
        state = state.told(f, g)

A state is a handful of arrays, so whoever evaluates may commit it and go on from it elsewhere:
`arrays` and `of_arrays`. Minimises. The line search brackets a step with a sufficient decrease and
a slope that has flattened (weak Wolfe, Lewis and Overton 2013), by cubic interpolation; a point
where f is not finite counts as too far. Nocedal and Wright 2006, chapter 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from simdist.types import Array, Float64

__all__ = ["Lbfgs", "Status"]

Status: TypeAlias = Literal["running", "converged", "stalled", "exhausted"]
STATUSES: tuple[Status, ...] = ("running", "converged", "stalled", "exhausted")

DECREASE = 1e-4  # of what the slope promises
FLATTER = 0.9  # of the slope at the start
MOST_TRIALS = 20  # of one line search
FIRST = 0.25  # largest element of the first step, as a share of `longest`


@dataclass(frozen=True, eq=False, slots=True)
class _Search:
    """A line search: from x along d, with the bracket [low, high] around the step."""

    d: Float64
    step: float
    low: float = 0.0
    high: float = np.inf
    f_low: float = 0.0
    slope_low: float = 0.0
    trials: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Lbfgs:
    """Where a minimisation stands. x: [p] the best so far, with f and g [p]; trial: [p] where to
    evaluate next, if `running`.

    status: "converged" where the last `patience` steps together gained less than tolerance x
        max(|f|, 1), or the gradient has no element above `flat`; "stalled" where no step along the
        steepest descent gained anything; "exhausted" after `most` evaluations.
    longest: no element of a step is larger.
    S, Y: [k, p] steps and changes of the gradient, the oldest first. gains: of the last steps.
    """

    x: Float64
    trial: Float64
    most: int
    tolerance: float
    flat: float
    longest: float
    memory: int
    patience: int
    f: float = np.inf
    g: Float64 = field(default_factory=lambda: np.empty(0))
    S: Float64 = field(default_factory=lambda: np.empty((0, 0)))
    Y: Float64 = field(default_factory=lambda: np.empty((0, 0)))
    gains: tuple[float, ...] = ()
    search: _Search | None = None
    evaluations: int = 0
    steps: int = 0
    status: Status = "running"

    @classmethod
    def start(
        cls,
        x: Array,
        *,
        most: int = 100,
        tolerance: float = 1e-7,
        flat: float = 1e-6,
        longest: float = 1.0,
        memory: int = 20,
        patience: int = 3,
    ) -> Lbfgs:
        """At x [p], nothing evaluated yet. most: evaluations."""
        x = np.array(x, np.float64)
        none = np.empty((0, len(x)))
        return cls(x, x, most, tolerance, flat, longest, memory, patience, S=none, Y=none)

    @property
    def running(self) -> bool:
        return self.status == "running"

    def told(self, f: float, g: Array) -> Lbfgs:
        """The state after f and g [p] were found at `trial`."""
        state = replace(self, evaluations=self.evaluations + 1)
        g = np.asarray(g, np.float64)
        finite = bool(np.isfinite(f) and np.isfinite(g).all())
        if state.search is None:
            if not finite:
                return replace(state, f=f, status="stalled")
            state = replace(state, x=state.trial, f=f, g=g)._along()
        elif not finite:
            state = state._too_far(np.inf, np.nan)
        else:
            state = state._judged(f, g)
        if state.running and state.evaluations >= state.most:
            return state._ended()
        return state

    def _ended(self) -> Lbfgs:
        """Out of evaluations; a better point that the line search has passed is kept."""
        search = self.search
        if search is None or search.low == 0.0:
            return replace(self, status="exhausted")
        return replace(self, x=self.x + search.low * search.d, f=search.f_low, status="exhausted")

    def _judged(self, f: float, g: Float64) -> Lbfgs:
        """Accept the trial, or look for a better one along the same line."""
        assert self.search is not None
        search = self.search
        slope0, slope = float(self.g @ search.d), float(g @ search.d)
        if f > self.f + DECREASE * search.step * slope0:
            return self._too_far(f, slope)
        if slope < FLATTER * slope0 and search.trials < MOST_TRIALS:
            reach = self._reach(search.d)
            if search.step < reach:
                high = search.high
                further = 0.5 * (search.step + high) if np.isfinite(high) else 2.5 * search.step
                found = replace(
                    search,
                    low=search.step,
                    f_low=f,
                    slope_low=slope,
                    step=min(further, reach),
                    trials=search.trials + 1,
                )
                return replace(self, search=found, trial=self.x + found.step * search.d)
        return self._accepted(f, g)

    def _too_far(self, f: float, slope: float) -> Lbfgs:
        assert self.search is not None
        search = self.search
        if search.trials >= MOST_TRIALS:
            return self._gave_up()
        low, step = search.low, search.step
        width = step - low
        if np.isfinite(f):
            found = low + _cubic(width, search.f_low, search.slope_low, f, slope)
        else:
            found = low + 0.1 * width
        found = min(max(found, low + 0.1 * width), low + 0.7 * width)
        again = replace(search, high=step, step=found, trials=search.trials + 1)
        return replace(self, search=again, trial=self.x + found * search.d)

    def _gave_up(self) -> Lbfgs:
        """No step gains anything: once more along the gradient alone, or the end."""
        if not len(self.S):
            return replace(self, status="stalled")
        none = np.empty((0, len(self.x)))
        return replace(self, S=none, Y=none)._along()

    def _accepted(self, f: float, g: Float64) -> Lbfgs:
        s, y = self.trial - self.x, g - self.g
        S, Y = self.S, self.Y
        if s @ y > 1e-10 * np.sqrt((s @ s) * (y @ y)):  # else B would not stay positive
            S = np.vstack([S, s])[-self.memory :]
            Y = np.vstack([Y, y])[-self.memory :]
        gains = (*self.gains, self.f - f)[-self.patience :]
        state = replace(
            self, x=self.trial, f=f, g=g, S=S, Y=Y, gains=gains, steps=self.steps + 1, search=None
        )
        small = len(gains) == self.patience and sum(gains) < self.tolerance * max(abs(f), 1.0)
        if small or np.abs(g).max(initial=0.0) <= self.flat:
            return replace(state, status="converged")
        return state._along()

    def _along(self) -> Lbfgs:
        """Begin a line search along the quasi-Newton direction."""
        if np.abs(self.g).max(initial=0.0) <= self.flat:
            return replace(self, status="converged")
        d = -_two_loops(self.g, self.S, self.Y)
        slope = float(self.g @ d)
        if not slope < 0:
            d, slope = -self.g, -float(self.g @ self.g)
        reach = self._reach(d)
        step = min(1.0, reach) if len(self.S) else FIRST * reach
        search = _Search(d, step, f_low=self.f, slope_low=slope)
        return replace(self, search=search, trial=self.x + step * d)

    def _reach(self, d: Float64) -> float:
        return self.longest / float(np.abs(d).max())

    def arrays(self) -> dict[str, Float64]:
        """The state as arrays, for a store; `of_arrays` gives it back to the last bit."""
        search = self.search
        line = np.full(7, np.nan)
        if search is not None:
            line[:] = (
                *(search.step, search.low, search.high, search.f_low, search.slope_low),
                *(float(search.trials), 1.0),
            )
        settings = (self.most, self.tolerance, self.flat, self.longest, self.memory, self.patience)
        at = (self.f, self.evaluations, self.steps, STATUSES.index(self.status))
        return {
            "points": np.stack([self.x, self.trial]),
            "slopes": np.stack(
                [
                    self.g if len(self.g) else np.full(len(self.x), np.nan),
                    search.d if search is not None else np.full(len(self.x), np.nan),
                ]
            ),
            "S": self.S,
            "Y": self.Y,
            "numbers": np.array([*settings, *at, *line, *self.gains], np.float64),
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array]) -> Lbfgs:
        """What `arrays` gave."""
        numbers = [float(value) for value in arrays["numbers"]]
        most, tolerance, flat, longest, memory, patience = numbers[:6]
        f, evaluations, steps, status = numbers[6:10]
        line, gains = numbers[10:17], tuple(numbers[17:])
        x, trial = (np.array(row) for row in arrays["points"])
        g, d = (np.array(row) for row in arrays["slopes"])
        search = None
        if not np.isnan(line[-1]):
            step, low, high, f_low, slope_low, trials = line[:6]
            search = _Search(d, step, low, high, f_low, slope_low, int(trials))
        return cls(
            *(x, trial, int(most), tolerance, flat, longest, int(memory), int(patience)),
            f=f,
            g=np.empty(0) if np.isnan(g).all() else g,
            S=np.array(arrays["S"]),
            Y=np.array(arrays["Y"]),
            gains=gains,
            search=search,
            evaluations=int(evaluations),
            steps=int(steps),
            status=STATUSES[int(status)],
        )


def _two_loops(g: Float64, S: Float64, Y: Float64) -> Float64:
    """The product of the approximate inverse Hessian with g."""
    q = g.copy()
    if not len(S):
        return q
    rho = 1.0 / np.einsum("ij,ij->i", S, Y)
    alpha = np.empty(len(S))
    for i in range(len(S) - 1, -1, -1):
        alpha[i] = rho[i] * (S[i] @ q)
        q -= alpha[i] * Y[i]
    q *= (S[-1] @ Y[-1]) / (Y[-1] @ Y[-1])
    for i in range(len(S)):
        q += (alpha[i] - rho[i] * (Y[i] @ q)) * S[i]
    return q


def _cubic(width: float, f0: float, slope0: float, f1: float, slope1: float) -> float:
    """Where the cubic through two values and slopes, `width` apart, is least, from the first."""
    theta = 3.0 * (f0 - f1) / width + slope0 + slope1
    under = theta * theta - slope0 * slope1
    if under < 0:
        return 0.5 * width
    root = np.sqrt(under)
    below = slope1 - slope0 + 2.0 * root
    if below == 0:
        return 0.5 * width
    return float(width * (1.0 - (slope1 + root - theta) / below))
