"""The tasks of the rounds over shards: see the package docstring for their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from simdist.operators import ShardedCsr, degree_power
from simdist.runner.plan import Record, Task
from simdist.solvers.chebyshev import Filter
from simdist.solvers.lobpcg import (
    LOW,
    ROWS,
    Moments,
    Projected,
    combine,
    moments,
    next_step,
    spare_of,
)
from simdist.stages.spectral.nulls import Nulls, degrees_of, write_nulls
from simdist.types import Array, Float64, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["COMPUTE", "filter_name", "name_of_w"]


def filter_name(step: int, j: int) -> str:
    """The round that makes Y_j before product `step`."""
    return f"filter-{step}-{j}"


def name_of_w(step: int, degree: int) -> str:
    """The round whose `Y` is the W of product `step`."""
    if step == 0:
        return "start"
    return f"update-{step - 1}" if degree == 1 else filter_name(step, degree)


def _start(context: Context, task: Task) -> Record:
    """Degrees, what deflation needs, and a random W, 0 where a node has no edge."""
    config, i = context.config, task.args["shard"]
    matrix = _matrix(context)
    labels = context.inputs["components"]
    density, degrees = degrees_of(matrix, i, config.alpha)
    roots, there = np.sqrt(degrees), degrees > 0
    scale = degree_power(degrees, -0.5) / np.where(there, density, 1.0)
    own = context.load(labels.shards[i].objects["labels"], store=labels.store)
    W = context.rng("start", i).standard_normal((len(roots), config.block)).astype(config.dtype)
    W[~there] = 0.0
    objects = {
        "density": context.write_array("density", density),
        "degrees": context.write_array("degrees", degrees),
        "scale": context.write_array("scale", scale),
        "Y": context.write_array("search", W),
        **write_nulls(context, own, roots, W),
    }
    facts = {"isolated": int(np.sum(~there)), "volume": float(degrees.sum())}
    return Record(task.key, objects, facts)


def _filter(context: Context, task: Task) -> Record:
    """Y_j of the filter; of the last one p(A) X - X p(theta), whose null part is told too."""
    i, step, j = task.args["shard"], task.args["step"], task.args["j"]
    degree = task.args["degree"]
    values = _values(context, step - 1)
    damped = _damped(values, degree)
    term = list(damped.terms())[j - 1]
    update = context.records(f"update-{step - 1}")
    lasts = update if j == 2 else context.records(filter_name(step, j - 1))
    width = len(values)
    X = context.load(update[i].objects["X"])[:, :width]
    before = X
    if j > 2:
        befores = update if j == 3 else context.records(filter_name(step, j - 2))
        before = context.load(befores[i].objects["Y"])
    image = _product(context, i, lasts, "Y", width)
    last = context.load(lasts[i].objects["Y"])
    leave = damped.at(values) if j == degree else np.zeros(width)
    new: Array = np.empty(image.shape, context.config.dtype)
    for first in range(0, len(new), ROWS):  # blocks are larger than any cache
        some = slice(first, first + ROWS)
        made = image[some] * term.product
        made += last[some] * term.last
        made += before[some] * term.before
        made -= X[some] * leave
        new[some] = made
    del image
    objects = {}
    if j == degree:
        objects["sums"] = context.write_array("sums", _nulls(context, i).sums(new))
    objects["Y"] = context.write_array("search", new)
    return Record(task.key, objects)


def _multiply(context: Context, task: Task) -> Record:
    """A W, freed of the known vectors, and the shard's part of the basis' inner products with W."""
    i, step, degree = task.args["shard"], task.args["step"], task.args["degree"]
    nulls, records = _nulls(context, i), context.records(name_of_w(step, degree))
    Y, means = context.load(records[i].objects["Y"]), nulls.means(records)
    image = _product(context, i, records, "Y", Y.shape[1]).astype(context.config.dtype)
    AW = nulls.freed(image, means)  # the known vectors are their own images
    del image
    found = moments([*_held(context, i, step, ("X", "P")), nulls.freed(Y, means)], AW)
    objects = {
        "AW": context.write_array("image", AW),
        "gram": context.write_array("moments", found.gram),
        "image": context.write_array("moments", found.image),
    }
    return Record(task.key, objects)


def _solve(context: Context, task: Task) -> Record:
    """The small dense problem, in one task: bases of degenerate pairs depend on rounding, so all
    shards must go on from the same coefficients."""
    step = task.args["step"]
    total: Moments | None = None
    for record in context.records(f"product-{step}"):
        part = Moments(*(context.load(record.objects[role]) for role in ("gram", "image")))
        total = part if total is None else total + part
    if total is None:
        raise AssertionError("a graph has at least one shard")
    known, before = 0, Projected.none()
    if step:
        last = context.records(f"solve-{step - 1}")[0].objects
        known = _known(context, step - 1)
        before = Projected(*(context.load(last[role]) for role in ("among", "among_image")))
    spare = spare_of(task.args["degree"])
    found = next_step(total, before, block=context.config.block, known=known, spare=spare)
    objects = {
        "vectors": context.write_array("coefficients", found.vectors),
        "directions": context.write_array("coefficients", found.directions),
        "among": context.write_array("moments", found.projected.gram),
        "among_image": context.write_array("moments", found.projected.image),
    }
    return Record(task.key, objects, {"values": [float(value) for value in found.values]})


def _update(context: Context, task: Task) -> Record:
    """The next X and P with their images, one after the other, and Y_1 of the filter."""
    i, step, degree = task.args["shard"], task.args["step"], task.args["degree"]
    config = context.config
    records = context.records(name_of_w(step, degree))
    nulls = _nulls(context, i)
    W = nulls.freed(context.load(records[i].objects["Y"]), nulls.means(records))
    AW = context.load(context.records(f"product-{step}")[i].objects["AW"])
    found = context.records(f"solve-{step}")[0].objects
    coefficients = [context.load(found[role]) for role in ("vectors", "directions")]
    objects: dict[str, ObjectRef] = {}
    for roles, last in ((("X", "P"), W), (("AX", "AP"), AW)):
        context.check()
        made = [np.empty((len(W), one.shape[1]), config.dtype) for one in coefficients]
        combine([*_held(context, i, step, roles), last], coefficients, made)
        for role, block in zip(roles, made, strict=True):
            objects[role] = context.write_array("state", block)
    X, AX = (context.load(objects[role]) for role in ("X", "AX"))
    values = _values(context, step)
    width = len(values)
    term = next(_damped(values, degree).terms()) if degree > 1 else None
    squares, Y = np.zeros(width), np.empty((len(X), width), config.dtype)
    for first in range(0, len(X), ROWS):
        some = slice(first, first + ROWS)
        x, ax = X[some, :width].astype(np.float64), AX[some, :width].astype(np.float64)
        R = ax - x * values
        squares += np.einsum("ij,ij->j", R, R)
        Y[some] = R if term is None else term.product * ax + term.last * x
    if term is None:
        objects["sums"] = context.write_array("sums", nulls.sums(Y))
    objects["Y"] = context.write_array("search", Y)
    return Record(task.key, objects, {"squares": [float(value) for value in squares]})


def _measure(context: Context, task: Task) -> Record:
    """Residuals from a product with the vectors themselves, and where each is largest."""
    i, step = task.args["shard"], task.args["step"]
    dim = context.config.dim
    records = context.records(f"update-{step}")
    values = _values(context, step)[:dim]
    image = _product(context, i, records, "X", dim)
    X = context.load(records[i].objects["X"])[:, :dim].astype(np.float64)
    image -= X * values
    squares = np.einsum("ij,ij->j", image, image)
    final = _scaled(context, i, X)
    at = np.argmax(np.abs(final), axis=0)
    largest = final[at, np.arange(len(at))]
    return Record(
        task.key,
        {},
        {
            "squares": [float(value) for value in squares],
            "largest": [float(value) for value in largest],
        },
    )


def _vectors(context: Context, task: Task) -> Record:
    """The embedding of a shard's rows."""
    i, step = task.args["shard"], task.args["step"]
    record = context.records(f"update-{step}")[i]
    X = context.load(record.objects["X"])[:, : context.config.dim].astype(np.float64)
    final = _scaled(context, i, X) * np.array(task.args["factors"])
    start = context.records("start")[i].objects
    begin, _ = _matrix(context).span(i)
    degrees = context.load(start["degrees"])
    objects = embedding_objects(context, final, degrees, begin)
    return Record(task.key, {**objects, "density": start["density"]})


