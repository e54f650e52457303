"""Stage `fit_features`: a map from a sample of stored vectors. Inputs: vectors.

    fit    centres or frequencies     one task

What is committed is a model: one shard, as many rows as features, with the arrays of the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.panels import rows_between
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.features.centers import sample_rows, sampled
from simdist.stages.features.config import FeatureConfig
from simdist.stages.features.maps import FeatureMap, fitted
from simdist.store.datasets import Dataset, Shard
from simdist.types import Array, Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["FitFeatures", "committed_map", "write_map"]

BASE_NBYTES = 16 << 20


class FitFeatures:
    """See the module docstring."""

    name: ClassVar[str] = "fit_features"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        vectors, config = job.inputs["vectors"], job.config
        if "fit" in rounds:
            return committed_map(rounds["fit"][0])
        nbytes = self.forecast(config, vectors.rows, int(vectors.metrics["dim"])).nbytes
        return Round("fit", (Task("fit", "fit", {}, nbytes),))

    def compute(self, context: Context, task: Task) -> Record:
        vectors, config = context.inputs["vectors"], context.config
        size = sample_rows(vectors.rows, config.components, config.centers)
        rows = sampled(vectors.rows, size, context.rng("sample"))
        given = None if config.given is None else context.load(config.given)
        found = fitted(config, _taken(vectors, rows), given, context.rng, context.check)
        return write_map(context, task, found)

    def forecast(self, config: FeatureConfig, rows: int, dim: int) -> Forecast:
        """Cost of the one task."""
        size, m = sample_rows(rows, config.components, config.centers), config.components
        factors = size * m if config.centers in ("pivots", "greedy") else 0
        # what choosing and factoring hold: the sample twice, factors of pivots, a few of m x m
        nbytes = 8 * (2 * size * dim + factors + 4 * m * m + 2 * m * dim) + BASE_NBYTES
        flops = 2.0 * size * m * (dim + (m if factors else 0)) + m**3 / 3.0
        return Forecast(1, nbytes, flops, 8 * m * (m + dim))


def write_map(context: Context, task: Task, found: FeatureMap) -> Record:
    """Leave a map in the store. Facts: what its manifest says."""
    objects = {role: context.write_array(role, array) for role, array in found.arrays().items()}
    return Record(task.key, objects, found.facts())


def committed_map(record: Record) -> Commit:
    """The model of such a record."""
    rows = int(record.facts["components"])
    return Commit(rows, (Shard(rows, dict(record.objects)),), dict(record.facts))


def _taken(vectors: Dataset, rows: Ids) -> Array:
    """Ascending rows of a dataset, one shard open at a time: [s, d]."""
    parts, offset = [], 0
    for shard in vectors.shards:
        low, high = np.searchsorted(rows, [offset, offset + shard.rows])
        if low < high:
            held = rows_between(vectors, "vectors", offset, offset + shard.rows)
            parts.append(held[rows[low:high] - offset])
        offset += shard.rows
    return np.concatenate(parts)
