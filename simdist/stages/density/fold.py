"""The fold of queries over the data, in tasks, and what every stage of the family shares.

fold-00000-00000   a chunk of queries over a group of panels     peak, total, weighted
...                merged in plan order ──────────────────────>  SoftmaxState of a chunk
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from simdist.errors import ConfigError
from simdist.runner.plan import Record, Round, Task
from simdist.stages.density.sides import (
    BASE_NBYTES,
    FLOAT32_LONGEST,
    Side,
    Width,
    chunk_rows,
    panel_rows,
    panels_together,
    tile_nbytes,
    width_of,
)
from simdist.tiles.gaussian import ScaledRows, fold_gaussian, scaled
from simdist.tiles.softmax import SoftmaxState, empty, merged
from simdist.types import Array, Float64, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context
    from simdist.store.datasets import Dataset

__all__ = [
    "FieldConfig",
    "Precision",
    "Problem",
    "each_chunk",
    "fold_forecast",
    "fold_round",
    "fold_task",
    "id_column",
    "log_volume",
    "merged_state",
    "read_rows",
]

Precision: TypeAlias = Literal["auto", "float32", "float64"]


@dataclass(frozen=True, slots=True)
class FieldConfig:
    """precision: of the products: see `kernel_density`."""

    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "float64"):
            raise ConfigError(
                f"precision={self.precision!r}: expected 'auto', 'float32' or 'float64'"
            )

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is folded. width: columns of the values. apart: a row does not meet itself: the queries
    are the data."""

    data: Side
    queries: Side
    width: int
    apart: bool

    @classmethod
    def of(cls, context: Context, width: int) -> Problem:
        """Queries `at`, or without them the data's own rows."""
        inputs = context.inputs
        data = Side(inputs["vectors"])
        return cls(data, Side(inputs["at"]) if "at" in inputs else data, width, "at" not in inputs)

    @property
    def together(self) -> int:
        return panels_together(self.queries.chunk, self.data.dim, self.width)

    @property
    def groups(self) -> int:
        return -(-self.data.panels // self.together)

    @property
    def count(self) -> int:
        """Rows that a query meets."""
        return self.data.rows - self.apart


def fold_round(problem: Problem, name: str, **args: Json) -> Round:
    """A task for each chunk of queries and group of panels."""
    chunk = min(problem.queries.chunk, problem.queries.rows)
    nbytes = tile_nbytes(chunk, problem.data.dim, problem.width)
    together, panels = problem.together, problem.data.panels
    return Round(
        name,
        tuple(
            Task(
                f"{name}-{c:06d}-{g:06d}",
                "fold",
                {"chunk": c, "panels": [p, min(p + together, panels)], **args},
                nbytes,
            )
            for c in range(problem.queries.chunks)
            for g, p in enumerate(range(0, panels, together))
        ),
    )


def fold_task(
    context: Context,
    task: Task,
    problem: Problem,
    width: Width,
    rows: Array,
    *,
    values: Callable[[int, int, ScaledRows], Array] | None = None,
    bias: Callable[[int, int], Float64] | None = None,
) -> Record:
    """A chunk's state over some panels. rows: the queries, as they are. values, bias: of data rows
    first..last, whose values are also told the rows in units of the bandwidth."""
    data = problem.data
    dtype = width.dtype(context.config.precision, data, problem.queries)
    X = scaled(rows, width.center, width.widths, dtype)
    if dtype == "float32" and X.squares.max(initial=0.0) > FLOAT32_LONGEST:
        dtype = "float64"
        X = scaled(rows, width.center, width.widths, dtype)
    own = np.arange(*problem.queries.span(task.args["chunk"])) if problem.apart else None
    state = empty(len(rows), problem.width)
    for panel in range(*task.args["panels"]):
        first, last = data.panel(panel)
        Y = data.scaled(first, last, width, dtype)
        V = None if values is None else values(first, last, Y)
        columns = None if own is None else np.arange(first, last)
        logs = None if bias is None else bias(first, last)
        state = fold_gaussian(
            X, Y, V, state, rows=own, columns=columns, bias=logs, check=context.check
        )
    fields = state._asdict().items()
    return Record(task.key, {role: context.write_array(role, array) for role, array in fields})


def merged_state(context: Context, problem: Problem, name: str, chunk: int) -> SoftmaxState:
    """A chunk's state over all panels, merged in plan order."""
    first = chunk * problem.groups
    records: Sequence[Record] = context.records(name)[first : first + problem.groups]
    states = (
        SoftmaxState(*(np.asarray(context.load(r.objects[f])) for f in SoftmaxState._fields))
        for r in records
    )
    return reduce(merged, states)


def each_chunk(problem: Problem, name: str, kind: str, **args: Json) -> Round:
    """A task a chunk of queries, which merges its states."""
    chunk = min(problem.queries.chunk, problem.queries.rows)
    nbytes = 8 * chunk * (3 * (2 + problem.width) + 6 * problem.data.dim + 16) + BASE_NBYTES
    return Round(
        name,
        tuple(
            Task(f"{name}-{c:06d}", kind, {"chunk": c, **args}, nbytes)
            for c in range(problem.queries.chunks)
        ),
    )


def read_rows(context: Context, problem: Problem, chunk: int) -> tuple[Array, Width]:
    """A chunk's rows as stored, and the bandwidth."""
    return problem.queries.read(*problem.queries.span(chunk)), width_of(context)


def log_volume(width: Width) -> float:
    """log of the integral of exp(-|x|^2 / 2) over rows in units of their bandwidth."""
    return float(np.log(width.widths).sum() + 0.5 * len(width.widths) * np.log(2 * np.pi))


def id_column(dataset: Dataset, first: int, last: int) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """("id", ids) of some rows, where the dataset says ids."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    if not Side(dataset).rows_tables():
        return
    parts, offset = [], 0
    for shard in dataset.shards:
        low, high = max(first - offset, 0), min(last - offset, shard.rows)
        if low < high:
            table = dataset.store.read_table(shard.objects["rows"], ["id"])
            parts.extend(table["id"].slice(low, high - low).chunks)
        offset += shard.rows
    yield "id", pa.chunked_array(parts)


def fold_forecast(rows: int, dim: int, width: int) -> tuple[int, int, float]:
    """(tasks, bytes of the largest, flops) of n rows folded over themselves."""
    chunk = chunk_rows(rows, dim)
    panels = -(-rows // panel_rows(dim))
    groups = -(-panels // panels_together(chunk, dim, width))
    nbytes = tile_nbytes(min(chunk, rows), dim, width)
    return -(-rows // chunk) * (groups + 1), nbytes, 2.0 * rows * rows * (dim + width)
