"""What may be asked of mean-shift, and the rules of where its climbs start."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from simdist.errors import ConfigError
from simdist.stages.density.climb import Kernel
from simdist.stages.density.fold import FieldConfig, Precision
from simdist.types import Json

__all__ = [
    "CHUNK",
    "HELD_VALUES",
    "LISTED",
    "MODES_VALUES",
    "WAVE",
    "Seeds",
    "ShiftConfig",
    "seeding_of",
]

Seeds: TypeAlias = Literal["auto", "all", "bins", "cover"]

CHUNK = 1024  # points that climb together
WAVE = 4096  # seeds of a wave
ALL_FLOPS = 2.0**34  # n n d up to which every row is a seed by default
HELD_VALUES = 1 << 25  # n d up to which a task keeps the data in units of the bandwidth
MODES_VALUES = 1 << 25  # values of all modes that one task can merge
LISTED = 100  # modes whose sizes the manifest tells; objects have all


@dataclass(frozen=True, slots=True)
class ShiftConfig:
    """See `mean_shift`. turns: moves a point may make after its first. tolerance: bandwidths of a
    move by which a point has arrived. merge: bandwidths within which ends are one mode. least: rows
    of a bin that makes a seed. everyone: whether rows far from all modes are labelled too."""

    kernel: Kernel = "flat"
    seeds: Seeds = "auto"
    turns: int = 300
    tolerance: float = 1e-3
    merge: float = 1.0
    least: int = 1
    everyone: bool = True
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        FieldConfig(self.precision)
        if self.kernel not in ("flat", "gaussian"):
            raise ConfigError(f"kernel={self.kernel!r}: expected 'flat' or 'gaussian'")
        if self.seeds not in ("auto", "all", "bins", "cover"):
            raise ConfigError(f"seeds={self.seeds!r}: expected 'auto', 'all', 'bins' or 'cover'")
        if self.turns < 1 or self.least < 1:
            raise ConfigError(f"turns={self.turns}, least={self.least}: expected at least 1")
        if not 0 < self.tolerance < 1 or not 0 < self.merge <= 2:
            raise ConfigError(
                f"tolerance={self.tolerance}, merge={self.merge}: expected bandwidths, above 0 and"
                " below 1, above 0 and at most 2"
            )

    def to_json(self) -> Json:
        return asdict(self)


def seeding_of(config: ShiftConfig, rows: int, dim: int) -> Seeds:
    """What "auto" means for so many rows."""
    if config.seeds != "auto":
        return config.seeds
    return "all" if float(rows) * rows * dim <= ALL_FLOPS else "cover"
