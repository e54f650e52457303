"""What a user may choose when a graph grows: little, as the graph's own promise is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simdist.types import Json, ObjectRef

if TYPE_CHECKING:
    from simdist.stages.grow.lineage import Promise

__all__ = ["CompactConfig", "GrowConfig", "PlainConfig"]


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """Of stages that have nothing to choose."""

    def to_json(self) -> Json:
        return {}


@dataclass(frozen=True, slots=True)
class GrowConfig:
    """seed: draws the rows on which recall is measured. deleted: an array in the store, the rows to
    delete, ascending; None where rows are appended."""

    seed: int = 0
    deleted: ObjectRef | None = None

    def to_json(self) -> Json:
        value: dict[str, Json] = {"sample_seed": self.seed}
        if self.deleted is not None:
            value["deleted"] = self.deleted.sha256
        return value


@dataclass(frozen=True, slots=True)
class CompactConfig:
    """promise: what the graph was asked for."""

    promise: Promise

    def to_json(self) -> Json:
        return self.promise.to_json()
