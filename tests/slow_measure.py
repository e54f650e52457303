"""A measure that takes its time, leaves traces, and can fail once: what runs are watched by."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simdist.measures import Measure, Traits


@dataclass(frozen=True, slots=True)
class Slow(Measure):
    """The largest difference of any coordinate.

    folder: where each block that is begun leaves a file. seconds: what a block takes, or less where
    a file `go` comes up there. stumbles: the first block of all fails as a broken connection does.
    """

    folder: str
    seconds: float = 0.0
    stumbles: bool = False

    name = "slow"
    traits = Traits(kind="distance", metric=True, low=0.0)

    def pair(self, x: Any, y: Any) -> float:
        return float(np.abs(x - y).max())

    def block(self, X: Any, Y: Any) -> Any:
        folder = Path(self.folder)
        first = not blocks(folder)
        (folder / f"block-{uuid.uuid4().hex}").touch()
        if first and self.stumbles:
            raise ConnectionResetError("the connection was reset, as the test asked")
        ends = time.monotonic() + self.seconds
        while time.monotonic() < ends and not (folder / "go").exists():
            time.sleep(0.05)
        A, B = self.both(X, Y)
        return np.stack([np.abs(a - B.vectors).max(axis=1) for a in A.vectors])


def blocks(folder: Path) -> int:
    """How many blocks were begun."""
    return len(list(folder.glob("block-*")))
