"""What may be asked of affinity propagation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from simdist.errors import ConfigError
from simdist.types import Json

__all__ = ["AffinityConfig"]


@dataclass(frozen=True, slots=True)
class AffinityConfig:
    """preference: of a row to be an exemplar, on the scale of the weights; "median" takes the
    median weight of the edges. damping: share of the old message in the new. turns: at most.
    patience: turns without a change of exemplars that count as settled. rounds: 2 clusters the
    exemplars once more. seed: of the noise that parts ties."""

    preference: float | Literal["median"] = "median"
    damping: float = 0.7  # at 1/2 messages often swing for ever
    turns: int = 200
    patience: int = 15
    rounds: Literal[1, 2] = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.preference != "median" and not math.isfinite(self.preference):
            raise ConfigError(f"preference={self.preference!r}: expected a number, or 'median'")
        if not 0.5 <= self.damping < 1.0:
            raise ConfigError(f"damping={self.damping}: expected at least 0.5 and less than 1")
        for name in ("turns", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.rounds not in (1, 2):
            raise ConfigError(f"rounds={self.rounds}: expected 1, or 2 to cluster the exemplars")

    def to_json(self) -> Json:
        return asdict(self)
