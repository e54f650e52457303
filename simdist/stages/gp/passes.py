"""The tasks of a fit over shards: see the package docstring for their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.grams import (
    Cotangents,
    KernelGradients,
    Whitening,
    gradient_block,
    gram_block,
    inducing_gradient,
    merge_statistics,
    read_statistics,
    tree_sum,
    write_statistics,
)
from simdist.runner.plan import Record, Task
from simdist.stages.gp.bound import Bound, collapsed_bound
from simdist.stages.gp.fit import Progress, begin
from simdist.stages.gp.model import Fitted, assess, calibrated, fitted
from simdist.stages.gp.space import Trial
from simdist.stages.gp.survey import Moments, Sample, refuse_few, sampled, scale_of, survey
from simdist.stages.gp.table import Scale, Stored, held_out, training

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["COMPUTE", "MODEL", "load_progress"]

STATE = ("points", "slopes", "S", "Y", "numbers", "Z", "unit")
BEST = ("best", "best_Z")
MODEL = ("Z", "L", "alpha", "factors", "noise", "mean", "scale", "calibration")


def _table(context: Context) -> Stored:
    """The rows of the job."""
    config = context.config
    return Stored(context.inputs["vectors"], config.targets, config.noise_column)


def _total(context: Context) -> Moments:
    """Moments of all rows that are learned from, added in plan order."""
    parts = [Moments.from_json(record.facts["moments"]) for record in context.records("survey")]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _survey(context: Context, task: Task) -> Record:
    first, last = task.args["span"]
    moments, sample = survey(_table(context), context.config, first, last)
    objects = {"sample": context.write_array("sample", sample.to_array())}
    return Record(task.key, objects, {"moments": moments.to_json()})


def _begin(context: Context, task: Task) -> Record:
    config = context.config
    total = _total(context)
    refuse_few(config, total)
    given = None if config.given is None else context.load(config.given)
    with context.side_by_side() as run:
        progress = begin(
            *(config, _scale(context), _sample(context), total.n),
            given=given,
            check=context.check,
            run=run,
        )
    return _left(context, task, progress)


def _pass(context: Context, task: Task) -> Record:
    """Statistics of a span; facts: `failed` where K_uu cannot be factored at this trial."""
    trial = _trial(context, task)
    try:
        whitening = Whitening.of(trial.kernel, trial.Z, jitter=context.config.jitter)
    except InputError as error:
        if task.args.get("best"):
            raise
        return Record(task.key, {}, {"failed": str(error)})
    part = training(_table(context), context.config, _scale(context), *task.args["span"])
    found = gram_block(whitening, part.X, part.Y, weights=part.weights, check=context.check)
    return Record(task.key, write_statistics(context, found), {"jitter": whitening.jitter})


def _bound(context: Context, task: Task) -> Record:
    trial = _trial(context, task)
    summed = context.records(task.args["sum"])[0]
    try:
        bound = collapsed_bound(read_statistics(context, summed.objects), trial.noise)
    except FloatingPointError as error:
        return Record(task.key, {}, {"failed": str(error)})
    cotangents = bound.cotangents
    objects = {
        "P": context.write_array("cotangent", cotangents.P),
        "b": context.write_array("cotangent", cotangents.b),
    }
    slopes = [float(value) for value in bound.noise]
    return Record(task.key, objects, {"value": bound.value, "noise": slopes, "kk": cotangents.kk})


def _slope(context: Context, task: Task) -> Record:
    """The gradient of a span's rows."""
    trial = _trial(context, task)
    bound = _read_bound(context, task.args["bound"])
    whitening = Whitening.of(trial.kernel, trial.Z, jitter=context.config.jitter)
    part = training(_table(context), context.config, _scale(context), *task.args["span"])
    found = gradient_block(
        *(whitening, part.X, part.Y, bound.cotangents),
        weights=part.weights,
        inputs=_progress(context, task.args["state"]).space.moved,
        check=context.check,
    )
    objects = {"theta": context.write_array("gradient", found.theta)}
    if found.Z is not None:
        objects["Z"] = context.write_array("gradient", found.Z)
    return Record(task.key, objects)


