"""What is asked of a feature map."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from simdist.errors import ConfigError
from simdist.types import Json, ObjectRef

__all__ = ["CENTERS", "Centers", "FeatureConfig", "Kind"]

Kind: TypeAlias = Literal["nystroem", "random_features"]
Centers: TypeAlias = Literal["random", "kmeans++", "pivots", "greedy"]
CENTERS: tuple[Centers, ...] = ("random", "kmeans++", "pivots", "greedy")


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """kernel: its spec; None: an RBF as wide as the rows lie apart. components: features wanted.

    centers: how Nystroem's are chosen; given: [m, d] of one's own, in the store, instead.
    orthogonal: whether random frequencies are drawn in orthogonal blocks.
    """

    kind: Kind
    kernel: Json
    components: int
    centers: Centers = "kmeans++"
    given: ObjectRef | None = None
    orthogonal: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ConfigError(f"n_components={self.components}: expected at least 1")
        if self.centers not in CENTERS:
            raise ConfigError(
                f"centers={self.centers!r}: expected one of {', '.join(CENTERS)}, or points [m, d]"
            )

    def to_json(self) -> Json:
        given = None if self.given is None else self.given.sha256
        return {**asdict(self), "given": given}
