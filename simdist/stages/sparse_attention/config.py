"""What may be asked of sparse attention."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from simdist.errors import ConfigError
from simdist.types import Json

__all__ = ["EXACT_ABOVE", "SparseConfig"]

EXACT_ABOVE = 0.25  # a key by itself costs some four times what it does in a matrix product


@dataclass(frozen=True, slots=True)
class SparseConfig:
    """scale: logits are scale q.k. tolerance: softmax mass that may be left out. budget: keys in
    full precision for each query at most, None for no limit. exact_above: share of the keys above
    which all of them are taken. sample: queries whose least number of keys is counted. columns: of
    the keys' dataset that are the values; () where a dataset of vectors is. exclude_self: query i
    does not see key i. seed: of the sample. span: keys that one task looks at, in whole panels;
    where there are no more, a task does all of a block of queries."""

    scale: float
    tolerance: float = 1e-2
    budget: int | None = None
    exact_above: float = EXACT_ABOVE
    sample: int = 32
    columns: tuple[str, ...] = ()
    exclude_self: bool = False
    seed: int = 0
    span: int = 1 << 18

    def __post_init__(self) -> None:
        if not np.isfinite(self.scale):
            raise ConfigError(f"scale={self.scale}: expected a finite number")
        if not 0.0 < self.tolerance < 1.0:
            raise ConfigError(
                f"tolerance={self.tolerance}: expected a share of the softmax mass, between 0 and 1"
            )
        if self.budget is not None and self.budget < 1:
            raise ConfigError(f"budget={self.budget}: expected at least 1 key, or none")
        if not 0.0 <= self.exact_above <= 1.0:
            raise ConfigError(
                f"exact_above={self.exact_above}: expected a share of the keys, between 0 (always"
                " exact) and 1 (never)"
            )
        if self.sample < 0:
            raise ConfigError(f"sample={self.sample}: expected a number of queries, or 0")
        if self.span < 1:
            raise ConfigError(f"span={self.span}: expected at least 1 key")
        if len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"columns={list(self.columns)}: each of them once")

    def to_json(self) -> Json:
        return asdict(self) | {"columns": list(self.columns)}
