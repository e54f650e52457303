"""What the rounds of a spectral embedding cost, from n, the entries of the graph and the config.

An entry of a product fetches a row of a block from anywhere and adds it up: that is a pair, as
rates have them. Bases are products in float64, counted twice. How many passes there will be only
the eigenvalues tell: `passes` is what graphs of data took.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simdist.runner.plan import RoundForecast
from simdist.solvers.lobpcg import spare_of
from simdist.stages.costs import TASK_REQUESTS, moves
from simdist.stages.spectral.config import DEGREE, SpectralConfig

__all__ = ["direct_rounds", "sharded_rounds"]

ENTRY_NBYTES = 12  # of the matrix: column and weight


def direct_rounds(
    config: SpectralConfig, rows: int, entries: int, *, passes: int
) -> tuple[RoundForecast, ...]:
    """The one task."""
    block, written = config.direct_block, rows * (8 * config.dim + 16)
    bases = -(-passes // DEGREE)
    return (
        RoundForecast(
            "direct",
            1,
            flops=2.0 * bases * _basis_flops(rows, block, 1),
            pairs=float(passes) * entries,
            read=ENTRY_NBYTES * entries,
            written=written,
            requests=TASK_REQUESTS + moves(3, ENTRY_NBYTES * entries) + moves(4, written),
            rows=rows,
        ),
    )


def sharded_rounds(
    config: SpectralConfig, rows: int, entries: int, *, shards: int, degree: int, passes: int
) -> Iterator[RoundForecast]:
    """The rounds over shards, where each has columns in all of them."""
    size, block = np.dtype(config.dtype).itemsize, config.block
    kept = 1 + spare_of(degree)
    one = rows * block * size  # a block of all rows
    matrix = ENTRY_NBYTES * entries

    def passing(name: str, written: int, flops: float = 0.0, own: int = 0) -> RoundForecast:
        """A product, and what is done with its rows."""
        objects = shards * (3 + shards)
        return RoundForecast(
            name,
            shards,
            flops=2.0 * flops,
            pairs=float(entries),
            read=matrix + own,
            written=written,
            moved=(shards - 1) * one,
            common=one,
            requests=shards * TASK_REQUESTS + moves(objects, matrix + own) + moves(shards, written),
            common_requests=moves(shards, one),
            rows=rows,
        )

    yield RoundForecast(
        "start",
        shards,
        read=16 * rows,
        written=one + 40 * rows,
        rows=rows,
        requests=shards * TASK_REQUESTS + moves(9 * shards, one),
    )
    bases = max(1, -(-passes // degree))
    for step in range(bases):
        if step:
            for j in range(2, degree + 1):
                yield passing(f"filter-{step}-{j}", one, own=3 * one)
        part = _basis_flops(rows, block, kept) / 3
        yield passing(f"product-{step}", one, part, own=(kept + 2) * one)
        width = (2 + kept) * block
        yield RoundForecast(
            f"solve-{step}",
            1,
            flops=2.0 * 20 * width**3,
            read=shards * 16 * width * block,
            written=32 * width**2,
            requests=TASK_REQUESTS + moves(2 * shards + 6, 0),
        )
        held = 2 * (kept + 1) * one
        yield RoundForecast(
            f"update-{step}",
            shards,
            flops=4.0 * part,
            read=held + 2 * one,
            written=held + one,
            requests=shards * TASK_REQUESTS + moves(11 * shards, 2 * held),
            rows=rows,
        )
    yield passing("measure", 0, own=one)
    result = rows * (8 * config.dim + 16)
    yield RoundForecast(
        "vectors",
        shards,
        read=one,
        written=result,
        rows=rows,
        requests=shards * TASK_REQUESTS + moves(4 * shards, result),
    )


def _basis_flops(rows: int, block: int, kept: int) -> float:
    """Inner products of a basis with its last block and the next X, P and their images."""
    width = (2 + kept) * block
    return 2.0 * rows * width * (2 * block + 2 * (kept + 1) * block)
