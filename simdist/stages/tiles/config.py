"""What a user asks of dense tiles, and what is refused before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from simdist.engine.memory import format_nbytes
from simdist.errors import ConfigError, PlanTooLarge
from simdist.types import Json

__all__ = ["MAX_NBYTES", "TilesConfig", "refuse_too_large"]

MAX_NBYTES = 64 << 30  # 131,072 rows against themselves in float32, 185,363 in float16
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 16_384


@dataclass(frozen=True, slots=True)
class TilesConfig:
    """measure: a measure's spec. dtype: what values are stored as.

    block: rows and columns of a shard, a power of two; None lets n and d choose.
    max_nbytes: a matrix larger than this is refused; no part of the result.
    """

    measure: Json
    dtype: Literal["float32", "float16"] = "float32"
    block: int | None = None
    max_nbytes: int = MAX_NBYTES

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16"):
            raise ConfigError(f"dtype={self.dtype!r}: expected 'float32' or 'float16'")
        if self.block is not None and not (
            SMALLEST_BLOCK <= self.block <= LARGEST_BLOCK and self.block.bit_count() == 1
        ):
            raise ConfigError(
                f"block={self.block}: expected a power of two from {SMALLEST_BLOCK} to"
                f" {LARGEST_BLOCK}, rows and columns of a shard, or none to choose"
            )

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    def to_json(self) -> Json:
        return {"measure": self.measure, "dtype": self.dtype, "block": self.block}


def refuse_too_large(config: TilesConfig, rows: int, columns: int) -> None:
    """PlanTooLarge where the whole matrix, uncompressed, is larger than the config allows."""
    nbytes = rows * columns * config.itemsize
    if nbytes <= config.max_nbytes:
        return
    half = " dtype='float16' takes half of it." if config.dtype == "float32" else ""
    raise PlanTooLarge(
        f"similarity_tiles of {rows:,} x {columns:,} in {config.dtype} is"
        f" {format_nbytes(nbytes)}; the limit is {format_nbytes(config.max_nbytes)}.{half} Raise"
        f" max_nbytes to {nbytes} if all of it is needed; knn_graph keeps each row's nearest in"
        " n x k, and knn searches one set in another."
    )
