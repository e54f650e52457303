"""From global ids to positions in a block."""

from __future__ import annotations

import numpy as np

from simdist.errors import InputError
from simdist.types import Ids

__all__ = ["as_ids", "locate"]


def as_ids(ids: Ids | None, count: int, what: str) -> Ids:
    """Global ids as a fresh int64 [count]; 0..count-1 where None. InputError on a mismatch."""
    if ids is None:
        return np.arange(count, dtype=np.int64)
    if len(ids) != count:
        raise InputError(f"{what}: {len(ids)} ids for {count} vectors; give one id per vector")
    return np.array(ids, dtype=np.int64)


def locate(ids: Ids, wanted: Ids, what: str) -> Ids:
    """Positions p with ids[p] == wanted; any shape. InputError names an id that is not there."""
    if len(ids) and ids[-1] - ids[0] == len(ids) - 1 and bool(np.all(np.diff(ids) == 1)):
        positions = np.asarray(wanted - ids[0])
        missing = (positions < 0) | (positions >= len(ids))
    else:
        order = np.argsort(ids, kind="stable")
        slots = np.searchsorted(ids, wanted, sorter=order).clip(max=max(0, len(ids) - 1))
        positions = order[slots] if len(ids) else np.zeros_like(wanted)
        missing = ids[positions] != wanted if len(ids) else np.ones(wanted.shape, bool)
    if missing.any():
        first = np.asarray(wanted)[missing].flat[0]
        raise InputError(f"{what}: id {first} is not among the {len(ids)} given")
    return positions.astype(np.int64, copy=False)
