"""What is asked of deduplication."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from simdist.errors import ConfigError
from simdist.types import Json

__all__ = ["MAX_REMOVED", "DedupeConfig", "DistinctConfig"]

MAX_REMOVED = 0.9


@dataclass(frozen=True, slots=True)
class DistinctConfig:
    """measure: as whose rows they are compared, once they are prepared for it."""

    measure: Json

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DedupeConfig:
    """threshold, semantics, cap, max_removed: as for `deduplicate`.

    keep: "first", "medoid", or "column". column: which; descending: its largest value is kept.
    measure: of the pairs' values.
    """

    threshold: float
    measure: Json
    keep: Literal["first", "medoid", "column"] = "first"
    column: str | None = None
    descending: bool = False
    semantics: Literal["leader", "components"] = "leader"
    cap: float | None = None
    max_removed: float = MAX_REMOVED

    def __post_init__(self) -> None:
        if self.semantics not in ("leader", "components"):
            raise ConfigError(
                f"semantics={self.semantics!r}: expected 'leader' (no row goes because of a row"
                " that went) or 'components' (chains count as one group)"
            )
        if self.cap is not None and self.semantics == "leader":
            raise ConfigError(
                f"cap={self.cap}: a leader's rows are all within the threshold of it; cap is for"
                " semantics='components'"
            )
        if self.cap is not None and not np.isfinite(self.cap):
            raise ConfigError(f"cap={self.cap}: expected a finite number, in the measure's units")
        if not 0.0 < self.max_removed <= 1.0:
            raise ConfigError(
                f"max_removed={self.max_removed}: expected a share of the rows, above 0 and up to 1"
            )

    def to_json(self) -> Json:
        return asdict(self)
