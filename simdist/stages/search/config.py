"""What is asked of a search, and of the index it looks into."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from simdist.errors import ConfigError
from simdist.types import Json

__all__ = ["IndexConfig", "SearchConfig"]


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """k, measure, method, recall, seed: as for the k-NN graph.

    sample: queries that choose the number of probes. probes: cells a query looks into; None chooses
    for the recall. where: the canonical form of a condition on the corpus' kept columns, or none.
    """

    k: int
    measure: Json
    method: Literal["approximate", "exact"] = "exact"
    recall: float | None = 0.95
    seed: int = 0
    sample: int = 1000
    probes: int | None = None
    where: Json = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k={self.k}: expected at least 1 neighbour")
        if self.method not in ("approximate", "exact"):
            raise ConfigError(f"method={self.method!r}: expected 'approximate' or 'exact'")
        if self.recall is not None and not 0.0 < self.recall < 1.0:
            raise ConfigError(f"recall={self.recall}: expected a number between 0 and 1, or none")
        if self.sample < 1 or (self.probes is not None and self.probes < 1):
            raise ConfigError(f"sample={self.sample}, probes={self.probes}: expected at least 1")

    def to_json(self) -> Json:
        asked = {"k": self.k, "measure": self.measure, "method": self.method}
        if self.method != "exact":
            asked = asdict(self)
            del asked["where"]
        return asked if self.where is None else {**asked, "where": self.where}


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """cells: how many, by default 8 sqrt(n). seed: draws the rows that k-means begins with."""

    cells: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cells is not None and self.cells < 1:
            raise ConfigError(f"index cells={self.cells}: expected at least 1, or none to choose")

    def to_json(self) -> Json:
        return asdict(self)
