"""Shared vocabulary: array aliases, JSON values, and the identity of an object in a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Bools", "Float32", "Float64", "Ids", "Int32", "Json", "ObjectRef"]

Array: TypeAlias = npt.NDArray[Any]
Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int32: TypeAlias = npt.NDArray[np.int32]
Ids: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Json: TypeAlias = (
    Any  # what `json.dumps` accepts: a recursive alias buys little and costs every reader
)


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One immutable object of a store: its key, its bytes' sha256 (hex), its size in bytes."""

    key: str
    sha256: str
    nbytes: int

    def to_json(self) -> dict[str, Json]:
        return {"key": self.key, "sha256": self.sha256, "nbytes": self.nbytes}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> ObjectRef:
        return cls(key=value["key"], sha256=value["sha256"], nbytes=value["nbytes"])