def _step(context: Context, task: Task) -> Record:
    """What the optimiser makes of an evaluation: the next progress."""
    config, args = context.config, task.args
    progress = _progress(context, args["state"])
    t = config.outputs
    if args["failed"]:
        f, g = np.inf, np.full(len(progress.minimiser.x), np.nan)
    else:
        trial = progress.trial(t)
        bound = _read_bound(context, args["bound"])
        whitening = Whitening.of(trial.kernel, trial.Z, jitter=config.jitter)
        statistics = read_statistics(context, context.records(args["sum"])[0].objects)
        gradients = tree_sum([_gradients(context, r) for r in context.records(args["slope"])])
        gradients += inducing_gradient(
            *(whitening, statistics, bound.cotangents), inputs=progress.space.moved
        )
        f, g = progress.space.slope(trial, bound, gradients, statistics.n)
    after = progress.told(
        *(f, g),
        config=config,
        sample=lambda: _sample(context),
        spread=_scale(context).spread,
        check=context.check,
    )
    return _left(context, task, after)


def _model(context: Context, task: Task) -> Record:
    """What predicts, from the last pass."""
    trial = _trial(context, task)
    whitening = Whitening.of(trial.kernel, trial.Z, jitter=context.config.jitter)
    statistics = read_statistics(context, context.records(task.args["sum"])[0].objects)
    model = fitted(trial, whitening, statistics, _scale(context))
    if context.config.optimize and context.config.calibrate:
        model = calibrated(model, _sample(context).part, check=context.check)
    objects = {name: context.write_array("gp", array) for name, array in model.arrays().items()}
    return Record(task.key, objects, {"model": model.facts()})


def _test(context: Context, task: Task) -> Record:
    """Scores of a span's rows that were held out."""
    first, last = task.args["span"]
    record = context.records("model")[0]
    arrays = {name: context.load(record.objects[name]) for name in MODEL}
    model = Fitted.of(record.facts["model"], arrays)
    part = _table(context).read(first, last)
    part = part.take(held_out(context.config, first, last))
    scores = assess(model, part, check=context.check)
    return Record(task.key, {}, {"scores": scores.to_json()})


def _left(context: Context, task: Task, progress: Progress) -> Record:
    objects = {name: context.write_array("fit", a) for name, a in progress.arrays().items()}
    return Record(task.key, objects, progress.facts())


def _progress(context: Context, name: str) -> Progress:
    return load_progress(context, context.records(name)[0])


def load_progress(context: Context, record: Record) -> Progress:
    """What a task of kind "begin" or "step" left."""
    names = [*STATE, *(BEST if "best" in record.objects else ())]
    arrays = {role: context.load(record.objects[role]) for role in names}
    return Progress.of(record.facts, arrays)


def _trial(context: Context, task: Task) -> Trial:
    """The point that a pass is about: where the optimiser looks next, or the best one found."""
    progress = _progress(context, task.args["state"])
    t = context.config.outputs
    return progress.found(t) if task.args.get("best") else progress.trial(t)


def _scale(context: Context) -> Scale:
    return scale_of(context.config, _total(context))


def _sample(context: Context) -> Sample:
    config = context.config
    weighted = config.noise_column is not None
    arrays = (context.load(r.objects["sample"]) for r in context.records("survey"))
    parts = [Sample.of_array(array, config.outputs, weighted=weighted) for array in arrays]
    return sampled(parts, config.sample_rows(context.inputs["vectors"].rows))


def _read_bound(context: Context, name: str) -> Bound:
    record = context.records(name)[0]
    facts = record.facts
    P, b = (context.load(record.objects[role]) for role in ("P", "b"))
    return Bound(facts["value"], Cotangents(P, b, facts["kk"]), np.array(facts["noise"]))


def _gradients(context: Context, record: Record) -> KernelGradients:
    Z = context.load(record.objects["Z"]) if "Z" in record.objects else None
    return KernelGradients(context.load(record.objects["theta"]), Z)


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "survey": _survey,
    "begin": _begin,
    "pass": _pass,
    "merge": merge_statistics,
    "bound": _bound,
    "slope": _slope,
    "step": _step,
    "model": _model,
    "test": _test,
}
