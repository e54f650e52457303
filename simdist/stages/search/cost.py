"""What a search costs, from n, d and its config alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simdist.inverted import cell_total
from simdist.measures import resolve
from simdist.partitions import block_rows
from simdist.runner.plan import Forecast, RoundForecast
from simdist.stages.costs import TASK_REQUESTS, moves
from simdist.stages.search.config import SearchConfig
from simdist.stages.search.memory import GROUP_NBYTES, exact_nbytes, probe_nbytes, route_nbytes

__all__ = ["forecast"]

SHARE = 1 / 16  # of the corpus' rows that probes look at, by and large
PROBES = 64  # of 2,000 cells


def forecast(config: SearchConfig, queries: int, dim: int, rows: int) -> Forecast:
    """Cost of so many queries against a corpus of so many rows."""
    shape = _Shape.of(config, queries, rows, dim)
    measure, exact = resolve(config.measure), config.method == "exact"
    asking = shape.chunk if exact else min(config.sample, queries)
    nbytes = exact_nbytes(measure, config.k, asking, shape.panel, dim) + (16 << 20)
    if not exact:
        probing = route_nbytes(shape.chunk, dim, shape.cells, min(PROBES, shape.cells))
        held = (min(rows, max(shape.panel, GROUP_NBYTES // (4 * dim))), shape.panel)
        probing += probe_nbytes(measure, config.k, shape.chunk, held, shape.cells, dim)
        nbytes = max(nbytes, probing)
    rounds = tuple(_rounds(config, shape))
    return Forecast(
        tasks=sum(told.tasks for told in rounds),
        nbytes=nbytes,
        flops=sum(told.flops for told in rounds),
        written=sum(told.written for told in rounds),
        rounds=rounds,
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    """Sizes of a search. chunk, panel: rows of a task's queries and of a block of the corpus."""

    queries: int
    rows: int
    dim: int
    chunk: int
    panel: int
    cells: int

    @classmethod
    def of(cls, config: SearchConfig, queries: int, rows: int, dim: int) -> _Shape:
        coded = resolve(config.measure).traits.gemm
        chunk = min(block_rows(queries, dim), queries)
        panel = min(block_rows(rows, dim), rows)
        return cls(queries, rows, dim, chunk, panel, cell_total(rows, coded=coded))

    @property
    def chunks(self) -> int:
        return -(-self.queries // self.chunk)

    @property
    def panels(self) -> int:
        return -(-self.rows // self.panel)


def _rounds(config: SearchConfig, shape: _Shape) -> Iterator[RoundForecast]:
    """Every chunk of queries meets every block of the corpus; where cells are probed, a sixteenth
    of the pairs is scored, by codes, and a sample has met all of them before."""
    exact = config.method == "exact"
    queries, rows, dim = shape.queries, shape.rows, shape.dim
    row, listed, panels = 4 * dim, 12 * config.k, shape.panels
    if not exact:
        sample = min(config.sample, queries)
        told = sample * 4 * listed
        yield RoundForecast(
            "truth",
            panels,
            flops=2.0 * sample * rows * dim,
            read=(rows + panels * sample) * row,
            written=panels * told,
            requests=panels * TASK_REQUESTS + moves(2 * panels, rows * row),
            rows=rows,
        )
        yield RoundForecast(
            "choose",
            1,
            read=panels * told + sample * row,
            requests=TASK_REQUESTS + moves(2 * panels, panels * told),
            rows=sample,
        )
    groups = panels if exact else -(-rows // max(shape.panel, GROUP_NBYTES // row))
    tasks = shape.chunks * groups
    both, lists = (groups * queries + shape.chunks * rows) * row, groups * queries * listed
    compared = 2.0 * queries * rows * dim
    yield RoundForecast(
        "scan" if exact else "probe",
        tasks,
        flops=compared if exact else 0.0,
        ops=0.0 if exact else SHARE * compared + 2.0 * queries * shape.cells * dim,
        read=both,
        written=lists,
        requests=tasks * TASK_REQUESTS + moves(2 * tasks, both) + moves(2 * tasks, lists),
        rows=groups * queries,
    )
    yield RoundForecast(
        "settle",
        shape.chunks,
        read=lists,
        written=queries * (listed + 8),
        requests=shape.chunks * TASK_REQUESTS
        + moves(2 * tasks, lists)
        + moves(shape.chunks, queries * listed),
        rows=queries,
    )
