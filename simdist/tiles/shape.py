"""How a block is cut into tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simdist.errors import ConfigError

__all__ = ["Tile", "cuts"]


@dataclass(frozen=True, slots=True)
class Tile:
    """The shape of a tile: rows x columns of one GEMM, held as float32.

    The default (4 MiB) is where OpenBLAS reaches its best rate from about 100 dimensions on while
    the tile is still in the cache when it is folded.
    """

    rows: int = 1024
    columns: int = 1024

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ConfigError(
                f"Tile: rows={self.rows}, columns={self.columns}; both must be at least 1"
            )

    def within(self, rows: int, columns: int) -> Tile:
        """This tile, no larger than the block it cuts."""
        return Tile(max(1, min(self.rows, rows)), max(1, min(self.columns, columns)))

    @property
    def nbytes(self) -> int:
        return 4 * self.rows * self.columns


def cuts(start: int, stop: int, step: int) -> Iterator[slice]:
    """Consecutive slices of at most `step` that cover start..stop."""
    for low in range(start, stop, step):
        yield slice(low, min(low + step, stop))
