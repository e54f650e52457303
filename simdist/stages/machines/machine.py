"""A fitted kernel machine as arrays, and as a dataset at rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.grams import Whitening
from simdist.measures import kernels
from simdist.runner.plan import Commit, Record
from simdist.solvers.cholesky import solve_lower_t
from simdist.store.datasets import Shard
from simdist.types import Array, Float64, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.store.datasets import Dataset

__all__ = [
    "Machine",
    "evaluate_nbytes",
    "model_commit",
    "read_machine",
    "unwhitened",
    "write_machine",
]

BLOCK_NBYTES = 16 << 20  # of kernel values at once


@dataclass(frozen=True, eq=False, slots=True)
class Machine:
    """f(x) = k(x, Z) C + offset. All of a fitted machine that predicting needs.

    Z: [r, d] centres. coefficients: [r, t]. offsets: [t].
    """

    kernel: kernels.Kernel
    Z: Float64
    coefficients: Float64
    offsets: Float64

    def __call__(self, X: Array) -> Float64:
        """f of some rows. X: [n, d] -> [n, t], in blocks of 16 MiB. Cost: n r (d + t) 2 flops."""
        out = np.empty((len(X), len(self.offsets)))
        step = max(256, BLOCK_NBYTES // (8 * len(self.Z)))
        for first in range(0, len(X), step):
            rows = X[first : first + step]
            out[first : first + step] = self.kernel.matrix(rows, self.Z) @ self.coefficients
        out += self.offsets
        return out


def unwhitened(whitening: Whitening, v: Float64) -> Float64:
    """Coefficients of the centres from those of whitened features: L^-T v. v: [r, t]."""
    return np.ascontiguousarray(solve_lower_t(whitening.L, np.asfortranarray(v)))


def evaluate_nbytes(rows: int, centres: int, dim: int, outputs: int) -> int:
    """What evaluating some rows holds: them, their values, and three blocks of the kernel."""
    block = min(rows, max(256, BLOCK_NBYTES // (8 * centres)))
    return 8 * (rows * (dim + outputs) + 3 * block * (centres + dim) + centres * (dim + outputs))


def write_machine(context: Context, machine: Machine) -> dict[str, ObjectRef]:
    """Leave a machine in the store: objects of the one shard of a model."""
    return {
        "centers": context.write_array("centers", machine.Z),
        "coefficients": context.write_array("coefficients", machine.coefficients),
        "offsets": context.write_array("offsets", machine.offsets),
    }


def read_machine(model: Dataset) -> Machine:
    """The machine of a committed model; InputError where the dataset is none."""
    kernel: Json = model.metrics.get("kernel")
    if kernel is None or not model.shards or "coefficients" not in model.shards[0].objects:
        raise InputError(
            f"{model.uri} is a dataset of {model.stage}, no kernel machine: expected a model that"
            " KernelRidge, KernelPCA or KernelSVM committed"
        )
    objects = model.shards[0].objects
    Z, C, offsets = (
        np.array(model.store.read_array(objects[role]))
        for role in ("centers", "coefficients", "offsets")
    )
    return Machine(kernels.resolve(kernel), Z, C, offsets)


def model_commit(record: Record) -> Commit:
    """A model's dataset: one shard, a row for every centre; its metrics are the record's facts."""
    rows = int(record.facts["centers"])
    return Commit(rows, (Shard(rows, dict(record.objects)),), dict(record.facts))
