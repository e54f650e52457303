"""Labels from an array as a dataset: written where the array is, committed without a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.runner.plan import Commit, Job, Round, Rounds, Taskless
from simdist.store.datasets import Shard
from simdist.types import Array, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.store.store import Store

__all__ = ["GivenLabels", "LabelsConfig", "write_labels"]

SHARD_ROWS = 1 << 22  # 32 MB


@dataclass(frozen=True, slots=True)
class LabelsConfig:
    """The shards of labels as they lie in the store."""

    rows: int
    labels: tuple[ObjectRef, ...]

    def to_json(self) -> Json:
        return {"rows": self.rows, "labels": [ref.sha256 for ref in self.labels]}


def write_labels(labels: Array, store: Store) -> LabelsConfig:
    """Write an array's shards. labels: [n] integers, -1 for a row that has none.

    Raises InputError for another shape or type, and for a number below -1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise InputError(
            f"expected labels [n] of integers, -1 where a row has none; got {labels.dtype} of shape"
            f" {labels.shape}"
        )
    low = int(labels.min())
    if low < -1:
        row = int(labels.argmin())
        raise InputError(
            f"row {row} has label {low}; expected -1 (no label) or a class from 0 on. Number the"
            " classes with numpy.unique(labels, return_inverse=True)."
        )
    cuts = range(0, len(labels), SHARD_ROWS)
    parts = (labels[first : first + SHARD_ROWS].astype(np.int64) for first in cuts)
    return LabelsConfig(len(labels), tuple(store.write_array("labels", part) for part in parts))


class GivenLabels(Taskless):
    """Commits shards that lie in the store already; has no tasks."""

    name: ClassVar[str] = "given_labels"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        config: LabelsConfig = job.config
        shards, left = [], config.rows
        for ref in config.labels:
            shards.append(Shard(min(left, SHARD_ROWS), {"labels": ref}))
            left -= SHARD_ROWS
        return Commit(config.rows, tuple(shards))
