"""Stage `gaussian_bandwidth`: where rows lie, how far they spread, and a bandwidth that follows.

    moments   mean, variance, range                                  task a panel
    base      center, units; of a number, Scott, Silverman: all      one task
    near      k nearest of sampled rows ("knn")                      task a group of panels
    grid      the fold at every width of a grid ("likelihood",       task a group of panels
              "leave_one_out")
    choose    the width                                              one task

Inputs: vectors; values, where they choose ("leave_one_out"). The dataset has no rows of its own but
`center` and `widths`, [d] float64: one bandwidth for each feature, all equal where it is a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.density.climb import Kernel
from simdist.stages.density.moments import (
    Moments,
    as_array,
    merged,
    moments_of,
    of_array,
    rule_factor,
    units_of,
)
from simdist.stages.density.sides import (
    BASE_NBYTES,
    Side,
    Values,
    panel_rows,
    panels_together,
    refuse_mismatch,
    tile_nbytes,
)
from simdist.tiles.gaussian import (
    WidthsState,
    empty_widths,
    fold_widths,
    hide_same,
    merge_widths,
    scaled,
    scores_of,
)
from simdist.tiles.shape import cuts
from simdist.types import Float64, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["RULES", "BandwidthConfig", "BandwidthStage", "Rule", "Scale"]

Rule: TypeAlias = Literal["given", "scott", "silverman", "knn", "likelihood", "leave_one_out"]
Scale: TypeAlias = Literal["dataset", "feature"]
RULES = ("scott", "silverman", "knn", "likelihood", "leave_one_out")
SAMPLED = ("knn", "likelihood", "leave_one_out")

# The grid, in units of Scott's rule: steps of 2^(1/4), a 64th to 4 times.
GRID = 2.0 ** (np.arange(-24, 9) / 4)
SLICE = 256  # sampled rows compared at once


@dataclass(frozen=True, slots=True)
class BandwidthConfig:
    """rule: see `kernel_density`; of "given", widths: one, or one for each feature.

    scale: whose standard deviation is the unit. kernel: what the bandwidth is for: the standard
    deviation of a gaussian, or the radius of a flat ball of the same variance. neighbor: k of
    "knn". sample: rows that choose.
    columns: of the values input, of its rows' tables.
    """

    rule: Rule
    widths: tuple[float, ...] = ()
    scale: Scale = "dataset"
    neighbor: int = 10
    sample: int = 1000
    seed: int = 0
    columns: tuple[str, ...] = ()
    kernel: Kernel = "gaussian"

    def __post_init__(self) -> None:
        if self.rule != "given" and self.rule not in RULES:
            raise ConfigError(
                f"bandwidth={self.rule!r}: expected a number, one for each feature, or"
                f" {', '.join(map(repr, RULES))}"
            )
        if self.scale not in ("dataset", "feature"):
            raise ConfigError(f"scale={self.scale!r}: expected 'dataset' or 'feature'")
        if (self.rule == "given") != bool(self.widths):
            raise ConfigError(f"bandwidth={self.rule!r}: give the number itself, or a rule")
        if not all(math.isfinite(width) and width > 0 for width in self.widths):
            raise ConfigError(f"bandwidth={list(self.widths)[:5]}: expected finite numbers above 0")
        if self.neighbor < 1 or self.sample < 1:
            raise ConfigError(
                f"neighbor={self.neighbor}, sample={self.sample}: expected at least 1"
            )

    def to_json(self) -> Json:
        if self.rule == "given":
            return {"rule": self.rule, "widths": list(self.widths)}
        said: dict[str, Json] = {"rule": self.rule, "scale": self.scale, "kernel": self.kernel}
        if self.rule in SAMPLED:
            said |= {"sample": self.sample, "seed": self.seed}
        if self.rule == "knn":
            said["neighbor"] = self.neighbor
        if self.rule == "leave_one_out":
            said["columns"] = list(self.columns)
        return said

    def radius(self, dim: int) -> float:
        """What the standard deviation of a gaussian is multiplied with: a ball of radius R has the
        variance R^2 / (d + 2) along each axis."""
        return math.sqrt(dim + 2) if self.kernel == "flat" else 1.0


class BandwidthStage:
    """See the module docstring."""

    name: ClassVar[str] = "gaussian_bandwidth"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        data = Side(job.inputs["vectors"])
        if not rounds:
            _refuse(job, data)
        for step in _story(context, data):
            if step.name not in rounds:
                return step
        last = rounds["choose" if job.config.rule in SAMPLED else "base"][0]
        return Commit(0, (), dict(last.facts), dict(last.objects))

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: BandwidthConfig, rows: int, dim: int) -> Forecast:
        """A pass for the moments; a sample against all rows where one chooses."""
        panels = -(-rows // panel_rows(dim))
        sample = min(config.sample, rows) if config.rule in SAMPLED else 0
        return Forecast(
            tasks=panels + 1 + (panels + 1 if sample else 0),
            nbytes=tile_nbytes(max(sample, 1), dim, 1) + 16 * sample * len(GRID),
            flops=2.0 * sample * rows * dim,
            written=panels * 40 * dim,
        )


def _refuse(job: Job, data: Side) -> None:
    """InputError for data without vectors or with too few rows, and widths or values that do not
    fit."""
    config: BandwidthConfig = job.config
    refuse_mismatch(data.dataset)
    if len(config.widths) not in (0, 1, data.dim):
        raise ConfigError(
            f"bandwidth: {len(config.widths)} numbers for {data.dim} features; expected one, or one"
            " for each feature"
        )
    least = config.neighbor + 1 if config.rule == "knn" else 2
    if config.rule != "given" and data.rows < least:
        raise InputError(
            f"bandwidth={config.rule!r} needs at least {least} rows; {data.dataset.uri} has"
            f" {data.rows}. Give the bandwidth as a number."
        )
    if config.rule == "leave_one_out":
        values = job.inputs.get("values")
        if values is None:
            raise ConfigError(
                "bandwidth='leave_one_out' is for kernel_regression, which has values"
            )
        if values.rows != data.rows:
            raise InputError(f"{values.rows} values for {data.rows} rows; expected one for each")


def _story(context: Context, data: Side) -> Iterator[Round]:
    config: BandwidthConfig = context.config
    panel = min(panel_rows(data.dim), data.rows)
    moments = tuple(
        Task(f"moments-{p:06d}", "moments", {"panel": p}, 32 * panel * data.dim + BASE_NBYTES)
        for p in range(data.panels)
    )
    yield Round("moments", moments)
    nbytes = 80 * data.dim * data.panels + BASE_NBYTES
    yield Round("base", (Task("base", "base", {}, nbytes),))
    if config.rule not in SAMPLED:
        return
    sample, width = min(config.sample, data.rows), 0
    if config.rule == "leave_one_out":
        width = _values(context).width
    near = config.rule == "knn"
    together = panels_together(sample, data.dim, width, times=1 if near else len(GRID))
    state = sample * (16 * config.neighbor if near else 32 * len(GRID) * (1 + width))
    nbytes = tile_nbytes(sample, data.dim, width) + state
    name = "near" if near else "grid"
    groups = range(0, data.panels, together)
    yield Round(
        name,
        tuple(
            Task(f"{name}-{g:06d}", name, {"panels": [g, min(g + together, data.panels)]}, nbytes)
            for g in groups
        ),
    )
    nbytes = state * len(groups) + 16 * data.dim + BASE_NBYTES
    yield Round("choose", (Task("choose", "choose", {}, nbytes),))


def _moments(context: Context, task: Task) -> Record:
    data = Side(context.inputs["vectors"])
    found = moments_of(data.read(*data.panel(task.args["panel"])))
    return Record(task.key, {"moments": context.write_array("moments", as_array(found))})


def _base(context: Context, task: Task) -> Record:
    """Center and units; the bandwidth itself where it follows from these."""
    config: BandwidthConfig = context.config
    moments = _all_moments(context)
    dim = len(moments.mean)
    if config.rule == "given":
        widths = np.broadcast_to(np.asarray(config.widths, np.float64), dim)
        return _settled(context, task, moments, widths, {"rule": "given"})
    units = units_of(moments, config.scale)
    facts: dict[str, Json] = {"rule": config.rule, "scale": config.scale}
    if config.rule in SAMPLED:
        return Record(task.key, {"units": context.write_array("units", units)}, facts)
    factor = rule_factor(config.rule, moments.rows, dim) * config.radius(dim)
    return _settled(context, task, moments, factor * units, {**facts, "factor": factor})


def _all_moments(context: Context) -> Moments:
    records = context.records("moments")
    return merged(of_array(context.load(record.objects["moments"])) for record in records)


def _settled(
    context: Context, task: Task, moments: Moments, widths: Float64, facts: dict[str, Json]
) -> Record:
    """The record that the manifest is made of."""
    with np.errstate(over="ignore"):
        squares = float(np.sum(moments.squares / moments.rows / widths**2))
        longest = float(np.sum((moments.reach / widths) ** 2))
    if not (math.isfinite(squares) and math.isfinite(longest)):
        raise InputError(
            f"the rows lie up to {moments.reach.max():.3g} from their mean, which is too many"
            f" bandwidths of {widths.min():.3g} to be squared: scale the data, or"
            " widen the bandwidth"
        )
    even = bool((widths == widths[0]).all())
    objects = {
        "center": context.write_array("center", moments.mean),
        "widths": context.write_array("widths", np.array(widths)),
    }
    more: dict[str, Json] = {
        "bandwidth": float(widths[0]) if even else None,
        "rows_seen": moments.rows,
        "features": len(widths),
        "squares": squares,
        "longest": longest,
    }
    return Record(task.key, objects, {**facts, **more})


def _sample(context: Context, data: Side) -> tuple[Ids, Float64, Float64]:
    """(rows, their coordinates around the center, units) of the rows that choose."""
    size = min(context.config.sample, data.rows)
    rng = context.rng("sample")
    rows = np.sort(rng.choice(data.rows, size, replace=False)).astype(np.int64)
    units = context.load(context.records("base")[0].objects["units"])
    return rows, data.take(rows), np.asarray(units)


def _near(context: Context, task: Task) -> Record:
    """[s, k] the smallest squared distances of sampled rows to others of some panels, ascending."""
    data, k = Side(context.inputs["vectors"]), context.config.neighbor
    rows, taken, units = _sample(context, data)
    center = _all_moments(context).mean
    X = scaled(taken, center, units, "float64")
    best = np.full((len(rows), k), np.inf)
    for panel in range(*task.args["panels"]):
        first, last = data.panel(panel)
        Y = scaled(data.read(first, last), center, units, "float64")
        columns = np.arange(first, last)
        for i in cuts(0, len(rows), SLICE):
            context.check()
            scores = scores_of(X.take(i), Y)
            hide_same(scores, rows[i], columns)
            found = np.concatenate([best[i], -2.0 * scores], axis=1)
            best[i] = np.sort(np.partition(found, k - 1, axis=1)[:, :k], axis=1)
    return Record(task.key, {"near": context.write_array("near", best)})


def _grid(context: Context, task: Task) -> Record:
    """The fold of sampled rows over others of some panels, at every width of the grid."""
    data = Side(context.inputs["vectors"])
    rows, taken, units = _sample(context, data)
    center = _all_moments(context).mean
    values = _values(context) if context.config.rule == "leave_one_out" else None
    X = scaled(taken, center, units, "float64")
    widths = _grid_of(data)
    state = empty_widths(len(rows), len(widths), 0 if values is None else values.width)
    for panel in range(*task.args["panels"]):
        first, last = data.panel(panel)
        Y = scaled(data.read(first, last), center, units, "float64")
        state = fold_widths(
            X,
            Y,
            None if values is None else values.read(first, last),
            widths,
            state,
            rows=rows,
            columns=np.arange(first, last),
            check=context.check,
        )
    objects = {role: context.write_array(role, array) for role, array in state._asdict().items()}
    return Record(task.key, objects)


def _grid_of(data: Side) -> Float64:
    """Widths tried, in units of the standard deviation."""
    return rule_factor("scott", data.rows, data.dim) * GRID


def _values(context: Context) -> Values:
    return Values(context.inputs["values"], context.config.columns)


def _choose(context: Context, task: Task) -> Record:
    """The bandwidth that the sample says."""
    config: BandwidthConfig = context.config
    data, moments = Side(context.inputs["vectors"]), _all_moments(context)
    base = context.records("base")[0]
    units = np.asarray(context.load(base.objects["units"]))
    facts = {**base.facts, "sample": min(config.sample, data.rows)}
    if config.rule == "knn":
        return _by_neighbor(context, task, moments, units, facts)
    widths = _grid_of(data)
    parts = (
        WidthsState(*(np.asarray(context.load(r.objects[role])) for role in WidthsState._fields))
        for r in context.records("grid")
    )
    state = reduce(lambda a, b: merge_widths(a, b, widths), parts)
    if config.rule == "likelihood":
        scores = _likelihoods(state, widths, units, data.rows)
    else:
        scores = _explained(context, data, state)
    best = int(np.argmax(scores))
    factor = float(widths[best]) * config.radius(data.dim)
    facts |= {
        "factor": factor,
        "edge": best in (0, len(widths) - 1),
        "tried": [[float(w), float(s)] for w, s in zip(widths, scores, strict=True)],
    }
    return _settled(context, task, moments, factor * units, facts)


def _by_neighbor(
    context: Context, task: Task, moments: Moments, units: Float64, facts: dict[str, Json]
) -> Record:
    """The median distance from a sampled row to its k-th neighbour: of a flat kernel the radius;
    of a gaussian, most of which lies about sqrt(d) of its widths out, sqrt(d) times its width."""
    config: BandwidthConfig = context.config
    k = config.neighbor
    parts = [context.load(record.objects["near"]) for record in context.records("near")]
    kth = np.sort(np.concatenate(parts, axis=1), axis=1)[:, k - 1]
    factor = float(np.median(np.sqrt(kth)))
    if config.kernel == "gaussian":
        factor /= math.sqrt(len(units))
    if factor == 0:
        raise InputError(
            f"bandwidth='knn': at least half of the sampled rows have {k} copies, so that the"
            f" distance to the {k}-th neighbour is 0. Raise neighbor, or give a number."
        )
    facts |= {"factor": factor, "neighbor": k}
    return _settled(context, task, moments, factor * units, facts)


def _likelihoods(state: WidthsState, widths: Float64, units: Float64, rows: int) -> Float64:
    """[G] mean leave-one-out log density of the sampled rows."""
    logs = (state.peak[:, None] / widths**2 + np.log(state.totals)).mean(axis=0)
    volume = len(units) * (np.log(widths) + 0.5 * math.log(2 * math.pi)) + np.log(units).sum()
    return np.asarray(logs - math.log(rows - 1) - volume)


def _explained(context: Context, data: Side, state: WidthsState) -> Float64:
    """[G] share of the values' variance that the other rows explain, a mean over columns."""
    rows, _, _ = _sample(context, data)
    values = _values(context)
    low, high = int(rows[0]), int(rows[-1]) + 1
    truth = np.concatenate(
        [values.read(c.start, c.stop)[_inside(rows, c)] for c in cuts(low, high, 1 << 20)]
    )
    spread = truth.var(axis=0)
    predicted = state.weighted / state.totals[:, :, None]
    errors = np.square(predicted - truth[:, None, :]).mean(axis=0)
    return np.asarray(1.0 - (errors / np.where(spread > 0, spread, 1.0)).mean(axis=1))


def _inside(rows: Ids, cut: slice) -> Ids:
    """Places in a cut of those ascending rows that lie in it."""
    inside: Ids = rows[(rows >= cut.start) & (rows < cut.stop)] - cut.start
    return inside


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "moments": _moments,
    "base": _base,
    "near": _near,
    "grid": _grid,
    "choose": _choose,
}
