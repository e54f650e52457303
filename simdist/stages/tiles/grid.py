"""How a matrix is cut into blocks: what follows from n, m, d and the config alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simdist.stages.tiles.config import LARGEST_BLOCK, SMALLEST_BLOCK, TilesConfig

__all__ = ["Grid"]

CHUNK = 512  # what a reader decodes at once: a megabyte of float32
USUAL_BLOCK = 2048  # 16 MiB of float32: an object that one request carries
TASK_NBYTES = 128 << 20  # rows of many dimensions get smaller blocks, to stay below
BLOCKS_WANTED = 4  # along the longer side, so that small data keeps a few workers busy
TILE = 1024  # rows and columns of one GEMM


@dataclass(frozen=True, slots=True)
class Grid:
    """Blocks of a [rows, columns] matrix. `own`: the columns are the rows.

    symmetric: whether a pair's values serve both of its blocks.
    """

    rows: int
    columns: int
    dim: int
    itemsize: int
    block: int
    own: bool
    symmetric: bool

    @classmethod
    def of(
        cls, config: TilesConfig, rows: int, columns: int | None, dim: int, *, symmetric: bool
    ) -> Grid:
        """columns=None: the rows against themselves. symmetric: of the measure."""
        own = columns is None
        longest = max(rows, columns or 0)

        def cut(block: int) -> Grid:
            return cls(
                rows=rows,
                columns=rows if columns is None else columns,
                dim=dim,
                itemsize=config.itemsize,
                block=block,
                own=own,
                symmetric=own and symmetric,
            )

        if config.block is not None:
            return cut(config.block)
        block = CHUNK
        while block < USUAL_BLOCK and block * BLOCKS_WANTED < longest:
            block *= 2
        while block > SMALLEST_BLOCK and cut(block).nbytes > TASK_NBYTES:
            block //= 2
        return cut(min(block, LARGEST_BLOCK))

    @property
    def chunk(self) -> int:
        """Rows and columns of a chunk within a shard."""
        return min(CHUNK, self.block)

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks down and across."""
        return -(-self.rows // self.block), -(-self.columns // self.block)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Block pairs, one task each. Of one set against itself, the diagonal first: there an
        inner product is largest, so that one which float16 cannot hold is found early."""
        down, across = self.blocks
        if not self.own:
            yield from ((i, j) for i in range(down) for j in range(across))
            return
        yield from ((i, i) for i in range(down))
        yield from ((i, j) for i in range(down) for j in range(i + 1, down))

    @property
    def nbytes(self) -> int:
        """What a task holds at most: its rows (of both sides, joined and prepared), the block's
        values and their cast, a shard (its chunks, the shard, its bytes) beside the last one, a
        tile on its way."""
        tile = min(TILE, self.block)
        vectors = 4 * 4 * self.block * (self.dim + 1)
        return vectors + self.block**2 * (8 + 3 * self.itemsize) + 16 * tile**2 + (2 << 20)

    @property
    def matrix_nbytes(self) -> int:
        return self.rows * self.columns * self.itemsize

    @property
    def flops(self) -> float:
        return (1.0 if self.symmetric else 2.0) * self.rows * self.columns * self.dim
