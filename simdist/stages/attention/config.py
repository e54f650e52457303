"""What is asked of attention over stored datasets, and the sizes that follow."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from simdist.errors import ConfigError, InputError
from simdist.partitions import power_of_two
from simdist.tiles.attend import attend_nbytes
from simdist.types import Json

__all__ = ["FAN", "AttentionConfig", "Causal", "Sizes"]

Causal: TypeAlias = Literal["upper_left", "lower_right"]

FAN = 64  # states that one task merges
GROUP_NBYTES = 16 << 20  # keys and values of a group
STATE_NBYTES = 16 << 20  # states of a block
MOST_QUERIES = 4096  # of a block: with a group of keys about a second's work
BASE_NBYTES = 8 << 20  # tables, ids, what allocators keep


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    """scale: of <q, k>; None: 1 / sqrt(d). bandwidth: h, of logits -|q - k|^2 / (2 h^2) instead.

    bias: a kept numeric column of the keys, added to their logits. mask: a kept bool column of the
        keys, false where nobody sees a key.
    causal: query row i sees key rows 0..i ("upper_left"), or 0..i + m - n ("lower_right").
    exclude_self: query row i does not see key row i.
    heads, kv_heads: parts that the columns of queries, and those of keys and values, are cut into.
    values: kept numeric columns of the values' dataset; () takes its vectors.
    dtype: of products and weights.
    """

    scale: float | None = None
    bandwidth: float | None = None
    bias: str | None = None
    mask: str | None = None
    causal: Causal | None = None
    exclude_self: bool = False
    heads: int = 1
    kv_heads: int = 1
    values: tuple[str, ...] = ()
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        if self.scale is not None and not math.isfinite(self.scale):
            raise ConfigError(f"scale={self.scale}: expected a finite number")
        if self.bandwidth is not None:
            if self.scale is not None:
                raise ConfigError(
                    f"scale={self.scale} and bandwidth={self.bandwidth}: give one of them; a"
                    " bandwidth is that of logits -|q - k|^2 / (2 h^2)"
                )
            if not 0.0 < self.bandwidth < math.inf:
                raise ConfigError(f"bandwidth={self.bandwidth}: expected a number above 0")
        if self.causal not in (None, "upper_left", "lower_right"):
            raise ConfigError(
                f"causal={self.causal!r}: expected 'upper_left', 'lower_right' or none"
            )
        if self.heads < 1 or self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ConfigError(
                f"heads={self.heads}, kv_heads={self.kv_heads}: expected positive numbers, heads a"
                " multiple of kv_heads"
            )
        if self.dtype not in ("float32", "float64"):
            raise ConfigError(f"dtype={self.dtype!r}: expected 'float32' or 'float64'")

    def to_json(self) -> Json:
        return {**asdict(self), "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows, columns, and how both are cut. dim: of the queries; value_dim: of the values."""

    queries: int
    keys: int
    dim: int
    value_dim: int
    heads: int
    kv_heads: int
    itemsize: int

    @classmethod
    def of(
        cls, config: AttentionConfig, queries: int, keys: int, dim: int, key_dim: int, values: int
    ) -> Sizes:
        """InputError where heads do not divide the columns."""
        parts = (("queries", dim, config.heads), ("keys", key_dim, config.kv_heads))
        for name, columns, heads in (*parts, ("values", values, config.kv_heads)):
            if columns % heads:
                raise InputError(
                    f"{name} have {columns} columns, which {heads} heads do not divide"
                )
        if dim // config.heads != key_dim // config.kv_heads:
            raise InputError(
                f"queries have {dim // config.heads} columns a head, keys"
                f" {key_dim // config.kv_heads}: expected as many"
            )
        size = 4 if config.dtype == "float32" else 8
        return cls(queries, keys, dim, values, config.heads, config.kv_heads, size)

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def head_values(self) -> int:
        """Columns of values of a head."""
        return self.value_dim // self.kv_heads

    @property
    def output_dim(self) -> int:
        return self.head_values * self.heads

    @property
    def state_columns(self) -> int:
        """float64 numbers of a query's state, all heads."""
        return self.heads * (self.head_values + 2)

    @property
    def block_rows(self) -> int:
        """Queries of a block."""
        fit = STATE_NBYTES // (8 * self.state_columns + self.itemsize * self.dim)
        return power_of_two(max(1, min(MOST_QUERIES, fit)))

    @property
    def blocks(self) -> int:
        return -(-self.queries // self.block_rows)

    @property
    def group_rows(self) -> int:
        """Keys of a group."""
        columns = self.head_dim * self.kv_heads + self.value_dim
        return power_of_two(max(1, GROUP_NBYTES // (self.itemsize * columns)))

    @property
    def groups(self) -> int:
        return -(-self.keys // self.group_rows)

    def block(self, number: int) -> tuple[int, int]:
        first = number * self.block_rows
        return first, min(first + self.block_rows, self.queries)

    def group(self, number: int) -> tuple[int, int]:
        first = number * self.group_rows
        return first, min(first + self.group_rows, self.keys)

    def state_nbytes(self) -> int:
        return 8 * min(self.block_rows, self.queries) * self.state_columns

    def fold_nbytes(self) -> int:
        """Of a fold: rows as they are read, as they are computed with, one head of them, and the
        state."""
        n, m = min(self.block_rows, self.queries), min(self.group_rows, self.keys)
        row = self.head_dim * self.kv_heads + self.value_dim
        read = 4 * (n * self.dim + m * row)
        copies = 2 * self.itemsize * (n * self.dim + m * row) + 16 * (n + m)
        tile = attend_nbytes(n, m, self.head_dim, self.head_values, self.itemsize)
        return read + copies + tile + self.state_nbytes() + BASE_NBYTES

    def merge_nbytes(self) -> int:
        """Of merges: a state for each level of the tree, and what merging two makes."""
        return (math.ceil(math.log2(FAN)) + 4) * self.state_nbytes() + BASE_NBYTES

    def finish_nbytes(self) -> int:
        rows = min(self.block_rows, self.queries)
        return self.merge_nbytes() + rows * (24 * self.output_dim + 64)
