"""Shared vocabulary: array aliases, JSON values, an object's identity, a doctor's finding, runs of
pieces of work."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Bools",
    "Finding",
    "Float32",
    "Float64",
    "Ids",
    "Int32",
    "Json",
    "ObjectRef",
    "Run",
    "Verdict",
]

T = TypeVar("T")

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
        """The reference that `to_json` gave; ValueError where it is none: files are named by it."""
        key, sha256, nbytes = value["key"], value["sha256"], value["nbytes"]
        if not isinstance(key, str):
            raise ValueError(f"key {key!r} is no text")
        if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(f"sha256 {sha256!r} of {key!r} is no 64 hexadecimal digits")
        if type(nbytes) is not int or nbytes < 0:
            raise ValueError(f"nbytes {nbytes!r} of {key!r} is no size")
        return cls(key, sha256, nbytes)


Verdict: TypeAlias = Literal["ok", "warning", "unfit"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What `simdist doctor` found in one check; `advice` says what to do, and is empty for ok.

    unfit: runs would fail, or lose or mix up data. warning: they work, and something deserves a
    look.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, Json]:
        return {
            "check": self.check,
            "verdict": self.verdict,
            "found": self.found,
            "advice": self.advice,
        }


class Run(Protocol):
    """[function(0), ..., function(count - 1)], side by side where there is room."""

    def __call__(self, function: Callable[[int], T], count: int) -> list[T]: ...
