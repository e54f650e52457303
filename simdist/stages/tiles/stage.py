"""The stage: one task per block pair, then one that makes the array readable, then the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.lists import ids_of_rows
from simdist.measures import resolve
from simdist.measures.base import Measure
from simdist.panels import RowPanels, refuse_zero_rows
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, RoundForecast, Rounds, Task
from simdist.stages.costs import TASK_REQUESTS, moves
from simdist.stages.tiles.config import TilesConfig, refuse_too_large
from simdist.stages.tiles.encode import group_objects, import_zarr, shard_bytes
from simdist.stages.tiles.grid import Grid
from simdist.stages.tiles.values import between, stored, within
from simdist.store.datasets import Dataset, Shard
from simdist.types import Float32, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["SimilarityTiles"]


@dataclass(frozen=True)
class Blocks(RowPanels):
    """A vectors dataset cut into the blocks of a grid."""

    edge: int

    @property
    def panel_rows(self) -> int:
        return self.edge


class SimilarityTiles:
    """See the package docstring. Inputs: vectors and, where they are compared with others, columns.

    Bytes follow from zarr and its zstd too: with other versions of them a job may be resumed, and a
    new one gives other objects with the same values.
    """

    name: ClassVar[str] = "similarity_tiles"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        """The first round of the story that is not committed yet; else the manifest."""
        import_zarr()  # said before the first task, not by it
        grid = _grid(job.config, job.inputs)
        _refuse(job, grid)
        for step in _story(grid, job):
            if step.name not in rounds:
                return step
        return _manifest(job, grid, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(
        self, config: TilesConfig, rows: int, dim: int, columns: int | None = None
    ) -> Forecast:
        """Cost of n rows against m columns, or against themselves (columns=None)."""
        grid = _cut(config, rows, columns, dim)
        refuse_too_large(config, grid.rows, grid.columns)
        tasks = sum(1 for _ in grid.pairs())
        return Forecast(
            tasks=tasks + 1,
            nbytes=grid.nbytes,
            flops=grid.flops,
            written=grid.matrix_nbytes,
            rounds=_cost(grid, tasks),
        )


def _cut(config: TilesConfig, rows: int, columns: int | None, dim: int) -> Grid:
    symmetric = resolve(config.measure).traits.symmetric
    return Grid.of(config, rows, columns, dim, symmetric=symmetric)


def _grid(config: TilesConfig, inputs: Mapping[str, Dataset]) -> Grid:
    source, other = inputs["vectors"], inputs.get("columns")
    columns = None if other is None else other.rows
    return _cut(config, source.rows, columns, int(source.metrics["dim"]))


def _refuse(job: Job, grid: Grid) -> None:
    refuse_too_large(job.config, grid.rows, grid.columns)
    for data in job.inputs.values():
        refuse_zero_rows(data, resolve(job.config.measure))
        if int(data.metrics["dim"]) != grid.dim:
            raise InputError(
                f"the rows have {grid.dim} dimensions, the columns {data.metrics['dim']}"
                f" ({data.uri}): they must come from the same embedding."
            )


def _cost(grid: Grid, tasks: int) -> tuple[RoundForecast, ...]:
    """A task reads two blocks and leaves what they give, and its transpose in a set by itself."""
    blocks = 2 * tasks * 4 * grid.block * grid.dim
    shards = grid.blocks[0] * grid.blocks[1]
    tiles = RoundForecast(
        "tiles",
        tasks,
        nbytes=grid.nbytes,
        flops=grid.flops,
        read=blocks,
        written=grid.matrix_nbytes,
        requests=tasks * TASK_REQUESTS
        + moves(2 * tasks, blocks)
        + moves(2 * shards, grid.matrix_nbytes),
        rows=grid.rows,
    )
    return tiles, RoundForecast("metadata", 1, requests=TASK_REQUESTS, rows=grid.rows)


def _story(grid: Grid, job: Job) -> Iterator[Round]:
    yield Round(
        "tiles",
        tuple(
            Task(f"tiles-{i:06d}-{j:06d}", "pair", {"row": i, "column": j}, grid.nbytes)
            for i, j in grid.pairs()
        ),
    )
    # An id as an Arrow string, as a Python one, in the chunk and compressed: 250 bytes of a short
    # one. What a long one takes is known once the vectors are read.
    labels = sum(data.rows * 250 + 3 * _id_nbytes(data) for data in job.inputs.values())
    yield Round("metadata", (Task("metadata", "metadata", {}, 2 * labels + (4 << 20)),))


def _id_nbytes(data: Dataset) -> int:
    """Stored bytes of the tables that hold a dataset's ids, which kept columns share."""
    return sum(shard.objects["rows"].nbytes for shard in data.shards)


