"""Gaussian processes from neighbours on arrays in this process: what the stages compute, no store.

The same functions on the same numbers as `simdist.stages.neighbor_gp`: rows held as float32, the
same subsets drawn, the same exact neighbours. So an array fitted here and on a cluster is the same
model, bit for bit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from simdist.engine.threads import cpus_here, limited
from simdist.measures import resolve
from simdist.stages.neighbor_gp import (
    Parameters,
    ParametersConfig,
    Predicted,
    SampleConfig,
)
from simdist.stages.neighbor_gp.local import Local, predict_rows
from simdist.stages.neighbor_gp.parameters import fitted_parameters, subset_rows
from simdist.stages.neighbor_gp.scaled import sampled_rows
from simdist.stages.neighbor_gp.scores import calibrated_report
from simdist.stages.neighbor_gp.story import predicted, without_self
from simdist.stages.neighbor_gp.targets import moments_of, refuse_not_finite
from simdist.stages.vectors.shards import shard_rows
from simdist.tiles.exact import nearest
from simdist.types import Array, Float32, Float64, Ids, Json

__all__ = ["LocalModel", "fit_local"]

BLOCK_ROWS = 1024  # predicted together by one thread


@dataclass(frozen=True, eq=False, slots=True)
class LocalModel:
    """A fitted model in memory. X, scaled: [n, d] float32. y: [n] float64, as given."""

    parameters: Parameters
    X: Float32
    y: Float64
    scaled: Float32
    neighbors: int
    calibration: float = 1.0
    held_out: dict[str, Json] | None = None

    def predict(self, X: Array) -> Predicted:
        """New rows. X: [m, d]."""
        scaled = self.parameters.scaled(X)

        targets = self.parameters.standardised(self.y)

        def block(rows: slice) -> Local:
            near = self._nearest(scaled[rows], min(self.neighbors, len(self.X)))
            return self._solve(X[rows], near, targets)

        return predicted(_blockwise(block, len(X)), self.parameters, self.calibration)

    def leave_one_out(self, rows: Ids) -> Local:
        """Training rows, each without itself; standardised."""
        k = min(self.neighbors, len(self.X) - 1) + 1
        targets = self.parameters.standardised(self.y)

        def block(some: slice) -> Local:
            own = rows[some]
            near = self._nearest(self.scaled[own], k)
            return self._solve(self.X[own], without_self(near, own), targets)

        return _blockwise(block, len(rows))

    def predict_left_out(self) -> Predicted:
        """All training rows, each without itself."""
        left_out = self.leave_one_out(np.arange(len(self.X)))
        return predicted(left_out, self.parameters, self.calibration)

    def _nearest(self, scaled: Array, k: int) -> Ids:
        return nearest(resolve("euclidean"), scaled, self.scaled, k, exclude_self=False).ids

    def _solve(self, X: Array, near: Ids, targets: Float64) -> Local:
        kernel, noise = self.parameters.kernel, self.parameters.noise
        return predict_rows(kernel, noise, X, near, self.X, targets)


def fit_local(
    config: ParametersConfig, X: Float32, y: Float64, *, neighbors: int, sample: SampleConfig
) -> LocalModel:
    """Fit and calibrate. X: [n, d] float32, n at least 2. y: [n] float64."""
    refuse_not_finite(y)
    size = shard_rows(X.shape[1])
    moments = moments_of(y[first : first + size] for first in range(0, len(y), size))
    subsets = subset_rows(config, len(y), _rng(config.seed, "subset"))
    with limited(1):  # as in a task: the sums of one thread
        parameters = fitted_parameters(
            config, moments, [X[rows] for rows in subsets], [y[rows] for rows in subsets]
        )
    model = LocalModel(parameters, X, y, parameters.scaled(X), neighbors)
    rows = sampled_rows(sample, len(X), _rng(sample.seed, "sample"))
    found = predicted(model.leave_one_out(rows), parameters)
    calibration, scores = calibrated_report(y[rows], found.mean, found.variance)
    return LocalModel(parameters, X, y, model.scaled, neighbors, calibration, scores)


def _rng(seed: int, key: str) -> np.random.Generator:
    """As `Context.rng`."""
    return np.random.default_rng([seed, zlib.crc32(key.encode())])


def _blockwise(solve: Callable[[slice], Local], rows: int) -> Local:
    """Blocks of rows side by side on this process's threads, in order."""
    blocks = [slice(first, min(first + BLOCK_ROWS, rows)) for first in range(0, rows, BLOCK_ROWS)]
    if len(blocks) == 1:
        with limited(1):
            return solve(blocks[0])
    with limited(1), ThreadPoolExecutor(cpus_here(), thread_name_prefix="simdist-gp") as pool:
        return _joined(pool.map(solve, blocks))


def _joined(parts: Iterator[Local] | Sequence[Local]) -> Local:
    means, latents = zip(*parts, strict=True)
    return Local(np.concatenate(means), np.concatenate(latents))