def embedding_objects(
    context: Context, final: Float64, degrees: Float64, begin: int
) -> dict[str, ObjectRef]:
    """A shard of the result: see `SpectralStage`."""
    import pyarrow as pa  # noqa: PLC0415 - not needed to plan

    vectors = final.astype(np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    rows = pa.array(np.arange(begin, begin + len(vectors)))
    table = pa.table({"row": rows, "vector": flat, "isolated": pa.array(degrees == 0)})
    return {
        "vectors": context.write_array("embedding", final.astype(context.config.dtype)),
        "degrees": context.write_array("degrees", degrees),
        "embedding": context.write_table("embedding", table),
    }


def _scaled(context: Context, i: int, X: Float64) -> Float64:
    """The vectors of the Laplacian asked for."""
    if context.config.laplacian == "symmetric":
        return X
    degrees = context.load(context.records("start")[i].objects["degrees"])
    return X * degree_power(degrees, -0.5)[:, None]


def _matrix(context: Context) -> ShardedCsr:
    return ShardedCsr.of(context.inputs["links"])


def _nulls(context: Context, i: int) -> Nulls:
    return Nulls(context, context.records("start"), i)


def _values(context: Context, step: int) -> Float64:
    """[b] Ritz values of the columns that are worked on."""
    values = context.records(f"solve-{step}")[0].facts["values"]
    return np.array(values[: context.config.block])


def _known(context: Context, step: int) -> int:
    """Columns of X after an update."""
    return len(context.records(f"solve-{step}")[0].facts["values"])


def _damped(values: Float64, degree: int) -> Filter:
    return Filter(LOW, float(values[-1]), float(values[0]), degree)


def _product(context: Context, i: int, sources: Sequence[Record], role: str, width: int) -> Float64:
    """S times some columns of a block that lies with `sources`, on a shard's rows."""
    starts = context.records("start")
    out = _matrix(context).product(
        i,
        lambda s: context.load(sources[s].objects[role])[:, :width],
        scale_of=lambda s: context.load(starts[s].objects["scale"]),
        check=context.check,
    )
    out *= context.load(starts[i].objects["scale"])[:, None]
    return out


def _held(context: Context, i: int, step: int, roles: tuple[str, ...]) -> list[Array]:
    """Blocks of a shard's rows before update `step`; none before the first."""
    if step == 0:
        return []
    state = context.records(f"update-{step - 1}")[i].objects
    return [context.load(state[role]) for role in roles]


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "start": _start,
    "filter": _filter,
    "product": _multiply,
    "solve": _solve,
    "update": _update,
    "measure": _measure,
    "vectors": _vectors,
}
