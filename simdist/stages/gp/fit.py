"""How a fit goes: where it begins, and what it does with the bound that a pass has found.

    begin     starting values by the data, inducing points from the sample, a fit on its first rows
      │
      v       ┌── evaluate `progress.trial`: one pass for the bound, one for its gradient <──┐
    Progress ─┤                                                                              │
              └── told(f, g) ── running ─────────────────────────────────────────────────────┘
                     └── ended: inducing points that are not moved are chosen anew, or the end

Everything here is pure and small but `begin`, which fits a few thousand rows in memory: whoever
holds the rows evaluates, in this process or as rounds of tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from simdist.engine.threads import Run, in_order
from simdist.measures.kernels import Kernel
from simdist.solvers.lbfgs import Lbfgs
from simdist.stages.gp.choose import chosen, scaled_kernel
from simdist.stages.gp.config import SparseGPConfig
from simdist.stages.gp.memory import evaluated
from simdist.stages.gp.space import Space, Trial
from simdist.stages.gp.survey import Sample
from simdist.stages.gp.table import Part, Scale
from simdist.types import Array, Float64, Json

__all__ = ["Progress", "begin"]

# Pairs that L-BFGS keeps: more did not help, and each is as long as all coordinates of Z.
MEMORY = 10
MINI_SHARE = 8  # rows of the fit on a sample for each of its inducing points, at least
MINI_PARTS = 4  # of its rows, side by side where there are cores
WORTH = 2  # times mini_rows: of fewer rows a fit on a sample is no shorter than one of all

Check = Callable[[], None]


@dataclass(frozen=True, eq=False, slots=True)
class Progress:
    """Where a fit stands. space: what is fitted; minimiser: where to look next.

    segment: how often inducing points were chosen anew. best: f, u, Z of the best end of an earlier
    segment, or None. jitter: the largest that a factor needed so far. mini: evaluations on the
    sample. bounds: F / (n t) of each evaluation on all rows.
    """

    space: Space
    minimiser: Lbfgs
    segment: int = 0
    best: tuple[float, Float64, Float64] | None = None
    mini: int = 0
    mini_rows: int = 0
    spent: int = 0
    bounds: tuple[float, ...] = field(default=())

    @property
    def running(self) -> bool:
        return self.minimiser.running

    def trial(self, t: int) -> Trial:
        """What to evaluate next."""
        return self.space.trial(self.minimiser.trial, t)

    def found(self, t: int) -> Trial:
        """The best point so far."""
        if self.best is not None and self.best[0] <= self.minimiser.f:
            return replace(self.space, Z=self.best[2]).trial(self.best[1], t)
        return self.space.trial(self.minimiser.x, t)

    def told(
        self,
        f: float,
        g: Float64,
        *,
        config: SparseGPConfig,
        sample: Callable[[], Sample],
        spread: Float64,
        check: Check | None = None,
    ) -> Progress:
        """The progress after an evaluation of `trial`. sample: where new inducing points come
        from."""
        minimiser = self.minimiser.told(f, g)
        bounds = (*self.bounds, -f)
        now = replace(self, minimiser=minimiser, spent=self.spent + 1, bounds=bounds)
        if minimiser.running or self.space.moved or config.select == "given":
            return now
        if now.segment >= config.reselections:
            return now
        ended = (minimiser.f, minimiser.x, self.space.Z)
        best = ended if self.best is None or ended[0] < self.best[0] else self.best
        trial = now.found(config.outputs)
        Z = chosen(
            *(trial.kernel, sample().part.X, config.inducing),
            select=config.select,
            spread=spread,
            seed=config.seed,
            check=check,
        )
        space = replace(self.space, Z=Z)
        u = space.vector(trial)
        again = _minimiser(u, config.evaluations // (config.reselections + 1), config)
        return replace(now, space=space, minimiser=again, segment=self.segment + 1, best=best)

    def arrays(self) -> dict[str, Float64]:
        """For a store, beside `facts`."""
        found = self.minimiser.arrays() | {"Z": self.space.Z, "unit": self.space.unit}
        if self.best is not None:
            found |= {
                "best": np.concatenate([[self.best[0]], self.best[1]]),
                "best_Z": self.best[2],
            }
        return found

    def facts(self) -> dict[str, Json]:
        return {
            "kernel": self.space.kernel.spec(),
            "floor": self.space.floor,
            "moved": self.space.moved,
            "segment": self.segment,
            "mini": self.mini,
            "mini_rows": self.mini_rows,
            "spent": self.spent,
            "bounds": [float(value) for value in self.bounds if np.isfinite(value)],
            "running": self.running,
            "status": self.minimiser.status,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Json], arrays: Mapping[str, Array]) -> Progress:
        """What `facts` and `arrays` gave."""
        from simdist.measures.kernels import resolve  # noqa: PLC0415

        space = Space(
            resolve(facts["kernel"]),
            np.array(arrays["Z"]),
            np.array(arrays["unit"]),
            facts["floor"],
            facts["moved"],
        )
        best = None
        if "best" in arrays:
            told = np.array(arrays["best"])
            best = (float(told[0]), told[1:], np.array(arrays["best_Z"]))
        return cls(
            space=space,
            minimiser=Lbfgs.of_arrays(arrays),
            segment=facts["segment"],
            best=best,
            mini=facts["mini"],
            mini_rows=facts["mini_rows"],
            spent=facts["spent"],
            bounds=tuple(facts["bounds"]),
        )


def begin(
    config: SparseGPConfig,
    scale: Scale,
    sample: Sample,
    n: int,
    *,
    given: Array | None = None,
    check: Check | None = None,
    run: Run = in_order,
) -> Progress:
    """Where the fit of n rows begins. given: [m, d] inducing points, where they are.

    Lengthscales start by the data, inducing points are chosen with them; then, where n is worth it,
    a fit of the first rows of the sample, whose inducing points and hyper-parameters go on.
    """
    t = config.outputs
    kernel = config.kernel.for_dim(len(scale.spread))
    if config.optimize and config.start == "data":
        kernel = scaled_kernel(kernel, scale.spread)
    noise = np.full(t, max(config.noise, config.noise_floor))
    moved = config.optimize and config.optimize_inducing

    def inducing(kernel: Kernel, X: Float64, m: int) -> Float64:
        if given is not None:
            return np.array(given, np.float64)
        return chosen(
            *(kernel, X, m),
            select=config.select,
            spread=scale.spread,
            seed=config.seed,
            check=check,
        )

    mini, Z = None, None
    rows = min(config.mini_rows, len(sample.chance))
    if config.optimize and config.mini_evaluations and 0 < WORTH * rows <= n:
        m = config.inducing if given is not None else min(config.inducing, rows // MINI_SHARE)
        start = Trial(kernel, noise, inducing(kernel, sample.part.X[:rows], max(1, m)))
        mini = _mini_fit(config, scale, sample, rows, start, check=check, run=run)
        found = mini.found(t)
        kernel, noise = found.kernel, found.noise
        Z = found.Z if moved and m == config.inducing else None
    if Z is None:
        Z = inducing(kernel, sample.part.X, config.inducing)
    start = Trial(kernel, noise, Z)
    space = Space.around(start, scale.spread, floor=config.noise_floor, moved=moved)
    share = 1 if moved or config.select == "given" else config.reselections + 1
    minimiser = _minimiser(space.vector(start), max(1, config.evaluations // share), config)
    if not config.optimize:
        minimiser = replace(minimiser, status="converged")
    if mini is None:
        return Progress(space, minimiser)
    return Progress(space, minimiser, mini=mini.minimiser.evaluations, mini_rows=rows)


def _mini_fit(
    config: SparseGPConfig,
    scale: Scale,
    sample: Sample,
    rows: int,
    start: Trial,
    *,
    check: Check | None,
    run: Run,
) -> Progress:
    """The fit of the sample's first rows, from `start`."""
    moved = config.optimize_inducing
    space = Space.around(start, scale.spread, floor=config.noise_floor, moved=moved)
    minimiser = _minimiser(space.vector(start), config.mini_evaluations, config)
    X, Y, weights = sample.part.take(np.arange(rows))
    cuts = np.array_split(np.arange(rows), min(rows, MINI_PARTS))
    whole = Part(X, (Y - scale.mean) / scale.scale, weights)
    parts = [whole.take(cut) for cut in cuts]
    while minimiser.running:
        if check is not None:
            check()
        found = evaluated(parts, space, minimiser.trial, jitter=config.jitter, run=run)
        minimiser = minimiser.told(*found)
    return Progress(space, minimiser)


def _minimiser(u: Float64, most: int, config: SparseGPConfig) -> Lbfgs:
    return Lbfgs.start(u, most=most, tolerance=config.tolerance, memory=MEMORY)
