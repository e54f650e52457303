"""What the tasks of mean-shift do: seeds, climbs, modes, rows left over, labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.runner.plan import Record, Task
from simdist.stages.density.climb import Keys, climb, nearest
from simdist.stages.density.fold import id_column
from simdist.stages.density.modes import bins_of, joined_bins, merged_modes
from simdist.stages.density.seeding import HELD_VALUES, WAVE, seeding_of
from simdist.stages.density.sides import Side, Width, width_of
from simdist.tiles.gaussian import scaled
from simdist.types import Array, Float64, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["COMPUTE"]


def _bins(context: Context, task: Task) -> Record:
    data = Side(context.inputs["vectors"])
    rows = data.read(*data.panel(task.args["panel"]))
    bins, counts = bins_of(rows, width_of(context).widths)
    objects = {
        "bins": context.write_array("bins", bins),
        "counts": context.write_array("counts", counts),
    }
    return Record(task.key, objects, {"bins": len(bins)})


def _seed(context: Context, task: Task) -> Record:
    """Where a wave's climbs start: "points", or "rows" of the data; all rows where neither."""
    data, wave = Side(context.inputs["vectors"]), task.args["wave"]
    seeding = seeding_of(context.config, data.rows, data.dim)
    if seeding == "bins":
        points = _bin_seeds(context)
        if 0 < len(points) < data.rows:
            points_ref = context.write_array("points", points)
            return Record(task.key, {"points": points_ref}, {"seeds": len(points)})
        if not len(points):
            raise InputError(
                f"mean_shift: no bin of the grid has {context.config.least} rows: lower `least`"
            )
    if seeding != "cover":
        return Record(task.key, {}, {"seeds": data.rows})
    pool = np.arange(data.rows) if wave == 0 else _uncovered(context, wave - 1)
    chosen = context.rng("seed", wave).choice(pool, min(WAVE, len(pool)), replace=False)
    rows = np.sort(chosen).astype(np.int64)
    return Record(task.key, {"rows": context.write_array("rows", rows)}, {"seeds": len(rows)})


def _bin_seeds(context: Context) -> Float64:
    records = context.records("bins")
    bins = np.concatenate([context.load(r.objects["bins"]) for r in records])
    counts = np.concatenate([context.load(r.objects["counts"]) for r in records])
    corners, found = joined_bins(bins, counts)
    seeds: Float64 = corners[found >= context.config.least] * width_of(context).widths
    return seeds


def _uncovered(context: Context, wave: int) -> Ids:
    records = context.records(f"cover-{wave:03d}")
    return np.concatenate([context.load(record.objects["rows"]) for record in records])


def _climb(context: Context, task: Task) -> Record:
    """Some turns of a part's points: "ends" and "weights" of who arrived, "moving" of the rest.
    Who comes so near to an earlier wave's mode that they would be one ends there."""
    args, config = task.args, context.config
    data, width = Side(context.inputs["vectors"]), width_of(context)
    dtype = width.dtype(config.precision, data)
    known = None
    if args["wave"]:
        modes = context.load(context.records(f"modes-{args['wave'] - 1:03d}")[0].objects["modes"])
        known = scaled(modes, width.center, width.widths, dtype)
    found = climb(
        _starts(context, data, args),
        _keys(data, width, dtype),
        width,
        kernel=config.kernel,
        dtype=dtype,
        tolerance=config.tolerance,
        turns=args["turns"],
        last=args["last"],
        known=known,
        reach=min(config.merge, 1.0),
        check=context.check,
    )
    arrived = ~(found.moving | found.caught)
    objects = {
        "ends": context.write_array("ends", found.points[arrived]),
        "weights": context.write_array("weights", found.weights[arrived]),
        "moving": context.write_array("moving", found.points[found.moving]),
    }
    return Record(task.key, objects, {"moving": int(found.moving.sum())})


def _starts(context: Context, data: Side, args: Mapping[str, Json]) -> Float64:
    """[s, d] where a part's points are."""
    first, last = args["part"]
    if args["number"]:
        before = context.records(f"climb-{args['wave']:03d}-{args['number'] - 1:03d}")[first:last]
        return np.concatenate([context.load(record.objects["moving"]) for record in before])
    seed = context.records(f"seed-{args['wave']:03d}")[0].objects
    if "points" in seed:
        return np.asarray(context.load(seed["points"])[first:last], np.float64)
    if "rows" in seed:
        return data.take(np.asarray(context.load(seed["rows"])[first:last]))
    return data.read(first, last).astype(np.float64)


