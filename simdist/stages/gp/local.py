"""A whole fit of rows in memory: the story of the rounds, without tasks and without a store."""

from __future__ import annotations

from typing import NamedTuple

from simdist.stages.gp.config import SparseGPConfig
from simdist.stages.gp.fit import begin
from simdist.stages.gp.memory import all_cores, evaluated, part_spans, summed
from simdist.stages.gp.model import Fitted, Scores, assess, calibrated, fitted
from simdist.stages.gp.report import report
from simdist.stages.gp.survey import refuse_few, sampled, scale_of, survey
from simdist.stages.gp.table import Arrays, held_out, training
from simdist.types import Array, Json

__all__ = ["LocalFit", "fit_local"]


class LocalFit(NamedTuple):
    """A model, its report, and F / (n t) of every evaluation on all rows."""

    model: Fitted
    report: dict[str, Json]
    bounds: list[float]


def fit_local(table: Arrays, config: SparseGPConfig, *, given: Array | None = None) -> LocalFit:
    """Fit rows in memory on all cores of this process. given: [m, d] inducing points."""
    n = table.rows
    total, drawn = survey(table, config, 0, n)
    refuse_few(config, total)
    scale = scale_of(config, total)
    sample = sampled([drawn], config.sample_rows(n))
    whole = training(table, config, scale, 0, n)
    with all_cores(config.inducing) as run:
        progress = begin(config, scale, sample, total.n, given=given, run=run)
        parts = [whole.span(*span) for span in part_spans(total.n, config.inducing)]
        while progress.running:
            f, g = evaluated(
                *(parts, progress.space, progress.minimiser.trial), jitter=config.jitter, run=run
            )
            progress = progress.told(
                *(f, g), config=config, sample=lambda: sample, spread=scale.spread
            )
        trial = progress.found(config.outputs)
        whitening, statistics = summed(parts, trial, jitter=config.jitter, run=run)
        model = fitted(trial, whitening, statistics, scale)
        if config.optimize and config.calibrate:
            model = calibrated(model, sample.part)
        scores = _scores(table, config, model)
    found = report(config, progress, model, statistics, scores, dim=table.dim)
    return LocalFit(model, found, list(progress.bounds))


def _scores(table: Arrays, config: SparseGPConfig, model: Fitted) -> Scores | None:
    if not config.held_out:
        return None
    out = held_out(config, 0, table.rows)
    return assess(model, table.read(0, table.rows).take(out)) if out.any() else None