def _pair(context: Context, task: Task) -> Record:
    """One block pair: its shard and, of a set against itself, that of its transpose."""
    grid = _grid(context.config, context.inputs)
    standing = _standing(context, task)
    measure = resolve(context.config.measure)
    objects = {}
    for (i, j), values in _values(context, measure, grid, task.args["row"], task.args["column"]):
        corner = i * grid.block, j * grid.block
        cast = stored(values, context.config.dtype, corner=corner, measure=measure.name)
        context.check()
        key = f"{_folder(context.fingerprint)}/similarity/c/{i}/{j}"
        data = shard_bytes(grid, (i, j), cast)
        objects[f"{i}/{j}"] = context.store.write_at(key, data, vouched=standing.get(key))
    return Record(task.key, objects)


def _values(
    context: Context, measure: Measure, grid: Grid, i: int, j: int
) -> Iterator[tuple[tuple[int, int], Float32]]:
    """The blocks of a task and their values, one after the other."""
    rows = Blocks(context.inputs["vectors"], measure, grid.block)
    X = rows.block(i)
    if not grid.own:
        columns = Blocks(context.inputs["columns"], measure, grid.block)
        yield (i, j), between(measure, X, columns.block(j), context.check)
    elif i == j:
        yield (i, i), within(measure, X, context.check)
    else:
        Y = rows.block(j)
        values = between(measure, X, Y, context.check)
        yield (i, j), values
        if not grid.symmetric:
            values = between(measure, Y, X, context.check).T
        yield (j, i), values.T


def _standing(context: Context, task: Task) -> Mapping[str, ObjectRef]:
    """What a record of this task vouches for already, by key: this is a retry whose answer was
    lost, or some of it was lost since. What is whole is not written over."""
    value = context.store.read_record(context.fingerprint, task.key)
    refs = () if value is None else Record.from_json(value).objects.values()
    return {ref.key: ref for ref in refs}


def _folder(fingerprint: str) -> str:
    return f"arrays/{fingerprint}"


def _metadata(context: Context, task: Task) -> Record:
    """Coordinates, then metadata, the group's own last: with it the array can be opened."""
    inputs, config = context.inputs, context.config
    grid = _grid(config, inputs)
    sides = {"row": inputs["vectors"], "column": inputs.get("columns", inputs["vectors"])}
    made = group_objects(
        grid,
        config.dtype,
        {name: ids_of_rows(data, np.arange(data.rows)) for name, data in sides.items()},
        {"simdist": {"fingerprint": context.fingerprint, "measure": config.measure}},
    )
    standing = _standing(context, task)
    objects = {}
    for name, data in made.items():
        key = f"{_folder(context.fingerprint)}/{name}"
        objects[name] = context.store.write_at(key, data, vouched=standing.get(key))
    return Record(task.key, objects)


def _manifest(job: Job, grid: Grid, rounds: Rounds) -> Commit:
    down, _ = grid.blocks
    shards: list[dict[str, ObjectRef]] = [{} for _ in range(down)]
    for record in rounds["tiles"]:
        for role, ref in record.objects.items():
            i, _, j = role.partition("/")
            shards[int(i)][f"similarity/{j}"] = ref
    spans = (min(grid.block, grid.rows - i * grid.block) for i in range(down))
    metrics: dict[str, Json] = {
        "array": _folder(job.fingerprint),
        "shape": [grid.rows, grid.columns],
        "dtype": job.config.dtype,
        "shard": [grid.block, grid.block],
        "chunk": [grid.chunk, grid.chunk],
        "measure": resolve(job.config.measure).name,
        "nbytes": grid.matrix_nbytes,
        "stored_nbytes": sum(ref.nbytes for shard in shards for ref in shard.values()),
    }
    return Commit(
        rows=grid.rows,
        shards=tuple(Shard(rows, shard) for rows, shard in zip(spans, shards, strict=True)),
        metrics=metrics,
        objects=rounds["metadata"][0].objects,
    )


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {"pair": _pair, "metadata": _metadata}