def _keys(data: Side, width: Width, dtype: str) -> Callable[[], Iterator[Keys]]:
    """All rows of the data, panel by panel, again and again; kept where they are few."""

    def read() -> Iterator[Keys]:
        for panel in range(data.panels):
            raw = data.read(*data.panel(panel))
            yield Keys(raw, scaled(raw, width.center, width.widths, dtype))

    if data.rows * data.dim > HELD_VALUES:
        return read
    kept = tuple(read())
    return lambda: iter(kept)


def _modes(context: Context, task: Task) -> Record:
    """The modes known before, and after them those of this wave's ends."""
    wave, width = task.args["wave"], width_of(context)
    points, weights = [], []
    prefix, number = f"climb-{wave:03d}-", 0
    while f"{prefix}{number:03d}" in context.spec.rounds:
        for record in context.records(f"{prefix}{number:03d}"):
            points.append(context.load(record.objects["ends"]))
            weights.append(context.load(record.objects["weights"]))
        number += 1
    ends, weight = np.concatenate(points), np.concatenate(weights)
    if context.config.kernel == "flat":  # a bin's corner may have no row near it
        ends, weight = ends[weight > 0], weight[weight > 0]
    if not len(ends) and not wave:
        raise InputError(
            "mean_shift: no row lies within a bandwidth of any seed. Widen the bandwidth, or take"
            " seeds='all'."
        )
    before, known = np.empty((0, ends.shape[1])), np.empty(0)
    if wave:
        objects = context.records(f"modes-{wave - 1:03d}")[0].objects
        before, known = (np.asarray(context.load(objects[r])) for r in ("modes", "weights"))
    near = width.times(context.config.merge)
    modes, weight = merged_modes(ends, weight, before, near, context.check)
    return _written(context, task, np.concatenate([before, modes]), np.concatenate([known, weight]))


def _written(context: Context, task: Task, modes: Float64, weights: Float64) -> Record:
    objects = {
        "modes": context.write_array("modes", modes),
        "weights": context.write_array("weights", weights),
    }
    return Record(task.key, objects, {"modes": len(modes)})


def _order(context: Context, task: Task) -> Record:
    """All modes, the heaviest first."""
    objects = context.records(f"modes-{task.args['wave']:03d}")[0].objects
    modes, weights = (np.asarray(context.load(objects[r])) for r in ("modes", "weights"))
    order = np.argsort(-weights, kind="stable")
    return _written(context, task, modes[order], weights[order])


def _nearest(context: Context, rows: Array, modes: Float64) -> tuple[Ids, Float64]:
    """(the nearest mode of each row, squared distance in bandwidths)."""
    width = width_of(context)
    dtype = width.dtype(context.config.precision, Side(context.inputs["vectors"]))
    points, ends = (scaled(x, width.center, width.widths, dtype) for x in (rows, modes))
    return nearest(points, ends, context.check)


def _cover(context: Context, task: Task) -> Record:
    """Rows of a panel that no mode is near and that have not been seeds: of those left before,
    compared with what is new."""
    data, wave, panel = Side(context.inputs["vectors"]), task.args["wave"], task.args["panel"]
    first, last = data.panel(panel)
    left, known = np.arange(first, last), 0
    if wave:
        left = np.asarray(
            context.load(context.records(f"cover-{wave - 1:03d}")[panel].objects["rows"])
        )
        known = int(context.records(f"modes-{wave - 1:03d}")[0].facts["modes"])
    modes = context.load(context.records(f"modes-{wave:03d}")[0].objects["modes"])[known:]
    _, apart = _nearest(context, data.read(first, last)[left - first], modes)
    seeds = context.load(context.records(f"seed-{wave:03d}")[0].objects["rows"])
    left = np.setdiff1d(left[apart > 1.0], seeds, assume_unique=True)
    return Record(task.key, {"rows": context.write_array("rows", left)}, {"uncovered": len(left)})


def _label(context: Context, task: Task) -> Record:
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    data, order = Side(context.inputs["vectors"]), context.records("order")[0]
    first, last = data.panel(task.args["panel"])
    ends = np.asarray(context.load(order.objects["modes"]))
    labels, apart = _nearest(context, data.read(first, last), ends)
    if not context.config.everyone:
        labels[apart > 1.0] = -1
    ids = dict(id_column(context.inputs["vectors"], first, last))
    table = pa.table({"row": np.arange(first, last), **ids, "cluster": labels})
    sizes = np.bincount(labels[labels >= 0], minlength=len(ends))
    objects = {
        "labels": context.write_array("labels", labels),
        "clusters": context.write_table("clusters", table),
        "sizes": context.write_array("sizes", sizes),
    }
    return Record(task.key, objects, {"unlabelled": int(np.sum(labels < 0))})


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "bins": _bins,
    "seed": _seed,
    "climb": _climb,
    "modes": _modes,
    "cover": _cover,
    "order": _order,
    "label": _label,
}
