"""What is asked of a similarity join."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from simdist.errors import ConfigError
from simdist.measures import resolve
from simdist.tiles.threshold import Threshold
from simdist.types import Json

__all__ = ["MAX_PAIRS", "JoinConfig"]

MAX_PAIRS = 100_000_000


@dataclass(frozen=True, slots=True)
class JoinConfig:
    """threshold, measure, method: as for `similarity_join`.

    max_pairs: more are refused; a limit, not part of what is computed.
    recall: what the lower end of the 95 % interval of pair recall must reach (approximate).
    sample: rows compared with all others, for the forecast and for recall. seed: draws them.
    """

    threshold: float
    measure: Json
    method: Literal["exact", "approximate"] = "exact"
    max_pairs: int = MAX_PAIRS
    recall: float = 0.95
    seed: int = 0
    sample: int = 512

    def __post_init__(self) -> None:
        if self.method not in ("exact", "approximate"):
            raise ConfigError(f"method={self.method!r}: expected 'exact' or 'approximate'")
        if self.max_pairs < 1 or self.sample < 2:
            raise ConfigError(
                f"max_pairs={self.max_pairs}, sample={self.sample}: expected at least 1 pair and 2"
                " sampled rows"
            )
        if not (0.0 < self.recall < 1.0 and math.isfinite(self.recall)):
            raise ConfigError(f"recall={self.recall}: expected a number between 0 and 1")
        self.limit()

    def limit(self) -> Threshold:
        """The threshold under its measure; ConfigError where none or all pairs reach it."""
        return Threshold(resolve(self.measure), float(self.threshold))

    def to_json(self) -> Json:
        exact = {
            "threshold": float(self.threshold),
            "measure": self.measure,
            "method": self.method,
            "seed": self.seed,
            "sample": self.sample,
        }
        return exact if self.method == "exact" else {**exact, "recall": self.recall}
